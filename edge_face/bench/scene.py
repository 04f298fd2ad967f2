"""The pictures that are measured with: the demo's, a clip's, or the owner's camera's. They are deleted at the end."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from edge_face import settings
from edge_face.bench.results import BenchError
from edge_face.clock import SystemClock
from edge_face.config import mask_url
from edge_face.demo import FPS, DemoScene
from edge_face.devices import find_cameras
from edge_face.errors import CaptureError
from edge_face.events import Box
from edge_face.images import BgrImage
from edge_face.sources import open_source
from edge_face.vision.detect import detect, resized
from edge_face.vision.models import Models

_FRAMES_BYTES = 96 << 20
"""A clip of 4K must not fill a small board's memory."""
_MOST_FRAMES = 300
_DEMO_EVERY = 2
_CAMERA_S = 8.0
_CLIP_QUALITY = 90


@dataclass(frozen=True, eq=False, slots=True)
class Scene:
    """`faces`: frames that show one, and where it is."""

    source: str
    frames: list[BgrImage]
    faces: list[tuple[BgrImage, Box]]
    clip: Path
    """The same frames as Motion JPEG, as a camera would send them."""

    @property
    def size(self) -> tuple[int, int]:
        height, width = self.frames[0].shape[:2]
        return width, height


def take(source: str, config: settings.Config, models: Models, folder: Path, limit_s: float) -> Scene:
    """`source`: what `--source` names, empty for the demo's photos or else the first camera. Raises BenchError."""

    def found(frames: list[BgrImage]) -> bool:
        return bool(_faces(frames, models, config.engine.min_face, limit_s))

    if source:
        shown, frames = mask_url(source), _frames_of(settings.Camera(source=source, realtime=False), found, limit_s)
    else:
        try:
            shown, frames = "the demo's photos", demo_visit()
        except CaptureError as error:
            camera = next(iter(config.cameras.values()))
            if camera.source == "auto" and not find_cameras():
                raise BenchError(
                    f"There are no pictures to measure with: {error.message} Or name a clip in which somebody looks "
                    "into the camera with --source."
                ) from None
            shown = mask_url(camera.source)
            frames = _frames_of(dataclasses.replace(camera, realtime=False), found, limit_s)
    faces = _faces(frames, models, config.engine.min_face, limit_s)
    if not faces:
        raise BenchError(
            f"{shown}: no face of {config.engine.min_face} pixels or more was found in {len(frames)} frames. Name a "
            "clip in which somebody looks into the camera, or stand before it"
        )
    return Scene(shown, frames, faces, write_clip(frames, folder / "scene.avi"))


def must_open(source: str) -> None:
    """A mistyped name is told at once, before the models are loaded. Raises BenchError."""
    if source and source != "demo":
        try:
            open_source(settings.Camera(source=source, realtime=False), SystemClock()).close()
        except CaptureError as error:
            raise BenchError(error.message) from None


def demo_visit() -> list[BgrImage]:
    """Raises CaptureError without the demo's photos."""
    scene = DemoScene(FPS)
    first = 2 * FPS  # somebody comes, stays and leaves, and a second nobody
    return [scene.frame(index) for index in range(first, first + 9 * FPS, _DEMO_EVERY)]


def _frames_of(camera: settings.Camera, found: Callable[[list[BgrImage]], bool], limit_s: float) -> list[BgrImage]:
    """As many in a row as memory and time allow, `found` a face in them; a clip may begin with nobody.

    Raises BenchError.
    """
    frames: list[BgrImage] = []
    end = time.monotonic() + min(limit_s, _CAMERA_S)
    try:
        source = open_source(camera, SystemClock())
        try:
            while time.monotonic() < end and len(frames) < _MOST_FRAMES:
                if frames and len(frames) * frames[0].nbytes > _FRAMES_BYTES:
                    if found(frames):
                        break
                    frames.clear()
                grab = source.read()
                if grab is None:
                    break
                if not frames or grab.image.shape == frames[0].shape:
                    frames.append(np.ascontiguousarray(grab.image, dtype=np.uint8))
        finally:
            source.close()
    except CaptureError as error:
        raise BenchError(error.message) from None
    if not frames:
        raise BenchError(f"{mask_url(camera.source)}: shows no picture")
    return frames


def _faces(frames: list[BgrImage], models: Models, min_face: int, limit_s: float) -> list[tuple[BgrImage, Box]]:
    """The largest face of every few frames."""
    found: list[tuple[BgrImage, Box]] = []
    end = time.monotonic() + limit_s
    for frame in frames[:: max(1, len(frames) // 20)]:
        scale = min(1.0, models.detector.smallest_px / min_face)
        searched = rgb(resized(frame, scale))
        boxes = [each.box for each in detect(searched, models.detector, scale, min_face, 0)]
        if boxes:
            found.append((frame, max(boxes, key=lambda box: box.area)))
        if time.monotonic() > end and found:
            break
    return found


def rgb(bgr: BgrImage) -> BgrImage:
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def write_clip(frames: list[BgrImage], path: Path) -> Path:
    """As Motion JPEG. Raises BenchError."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (width, height))
    writer.set(cv2.VIDEOWRITER_PROP_QUALITY, _CLIP_QUALITY)
    try:
        for frame in frames:
            writer.write(frame)
    finally:
        writer.release()
    if not path.is_file():
        raise BenchError(f"{path}: OpenCV cannot write a clip here")
    return path
