"""Clients that keep the server waiting, by many real sockets: they end, and others do not notice."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import resource
import socket
import ssl
import struct
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from edge_face import settings
from edge_face.web import connections, forms
from tests.support.api import Api, running, view

LOCAL = "127.0.0.1"
KEEPS_LITTLE = 4096
"""A receive buffer that is full at once."""


@pytest.fixture
async def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Api]:
    monkeypatch.setattr(connections, "_LOOK_S", 0.1)
    monkeypatch.setitem(connections._OPTIONS, "lingering_time", 0.5)
    async with running(tmp_path) as api:
        yield api


Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@pytest.fixture
async def connect(api: Api) -> AsyncIterator[Callable[..., Awaitable[Line]]]:
    """Opens a connection and says what it is told to."""
    opened: list[asyncio.StreamWriter] = []

    async def connect(said: str = "", source: str = LOCAL) -> Line:
        reader, writer = await asyncio.open_connection(LOCAL, api.server.port, local_addr=(source, 0))
        opened.append(writer)
        writer.write(said.replace("\n", "\r\n").encode())
        return reader, writer

    yield connect
    for writer in opened:
        writer.transport.abort()


def head(api: Api, request: str, token: str = "", **headers: str) -> str:
    fields = {"Host": "localhost", **({"X-API-Key": token} if token else {}), **headers}
    return f"{request} HTTP/1.1\n" + "".join(f"{k.replace('_', '-')}: {v}\n" for k, v in fields.items()) + "\n"


def watch(api: Api) -> str:
    key = {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version": "13"}
    return head(api, "GET /ws/face-stream", api.viewer, Upgrade="websocket", Connection="Upgrade", **key)


async def drip(line: Line, said: str, every_s: float = 0.05) -> tuple[bytes, float]:
    """Say it byte by byte, for as long as anybody listens; what was answered, and after how long."""
    reader, writer = line
    begin = time.monotonic()
    answer = bytearray()

    async def hear() -> None:
        with contextlib.suppress(ConnectionError):
            while heard := await reader.read(1000):
                answer.extend(heard)

    hearing = asyncio.create_task(hear())
    with contextlib.suppress(ConnectionError):
        for letter in said.replace("\n", "\r\n").encode():
            if hearing.done() or answer:
                break
            writer.write(bytes([letter]))
            await asyncio.wait((hearing,), timeout=every_s)
    await asyncio.wait_for(hearing, 8)
    return bytes(answer), time.monotonic() - begin


def told(answer: bytes) -> tuple[int, str]:
    """Status and error."""
    first, _, body = answer.partition(b"\r\n\r\n")
    error = json.loads(body)
    assert error["message"]
    return int(first.split()[1]), error["error"]


async def healthy(api: Api) -> float:
    """How long a client of its own waits for an answer."""
    begin = time.monotonic()
    async with aiohttp.ClientSession() as session, session.get(f"{api.server.url}/healthz") as answer:
        assert answer.status == 200
    return time.monotonic() - begin


async def test_many_that_are_slow_or_silent_are_shown_out_and_slow_nobody(
    api: Api, connect: Callable[..., Awaitable[Line]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 1.5)
    loris = [drip(await connect(), head(api, "GET /faces", api.viewer, X_Long="x" * 1000)) for _ in range(40)]
    silent = [drip(await connect(), "") for _ in range(40)]
    others = asyncio.create_task(_ask_for(api, 1.2))
    ends = await asyncio.gather(*loris, *silent)
    waits = await others
    assert all(told(answer) == (408, "request_timeout") for answer, _ in ends[:40])
    assert all(answer == b"" for answer, _ in ends[40:])
    assert all(1.0 < took_s < 4 for _, took_s in ends)
    assert len(waits) > 3
    assert max(waits) < 1
    assert len(api.server.connections) == 0


async def _ask_for(api: Api, seconds: float) -> list[float]:
    end, waits = time.monotonic() + seconds, []
    while time.monotonic() < end:
        waits.append(await healthy(api))
    return waits


async def test_the_next_request_of_a_connection_has_the_same_time_and_none_but_idle(
    api: Api, connect: Callable[..., Awaitable[Line]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "HEAD_S", 0.5)
    monkeypatch.setattr(connections, "IDLE_S", 2.0)
    ask = head(api, "GET /healthz")
    begin = time.monotonic()
    idle, slow = await connect(ask), await connect(ask)
    await asyncio.gather(*(line[0].readuntil(b"}") for line in (idle, slow)))
    assert told((await drip(slow, ask))[0]) == (408, "request_timeout")
    assert time.monotonic() - begin < 2
    assert await idle[0].read() == b""
    assert time.monotonic() - begin > 1.9


@pytest.mark.parametrize(
    ("request_line", "kind"),
    [
        ("POST /register", "multipart/form-data; boundary=b"),
        ("POST /unregister", "application/x-www-form-urlencoded"),
        ("POST /create-student", "application/json"),
        ("POST /register-faces", "multipart/form-data; boundary=b"),
    ],
)
async def test_a_body_that_drips_is_given_up(
    api: Api,
    connect: Callable[..., Awaitable[Line]],
    monkeypatch: pytest.MonkeyPatch,
    request_line: str,
    kind: str,
) -> None:
    monkeypatch.setattr(forms, "BODY_GRACE_S", 0.5)
    body = '--b\nContent-Disposition: form-data; name="image"; filename="x"\n\n' + "x" * 1000
    line = await connect(head(api, request_line, api.admin, Content_Type=kind, Content_Length="100000"))
    answer, took_s = await drip(line, body)
    assert told(answer) == (408, "request_timeout")
    assert took_s < 4


async def test_a_stranger_s_body_is_not_waited_for(api: Api, connect: Callable[..., Awaitable[Line]]) -> None:
    line = await connect(head(api, "POST /register", Content_Type="multipart/form-data", Content_Length="100000"))
    answer, took_s = await drip(line, "x" * 1000)
    assert told(answer) == (401, "unauthorized")
    assert took_s < 4


@pytest.mark.parametrize("request_line", ["POST /register", "POST /create-student"])
async def test_a_body_that_cannot_be_unpacked_is_refused(
    api: Api, connect: Callable[..., Awaitable[Line]], request_line: str
) -> None:
    kind = "application/json" if "student" in request_line else "multipart/form-data; boundary=b"
    fields = {"Content_Type": kind, "Content_Length": "20", "Content_Encoding": "gzip", "Connection": "close"}
    reader, _ = await connect(head(api, request_line, api.admin, **fields) + "x" * 20)
    assert told(await reader.read()) == (400, "malformed_body")


async def test_a_client_that_leaves_in_the_middle_is_no_error_of_ours(
    api: Api, connect: Callable[..., Awaitable[Line]], caplog: pytest.LogCaptureFixture
) -> None:
    for kind, path in (("application/json", "/create-student"), ("multipart/form-data; boundary=b", "/register")):
        fields = {"Content_Type": kind, "Content_Length": "1000"}
        _, writer = await connect(head(api, f"POST {path}", api.admin, **fields) + "--b\n")
        await asyncio.sleep(0.1)
        writer.transport.abort()
    while len(api.server.connections):
        await asyncio.sleep(0.05)
    await asyncio.sleep(0.1)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


async def test_a_head_without_an_end_is_refused(api: Api, connect: Callable[..., Awaitable[Line]]) -> None:
    line = await connect("GET /healthz HTTP/1.1\nHost: localhost\n")
    reader, writer = line
    for number in range(17):  # the last one goes over the bound
        writer.write(f"X-{number}: {'x' * 4000}\r\n".encode())
        await asyncio.sleep(0.01)
    assert told(await reader.read()) == (413, "too_large")


async def test_answers_that_nobody_reads_are_given_up_and_slow_readers_served(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "STALLED_S", 1.0)
    count = 20
    asks = head(api, "GET /openapi.json", api.viewer).replace("\n", "\r\n").encode() * count
    lines = []
    for _ in range(6):
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KEEPS_LITTLE)
        line.connect((LOCAL, api.server.port))
        line.sendall(asks)
        lines.append(line)
    slow, *stalled = lines
    slow.setblocking(False)
    received = bytearray()
    loop = asyncio.get_running_loop()
    begin = time.monotonic()
    while time.monotonic() - begin < 2.5:  # all the time a little
        received += await loop.sock_recv(slow, KEEPS_LITTLE)
        await asyncio.sleep(0.01)
    while len(api.server.connections) > 1:
        assert time.monotonic() - begin < 6
        await asyncio.sleep(0.05)
    while received.count(b'"openapi"') < count:
        received += await asyncio.wait_for(loop.sock_recv(slow, 1 << 20), 5)
    for line in (slow, *stalled):
        line.close()


async def test_when_all_are_taken_the_one_that_waits_longest_gives_way(
    api: Api, connect: Callable[..., Awaitable[Line]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_OPEN", 8)
    silent = [await connect() for _ in range(40)]
    assert await healthy(api) < 1
    assert len(api.server.connections) <= 8
    assert await silent[0][0].read() == b""
    assert not silent[-1][0].at_eof()


async def test_when_all_are_at_work_a_new_one_hears_so(
    api: Api, connect: Callable[..., Awaitable[Line]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_OPEN", 4)
    monkeypatch.setattr(connections, "MAX_REFUSED", 3)
    viewers = [await connect(watch(api)) for _ in range(4)]
    await asyncio.gather(*(line[0].readuntil(b"\r\n\r\n") for line in viewers))
    ask = head(api, "GET /healthz")
    reader, _ = await connect(ask)
    assert told(await reader.read()) == (503, "too_many_connections")
    crowd = [await connect() for _ in range(10)]
    assert len(api.server.connections) <= 4 + 3
    assert sum([await _ends(line) for line in crowd]) == 10 - 3
    api.views.send(view())
    for line in viewers:  # they notice nothing
        await asyncio.wait_for(line[0].readuntil(b"Katya"), 3)
    viewers[0][1].close()
    await asyncio.sleep(0.2)
    reader, _ = await connect(ask)
    assert b" 200 OK" in await reader.readline()


async def _ends(line: Line) -> bool:
    try:
        return await asyncio.wait_for(line[0].read(), 0.3) == b""
    except TimeoutError:
        return False
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("proxy", [False, True])
async def test_one_address_does_not_take_all_unless_it_may_be_a_proxy(
    api: Api, connect: Callable[..., Awaitable[Line]], monkeypatch: pytest.MonkeyPatch, proxy: bool
) -> None:
    monkeypatch.setattr(connections, "MAX_OF_NETWORK", 3)
    if not proxy:
        monkeypatch.setattr(connections, "is_loopback", lambda _address: False)
    viewers = [await connect(watch(api)) for _ in range(3)]
    await asyncio.gather(*(line[0].readuntil(b"\r\n\r\n") for line in viewers))
    ask = head(api, "GET /healthz", Connection="close")
    here, there = await connect(ask), await connect(ask, source="127.0.0.2")
    if proxy:
        assert b" 200 OK" in await here[0].read()
    else:
        assert told(await here[0].read()) == (503, "too_many_connections")
    assert b" 200 OK" in await there[0].read()


async def test_streams_outlive_every_time_out(
    api: Api, connect: Callable[..., Awaitable[Line]], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HEAD_S", "IDLE_S", "STALLED_S"):
        monkeypatch.setattr(connections, name, 0.3)
    socket_line = await connect(watch(api))
    mjpeg = await connect(head(api, "GET /streaming", api.viewer))
    await asyncio.gather(*(line[0].readuntil(b"\r\n\r\n") for line in (socket_line, mjpeg)))
    await asyncio.sleep(1.5)
    api.views.send(view())
    assert await asyncio.wait_for(socket_line[0].readuntil(b"Katya"), 3)
    assert not mjpeg[0].at_eof()
    assert len(api.server.connections) == 2


class _Filter(ctypes.Structure):
    _fields_ = (("count", ctypes.c_ushort), ("code", ctypes.c_void_p))


def goes_deaf(line: socket.socket) -> None:
    """As a machine without power: nothing that arrives is taken or acknowledged (a BPF filter that drops all)."""
    code = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0), 8)  # BPF_RET | BPF_K, 0
    line.setsockopt(socket.SOL_SOCKET, 26, bytes(_Filter(1, ctypes.addressof(code))))  # SO_ATTACH_FILTER


@pytest.mark.parametrize("frames", [True, False], ids=["while frames come", "without any"])
async def test_a_viewer_whose_machine_is_gone_goes_too(
    api: Api, connect: Callable[..., Awaitable[Line]], monkeypatch: pytest.MonkeyPatch, frames: bool
) -> None:
    monkeypatch.setattr(connections, "DEAD_S", 2)
    monkeypatch.setattr(connections, "_PROBE_S", 1)
    lines = [
        await connect(watch(api)),
        await connect(watch(api)),
        await connect(head(api, "GET /streaming", api.viewer)),
    ]
    await asyncio.gather(*(line[0].readuntil(b"\r\n\r\n") for line in lines))
    for _, writer in lines[1:]:
        goes_deaf(writer.get_extra_info("socket")._sock)
    begin = time.monotonic()
    while len(api.server.connections) > 1:
        assert time.monotonic() - begin < 10
        if frames:
            api.views.send(view())
        await asyncio.sleep(0.1)
    api.views.send(view())
    assert await asyncio.wait_for(lines[0][0].readuntil(b"Katya"), 3)


async def test_handshakes_that_never_come_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_OPEN", 8)
    monkeypatch.setattr(connections, "_HANDSHAKE_S", 1.0)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run([*command, "-keyout", key, "-out", cert, "-days", "1", *subject], check=True, capture_output=True)
    config = settings.Config(api=settings.Api(port=0, cert=str(cert), key=str(key)))
    async with running(tmp_path, config=config) as api:
        silent = [await asyncio.open_connection(LOCAL, api.server.port) for _ in range(30)]
        assert len(api.server.connections) <= 8
        trust: Any = ssl.create_default_context(cafile=str(cert))
        begin = time.monotonic()
        async with api.session.get(f"{api.server.url}/healthz", ssl=trust) as answer:
            assert answer.status == 200
        assert time.monotonic() - begin < 1
        await asyncio.gather(*(_ends(line) for line in silent))
        while len(api.server.connections) > 1:
            assert time.monotonic() - begin < 5
            await asyncio.sleep(0.05)
        for _, writer in silent:
            writer.transport.abort()


async def test_without_descriptors_it_waits_and_goes_on(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    client = socket.socket()
    client.setblocking(False)
    loop = asyncio.get_running_loop()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = socket.socket()
    lowest = free.fileno()
    free.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        await loop.sock_connect(client, (LOCAL, api.server.port))
        await asyncio.sleep(0.3)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "no connection can be taken at present" in caplog.text
    await loop.sock_sendall(client, head(api, "GET /healthz").replace("\n", "\r\n").encode())
    assert b" 200 OK" in await asyncio.wait_for(loop.sock_recv(client, 1000), 3)
    client.close()
