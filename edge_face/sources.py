"""Where pictures come from: what `[camera] source` names, opened as a `capture.Source`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from edge_face import devices, programs, streams
from edge_face.clips import ClipSource, FolderSource
from edge_face.errors import CaptureError

if TYPE_CHECKING:
    from edge_face.capture import Source
    from edge_face.clock import Clock
    from edge_face.settings import Camera

POSSIBLE = (
    "auto, 0, /dev/video0, /dev/v4l/by-id/..., rtsp://..., http(s)://..., a video file, a folder of images, csi, "
    "jetson-csi, exec:COMMAND, or demo"
)


def open_source(camera: Camera, clock: Clock) -> Source:
    """Open what `[camera] source` names. Raises CaptureError, in words for people, when it cannot be."""
    source = camera.source.strip()
    if source == "demo":
        from edge_face.demo import DemoSource  # only the demo needs photographs

        return DemoSource(clock)
    _quieten()
    if source == "auto":
        return devices.DeviceSource(devices.first_camera(), camera, clock)
    if source.isascii() and source.isdecimal():
        return devices.DeviceSource(Path(f"/dev/video{int(source)}"), camera, clock)
    if source in ("csi", "jetson-csi") or source.startswith("exec:"):
        return programs.open_program(source, camera, clock)
    if "://" in source:
        return streams.open_address(source, camera, clock)
    path = Path(source).expanduser()
    if path.is_dir():
        return FolderSource(path, camera, clock)
    if path.is_file():
        return ClipSource(str(path), camera, clock)
    if path.is_char_device() or source.startswith("/dev/"):
        return devices.DeviceSource(path, camera, clock)
    if "/" in source or path.suffix:
        raise CaptureError(f"{source}: no such file or folder")
    raise CaptureError(f"{source!r} is no source; possible are {POSSIBLE}")


def _quieten() -> None:
    """OpenCV and FFmpeg write to stderr at every attempt, with the whole address: noise, and a password in the log."""
    cv2.setLogLevel(0)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(devices.READ_TIMEOUT_S))
