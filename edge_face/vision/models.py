"""dlib's networks: where their weights are, and who runs them.

`load` is the only place that knows the backends; all else sees the protocols of `interfaces`.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge_face import settings
from edge_face.errors import ModelError
from edge_face.vision.cache import ModelCache, cache_folder
from edge_face.vision.interfaces import Aligner, Detector, Encoder
from edge_face.vision.known_answer import self_test

if TYPE_CHECKING:
    from edge_face.vision.onnx_backend import Session

_log = logging.getLogger(__name__)

BACKENDS = ("onnxruntime", "opencv", "face_recognition")
"""Libraries that run the networks, the fastest first; the last one is dlib itself."""

CONVERTER_VERSION = 1
"""Counted up when onnx_build.py makes another model of the same weights: cached ones are then not used."""

LANDMARKS = "shape_predictor_5_face_landmarks.dat"
ENCODER = "dlib_face_recognition_resnet_model_v1.dat"
DETECTOR = "mmod_human_face_detector.dat"


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
    kinds: dict[str, Callable[[], Detector]] = {
        "yunet": lambda: _yunet(engine),
        "cnn": lambda: _cnn(backend, engine),
        "hog": _hog,
    }
    if engine.detector != "auto":
        return kinds[engine.detector]()
    if engine.yunet_model:
        try:
            return kinds["yunet"]()
        except ModelError as error:
            _log.error("the detector yunet is refused and another one taken: %s", error.message)
    return kinds["hog"]()


def _hog() -> Detector:
    from edge_face.vision.dlib_backend import HogDetector, hog_model

    library = importlib.util.find_spec("_dlib_pybind11")  # dlib's own code, which holds its detector
    if library is None or not library.origin:
        return HogDetector()
    return HogDetector(model_cache().get(Path(library.origin), hog_model))


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
