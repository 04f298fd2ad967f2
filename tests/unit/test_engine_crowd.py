"""More faces at once than can be judged in time."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_face import settings
from edge_face.access import Access
from edge_face.engine import Engine
from edge_face.events import FrameResult, Person
from edge_face.gallery import Gallery
from edge_face.images import BgrImage, RgbImage
from edge_face.vision import models
from edge_face.vision.budget import ENCODING_PART, SEARCH_PART
from edge_face.vision.interfaces import Detection
from tests.support.crowd import Somebody, crowd, people, place_of
from tests.support.photos import astronaut

FACES, RESIDENTS = 20, 15
Told = tuple[str, str]


class SlowEncoder:
    """The real encoder on a board that needs so long for a face."""

    name = "slow"

    def __init__(self, encoder: models.Encoder, face_s: float) -> None:
        self._encoder = encoder
        self._face_s = face_s
        self.batches: list[int] = []
        self.waited_s = 0.0

    def encode(self, chips: RgbImage) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        self.batches.append(len(chips))
        time.sleep(self._face_s * len(chips))
        self.waited_s += self._face_s * len(chips)
        return np.asarray(self._encoder.encode(chips), np.float32)


class SlowDetector:
    """The real detector on a board, or with a camera, for which a search takes so long for each million pixels."""

    name = "slow"

    def __init__(self, detector: models.Detector, search_s: float) -> None:
        self._detector = detector
        self._search_s = search_s
        self.smallest_px = detector.smallest_px
        self.searched: list[int] = []

    def detect(self, image: RgbImage, min_face: float = 0, max_face: float = 0) -> list[Detection]:
        pixels = image.shape[0] * image.shape[1]
        time.sleep(self._search_s * pixels / 1e6)
        self.searched.append(pixels)
        return self._detector.detect(image, min_face, max_face)


@pytest.fixture(scope="module")
def standing(data: Path, loaded_models: models.Models) -> list[Somebody]:
    return people(data, Engine(loaded_models, settings.Engine()), FACES)


def gallery(residents: list[Somebody]) -> Gallery:
    owners = np.arange(len(residents), dtype=np.int32)
    persons = [Person(str(at), somebody.name) for at, somebody in enumerate(residents)]
    return Gallery.build(persons, owners, np.stack([somebody.encoding for somebody in residents]))


def decided(engine: Engine, standing: list[Somebody], encoder: SlowEncoder, max_age_s: float) -> dict[int, Told]:
    """Each place's decision, reason and name, as the gate makes them; a frame is judged as late as its work took.

    That is processor time and the encoder's waiting, so that a busy machine changes nothing.
    """
    known = gallery(standing[:RESIDENTS])
    access = Access(settings.Decision(max_age=max_age_s))
    now, told = 100.0, dict[int, Told]()
    for number in range(40):
        if len(told) == len(standing):
            break
        frame = crowd(standing, number)
        begin = time.process_time() + encoder.waited_s
        faces, _stages = engine.process(frame, now)
        took_s = time.process_time() + encoder.waited_s - begin
        result = FrameResult("front", number, 0, now, now, *frame.shape[1::-1], faces, {})
        found = iter(known.match([face.encoding for face in faces if face.encoding is not None]))
        matches = [None if face.encoding is None else next(found) for face in faces]
        outcome = access.observe(result, matches, now + took_s)
        engine.settled(outcome.settled)
        for decision in outcome.decisions:
            box, person = decision.verdict.box, decision.verdict.person
            place = place_of((box.x1 + box.x2) / 2, (box.y1 + box.y2) / 2)
            assert place not in told, "decided twice"
            told[place] = decision.verdict.reason, person.name if person else ""
        now += max(took_s, 0.1)
    return told


def right(standing: list[Somebody]) -> dict[int, Told]:
    return {at: ("match", somebody.name) if at < RESIDENTS else ("unknown", "") for at, somebody in enumerate(standing)}


def test_twenty_faces_are_encoded_together_and_each_is_who_it_is(
    loaded_models: models.Models, standing: list[Somebody]
) -> None:
    encoder = SlowEncoder(loaded_models.encoder, 0.0)
    engine = Engine(dataclasses.replace(loaded_models, encoder=encoder), settings.Engine(), max_age_s=60)
    assert decided(engine, standing, encoder, 60) == right(standing)
    assert encoder.batches[0] == FACES


@pytest.mark.slow
def test_on_a_slow_board_a_crowd_is_decided_part_by_part_and_in_time(
    loaded_models: models.Models, standing: list[Somebody]
) -> None:
    """60 ms a face: twenty of them take longer than a frame may be old, and all frames would be stale."""
    encoder = SlowEncoder(loaded_models.encoder, 0.06)
    slow = dataclasses.replace(loaded_models, encoder=encoder, encode_ms=60.0)  # as the self-test would tell
    engine = Engine(slow, settings.Engine(), max_age_s=1.0)
    assert decided(engine, standing, encoder, 1.0) == right(standing)
    assert max(encoder.batches) <= ENCODING_PART / 0.06
    assert encoder.batches[0] > 1, "one by one is no batch"


def film(engine: Engine, faces: list[BgrImage], frames: int) -> list[float]:
    """How long each frame took, of a scene in which these stand and something always moves elsewhere."""
    took: list[float] = []
    noise = np.random.default_rng(0)
    now = 0.0
    for number in range(frames):
        scene = np.full((1080, 1440, 3), 127, np.uint8)
        for at, face in enumerate(faces):
            height, width = face.shape[:2]
            scene[number % 3 : number % 3 + height, at * 800 : at * 800 + width] = face
        scene[900:1000, 700:900] = noise.integers(0, 255, 3)
        begin = time.perf_counter()
        seen, _stages = engine.process(scene, now)
        took.append(time.perf_counter() - begin)
        assert len(seen) == len(faces), f"frame {number}"
        now += max(took[-1], 0.1)
    return took


NEAR = np.ascontiguousarray(cv2.resize(astronaut(), None, fx=3, fy=3)[:750, 250:1000, ::-1])  # 260 pixels wide
FAR = np.ascontiguousarray(cv2.resize(astronaut(), None, fx=1.1, fy=1.1)[:, :, ::-1])  # 95


@pytest.mark.parametrize("scale", [0.9, None], ids=["scale", "auto"])
def test_a_search_that_takes_too_long_does_not_make_every_frame_late(
    loaded_models: models.Models, scale: float | None
) -> None:
    """As with a 4K camera on a small board. With a scale of the user's own, quick frames follow each slow search."""
    detector = SlowDetector(loaded_models.detector, 0.3)
    slow = dataclasses.replace(loaded_models, detector=detector)
    engine = Engine(slow, settings.Engine(), scale=scale, max_age_s=0.5)
    took = film(engine, [NEAR], 30)
    assert took[0] > SEARCH_PART * 0.5
    full = sum(pixels == max(detector.searched) for pixels in detector.searched)
    assert 2 <= full <= (3 if scale is None else 15)  # 3: on a machine so busy that the next one is due
    assert engine.counts["encode"] == len(took), "its decision is open: each frame is a vote"


def test_coarse_searches_keep_a_far_face_in_view_and_full_ones_find_it(loaded_models: models.Models) -> None:
    detector = SlowDetector(loaded_models.detector, 0.3)
    engine = Engine(dataclasses.replace(loaded_models, detector=detector), settings.Engine(), max_age_s=0.5)
    film(engine, [NEAR, FAR], 40)
    whole = [pixels for pixels in detector.searched if pixels > 80_000]  # the rest was searched around a face
    assert [pixels == max(whole) for pixels in whole[:4]] == [True, True, False, False]
