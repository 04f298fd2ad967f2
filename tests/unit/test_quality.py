"""Quality on real photos: a worse picture gets a worse number, and enrolment is told why."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from edge_face.engine import Engine
from edge_face.events import Face, Quality
from edge_face.vision import quality
from tests.support.photos import Image, astronaut, hopper


def face_of(engine: Engine, image: Image) -> Face:
    return engine.still(np.ascontiguousarray(image))[0]


def test_good_photos_have_no_flaws(engine: Engine) -> None:
    for photo in (astronaut(), hopper()):
        assert face_of(engine, photo).flaws == ()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda _image: cv2.GaussianBlur(hopper(), (0, 0), 6), "blurred"),
        (lambda image: (image * 0.15).astype(np.uint8), "too dark"),
        (lambda image: (195 + image * 0.23).astype(np.uint8), "too bright"),
        (lambda image: cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA), "small"),
    ],
)
def test_each_flaw_is_named_with_its_number(engine: Engine, spoil: object, words: str) -> None:
    spoiled = spoil(astronaut())  # type: ignore[operator]
    flaws = " ".join(face_of(engine, spoiled).flaws)
    assert words in flaws
    assert any(char.isdigit() for char in flaws)


def test_a_mirrored_face_looks_the_other_way(engine: Engine) -> None:
    one, other = (face_of(engine, image).quality for image in (astronaut(), astronaut()[:, ::-1]))
    assert one.yaw == pytest.approx(-other.yaw, abs=0.08)


def test_a_tilted_head_is_measured(engine: Engine) -> None:
    turned = cv2.warpAffine(astronaut(), cv2.getRotationMatrix2D((220, 120), 20, 1.0), (512, 512))
    straight, tilted = (face_of(engine, image).quality.roll_deg for image in (astronaut(), turned))
    assert abs(tilted - straight) == pytest.approx(20, abs=5)


FINE = Quality(size_px=120, sharpness=90, brightness=120, contrast=40, yaw=0, pitch=0, roll_deg=0)


@pytest.mark.parametrize(
    "worse",
    [{"size_px": 50}, {"sharpness": 10}, {"contrast": 10}, {"yaw": 0.4}, {"yaw": -0.4}, {"pitch": 0.4}],
)
def test_a_worse_view_scores_less(worse: dict[str, float]) -> None:
    assert quality.score(replace(FINE, **worse)) < quality.score(FINE)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("off", "words"), [({"yaw": 0.31}, "side"), ({"pitch": -0.31}, "up or down"), ({"roll_deg": 36}, "tilted")]
)
def test_an_extreme_pose_is_refused(off: dict[str, float], words: str) -> None:
    assert words in " ".join(quality.flaws(replace(FINE, **off)))  # type: ignore[arg-type]
