"""`/streaming`: a camera as MJPEG with boxes and names drawn, for pages and programs of an older project."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from aiohttp import web

from edge_face.bus import Bus, Subscription
from edge_face.errors import NotFoundError
from edge_face.events import FrameView, Verdict
from edge_face.messages import Label
from edge_face.painter import Painter
from edge_face.web import stream
from edge_face.web.connections import abort
from edge_face.web.replies import Refusal
from edge_face.web.schema import StreamingQuery
from edge_face.web.services import Route
from edge_face.web.spec import Spec, query_of

PATH = "/streaming"
MAX_VIEWERS = 16
BOUND = 1
"""Frames that wait for a viewer; older ones give way."""
_UNDRAWN = 4
"""Frames of all cameras that wait to be drawn."""
_MEDIA = "multipart/x-mixed-replace"
_HEADERS = {
    "Content-Type": f"{_MEDIA}; boundary=frame",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Server": "edge-face",
}
_WATCH = Spec("A camera as MJPEG, boxes and names drawn", media=(_MEDIA,), query=StreamingQuery, errors=(404,))


class Mjpeg:
    """All viewers. Each frame is drawn and encoded once for all of them, and not at all without any."""

    def __init__(
        self,
        views: Bus[FrameView],
        on_viewers: Callable[[bool], None],
        still_valid: Callable[[web.Request], Awaitable[bool]],
        status: Callable[[], dict[str, Any]],
        painter: Painter,
    ) -> None:
        self._views = views
        self._on_viewers = on_viewers
        self._still_valid = still_valid
        self._status = status
        self._painter = painter
        self._drawn: dict[str, Bus[bytes]] = {}
        """Of each camera that is watched."""
        self._viewers: list[str] = []
        self._transports: set[asyncio.Transport] = set()
        self._work: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[None]] = set()
        self._closing = False

    def routes(self) -> list[Route]:
        return [Route("GET", PATH, self.watch, "viewer", _WATCH, socket=True)]

    async def watch(self, request: web.Request) -> web.StreamResponse:
        camera = self._camera(query_of(request, StreamingQuery).camera)
        if self._closing or len(self._viewers) >= MAX_VIEWERS:
            raise Refusal(503, "too_many_viewers", "Too many viewers watch already.", {"Retry-After": "5"})
        response = web.StreamResponse(headers=_HEADERS)
        with self._counted(camera, request.transport), self._drawn[camera].subscribe(BOUND) as frames:
            await response.prepare(request)
            sending = asyncio.create_task(self._send(response, frames))
            watching = asyncio.create_task(self._recheck(request))
            try:
                await asyncio.wait((sending, watching), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in (sending, watching):
                    task.cancel()
                await asyncio.gather(sending, watching, return_exceptions=True)
        abort(request.transport)  # it has no end of its own, and a viewer that reads nothing would not see one
        return response

    async def close(self) -> None:
        """End it for all viewers."""
        self._closing = True
        for transport in list(self._transports):
            abort(transport)
        for drawn in self._drawn.values():
            drawn.close()
        self._end_work()
        await asyncio.gather(*self._ending, return_exceptions=True)

    def _camera(self, wanted: str | None) -> str:
        """The one asked for, else the first. Raises NotFoundError."""
        known = [camera["id"] for camera in self._status()["cameras"]]
        camera: str = wanted if wanted is not None else known[0]
        if camera not in known:
            raise NotFoundError(f"There is no camera {camera}")
        return camera

    async def _send(self, response: web.StreamResponse, frames: Subscription[bytes]) -> None:
        # The boundary follows its picture at once: browsers show a picture when they see the end of it.
        with contextlib.suppress(TimeoutError, ConnectionError):
            await response.write(b"--frame\r\n")
            async for jpeg in frames:
                head = f"Content-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n".encode()
                async with asyncio.timeout(stream.STALLED_S):
                    await response.write(head + jpeg + b"\r\n--frame\r\n")

    async def _recheck(self, request: web.Request) -> None:
        """Until the viewer has left, which without frames nobody would notice, or the token has ended."""
        while request.transport is not None and await self._still_valid(request):
            await asyncio.sleep(stream.RECHECK_S)
            if self._work is None or self._work.done():
                return

    async def _draw(self) -> None:
        """Each frame of a camera that is watched, while any is."""
        try:
            with self._views.subscribe(_UNDRAWN) as views:
                async for view in views:
                    drawn = self._drawn.get(view.result.camera)
                    if drawn is None or view.result.jpeg is None:
                        continue
                    labels = tuple(_label(verdict) for verdict in view.verdicts)
                    jpeg = await self._painter.draw(view.result.jpeg, labels)
                    if jpeg is not None:
                        drawn.send(jpeg)
        finally:
            await self._painter.close()
        for drawn in self._drawn.values():  # no more frames will come
            drawn.close()

    @contextmanager
    def _counted(self, camera: str, transport: asyncio.Transport | None) -> Iterator[None]:
        self._viewers.append(camera)
        self._drawn.setdefault(camera, Bus())
        if transport is not None:
            self._transports.add(transport)
        if self._work is None:
            self._work = asyncio.create_task(self._draw(), name="streaming")
            self._on_viewers(True)
        try:
            yield
        finally:
            self._viewers.remove(camera)
            if transport is not None:
                self._transports.discard(transport)
            if camera not in self._viewers:
                del self._drawn[camera]
            if not self._viewers:
                self._on_viewers(False)
                self._end_work()

    def _end_work(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.cancel()  # once: it waits for the end of the painter's process
            self._ending.add(work)
            work.add_done_callback(self._ending.discard)


def _label(verdict: Verdict) -> Label:
    """Who it is, once that is decided; until then, and of everybody else, only how it stands."""
    named = verdict.status == "PASS" and verdict.person is not None
    text = verdict.person.name if named and verdict.person else verdict.reason
    return Label(verdict.box, verdict.status, text)


MJPEG = web.AppKey("mjpeg", Mjpeg)
