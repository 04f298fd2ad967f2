"""Tracks on made-up boxes and encodings, and following on real faces."""

from __future__ import annotations

import numpy as np

from edge_face.events import Box, Encoding, KnownTrack
from edge_face.vision.follow import MIN_LIKENESS, Template
from edge_face.vision.track import Track, Tracker
from tests.support import scenes

HERE, NEAR, FAR = Box(100, 100, 200, 200), Box(120, 110, 220, 210), Box(400, 100, 500, 200)


def look(person: int, change: float = 0.0) -> Encoding:
    """Two people are 1.4 apart; `change` is how different the same person looks."""
    encoding = np.zeros(128, np.float32)
    encoding[person] = 1.0
    encoding[127] = change
    return encoding


def seen(tracker: Tracker, box: Box, encoding: Encoding, now: float = 0.0) -> Track:
    track = tracker.recall(box, encoding, now)
    track.box, track.last_seen = box, now
    track.views.append(encoding)
    return track


def test_new_faces_are_numbered_from_the_first_id_on() -> None:
    tracker = Tracker(5.0, first_id=17)
    assert [seen(tracker, box, look(person)).id for person, box in enumerate((HERE, FAR))] == [17, 18]
    tracker.reset()
    assert seen(tracker, HERE, look(0)).id == 19


def test_found_boxes_are_paired_by_place() -> None:
    tracker = Tracker(5.0)
    one, two = seen(tracker, HERE, look(1)), seen(tracker, FAR, look(2))
    assert tracker.pair([Box(405, 100, 505, 200), NEAR, Box(0, 300, 50, 350)]) == {0: two, 1: one}
    assert not one.doubtful
    assert not two.doubtful


def test_faces_that_are_close_to_each_other_become_doubtful() -> None:
    tracker = Tracker(5.0)
    one, two = seen(tracker, HERE, look(1)), seen(tracker, NEAR, look(2))
    pairs = tracker.pair([HERE, NEAR])
    assert pairs == {0: one, 1: two}
    assert one.doubtful
    assert two.doubtful


def test_a_face_that_went_away_is_recalled_by_its_look() -> None:
    tracker = Tracker(5.0)
    track = seen(tracker, HERE, look(1))
    tracker.leave(track)
    assert track.doubtful
    assert seen(tracker, HERE, look(2)).id == 2, "another face in the same place"
    assert seen(tracker, FAR, look(1, 0.3)) is track, "surely the same face elsewhere"
    tracker.leave(track)
    assert seen(tracker, NEAR, look(1, 0.9)).id == 3, "hardly like it, and not where it was"


def test_in_its_own_place_a_turned_head_is_still_the_same() -> None:
    tracker = Tracker(5.0)
    track = seen(tracker, HERE, look(1))
    tracker.leave(track)
    assert seen(tracker, NEAR, look(1, 0.55)) is track


def test_a_look_is_verified_against_several_views() -> None:
    tracker = Tracker(5.0)
    track = seen(tracker, HERE, look(1))
    track.views.append(look(1, 0.5))
    assert tracker.verify(track, look(1, 1.0))
    assert not tracker.verify(track, look(2))


def test_a_track_is_forgotten_after_its_time() -> None:
    tracker = Tracker(5.0)
    tracker.leave(seen(tracker, HERE, look(1)))
    tracker.forget_old(4.9)
    assert seen(tracker, HERE, look(1), 4.9).id == 1
    tracker.leave(tracker.in_view[0])
    tracker.forget_old(10.0)
    assert seen(tracker, HERE, look(1), 10.0).id == 2


def test_a_face_is_followed_as_it_moves() -> None:
    scene = scenes.Scene()
    frame, (placed,) = scene.frame(("Eileen", 320.0, 240.0))
    template = Template(frame, placed.face)
    moved, (truth,) = scene.frame(("Eileen", 341.0, 229.0))
    box, likeness = template.find(moved, placed.face)
    assert likeness > MIN_LIKENESS
    assert box.iou(truth.face) > 0.85


def test_nobody_and_somebody_else_are_not_followed() -> None:
    scene = scenes.Scene()
    frame, (placed,) = scene.frame(("Eileen", 320.0, 240.0))
    template = Template(frame, placed.face)
    for other in (scene.frame(), scene.frame(("Grace", 320.0, 240.0))):
        assert template.find(other[0], placed.face)[1] < MIN_LIKENESS


def test_a_face_at_the_edge_or_outside_is_no_crash() -> None:
    frame, _ = scenes.Scene().frame(("Eileen", 20.0, 20.0))
    for box in (Box(-60, -60, 60, 60), Box(600, 440, 720, 560), Box(900, 900, 1000, 1000)):
        found, likeness = Template(frame, box).find(frame, box)
        assert isinstance(found, Box)
        assert -1 <= likeness <= 1.001


def test_after_an_interruption_faces_are_known_by_their_look_alone() -> None:
    tracker = Tracker(5.0)
    one, two = seen(tracker, HERE, look(1)), seen(tracker, FAR, look(2))
    tracker.interrupt()
    assert tracker.in_view == []
    assert seen(tracker, HERE, look(2, 0.3)) is two, "surely the same face elsewhere"
    assert seen(tracker, HERE, look(1, 0.5)) is not one, "the place says nothing now, and this is not near enough"


def test_a_new_process_knows_whom_the_last_one_followed() -> None:
    tracker = Tracker(5.0, first_id=18, known=[KnownTrack(17, 100.0, (look(1), look(1, 0.2)))])
    tracker.forget_old(103.0)
    assert seen(tracker, HERE, look(2), 103.0).id == 18
    assert seen(tracker, FAR, look(1, 0.3), 103.0).id == 17
    late = Tracker(5.0, first_id=18, known=[KnownTrack(17, 100.0, (look(1),))])
    late.forget_old(105.1)
    assert seen(late, FAR, look(1), 105.1).id == 18
