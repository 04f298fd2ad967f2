"""What every stage of the engine answers on this processor, as JSON, to be compared with another's.

python -m tests.support.answers DETECTOR [YUNET-FILE]
"""

from __future__ import annotations

import dataclasses
import json
import sys

import cv2
import numpy as np

from edge_face import photos, settings
from edge_face.engine import Engine
from edge_face.vision import models
from tests.support.photos import Image, astronaut, hopper, jpeg

BACKENDS = {"hog": ("onnxruntime", "face_recognition"), "cnn": ("opencv",), "yunet": ("onnxruntime",)}
"""Each backend, and each detector."""


def frames() -> list[Image]:
    """Eileen, twice in a picture that moves, so that she is followed; then Grace. BGR, as cameras deliver it."""
    decoded = [photos.decode(jpeg(photo)).pixels[:, :, ::-1] for photo in (astronaut(), hopper())]
    eileen, grace = (cv2.copyMakeBorder(photo, 8, 8, 8, 8, cv2.BORDER_REPLICATE) for photo in decoded)
    return [np.asarray(frame, dtype=np.uint8) for frame in (eileen, np.roll(eileen, (4, 8), (0, 1)), grace)]


def answers(options: settings.Engine) -> list[dict[str, object]]:
    # However slow this is, no frame is too old: less is searched in one that would be.
    engine = Engine(models.load(options), options, max_age_s=1e6)
    return [
        {
            "frame": number,
            "track": face.track,
            "box": dataclasses.astuple(face.box),
            "confidence": face.confidence,
            "encoding": None if face.encoding is None else face.encoding.tolist(),
            "quality": None if face.quality is None else dataclasses.astuple(face.quality),
        }
        for number, frame in enumerate(frames())
        for face in engine.process(frame, number / 10)[0]
    ]


def main(detector: str, yunet: str = "") -> None:
    options = (settings.Engine(backend=name, detector=detector, yunet_model=yunet) for name in BACKENDS[detector])
    json.dump({each.backend: answers(each) for each in options}, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
