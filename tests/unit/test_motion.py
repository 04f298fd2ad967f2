"""The motion gate on made-up pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from edge_face.events import Box
from edge_face.vision.motion import MotionGate

Image = npt.NDArray[np.uint8]


def picture(level: int = 100, height: int = 480, width: int = 640) -> Image:
    return np.full((height, width, 3), level, np.uint8)


def looked_at(gate: MotionGate, image: Image) -> MotionGate:
    gate.look(image)
    gate.examined()
    return gate


def test_the_first_frame_is_all_new() -> None:
    assert MotionGate().look(picture()).cells.all()


def test_sensor_noise_is_no_motion() -> None:
    noise = np.random.default_rng(0)
    gate = looked_at(MotionGate(), picture())
    for _ in range(20):
        noisy = np.clip(100 + noise.normal(0, 6, (480, 640, 3)), 0, 255).astype(np.uint8)
        assert not gate.look(noisy).any


@pytest.mark.parametrize("size", [(480, 640), (240, 320), (1080, 1920), (2160, 3840), (97, 131)])
def test_a_change_is_seen_where_it_is(size: tuple[int, int]) -> None:
    height, width = size
    gate = looked_at(MotionGate(), picture(100, height, width))
    changed = picture(100, height, width)
    there = Box(width // 2, height // 2, width // 2 + width // 6, height // 2 + height // 6)
    changed[there.y1 : there.y2, there.x1 : there.x2] = 160
    motion = gate.look(changed)
    elsewhere = Box(0, 0, width // 4, height // 4)
    assert motion.within(there)
    assert not motion.within(elsewhere)
    assert motion.outside([elsewhere])
    assert not motion.outside([Box(there.x1 - 20, there.y1 - 20, there.x2 + 20, there.y2 + 20)])


def test_what_changes_slowly_adds_up_until_it_is_examined() -> None:
    gate = looked_at(MotionGate(), picture(100))
    assert not any(gate.look(picture(100 + step)).any for step in range(4))
    assert gate.look(picture(105)).any
    gate.examined()
    assert not gate.look(picture(106)).any


def test_a_part_may_be_examined_alone() -> None:
    gate = looked_at(MotionGate(), picture(100))
    gate.look(picture(150))
    gate.examined(Box(0, 0, 200, 480))
    motion = gate.look(picture(150))
    assert not motion.within(Box(0, 0, 150, 480))
    assert motion.within(Box(300, 0, 640, 480))


def test_another_size_begins_anew() -> None:
    gate = looked_at(MotionGate(), picture(100))
    assert gate.look(picture(100, 240, 320)).cells.all()
