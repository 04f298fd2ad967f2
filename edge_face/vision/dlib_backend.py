"""dlib's own detector, landmarks and encoder, as the face_recognition package uses them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import dlib
import numpy as np
import numpy.typing as npt

from edge_face.events import Box
from edge_face.images import RgbImage
from edge_face.vision.interfaces import CHIP_PADDING, CHIP_SIZE, Aligned, Detection
from edge_face.vision.pyramid import SHIFT, STEP

_MIN_CONFIDENCE = 0.3
"""HOG calls badges and folds of cloth faces at scores up to here. On 300 LFW photos, 0.3 instead
of 0 loses 1.3 % of the faces."""
_WINDOW_PX = 73
"""Width of the boxes that its 80-pixel window reports in the picture itself; in each smaller copy STEP times that."""


_ALL_LEVELS, _ONE_LEVEL = b"\x01\x50\x01\x50\x02\xe8\x03", b"\x01\x50\x01\x50\x01\x01"
"""In the detector as dlib saves it (scan_fhog_pyramid.h, serialize): its window of 80x80, then how many copies of a
picture it searches at most, 1000 or 1."""


def hog_model(_library: bytes = b"", _name: str = "") -> bytes:
    """dlib's frontal face detector as it saves it: it unpacks its own copy 200 times as slowly as it loads this."""
    model: bytes = dlib.get_frontal_face_detector().__getstate__()[0]
    return model


class HogDetector:
    name = "hog"
    smallest_px = 72  # its window reports 73; measured: found at every offset from 60 pixels up

    def __init__(self, model: bytes | None = None) -> None:
        """`model`: what `hog_model` returned."""
        model = hog_model() if model is None else model
        self._detector = _loaded(model)
        self._one_level = _loaded(model.replace(_ALL_LEVELS, _ONE_LEVEL, 1))

    def detect(self, image: RgbImage, min_face: float = 0, max_face: float = 0) -> list[Detection]:  # noqa: ARG002  # dlib searches all sizes
        return self._search(image, 0)

    def detect_large_first(self, image: RgbImage, narrowest: float) -> Iterator[tuple[list[Detection], int]]:
        """Each copy of the picture is made as dlib makes it, so it has the very pixels, scores and boxes."""
        copies = [image]
        while _widest(len(copies) - 1) < narrowest:
            height, width = copies[-1].shape[:2]
            copies.append(dlib.resize_image(copies[-1], height * 5 // 6, width * 5 // 6))
        coarsest = len(copies) - 1
        found = self._search(copies[coarsest], coarsest)
        yield found, _widest(coarsest - 1)
        for level in reversed(range(coarsest)):
            # Where the finer copy alone shows nothing, it changes nothing. Else dlib chooses among the faces of all.
            if len(self._one_level.run(copies[level], 0, _MIN_CONFIDENCE)[0]):
                found = self._search(copies[level], level)
            yield found, _widest(level - 1)

    def _search(self, image: RgbImage, left_out: int) -> list[Detection]:
        """In a copy that was made smaller so many times, and in all smaller ones; boxes in the picture's pixels."""
        boxes, scores, _ = self._detector.run(image, 0, _MIN_CONFIDENCE)
        return [Detection(_lifted(box, left_out), score) for box, score in zip(boxes, scores, strict=True)]


class DlibCnnDetector:
    """dlib's CNN detector run by dlib itself: some 30 times slower than CnnDetector, which finds the same faces."""

    name = "cnn"
    smallest_px = 75  # as CnnDetector's

    def __init__(self, weights: Path) -> None:
        self._network = dlib.cnn_face_detection_model_v1(str(weights))

    def detect(self, image: RgbImage, min_face: float = 0, max_face: float = 0) -> list[Detection]:  # noqa: ARG002  # dlib searches all sizes
        found = self._network(image, 0)
        return [Detection(_box(each.rect), each.confidence) for each in found]


class DlibAligner:
    def __init__(self, weights: Path) -> None:
        self._predictor = dlib.shape_predictor(str(weights))

    def align(self, image: RgbImage, box: Box) -> Aligned:
        shape = self._predictor(image, dlib.rectangle(box.x1, box.y1, box.x2 - 1, box.y2 - 1))
        chip: RgbImage = dlib.get_face_chip(image, shape, CHIP_SIZE, CHIP_PADDING)
        return Aligned(chip, np.array([(point.x, point.y) for point in shape.parts()], np.float64))


class DlibEncoder:
    name = "face_recognition"

    def __init__(self, weights: Path) -> None:
        self._network = dlib.face_recognition_model_v1(str(weights))

    def encode(self, chips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        encodings = [self._network.compute_face_descriptor(chip) for chip in chips]
        return np.asarray(encodings, dtype=np.float32).reshape(-1, 128)


def _loaded(model: bytes) -> dlib.fhog_object_detector:
    detector = dlib.fhog_object_detector.__new__(dlib.fhog_object_detector)
    detector.__setstate__((model,))
    return detector


def _widest(level: int) -> int:
    """Pixels: no wider are the boxes that are found in a copy that was made smaller so many times. -1: in none, 0."""
    return math.floor((_WINDOW_PX - 1) * STEP**level) + 2 if level >= 0 else 0


def _lifted(rectangle: dlib.rectangle, steps: int) -> Box:
    """A box that was found in a picture made smaller `steps` times, as dlib reports it in the whole picture.

    It was found in a copy made smaller again, where its edges are whole pixels; from there dlib maps it up and rounds
    (dlib 20.0.1, scan_fhog_pyramid.h, detect_from_fhog_pyramid; pyramid_down::point_up).
    """
    if not steps:
        return _box(rectangle)
    # Of a face that hangs over the left or upper edge, dlib makes that side longer.
    level = round(math.log(min(rectangle.width(), rectangle.height()) / _WINDOW_PX, STEP))
    edges = []
    for edge in (rectangle.left(), rectangle.top(), rectangle.right(), rectangle.bottom()):
        place = float(edge)
        for _ in range(level):
            place = (place - SHIFT) / STEP
        place = round(place)
        for _ in range(level + steps):
            place = place * STEP + SHIFT
        edges.append(math.floor(place + 0.5))
    return _box(dlib.rectangle(*edges))


def _box(rectangle: dlib.rectangle) -> Box:
    """dlib's rectangles include their right and bottom pixels, ours end before."""
    return Box(rectangle.left(), rectangle.top(), rectangle.right() + 1, rectangle.bottom() + 1)
