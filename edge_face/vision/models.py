"""dlib's networks: where their weights are, who runs them, and a self-test with known answers.

`load` is the only place that knows the backends; all else sees the protocols `Detector`, `Aligner` and `Encoder`.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from edge_face import settings
from edge_face.errors import ModelError
from edge_face.events import Box
from edge_face.vision.cache import ModelCache, cache_folder
from edge_face.vision.known_answer import KNOWN_ANSWER

if TYPE_CHECKING:
    from edge_face.vision.onnx_backend import Session

_log = logging.getLogger(__name__)

RgbImage = npt.NDArray[np.uint8]
"""Shape (height, width, 3), RGB, C-contiguous."""

BACKENDS = ("onnxruntime", "opencv", "face_recognition")
"""Libraries that run the networks, the fastest first; the last one is dlib itself."""

CONVERTER_VERSION = 1
"""Counted up when onnx_build.py makes another model of the same weights: cached ones are then not used."""

_TOLERANCE = 1e-4
"""L2. The converted networks are within 3e-6 on x86-64 and aarch64; half precision, or other weights, are not."""

LANDMARKS = "shape_predictor_5_face_landmarks.dat"
ENCODER = "dlib_face_recognition_resnet_model_v1.dat"
DETECTOR = "mmod_human_face_detector.dat"

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

    def detect(self, image: RgbImage, min_face: float = 0, max_face: float = 0) -> list[Detection]:
        """Faces in the picture. Only those of min_face to max_face pixels (0: any) are wanted, others may be found."""


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
    encode_ms: float = 0.0
    """Milliseconds for one face, as the self-test took them."""
    refused: tuple[tuple[str, str], ...] = ()
    """Backends that were tried before and failed, with the reason as a sentence."""


def weights(name: str) -> Path:
    """Path of a weights file. The package that ships it is found, not imported: its import needs pkg_resources."""
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("The package face_recognition_models, which holds dlib's weights, is not installed.")
    path = Path(spec.submodule_search_locations[0]) / "models" / name
    if not path.is_file():
        raise ModelError(f"The weights file {path} is missing; install face_recognition_models again.")
    return path


def load(engine: settings.Engine, skip: Collection[str] = (), trying: Callable[[str], object] | None = None) -> Models:
    """The models that the configuration asks for, after they have proved that they answer rightly. Raises ModelError.

    With `[engine] backend = auto` a backend that fails is refused and the next one tried; those in `skip` are not even
    tried, because they killed a process. `trying` is told each backend before it is touched.
    """
    from edge_face.vision.dlib_backend import DlibAligner

    auto = engine.backend == "auto"
    aligner = DlibAligner(weights(LANDMARKS))
    refused: list[tuple[str, str]] = []
    for backend in BACKENDS if auto else (engine.backend,):
        if auto and backend in skip:
            continue
        if trying:
            trying(backend)
        try:
            encoder = _encoder(backend, engine)
            encode_ms = self_test(encoder)
            detector = _detector(backend, engine)
        except Exception as error:  # whatever a library does on a board that nobody has tried it on
            reason = _reason(error)
            if not auto:
                raise ModelError(f"The backend {backend} cannot be used: {reason}") from error
            if isinstance(error, ModuleNotFoundError) and error.name == backend:
                _log.info("the backend %s is not installed", backend)
                continue
            _log.error("the backend %s is refused and the next one tried: %s", backend, reason)
            refused.append((backend, reason))
        else:
            return Models(backend, detector, aligner, encoder, encode_ms, tuple(refused))
    reasons = [
        *refused,
        *((backend, "It killed the process that tried it.") for backend in BACKENDS if backend in skip),
    ]
    raise ModelError(" ".join(["No backend works on this machine.", *(f"{name}: {why}" for name, why in reasons)]))


def thread_count(engine: settings.Engine) -> int:
    """Threads for one process's image work."""
    return engine.threads or max(1, (os.cpu_count() or 2) // 2)


def model_cache() -> ModelCache:
    return ModelCache(cache_folder(), CONVERTER_VERSION)


def open_session(backend: str, engine: settings.Engine, model: bytes) -> Session:
    """An ONNX model in the hands of `onnxruntime` or `opencv`."""
    from edge_face.vision.onnx_backend import CvSession, OrtSession

    return OrtSession(model, thread_count(engine)) if backend == "onnxruntime" else CvSession(model)


def convert_encoder(content: bytes, name: str) -> bytes:
    """dlib's encoder, a weights file's content, as ONNX. Imports `onnx`, which a start with a full cache never does."""
    from edge_face.vision.onnx_build import encoder_model
    from edge_face.vision.weights import parse_encoder

    return encoder_model(parse_encoder(content, name))


def _encoder(backend: str, engine: settings.Engine) -> Encoder:
    from edge_face.vision.dlib_backend import DlibEncoder
    from edge_face.vision.onnx_backend import OnnxEncoder

    path = weights(ENCODER)
    if backend == "face_recognition":
        return DlibEncoder(path)
    return OnnxEncoder(backend, open_session(backend, engine, model_cache().get(path, convert_encoder)))


def _detector(backend: str, engine: settings.Engine) -> Detector:
    """The one that is named. `auto`: YuNet where the user has its file, else HOG, which costs a third of the CNN.

    With `auto` a YuNet that cannot be used is logged and HOG taken. Raises ModelError, or whatever a backend does.
    """
    from edge_face.vision.dlib_backend import HogDetector

    kinds: dict[str, Callable[[], Detector]] = {
        "yunet": lambda: _yunet(engine),
        "cnn": lambda: _cnn(backend, engine),
        "hog": HogDetector,
    }
    if engine.detector != "auto":
        return kinds[engine.detector]()
    if engine.yunet_model:
        try:
            return kinds["yunet"]()
        except ModelError as error:
            _log.error("the detector yunet is refused and another one taken: %s", error.message)
    return kinds["hog"]()


def _yunet(engine: settings.Engine) -> Detector:
    from edge_face.vision.yunet import YunetDetector

    if not engine.yunet_model:
        raise ModelError(
            f"The detector yunet needs its model file: models/{settings.YUNET_FILE} beside config.ini, or the one that "
            "[engine] yunet_model names. scripts/get-yunet fetches it."
        )
    return YunetDetector(Path(engine.yunet_model))


def _cnn(backend: str, engine: settings.Engine) -> Detector:
    path = weights(DETECTOR)
    if backend == "face_recognition":
        from edge_face.vision.dlib_backend import DlibCnnDetector

        return DlibCnnDetector(path)
    from edge_face.vision import cnn
    from edge_face.vision.weights import read_detector

    session = open_session(backend, engine, model_cache().get(path, cnn.convert))
    return cnn.CnnDetector(session, read_detector(path))


def _reason(error: Exception) -> str:
    if isinstance(error, ModelError):
        return error.message
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no more is known'}"


def test_chip() -> RgbImage:
    """A fixed picture that depends on nothing but this code: three plane waves, one per channel."""
    y, x = np.mgrid[0:CHIP_SIZE, 0:CHIP_SIZE].astype(np.float64)
    waves = [np.sin(x / 7.0), np.sin(y / 11.0), np.sin((x + y) / 17.0)]
    return np.stack([np.rint(127.5 + 100.0 * wave) for wave in waves], axis=-1).astype(np.uint8)


def self_test(encoder: Encoder) -> float:
    """Refuse an encoder that is wrong on this machine (a GPU build once returned NaN for all). Raises ModelError.

    The test chip must get dlib's own answer, also as the second of two in one run, and its mirror image the same answer
    alone and in company. Returns milliseconds for one face.
    """
    chip = test_chip()
    mirrored = np.ascontiguousarray(chip[:, ::-1])
    pair = encoder.encode(np.stack([mirrored, chip]))
    if pair.shape != (2, 128) or not np.isfinite(pair).all():
        raise ModelError(f"The {encoder.name} encoder returns no numbers on this machine.")
    known = np.array(KNOWN_ANSWER)
    length, wanted = float(np.linalg.norm(pair[1])), float(np.linalg.norm(known))
    if abs(length - wanted) > _TOLERANCE:
        raise ModelError(
            f"The {encoder.name} encoder fails its known-answer test on this machine: its vector has the length "
            f"{length:.4f}, not {wanted:.4f}."
        )
    error = float(np.linalg.norm(pair[1] - known))
    if error > _TOLERANCE:
        raise ModelError(
            f"The {encoder.name} encoder fails its known-answer test on this machine (off by {error:.2g})."
        )
    begin = time.perf_counter()
    alone = encoder.encode(mirrored[np.newaxis])
    took_ms = (time.perf_counter() - begin) * 1000
    error = float(np.linalg.norm(alone[0] - pair[0]))
    if not error <= _TOLERANCE:
        raise ModelError(f"The {encoder.name} encoder answers differently for one face and for two (by {error:.2g}).")
    return took_ms
