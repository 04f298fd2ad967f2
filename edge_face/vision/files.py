"""The weights files of face_recognition_models 0.3.0: what each is for, who may use it, and its pinned content."""

from __future__ import annotations

from dataclasses import dataclass

from edge_face.errors import ModelError
from edge_face.vision.cache import sha256
from edge_face.vision.models import DETECTOR, ENCODER, LANDMARKS, weights


@dataclass(frozen=True, slots=True)
class WeightsFile:
    name: str
    purpose: str
    licence: str
    """After the README of github.com/davisking/dlib-models."""
    sha256: str
    used: bool
    converted: bool
    """Whether ONNX models are made from it."""

    def state(self) -> str:
        """`ok`, `missing` or `wrong` (another content than the pinned one)."""
        try:
            return "ok" if sha256(weights(self.name)) == self.sha256 else "wrong"
        except ModelError:
            return "missing"


FILES = (
    WeightsFile(
        ENCODER,
        "encodes faces",
        "public domain",
        "55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        used=True,
        converted=True,
    ),
    WeightsFile(
        LANDMARKS,
        "five landmarks, to align faces",
        "public domain",
        "c4b1e9804792707d3a405c2c16a80a20269e6675021f64a41d30fffafbc41888",
        used=True,
        converted=False,
    ),
    WeightsFile(
        DETECTOR,
        "finds faces (detector cnn)",
        "public domain",
        "4cb19393e2fbaf2b1609a9319ad5386618c886a6234ec1b971f3e87c85d87fe6",
        used=True,
        converted=True,
    ),
    WeightsFile(
        "shape_predictor_68_face_landmarks.dat",
        "68 landmarks",
        "non-commercial (iBUG 300-W), not used",
        "fbdc2cb80eb9aa7a758672cbfdda32ba6300efe9b6e6c7a299ff7e736b11b92f",
        used=False,
        converted=False,
    ),
)
