"""Tracks on made-up boxes and encodings."""

from __future__ import annotations

import numpy as np

from edge_face.events import Box, Encoding
from edge_face.vision.track import Tracker

HERE, NEAR, FAR = Box(100, 100, 200, 200), Box(120, 110, 220, 210), Box(400, 100, 500, 200)


def look(person: int, change: float = 0.0) -> Encoding:
    """Two people are 1.4 apart; `change` is how different the same person looks."""
    encoding = np.zeros(128, np.float32)
    encoding[person] = 1.0
    encoding[127] = change
    return encoding


def test_a_face_that_moves_a_little_is_one_track() -> None:
    tracker = Tracker(5.0)
    assert [tracker.update([box], [look(1)], at) for at, box in enumerate((HERE, NEAR, HERE))] == [[1], [1], [1]]


def test_the_next_person_in_the_same_place_is_another_track() -> None:
    tracker = Tracker(5.0)
    tracker.update([HERE], [look(1)], 0.0)
    assert tracker.update([HERE], [look(2)], 0.1) == [2]


def test_a_turned_head_in_place_goes_on() -> None:
    tracker = Tracker(5.0)
    tracker.update([HERE], [look(1)], 0.0)
    assert tracker.update([HERE], [look(1, 0.55)], 0.1) == [1]


def test_elsewhere_only_a_sure_likeness_goes_on() -> None:
    tracker = Tracker(5.0)
    tracker.update([HERE], [look(1)], 0.0)
    assert tracker.update([FAR], [look(1, 0.3)], 0.1) == [1]
    assert tracker.update([HERE], [look(1, 0.9)], 0.2) == [2]


def test_two_people_who_cross_keep_their_numbers() -> None:
    tracker = Tracker(5.0)
    ids = []
    for step in range(11):
        left, right = Box(100 + 30 * step, 0, 200 + 30 * step, 100), Box(400 - 30 * step, 0, 500 - 30 * step, 100)
        ids.append(tracker.update([left, right], [look(1), look(2)], 0.1 * step))
    assert ids == [[1, 2]] * 11


def test_a_track_is_forgotten_after_its_time() -> None:
    tracker = Tracker(5.0)
    tracker.update([HERE], [look(1)], 0.0)
    assert tracker.update([HERE], [look(1)], 4.9) == [1]
    assert tracker.update([HERE], [look(1)], 10.0) == [2]


def test_numbers_go_on_after_a_reset_and_from_a_given_one() -> None:
    tracker = Tracker(5.0, first_id=17)
    assert tracker.update([HERE], [look(1)], 0.0) == [17]
    tracker.reset()
    assert tracker.update([HERE], [look(1)], 0.1) == [18]
