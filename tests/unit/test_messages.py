"""What a child sends is plain data, or nonsense that is named so."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from edge_face import settings
from edge_face.bus import Bus
from edge_face.clock import SystemClock
from edge_face.errors import WorkerError
from edge_face.events import Box, Event, FrameResult, FrameView, KnownTrack, Person, TrackedFace
from edge_face.gallery import Gallery
from edge_face.gate import Gate
from edge_face.messages import LARGEST, CameraJob, PhotoResult, pack, unpack
from edge_face.supervisor import CameraProcess

VIEW = np.arange(128, dtype=np.float32)


def framed(encoding: object) -> bytes:
    face = TrackedFace(Box(1, 2, 3, 4), 1.0, 7, encoding)  # type: ignore[arg-type]
    return pack(FrameResult("front", 1, 0, 1.0, 2.0, 640, 480, (face,), {}))[4:]


def a_frame(**changes: Any) -> FrameResult:
    face = TrackedFace(changes.pop("box", Box(1, 2, 3, 4)), 1.0, changes.pop("track", 7), changes.pop("encoding", VIEW))
    frame = FrameResult("front", 1, 0, 1.0, 2.0, 640, 480, (face,), {"detect": 1.5})
    return dataclasses.replace(frame, **changes)


def test_encodings_and_tracks_arrive_as_they_were() -> None:
    (face,) = unpack(framed(VIEW)).faces
    assert (face.encoding == VIEW).all()
    known = KnownTrack(7, 12.5, (VIEW, VIEW * 2))
    job = CameraJob("front", settings.Camera(), settings.Engine(), 70, 5.0, 8, "info", known=(known,))
    (again,) = unpack(pack(job)[4:]).known
    assert (again.id, again.last_seen) == (7, 12.5)
    assert [view.tolist() for view in again.views] == [VIEW.tolist(), (VIEW * 2).tolist()]


@pytest.mark.parametrize("count", [0, 127, 129])
def test_an_encoding_of_another_length_is_nonsense(count: int) -> None:
    """Matching relies on it: the parent would fail, not the child."""
    with pytest.raises(ValueError, match="encoding"):
        unpack(framed(np.zeros(count, np.float32)))


@pytest.mark.parametrize(
    "data",
    [
        b"\x05Nonse",
        b"\x0bPhotoResult",
        b"\x0bPhotoResult" + msgspec.msgpack.encode({"id": "one"}),
        b"\x0bPhotoResult" + msgspec.msgpack.encode({"id": 1, "faces": [{"box": 5}]}),
        b"\xff" * 20,
        framed(VIEW)[:-3],
    ],
)
def test_nonsense_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError):
        unpack(data)


@pytest.mark.parametrize(
    "changes",
    [
        {"timestamp": math.nan},
        {"timestamp": math.inf},
        {"timestamp": 1e12},
        {"timestamp": -1e12},
        {"grabbed_at": math.inf},
        {"stages_ms": {"detect": math.nan}},
        {"track": 2**64 - 1},
        {"box": Box(0, 0, 2**63, 1)},
        {"encoding": np.full(128, np.nan, np.float32)},
        {"encoding": np.full(128, np.inf, np.float32)},
        {"encoding": np.full(128, 3e38, np.float32)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_numbers_that_cannot_be_are_nonsense(changes: dict[str, Any]) -> None:
    """The parent would fail over the event that it makes of them, and with it all other cameras."""
    assert unpack(pack(a_frame())[4:]).faces[0].track == 7
    with pytest.raises(ValueError, match="FrameResult"):
        unpack(pack(a_frame(**changes))[4:])


@pytest.mark.parametrize("sign", [1, -1])
def test_of_all_numbers_that_are_believed_an_event_can_be_made(sign: int) -> None:
    told: list[Event] = []
    gate = Gate(
        *("gate-1", "front", settings.Decision(), SystemClock(), Bus[FrameView]()),
        *(lambda event, _deadline: told.append(event), lambda _state: None, lambda _tracks: None),
        clock_synced=lambda: True,
    )
    gate.use_gallery(Gallery.build([Person("katya", "Katya")], np.zeros(1, np.int32), np.ones((1, 128), np.float32)))
    most = sign * LARGEST
    frame = a_frame(
        grabbed_at=SystemClock().monotonic(),
        timestamp=float(most),
        track=most,
        box=Box(most, most, most, most),
        encoding=np.full(128, most, np.float32),
    )
    for _ in range(3):
        gate.on_frame(unpack(pack(frame)[4:]))
    (event,) = told
    json.dumps(event.payload(), allow_nan=False)


def test_a_camera_s_process_speaks_for_no_other_camera() -> None:
    """Its event would stand under the other one's topic, and may open another door."""
    seen: list[FrameResult] = []
    process = CameraProcess(lambda _first: None, "front", SystemClock(), seen.append, lambda _: None)  # type: ignore[arg-type,return-value]
    process._take(a_frame())
    with pytest.raises(WorkerError, match="'back'"):
        process._take(a_frame(camera="back"))
    assert [frame.camera for frame in seen] == ["front"]


def test_a_message_is_what_was_packed() -> None:
    assert unpack(pack(PhotoResult(3, error="too_large", message="x"))[4:]) == PhotoResult(
        3, error="too_large", message="x"
    )
