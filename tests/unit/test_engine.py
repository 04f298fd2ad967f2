"""The vision stages on real photos, against face_recognition's own answers."""

from __future__ import annotations

import warnings

import cv2
import numpy as np
import pytest

from edge_face import settings
from edge_face.engine import Engine
from edge_face.errors import ModelError
from edge_face.events import KnownTrack
from edge_face.vision import models
from edge_face.vision.detect import search_scale
from edge_face.vision.known_answer import self_test
from tests.support.photos import Image, astronaut, blank, hopper, side_by_side


def bgr(image: Image) -> Image:
    return np.ascontiguousarray(image[:, :, ::-1])


def test_encodings_are_those_of_face_recognition(engine: Engine) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports pkg_resources
        import face_recognition

    for image in (astronaut(), hopper()):
        (face, *_), _stages = engine.process(bgr(image), 0.0)
        box = face.box
        (expected,) = face_recognition.face_encodings(image, [(box.y1, box.x2 - 1, box.y2 - 1, box.x1)], model="small")
        assert np.linalg.norm(face.encoding - expected) < 1e-5
        (swapped,) = face_recognition.face_encodings(
            bgr(image), [(box.y1, box.x2 - 1, box.y2 - 1, box.x1)], model="small"
        )
        assert np.linalg.norm(face.encoding - swapped) > 0.05, "the test would not notice BGR"


def test_every_stage_is_timed(engine: Engine) -> None:
    _faces, stages = engine.process(bgr(astronaut()), 0.0)
    assert list(stages) == ["motion", "follow", "scale", "detect", "align", "encode", "track"]
    assert all(took_ms >= 0 for took_ms in stages.values())
    assert stages["encode"] > 0.1


def test_no_face_in_an_empty_picture(engine: Engine) -> None:
    assert engine.process(blank(), 0.0)[0] == ()


def test_boxes_are_full_frame_pixels_whatever_the_scale(loaded_models: models.Models) -> None:
    big = cv2.resize(astronaut(), None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    boxes = []
    for scale in (1.0, 0.5):
        (face, *_), _ = Engine(loaded_models, settings.Engine(), scale=scale, max_age_s=1e6).process(bgr(big), 0.0)
        boxes.append(face.box)
    assert boxes[0].iou(boxes[1]) > 0.6


@pytest.mark.parametrize("min_face", [60, 80, 120, 160])
def test_auto_scale_finds_a_face_of_min_face_pixels_at_every_offset(
    loaded_models: models.Models, min_face: int
) -> None:
    engine = Engine(loaded_models, settings.Engine(min_face=min_face), max_age_s=1e6)
    shrink = min_face / 170  # her face is about 170 pixels wide at twice the size
    found = 0
    for offset in range(6):
        person = cv2.resize(astronaut(), None, fx=2 * shrink, fy=2 * shrink, interpolation=cv2.INTER_AREA)
        scene = blank(1100, 1200)
        scene[offset : offset + person.shape[0], 3 * offset : 3 * offset + person.shape[1]] = person
        found += bool(engine.process(bgr(scene), 0.0)[0])
    assert found == 6


def test_auto_scale_reduces_as_much_as_min_face_allows(loaded_models: models.Models) -> None:
    detector = loaded_models.detector
    assert search_scale(None, 160, detector) == search_scale(None, 80, detector) / 2
    assert search_scale(0.25, 80, detector) == 0.25


def test_faces_outside_the_configured_sizes_are_not_seen(loaded_models: models.Models) -> None:
    def seen(**sizes: int) -> int:
        return len(
            Engine(loaded_models, settings.Engine(**sizes), scale=1.0, max_age_s=1e6).process(bgr(hopper()), 0.0)[0]
        )

    assert seen() == 1  # she is 187 pixels wide
    assert seen(min_face=260) == 0
    assert seen(max_face=120) == 0


def test_one_face_keeps_its_track_and_another_gets_its_own(engine: Engine) -> None:
    pair = bgr(side_by_side(astronaut(), hopper()))
    first = {face.track for face in engine.process(pair, 0.0)[0]}
    moved = {face.track for face in engine.process(np.roll(pair, 25, axis=1), 0.1)[0]}
    assert len(first) == 2
    assert moved == first
    engine.reset()
    assert not first & {face.track for face in engine.process(pair, 0.2)[0]}


def test_an_interruption_or_a_new_process_makes_no_new_tracks(loaded_models: models.Models) -> None:
    pair = bgr(side_by_side(astronaut(), hopper()))
    engine = Engine(loaded_models, settings.Engine(), max_age_s=1e6)
    faces = engine.process(pair, 0.0)[0]
    first = {face.track for face in faces}
    engine.interrupted()
    assert {face.track for face in engine.process(np.roll(pair, 300, axis=1), 0.1)[0]} == first
    smaller = np.asarray(cv2.resize(pair, None, fx=0.9, fy=0.9), dtype=np.uint8)  # another resolution
    assert {face.track for face in engine.process(smaller, 0.2)[0]} == first
    known = [KnownTrack(face.track, 0.0, (face.encoding,)) for face in faces if face.encoding is not None]
    after = Engine(loaded_models, settings.Engine(), first_track=9, known=known, max_age_s=1e6)
    assert {face.track for face in after.process(pair, 0.3)[0]} == first


@pytest.mark.parametrize("shape", [(1, 1), (1, 40_000), (40_000, 1), (19, 4000), (300, 40_000)])
def test_a_strip_has_no_face(shape: tuple[int, int], engine: Engine) -> None:
    assert engine.still(np.full((*shape, 3), 90, np.uint8)) == ()


def test_somebody_else_in_the_same_place_is_another_track(engine: Engine) -> None:
    (before, *_), _ = engine.process(bgr(cv2.resize(astronaut()[20:270, 110:330], (440, 500))), 0.0)
    (after, *_), _ = engine.process(bgr(cv2.resize(hopper()[60:460, 100:452], (440, 500))), 0.1)
    assert before.box.iou(after.box) > 0.3
    assert before.track != after.track


def test_a_still_is_searched_for_smaller_faces_than_a_camera(engine: Engine) -> None:
    small = cv2.resize(astronaut(), None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    assert len(engine.still(np.asarray(small, dtype=np.uint8))) == 1


class WrongEncoder:
    """An encoder as broken GPU builds of dlib were: it answers, but not with the truth."""

    name = "wrong"

    def __init__(self, value: float) -> None:
        self._value = value

    def encode(self, chips: Image) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        return np.full((len(chips), 128), self._value, np.float32)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 0.08])
def test_a_backend_with_wrong_answers_is_refused(value: float) -> None:
    with pytest.raises(ModelError, match="wrong encoder"):
        self_test(WrongEncoder(value))


def test_weights_that_are_missing_are_named() -> None:
    with pytest.raises(ModelError, match=r"nothing\.dat"):
        models.weights("nothing.dat")
