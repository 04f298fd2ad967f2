"""What a child process and its parent say to each other: frozen dataclasses, packed by msgspec, length first.

Nothing is pickled: a child that a hostile picture has taken over can send wrong numbers, but no code.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass, is_dataclass
from typing import Any, get_args

import msgspec
import numpy as np

from edge_face import settings
from edge_face.events import Box, CameraState, Face, FrameResult, KnownTrack, Status

_LENGTH = struct.Struct("<I")
MAX_MESSAGE = 64 * 1024 * 1024
ENCODING_SIZE = 128
LARGEST = 2**35
"""No number that is sent is larger, be it a time, a place or a count. Of larger ones, and of NaN, the parent could make
no date and no distance.
"""


@dataclass(frozen=True, slots=True)
class CameraJob:
    """The first message to a camera's child: all it needs to know. It never learns a name."""

    camera: str
    source: settings.Camera
    engine: settings.Engine
    jpeg_quality: int
    track_memory_s: float
    first_track: int
    log_level: str
    skip_backends: tuple[str, ...] = ()
    """Backends that killed a child on this machine."""
    known: tuple[KnownTrack, ...] = ()
    """Whom the child before this one followed."""
    max_age_s: float = 1.0
    """A frame that is judged later is of no use."""
    thumbnails: bool = False
    """Whether each face that is encoded comes with a picture of it."""


@dataclass(frozen=True, slots=True)
class WantJpeg:
    """Whether frames are watched, so that each result carries its picture."""

    wanted: bool


@dataclass(frozen=True, slots=True)
class WantPicture:
    """The next frame carries its picture, whether frames are watched or not; once."""

    small: bool = False
    """Reduced, in `small_jpeg`; else in good quality."""


@dataclass(frozen=True, slots=True)
class PauseWork:
    """Whether frames are merely passed on, and nobody is looked for in them."""

    paused: bool


@dataclass(frozen=True, slots=True)
class SlowDown:
    """Which share of the usual frame rate is judged."""

    share: float


@dataclass(frozen=True, slots=True)
class Settled:
    """Tracks that need no further look, so that they are encoded only now and then. Replaces what was said before."""

    tracks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Tune:
    """What of a CameraJob changes while the child goes on with its camera."""

    jpeg_quality: int
    track_memory_s: float
    max_age_s: float
    log_level: str


@dataclass(frozen=True, slots=True)
class PhotoJob:
    """The first message to the child that reads uploaded photos."""

    engine: settings.Engine
    log_level: str
    skip_backends: tuple[str, ...] = ()
    thumbnails: bool = False
    """Whether the largest face of a photo comes with a picture of it."""


@dataclass(frozen=True, slots=True)
class Photos:
    """Each photo's bytes follow, `sizes` of them, unpacked: copying 20 MiB at once would hold up a decision.

    The answer is a PhotoResult for each, in their order.
    """

    id: int
    sizes: tuple[int, ...]
    rivals: float = 0.0
    """Faces are not wanted that are narrower than so many times the largest; 0: all are."""


@dataclass(frozen=True, slots=True)
class PhotoResult:
    """`error` is an ImageError's code, else None. Faces stand largest first."""

    id: int
    width: int = 0
    height: int = 0
    faces: tuple[Face, ...] = ()
    error: str | None = None
    message: str = ""


@dataclass(frozen=True, slots=True)
class DrawJob:
    """The first message to the child that draws."""


@dataclass(frozen=True, slots=True)
class Label:
    """A box, its colour by `status`, and what stands over it."""

    box: Box
    status: Status
    text: str


@dataclass(frozen=True, slots=True)
class Draw:
    id: int
    jpeg: bytes
    labels: tuple[Label, ...]
    quality: int


@dataclass(frozen=True, slots=True)
class Drawn:
    """`jpeg` is None where the frame could not be read."""

    id: int
    jpeg: bytes | None


@dataclass(frozen=True, slots=True)
class Trying:
    """This backend is loaded next. If the child dies before the next message, it is known what killed it."""

    backend: str


@dataclass(frozen=True, slots=True)
class Ready:
    """The models are loaded and passed their self-test."""

    backend: str
    detector: str
    refused: tuple[tuple[str, str], ...] = ()
    """Backends that were tried before and failed, with the reason as a sentence."""
    encode_ms: float = 0.0
    """For one face, as the self-test took it."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The child cannot do its work, and why; it exits after this."""

    message: str


@dataclass(frozen=True, slots=True)
class SourceState:
    """Told twice a second, by the thread that judges. `blocked_s`: how long a call to the camera is overdue."""

    state: CameraState
    detail: str
    blocked_s: float


ToChild = (
    CameraJob | PhotoJob | DrawJob | WantJpeg | WantPicture | PauseWork | SlowDown | Settled | Tune | Photos | Draw
)
FromChild = Trying | Ready | Failed | SourceState | FrameResult | PhotoResult | Drawn

_TYPES: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(ToChild | FromChild)}
_encoder = msgspec.msgpack.Encoder(enc_hook=lambda array: array.tobytes())


def _encoding(_type: Any, data: bytes) -> Any:
    """The only arrays that are sent. Whoever compares encodings relies on their length."""
    encoding = np.frombuffer(data, np.float32)
    if encoding.shape != (ENCODING_SIZE,):
        raise ValueError(f"an encoding of {len(data)} bytes")
    return encoding


_decoders = {name: msgspec.msgpack.Decoder(kind, dec_hook=_encoding) for name, kind in _TYPES.items()}


def pack(message: ToChild | FromChild) -> bytes:
    name = type(message).__name__.encode()
    body = _encoder.encode(message)
    return b"".join((_LENGTH.pack(1 + len(name) + len(body)), bytes([len(name)]), name, body))


def unpack(data: bytes | bytearray) -> Any:
    """Raises ValueError for anything that is not one of the messages."""
    kind = data[1 : 1 + data[0]].decode("ascii", "replace")
    if kind not in _decoders:
        raise ValueError(f"unknown message {kind!r}")
    message = _decoders[kind].decode(data[1 + data[0] :])
    if not _is_sane(message):
        raise ValueError(f"numbers of a {kind} that cannot be")
    return message


def _is_sane(value: Any) -> bool:
    """Whether all numbers in it are finite and not too large."""
    if isinstance(value, int | float):
        return -LARGEST <= value <= LARGEST
    if isinstance(value, np.ndarray):
        return bool((np.abs(value) <= LARGEST).all())
    if is_dataclass(value):
        return all(_is_sane(getattr(value, name)) for name in value.__dataclass_fields__)
    if isinstance(value, dict):
        value = tuple(value.values())
    return not isinstance(value, tuple) or all(map(_is_sane, value))


async def read(stream: asyncio.StreamReader) -> Any:
    """The next message. Raises IncompleteReadError at the end, ValueError for nonsense."""
    (length,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
    if not 1 < length <= MAX_MESSAGE:
        raise ValueError(f"message of {length} bytes")
    return unpack(await stream.readexactly(length))


class Channel:
    """The child's end: blocking, for one reading and one writing thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection

    def send(self, message: FromChild) -> None:
        self._socket.sendall(pack(message))

    def receive(self) -> Any:
        """The next message; raises EOFError when the parent is gone."""
        (length,) = _LENGTH.unpack(self.receive_bytes(_LENGTH.size))
        return unpack(self.receive_bytes(length))

    def receive_bytes(self, count: int) -> bytearray:
        """Raises EOFError when the parent is gone."""
        data = bytearray(count)
        done = 0
        while done < count:
            got = self._socket.recv_into(memoryview(data)[done:])
            if not got:
                raise EOFError
            done += got
        return data
