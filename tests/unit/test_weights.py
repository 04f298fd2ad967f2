"""dlib's files, read to the last byte, and refused when a byte is wrong."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest

from edge_face.errors import ModelError
from edge_face.vision import weights
from edge_face.vision.files import DETECTOR, FILES
from edge_face.vision.models import ENCODER
from edge_face.vision.models import weights as path_of


@pytest.fixture(scope="module")
def encoder() -> bytes:
    return path_of(ENCODER).read_bytes()


@pytest.fixture(scope="module")
def detector() -> bytes:
    return path_of(DETECTOR).read_bytes()


def test_the_encoder_is_read_whole(encoder: bytes) -> None:
    read = weights.parse_encoder(encoder, ENCODER)
    assert read.size == 150
    assert read.mean == pytest.approx((122.782, 117.001, 104.298), abs=1e-4)
    assert read.stem.kernel.shape == (32, 3, 7, 7)
    assert [block.second.kernel.shape[0] for block in read.blocks] == [32] * 3 + [64] * 4 + [128] * 3 + [256] * 4
    assert [number for number, block in enumerate(read.blocks) if block.halves] == [3, 7, 10, 13]
    assert read.output.shape == (256, 128)
    assert read.output.dtype == np.float32
    convs = [read.stem, *(conv for block in read.blocks for conv in (block.first, block.second))]
    assert len(convs) == 29
    assert all(conv.padding == ((0, 0) if conv.stride == (2, 2) else (1, 1)) for conv in convs)


def test_the_detector_is_read_whole(detector: bytes) -> None:
    read = weights.parse_detector(detector, DETECTOR)
    assert [conv.kernel.shape for conv in read.convs] == [
        (16, 3, 5, 5),
        (32, 16, 5, 5),
        (32, 32, 5, 5),
        (45, 32, 5, 5),
        (45, 45, 5, 5),
        (45, 45, 5, 5),
        (1, 45, 9, 9),
    ]
    assert [conv.stride[0] for conv in read.convs] == [2, 2, 2, 1, 1, 1, 1]
    assert [conv.relu for conv in read.convs] == [True] * 6 + [False]
    assert read.window == (80, 80)
    assert read.overlap_iou == pytest.approx(0.33828, abs=1e-5)
    assert read.overlap_covered == 1.0


def test_a_file_that_ends_anywhere_too_soon_is_refused(detector: bytes) -> None:
    for length in (0, 1, 3, 40, 130, 150, 5000, len(detector) // 2, len(detector) - 1):
        with pytest.raises(ModelError, match="ends too soon"):
            weights.parse_detector(detector[:length], DETECTOR)


def test_a_byte_too_many_is_refused(detector: bytes, encoder: bytes) -> None:
    with pytest.raises(ModelError, match=f"{DETECTOR}.*1 bytes follow"):
        weights.parse_detector(detector + b"\0", DETECTOR)
    with pytest.raises(ModelError, match="3 bytes follow"):
        weights.parse_encoder(encoder + b"abc", ENCODER)


@pytest.mark.parametrize(
    ("found", "replaced", "reason"),
    [
        (b"loss_mmod_", b"loss_mmog_", "the loss is 'loss_mmog_' and not 'loss_mmod_'"),
        (b"con_4", b"con_9", "a layer is 'con_9' and not 'con_4'"),
        (b"bn_con2", b"bn_con7", "a layer is 'bn_con7'"),
        (b"relu_1", b"relu_x", "a flag is b'x'"),
        (b"\x01\x02\x01\x02\x01\x02", b"\x01\x02\x01\x09\x01\x02", "the version of a .* layer is 9 and not 2"),
        (b"\x01\x02\x01\x02\x01\x02", b"\x01\x02\x4f\x02\x01\x02", "an integer cannot begin with 0x4f"),
        (b"\x01\x02\x02\xc0\x04", b"\x01\x02\x08" + b"\xff" * 8, "ends too soon|negative"),
    ],
)
def test_what_dlib_would_not_write_is_refused(detector: bytes, found: bytes, replaced: bytes, reason: str) -> None:
    assert found in detector
    with pytest.raises(ModelError, match=reason):
        weights.parse_detector(detector.replace(found, replaced, 1), DETECTOR)


def test_a_weight_that_is_no_number_is_refused(detector: bytes) -> None:
    begin = detector.index(b"con_4") + 40
    with pytest.raises(ModelError, match="infinite or not a number"):
        weights.parse_detector(detector[:begin] + b"\xff" * 4 + detector[begin + 4 :], DETECTOR)


def test_one_network_is_not_taken_for_the_other(detector: bytes, encoder: bytes) -> None:
    with pytest.raises(ModelError, match="the loss is"):
        weights.parse_encoder(detector, DETECTOR)
    with pytest.raises(ModelError, match="the loss is"):
        weights.parse_detector(encoder, ENCODER)


def test_any_changed_byte_is_a_changed_weight_or_a_sentence(detector: bytes) -> None:
    """No byte may lead to another exception, or to endless memory."""
    random = np.random.default_rng(1)
    places = [*range(200), *random.integers(0, len(detector), 200)]
    for place in places:  # bits of tags, sizes, versions, weights
        changed = bytearray(detector)
        changed[place] ^= int(random.integers(1, 256))
        with contextlib.suppress(ModelError):
            weights.parse_detector(bytes(changed), DETECTOR)


def test_the_installed_files_are_the_pinned_ones() -> None:
    assert {file.name: file.state() for file in FILES if file.used} == {file.name: "ok" for file in FILES if file.used}
