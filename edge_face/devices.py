"""V4L2 cameras: which nodes are cameras, and one as a `capture.Source`."""

from __future__ import annotations

import fcntl
import os
import re
import stat
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from edge_face.capture import Grab
from edge_face.clips import describe
from edge_face.errors import CaptureError
from edge_face.freshness import STALE_S, Queue

if TYPE_CHECKING:
    from edge_face.clock import Clock
    from edge_face.settings import Camera

READ_TIMEOUT_S = 3
_DEFAULT_SIZE = (640, 480)
_FPS = 30
_BAD_FRAMES = 10  # in a row; USB cameras give a corrupt JPEG now and then
_MOST_QUEUED = 64  # more than any driver stores
_FOURCC = {"mjpeg": "MJPG", "yuv420p": "YU12", "yuvj420p": "YU12", "bgr24": "BGR3"}

_VIDIOC_QUERYCAP = 0x80685600  # linux/videodev2.h: _IOR('V', 0, struct v4l2_capability)
_CAPABILITY = struct.Struct("=16s32s32sIII12x")  # driver, card, bus, version, capabilities, device_caps
_CAP_VIDEO_CAPTURE = 0x00000001
_CAP_DEVICE_CAPS = 0x80000000
# Raspberry Pi nodes that capture but are no cameras, or give raw sensor data that only libcamera can use.
_NO_CAMERAS = frozenset((b"bcm2835-isp", b"bcm2835-codec", b"pispbe", b"unicam", b"rp1-cfe", b"rpivid"))


def find_cameras(folder: Path = Path("/dev")) -> list[Path]:
    """The V4L2 nodes that are cameras, lowest number first. A webcam has more nodes than one; only one captures."""
    nodes = [path for path in folder.glob("video*") if re.fullmatch(r"video\d+", path.name)]
    return [path for path in sorted(nodes, key=lambda path: int(path.name[5:])) if _is_camera(path)]


def first_camera() -> Path:
    cameras = find_cameras()
    if cameras:
        return cameras[0]
    denied = [node for node in Path("/dev").glob("video*") if not os.access(node, os.R_OK | os.W_OK)]
    if denied:
        raise CaptureError(f"no camera: {denied[0]} may not be opened by this user (is it in the group video?)")
    raise CaptureError("no camera found: connect one, or set [camera] source")


def _is_camera(path: Path) -> bool:
    answer = bytearray(_CAPABILITY.size)
    try:
        node = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.ioctl(node, _VIDIOC_QUERYCAP, answer)
    except OSError:
        return False
    finally:
        os.close(node)
    return captures(bytes(answer))


def captures(capability: bytes) -> bool:
    """Whether a `struct v4l2_capability` describes a camera node."""
    driver, _card, _bus, _version, whole, node = _CAPABILITY.unpack(capability)
    # Drivers before Linux 3.4 only know the capabilities of the whole device.
    flags = node if whole & _CAP_DEVICE_CAPS else whole
    return bool(flags & _CAP_VIDEO_CAPTURE) and driver.rstrip(b"\0") not in _NO_CAMERAS


class DeviceSource:
    """A V4L2 camera."""

    live = True
    patient = False

    def __init__(self, path: Path, camera: Camera, clock: Clock) -> None:
        self._clock = clock
        node = path.resolve()  # at every opening: a camera that is plugged in again may get another number
        if not node.exists():
            raise CaptureError(f"{path}: no such camera (is it plugged in?)")
        if not stat.S_ISCHR(node.stat().st_mode):
            raise CaptureError(f"{path}: is no camera")
        if not os.access(node, os.R_OK | os.W_OK):
            raise CaptureError(f"{path}: this user may not open it (is it in the group video?)")
        self._capture = cv2.VideoCapture(str(node), cv2.CAP_V4L2)
        if not self._capture.isOpened():
            raise CaptureError(f"{path}: cannot be opened (in use by another program, or no camera)")
        name = f"{path} ({node.name})" if node.name != path.name else str(path)
        self.description = f"{describe(name, self._capture)} (asked for {self._ask(camera)})"
        self._queue = Queue(self._capture, clock)
        self._driver_dates = False

    def _ask(self, camera: Camera) -> str:
        """Set what is wanted, and say it. The camera may give something else, or the nearest that it has."""
        width, height = camera.wanted_size or _DEFAULT_SIZE
        kind = camera.format
        if kind == "auto" and width * height > _DEFAULT_SIZE[0] * _DEFAULT_SIZE[1]:
            kind = "mjpeg"  # larger pictures do not fit through USB 2 uncompressed, or with few frames a second only
        code = _FOURCC.get(kind, "")
        if code:  # before the size: it decides which sizes and speeds there are
            self._capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*code))
        self._capture.set(cv2.CAP_PROP_FRAME_WIDTH, width)
        self._capture.set(cv2.CAP_PROP_FRAME_HEIGHT, height)
        self._capture.set(cv2.CAP_PROP_FPS, _FPS)
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, camera.buffer_size)
        return f"{width}x{height}, {_FPS} fps{f', {code}' if code else ''}"

    def read(self) -> Grab:
        bad = old = 0
        while bad < _BAD_FRAMES and old < _MOST_QUEUED:
            if not self._queue.grab():
                raise CaptureError("the camera stopped sending (unplugged?)")
            now, wall = self._clock.monotonic(), self._clock.wall()
            age, replaceable = self._age(now)
            if replaceable:
                old += 1
                continue
            good, image = self._capture.retrieve()
            if good and image.size:
                return Grab(image, now - age, wall - age, old)
            bad += 1
        raise CaptureError(f"{bad + old} frames in a row were {'not readable' if bad else 'old'}")

    def _age(self, now: float) -> tuple[float, bool]:
        """Seconds since the driver filled the buffer, and whether to look for a newer one.

        Most drivers date their frames by CLOCK_MONOTONIC, which is believed once it was seen to fit.
        """
        age = time.monotonic() - self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
        self._driver_dates = self._driver_dates or 0 <= age < STALE_S
        if self._driver_dates and age >= 0:
            return age, age > STALE_S and not self._queue.fresh
        return now - self._queue.grabbed_at, self._queue.stale

    def close(self) -> None:
        self._queue.close()
