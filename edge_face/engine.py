"""The stages chained: frame in; boxes, tracks and encodings out. No I/O, so tests and benchmarks call it directly."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from edge_face import settings
from edge_face.events import Face
from edge_face.vision.detect import detect, resized, search_scale
from edge_face.vision.models import Models, RgbImage
from edge_face.vision.track import Tracker

_STILL_LONGEST_PX = 1600
"""A photo is searched at this size at most: a face that fills a tenth of it is still found."""
_STILL_MIN_FACE = 40
_STILL_LARGEST_SCALE = 2.0


class Stopwatch:
    """Milliseconds by stage."""

    def __init__(self) -> None:
        self.stages_ms: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        try:
            yield
        finally:
            self.stages_ms[name] = (time.perf_counter() - begin) * 1000


class Engine:
    """Finds, aligns, encodes and tracks. Not thread-safe: one engine per camera."""

    def __init__(
        self,
        models: Models,
        options: settings.Engine,
        *,
        scale: float | None = None,
        track_memory_s: float = 5.0,
        first_track: int = 1,
    ) -> None:
        self._models = models
        self._options = options
        self._scale = search_scale(scale, options.min_face, models.detector)
        self._tracker = Tracker(track_memory_s, first_track)

    @property
    def backend(self) -> str:
        return self._models.backend

    @property
    def detector(self) -> str:
        return self._models.detector.name

    @property
    def scale(self) -> float:
        return self._scale

    def reset(self) -> None:
        """Forget all tracks, because what comes next is another scene."""
        self._tracker.reset()

    def process(self, bgr: npt.NDArray[np.uint8], grabbed_at: float) -> tuple[tuple[Face, ...], dict[str, float]]:
        """Faces of a frame, (height, width, 3) BGR, grabbed at that time (monotonic seconds), and the stages' times."""
        watch = Stopwatch()
        with watch.stage("color"):
            image = _rgb(bgr)
        faces = self._faces(image, self._scale, self._options.min_face, self._options.max_face, watch)
        with watch.stage("track"):
            tracks = self._tracker.update([face.box for face in faces], [face.encoding for face in faces], grabbed_at)
        return tuple(replace(face, track=track) for face, track in zip(faces, tracks, strict=True)), watch.stages_ms

    def still(self, image: RgbImage) -> tuple[Face, ...]:
        """Faces of a photo, largest first; `min_face` is a matter of cameras and does not hold here."""
        longest = max(image.shape[:2])
        scale = min(_STILL_LARGEST_SCALE, _STILL_LONGEST_PX / longest)
        min_face = round(min(_STILL_MIN_FACE, longest / 5))
        faces = self._faces(image, scale, min_face, 0, Stopwatch())
        return tuple(sorted(faces, key=lambda face: -face.box.area))

    def _faces(self, image: RgbImage, scale: float, min_face: int, max_face: int, watch: Stopwatch) -> list[Face]:
        with watch.stage("scale"):
            searched = resized(image, scale)
        with watch.stage("detect"):
            found = detect(searched, self._models.detector, scale, min_face, max_face)
        with watch.stage("align"):
            chips = [self._models.aligner.align(image, detection.box) for detection in found]
        with watch.stage("encode"):
            encodings = self._models.encoder.encode(np.stack(chips)) if chips else np.empty((0, 128), np.float32)
        return [
            Face(detection.box, detection.confidence, encoding)
            for detection, encoding in zip(found, encodings, strict=True)
            if np.isfinite(encoding).all()
        ]


def _rgb(bgr: npt.NDArray[np.uint8]) -> RgbImage:
    """dlib's networks were trained on RGB; OpenCV delivers BGR."""
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)
