"""The parent's handles on its child processes: start, watch for progress and growth, kill, start again."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
import random
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any

from edge_face import messages, settings
from edge_face.backends import Backends
from edge_face.child import Child, ChildDied, started
from edge_face.clock import Clock
from edge_face.errors import ImageError, WorkerError
from edge_face.events import CameraState, CameraStatus, FrameResult
from edge_face.followed import Followed
from edge_face.memory import MIB, Growth
from edge_face.messages import CameraJob, FromChild, PhotoJob, PhotoResult, Photos, Settled, SourceState

_log = logging.getLogger(__name__)

LOST_S = 4.0
"""A camera that has not answered for this long is lost."""
HUNG_S = 15.0
"""A child that is silent, or waits for its camera, for this long is killed; opening a stream may take 5 s."""
BACK_OFF_S = (0.5, 15.0)
"""First and longest wait before a child is started again."""
FLAPPING_S = 60.0
"""A camera that changes between lost and ok ten times in this time comes and goes."""
HEALTHY_S = 30.0
"""A child that worked this long starts the back-off anew."""
MEMORY_EVERY_S = 2.0
"""How often a camera's child is measured."""
QUIET_S = 2.0
"""Without a face for this long, nothing is missed while a child is replaced."""


class CameraProcess:
    """Keeps one camera's child running and passes on what it sees."""

    def __init__(
        self,
        job: Callable[[int], CameraJob],
        camera: str,
        clock: Clock,
        on_frame: Callable[[FrameResult], None],
        on_state: Callable[[CameraStatus], None],
        backends: Backends | None = None,
    ) -> None:
        """`job` makes the first message, given the number of the first track. All children share one `backends`."""
        self._job = job
        self._camera = camera
        self._clock = clock
        self._on_frame = on_frame
        self._on_state = on_state
        self._backends = backends or Backends()
        self._refused: tuple[tuple[str, str], ...] = ()
        self._child: Child | None = None
        self._want_jpeg = False
        self._share = 1.0
        self._paused = False
        self._settled: tuple[int, ...] = ()
        self._next_track = 1
        self._changes: deque[float] = deque(maxlen=10)
        self._flapping = False
        self._followed = Followed()
        self._face_at = float("-inf")
        self._frame_bytes = 0
        self._growth: Growth | None = None
        self._measure_at = 0.0
        self.status = CameraStatus(camera, "starting")
        self.backend = ""
        self.detector = ""
        self.encode_ms = 0.0
        self.progress_at = clock.monotonic()
        """When a frame was judged, or the camera's return was last tried or waited for (monotonic)."""
        self.restarts = 0
        self.outgrown = 0
        """How many of the restarts were because the child had grown too large."""

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    @property
    def memory_bytes(self) -> int:
        """The child's own memory, as last measured; 0 while there is none."""
        return self._growth.now if self._child and self._growth else 0

    def payload(self) -> dict[str, Any]:
        """For the daemon's status."""
        return {
            "state": self.status.state,
            "detail": self.status.detail,
            "backend": self.backend,
            "detector": self.detector,
            "refused_backends": dict(self.refused),
            "restarts": self.restarts,
            "outgrown": self.outgrown,
            "memory_mib": round(self.memory_bytes / MIB, 1),
        }

    @property
    def refused(self) -> tuple[tuple[str, str], ...]:
        """Backends that cannot be used on this machine, with the reason as a sentence."""
        return (*self._backends.crashed, *self._refused)

    def want_jpeg(self, wanted: bool) -> None:
        if wanted != self._want_jpeg:
            self._want_jpeg = wanted
            if self._child:
                self._child.send(messages.WantJpeg(wanted))

    def want_picture(self, *, small: bool = False) -> None:
        """The next frame carries its picture."""
        if self._child:
            self._child.send(messages.WantPicture(small))

    def pause(self, paused: bool) -> None:
        """Whether the child looks for faces; frames go on."""
        self._paused = paused
        if self._child:
            self._child.send(messages.PauseWork(paused))

    def slow_down(self, share: float) -> None:
        """To this share of the usual frame rate."""
        self._share = share
        if self._child:
            self._child.send(messages.SlowDown(share))

    def tune(self, tune: messages.Tune) -> None:
        """What the child may change and go on; the next one hears of it by its job."""
        if self._child:
            self._child.send(tune)

    def begin_anew(self) -> None:
        """Before `run` is called once more, for other settings: even a clip that ended is not over then."""
        self._set_state("starting", "its settings have changed")

    def gone(self) -> None:
        """It stands in the configuration no more."""
        self._set_state("lost", "it was removed from the configuration")

    def settled(self, tracks: Collection[int]) -> None:
        self._settled = tuple(sorted(tracks))
        if self._child:
            self._child.send(Settled(self._settled))

    async def run(self) -> None:
        """Until the camera's clip ended. Whatever happens to the child, it is started again."""
        for wait_s in self._back_offs():
            started_at = self.progress_at = self._clock.monotonic()
            try:
                await self._run_child()
                return
            except (WorkerError, OSError) as error:
                self._set_state("lost", str(error))
                _log.error("camera %s: its process %s; starting it again", self._camera, error)
            self.restarts += 1
            self.progress_at = self._clock.monotonic()
            lived_s = self._clock.monotonic() - started_at
            self._healthy = lived_s > HEALTHY_S
            # The wait is that between two starts: after a child that hung for long the camera may be back already.
            await asyncio.sleep(max(min(wait_s, BACK_OFF_S[0]), wait_s - lived_s))

    def _back_offs(self) -> Any:
        shortest, longest = BACK_OFF_S
        self._healthy = False
        wait_s = shortest
        while True:
            yield wait_s * random.uniform(0.75, 1.25)  # jitter, not a secret
            wait_s = shortest if self._healthy else min(longest, 2 * wait_s)

    async def _run_child(self) -> None:
        job = self._job(self._next_track)
        known = self._followed.since(self._clock.monotonic() - job.track_memory_s)
        child, ready = await started(dataclasses.replace(job, known=known), self._backends)
        async with child:
            self._child, self._growth = child, Growth(child.pid)
            self.backend, self.detector, self.encode_ms = ready.backend, ready.detector, ready.encode_ms
            self._refused = ready.refused
            try:
                child.send(messages.WantJpeg(self._want_jpeg))
                child.send(messages.PauseWork(self._paused))
                child.send(messages.SlowDown(self._share))
                child.send(Settled(self._settled))
                while self.status.state != "ended":
                    self._take(await self._next(child))
            finally:
                self._child = None

    async def _next(self, child: Child) -> FromChild:
        """The child's next message. A child that hangs is a lost camera long before it is killed."""
        message = asyncio.ensure_future(child.receive(HUNG_S))
        try:
            if not (await asyncio.wait((message,), timeout=LOST_S))[0]:
                self._set_state("lost", f"its process is silent for {LOST_S:.0f} s")
            return await message
        finally:
            message.cancel()

    def _take(self, message: FromChild) -> None:
        # A camera that is ok has to show it by frames.
        if isinstance(message, FrameResult) or (isinstance(message, SourceState) and message.state != "ok"):
            self.progress_at = self._clock.monotonic()
        if isinstance(message, FrameResult):
            if message.camera != self._camera:
                raise WorkerError(f"speaks for another camera: {message.camera[:40]!r}")
            self._next_track = max([self._next_track, *(face.track + 1 for face in message.faces)])
            self._followed.add(message)
            self._frame_bytes = 3 * message.width * message.height
            if message.faces:
                self._face_at = self._clock.monotonic()
            self._on_frame(message)
        elif isinstance(message, SourceState):
            self._watch(message)
        self._measure()

    def _measure(self) -> None:
        """A child that leaks is replaced, if possible when nobody is in view: it would end the whole board some day."""
        now = self._clock.monotonic()
        if self._growth is None or now < self._measure_at:
            return
        self._measure_at = now + MEMORY_EVERY_S
        if self._growth.outgrown(self._frame_bytes, quiet=now - self._face_at > QUIET_S):
            self.outgrown += 1
            grown = f"has grown from {self._growth.start // MIB} to {self._growth.now // MIB} MiB: a leak"
            raise WorkerError(f"{grown} (replaced {self.outgrown} times so far)" if self.outgrown > 1 else grown)

    def _watch(self, told: SourceState) -> None:
        """A call into a driver that never returns leaves the child alive and the picture frozen: only a kill helps."""
        if told.blocked_s > HUNG_S:
            raise WorkerError(f"waits for the camera for {told.blocked_s:.0f} s")
        if told.blocked_s > LOST_S:
            self._set_state("lost", f"no frame for {told.blocked_s:.0f} s")
        else:
            self._set_state(told.state, told.detail)

    def _set_state(self, state: CameraState, detail: str) -> None:
        before = self.status.state
        if state == "starting" and before == "lost":
            return
        if state == before:
            if detail != self.status.detail:
                self.status = CameraStatus(self._camera, state, detail)  # a loss may get another reason; not told again
            return
        self.status = CameraStatus(self._camera, state, detail)
        self._log_state(state, before, detail)
        self._on_state(self.status)

    def _log_state(self, state: CameraState, before: CameraState, detail: str) -> None:
        """A line for each change, but not for each of a camera that comes and goes for ever."""
        now = self._clock.monotonic()
        steady = not self._changes or now - self._changes[-1] > FLAPPING_S
        self._changes.append(now)
        often = len(self._changes) == self._changes.maxlen and now - self._changes[0] < FLAPPING_S
        if often or (self._flapping and not steady):
            if not self._flapping:
                _log.warning(
                    "camera %s comes and goes: %s; no more lines of it until it stayed as it is for %.0f s",
                    *(self._camera, detail, FLAPPING_S),
                )
            self._flapping = True
            return
        self._flapping = False
        fields = {"CAMERA": self._camera}
        if state == "lost":
            _log.warning("camera %s is lost: %s", self._camera, detail, extra=fields)
        else:
            news = "is back" if before == "lost" else state
            _log.info("camera %s %s: %s", self._camera, news, detail, extra=fields)


class PhotoProcess:
    """The child that reads uploaded photos: started at the first one, stopped when there was none for a while."""

    def __init__(
        self,
        options: settings.Engine,
        log_level: str,
        idle_s: float = 60.0,
        timeout_s: float = 30.0,
        backends: Backends | None = None,
        *,
        thumbnails: bool = False,
    ) -> None:
        self.at_once = 1
        self._job = PhotoJob(options, log_level, thumbnails=thumbnails)
        self._backends = backends or Backends()
        self._idle_s = idle_s
        self._timeout_s = timeout_s
        self._child: Child | None = None
        self._one_at_a_time = asyncio.Lock()
        self._ids = itertools.count(1)
        self._idle: asyncio.TimerHandle | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    @property
    def pid(self) -> int | None:
        return self._child.process.pid if self._child else None

    async def use(self, options: settings.Engine, log_level: str) -> None:
        """From the next photo on; what is in work is finished first."""
        self._job = dataclasses.replace(self._job, engine=options, log_level=log_level)
        await self.close()

    async def analyse(self, data: bytes, rivals: float = 0.0) -> PhotoResult:
        """Faces of a photo, as `Photos` asks for them. Raises ImageError (it cannot be used), WorkerError."""
        (result,) = await self.analyse_all((data,), rivals)
        if result.error:
            raise ImageError(result.message, result.error)
        return result

    async def analyse_all(self, photos: Sequence[bytes], rivals: float = 0.0) -> list[PhotoResult]:
        """The same of several photos, which costs less; one that cannot be used says so in its `error`.

        Raises WorkerError.
        """
        async with self._one_at_a_time:
            if self._idle:
                self._idle.cancel()
            try:
                return await self._ask(photos, rivals)
            except BaseException:
                await self._stop()  # a child whose answer was not awaited would give it to the next photo
                raise
            finally:
                self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._stop_soon)

    async def close(self) -> None:
        if self._idle:
            self._idle.cancel()
        async with self._one_at_a_time:
            await self._stop()

    async def _ask(self, photos: Sequence[bytes], rivals: float) -> list[PhotoResult]:
        if self._child and self._child.ended:  # somebody or the kernel ended it, or its last photo took its memory
            await self._stop()
        fresh = self._child is None
        while True:
            if self._child is None:
                self._child, _ = await started(self._job, self._backends)
            try:
                return await self._answers(self._child, photos, rivals)
            except ChildDied as error:
                await self._stop()
                if len(photos) > 1:  # whose fault it is only shows when each is read alone
                    return [result for photo in photos for result in await self._ask((photo,), rivals)]
                # An earlier photo may have broken it: only a new child that dies of this one tells whose fault it is.
                if not fresh and error.exit_code is not None:
                    fresh = True
                    continue
                _log.warning("the process that reads photos %s; the photo is refused", error)
                what = "takes too long to be read" if error.exit_code is None else f"could not be read ({error})"
                refused = ImageError(f"The picture {what}.")
                return [PhotoResult(0, error=refused.code, message=refused.message)]

    async def _answers(self, child: Child, photos: Sequence[bytes], rivals: float) -> list[PhotoResult]:
        """Raises ChildDied, WorkerError."""
        asked = Photos(next(self._ids), tuple(map(len, photos)), rivals)
        child.send(asked)
        sent = asyncio.ensure_future(child.send_bytes(*photos))
        try:
            answers = [await child.receive(self._timeout_s) for _ in photos]
        finally:
            sent.cancel()
        found = [answer for answer in answers if isinstance(answer, PhotoResult) and answer.id == asked.id]
        if len(found) < len(answers):
            raise WorkerError("answers something else")
        return found

    def _stop_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self.close())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _stop(self) -> None:
        child, self._child = self._child, None
        if child:
            await child.close()
