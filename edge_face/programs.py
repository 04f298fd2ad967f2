"""Cameras that another program reads: `csi` (rpicam-vid), `jetson-csi` (gst-launch-1.0) and `exec:COMMAND`."""

from __future__ import annotations

import re
import shlex
import shutil
import statistics
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from edge_face.capture import Grab
from edge_face.errors import CaptureError
from edge_face.freshness import GAP_S
from edge_face.pictures import MjpegSplitter, RawFormat, RawSplitter, Splitter
from edge_face.piped import Program

if TYPE_CHECKING:
    from edge_face.clock import Clock
    from edge_face.settings import Camera

OPEN_S = 10.0  # rpicam-vid takes a second, a stranger's script on a small board some more
READ_S = 3.0
_DEFAULT_SIZE = (1280, 720)  # a width that no Raspberry Pi pads
_FPS = 30
_BAD_PICTURES = 10  # in a row
_MOST_STALE_S = 3.0
_BOARD = Path("/proc/device-tree/compatible")
# libcamera says on stderr what it gives: "configuring streams: (0) 1280x720-YUV420/sYCC (1) ...".
_CONFIGURED = re.compile(r"configuring streams: \(0\) (\d+)x(\d+)-YUV420(?:/(\w+))?")


def open_program(source: str, camera: Camera, clock: Clock) -> ProgramSource:
    """Start the program that `source` means. Raises CaptureError when it gives no picture."""
    if source == "csi":
        return _raspberry(camera, clock)
    if source == "jetson-csi":
        return _jetson(camera, clock)
    command = source.removeprefix("exec:").strip()
    if not command:
        raise CaptureError("[camera] source = exec: names no command")
    name = _name(command)
    if camera.format in ("auto", "mjpeg"):
        return ProgramSource(name, command, clock)
    size = _size(camera)
    if not size:
        raise CaptureError("raw pictures do not say their size: set [camera] size")
    format = RawFormat.of(camera.format, *size, camera.stride)
    return ProgramSource(name, command, clock, raw=lambda _said: format)


def _name(command: str) -> str:
    """The program's name alone: what stands before and after it may be a password."""
    try:
        words = shlex.split(command)
    except ValueError:  # an open quotation mark: the shell will complain of it
        words = []
    program = next((word for word in words if not re.match(r"\w+=", word)), "")
    return Path(program).name if re.fullmatch(r"[\w./+-]+", program) else "the command"


def _size(camera: Camera) -> tuple[int, int] | None:
    try:
        return camera.wanted_size
    except ValueError as error:
        raise CaptureError(f"[camera] size: {error}") from None


def _raspberry(camera: Camera, clock: Clock) -> ProgramSource:
    program = next(filter(None, map(shutil.which, ("rpicam-vid", "libcamera-vid"))), None)
    if not program:
        raise CaptureError("csi: neither rpicam-vid nor libcamera-vid is there (Debian's package rpicam-apps-lite)")
    if camera.format == "bgr24":
        raise CaptureError("csi gives no bgr24; [camera] format can be auto, yuv420p, yuvj420p or mjpeg")
    width, height = _size(camera) or _DEFAULT_SIZE
    size = ["--width", str(width), "--height", str(height), "--framerate", str(_FPS)]
    mjpeg = camera.format == "mjpeg"
    codec = ["--codec", "mjpeg", "--quality", "90"] if mjpeg else ["--codec", "yuv420"]
    # --flush: at once, not when a buffer is full. --verbose 0: no line for each frame.
    command = shlex.join(
        [program, "--timeout", "0", "--nopreview", "--verbose", "0", *codec, *size, "--flush", "--output", "-"]
    )

    def given(said: str) -> RawFormat:
        told = _CONFIGURED.search(said)
        got = (int(told[1]), int(told[2])) if told else (width, height)
        # rpicam-vid asks for JPEG's range, which is the full one.
        full = camera.format != "yuv420p" and not (told and told[3] in ("SMPTE170M", "Rec709"))
        return RawFormat.of("yuvj420p" if full else "yuv420p", *got, camera.stride or padded(got[0]))

    asked = f"{width}x{height}"
    return ProgramSource("csi", command, clock, asked, None if mjpeg else given)


def padded(width: int, board: Path = _BOARD) -> int:
    """The stride of rpicam-vid's yuv420, whose lines are padded and whose height is not.

    The image processor of the Raspberry Pi 5 wants the planes U and V, half as wide, at multiples of 64 bytes, so those
    of Y come at 128; that of the older boards wants 64.
    """
    try:
        pi5 = b"brcm,bcm2712" in board.read_bytes()
    except OSError:
        pi5 = False
    step = 128 if pi5 else 64
    return -(-width // step) * step


def _jetson(camera: Camera, clock: Clock) -> ProgramSource:
    program = shutil.which("gst-launch-1.0")
    if not program:
        raise CaptureError("jetson-csi: gst-launch-1.0 is not there (Debian's package gstreamer1.0-tools)")
    if camera.format not in ("auto", "yuv420p"):
        raise CaptureError(f"jetson-csi gives no {camera.format}; [camera] format can be auto or yuv420p")
    width, height = _size(camera) or _DEFAULT_SIZE
    if width % 8 or height % 2:  # else GStreamer pads U and V in another way than Y
        raise CaptureError("jetson-csi needs a [camera] size whose width is a multiple of 8, and its height of 2")
    size = f"width={width},height={height}"
    pipeline = [
        *("nvarguscamerasrc", "!", f"video/x-raw(memory:NVMM),{size},framerate={_FPS}/1"),
        *("!", "nvvidconv", "!", f"video/x-raw,format=I420,{size}"),
        *("!", "queue", "max-size-buffers=1", "leaky=downstream", "!", "fdsink", "fd=3", "sync=false"),
    ]
    # NVIDIA's source writes messages to the standard output; so the pictures get a descriptor of their own.
    command = f"{shlex.join([program, '-q', *pipeline])} 3>&1 1>&2"
    format = RawFormat.of("yuv420p", width, height, camera.stride)
    return ProgramSource("jetson-csi", command, clock, f"{width}x{height}", lambda _said: format)


class ProgramSource:
    """The newest picture that a program writes."""

    live = True
    patient = False

    def __init__(
        self,
        name: str,
        command: str,
        clock: Clock,
        asked: str = "",
        raw: Callable[[str], RawFormat] | None = None,
    ) -> None:
        """`raw` tells the format, given what the program said before its first picture; None: MJPEG."""
        self._clock = clock
        self._raw = raw
        self._format: RawFormat | None = None
        self._splitter: Splitter | None = None
        self._begun = 0.0  # the bound of the picture that is not yet complete
        self._gaps: deque[float] = deque(maxlen=9)
        self._last: float | None = None
        self._last_bound = 0.0
        self._program = Program(name, command, clock)
        try:
            self._first: Grab | None = self._next(OPEN_S)
        except BaseException:
            self._program.close()
            raise
        height, width = self._first.image.shape[:2]
        self.description = f"{name}, {width}x{height}, {self._kind}{f' (asked for {asked})' if asked else ''}"

    @property
    def _kind(self) -> str:
        return f"{self._format.name}, stride {self._format.stride}" if self._format else "MJPEG"

    def read(self) -> Grab:
        grab, self._first = self._first, None
        return grab or self._next(READ_S)

    def _next(self, limit_s: float) -> Grab:
        began = self._clock.monotonic()
        arrivals = self._program.arrivals
        bad = skipped = 0
        while True:
            pictures, bound = self._pictures(began + limit_s)
            skipped += len(pictures) - 1
            self._mind_the_gap(bound)
            if arrivals.stale(bound):
                if self._clock.monotonic() - began > READ_S:
                    raise CaptureError(f"{self._program.name} writes faster than this board can read")
                skipped += 1
                continue
            image = self._split().decode(pictures[-1])
            if image is not None:
                now, wall = self._clock.monotonic(), self._clock.wall()
                grabbed_at = arrivals.date(bound)
                return Grab(image, grabbed_at, wall - (now - grabbed_at), skipped)
            bad += 1
            if bad == _BAD_PICTURES:
                raise CaptureError(f"{bad} pictures in a row of {self._program.name} were not readable")

    def _pictures(self, deadline: float) -> tuple[list[bytes], float]:
        """The pictures that the next bytes complete, at least one, and since when the last of them can exist."""
        program = self._program
        while True:
            between = self._splitter is None or self._splitter.between
            data = program.read(deadline, between)
            if not data:
                raise CaptureError(self._why_silent())
            bound = program.arrivals.bound
            if between:
                self._begun = bound
            try:
                pictures = self._split().add(data)
            except CaptureError as error:
                raise CaptureError(f"{program.name}: {error}{program.last_words()}") from None
            if pictures:
                begun = self._begun if len(pictures) == 1 else bound
                self._begun = bound
                self._check_size()
                return pictures, begun

    def _split(self) -> Splitter:
        """Made at the first bytes: only then all has been said about them."""
        if not self._splitter:
            if self._raw:
                self._format = self._raw(self._program.said)
                self._program.enlarge_pipe(self._format.length)
            self._splitter = RawSplitter(self._format) if self._format else MjpegSplitter()
        return self._splitter

    def _mind_the_gap(self, bound: float) -> None:
        """After a long one nobody knows whether the program stored pictures meanwhile, and is late from now on."""
        now = self._clock.monotonic()
        if self._last is not None:
            gap = now - self._last
            if self._gaps and gap > max(GAP_S, 2 * statistics.median(self._gaps)):
                raise CaptureError(
                    f"{self._program.name} gave no picture for {gap:.1f} s: those that come now may be old, so it is "
                    "started anew"
                )
            if bound > self._last_bound:
                self._gaps.append(gap)
                self._program.arrivals.usual_gap_s = statistics.median(self._gaps)
        self._last, self._last_bound = now, bound

    def _check_size(self) -> None:
        """A wrong stride or size shears all pictures; the program's pauses show how long its pictures really are."""
        bursts = self._program.arrivals.bursts
        if not self._format or len(bursts) < (bursts.maxlen or 0) or len(set(bursts)) > 1:
            return
        wrote, wanted = bursts[0], self._format.length
        if wrote % wanted and wanted % wrote:
            format = self._format
            raise CaptureError(
                f"{self._program.name} writes pictures of {wrote} bytes, but {format.width}x{format.height} "
                f"{format.name} with stride {format.stride} has {wanted}: check [camera] size, format and stride"
            )

    def _why_silent(self) -> str:
        name, words = self._program.name, self._program.last_words()
        if self._last is not None:
            return f"{name} gave no picture for {READ_S:g} s{words}"
        if not self._program.written:
            return f"{name} wrote nothing for {OPEN_S:g} s{words}"
        what = f"of {self._format.length} bytes" if self._format else "in MJPEG"
        return f"{name} wrote {self._program.written} bytes in {OPEN_S:g} s, but no picture {what}{words}"

    def close(self) -> None:
        self._program.close()
