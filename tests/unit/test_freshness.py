"""Which pictures show something new, and how old what comes out of a pipe may be."""

from __future__ import annotations

import time

import numpy as np
import numpy.typing as npt
import pytest

from edge_face.freshness import Changes
from edge_face.piped import Arrivals
from tests.support.clock import HandClock

Picture = npt.NDArray[np.uint8]


def scene(seed: int, height: int = 480, width: int = 640) -> Picture:
    return np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)


def test_a_repeated_picture_is_not_new_and_a_grain_of_noise_is() -> None:
    changes = Changes()
    first = scene(1)
    assert changes.is_new(first, 0.0)
    assert not changes.is_new(first.copy(), 0.1)
    noisy = first.copy()
    noisy[0, 300, 1] ^= 1
    assert changes.is_new(noisy, 0.2)
    assert changes.is_new(first[:240], 0.3)  # another size
    assert changes.is_new(np.ascontiguousarray(first[:, :, ::-1]), 0.4)


def test_pictures_that_go_round_are_not_new() -> None:
    """As of a driver that shows its four buffers in turn, or an encoder with a key frame each second."""
    changes = Changes()
    ring = [scene(seed) for seed in range(4)]
    assert [changes.is_new(picture, 0.1 * step) for step, picture in enumerate(ring * 20)] == [True] * 4 + [False] * 76
    assert changes.frozen(7.9)
    assert changes.reason(7.9) == "the picture has not changed for 8 s"
    assert changes.is_new(scene(9), 8.0)
    assert not changes.frozen(8.1)


def test_a_slow_camera_that_repeats_itself_shows_nothing_new() -> None:
    changes, picture = Changes(), scene(1)
    assert [changes.is_new(picture, 3.0 * step) for step in range(4)] == [True, False, False, False]
    assert changes.frozen(9.0)


def test_what_is_seen_again_after_a_while_is_new() -> None:
    changes = Changes()
    for step in range(100):  # a camera that is shown a clip of 4 s, again and again
        assert changes.is_new(scene(step % 20, 48, 64), step * 0.2)
    assert len(changes._seen) < 20


@pytest.mark.parametrize(("height", "width", "limit_ms"), [(480, 640, 0.5), (2160, 3840, 5)])
def test_looking_costs_next_to_nothing(height: int, width: int, limit_ms: float) -> None:
    changes, picture, took = Changes(), scene(1, height, width), []
    for step in range(20):
        picture[0, 0, 0] = step
        began = time.perf_counter()
        assert changes.is_new(picture, float(step))
        took.append((time.perf_counter() - began) * 1000)
    assert sorted(took)[5] < limit_ms  # 0.04 and 0.9 ms on an idle machine


def test_who_had_to_wait_knows_that_nothing_was_stored() -> None:
    clock = HandClock()
    arrivals = Arrivals(clock)
    clock.now += 0.05
    arrivals.waited(1000.0, between_pictures=True)
    arrivals.read(100)
    assert arrivals.bound == 1000.0
    assert arrivals.date(arrivals.bound) == clock.now  # 50 ms are within what nobody minds
    clock.now += 3  # stopped
    arrivals.read(100)
    assert arrivals.date(arrivals.bound) == 1000.25
    assert arrivals.stale(arrivals.bound)
    began = clock.now
    clock.now += 0.02
    arrivals.waited(began, between_pictures=False)  # in the middle of a picture that may have been stored
    assert arrivals.stale(arrivals.bound)
    arrivals.waited(began, between_pictures=True)
    assert not arrivals.stale(arrivals.bound)


def test_who_never_waits_is_believed_after_a_second_of_steady_reading_of_more_than_a_pipe() -> None:
    clock = HandClock()
    arrivals = Arrivals(clock, capacity=1000)
    stale = []
    for step in range(400):
        clock.now += 0.3 if step == 200 else 0.01  # a stop in the middle
        arrivals.read(500)
        stale.append(arrivals.stale(arrivals.bound))
    assert stale[:60] == [False] * 60  # it has just begun
    assert all(stale[80:100])
    assert not any(stale[110:200])
    assert all(stale[250:290])
    assert not any(stale[310:])
