"""Cameras and clips of composed scenes, for daemons that run for a while."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from tests.support.mjpeg import MjpegServer
from tests.support.scenes import FPS, HEIGHT, WIDTH, Scene, crossing

Frame = npt.NDArray[np.uint8]
"""(height, width, 3) BGR."""


def busy_gate(first: int = 0) -> list[Frame]:
    """22 s at a gate: Eileen and Grace cross, then each comes alone. The clip begins with frame `first`."""
    scene = Scene()
    frames = [scene.frame(*people)[0] for people in _comings()]
    return frames[first:] + frames[:first]


def _comings() -> Iterator[list[tuple[str, float, float]]]:
    nobody = list[tuple[str, float, float]]()
    eileen, grace = ([(name, 320.0 + 3 * (step % 9), 240.0) for step in range(4 * FPS)] for name in ("Eileen", "Grace"))
    pause = list(repeat(nobody, int(2.5 * FPS)))
    yield from chain(pause, crossing(), pause, ([one] for one in eileen), pause, ([one] for one in grace))


def write_clip(path: Path, frames: Sequence[Frame], fps: float = FPS) -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


class StreamServer(MjpegServer):
    """Plays frames in a loop, by the clock."""

    def __init__(self, frames: Sequence[Frame], fps: float = FPS) -> None:
        super().__init__(self._play)
        self._jpegs = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames]
        self._fps = fps
        self.start()

    def _play(self) -> Iterator[bytes]:
        while True:
            yield self._jpegs[int(time.monotonic() * self._fps) % len(self._jpegs)]
            time.sleep(1 / self._fps - time.monotonic() % (1 / self._fps))


def blank_frame(width: int = WIDTH, height: int = HEIGHT) -> Frame:
    return np.full((height, width, 3), 127, np.uint8)
