"""The live stream: real sockets, among them slow, silent and talkative viewers."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import pytest
import websockets

from edge_face import settings
from edge_face.events import FrameView
from edge_face.web import stream
from edge_face.web.app import STREAM
from edge_face.web.connections import abort
from tests.support.api import Api, running, view


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as api:
        yield api


async def until(condition: Callable[[], bool], timeout_s: float = 3.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.01)


async def watching(api: Api, query: str = "", url: str = "") -> aiohttp.ClientWebSocketResponse:
    headers = {"Authorization": f"Bearer {api.viewer}"}
    return await api.session.ws_connect((url or api.stream_url) + query, headers=headers, max_msg_size=0)


async def test_a_frame_reaches_every_viewer_in_the_event_shape(api: Api) -> None:
    full, bare = await watching(api), await watching(api, "?frame=0")
    api.views.send(view())
    body = json.loads(await full.receive_str(timeout=3))
    assert base64.b64decode(body.pop("frame")) == b"\xff\xd8 picture"
    assert json.loads(await bare.receive_str(timeout=3)) == body == view().payload()
    assert (body["status"], body["name"], body["box"]) == ("PASS", "Katya", [120, 80, 240, 300])


async def test_the_text_is_made_once_for_all_viewers(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    payload = FrameView.payload

    def counted(self: FrameView) -> dict[str, object]:
        nonlocal made
        made += 1
        return payload(self)

    monkeypatch.setattr(FrameView, "payload", counted)
    viewers = [await watching(api) for _ in range(5)]
    api.views.send(view())
    for viewer in viewers:
        await viewer.receive_str(timeout=3)
    assert made == 1


async def test_pictures_are_asked_for_while_somebody_watches_them(api: Api) -> None:
    bare = await watching(api, "?frame=0")
    assert not api.server.viewers_want_frames()
    first, second = await watching(api), await watching(api)
    assert api.server.viewers_want_frames()
    await first.close()
    await second.close()
    await until(lambda: not api.server.viewers_want_frames())
    assert api.wanted == [True, False]
    await bare.close()


@pytest.mark.parametrize("message", ["hello", b"hello"])
async def test_a_viewer_that_speaks_is_shown_out(api: Api, message: str | bytes) -> None:
    viewer = await watching(api)
    await (viewer.send_str(message) if isinstance(message, str) else viewer.send_bytes(message))
    assert (await viewer.receive(timeout=3)).type == aiohttp.WSMsgType.CLOSE
    assert viewer.close_code == 1008


async def test_a_slow_viewer_loses_frames_and_slows_nobody(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "STALLED_S", 0.5)
    slow = socket.create_connection(("127.0.0.1", api.server.port))
    slow.sendall(
        f"GET /ws/face-stream HTTP/1.1\r\nHost: localhost\r\nX-API-Key: {api.viewer}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
    )
    quick = await watching(api)
    await until(lambda: len(api.server._app[STREAM]._viewers) == 2)
    await asyncio.sleep(0.1)
    picture = bytes(300_000)
    for number in range(40):
        sent = view(number, picture)
        started = time.monotonic()
        api.views.send(sent)
        await quick.receive_str(timeout=1)
        assert time.monotonic() - started < 0.3
    # The slow one reads nothing at all, so it is cut off; whoever stays is not.
    manager = api.server._listeners[0]._runner.server
    assert manager is not None
    await until(lambda: len(manager.connections) == 1)
    slow.settimeout(2)
    received = 0
    try:
        while chunk := await asyncio.to_thread(slow.recv, 1 << 20):
            received += len(chunk)
    except ConnectionResetError:
        pass
    slow.close()
    assert received < 20 * len(picture)
    api.views.send(view())
    await quick.receive_str(timeout=1)


async def test_tokens_in_the_address_are_a_viewers_only_and_stay_out_of_the_log(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with websockets.connect(f"{api.stream_url}?token={api.viewer}&frame=0") as viewer:
        await until(lambda: api.views.watched)
        api.views.send(view())
        assert "frame" not in json.loads(await viewer.recv())
    with pytest.raises(websockets.InvalidStatus) as refused:
        await websockets.connect(f"{api.stream_url}?token={api.admin}").__aenter__()
    assert refused.value.response.status_code == 401
    assert b"use a viewer token" in refused.value.response.body
    ours = [record.getMessage() for record in caplog.records if record.name.startswith(("edge_face", "aiohttp"))]
    assert not [message for message in ours if api.viewer in message or api.admin in message]


async def test_a_ticket_opens_a_stream_and_nothing_else_and_ends_with_its_token(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "RECHECK_S", 0.1)
    tickets = []
    for who in ("admin", "viewer"):
        status, body, _ = await api.ask("POST", "/api/v1/tickets", who)
        assert (status, body["expires_in_s"]) == (201, 60)
        tickets.append(body["ticket"])
    of_admin, of_viewer = tickets
    assert (await api.ask("GET", "/faces", None, headers={"X-API-Key": of_admin}))[0] == 401
    assert (await api.ask("GET", f"/faces?token={of_admin}", None))[0] == 401
    first = await api.session.ws_connect(f"{api.stream_url}?token={of_admin}")
    second = await api.session.ws_connect(f"{api.stream_url}?token={of_viewer}")
    api.tokens.revoke(api.viewer_id)
    await second.receive(timeout=3)
    assert second.close_code == 1008
    api.views.close()
    await first.receive(timeout=3)
    assert first.close_code == 1001


async def test_pages_of_other_sites_cannot_watch(api: Api) -> None:
    url = f"{api.stream_url}?token={api.viewer}"
    for origin in ("http://evil.example", "null"):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await api.session.ws_connect(url, headers={"Origin": origin})
        assert refused.value.status == 403
    viewer = await api.session.ws_connect(url, headers={"Origin": api.server.url})
    await viewer.close()


async def test_a_stream_ends_with_its_token_and_with_the_frames(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "RECHECK_S", 0.1)
    by_admin = await api.session.ws_connect(api.stream_url, headers={"X-API-Key": api.admin})
    viewer = await watching(api)
    api.tokens.revoke(api.viewer_id)
    await viewer.receive(timeout=3)
    assert viewer.close_code == 1008
    api.views.close()
    await by_admin.receive(timeout=3)
    assert by_admin.close_code == 1001


async def test_the_legacy_port_serves_the_stream_alone(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = settings.Config(api=settings.Api(port=0), stream=settings.Stream(legacy_port=port))
    async with running(tmp_path, config=config) as api:
        assert api.server.legacy_port == port
        viewer = await watching(api, url=f"ws://127.0.0.1:{port}/ws/face-stream")
        api.views.send(view())
        assert json.loads(await viewer.receive_str(timeout=3))["name"] == "Katya"
        assert api.wanted == [True]
        async with api.session.get(f"http://127.0.0.1:{port}/faces", headers={"X-API-Key": api.admin}) as answer:
            assert (answer.status, (await answer.json())["error"]) == (404, "not_found")
        started = time.monotonic()
        await asyncio.gather(api.server.stop(), viewer.receive())
        assert time.monotonic() - started < 1
        assert viewer.close_code == 1001


async def test_stopping_waits_for_no_viewer_that_does_not_read(api: Api) -> None:
    silent = await watching(api)
    for number in range(30):
        api.views.send(view(number, bytes(500_000)))
        await asyncio.sleep(0)
    started = time.monotonic()
    await api.server.stop()
    assert time.monotonic() - started < 1
    await silent.close()


async def test_a_connection_that_ended_by_itself_can_be_cut_off() -> None:
    """As a slow viewer's does that reads its last bytes when it is already given up."""
    transports: list[asyncio.Transport] = []

    class Sender(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            transports.append(transport)
            transport.write(bytes(20_000_000))
            transport.close()

    server = await asyncio.get_running_loop().create_server(Sender, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        assert len(await reader.read()) == 20_000_000
        writer.close()
        await asyncio.sleep(0.05)
        abort(transports[0])
        abort(None)
