"""The demo's clip: who is in it when, and that a detector sees them."""

from __future__ import annotations

import importlib.util
import time

import cv2
import dlib
import numpy as np
import pytest

from edge_face.clock import SystemClock
from edge_face.demo import EMPTY_S, FPS, HEIGHT, STAY_S, WALK_S, WIDTH, DemoScene, DemoSource, enrolment_photo
from edge_face.errors import CaptureError

CYCLE_S = 2 * (2 * WALK_S + STAY_S + EMPTY_S)


@pytest.fixture(scope="module")
def scene() -> DemoScene:
    return DemoScene()


def test_two_people_come_in_turn_with_empty_time_between(scene: DemoScene) -> None:
    people = [present[0] if (present := scene.person_at(index)) else None for index in range(int(2 + CYCLE_S) * FPS)]
    turns = [person for index, person in enumerate(people) if index == 0 or person != people[index - 1]]
    assert turns == [None, 0, None, 1, None]
    empty = max(sum(1 for person in people[start : start + 7 * FPS] if person is None) for start in range(len(people)))
    assert empty / FPS > 5  # the default presence_timeout
    later = [scene.person_at(index + int(CYCLE_S) * FPS) for index in range(24, 60)]
    assert [present and present[0] for present in later] == people[24:60]


def test_dlib_finds_the_face_while_somebody_stays_and_none_when_nobody_does(scene: DemoScene) -> None:
    detector = dlib.get_frontal_face_detector()
    found = {None: 0, 0: 0, 1: 0}
    looked = {None: 0, 0: 0, 1: 0}
    for index in range(0, int(2 + CYCLE_S) * FPS, 4):
        present = scene.person_at(index)
        if present and not WALK_S <= present[1] < WALK_S + STAY_S:
            continue
        who = present[0] if present else None
        faces = detector(cv2.cvtColor(scene.frame(index), cv2.COLOR_BGR2RGB))
        looked[who] += 1
        found[who] += len(faces)
        assert all(100 <= face.width() <= 190 for face in faces)
    assert found[None] == 0
    assert found[0] == looked[0] > 10
    assert found[1] == looked[1] > 10


def test_a_frame_depends_on_its_index_alone(scene: DemoScene) -> None:
    frame = scene.frame(60)
    scene.frame(200)
    assert np.array_equal(frame, scene.frame(60))
    assert np.array_equal(frame, DemoScene().frame(60))
    assert frame.shape == (HEIGHT, WIDTH, 3)
    assert frame.dtype == np.uint8
    assert not np.array_equal(scene.frame(0), scene.frame(1))  # a sensor is never still
    assert cv2.absdiff(scene.frame(0), scene.frame(1)).mean() < 4  # but an empty scene nearly is


def test_frames_are_cheap(scene: DemoScene) -> None:
    began = time.process_time()
    for index in range(24, 84):
        scene.frame(index)
    assert (time.process_time() - began) / 60 < 0.02  # about 2 ms on a desktop's core


def test_the_enrolment_photo_is_a_jpeg_with_one_face() -> None:
    data = enrolment_photo()
    assert data.startswith(b"\xff\xd8\xff")
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert len(dlib.get_frontal_face_detector()(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))) == 1
    blue, _green, red = image[83:170, 107:194].reshape(-1, 3).mean(axis=0)
    assert red > blue + 20  # skin: red and blue have not changed places


def test_the_source_plays_it_in_real_time_as_a_camera() -> None:
    clock = SystemClock()
    source = DemoSource(clock)
    assert source.live
    grabs = [source.read() for _ in range(7)]
    assert grabs[6].grabbed_at - grabs[0].grabbed_at == pytest.approx(6 / FPS, abs=0.1)
    assert clock.monotonic() - grabs[6].grabbed_at < 0.5
    source.close()


def test_without_the_photographs_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(CaptureError, match=r"skimage.*edge-face\[demo\]"):
        enrolment_photo()
    with pytest.raises(CaptureError, match="demo"):
        DemoSource(SystemClock())
