"""The camera thread, with a source whose every frame the test decides."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pytest

from edge_face import capture
from edge_face.capture import CameraThread, Grab, Limiter, Pace, as_bgr
from edge_face.clock import SystemClock
from edge_face.errors import CaptureError


class ManualClock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now + 1_700_000_000

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class ScriptedSource:
    """Gives what the test puts in; blocks when there is nothing, as a dead stream does."""

    def __init__(self, live: bool = True, patient: bool = False) -> None:
        self.live = live
        self.patient = patient
        self.description = "a scripted source"
        self.script: queue.Queue[Grab | Exception | None] = queue.Queue()
        self.reads = 0
        self.closed = threading.Event()

    def give(self, value: int, at: float = 0.0, skipped: int = 0, turn: int = 0) -> None:
        self.script.put(Grab(picture(value), at, at + 0.5, skipped, turn))

    def read(self) -> Grab | None:
        self.reads += 1
        step = self.script.get()
        if isinstance(step, Exception):
            raise step
        return step

    def close(self) -> None:
        self.closed.set()


def picture(value: int) -> npt.NDArray[np.uint8]:
    return np.full((4, 6, 3), value, np.uint8)


def until(condition: Callable[[], bool], timeout_s: float = 3.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)


Start = Callable[..., CameraThread]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a thread that opens the given sources one after the other; an exception stands for a failed opening."""
    started: list[CameraThread] = []

    def begin(*sources: ScriptedSource | CaptureError, fps: float = 0.0, frozen_s: float = 0.0) -> CameraThread:
        left = list(sources)

        def open_next() -> ScriptedSource:
            source = left.pop(0) if left else CaptureError("nothing is left")
            if isinstance(source, CaptureError):
                raise source
            return source

        thread = CameraThread(open_next, SystemClock(), fps, frozen_s)
        started.append(thread)
        thread.start()
        return thread

    yield begin
    for thread in started:
        thread.stop(0.05)


def test_the_newest_frame_replaces_the_ones_nobody_took(start: Start) -> None:
    source = ScriptedSource()
    thread = start(source)
    for number in range(1, 6):
        source.give(number, at=10.0 + number, skipped=2 if number == 5 else 0)
    until(lambda: thread.state.frames == 7)
    frame = thread.take(1)
    assert frame is not None
    assert (frame.image[0, 0, 0], frame.number, frame.dropped) == (5, 7, 6)
    assert (frame.grabbed_at, frame.timestamp) == (15.0, 15.5)  # the source's own stamps, not the time of taking
    source.give(6)
    second = thread.take(1)
    assert second is not None
    assert (second.number, second.dropped) == (8, 0)


def test_a_frame_is_taken_once_and_waiting_ends_in_time(start: Start) -> None:
    source = ScriptedSource()
    thread = start(source)
    source.give(1)
    assert thread.take(1) is not None
    began = time.monotonic()
    assert thread.take(0.1) is None
    assert 0.08 < time.monotonic() - began < 0.5


def test_a_taker_that_waits_gets_the_frame_when_it_comes(start: Start) -> None:
    source = ScriptedSource()
    thread = start(source)
    threading.Timer(0.1, source.give, (7,)).start()
    frame = thread.take(3)
    assert frame is not None
    assert frame.image[0, 0, 0] == 7


def test_a_loss_drops_the_frame_from_before_it(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, capture.__name__)
    first, second = ScriptedSource(), ScriptedSource()
    thread = start(first, CaptureError("still away"), second)
    first.give(1)
    until(lambda: thread.state.name == "ok")
    first.script.put(CaptureError("unplugged"))
    until(lambda: thread.state.name == "lost")
    assert thread.take(0.05) is None
    assert first.closed.is_set()
    assert thread.state.detail in ("unplugged", "still away")
    second.give(2)
    frame = thread.take(3)
    assert frame is not None
    assert (frame.image[0, 0, 0], frame.epoch, thread.state.name) == (2, 1, "ok")
    until(lambda: len(caplog.records) == 3)
    assert [record.getMessage() for record in caplog.records] == [
        "camera delivers: a scripted source",
        "camera lost: unplugged",
        "camera is back: a scripted source",
    ]


def test_a_failed_opening_is_a_loss_and_tried_again(start: Start) -> None:
    source = ScriptedSource()
    thread = start(CaptureError("no such camera"), source)
    until(lambda: thread.state.name == "lost")
    assert thread.state.detail == "no such camera"
    source.give(1)
    assert thread.take(3) is not None


@pytest.mark.parametrize(
    "step", [None, ValueError("a bug"), Grab(np.empty((0, 0, 3), np.uint8), 0, 0)], ids=["end", "bug", "empty frame"]
)
def test_a_live_source_is_lost_whatever_goes_wrong(start: Start, step: Grab | Exception | None) -> None:
    first, second = ScriptedSource(), ScriptedSource()
    thread = start(first, second)
    first.script.put(step)
    until(lambda: thread.state.name == "lost")
    second.give(2)
    assert thread.take(3) is not None
    assert first.closed.is_set()


def test_retries_slow_down_to_one_second(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    class Attempts(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            if len(pauses) == 6:
                self.set()
            return self.is_set()

    def refuse() -> ScriptedSource:
        raise CaptureError("away")

    thread = CameraThread(refuse, SystemClock())
    monkeypatch.setattr(thread, "_stopping", Attempts())
    thread.start()
    until(lambda: len(pauses) == 6)
    for pause, most in zip(pauses, (0.25, 0.5, 1, 1, 1, 1), strict=True):
        assert 0.7 * most <= pause <= most


def test_the_end_of_a_clip_comes_after_its_last_frame(start: Start) -> None:
    source = ScriptedSource(live=False)
    thread = start(source)
    source.give(1)
    source.script.put(None)
    until(source.closed.is_set)
    names = [thread.state.name]
    assert thread.take(1) is not None
    names.append(thread.state.name)
    assert names == ["ok", "ended"]
    began = time.monotonic()
    assert thread.take(5) is None
    assert time.monotonic() - began < 0.5


def test_a_clip_that_starts_again_begins_an_epoch(start: Start) -> None:
    source = ScriptedSource(live=False)
    thread = start(source)
    epochs = []
    for turn in (0, 0, 1, 2):
        source.give(1, turn=turn)
        frame = thread.take(1)
        assert frame is not None
        epochs.append(frame.epoch)
    assert epochs == [0, 0, 1, 2]


def test_a_patient_source_is_read_only_on_demand(start: Start) -> None:
    source = ScriptedSource(live=False, patient=True)
    thread = start(source, fps=1)  # and the frame limit does not hold it up
    for value in range(5):
        source.give(value)
    time.sleep(0.1)
    assert source.reads == 0
    began = time.monotonic()
    frames = [thread.take(1) for _ in range(5)]
    assert [frame.image[0, 0, 0] for frame in frames if frame] == [0, 1, 2, 3, 4]
    assert all(frame and frame.dropped == 0 for frame in frames)
    assert time.monotonic() - began < 0.5
    assert source.reads == 5


def test_a_blocked_read_is_seen_and_does_not_hold_up_the_end(start: Start) -> None:
    source = ScriptedSource()
    thread = start(source)
    source.give(1, at=12.5)
    until(lambda: thread.state.last_frame_at == 12.5)
    until(lambda: thread.state.blocked_s > 0.05)
    began = time.monotonic()
    thread.stop()
    assert time.monotonic() - began < 0.8
    source.give(2)  # the read comes back after all: too late
    until(source.closed.is_set)
    assert thread.take(0.05) is None


def test_a_clip_that_waits_is_not_blocked(start: Start) -> None:
    thread = start(ScriptedSource(live=False))
    time.sleep(0.05)
    assert thread.state.blocked_s == 0


def test_stopping_wakes_a_taker(start: Start) -> None:
    thread = start(ScriptedSource())
    threading.Timer(0.05, thread.stop, (0.05,)).start()
    began = time.monotonic()
    assert thread.take(5) is None
    assert time.monotonic() - began < 1


def test_the_frame_limit_gives_the_newest_frame_when_it_is_due(start: Start) -> None:
    source = ScriptedSource()
    thread = start(source, fps=5)
    source.give(1)
    assert thread.take(1) is not None

    def feed() -> None:
        for value in range(2, 60):
            time.sleep(0.01)
            source.give(value, SystemClock().monotonic())

    feeder = threading.Thread(target=feed)
    feeder.start()
    frame = thread.take(2)
    newest = thread.state.frames
    feeder.join()
    assert frame is not None
    assert newest - frame.number <= 2  # not the one that was there when waiting began
    assert frame.dropped >= 2


def test_a_lone_frame_is_given_when_it_is_due_and_not_at_the_time_out(start: Start) -> None:
    source = ScriptedSource()
    thread = start(source, fps=5)
    source.give(1)
    assert thread.take(1) is not None
    source.give(2)
    until(lambda: thread.state.frames == 2)
    began = time.monotonic()
    assert thread.take(3) is not None
    assert time.monotonic() - began < 0.5


def test_the_limiter_holds_the_rate_and_forgives_jitter() -> None:
    limiter = Limiter(10)
    taken = []
    for step in range(3000):  # a camera at 100 fps, for 30 s
        now = step * 0.01
        if now >= limiter.due:
            limiter.taken(now)
            taken.append(now)
    assert 295 <= len(taken) <= 301
    limiter = Limiter(10)
    missed = 0
    for step in range(100):  # a camera at the very rate, each second frame 30 ms early
        now = 5 + step * 0.1 - (0.03 if step % 2 else 0)
        missed += now < limiter.due
        limiter.taken(max(now, limiter.due))
    assert missed <= 50
    assert limiter.due < 5 + 100 * 0.1 + 0.06  # no lateness piles up


def test_no_limit_is_always_due() -> None:
    limiter = Limiter(0)
    limiter.taken(5.0)
    assert limiter.due <= 5.0


def test_the_pace_has_absolute_deadlines() -> None:
    clock = ManualClock()
    pace = Pace(clock, 10, clock.sleep)
    shown = []
    for _ in range(50):
        assert pace.behind() == 0
        pace.wait()
        shown.append(clock.now)
        clock.now += 0.03  # decoding
    assert shown == pytest.approx([1000 + index / 10 for index in range(50)])


def test_the_pace_skips_what_it_cannot_show() -> None:
    clock = ManualClock()
    pace = Pace(clock, 10, clock.sleep)
    pace.wait()
    clock.now += 0.55
    assert pace.behind() == 4  # frames 1 to 4; frame 5, due at 0.5 s, is shown at once
    pace.wait()
    assert clock.now == pytest.approx(1000.55)
    pace.wait()
    assert clock.now == pytest.approx(1000.6)
    clock.now += 3600  # a machine that slept: a second's worth, not an hour's
    assert pace.behind() == 10
    pace.wait()
    assert pace.behind() == 0


def test_a_picture_that_does_not_change_is_a_loss_and_no_new_look(start: Start) -> None:
    source = ScriptedSource()
    thread = start(source, frozen_s=0.3)
    source.give(1)
    assert thread.take(1) is not None
    for _ in range(3):
        source.give(1)
    until(lambda: thread.state.frames == 4)
    assert thread.take(0.05) is None
    assert thread.state.name == "ok"
    until(lambda: thread.state.name == "lost")
    assert "has not changed for 0 s" in thread.state.detail
    source.give(1)
    until(lambda: thread.state.frames == 5)
    assert thread.state.name == "lost"
    source.give(2)
    frame = thread.take(1)
    assert frame is not None
    assert (frame.image[0, 0, 0], frame.epoch, thread.state.name) == (2, 1, "ok")


def test_a_frozen_camera_is_opened_anew_now_and_then_and_stays_lost(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "_REOPEN_S", (0.5, 0.5))
    sources = [ScriptedSource(), ScriptedSource()]
    thread = start(*sources, frozen_s=0.2)
    for source in sources:
        end = time.monotonic() + 3
        while not source.closed.is_set() and not (source is sources[1] and source.reads > 3):
            source.give(1)
            time.sleep(0.05)
            assert time.monotonic() < end
    assert thread.state.name == "lost"
    assert thread.take(0.05) is None
    sources[1].give(2)
    assert thread.take(1) is not None
    assert thread.state.name == "ok"


def test_a_clip_may_stand_still_and_so_may_a_camera_that_was_said_to(start: Start) -> None:
    clip, camera = ScriptedSource(live=False), ScriptedSource()
    for thread, source in ((start(clip, frozen_s=0.1), clip), (start(camera, frozen_s=0), camera)):
        for _ in range(3):
            source.give(1)
            assert thread.take(0.2) is not None or source is camera
            time.sleep(0.1)
        assert thread.state.name == "ok"


@pytest.mark.parametrize(
    "image",
    [
        np.full((4, 6), 9, np.uint8),
        np.full((4, 6, 1), 9, np.uint8),
        np.full((4, 6, 3), 9, np.uint8)[:, ::-1],
        np.full((4, 6, 4), 9, np.uint8),
        np.full((4, 6), 9 * 256 + 5, np.uint16),
    ],
    ids=["grey", "one channel", "not contiguous", "alpha", "16 bit"],
)
def test_every_kind_of_picture_becomes_bgr(image: npt.NDArray[np.uint8]) -> None:
    bgr = as_bgr(image)
    assert bgr.shape == (4, 6, 3)
    assert bgr.dtype == np.uint8
    assert bgr.flags.c_contiguous
    assert (bgr == 9).all()


@pytest.mark.parametrize(
    "image", [None, np.empty((0, 5, 3), np.uint8), np.zeros((4, 6, 2), np.uint8), np.zeros((4, 6), np.float32)]
)
def test_what_is_no_picture_is_refused(image: npt.NDArray[np.uint8] | None) -> None:
    with pytest.raises(CaptureError):
        as_bgr(image)
