"""What a detector, an aligner and an encoder are, and what passes between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from edge_face.events import Box
from edge_face.images import RgbImage

CHIP_SIZE = 150
CHIP_PADDING = 0.25
"""What dlib's `compute_face_descriptor` cuts out before it encodes (dlib, face_recognition.cpp)."""


@dataclass(frozen=True, slots=True)
class Detection:
    """A face's box in pixels of the searched picture, and the detector's own score."""

    box: Box
    confidence: float


class Detector(Protocol):
    name: str
    smallest_px: int
    """Width of the smallest face that is reliably found in a picture searched at its own size."""

    def detect(self, image: RgbImage, min_face: float = 0, max_face: float = 0) -> list[Detection]:
        """Faces in the picture. Only those of min_face to max_face pixels (0: any) are wanted, others may be found."""


@runtime_checkable
class LargeFirst(Protocol):
    """A Detector that finds large faces alone sooner, and in exactly the same places."""

    def detect_large_first(self, image: RgbImage, narrowest: float) -> Iterator[tuple[list[Detection], int]]:
        """Of those that `detect` finds, the large ones; then also the smaller ones, step by step, until all are there.

        With each step comes how wide (pixels) the boxes of later ones are at most; 0: there are no later ones. In the
        first step that is less than `narrowest`. Boxes little wider than that may be of smaller faces, whose better
        boxes come later.
        """


class Aligned(NamedTuple):
    """`chip`: the upright face, (150, 150, 3) RGB; `landmarks`: eye corners and nose, (5, 2), in picture pixels."""

    chip: RgbImage
    landmarks: npt.NDArray[np.float64]


class Aligner(Protocol):
    def align(self, image: RgbImage, box: Box) -> Aligned: ...


class Encoder(Protocol):
    name: str

    def encode(self, chips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Face chips (n, 150, 150, 3) RGB to descriptors (n, 128)."""
