"""What a child sends is plain data, or nonsense that is named so."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edge_face import settings
from edge_face.events import Box, FrameResult, KnownTrack, TrackedFace
from edge_face.messages import CameraJob, PhotoResult, pack, unpack

VIEW = np.arange(128, dtype=np.float32)


def framed(encoding: object) -> bytes:
    face = TrackedFace(Box(1, 2, 3, 4), 1.0, 7, encoding)  # type: ignore[arg-type]
    return pack(FrameResult("front", 1, 0, 1.0, 2.0, 640, 480, (face,), {}))[4:]


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


def test_a_message_is_what_was_packed() -> None:
    assert unpack(pack(PhotoResult(3, error="too_large", message="x"))[4:]) == PhotoResult(
        3, error="too_large", message="x"
    )
