"""The demo's camera: two people walk up, stay a moment and leave, made from photographs that installed packages ship.

Both are portraits by NASA and the US Navy, in the public domain: Eileen Collins (scikit-image) and Grace Hopper
(matplotlib). One is enrolled by `edge-face demo`, the other stays a stranger.
"""

from __future__ import annotations

import importlib.util
import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import PIL.Image

from edge_face.capture import Grab, Pace
from edge_face.errors import CaptureError
from edge_face.images import BgrImage

if TYPE_CHECKING:
    from edge_face.clock import Clock

NAME = "Eileen Collins"
WIDTH, HEIGHT = 640, 480
FPS = 12

EMPTY_AT_START_S = 2.0
WALK_S = 1.0  # into the picture, and out of it
STAY_S = 6.0
EMPTY_S = 7.0  # longer than presence_timeout, so that each visit ends
_VISIT_S = 2 * WALK_S + STAY_S

_NOISE_MARGIN = 64


@dataclass(frozen=True, slots=True)
class _Portrait:
    """A photograph, and where dlib's frontal detector finds the face in it (pixels)."""

    package: str
    file: str
    face_x: float
    face_y: float
    face_width: float


_COLLINS = _Portrait("skimage", "data/astronaut.png", 222, 126, 88)
_COLLINS_HEAD = (72, 0, 372, 300)
_HOPPER = _Portrait("matplotlib", "mpl-data/sample_data/grace_hopper.jpg", 268, 244, 215)


def _load(portrait: _Portrait) -> PIL.Image.Image:
    """The file itself, without importing the package: that takes seconds on a small board."""
    spec = importlib.util.find_spec(portrait.package)
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / portrait.file
        if path.is_file():
            with PIL.Image.open(path) as image:
                return image.convert("RGB")
    raise CaptureError(
        f"the demo needs a photograph from the package {portrait.package}, which is not installed: "
        "install edge-face with its extra demo (edge-face[demo])"
    )


def enrolment_photo() -> bytes:
    """A JPEG of the person the demo enrols, NAME. Raises CaptureError without the extra `demo`."""
    buffer = io.BytesIO()
    # Head and shoulders: in the folds of her suit dlib's frontal detector sometimes sees a second face.
    _load(_COLLINS).crop(_COLLINS_HEAD).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _smooth(part: float) -> float:
    """0 to 1 with a soft start and a soft end."""
    part = min(1.0, max(0.0, part))
    return part * part * (3 - 2 * part)


class DemoScene:
    """The clip as a pure function: `frame(index)` always gives the same picture for the same index."""

    def __init__(self, fps: float = FPS) -> None:
        """Raises CaptureError when a photograph is not installed."""
        self._fps = fps
        self._people = tuple(
            (portrait, np.ascontiguousarray(np.asarray(_load(portrait), dtype=np.uint8)[:, :, ::-1]))
            for portrait in (_COLLINS, _HOPPER)
        )
        shade = np.linspace(168, 132, HEIGHT, dtype=np.float32)[:, None, None]
        wall = shade * np.array((0.96, 1.0, 1.02), np.float32)
        self._wall = np.ascontiguousarray(np.broadcast_to(wall, (HEIGHT, WIDTH, 3)).astype(np.uint8))
        # Noise is drawn once, larger than a frame; each frame looks at another part of it.
        size = (HEIGHT + _NOISE_MARGIN, WIDTH + _NOISE_MARGIN, 3)
        noise = np.random.default_rng(20).normal(0, 2, size).round()
        self._brighter = np.clip(noise, 0, 255).astype(np.uint8)
        self._darker = np.clip(-noise, 0, 255).astype(np.uint8)

    def person_at(self, index: int) -> tuple[int, float] | None:
        """Who is there (0: the enrolled person, 1: the stranger) and for how many seconds already; None: nobody."""
        since = index / self._fps - EMPTY_AT_START_S
        if since < 0:
            return None
        visit, second = divmod(since, _VISIT_S + EMPTY_S)
        return (int(visit) % 2, second) if second < _VISIT_S else None

    def frame(self, index: int) -> BgrImage:
        """(480, 640, 3) uint8 BGR."""
        image = self._wall.copy()
        present = self.person_at(index)
        if present is not None:
            self._draw(image, *present)
        second = index / self._fps
        gain = 1 + 0.03 * math.sin(second * 0.9) + 0.01 * math.sin(second * 5.3)  # clouds, and a lamp
        cv2.convertScaleAbs(image, image, gain)
        left, top = index * 37 % _NOISE_MARGIN, index * 23 % _NOISE_MARGIN
        cv2.add(image, self._brighter[top : top + HEIGHT, left : left + WIDTH], image)
        cv2.subtract(image, self._darker[top : top + HEIGHT, left : left + WIDTH], image)
        return image

    def _draw(self, image: BgrImage, who: int, second: float) -> None:
        """In from the right, nearer while standing there (and swaying a little), out to the left."""
        portrait, photo = self._people[who]
        near = _smooth((second - WALK_S / 2) / (WALK_S + STAY_S))
        zoom = (118 + 42 * near) / portrait.face_width
        sway_x, sway_y = 9 * math.sin(second * 1.7), 4 * math.sin(second * 2.9)
        walk_in, walk_out = _smooth(second / WALK_S), _smooth((second - WALK_S - STAY_S) / WALK_S)
        away = WIDTH / 2 + zoom * photo.shape[1] * 0.6
        x = WIDTH / 2 + sway_x + (1 - walk_in) * away - walk_out * away
        # The photo's lower edge stays at or below the picture's, so that nobody floats.
        y = max(215.0, HEIGHT + 4 - zoom * (photo.shape[0] - portrait.face_y)) + sway_y
        matrix = np.array(((zoom, 0, x - zoom * portrait.face_x), (0, zoom, y - zoom * portrait.face_y)), np.float32)
        cv2.warpAffine(
            photo, matrix, (WIDTH, HEIGHT), dst=image, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_TRANSPARENT
        )


class DemoSource:
    """The scene at FPS, without an end. To everything behind it, it is a camera."""

    live = True
    patient = False

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._scene = DemoScene()
        self._pace = Pace(clock, FPS)
        self._index = 0
        self.description = f"the built-in demo, {WIDTH}x{HEIGHT}, {FPS} fps"

    def read(self) -> Grab:
        skipped = self._pace.behind()
        self._pace.wait()
        self._index += skipped
        grabbed_at, timestamp = self._clock.monotonic(), self._clock.wall()
        image = self._scene.frame(self._index)
        self._index += 1
        return Grab(image, grabbed_at, timestamp, skipped)

    def close(self) -> None:
        """Nothing is held."""
