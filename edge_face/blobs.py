"""Encodings as the bytes in which the database keeps them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edge_face.events import Encoding

DIMENSIONS = 128


def to_blob(encoding: Encoding) -> bytes:
    """512 bytes. NaN and infinity are refused: broken builds produce them, and no comparison with them is ever true."""
    with np.errstate(over="ignore"):
        values = np.asarray(encoding).astype("<f4")
    if values.shape != (DIMENSIONS,):
        raise ValueError(f"an encoding has the shape ({DIMENSIONS},), not {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError("an encoding holds a number that is not finite")
    return values.tobytes()


def from_blobs(blobs: bytes) -> npt.NDArray[np.float32]:
    """(n, 128): the encodings whose bytes stand one behind the other."""
    return np.frombuffer(blobs, dtype="<f4").reshape(-1, DIMENSIONS).astype(np.float32)
