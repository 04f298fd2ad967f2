"""Pictures out of a stream of bytes: MJPEG, which is JPEG after JPEG, and raw frames of a known size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from edge_face.errors import CaptureError
from edge_face.images import BgrImage

_START = b"\xff\xd8\xff"
_END = b"\xff\xd9"
_SCAN = 0xDA  # the marker after which the picture itself follows
_NO_LENGTH = frozenset((0x01, *range(0xD0, 0xD9)))  # markers that stand alone
_LARGEST_JPEG = 64 << 20
_MOST_WITHOUT_START = 4 << 20


class Splitter(Protocol):
    """Cuts bytes into pictures, as they come."""

    @property
    def between(self) -> bool:
        """Whether nothing of the next picture is there yet."""

    def add(self, data: bytes) -> list[bytes]:
        """The pictures that are complete now, in their order. Raises CaptureError for what can never become one."""

    def decode(self, data: bytes) -> BgrImage | None:
        """BGR; None when it is damaged."""


@dataclass(frozen=True, slots=True)
class RawFormat:
    """How a raw picture lies in memory.

    `yuv420p`: the plane Y, then U and V with half of its stride and lines, as rpicam-vid and FFmpeg write it;
    `yuvj420p`: the same in full range; `bgr24`: one plane.
    """

    name: str
    width: int
    height: int
    stride: int

    @classmethod
    def of(cls, name: str, width: int, height: int, stride: int = 0) -> RawFormat:
        """`stride` 0: no padding. Raises CaptureError when it cannot be."""
        tight = width * 3 if name == "bgr24" else width
        if name != "bgr24" and (width % 2 or height % 2 or stride % 2):
            raise CaptureError(f"{name} needs an even [camera] size and stride")
        if stride and stride < tight:
            raise CaptureError(f"[camera] stride is smaller than a line of {width}x{height} {name}, {tight} bytes")
        return cls(name, width, height, stride or tight)

    @property
    def length(self) -> int:
        return self.stride * self.height * (2 if self.name == "bgr24" else 3) // 2

    def decode(self, data: bytes) -> BgrImage:
        plane = np.frombuffer(data, np.uint8)
        if self.name == "bgr24":
            lines = plane.reshape(self.height, self.stride)[:, : self.width * 3]
            return np.ascontiguousarray(lines).reshape(self.height, self.width, 3)
        if self.name == "yuvj420p":
            return self._full_range(plane)
        # With its padding it is a picture that is `stride` wide: U and V have half of the stride, too.
        bgr = cv2.cvtColor(plane.reshape(self.height * 3 // 2, self.stride), cv2.COLOR_YUV2BGR_I420)
        return np.ascontiguousarray(bgr[:, : self.width], dtype=np.uint8)

    def _full_range(self, plane: BgrImage) -> BgrImage:
        """OpenCV knows this only without subsampling; as limited range it would clip highlights and shadows."""
        luma = self.stride * self.height
        y = plane[:luma].reshape(self.height, self.stride)[:, : self.width]
        u, v = plane[luma:].reshape(2, self.height // 2, self.stride // 2)[:, :, : self.width // 2]
        size = (self.width, self.height)
        planes = (y, cv2.resize(v, size), cv2.resize(u, size))
        return np.asarray(cv2.cvtColor(cv2.merge(planes), cv2.COLOR_YCrCb2BGR), dtype=np.uint8)


class RawSplitter:
    def __init__(self, format: RawFormat) -> None:
        self._format = format
        self._buffer = bytearray()

    @property
    def between(self) -> bool:
        return not self._buffer

    def add(self, data: bytes) -> list[bytes]:
        self._buffer += data
        size = self._format.length
        whole = len(self._buffer) // size
        pictures = [bytes(self._buffer[index * size : (index + 1) * size]) for index in range(whole)]
        del self._buffer[: whole * size]
        return pictures

    def decode(self, data: bytes) -> BgrImage:
        return self._format.decode(data)


class MjpegSplitter:
    """Whatever stands between two JPEGs (the headers of a multipart stream, garbage) is passed over."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._passed = 0

    @property
    def between(self) -> bool:
        return _START not in self._buffer[: len(_START)]

    def add(self, data: bytes) -> list[bytes]:
        self._buffer += data
        pictures = []
        while self._go_to_start():
            end = self._end()
            if not end:
                break
            if end > 0:
                pictures.append(bytes(self._buffer[:end]))
                self._passed = 0
            # What is no JPEG after all is passed over up to the next start.
            del self._buffer[: abs(end)]
            self._searched = 0
        if self._passed > _MOST_WITHOUT_START or len(self._buffer) > _LARGEST_JPEG:
            raise CaptureError("it writes no MJPEG")
        return pictures

    def _go_to_start(self) -> bool:
        start = self._buffer.find(_START)
        passed = start if start >= 0 else max(0, len(self._buffer) - len(_START) + 1)
        if passed:
            self._passed += passed
            del self._buffer[:passed]
        return start >= 0

    def _end(self) -> int:
        """Where the JPEG at the start of the buffer ends; 0: not there yet; negative: none, by so many bytes.

        Its segments are followed, not searched for the end: a thumbnail in one of them has an end of its own.
        """
        buffer = self._buffer
        at = 2
        while not self._searched:
            if at + 4 > len(buffer):
                return 0
            marker = buffer[at + 1]
            if buffer[at] != 0xFF or marker in (0x00, 0xD8, 0xD9):
                return -at
            if marker == 0xFF:  # filling
                at += 1
            elif marker in _NO_LENGTH:
                at += 2
            else:
                at += 2 + int.from_bytes(buffer[at + 2 : at + 4])
            if marker == _SCAN:
                self._searched = at
        # In the scan itself each FF is marked as data, so that an end is an end, and a start before it is the next one.
        end = buffer.find(_END, self._searched)
        start = buffer.find(_START, self._searched, len(buffer) if end < 0 else end)
        if start >= 0:
            return -start
        if end < 0:
            self._searched = max(self._searched, len(buffer) - len(_START) + 1)
            return 0
        return end + len(_END)

    def decode(self, data: bytes) -> BgrImage | None:
        image: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)  # its types do not tell of None
        return None if image is None else np.asarray(image, dtype=np.uint8)
