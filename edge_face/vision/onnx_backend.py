"""dlib's networks run by ONNX Runtime or by OpenCV's dnn module, from the converted models.

Both libraries are imported where they are first used: one that is missing, or kills the process, must not touch others.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

MAX_BATCH = 8
"""Faces in one run. More gain nothing on a CPU, and each needs some megabytes for the first layers' results."""


class Session(ABC):
    """A model that is loaded: one input, one output."""

    @abstractmethod
    def run(self, data: Floats) -> Floats:
        """Shape (n, 3, height, width), C-contiguous, to the model's output."""


class OrtSession(Session):
    def __init__(self, model: bytes, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only: it warns of every unusual CPU
        # The arena and the memory pattern keep the largest batch's memory for ever; without them it runs as fast.
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        # Threads that wait by spinning keep a core of the board busy between two faces.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def run(self, data: Floats) -> Floats:
        result: Floats = self._session.run(None, {self._input: data})[0]
        return result


class CvSession(Session):
    """Threads are those of `cv2.setNumThreads`."""

    def __init__(self, model: bytes) -> None:
        import cv2

        self._net: Any = cv2.dnn.readNetFromONNX(np.frombuffer(model, np.uint8))

    def run(self, data: Floats) -> Floats:
        self._net.setInput(data)
        result: Floats = self._net.forward()
        return result.copy()  # it is a view into the network's own memory, which the next run writes over


class OnnxEncoder:
    """dlib's face encoder, faces of one frame in one run."""

    def __init__(self, name: str, session: Session) -> None:
        self.name = name
        self._session = session

    def encode(self, chips: npt.NDArray[np.uint8]) -> Floats:
        """Face chips (n, 150, 150, 3) RGB to descriptors (n, 128)."""
        parts = [self._session.run(pixels(chips[at : at + MAX_BATCH])) for at in range(0, len(chips), MAX_BATCH)]
        return np.concatenate(parts) if parts else np.empty((0, 128), np.float32)


def pixels(images: npt.NDArray[np.uint8]) -> Floats:
    """Images (n, height, width, 3) as the models want them: float32, (n, 3, height, width), 0 to 255."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2), dtype=np.float32)
