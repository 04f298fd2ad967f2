"""Where pictures come from: cameras, streams, clips and folders, each as a `capture.Source`."""

from __future__ import annotations

import fcntl
import math
import os
import re
import socket
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import cv2

from edge_face.capture import Grab, Source
from edge_face.clips import FALLBACK_FPS, ClipSource, FolderSource, describe
from edge_face.config import mask_url
from edge_face.errors import CaptureError

if TYPE_CHECKING:
    from edge_face.clock import Clock
    from edge_face.settings import Camera

POSSIBLE = (
    "auto, 0, /dev/video0, /dev/v4l/by-id/..., rtsp://..., http(s)://..., a video file, a folder of images, or demo"
)
OPEN_TIMEOUT_MS = 5000  # a camera with a key frame every 4 s must still be able to answer
READ_TIMEOUT_MS = 3000
_CATCH_UP_S = 1.0
_MOST_BEHIND_S = 2.0
_BAD_FRAMES = 10  # in a row; USB cameras give a corrupt JPEG now and then

_VIDIOC_QUERYCAP = 0x80685600  # linux/videodev2.h: _IOR('V', 0, struct v4l2_capability)
_CAPABILITY = struct.Struct("=16s32s32sIII12x")  # driver, card, bus, version, capabilities, device_caps
_CAP_VIDEO_CAPTURE = 0x00000001
_CAP_DEVICE_CAPS = 0x80000000
# Raspberry Pi nodes that capture but are no cameras, or give raw sensor data that only libcamera can use.
_NO_CAMERAS = frozenset((b"bcm2835-isp", b"bcm2835-codec", b"pispbe", b"unicam", b"rp1-cfe", b"rpivid"))

# TCP: lost UDP packets smear a face over half a second. max_delay (microseconds) bounds re-ordering; the probe
# settings shorten the look at the stream before the first frame.
_RTSP_OPTIONS = "rtsp_transport;tcp|max_delay;200000|fpsprobesize;0|analyzeduration;500000"
_HTTP_OPTIONS = "fpsprobesize;0|analyzeduration;500000"
_STREAM_SETTINGS = (
    *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, OPEN_TIMEOUT_MS),
    *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, READ_TIMEOUT_MS),
    *(cv2.CAP_PROP_N_THREADS, 1),  # on n threads FFmpeg decodes H.264 n - 1 frames late
)


def open_source(camera: Camera, clock: Clock) -> Source:
    """Open what `[camera] source` names. Raises CaptureError, in words for people, when it cannot be."""
    source = camera.source.strip()
    if source == "demo":
        from edge_face.demo import DemoSource  # only the demo needs photographs

        return DemoSource(clock)
    _quieten()
    if source == "auto":
        return DeviceSource(_first_camera(), camera, clock)
    if source.isascii() and source.isdecimal():
        return DeviceSource(Path(f"/dev/video{int(source)}"), camera, clock)
    if "://" in source:
        return _open_address(source, camera, clock)
    path = Path(source).expanduser()
    if path.is_dir():
        return FolderSource(path, camera, clock)
    if path.is_file():
        return ClipSource(str(path), camera, clock)
    if path.is_char_device() or source.startswith("/dev/"):
        return DeviceSource(path, camera, clock)
    if "/" in source or path.suffix:
        raise CaptureError(f"{source}: no such file or folder")
    raise CaptureError(f"{source!r} is no source; possible are {POSSIBLE}")


def find_cameras(folder: Path = Path("/dev")) -> list[Path]:
    """The V4L2 nodes that are cameras, lowest number first. A webcam has more nodes than one; only one captures."""
    nodes = [path for path in folder.glob("video*") if re.fullmatch(r"video\d+", path.name)]
    return [path for path in sorted(nodes, key=lambda path: int(path.name[5:])) if _is_camera(path)]


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


def _first_camera() -> Path:
    cameras = find_cameras()
    if cameras:
        return cameras[0]
    denied = [node for node in Path("/dev").glob("video*") if not os.access(node, os.R_OK | os.W_OK)]
    if denied:
        raise CaptureError(f"no camera: {denied[0]} may not be opened by this user (is it in the group video?)")
    raise CaptureError("no camera found: connect one, or set [camera] source")


def _quieten() -> None:
    """OpenCV and FFmpeg write to stderr at every attempt, with the whole address: noise, and a password in the log."""
    cv2.setLogLevel(0)
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    os.environ.setdefault("OPENCV_VIDEOIO_V4L_SELECT_TIMEOUT", str(READ_TIMEOUT_MS // 1000))


def _open_address(address: str, camera: Camera, clock: Clock) -> Source:
    try:
        parts = urlsplit(address)
        scheme, host = parts.scheme.lower(), parts.hostname
        port = parts.port or {"rtsp": 554, "https": 443}.get(scheme, 80)
        if "@" in address and "@" not in parts.netloc:
            raise ValueError("the user and password end before the @")
    except ValueError:  # its text may hold a piece of the password
        raise CaptureError(
            "[camera] source is no valid address; in a user name or password write # / ? @ : as %23 %2F %3F %40 %3A"
        ) from None
    if scheme not in ("rtsp", "http", "https"):
        raise CaptureError(f"{mask_url(address)}: unknown kind of address {scheme}://; possible are {POSSIBLE}")
    if not host:
        raise CaptureError(f"{mask_url(address)}: the host is missing")
    capture = _ffmpeg(address, _RTSP_OPTIONS if scheme == "rtsp" else _HTTP_OPTIONS)
    if not capture.isOpened():
        raise CaptureError(f"{mask_url(address)}: {_why_silent(host, port)}")
    if scheme != "rtsp" and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:  # a file with an end, not a camera
        capture.release()
        return ClipSource(address, camera, clock)
    return StreamSource(capture, address, camera, clock)


def _ffmpeg(address: str, options: str) -> cv2.VideoCapture:
    """OpenCV takes FFmpeg's options from the environment only; they are set for the moment of opening."""
    variable = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    if variable in os.environ:  # the user's own choice
        return cv2.VideoCapture(address, cv2.CAP_FFMPEG, _STREAM_SETTINGS)
    os.environ[variable] = options
    try:
        return cv2.VideoCapture(address, cv2.CAP_FFMPEG, _STREAM_SETTINGS)
    finally:
        del os.environ[variable]


def _why_silent(host: str, port: int) -> str:
    """FFmpeg keeps its reasons to itself; a plain connection tells the usual ones apart."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError as error:
        return f"cannot be reached ({error.strerror or error})"
    return "answers, but gives no video (wrong path, user or password?)"


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
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, camera.buffer_size)
        self.description = describe(str(path), self._capture)

    def read(self) -> Grab:
        for _ in range(_BAD_FRAMES):
            if not self._capture.grab():
                raise CaptureError("the camera stopped sending (unplugged?)")
            grabbed_at, timestamp = self._clock.monotonic(), self._clock.wall()
            good, image = self._capture.retrieve()
            if good and image.size:
                return Grab(image, grabbed_at, timestamp)
        raise CaptureError(f"{_BAD_FRAMES} frames in a row were not readable")

    def close(self) -> None:
        self._capture.release()


class Lag:
    """How far a live stream has fallen behind, from the time stamps its camera put on the frames.

    A decoder that is too slow, or a network that stutters, delivers frames that are seconds old and look new. The
    smallest difference between arrival and time stamp so far is taken for "no delay". It may rise by 0.1 %, because
    clocks drift.
    """

    def __init__(self) -> None:
        self._last = (0.0, -math.inf)
        self._least = math.inf

    def update(self, arrived: float, position_s: float) -> float:
        """Seconds by which this frame is late; 0 where its time stamp is of no use (standing still, jumped back)."""
        before, last = self._last
        offset = arrived - position_s
        self._last = (arrived, position_s)
        if not position_s > last or math.isinf(self._least):
            self._least = offset
            return 0.0
        self._least = min(offset, self._least + 0.001 * (arrived - before))
        return offset - self._least


class StreamSource:
    """RTSP or MJPEG over HTTP."""

    live = True
    patient = False

    def __init__(self, capture: cv2.VideoCapture, address: str, camera: Camera, clock: Clock) -> None:
        self._clock = clock
        self._capture = capture
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, camera.buffer_size)  # FFmpeg does not take it; others may
        # Over HTTP the time stamps are made up by FFmpeg.
        self._lag = Lag() if address.lower().startswith("rtsp") else None
        self.description = describe(address, capture)
        self._first = True

    def read(self) -> Grab:
        self._grab()
        skipped = self._catch_up() if self._first else 0
        self._first = False
        now, wall = self._clock.monotonic(), self._clock.wall()
        late = self._lag.update(now, self._position()) if self._lag else 0.0
        if late > _MOST_BEHIND_S:
            raise CaptureError(f"the stream is {late:.1f} s behind: too much for this board or network")
        good, image = self._capture.retrieve()
        if not good:
            raise CaptureError("the stream gave a frame that is not readable")
        return Grab(image, now - late, wall - late, skipped)

    def _grab(self) -> None:
        if not self._capture.grab():
            raise CaptureError(f"the stream ended, or sent nothing for {READ_TIMEOUT_MS / 1000:g} s")

    def _catch_up(self) -> int:
        """Pass over what FFmpeg stored while it probed the stream: frames that come faster than they were made.

        Two slow ones in a row end it, since the first frames also wait for the decoder to start.
        """
        skipped = slow = 0
        began = before = self._clock.monotonic()
        position = self._position()
        while slow < 2 and before - began < _CATCH_UP_S:
            self._grab()
            skipped += 1
            now, reached = self._clock.monotonic(), self._position()
            made_in = reached - position
            if not 0 < made_in < 1:  # the first time stamps of a stream are not always there
                made_in = 1 / FALLBACK_FPS
            slow = slow + 1 if now - before >= made_in / 2 else 0
            before, position = now, reached
        return skipped

    def _position(self) -> float:
        return self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000

    def close(self) -> None:
        self._capture.release()
