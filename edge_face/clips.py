"""Clips: video files and folders of images, as `capture.Source`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2

from edge_face.capture import Grab, Pace
from edge_face.config import mask_url
from edge_face.errors import CaptureError

if TYPE_CHECKING:
    from collections.abc import Generator

    import numpy.typing as npt

    from edge_face.clock import Clock
    from edge_face.settings import Camera

log = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".bmp", ".webp"))
OPEN_TIMEOUT_MS = 5000  # a camera with a key frame every 4 s must still be able to answer
READ_TIMEOUT_MS = 3000
NETWORK_LIMITS = (
    *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS),
    *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS),
)
FALLBACK_FPS = 25.0  # for a clip whose container does not say, or lies
FOLDER_FPS = 2.0


def describe(name: str, capture: cv2.VideoCapture) -> str:
    width, height = capture.get(cv2.CAP_PROP_FRAME_WIDTH), capture.get(cv2.CAP_PROP_FRAME_HEIGHT)
    fps = capture.get(cv2.CAP_PROP_FPS)
    code = int(capture.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF
    codec = "".join(char for char in code.to_bytes(4, "little").decode("latin-1") if char.isascii() and char.isalnum())
    parts = [mask_url(name), f"{width:.0f}x{height:.0f}"]
    if 0 < fps < 1000:
        parts.append(f"{fps:.4g} fps")
    return ", ".join([*parts, codec] if codec else parts)


class ClipSource:
    """A video file, at its own speed (`realtime`) or as fast as its frames are taken."""

    live = False

    def __init__(self, name: str, camera: Camera, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._loop = camera.loop
        self._round = 0
        self._read_any = False
        self.patient = not camera.realtime
        self._capture = self._open()
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self._pace = Pace(clock, fps if 0 < fps <= 240 else FALLBACK_FPS) if camera.realtime else None
        self.description = describe(name, self._capture)

    def _open(self) -> cv2.VideoCapture:
        limits = NETWORK_LIMITS if "://" in self._name else ()
        capture = cv2.VideoCapture(self._name, cv2.CAP_FFMPEG, limits)
        if not capture.isOpened():
            raise CaptureError(f"{mask_url(self._name)}: is no video that can be read")
        return capture

    def read(self) -> Grab | None:
        skipped = 0
        for _ in range(self._pace.behind() if self._pace else 0):
            if not self._grab():
                return None
            skipped += 1
        if self._pace:
            self._pace.wait()
        if not self._grab():
            return None
        grabbed_at, timestamp = self._clock.monotonic(), self._clock.wall()
        good, image = self._capture.retrieve()
        if not good:
            raise CaptureError(f"{mask_url(self._name)}: a frame is not readable")
        return Grab(image, grabbed_at, timestamp, skipped, self._round)

    def _grab(self) -> bool:
        """Go to the next frame, from the start again with `loop`; False at the end."""
        if self._capture.grab():
            self._read_any = True
            return True
        # A connection that broke is an end for FFmpeg. Not every file counts its frames exactly.
        played, count = self._capture.get(cv2.CAP_PROP_POS_FRAMES), self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        if "://" in self._name and played < 0.9 * count:
            raise CaptureError(f"{mask_url(self._name)}: broke off after {played:.0f} of {count:.0f} frames")
        if not self._read_any:
            raise CaptureError(f"{mask_url(self._name)}: has no frame that can be read")
        if not self._loop:
            return False
        self._capture.release()
        self._capture = self._open()  # not by seeking: a GIF cannot
        self._round += 1
        if not self._capture.grab():
            raise CaptureError(f"{mask_url(self._name)}: cannot be read again")
        return True

    def close(self) -> None:
        self._capture.release()


class FolderSource:
    """A folder of images, sorted by name, each shown as one frame."""

    live = False

    def __init__(self, path: Path, camera: Camera, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._loop = camera.loop
        self._round = 0
        self._unreadable: set[Path] = set()
        self.patient = not camera.realtime
        self._pace = Pace(clock, camera.fps or FOLDER_FPS) if camera.realtime else None
        count = len(self._images())
        if not count:
            raise CaptureError(f"{path}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")
        self.description = f"{path}, {count} images"
        self._frames = self._play()

    def _images(self) -> list[Path]:
        found = (path for path in self._path.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
        return sorted(found, key=lambda path: path.name)

    def read(self) -> Grab | None:
        return next(self._frames, None)

    def _play(self) -> Generator[Grab, None, None]:
        while True:
            shown = False
            for path in self._images():  # listed anew in each round: images may come and go
                image = read_image(path)
                if image is None:
                    if path not in self._unreadable:
                        self._unreadable.add(path)
                        log.warning("%s: is no image that can be read; skipped", path)
                    continue
                if self._pace:
                    self._pace.wait()
                shown = True
                yield Grab(image, self._clock.monotonic(), self._clock.wall(), 0, self._round)
            if not shown:
                raise CaptureError(f"{self._path}: none of its images can be read")
            if not self._loop:
                return
            self._round += 1

    def close(self) -> None:
        self._frames.close()


def read_image(path: Path) -> npt.NDArray[Any] | None:
    """BGR, turned as its EXIF orientation says; None for what OpenCV cannot read, which its types do not tell."""
    try:
        return cv2.imread(str(path), cv2.IMREAD_COLOR)
    except cv2.error:  # larger than OpenCV's limit
        return None
