"""Many real people in one frame, each with a known place: portraits of the evaluation data, composed when needed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_face.engine import Engine
from edge_face.events import Encoding
from edge_face.images import BgrImage

TILE = 250
"""Pixels of a portrait's side; its face is about 110 wide."""


@dataclass(frozen=True, eq=False)
class Somebody:
    name: str
    photo: BgrImage
    encoding: Encoding


def people(data: Path, engine: Engine, count: int) -> list[Somebody]:
    """The first people of the data in whose portrait one face, fit for enrolment, is seen."""
    lines = (data / "lfw" / "enrol.tsv").read_text(encoding="utf-8").splitlines()
    return portrayed(
        ((name, data / "lfw" / path) for name, path in (line.split("\t") for line in lines)), engine, count
    )


def portrayed(photos: Iterable[tuple[str, Path]], engine: Engine, count: int) -> list[Somebody]:
    """The same of other photos of TILE pixels, each with a name."""
    found: dict[str, Somebody] = {}
    for name, path in photos:
        if name in found:
            continue
        photo = np.asarray(cv2.imread(str(path)), dtype=np.uint8)
        faces = engine.still(np.ascontiguousarray(photo[:, :, ::-1]))
        alone = len(engine.process(photo, 0.0)[0]) == 1
        engine.reset()
        if len(faces) == 1 and not faces[0].flaws and alone:
            found[name] = Somebody(name, photo, faces[0].encoding)
        if len(found) == count:
            return list(found.values())
    raise AssertionError(f"only {len(found)} people of these photos can be enrolled")


def crowd(standing: list[Somebody], number: int = 0, columns: int = 5) -> BgrImage:
    """All of them side by side, in rows; frame `number` of a clip in which they never stand quite still."""
    rows = math.ceil(len(standing) / columns)
    frame = np.full((rows * TILE + 20, columns * TILE + 20, 3), 127, np.uint8)
    for at, somebody in enumerate(standing):
        top, left = (TILE * place + shift for place, shift in zip(divmod(at, columns), sway(number), strict=True))
        frame[top : top + TILE, left : left + TILE] = somebody.photo
    return frame


def sway(number: int) -> tuple[int, int]:
    return 5 + number * 3 % 7, 5 + number * 2 % 9


def place_of(box_x: float, box_y: float, columns: int = 5) -> int:
    """Which of those standing has a face whose middle is there."""
    return int(box_y // TILE) * columns + int(box_x // TILE)
