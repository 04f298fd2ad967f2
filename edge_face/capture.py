"""Pictures from a camera or a clip: what a source is, and the thread that keeps only its newest frame.

    source.read()  ->  CameraThread, a slot of one  ->  take()

A camera never waits for us. While one frame is judged the next ones arrive, and a queue of them would make every later
answer late; so a newer frame replaces the one in the slot, and the taker is told how many it missed.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from edge_face.errors import CaptureError
from edge_face.events import CameraState
from edge_face.freshness import FROZEN_S, Changes
from edge_face.images import BgrImage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edge_face.clock import Clock

log = logging.getLogger(__name__)

FIRST_RETRY_S = 0.25
LONGEST_RETRY_S = 1.0  # so that a camera that is back delivers within 3 s, a try that just fails included
_STABLE_S = 10.0  # a camera that worked this long starts again with the short retry
_LONGEST_SKIP_S = 1.0
_REOPEN_S = (10.0, 60.0)  # what stays frozen is opened anew after so long: at first, and at most


@dataclass(frozen=True, eq=False, slots=True)
class Frame:
    """One picture on its way to the engine."""

    image: BgrImage
    number: int
    """Counts every frame the source gave, also those nobody took; the first is 1."""
    epoch: int
    """Grows when a clip starts again and when the source was lost: nothing seen before continues."""
    grabbed_at: float
    """Clock.monotonic() at the grab."""
    timestamp: float
    """Clock.wall() at the grab."""
    dropped: int
    """Frames that newer ones replaced since the last one taken."""
    round: int = 0
    """How often a clip has started again; unlike `epoch` it stays the same over a loss."""


@dataclass(frozen=True, eq=False, slots=True)
class Grab:
    """What a source gives. Stamped by the source, because only it can tell the grab from the decoding after it."""

    image: npt.NDArray[Any]
    """As it came: grey, BGR or BGRA; the thread makes BGR of it."""
    grabbed_at: float
    timestamp: float
    skipped: int = 0
    """Frames passed over just before this one, to stay in real time."""
    round: int = 0
    """How often a clip has started again."""


@dataclass(frozen=True, slots=True)
class ThreadState:
    """How the camera thread is doing, for the owner who has to tell others or end the process."""

    name: CameraState
    """`ended` only once the last frame of a clip was taken, so nobody leaves before judging it."""
    detail: str
    """The reason of a loss, else what the source says of itself."""
    frames: int
    """Frames grabbed so far."""
    last_frame_at: float | None
    """Clock.monotonic() at the last grab; None before the first."""
    blocked_s: float
    """For how long a call that opens a source, or reads a camera, has not come back; 0 when none is out. A clip that
    waits for its next frame, or for its reader, is not blocked."""


class Source(Protocol):
    """One opened camera or clip. Opening is the constructor's or `open_source`'s job and raises CaptureError."""

    @property
    def live(self) -> bool:
        """A camera: its end is a loss. A clip's end is an end."""

    @property
    def patient(self) -> bool:
        """Every frame is wanted, so the source is only read when somebody takes (`realtime = no`)."""

    @property
    def description(self) -> str:
        """What was asked for and what it really gives (size, fps, codec), for the log; without a password."""

    def read(self) -> Grab | None:
        """Block for the next frame; None at the end of a clip; CaptureError when the source is lost."""

    def close(self) -> None: ...


def as_bgr(image: npt.NDArray[Any] | None) -> BgrImage:
    """Any picture a camera may give as (h, w, 3) uint8 BGR. Raises CaptureError for what is none."""
    if image is None or image.size == 0 or image.ndim not in (2, 3):
        raise CaptureError("the camera gave an empty frame")
    if image.dtype == np.uint16:  # 10 to 16 bit grey of thermal and infrared cameras: the upper eight bits
        image = (image >> 8).astype(np.uint8)
    channels = 1 if image.ndim == 2 else image.shape[2]
    if image.dtype != np.uint8 or channels not in (1, 3, 4):
        raise CaptureError(f"the camera gave frames of an unknown kind ({image.dtype}, {channels} channels)")
    if channels == 1:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR), dtype=np.uint8)
    if channels == 4:
        return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGRA2BGR), dtype=np.uint8)
    return np.ascontiguousarray(image, dtype=np.uint8)


class Pace:
    """Absolute deadlines at `fps`: lateness of one frame never adds to the next, so a clip does not drift."""

    def __init__(self, clock: Clock, fps: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self._clock = clock
        self._fps = fps
        self._sleep = sleep
        self._start: float | None = None
        self._frames = 0

    def behind(self) -> int:
        """Frames to skip to be in time again. At most a second's worth: who cannot keep up at all still delivers."""
        if self._start is None:
            return 0
        now = self._clock.monotonic()
        late = int((now - self._start) * self._fps) - self._frames
        most = max(1, int(_LONGEST_SKIP_S * self._fps))
        if late > most:
            self._start = now - (self._frames + most) / self._fps
        skipped = max(0, min(late, most))
        self._frames += skipped
        return skipped

    def wait(self) -> None:
        """Sleep until the next frame is due; the first one is due at once."""
        now = self._clock.monotonic()
        if self._start is None:
            self._start = now
        pause = self._start + self._frames / self._fps - now
        self._frames += 1
        if pause > 0:
            self._sleep(pause)


class Limiter:
    """At most `fps` frames a second, on average: half an interval of jitter is allowed, else a camera at exactly
    this rate would lose every frame that comes a little early."""

    def __init__(self, fps: float) -> None:
        self.change(fps)
        self.due = float("-inf")

    def change(self, fps: float) -> None:
        self._interval = 1 / fps if fps > 0 else 0.0

    def taken(self, now: float) -> None:
        self.due = max(self.due + self._interval, now + self._interval / 2)


class CameraThread:
    """Reads a source in a thread of its own, opens it again after a loss, and hands out the newest frame.

    A camera's frame that repeats an earlier one is not handed out: it shows nothing new, and nothing may be decided on
    it again. A clip or a folder may well show the same picture twice.

    `read()` may block for ever on a dead stream, and no thread can be ended from outside. So the thread is a daemon
    thread, `stop()` does not insist, and `state.blocked_s` tells the owner when only ending the process helps.
    """

    def __init__(
        self, open_source: Callable[[], Source], clock: Clock, fps: float = 0.0, frozen_s: float = FROZEN_S
    ) -> None:
        """`fps` bounds the frames taken per second, 0 does not; a patient source is not bounded. A camera whose picture
        does not change for `frozen_s` is lost, with 0 it is not."""
        self._open_source = open_source
        self._clock = clock
        self._limiter = Limiter(fps)
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera", daemon=True)
        self._slot: Frame | None = None
        self._state: CameraState = "starting"
        self._detail = ""
        self._description = ""
        self._wanted = False
        self._patient = False
        self._number = 0
        self._epoch = 0
        self._round = 0
        self._rounds = 0
        self._dropped = 0
        self._last_frame_at: float | None = None
        self._calling_since: float | None = None
        self._live = False
        self._changes = Changes(frozen_s)
        self._reopen_s = _REOPEN_S[0]

    def limit(self, fps: float) -> None:
        """From now on: at most so many frames a second, 0: any number."""
        self._limiter.change(fps)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_s: float = 0.5) -> None:
        """Ask the thread to end and wait a moment for it. Afterwards `take` gives nothing, even if it is stuck."""
        self._stopping.set()
        with self._changed:
            self._slot = None
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def state(self) -> ThreadState:
        with self._changed:
            name = "ok" if self._state == "ended" and self._slot is not None else self._state
            now, since, detail = self._clock.monotonic(), self._calling_since, self._detail
            if name == "ok" and self._live and self._changes.frozen(now):
                name, detail = "lost", self._changes.reason(now)
            return ThreadState(name, detail, self._number, self._last_frame_at, 0.0 if since is None else now - since)

    def take(self, timeout_s: float) -> Frame | None:
        """The newest frame, each at most once, waiting for it up to `timeout_s`. None at once after the end.

        A frame limit delays the choice, never the frame: what is handed out is the newest one when it is due.
        """
        deadline = self._clock.monotonic() + timeout_s
        with self._changed:
            self._wanted = True
            self._changed.notify_all()
            try:
                while True:
                    now = self._clock.monotonic()
                    due = now if self._patient or self._state == "ended" else self._limiter.due
                    if self._slot is not None and now >= due:
                        return self._hand_over(now)
                    over = self._state == "ended" and self._slot is None
                    if over or self._stopping.is_set() or now >= deadline:
                        return None
                    self._changed.wait((deadline if self._slot is None else min(deadline, due)) - now)
            finally:
                self._wanted = False

    def _hand_over(self, now: float) -> Frame:
        assert self._slot is not None
        frame = replace(self._slot, dropped=self._dropped)
        self._slot = None
        self._dropped = 0
        self._limiter.taken(now)
        return frame

    def _run(self) -> None:
        retry = FIRST_RETRY_S
        while not self._stopping.is_set():
            opened_at = self._clock.monotonic()
            try:
                self._read_to_end()
                return
            except CaptureError as error:
                self._lose(str(error))
            except Exception as error:  # the thread's outer edge: a bug in a source must not end the camera silently
                if self._lose(f"{type(error).__name__}: {error}"):
                    log.exception("camera: unexpected error while reading")
            if self._clock.monotonic() - opened_at > _STABLE_S:
                retry = FIRST_RETRY_S
            # Jitter: several cameras behind one switch come back together and need not be asked together.
            self._stopping.wait(retry * random.uniform(0.75, 1.0))
            retry = min(2 * retry, LONGEST_RETRY_S)

    def _read_to_end(self) -> None:
        with self._call(True):
            source = self._open_source()
        try:
            with self._changed:
                self._patient, self._live = source.patient, source.live
                self._description = source.description
                self._round = 0
            opened_at = self._clock.monotonic()
            while self._may_read():
                self._give_up_frozen(opened_at)
                with self._call(source.live):
                    grab = source.read()
                if grab is None:
                    if source.live:
                        raise CaptureError("the camera stopped sending")
                    self._end()
                    return
                self._put(grab, as_bgr(grab.image))
        finally:
            source.close()

    @contextmanager
    def _call(self, may_block: bool) -> Iterator[None]:
        with self._changed:
            self._calling_since = self._clock.monotonic() if may_block else None
        try:
            yield
        finally:
            with self._changed:
                self._calling_since = None

    def _may_read(self) -> bool:
        """Wait until the next frame is wanted; False when the thread is to end.

        A patient source is read on demand, not ahead: a frame that lay there while the last one was judged would
        be as old as that took.
        """
        with self._changed:
            while self._patient and not (self._wanted and self._slot is None) and not self._stopping.is_set():
                self._changed.wait()
        return not self._stopping.is_set()

    def _put(self, grab: Grab, image: BgrImage) -> None:
        with self._changed:
            if self._stopping.is_set():
                return
            if self._live:
                now = self._clock.monotonic()
                thawed = self._state == "ok" and self._changes.frozen(now)
                if not self._changes.is_new(image, now):
                    self._number += grab.skipped + 1
                    self._last_frame_at = grab.grabbed_at
                    return
                self._epoch += thawed
                self._reopen_s = _REOPEN_S[0]
            if grab.round != self._round:
                self._round = grab.round
                self._epoch += 1
                self._rounds += 1
            self._number += grab.skipped + 1
            self._dropped += grab.skipped + (self._slot is not None)
            self._slot = Frame(image, self._number, self._epoch, grab.grabbed_at, grab.timestamp, 0, self._rounds)
            self._last_frame_at = grab.grabbed_at
            before, self._state, self._detail = self._state, "ok", self._description
            self._changed.notify_all()
        if before != "ok":
            log.info("camera %s: %s", "is back" if before == "lost" else "delivers", self._description)

    def _give_up_frozen(self, opened_at: float) -> None:
        """Open anew what stays frozen. Not often: where only the scene stands still, this makes the gate blind."""
        now = self._clock.monotonic()
        if self._live and self._changes.frozen(now) and now - opened_at > self._reopen_s:
            self._reopen_s = min(2 * self._reopen_s, _REOPEN_S[1])
            raise CaptureError(self._changes.reason(now))

    def _end(self) -> None:
        with self._changed:
            self._state, self._detail = "ended", self._description
            self._changed.notify_all()
        log.info("end of %s", self._description)

    def _lose(self, reason: str) -> bool:
        """Note a loss; True when it is new. The frame in the slot goes with it: it shows what is no longer seen."""
        with self._changed:
            new = self._state != "lost"
            self._state, self._detail = "lost", reason
            self._dropped += self._slot is not None
            self._slot = None
            self._epoch += new
            self._changed.notify_all()
        if new and not self._stopping.is_set():
            log.warning("camera lost: %s", reason)
        return new
