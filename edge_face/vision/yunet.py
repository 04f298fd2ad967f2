"""YuNet, OpenCV's small face detector, from a model file that the user fetches (scripts/get-yunet).

The file is no part of edge-face. Its boxes are changed into the square ones that dlib's landmarks were trained with.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge_face.errors import ModelError
from edge_face.events import Box
from edge_face.images import RgbImage
from edge_face.settings import YUNET_FILE
from edge_face.vision.interfaces import Detection

SHA256 = "8f2383e4dd3cfbb4553ea8718107fc0423210dc964f9f4280604804ed2552fa4"
"""Of the one file that is accepted, face_detection_yunet_2023mar.onnx of the OpenCV Zoo."""

_MIN_CONFIDENCE = 0.7
"""Faces of 50 pixels and more score 0.79 or more in photos and clips. In clips of hands and of people from behind
nothing of 72 pixels and more scores over 0.55; smaller things do, up to 0.84."""
_OVERLAP_IOU = 0.3
"""Of two boxes with a larger intersection over union, the weaker is dropped (the value of OpenCV's own example)."""
_MOST_BOXES = 1000
"""Considered before overlapping ones are dropped."""
LONGEST_PX = 640
"""Faces of 500 pixels it loses, so that a larger picture is searched at half its size too, and so on."""

_SHORTEST_PX = 64
"""OpenCV's network reads memory that it has not written, and finds faces there, when a side is 32 pixels or less: its
coarsest map is then one cell wide. Smaller pictures get black edges on the right and below, as YuNet's own do."""

_SIDE = 0.97
_DOWN = 0.07
"""From YuNet's box to dlib's: the square's side and how much lower its centre is, as parts of the box's
sqrt(width * height). Medians over 347 faces that the HOG detector found too. The encodings then differ from those of
HOG's boxes by 0.042 (median) and 0.08 (90 %), which is as much as when HOG's own boxes are moved by 4 %."""


class YunetDetector:
    """Not thread-safe: the network is set to the size of the last picture."""

    name = "yunet"
    smallest_px = 50  # photos: found at every offset from 25 pixels up; a poor clip's turning faces are lost at 40

    def __init__(self, path: Path, min_confidence: float = _MIN_CONFIDENCE) -> None:
        """`path`: the model file. Raises ModelError when it is not the known one."""
        content = np.frombuffer(_verified(path), np.uint8)
        try:
            self._net: Any = cv2.FaceDetectorYN.create(
                "onnx", content, np.empty(0, np.uint8), (320, 320), min_confidence, _OVERLAP_IOU, _MOST_BOXES
            )
        except cv2.error as error:
            raise ModelError(f"OpenCV cannot use the YuNet model {path}: {error.err}") from None

    def detect(self, image: RgbImage, min_face: float = 0, max_face: float = 0) -> list[Detection]:  # noqa: ARG002  # every size costs the same
        """Faces in a picture, the surest first."""
        found: list[Detection] = []
        if min(image.shape[:2]) < 1:
            return found
        searched, factor = image, 1
        while True:
            found += self._search(searched, factor)
            if max(searched.shape[:2]) <= LONGEST_PX:
                break
            factor *= 2
            half = (max(1, searched.shape[1] // 2), max(1, searched.shape[0] // 2))
            searched = np.asarray(cv2.resize(searched, half, interpolation=cv2.INTER_AREA), dtype=np.uint8)
        found.sort(key=lambda detection: -detection.confidence)
        kept: list[Detection] = []
        for detection in found:
            if not any(other.box.iou(detection.box) > _OVERLAP_IOU for other in kept):
                kept.append(detection)
        return kept

    def _search(self, image: RgbImage, factor: int) -> list[Detection]:
        """One run; boxes in pixels of a picture that is `factor` times as large."""
        right, below = (max(0, _SHORTEST_PX - side) for side in (image.shape[1], image.shape[0]))
        if right or below:
            image = np.asarray(cv2.copyMakeBorder(image, 0, below, 0, right, cv2.BORDER_CONSTANT), dtype=np.uint8)
        height, width = image.shape[:2]
        if tuple(self._net.getInputSize()) != (width, height):
            self._net.setInputSize((width, height))
        _, faces = self._net.detect(cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
        # A row: left, top, width, height, five landmarks, score.
        rows = [] if faces is None else faces.tolist()
        return [Detection(_square(*(edge * factor for edge in row[:4])), row[14]) for row in rows if min(row[2:4]) > 0]


def _square(left: float, top: float, width: float, height: float) -> Box:
    """YuNet's box as dlib's detectors would draw it."""
    size = math.sqrt(width * height)
    x, y, reach = left + width / 2, top + height / 2 + _DOWN * size, _SIDE * size / 2
    return Box(round(x - reach), round(y - reach), round(x + reach), round(y + reach))


def _verified(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"The YuNet model {path} cannot be read: {error.strerror}. scripts/get-yunet fetches it."
        ) from None
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise ModelError(
            f"The file {path} is not the YuNet model {YUNET_FILE}: its SHA-256 is another one. "
            "scripts/get-yunet fetches the right one."
        )
    return content
