"""RTSP and MJPEG over HTTP, by FFmpeg, as a `capture.Source`."""

from __future__ import annotations

import os
import socket
import statistics
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import cv2

from edge_face.capture import Grab, Source
from edge_face.clips import NETWORK_LIMITS, READ_TIMEOUT_MS, ClipSource, describe
from edge_face.config import mask_url
from edge_face.errors import CaptureError
from edge_face.freshness import CATCH_UP_S, GAP_S, SLACK_S, Lag, Queue

if TYPE_CHECKING:
    from edge_face.clock import Clock
    from edge_face.settings import Camera

_REACH_S = 1.0
_MOST_BEHIND_S = 2.0
_MADE_IN_S = 1 / 40  # for a stream that does not say it; half of it still tells 60 fps from a burst

# TCP: lost UDP packets smear a face over half a second. max_delay (microseconds) bounds re-ordering; the probe
# settings shorten the look at the stream before the first frame.
_RTSP_OPTIONS = "rtsp_transport;tcp|max_delay;200000|fpsprobesize;0|analyzeduration;500000"
_HTTP_OPTIONS = "fpsprobesize;0|analyzeduration;500000"
_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
STREAM_SETTINGS = (*NETWORK_LIMITS, cv2.CAP_PROP_N_THREADS, 1)  # on n threads FFmpeg decodes H.264 n - 1 frames late


def open_address(address: str, camera: Camera, clock: Clock) -> Source:
    """Raises CaptureError, in words without the password, when the address gives no video now."""
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
        raise CaptureError(
            f"{mask_url(address)}: unknown kind of address {scheme}://; possible are rtsp, http and https"
        )
    if not host:
        raise CaptureError(f"{mask_url(address)}: the host is missing")
    _reach(mask_url(address), host, port)
    before = _sockets()
    capture = _ffmpeg(address, _RTSP_OPTIONS if scheme == "rtsp" else _HTTP_OPTIONS)
    if not capture.isOpened():
        _reach(mask_url(address), host, port)
        raise CaptureError(f"{mask_url(address)}: answers, but gives no video (wrong path, user or password?)")
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
        return cv2.VideoCapture(address, cv2.CAP_FFMPEG, STREAM_SETTINGS)
    os.environ[_FFMPEG_OPTIONS] = options
    try:
        return cv2.VideoCapture(address, cv2.CAP_FFMPEG, STREAM_SETTINGS)
    finally:
        del os.environ[_FFMPEG_OPTIONS]


def _reach(name: str, host: str, port: int) -> None:
    """A plain connection first. FFmpeg keeps its reasons to itself, and waits 5 s for a host that is switched off: one
    that came back meanwhile would not be seen before the kernel asks again."""
    try:
        socket.create_connection((host, port), timeout=_REACH_S).close()
    except OSError as error:
        raise CaptureError(f"{name}: cannot be reached ({error.strerror or error})") from None


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
        anchored = self._dated or (self._queue.fresh and self._queue.gap < SLACK_S)
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
        if self._gaps and gap > max(GAP_S, 2 * statistics.median(self._gaps)):
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
            if self._queue.ended - began > CATCH_UP_S:
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
