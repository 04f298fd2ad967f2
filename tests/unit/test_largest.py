"""Enrolment's search for one large face finds what the search for all finds, for less."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import cv2
import dlib
import numpy as np
import pytest

from edge_face.engine import Engine
from edge_face.images import RgbImage
from edge_face.vision.cache import ModelCache
from edge_face.vision.dlib_backend import HogDetector, hog_model
from tests.support.photos import astronaut, hopper, side_by_side

HALF = 0.5


def rgb(bgr: RgbImage, factor: float = 1.0) -> RgbImage:
    resized = cv2.resize(bgr, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(resized[:, :, ::-1], dtype=np.uint8)


def beside(first: RgbImage, second: RgbImage, factor: float) -> RgbImage:
    """The second one smaller by that factor, on a wall as high as the first."""
    small = cv2.resize(second, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    wall = np.full((max(len(first), len(small)), small.shape[1], 3), 127, np.uint8)
    wall[: len(small)] = small
    return rgb(side_by_side(first, wall[: len(first)]))


PICTURES: dict[str, Callable[[], RgbImage]] = {
    "a portrait": lambda: rgb(hopper()),
    "a small portrait": lambda: rgb(hopper(), 0.4),
    "a large portrait": lambda: rgb(hopper(), 2.5),
    "a small face": lambda: rgb(astronaut()),
    "nobody": lambda: rgb(np.full((600, 800, 3), 90, np.uint8)),
    "two alike": lambda: beside(astronaut(), astronaut()[:, ::-1], 1.0),
    "a rival": lambda: beside(hopper(), hopper()[:, ::-1], 0.6),
    "too small for a rival": lambda: beside(hopper(), hopper()[:, ::-1], 0.3),
}


@pytest.mark.parametrize("picture", PICTURES.values(), ids=list(PICTURES))
def test_the_largest_face_and_its_rivals_are_those_of_the_whole_search(
    picture: Callable[[], RgbImage], engine: Engine
) -> None:
    everybody = engine.still(picture())
    wanted = [face for face in everybody if face.box.width >= int(HALF * everybody[0].box.width)]
    found = engine.still(picture(), HALF)
    assert [face.box for face in found] == [face.box for face in wanted]
    for face, other in zip(found, wanted, strict=True):
        assert np.array_equal(face.encoding, other.encoding)
        assert face.quality == other.quality


def test_so_it_is_in_photos_of_many_people(data: Path, engine: Engine) -> None:
    photos = sorted((data / "lfw").glob("*/*_0001.jpg"))[::50]
    assert len(photos) > 30
    for photo in photos:
        image = rgb(np.asarray(cv2.imread(str(photo)), np.uint8))
        first, alone = engine.still(image), engine.still(image, HALF)
        assert [face.box for face in first[:1]] == [face.box for face in alone[:1]], photo
        assert not first or np.array_equal(first[0].encoding, alone[0].encoding), photo


def test_hog_finds_the_same_from_coarse_to_fine() -> None:
    hog, image = HogDetector(), rgb(hopper(), 2)
    everything = hog.detect(image)
    for narrowest in (0, 150, 300):
        steps = list(hog.detect_large_first(image, narrowest))
        assert steps[0][1] < max(narrowest, 1)
        assert [left for _, left in steps] == sorted({left for _, left in steps}, reverse=True)
        assert steps[-1] == (everything, 0)
        for found, left in steps:
            assert found == [each for each in everything if each.box.width > left]
            assert found


def test_the_first_look_costs_a_fraction() -> None:
    hog, image = HogDetector(), rgb(hopper(), 2)

    def took_s(narrowest: float) -> float:
        begin = time.thread_time()
        next(hog.detect_large_first(image, narrowest))
        return time.thread_time() - begin

    assert took_s(300) < 0.5 * took_s(0)


def test_a_face_over_the_edge_gets_the_box_of_the_whole_search() -> None:
    """dlib's box of one is wider than high."""
    hog, seen = HogDetector(), 0
    for cut in range(150, 250, 12):
        image = rgb(np.ascontiguousarray(hopper()[:, cut:]), 1.5)
        everything = hog.detect(image)
        for found, left in hog.detect_large_first(image, 130):
            assert found == [each for each in everything if each.box.width > left]
        seen += any(each.box.x1 < 0 and each.box.width > each.box.height + 2 for each in everything)
    assert seen > 2


def test_a_saved_detector_is_the_same(tmp_path: Path) -> None:
    image = rgb(astronaut())
    boxes, scores, _ = dlib.get_frontal_face_detector().run(image, 0, 0.3)
    saved = ModelCache(tmp_path, 1).get(Path(__file__), hog_model)
    assert ModelCache(tmp_path, 1).get(Path(__file__), lambda _content, _name: b"never") == saved
    found = HogDetector(saved).detect(image)
    assert [(each.box.x1, each.box.y2 - 1, each.confidence) for each in found] == [
        (box.left(), box.bottom(), score) for box, score in zip(boxes, scores, strict=True)
    ]
    assert found
