"""dlib's networks: where their weights are, who runs them, and a self-test with known answers.

`load` is the only place that knows the backends; all else sees the protocols `Detector`, `Aligner` and `Encoder`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from edge_face import settings
from edge_face.errors import ModelError
from edge_face.events import Box

T = TypeVar("T")

RgbImage = npt.NDArray[np.uint8]
"""Shape (height, width, 3), RGB, C-contiguous."""

LANDMARKS = "shape_predictor_5_face_landmarks.dat"
ENCODER = "dlib_face_recognition_resnet_model_v1.dat"

CHIP_SIZE = 150
CHIP_PADDING = 0.25
"""What dlib's `compute_face_descriptor` cuts out before it encodes (dlib, face_recognition.cpp)."""


@dataclass(frozen=True, slots=True)
class Detection:
    """A face's box in pixels of the searched picture, and the detector's own score."""

    box: Box
    confidence: float


class Detector(Protocol):
    name: str
    smallest_px: int
    """Width of the smallest face that is reliably found in a picture searched at its own size."""

    def detect(self, image: RgbImage) -> list[Detection]: ...


class Aligned(NamedTuple):
    """`chip`: the upright face, (150, 150, 3) RGB; `landmarks`: eye corners and nose, (5, 2), in picture pixels."""

    chip: RgbImage
    landmarks: npt.NDArray[np.float64]


class Aligner(Protocol):
    def align(self, image: RgbImage, box: Box) -> Aligned: ...


class Encoder(Protocol):
    name: str

    def encode(self, chips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Face chips (n, 150, 150, 3) RGB to descriptors (n, 128)."""


@dataclass(frozen=True, slots=True)
class Models:
    backend: str
    detector: Detector
    aligner: Aligner
    encoder: Encoder


def weights(name: str) -> Path:
    """Path of a weights file. The package that ships it is found, not imported: its import needs pkg_resources."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("The package face_recognition_models, which holds dlib's weights, is not installed.")
    path = Path(spec.submodule_search_locations[0]) / "models" / name
    if not path.is_file():
        raise ModelError(f"The weights file {path} is missing; install face_recognition_models again.")
    return path


def load(engine: settings.Engine) -> Models:
    """Load the models that the configuration asks for and prove that they answer rightly. Raises ModelError."""
    from edge_face.vision import dlib_backend

    encoders: dict[str, Callable[[Path], Encoder]] = {"face_recognition": dlib_backend.DlibEncoder}
    detectors: dict[str, Callable[[], Detector]] = {"hog": dlib_backend.HogDetector}
    backend, encoder = _choose(encoders, engine.backend)
    _, detector = _choose(detectors, engine.detector)
    models = Models(backend, detector(), dlib_backend.DlibAligner(weights(LANDMARKS)), encoder(weights(ENCODER)))
    self_test(models.encoder)
    return models


def _choose(kinds: Mapping[str, T], wanted: str) -> tuple[str, T]:
    """The kind asked for; `auto` is the first one."""
    name = next(iter(kinds)) if wanted == "auto" else wanted
    return name, kinds[name]


def test_chip() -> RgbImage:
    """A fixed picture that depends on nothing but this code: three plane waves, one per channel."""
    y, x = np.mgrid[0:CHIP_SIZE, 0:CHIP_SIZE].astype(np.float64)
    waves = [np.sin(x / 7.0), np.sin(y / 11.0), np.sin((x + y) / 17.0)]
    return np.stack([np.rint(127.5 + 100.0 * wave) for wave in waves], axis=-1).astype(np.uint8)


KNOWN_ANSWER = (-0.07951, 0.11235, 0.06669, -0.05378, -0.10617, -0.01454, -0.08379, 0.01164)
"""The first numbers of the test chip's descriptor, from dlib 20.0.1 on x86-64."""


def self_test(encoder: Encoder) -> None:
    """Refuse an encoder that is wrong on this machine (a GPU build once returned NaN for all). Raises ModelError."""
    encodings = encoder.encode(test_chip()[np.newaxis])
    if encodings.shape != (1, 128) or not np.isfinite(encodings).all():
        raise ModelError(f"The {encoder.name} encoder returns no numbers on this machine.")
    error = float(np.abs(encodings[0, : len(KNOWN_ANSWER)] - np.array(KNOWN_ANSWER)).max())
    if error > 1e-3:
        raise ModelError(
            f"The {encoder.name} encoder fails its known-answer test on this machine (off by {error:.2g})."
        )
