"""Pictures that say when they were made, as black and white columns. Plain Python: also the system's one runs it."""

from __future__ import annotations

import time
from typing import Any

FPS, BITS = 20, 10
_BLACK, _WHITE = 16, 235


def count(now: float | None = None) -> int:
    """The number of the picture that is due: all processes of a machine agree on it."""
    return int((time.monotonic() if now is None else now) * FPS) % (1 << BITS)


def age_s(number: int) -> float:
    """How long ago the picture with that number was due, up to half a minute."""
    return (time.monotonic() * FPS - number) % (1 << BITS) / FPS


def columns(number: int, width: int) -> bytes:
    each = [_WHITE if number >> bit & 1 else _BLACK for bit in range(BITS)]
    return bytes(each[column * BITS // width] for column in range(width))


def bgr(number: int, width: int, height: int) -> bytes:
    return b"".join(bytes((level,)) * 3 for level in columns(number, width)) * height


def i420(number: int, width: int, height: int, stride: int) -> bytes:
    """Reddish, and with padding that would be seen."""
    padding = stride - width
    y = columns(number, width) + b"\xff" * padding
    u, v = (bytes((level,)) * (width // 2) + b"\0" * (padding // 2) for level in (110, 150))
    return y * height + u * (height // 2) + v * (height // 2)


def number_of(image: Any) -> int:
    """The number that a BGR array shows."""
    height, width = image.shape[:2]
    row = image[height // 2, width // BITS // 2 :: width // BITS, 1]
    return sum(1 << bit for bit, level in enumerate(row[:BITS]) if level > 125)
