"""A client of somebody else's `/match` server: frames with a face go there, and the answer to the attendance file.

The answer is written down and used for nothing else: it never reaches a gate, and nothing opens by it.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable

import aiohttp

from edge_face import __version__, settings
from edge_face.bus import Bus
from edge_face.clock import Clock
from edge_face.errors import EdgeFaceError, RequestError
from edge_face.events import FrameView
from edge_face.names import clean_name
from edge_face.sinks.csv import AttendanceFile
from edge_face.sinks.webhook import server_of

_log = logging.getLogger(__name__)

ATTEMPT_S = 5.0
RETRY_S = 1.0
"""How often rows that could not be written are tried again."""
HELD = 1000
"""Rows that wait for the disk; the oldest give way."""
_WAITING = 4
"""Frames, while one is on its way."""
_LONGEST_ANSWER = 64 * 1024


class NoAnswer(EdgeFaceError):
    code = "no_answer"


class RemoteMatcher:
    """Asks at most once each `interval` seconds for each camera, only while a face is in view, one frame at a time."""

    def __init__(
        self,
        options: settings.Remote,
        csv: AttendanceFile | None,
        views: Bus[FrameView],
        want_frames: Callable[[bool], None],
        clock: Clock,
        *,
        attempt_s: float = ATTEMPT_S,
    ) -> None:
        """`want_frames` says whether frames are to carry their picture."""
        self._options = options
        self._csv = csv
        self._views = views
        self._want_frames = want_frames
        self._clock = clock
        self._attempt_s = attempt_s
        self._server = server_of(options.match_url)
        self._due: dict[str, float] = {}
        self._wanting: set[str] = set()
        self._rows: deque[tuple[str, float]] = deque(maxlen=HELD)
        self._retry_at = 0.0
        self._told: set[str] = set()

    async def run(self) -> None:
        """Until the frames end, or it is cancelled."""
        async with aiohttp.ClientSession(
            headers={"User-Agent": f"edge-face/{__version__}"}, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            with self._views.subscribe(_WAITING) as views:
                async for view in views:
                    if self._wants(view):
                        await self._match(session, view)
                    await self._write_rows()

    def _wants(self, view: FrameView) -> bool:
        """Whether this frame is the one to send. Pictures are made for it alone, and not while nobody is there."""
        camera, now = view.result.camera, self._clock.monotonic()
        wanted = bool(view.verdicts) and now >= self._due.get(camera, now)
        sent = wanted and view.result.jpeg is not None
        (self._wanting.add if wanted and not sent else self._wanting.discard)(camera)
        self._want_frames(bool(self._wanting))
        if sent:
            self._due[camera] = now + self._options.interval
        return sent

    async def _match(self, session: aiohttp.ClientSession, view: FrameView) -> None:
        assert view.result.jpeg is not None
        try:
            async with asyncio.timeout(self._attempt_s):
                name = await self._ask(session, view.result.jpeg)
        except (EdgeFaceError, TimeoutError, aiohttp.ClientError, OSError) as error:
            # Not str(error) of aiohttp's: some hold the whole address, and with it a password.
            reason = str(error) if isinstance(error, EdgeFaceError) else type(error).__name__
            self._tell("match", f"{self._server} gave no answer to a frame: {reason}")
            return
        self._told.discard("match")
        _log.info("%s says of camera %s: %s", self._server, view.result.camera, name)
        if self._csv is not None:
            self._rows.append((name, view.result.timestamp))

    async def _ask(self, session: aiohttp.ClientSession, jpeg: bytes) -> str:
        form = aiohttp.FormData()
        form.add_field("image", jpeg, filename="frame.jpg", content_type="image/jpeg")
        async with session.post(self._options.match_url, data=form, allow_redirects=False) as response:
            if response.status != 200:
                raise NoAnswer(f"its status is {response.status}")
            body = b""
            async for chunk in response.content.iter_any():
                body += chunk
                if len(body) > _LONGEST_ANSWER:
                    raise NoAnswer("it is too long")
        try:
            return clean_name(json.loads(body)["match"])
        except (ValueError, LookupError, TypeError, RecursionError, RequestError):
            raise NoAnswer('it is not {"match": NAME}') from None

    async def _write_rows(self) -> None:
        if self._csv is None or not self._rows or self._clock.monotonic() < self._retry_at:
            return
        try:
            while self._rows:
                await asyncio.to_thread(self._csv.append, *self._rows[0])
                self._rows.popleft()
        except OSError as error:
            self._retry_at = self._clock.monotonic() + RETRY_S
            self._tell("csv", f"{self._csv.path} cannot be written: {error.strerror}")
        else:
            self._told.discard("csv")

    def _tell(self, what: str, message: str) -> None:
        """Once for each outage."""
        if what not in self._told:
            _log.warning("%s", message)
        self._told.add(what)
