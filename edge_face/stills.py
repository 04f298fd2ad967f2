"""Photos go in, their faces come out; several at once cost less than one by one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edge_face.events import Encoding, Face
from edge_face.images import RgbImage
from edge_face.vision import quality
from edge_face.vision.detect import detect_largest, resized
from edge_face.vision.interfaces import Aligned, Detection
from edge_face.vision.models import Models

_LONGEST_PX = 1600
"""A photo is searched at this size at most: a face that fills a tenth of it is still found."""
_SHORTEST_PX = 20
"""No detector finds anything in a strip narrower than this, and some fail on it."""
_MIN_FACE = 40
_LARGEST_SCALE = 2.0


def faces(models: Models, images: Sequence[RgbImage], rivals: float = 0.0) -> list[tuple[Face, ...]]:
    """Those of each photo, largest first.

    `rivals`: those are not wanted that are narrower than so many times the largest (0 to 1; 0: all are).

    All photos go through one stage before the next begins: a stage's model is some megabytes, which the processor's
    caches then hold, and the encoder takes many chips in one run.
    """
    found = [_found(models, image, rivals) for image in images]
    aligned = [[models.aligner.align(image, each.box) for each in at] for image, at in zip(images, found, strict=True)]
    chips = [face.chip for each in aligned for face in each]
    encodings = iter(models.encoder.encode(np.stack(chips)) if chips else ())
    return [
        _faces([(*each, next(encodings)) for each in zip(*photo, strict=True)])
        for photo in zip(found, aligned, strict=True)
    ]


def _found(models: Models, image: RgbImage, rivals: float) -> list[Detection]:
    shortest, longest = sorted(image.shape[:2])
    scale = min(_LARGEST_SCALE, _LONGEST_PX / longest)
    if shortest * scale < _SHORTEST_PX:
        return []
    min_face = round(min(_MIN_FACE, longest / 5))
    return detect_largest(resized(image, scale), models.detector, scale, min_face, rivals)


def _faces(looked_at: Sequence[tuple[Detection, Aligned, Encoding]]) -> tuple[Face, ...]:
    faces = []
    for detection, aligned, encoding in looked_at:
        view = quality.measure(detection.box, *aligned)
        if np.isfinite(encoding).all():
            faces.append(Face(detection.box, detection.confidence, encoding, view, tuple(quality.flaws(view))))
    return tuple(sorted(faces, key=lambda face: -face.box.area))
