"""Find faces: on a reduced picture, with boxes in full-frame pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from edge_face.events import Box
from edge_face.images import RgbImage
from edge_face.vision.interfaces import Detection, Detector, LargeFirst
from edge_face.vision.pyramid import STEP

_LARGEST_SCALE = 4.0
_FIRST_LOOK = 0.22
"""Of a photo's longer side: narrower faces may be left to later looks by the first one for large faces. It costs what a
picture of 300 to 360 pixels costs, and in most portraits the face is so wide that no other is needed."""
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
    found = _placed(detector.detect(image, min_face * scale, max_face * scale), scale, min_face)
    return [each for each in found if not max_face or each.box.width * _SIZE_TOLERANCE <= max_face]


def detect_largest(image: RgbImage, detector: Detector, scale: float, min_face: int, rivals: float) -> list[Detection]:
    """What `detect` finds, without what is narrower than `rivals` times (0 to 1) the largest; mostly much sooner.

    From coarse to fine: once the largest face is so large that all its rivals have been found too, the fine copies of
    the picture, which cost the most, need no search.
    """
    if not rivals or not isinstance(detector, LargeFirst):
        found = detect(image, detector, scale, min_face, 0)
        return [each for each in found if each.box.width >= _share_of_largest(found, rivals)]
    wanted = list[Detection]()
    for searched, left in detector.detect_large_first(image, _FIRST_LOOK * max(image.shape[:2])):
        found = _placed(searched, scale, min_face)
        narrowest = _share_of_largest(found, rivals)
        wanted = [each for each in found if each.box.width >= narrowest]
        # A face seen in the finest copy alone may be a smaller one, seen better in the next. 1: edges are rounded.
        clear = all((min(each.box.width, each.box.height) - 1) * scale > left * STEP for each in wanted)
        if clear and (narrowest - 1) * scale >= left:
            break
    return wanted


def _share_of_largest(found: Sequence[Detection], share: float) -> int:
    return math.floor(share * max((each.box.width for each in found), default=0))


def _placed(found: Sequence[Detection], scale: float, min_face: int) -> list[Detection]:
    """With boxes in frame pixels; those of at least min_face."""
    placed = [_in_frame(each, scale) for each in found]
    return [each for each in placed if each.box.width >= min_face * _SIZE_TOLERANCE]


def _in_frame(detection: Detection, scale: float) -> Detection:
    box = detection.box
    return Detection(Box(*(round(edge / scale) for edge in (box.x1, box.y1, box.x2, box.y2))), detection.confidence)
