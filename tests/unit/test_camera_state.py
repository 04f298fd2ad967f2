"""What the parent tells and logs of a camera, from what its child says."""

from __future__ import annotations

import pytest

from edge_face import settings
from edge_face.events import CameraStatus
from edge_face.messages import CameraJob, SourceState
from edge_face.supervisor import CameraProcess
from tests.support.clock import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def told() -> list[CameraStatus]:
    return []


@pytest.fixture
def process(clock: HandClock, told: list[CameraStatus], caplog: pytest.LogCaptureFixture) -> CameraProcess:
    caplog.set_level("INFO", "edge_face.supervisor")

    def job(first_track: int) -> CameraJob:
        return CameraJob("front", settings.Camera(), settings.Engine(), 70, 5.0, first_track, "info")

    return CameraProcess(job, "front", clock, lambda _frame: None, told.append)


def test_one_line_for_a_loss_and_one_for_the_return(
    process: CameraProcess, told: list[CameraStatus], caplog: pytest.LogCaptureFixture
) -> None:
    signs = [("starting", "", 0.0), ("ok", "a camera", 0.0), ("ok", "a camera", 3.9), ("ok", "a camera", 4.1)]
    signs += [("lost", "unplugged", 0.0), ("lost", "no such camera", 0.0), ("starting", "", 0.0)]
    signs.append(("ok", "a camera", 0.0))
    for state, detail, blocked_s in signs:
        for _sign_of_life in range(3):
            process._watch(SourceState(state, detail, blocked_s))  # type: ignore[arg-type]
            if detail == "no such camera":
                assert process.status.detail == detail  # the newest reason, but not another line
    assert [status.state for status in told] == ["ok", "lost", "ok"]
    assert caplog.messages == [
        "camera front ok: a camera",
        "camera front is lost: no frame for 4 s",
        "camera front is back: a camera",
    ]


def test_a_camera_that_comes_and_goes_for_ever_does_not_fill_the_log(
    process: CameraProcess, clock: HandClock, told: list[CameraStatus], caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(100):
        for sign in (SourceState("ok", "a camera", 0.0), SourceState("lost", "why", 0.0)):
            clock.now += 2
            process._watch(sign)
    assert [status.state for status in told] == ["ok", "lost"] * 100
    assert len(caplog.messages) == 10
    assert caplog.messages[-1].startswith("camera front comes and goes: why; no more lines")
    clock.now += 100  # and then it stayed
    process._watch(SourceState("ok", "a camera", 0.0))
    assert caplog.messages[10:] == ["camera front is back: a camera"]
