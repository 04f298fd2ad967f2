"""Where pictures come from: cameras, streams, clips and folders, each as a `capture.Source`."""

from __future__ import annotations

import fcntl
import os
import re
import socket
import stat
import statistics
import struct
import termios
import time
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import cv2

from edge_face.capture import Grab, Lag, Source
from edge_face.clips import ClipSource, FolderSource, describe
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
_SLACK_S = 0.25  # the most by which a frame is dated too young; slower cameras than 4 fps are dated a little too old
_STALE_S = 0.5  # a queued frame that may be older is passed over for a newer one
_GAP_S = 0.75  # without a frame from a stream that has no time stamps: what comes after it may be as old as that
_MADE_IN_S = 1 / 40  # for a stream that does not say it; half of it still tells 60 fps from a burst
_WAITED_S = 0.01  # a call that slept this long found nothing in the queue
_BAD_FRAMES = 10  # in a row; USB cameras give a corrupt JPEG now and then
_MOST_QUEUED = 64  # more than any driver stores

_VIDIOC_QUERYCAP = 0x80685600  # linux/videodev2.h: _IOR('V', 0, struct v4l2_capability)
_CAPABILITY = struct.Struct("=16s32s32sIII12x")  # driver, card, bus, version, capabilities, device_caps
_CAP_VIDEO_CAPTURE = 0x00000001
_CAP_DEVICE_CAPS = 0x80000000
_BYTES_RECEIVED = 128  # linux/tcp.h: where tcpi_bytes_received stands in struct tcp_info
# Raspberry Pi nodes that capture but are no cameras, or give raw sensor data that only libcamera can use.
_NO_CAMERAS = frozenset((b"bcm2835-isp", b"bcm2835-codec", b"pispbe", b"unicam", b"rp1-cfe", b"rpivid"))

# TCP: lost UDP packets smear a face over half a second. max_delay (microseconds) bounds re-ordering; the probe
# settings shorten the look at the stream before the first frame.
_RTSP_OPTIONS = "rtsp_transport;tcp|max_delay;200000|fpsprobesize;0|analyzeduration;500000"
_HTTP_OPTIONS = "fpsprobesize;0|analyzeduration;500000"
_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
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
    before = _sockets()
    capture = _ffmpeg(address, _RTSP_OPTIONS if scheme == "rtsp" else _HTTP_OPTIONS)
    if not capture.isOpened():
        raise CaptureError(f"{mask_url(address)}: {_why_silent(host, port)}")
    if scheme != "rtsp" and capture.get(cv2.CAP_PROP_FRAME_COUNT) > 0:  # a file with an end, not a camera
        capture.release()
        return ClipSource(address, camera, clock)
    # The user's own options may be to receive RTSP over UDP; then the connection is not where the frames come.
    known = scheme != "rtsp" or _FFMPEG_OPTIONS not in os.environ
    connection = _connection(_sockets() - before, port) if known else None
    return StreamSource(capture, address, camera, clock, connection)


def _ffmpeg(address: str, options: str) -> cv2.VideoCapture:
    """OpenCV takes FFmpeg's options from the environment only; they are set for the moment of opening."""
    if _FFMPEG_OPTIONS in os.environ:  # the user's own choice
        return cv2.VideoCapture(address, cv2.CAP_FFMPEG, _STREAM_SETTINGS)
    os.environ[_FFMPEG_OPTIONS] = options
    try:
        return cv2.VideoCapture(address, cv2.CAP_FFMPEG, _STREAM_SETTINGS)
    finally:
        del os.environ[_FFMPEG_OPTIONS]


def _why_silent(host: str, port: int) -> str:
    """FFmpeg keeps its reasons to itself; a plain connection tells the usual ones apart."""
    try:
        socket.create_connection((host, port), timeout=1).close()
    except OSError as error:
        return f"cannot be reached ({error.strerror or error})"
    return "answers, but gives no video (wrong path, user or password?)"


def _sockets() -> set[tuple[int, str]]:
    """This process's open sockets: file descriptor and inode."""
    found = set()
    with suppress(OSError):
        for entry in Path("/proc/self/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                if (target := str(entry.readlink())).startswith("socket:"):
                    found.add((int(entry.name), target))
    return found


def _connection(opened: set[tuple[int, str]], port: int) -> socket.socket | None:
    """FFmpeg's connection to the camera among the sockets opened meanwhile, duplicated; None when it is not certain.

    OpenCV does not tell it, and nobody but the kernel knows what still waits in it.
    """
    found: list[socket.socket] = []
    for number, _inode in opened:
        with suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
            connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO)  # fails when it is not of TCP
            if connection.getpeername()[1] == port:  # a redirection may lead to another one: then it stays unknown
                found.append(connection.dup())
    for connection in found[1:]:
        connection.close()
    return found[0] if found else None


class Queue:
    """Grabs frames, and bounds how old each may be: it came after the last moment at which nothing was queued.

    A frame that waited in a socket or a driver looks like a new one. That nothing was queued is known when a grab took
    bytes that reached this machine only after it began; kernel counters say so, and they hold on a starved or stopped
    machine too. Without a connection to ask, a grab that slept counts: load can feign that, but a device queues little.
    """

    def __init__(self, capture: cv2.VideoCapture, clock: Clock, connection: socket.socket | None = None) -> None:
        self._capture = capture
        self._clock = clock
        self._connection = connection
        self._empty_at = self.ended = clock.monotonic()
        self.gap = 0.0  # from the end of the last grab to the end of this one, whatever the time was spent on
        self.fresh = False  # nothing was queued when the grab began

    @property
    def grabbed_at(self) -> float:
        """Not the end of the grab if that came late: the process may have been stopped in it, or the frame held up."""
        return min(self.ended, self._empty_at + _SLACK_S)

    @property
    def stale(self) -> bool:
        return not self.fresh and self.ended - self.grabbed_at > _STALE_S

    def grab(self) -> bool:
        began = self._clock.monotonic()  # before the counters: a stop between them makes the frame older, not newer
        worked, arrived = time.thread_time(), self._bytes()[0]
        good = self._capture.grab()
        reached, waiting = self._bytes()
        ended = self._clock.monotonic()
        slept = ended - began - (time.thread_time() - worked)
        self.fresh = reached - waiting > arrived if arrived else slept > _WAITED_S
        if self.fresh:
            self._empty_at = began
        self.gap, self.ended = ended - self.ended, ended
        return good

    def _bytes(self) -> tuple[int, int]:
        """How many came over the connection so far, and how many of them were not yet read; (0, 0): not known."""
        if not self._connection:
            return 0, 0
        try:
            info = self._connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _BYTES_RECEIVED + 8)
            waiting = fcntl.ioctl(self._connection, termios.FIONREAD, bytes(4))
            return struct.unpack_from("=Q", info, _BYTES_RECEIVED)[0], struct.unpack("=i", waiting)[0]
        except (OSError, struct.error):  # Linux before 4.1
            return 0, 0

    def close(self) -> None:
        self._capture.release()
        if self._connection:
            self._connection.close()


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
        self._queue = Queue(self._capture, clock)
        self._driver_dates = False

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
        self._driver_dates = self._driver_dates or 0 <= age < _STALE_S
        if self._driver_dates and age >= 0:
            return age, age > _STALE_S and not self._queue.fresh
        return now - self._queue.grabbed_at, self._queue.stale

    def close(self) -> None:
        self._queue.close()


class StreamSource:
    """RTSP or MJPEG over HTTP."""

    live = True
    patient = False

    def __init__(
        self, capture: cv2.VideoCapture, address: str, camera: Camera, clock: Clock, connection: socket.socket | None
    ) -> None:
        self._clock = clock
        self._capture = capture
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, camera.buffer_size)  # FFmpeg does not take it; others may
        self._queue = Queue(capture, clock, connection)
        # Over HTTP the time stamps are made up by FFmpeg.
        self._lag = Lag() if address.lower().startswith("rtsp") else None
        self._gaps: deque[float] = deque(maxlen=9)
        self.description = describe(address, capture)
        self._unsettled = True
        self._dated = False  # by the camera

    def read(self) -> Grab:
        self._grab()
        skipped = self._catch_up() if self._unsettled or (self._queue.stale and not self._dated) else 0
        now, wall = self._clock.monotonic(), self._clock.wall()
        late = self._lag.update(now, self._position()) if self._lag else 0.0
        if late > _MOST_BEHIND_S:
            raise CaptureError(f"the stream is {late:.1f} s behind: too much for this board or network")
        # The lag is believed once it was measured at a frame that was surely new; from then on it knows best.
        anchored = self._dated or (self._queue.fresh and self._queue.gap < _SLACK_S)
        dated = self._lag is not None and self._lag.useful and anchored
        self._unsettled = self._dated and not dated  # the camera's clock was set back: begin again
        self._dated = dated
        if not dated:
            late = now - self._queue.grabbed_at
        good, image = self._capture.retrieve()
        if not good:
            raise CaptureError("the stream gave a frame that is not readable")
        return Grab(image, now - late, wall - late, skipped)

    def _grab(self) -> None:
        if not self._queue.grab():
            raise CaptureError(f"the stream ended, or sent nothing for {READ_TIMEOUT_MS / 1000:g} s")
        if self._dated:
            return
        # Nothing tells whether the sender stored frames meanwhile and is late from now on. A new connection is not.
        gap = self._queue.gap
        if self._gaps and gap > max(_GAP_S, 2 * statistics.median(self._gaps)):
            raise CaptureError(f"no frame for {gap:.1f} s: those that come now may be old, so connecting anew")
        if self._queue.fresh:
            self._gaps.append(gap)

    def _catch_up(self) -> int:
        """Pass over what was stored, by FFmpeg while it probed the stream or while nobody read.

        It is over after two frames in a row that came no faster than they were made and had to be waited for; two,
        since the first frames also wait for the decoder to start.
        """
        skipped = slow = 0
        began, position = self._clock.monotonic(), self._position()
        while slow < 2:
            if self._queue.ended - began > _CATCH_UP_S:
                if self._queue.fresh:
                    break
                raise CaptureError("frames come faster than they can be read: too much for this board")
            self._grab()
            skipped += 1
            made_in, position = self._position() - position, self._position()
            if not self._lag or not 0 < made_in < 1:  # the first time stamps of a stream are not always there
                made_in = _MADE_IN_S
            slow = slow + 1 if self._queue.fresh and self._queue.gap >= made_in / 2 else 0
        return skipped

    def _position(self) -> float:
        return self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000

    def close(self) -> None:
        self._queue.close()
