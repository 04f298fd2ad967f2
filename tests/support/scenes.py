"""Composed clips in which it is known, for every frame, who is where: portraits that walk, cross, cover and replace."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
import numpy.typing as npt

from edge_face.events import Box
from tests.support.photos import Image, astronaut, hopper

WIDTH, HEIGHT, FPS = 640, 480, 10
_SIZE = 300
_FACE = 120
"""Pixels that a face is wide in a scene."""


@dataclass(frozen=True, eq=False)
class Portrait:
    """A person cut out softly; `face` is where the face is in the picture."""

    name: str
    image: Image
    mask: npt.NDArray[np.float32]
    face: Box


@cache
def portrait(name: str) -> Portrait:
    """`Eileen` or `Grace`, with a face of 120 pixels."""
    photo, face = (astronaut(), Box(176, 77, 266, 167)) if name == "Eileen" else (hopper(), Box(181, 140, 368, 326))
    scale = _FACE / face.width
    big = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    x, y = (round(scale * edge) for edge in (face.x1, face.y1))
    left, top = x - (_SIZE - _FACE) // 2, y - (_SIZE - _FACE) // 2
    padded = cv2.copyMakeBorder(big, _SIZE, _SIZE, _SIZE, _SIZE, cv2.BORDER_REPLICATE)
    image = padded[top + _SIZE : top + 2 * _SIZE, left + _SIZE : left + 2 * _SIZE]
    mask = np.zeros((_SIZE, _SIZE), np.float32)
    cv2.ellipse(mask, (_SIZE // 2, _SIZE // 2), (105, 140), 0, 0, 360, (1.0,), -1)
    edge = (_SIZE - _FACE) // 2
    return Portrait(
        name,
        np.ascontiguousarray(image),
        np.asarray(cv2.GaussianBlur(mask, (0, 0), 5), np.float32)[:, :, np.newaxis],
        Box(edge, edge, edge + _FACE, edge + _FACE),
    )


@dataclass(frozen=True)
class Placed:
    """Where somebody is in a frame, and how much of the face can be seen (0 to 1)."""

    name: str
    face: Box
    visible: float


class Scene:
    """Draws people over a still, textured room with some sensor noise. Who is drawn last stands in front."""

    def __init__(self, seed: int = 0) -> None:
        self._noise = np.random.default_rng(seed)
        room = np.random.default_rng(1).integers(60, 190, (15, 20, 3)).astype(np.uint8)
        self._room = cv2.resize(room, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC).astype(np.float32)

    def frame(self, *people: tuple[str, float, float]) -> tuple[npt.NDArray[np.uint8], list[Placed]]:
        """A BGR frame with each (name, x, y): the middle of the face; and the truth about it."""
        canvas = self._room.copy()
        covered = np.zeros((HEIGHT, WIDTH), np.int32)
        placed: list[tuple[str, Box]] = []
        for number, (name, x, y) in enumerate(people, 1):
            person = portrait(name)
            left, top = round(x) - _SIZE // 2, round(y) - _SIZE // 2
            x1, y1, x2, y2 = max(0, left), max(0, top), min(WIDTH, left + _SIZE), min(HEIGHT, top + _SIZE)
            if x1 >= x2 or y1 >= y2:
                continue
            part = np.s_[y1 - top : y2 - top, x1 - left : x2 - left]
            alpha = person.mask[part]
            canvas[y1:y2, x1:x2] = alpha * person.image[part] + (1 - alpha) * canvas[y1:y2, x1:x2]
            covered[y1:y2, x1:x2][alpha[:, :, 0] > 0.5] = number
            face = person.face
            placed.append((name, Box(face.x1 + left, face.y1 + top, face.x2 + left, face.y2 + top)))
        canvas += self._noise.normal(0, 2, (HEIGHT, WIDTH, 1)).astype(np.float32)
        frame = np.clip(canvas, 0, 255).astype(np.uint8)[:, :, ::-1]
        truth = [Placed(name, box, _visible(covered, box, number)) for number, (name, box) in enumerate(placed, 1)]
        return np.ascontiguousarray(frame), truth


def _visible(covered: npt.NDArray[np.int32], box: Box, number: int) -> float:
    inside = covered[max(0, box.y1) : max(0, box.y2), max(0, box.x1) : max(0, box.x2)]
    return float((inside == number).sum()) / box.area


def crossing() -> Iterator[list[tuple[str, float, float]]]:
    """Two people walk past each other, Grace in front."""
    for step in range(60):
        yield [("Eileen", 60 + 9 * step, 230.0), ("Grace", 590 - 9 * step, 240.0)]


def covering() -> Iterator[list[tuple[str, float, float]]]:
    """Eileen stands; Grace walks in front of her, stays, and walks on."""
    for step in range(90):
        x = 700 - 19 * step if step < 20 else 320.0 if step < 45 else 320 - 19 * (step - 45)
        yield [("Eileen", 320.0, 240.0), ("Grace", x, 240.0)]


def replacing() -> Iterator[list[tuple[str, float, float]]]:
    """From one frame to the next Grace is where Eileen was, and back again."""
    for step in range(80):
        yield [("Eileen" if (step // 20) % 2 == 0 else "Grace", 320 + 2 * (step % 3), 240.0)]


def meeting_and_parting() -> Iterator[list[tuple[str, float, float]]]:
    """They come up to each other and turn back: place alone cannot tell this from crossing."""
    for step in range(60):
        way = 9 * min(step, 59 - step)
        yield [("Eileen", 160 + way * 0.45, 240.0), ("Grace", 480 - way * 0.45, 240.0)]
