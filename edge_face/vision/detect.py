"""Find faces: on a reduced picture, with boxes in full-frame pixels."""

from __future__ import annotations

import cv2
import numpy as np

from edge_face.events import Box
from edge_face.images import RgbImage
from edge_face.vision.interfaces import Detection, Detector

_LARGEST_SCALE = 4.0
_SIZE_TOLERANCE = 0.9
"""A detector's boxes come in steps (dlib's pyramid: 5/6), so a face of exactly min_face may be reported smaller."""


def search_scale(scale: float | None, min_face: int, detector: Detector) -> float:
    """The factor to search at; None is auto: the strongest reduction at which min_face is still found."""
    return scale if scale is not None else min(_LARGEST_SCALE, detector.smallest_px / min_face)


def resized(image: RgbImage, scale: float) -> RgbImage:
    """The picture scaled; area averaging when it shrinks, because dropped pixels cost detections."""
    if scale == 1:
        return image
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=interpolation), dtype=np.uint8)


def detect(image: RgbImage, detector: Detector, scale: float, min_face: int, max_face: int) -> list[Detection]:
    """Faces of min_face to max_face pixels (0: any) in `image`, a frame scaled by `scale`; boxes in frame pixels."""
    found = []
    for detection in detector.detect(image, min_face * scale, max_face * scale):
        box = detection.box
        full = Box(*(round(edge / scale) for edge in (box.x1, box.y1, box.x2, box.y2)))
        if full.width >= min_face * _SIZE_TOLERANCE and (not max_face or full.width * _SIZE_TOLERANCE <= max_face):
            found.append(Detection(full, detection.confidence))
    return found
