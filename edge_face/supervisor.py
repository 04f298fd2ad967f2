"""The parent's handles on its child processes: start, watch for progress, kill, start again."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import logging
import os
import random
import socket
import sys
from collections import deque
from collections.abc import Callable, Collection
from typing import Any

from edge_face import messages, settings, threads
from edge_face.backends import Backends
from edge_face.clock import Clock
from edge_face.errors import ImageError, WorkerError
from edge_face.events import CameraState, CameraStatus, FrameResult
from edge_face.messages import (
    CameraJob,
    Failed,
    FromChild,
    Photo,
    PhotoJob,
    PhotoResult,
    Ready,
    SourceState,
    ToChild,
    Trying,
)
from edge_face.vision.models import thread_count

_log = logging.getLogger(__name__)

START_S = 90.0
"""A child may take this long to load its models on the slowest board."""
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


class ChildDied(WorkerError):
    """`exit_code` is negative for a signal, None when it is silent; `backend` is what it was loading then."""

    def __init__(self, message: str, exit_code: int | None, backend: str = "") -> None:
        super().__init__(f"{message} while it tried the backend {backend}" if backend else message)
        self.exit_code = exit_code
        self.backend = backend


class Child:
    """One child process and the socket to it. An async context manager: at its end the process is gone."""

    def __init__(self, process: asyncio.subprocess.Process, reader: Any, writer: asyncio.StreamWriter) -> None:
        self.process = process
        self._reader: asyncio.StreamReader = reader
        self._writer = writer

    @classmethod
    async def start(cls, job: CameraJob | PhotoJob) -> Child:
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",
                "-m",
                "edge_face.worker",
                str(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env=os.environ | threads.blas(thread_count(job.engine)),
                start_new_session=True,  # Ctrl-C is the parent's to handle
            )
        ours.setblocking(False)
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        child = cls(process, reader, writer)
        child.send(job)
        return child

    async def __aenter__(self) -> Child:
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()

    def send(self, message: ToChild) -> None:
        self._writer.write(messages.pack(message))

    async def receive(self, timeout_s: float) -> FromChild:
        """The next message. Raises WorkerError when the child died, talks nonsense or is silent for `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                message: FromChild = await messages.read(self._reader)
        except TimeoutError:
            raise ChildDied(f"no sign of life for {timeout_s:.0f} s", None) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await self.process.wait()
            ended = f"killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            raise ChildDied(ended, code) from None
        except ValueError as error:
            raise WorkerError(f"sent nonsense: {error}") from None
        if isinstance(message, Failed):
            raise WorkerError(message.message)
        return message

    async def ready(self) -> Ready:
        """Until the models are loaded. Raises WorkerError; ChildDied names the backend that was being tried."""
        trying = ""
        while True:
            try:
                message = await self.receive(START_S)
            except ChildDied as error:
                raise ChildDied(str(error), error.exit_code, trying) from None
            if isinstance(message, Trying):
                trying = message.backend
            elif isinstance(message, Ready):
                return message


async def started(job: CameraJob | PhotoJob, backends: Backends) -> tuple[Child, Ready]:
    """A child whose models are loaded. One that a backend killed is at once started again without it."""
    while True:
        child = await Child.start(dataclasses.replace(job, skip_backends=backends.skip))
        try:
            ready = await child.ready()
        except BaseException as error:
            await child.close()
            if (
                isinstance(error, ChildDied)
                and job.engine.backend == "auto"
                and backends.died(error.backend, error.exit_code)
            ):
                continue
            raise
        backends.tell(ready.backend, ready.refused)
        return child, ready


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
        self._next_track = 1
        self._changes: deque[float] = deque(maxlen=10)
        self._flapping = False
        self.status = CameraStatus(camera, "starting")
        self.backend = ""
        self.detector = ""
        self.encode_ms = 0.0
        self.restarts = 0

    @property
    def pid(self) -> int | None:
        return self._child.process.pid if self._child else None

    @property
    def refused(self) -> tuple[tuple[str, str], ...]:
        """Backends that cannot be used on this machine, with the reason as a sentence."""
        return (*self._backends.crashed, *self._refused)

    def want_jpeg(self, wanted: bool) -> None:
        if wanted != self._want_jpeg:
            self._want_jpeg = wanted
            if self._child:
                self._child.send(messages.WantJpeg(wanted))

    def settled(self, tracks: Collection[int]) -> None:
        if self._child:
            self._child.send(messages.Settled(tuple(sorted(tracks))))

    async def run(self) -> None:
        """Until the camera's clip ended. Whatever happens to the child, it is started again."""
        for wait_s in self._back_offs():
            started_at = self._clock.monotonic()
            try:
                await self._run_child()
                return
            except (WorkerError, OSError) as error:
                self._set_state("lost", str(error))
                _log.error("camera %s: its process %s; starting it again", self._camera, error)
            self.restarts += 1
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
        child, ready = await started(self._job(self._next_track), self._backends)
        async with child:
            self._child = child
            self.backend, self.detector, self.encode_ms = ready.backend, ready.detector, ready.encode_ms
            self._refused = ready.refused
            try:
                child.send(messages.WantJpeg(self._want_jpeg))
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
        if isinstance(message, FrameResult):
            self._next_track = max([self._next_track, *(face.track + 1 for face in message.faces)])
            self._on_frame(message)
        elif isinstance(message, SourceState):
            self._watch(message)

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
        if state == "lost":
            _log.warning("camera %s is lost: %s", self._camera, detail)
        else:
            _log.info("camera %s %s: %s", self._camera, "is back" if before == "lost" else state, detail)


class PhotoProcess:
    """The child that reads uploaded photos: started at the first one, stopped when there was none for a while."""

    def __init__(
        self,
        options: settings.Engine,
        log_level: str,
        idle_s: float = 60.0,
        timeout_s: float = 30.0,
        backends: Backends | None = None,
    ) -> None:
        self._job = PhotoJob(options, log_level)
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

    async def analyse(self, data: bytes) -> PhotoResult:
        """Faces of a photo. Raises ImageError when it cannot be used, WorkerError when the engine cannot work."""
        async with self._one_at_a_time:
            if self._idle:
                self._idle.cancel()
            try:
                result = await self._ask(data)
            except WorkerError:
                await self._stop()
                raise
            finally:
                self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._stop_soon)
        if result.error:
            raise ImageError(result.message, result.error)
        return result

    async def close(self) -> None:
        if self._idle:
            self._idle.cancel()
        async with self._one_at_a_time:
            await self._stop()

    async def _ask(self, data: bytes) -> PhotoResult:
        if self._child is None:
            self._child, _ = await started(self._job, self._backends)
        photo = Photo(next(self._ids), data)
        self._child.send(photo)
        try:
            answer = await self._child.receive(self._timeout_s)
        except WorkerError as error:
            message = f"The picture could not be read: the process that reads it {error}."
            await self._stop()
            raise ImageError(message) from None
        if not isinstance(answer, PhotoResult) or answer.id != photo.id:
            raise WorkerError("answers something else")
        return answer

    def _stop_soon(self) -> None:
        task = asyncio.get_running_loop().create_task(self.close())
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def _stop(self) -> None:
        child, self._child = self._child, None
        if child:
            await child.close()
