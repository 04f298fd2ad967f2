"""The live stream: every processed frame as one JSON text, to viewers who may be slow."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from edge_face.bus import Bus, Subscription
from edge_face.events import FrameView
from edge_face.web.connections import abort
from edge_face.web.replies import Refusal
from edge_face.web.schema import StreamQuery
from edge_face.web.services import Route
from edge_face.web.spec import Spec

_log = logging.getLogger(__name__)

_WATCH = Spec("WebSocket: each judged frame as JSON", None, 101, query=StreamQuery, errors=(400,))

PATH = "/ws/face-stream"
BOUND = 2
"""Frames that wait for a viewer; older ones give way."""
STALLED_S = 10.0
"""A viewer that takes nothing for this long is cut off."""
RECHECK_S = 5.0
"""How soon a stream ends whose token was revoked."""
MAX_VIEWERS = 64
CLOSE_S = 0.3
_CACHED = 8
_PING_S = 30.0


def message(view: FrameView, with_frame: bool) -> bytes:
    """What a viewer is sent of a frame."""
    body = view.payload()
    if with_frame:
        body["frame"] = view.result.jpeg  # bytes become base64
    return msgspec.json.encode(body)


@dataclass(frozen=True, eq=False, slots=True)
class _Viewer:
    socket: web.WebSocketResponse
    transport: asyncio.Transport | None
    with_frame: bool

    def cut_off(self) -> None:
        """Without a goodbye: one that reads nothing would not read that either."""
        abort(self.transport)


class FrameStream:
    """All viewers of all ports. `on_viewers` hears when the first who wants pictures comes and the last one goes."""

    def __init__(
        self,
        views: Bus[FrameView],
        on_viewers: Callable[[bool], None],
        still_valid: Callable[[web.Request], Awaitable[bool]],
    ) -> None:
        self._views = views
        self._on_viewers = on_viewers
        self._still_valid = still_valid
        self._viewers: set[_Viewer] = set()
        self._texts: dict[tuple[FrameView, bool], bytes] = {}
        self._closing = False

    def routes(self) -> list[Route]:
        return [Route("GET", PATH, self.watch, "viewer", _WATCH, socket=True)]

    def viewers_want_frames(self) -> bool:
        return any(viewer.with_frame for viewer in self._viewers)

    async def watch(self, request: web.Request) -> web.StreamResponse:
        """One viewer, from the handshake to the end."""
        ws = web.WebSocketResponse(compress=False, heartbeat=_PING_S, timeout=CLOSE_S, max_msg_size=1 << 20)
        if not ws.can_prepare(request):
            raise Refusal(400, "websocket_only", "This address speaks WebSocket only.")
        if self._closing or len(self._viewers) >= MAX_VIEWERS:
            raise Refusal(503, "too_many_viewers", "Too many viewers watch already.", {"Retry-After": "5"})
        with_frame = request.query.get("frame", "1").lower() not in ("0", "false", "no")
        viewer = _Viewer(ws, request.transport, with_frame)
        with self._counted(viewer), self._views.subscribe(BOUND) as views:
            try:
                await ws.prepare(request)
                await self._serve(request, viewer, views)
            except (TimeoutError, ConnectionError):
                viewer.cut_off()
        return ws

    async def close(self) -> None:
        """Say goodbye (1001) to all, and cut off those who do not answer."""
        self._closing = True
        await asyncio.gather(*(self._dismiss(viewer, WSCloseCode.GOING_AWAY) for viewer in list(self._viewers)))

    async def _serve(self, request: web.Request, viewer: _Viewer, views: Subscription[FrameView]) -> None:
        """Until one of three happens: the viewer leaves or speaks, the frames end, the token ends."""
        listen = asyncio.create_task(self._listen(viewer))
        send = asyncio.create_task(self._send(viewer, views))
        recheck = asyncio.create_task(self._recheck(request))
        tasks = (listen, send, recheck)
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            code = task.result()  # raises what ended it
            if code is not None:
                await self._dismiss(viewer, code)

    async def _listen(self, viewer: _Viewer) -> WSCloseCode | None:
        message = await viewer.socket.receive()
        return WSCloseCode.POLICY_VIOLATION if message.type in (WSMsgType.TEXT, WSMsgType.BINARY) else None

    async def _send(self, viewer: _Viewer, views: Subscription[FrameView]) -> WSCloseCode:
        async for view in views:
            try:
                async with asyncio.timeout(STALLED_S):
                    await viewer.socket.send_frame(self._text(view, viewer.with_frame), WSMsgType.TEXT)
            except TimeoutError:
                _log.info("a viewer of the stream took nothing for %.0f s and was cut off", STALLED_S)
                raise
        return WSCloseCode.GOING_AWAY

    async def _recheck(self, request: web.Request) -> WSCloseCode:
        while True:
            await asyncio.sleep(RECHECK_S)
            if not await self._still_valid(request):
                return WSCloseCode.POLICY_VIOLATION

    async def _dismiss(self, viewer: _Viewer, code: WSCloseCode) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await viewer.socket.close(code=code)
        except (TimeoutError, ConnectionError, RuntimeError):  # RuntimeError: its handshake is not over yet
            viewer.cut_off()

    def _text(self, view: FrameView, with_frame: bool) -> bytes:
        """The message, made once however many viewers there are."""
        text = self._texts.get((view, with_frame))
        if text is None:
            text = self._texts[view, with_frame] = message(view, with_frame)
            if len(self._texts) > _CACHED:
                del self._texts[next(iter(self._texts))]
        return text

    @contextmanager
    def _counted(self, viewer: _Viewer) -> Iterator[None]:
        self._change(lambda: self._viewers.add(viewer))
        try:
            yield
        finally:
            self._change(lambda: self._viewers.discard(viewer))
            if not self._viewers:
                self._texts.clear()

    def _change(self, change: Callable[[], None]) -> None:
        before = self.viewers_want_frames()
        change()
        if self.viewers_want_frames() != before:
            self._on_viewers(not before)
