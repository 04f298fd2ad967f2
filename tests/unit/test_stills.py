"""Several photos at once get the answers that each alone gets."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from edge_face import stills
from edge_face.images import RgbImage
from edge_face.vision.interfaces import Encoder
from edge_face.vision.models import Models
from tests.support.photos import astronaut, hopper, side_by_side


def rgb(bgr: RgbImage) -> RgbImage:
    return np.ascontiguousarray(bgr[:, :, ::-1])


@dataclass
class Counted:
    """An encoder that counts how many faces each run had."""

    inner: Encoder
    name: str = "counted"
    runs: list[int] = field(default_factory=list)

    def encode(self, chips: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        self.runs.append(len(chips))
        return self.inner.encode(chips)


def test_photos_at_once_are_as_one_by_one_and_encoded_in_one_run(loaded_models: Models) -> None:
    eileen, grace = rgb(astronaut()), rgb(hopper())
    nobody, strip = np.full((300, 400, 3), 90, np.uint8), np.zeros((4, 4000, 3), np.uint8)
    both = rgb(side_by_side(astronaut(), astronaut()[:, ::-1]))
    photos = [eileen, nobody, both, strip, grace]
    counted = Counted(loaded_models.encoder)
    together = stills.faces(replace(loaded_models, encoder=counted), photos, 0.5)
    assert counted.runs == [4]
    assert [len(faces) for faces in together] == [1, 0, 2, 0, 1]
    for photo, faces in zip(photos, together, strict=True):
        (alone,) = stills.faces(loaded_models, [photo], 0.5)
        for face, expected in zip(faces, alone, strict=True):
            assert (face.box, face.confidence, face.quality) == (expected.box, expected.confidence, expected.quality)
            assert np.linalg.norm(face.encoding - expected.encoding) < 1e-5


def test_without_anybody_nothing_is_encoded(loaded_models: Models) -> None:
    counted = Counted(loaded_models.encoder)
    models = replace(loaded_models, encoder=counted)
    assert stills.faces(models, []) == []
    assert stills.faces(models, [np.full((300, 400, 3), 90, np.uint8)]) == [()]
    assert counted.runs == []
