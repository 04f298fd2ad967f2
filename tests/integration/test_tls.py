"""HTTPS with real certificates: which versions, and what happens when they are renewed."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from edge_face import settings
from edge_face.errors import EdgeFaceError
from edge_face.web import tls
from edge_face.web.sessions import COOKIE
from tests.support.api import Api, running, view

_OLD_TOO = "ALL:@SECLEVEL=0"
"""Without it, OpenSSL itself speaks no TLS 1.1, whatever is asked of it."""


def make_pair(folder: Path, serial: int) -> Path:
    """`fullchain.pem` and `privkey.pem` in a new folder."""
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-set_serial", str(serial), "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", folder / "privkey.pem", "-out", folder / "fullchain.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


class Live:
    """`live/` with links to the newest pair, as certbot keeps it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cert, self.key = folder / "live" / "fullchain.pem", folder / "live" / "privkey.pem"
        (folder / "live").mkdir()
        self.lead_to(make_pair(folder / "1", 1))

    def lead_to(self, pair: Path) -> None:
        self.link(pair, self.key)
        self.link(pair, self.cert)

    def link(self, pair: Path, link: Path) -> None:
        draft = link.with_suffix(".new")
        draft.symlink_to(pair / link.name)
        draft.replace(link)

    @property
    def config(self) -> settings.Config:
        return settings.Config(api=settings.Api(port=0, cert=str(self.cert), key=str(self.key)))


@pytest.fixture
def live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Live:
    monkeypatch.setattr(tls, "POLL_S", 0.05)
    return Live(tmp_path)


@pytest.fixture
async def api(live: Live, tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path, config=live.config) as api:
        yield api


def trusting(*pairs: Path) -> ssl.SSLContext:
    """Checks the certificate and the name, and believes these only."""
    context = ssl.create_default_context()
    for pair in pairs:
        context.load_verify_locations(pair / "fullchain.pem")
    return context


async def serial(api: Api, context: ssl.SSLContext, name: str = "127.0.0.1") -> int:
    """Of the certificate that a new connection is shown."""
    _, writer = await asyncio.open_connection("127.0.0.1", api.server.port, ssl=context, server_hostname=name)
    try:
        return int(writer.get_extra_info("peercert")["serialNumber"], 16)
    finally:
        writer.close()
        await writer.wait_closed()


async def until_serial(api: Api, context: ssl.SSLContext, number: int) -> None:
    deadline = time.monotonic() + 10
    while await serial(api, context) != number:
        assert time.monotonic() < deadline, "the renewed certificate is not shown"
        await asyncio.sleep(0.02)


async def test_https_and_wss(api: Api, live: Live) -> None:
    context = trusting(live.folder / "1")
    async with api.session.get(f"{api.server.url}/healthz", ssl=context) as answer:
        assert answer.status == 200
    _, _, answer = await api.ask("POST", "/login", None, json={"token": api.viewer}, ssl=context)
    assert answer.cookies[COOKIE]["secure"]
    own = {"Cookie": f"{COOKIE}={answer.cookies[COOKIE].value}", "Origin": api.server.url}
    insecure = own | {"Origin": api.server.url.replace("https", "http")}
    with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
        await api.session.ws_connect(api.stream_url, headers=insecure, ssl=context)
    viewer = await api.session.ws_connect(api.stream_url, headers=own, ssl=context)
    started = time.monotonic()
    await asyncio.gather(api.server.stop(), viewer.receive())
    assert time.monotonic() - started < 1


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_tls_1_2_and_up(api: Api, live: Live) -> None:
    lax = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    lax.minimum_version = ssl.TLSVersion.TLSv1_1
    lax.set_ciphers(_OLD_TOO)
    lax.load_cert_chain(live.cert, live.key)
    control = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0, ssl=lax)
    async with control:
        assert await handshake(control.sockets[0].getsockname()[1], live, ssl.TLSVersion.TLSv1_1) == "TLSv1.1"
    assert await handshake(api.server.port, live, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert await handshake(api.server.port, live, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await handshake(api.server.port, live, ssl.TLSVersion.TLSv1_1)


async def handshake(port: int, live: Live, version: ssl.TLSVersion) -> str | None:
    """Of a client that speaks this version only."""
    client = trusting(live.folder / "1")
    client.set_ciphers(_OLD_TOO)
    client.minimum_version = client.maximum_version = version
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
    connection: ssl.SSLObject = writer.get_extra_info("ssl_object")
    writer.close()
    return connection.version()


async def test_a_renewed_certificate_is_shown_and_open_connections_stay(
    api: Api, live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edge_face")
    second = make_pair(live.folder / "2", 2)
    context = trusting(live.folder / "1", second)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port, ssl=context)

    async def ask() -> None:
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        await reader.readuntil(b"}")

    await ask()
    viewer = await api.session.ws_connect(api.stream_url, headers={"X-API-Key": api.viewer}, ssl=context)
    live.lead_to(second)
    await until_serial(api, context, 2)
    await ask()
    assert int(writer.get_extra_info("peercert")["serialNumber"], 16) == 1
    api.views.send(view())
    assert await viewer.receive_str(timeout=3)
    await viewer.close()
    writer.close()
    # In place, as others do who copy files over the old ones.
    third = make_pair(live.folder / "3", 3)
    for name in ("privkey.pem", "fullchain.pem"):
        (second / name).write_bytes((third / name).read_bytes())
    context.load_verify_locations(third / "fullchain.pem")
    await until_serial(api, context, 3)
    context.check_hostname = False
    assert await serial(api, context, "another.name") == 3
    assert [record.message for record in caplog.records if "certificate" in record.message] == [
        "the renewed certificate is in use"
    ] * 2
    assert (await _tls_state(api)) == {"state": "ok", "problem": None}


async def test_a_broken_pair_is_refused_once_and_the_old_one_stays(
    api: Api, live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "edge_face")
    first, second = live.folder / "1", make_pair(live.folder / "2", 2)
    context = trusting(first, second)

    def said() -> list[str]:
        return [record.message for record in caplog.records if "certificate" in record.message]

    async def refused(times: int) -> None:
        deadline = time.monotonic() + 10
        while len(said()) < times:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.02)
        await asyncio.sleep(6 * tls.POLL_S)
        assert len(said()) == times, "it is said once"
        assert "the one before stays: [api] cert, key: they cannot be used together" in said()[-1]
        assert str(live.folder) not in said()[-1]
        assert await serial(api, context) == 1
        state = await _tls_state(api)
        assert state["state"] == "refused"
        assert state["problem"] in said()[-1]

    live.link(second, live.cert)  # without its key
    await refused(1)
    live.key.unlink()
    await refused(2)
    live.link(second, live.key)
    await until_serial(api, context, 2)
    assert said()[2:] == ["the renewed certificate is in use"]
    assert (await _tls_state(api))["state"] == "ok"


async def test_a_pair_that_is_half_renewed_is_waited_for(
    api: Api, live: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The two files are replaced one after the other: no error is told of the moment between."""
    second = make_pair(live.folder / "2", 2)
    monkeypatch.setattr(tls, "POLL_S", 0.4)
    await asyncio.sleep(0.1)  # the next look is at most 0.4 s away, and the one after that later than what follows
    started = time.monotonic()
    live.link(second, live.cert)
    await asyncio.sleep(0.35)
    live.link(second, live.key)
    in_time = time.monotonic() - started < tls.POLL_S
    await until_serial(api, trusting(live.folder / "1", second), 2)
    assert not in_time or not [each for each in caplog.records if each.levelno >= logging.ERROR]


async def test_a_pair_that_cannot_be_used_stops_the_start(live: Live, tmp_path: Path) -> None:
    live.link(make_pair(live.folder / "2", 2), live.cert)
    with pytest.raises(EdgeFaceError, match=r"\[api\] cert, key"):
        async with running(tmp_path, config=live.config):
            pass
    os.truncate(live.key, 0)
    with pytest.raises(EdgeFaceError, match=r"\[api\] cert, key"):
        async with running(tmp_path, config=live.config):
            pass


async def _tls_state(api: Api) -> dict[str, str | None]:
    status, body, _ = await api.ask("GET", "/api/v1/status", "viewer", ssl=_unverified())
    assert status == 200
    state: dict[str, str | None] = body["tls"]
    return state


def _unverified() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
