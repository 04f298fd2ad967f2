"""The CNN detector against dlib's own, and the geometry of its pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import cv2
import dlib
import numpy as np
import pytest

from edge_face import settings
from edge_face.errors import ModelError
from edge_face.vision import cnn, models
from edge_face.vision.dlib_backend import DlibCnnDetector
from edge_face.vision.interfaces import Detection
from edge_face.vision.pyramid import Canvas, layout
from edge_face.vision.weights import read_detector
from tests.support.photos import Image, astronaut, blank, hopper, side_by_side

WEIGHTS = models.weights(models.DETECTOR)
WINDOW = 80


def resized(image: Image, factor: float) -> Image:
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), dtype=np.uint8)


@pytest.fixture(scope="module", params=["onnxruntime", "opencv"])
def detector(request: pytest.FixtureRequest) -> cnn.CnnDetector:
    found = models.load(settings.Engine(backend=request.param, detector="cnn", threads=1)).detector
    assert isinstance(found, cnn.CnnDetector)
    return found


@pytest.fixture(scope="module")
def dlibs() -> DlibCnnDetector:
    return DlibCnnDetector(WEIGHTS)


def assert_same(found: Sequence[Detection], expected: Sequence[Detection]) -> None:
    assert [each.box for each in found] == [each.box for each in expected]
    np.testing.assert_allclose([each.confidence for each in found], [each.confidence for each in expected], atol=2e-3)


PHOTOS = {
    "astronaut": astronaut(),
    "hopper": hopper(),
    "two people": side_by_side(astronaut(), hopper()),
    "upright and odd": resized(hopper(), 0.77)[:, :301],
    "face cut by the left edge": np.ascontiguousarray(astronaut()[:, 190:]),
    "face cut by the top edge": np.ascontiguousarray(hopper()[190:]),
    "low and wide": np.ascontiguousarray(np.hstack([astronaut()[60:200]] * 2)),
    "nobody": blank(120, 200),
}


@pytest.mark.parametrize("photo", PHOTOS)
def test_boxes_and_scores_are_those_of_dlib(photo: str, detector: cnn.CnnDetector, dlibs: DlibCnnDetector) -> None:
    image = PHOTOS[photo]
    expected = dlibs.detect(image)
    assert_same(detector.detect(image), expected)
    faces = {"two people": 2, "low and wide": 2, "nobody": 0}.get(photo, 1)
    assert len(expected) == faces, "the photo does not test what it is named for"


def test_a_face_cut_by_the_edge_is_found_with_its_whole_box(detector: cnn.CnnDetector) -> None:
    whole = detector.detect(astronaut())[0].box
    cut = detector.detect(PHOTOS["face cut by the left edge"])[0].box
    assert cut.x1 < 0
    assert abs(cut.x2 + 190 - whole.x2) < 0.2 * whole.width


@pytest.mark.parametrize("width", [75, 90, 120, 200, 330])
def test_levels_that_are_skipped_lose_no_face_in_range(width: int, detector: cnn.CnnDetector) -> None:
    for image in (astronaut(), hopper()):
        native = detector.detect(image)[0].box.width
        scaled = resized(image, width / native)
        whole = detector.detect(scaled)[0]
        some = detector.detect(scaled, min_face=0.9 * width, max_face=1.1 * width)[0]
        assert some.box.iou(whole.box) > 0.6
        assert some.confidence > 0.7


def test_a_face_that_is_too_small_does_not_pass_for_a_larger_one(detector: cnn.CnnDetector) -> None:
    """Without the level it belongs to, it would be found as a larger face, in the first level that is searched."""
    native = detector.detect(hopper())[0].box.width
    for min_face in range(native + 20, 2 * native, 20):
        assert all(each.box.width < 0.9 * min_face for each in detector.detect(hopper(), min_face=min_face))


def test_faces_are_found_from_the_promised_size_on_at_every_offset(detector: cnn.CnnDetector) -> None:
    for image in (astronaut(), hopper()):
        box = detector.detect(image)[0].box
        small = resized(image, detector.smallest_px / box.width)
        for offset in range(0, 8, 3):
            moved = cv2.copyMakeBorder(small, offset, 0, 7 - offset, 0, cv2.BORDER_REPLICATE)
            assert len(detector.detect(np.asarray(moved, dtype=np.uint8))) == 1


@pytest.mark.parametrize("shape", [(0, 40), (40, 0), (1, 1), (3, 500), (500, 3), (8, 8)])
def test_tiny_pictures_hold_nobody(shape: tuple[int, int], detector: cnn.CnnDetector) -> None:
    assert detector.detect(np.zeros((*shape, 3), np.uint8)) == []


def test_a_picture_leaves_nothing_behind_on_the_canvas(detector: cnn.CnnDetector) -> None:
    before = detector.detect(astronaut())
    detector.detect(np.full_like(astronaut(), 255))
    assert detector.detect(astronaut()) == before


def test_other_weights_are_refused(detector: cnn.CnnDetector) -> None:
    weights = read_detector(WEIGHTS)
    last = weights.convs[-1]
    spoilt = replace(weights, convs=(*weights.convs[:-1], replace(last, bias=last.bias + np.float32(0.1))))
    with pytest.raises(ModelError, match="known-answer"):
        cnn.CnnDetector(detector._session, spoilt)


def test_cells_lie_where_dlib_puts_them() -> None:
    assert cnn.grid(read_detector(WEIGHTS).convs) == cnn.Grid(first=14, step=8, reach=29)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1280, 720), (99, 301), (37, 23), (1000, 90)])
def test_tiles_keep_their_distance_and_stay_on_the_canvas(size: tuple[int, int]) -> None:
    places = layout(*size, WINDOW)
    assert places is not None
    for number, tile in enumerate(places.tiles):
        assert min(tile.left, tile.top) >= 11
        assert tile.left + tile.width <= places.width - 11
        assert tile.top + tile.height <= places.height - 11
        for other in places.tiles[number + 1 :]:
            apart_x = max(other.left - tile.left - tile.width, tile.left - other.left - other.width)
            apart_y = max(other.top - tile.top - tile.height, tile.top - other.top - other.height)
            assert max(apart_x, apart_y) >= 0


def test_copies_are_those_of_dlib() -> None:
    """dlib.resize_image does the same arithmetic, but cuts off the fractions of each grey value."""
    places = layout(512, 512, WINDOW)
    assert places is not None
    pixels = Canvas(places, (0, 0, 0)).paint(astronaut())
    before = astronaut()
    for tile in places.tiles[:8]:
        copy = pixels[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width]
        if tile.level:
            expected = dlib.resize_image(np.ascontiguousarray(before), rows=tile.height, cols=tile.width)
            differences = copy.astype(int) - expected
            assert 0.3 < differences.mean() < 0.6
            assert np.abs(differences).max() <= 5
        before = copy


def test_levels_for_other_sizes_are_left_out() -> None:
    def levels(min_face: float, max_face: float) -> list[int]:
        places = layout(1280, 720, WINDOW, min_face, max_face)
        return [tile.level for tile in places.tiles] if places else []

    assert levels(0, 0)[0] == 0
    assert levels(200, 0)[0] > 2
    assert levels(80, 120)[-1] < 6
    assert levels(0, 20) == []
    assert levels(100_000, 0) == []
    fewer, whole = layout(1280, 720, WINDOW, 160), layout(1280, 720, WINDOW)
    assert fewer is not None
    assert whole is not None
    assert fewer.width * fewer.height < 0.6 * whole.width * whole.height
