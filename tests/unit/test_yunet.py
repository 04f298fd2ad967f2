"""YuNet with the real model file where it is, and what is said where it is not."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_face import config, settings
from edge_face.engine import Engine
from edge_face.errors import ModelError
from edge_face.settings import YUNET_FILE
from edge_face.vision import models
from edge_face.vision.dlib_backend import HogDetector
from edge_face.vision.yunet import YunetDetector
from tests.support.photos import Image, astronaut, blank, hopper, side_by_side


@pytest.fixture(scope="module")
def file(data: Path) -> Path:
    path = data / "models" / YUNET_FILE
    if not path.is_file():
        pytest.skip(f"YuNet's model file is not at {path}")
    return path


@pytest.fixture(scope="module")
def yunet(file: Path) -> YunetDetector:
    return YunetDetector(file)


def resized(image: Image, factor: float) -> Image:
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def test_boxes_are_like_those_of_hog(yunet: YunetDetector) -> None:
    hog = HogDetector()
    for image in (astronaut(), hopper()):
        expected = max(hog.detect(image), key=lambda found: found.confidence).box
        (found,) = yunet.detect(image)
        assert found.box.iou(expected) > 0.7
        assert abs(found.box.width - found.box.height) <= 1


def test_encodings_are_like_those_from_boxes_of_hog(yunet: YunetDetector, loaded_models: models.Models) -> None:
    hog = HogDetector()
    for image in (astronaut(), hopper()):
        boxes = [max(each.detect(image), key=lambda found: found.confidence).box for each in (hog, yunet)]
        chips = np.stack([loaded_models.aligner.align(image, box).chip for box in boxes])
        one, other = loaded_models.encoder.encode(chips)
        assert np.linalg.norm(one - other) < 0.15


@pytest.mark.parametrize("factor", [0.5, 1.0, 3.0, 6.0])
def test_small_and_very_large_faces_are_found(factor: float, yunet: YunetDetector) -> None:
    whole = yunet.detect(hopper())[0].box
    (found,) = yunet.detect(resized(hopper(), factor))
    assert found.box.width == pytest.approx(whole.width * factor, rel=0.2)


def test_faces_are_found_from_the_promised_size_on(yunet: YunetDetector) -> None:
    for image in (astronaut(), hopper()):
        small = resized(image, yunet.smallest_px / yunet.detect(image)[0].box.width)
        for offset in range(0, 32, 5):
            moved = cv2.copyMakeBorder(small, offset, 0, 31 - offset, 0, cv2.BORDER_REPLICATE)
            assert len(yunet.detect(np.asarray(moved, dtype=np.uint8))) == 1


def test_two_people_nobody_and_tiny_pictures(yunet: YunetDetector) -> None:
    assert len(yunet.detect(side_by_side(astronaut(), hopper()))) == 2
    assert yunet.detect(blank()) == []
    for shape in ((0, 5), (1, 1), (700, 1), (3, 9)):
        assert yunet.detect(np.zeros((*shape, 3), np.uint8)) == []


USED_HEAP = """
import sys, pathlib
import numpy as np
from edge_face.vision.yunet import YunetDetector
for _ in range(60):
    used = [np.full(64 * blocks, 1e6, np.float32) for blocks in range(1, 300) for _ in range(2)]
    del used
    detector = YunetDetector(pathlib.Path(sys.argv[1]))
    for shape in ((1, 300), (32, 300), (300, 32), (9, 3), (700, 1)):
        assert detector.detect(np.zeros((*shape, 3), np.uint8)) == [], shape
"""


def test_no_faces_come_from_memory_that_was_never_written(file: Path) -> None:
    """As OpenCV finds them in pictures with a side of up to 32 pixels, in a process whose heap has been used."""
    ended = subprocess.run([sys.executable, "-c", USED_HEAP, file], check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


def test_turning_faces_of_a_poor_clip_are_found_on_the_reduced_frame(file: Path, data: Path) -> None:
    clip = cv2.VideoCapture(str(data / "video" / "two-faces-turning.gif"))
    engine = Engine(
        models.load(settings.Engine(detector="yunet", yunet_model=str(file))), settings.Engine(), max_age_s=1e6
    )
    found = frames = 0
    while True:
        there, frame = clip.read()
        if not there:
            break
        frames += 1
        found += bool(engine.process(np.asarray(frame, dtype=np.uint8), frames / 30)[0])
    assert frames > 30
    assert found >= 0.85 * frames  # some of them measure less than 0.9 of min_face


@pytest.mark.parametrize("clip", ["people-from-behind-no-face.mp4", "hands-no-face.mp4"])
def test_nobody_is_seen_where_nobody_shows_a_face(clip: str, file: Path, data: Path) -> None:
    video = cv2.VideoCapture(str(data / "video" / clip))
    engine = Engine(
        models.load(settings.Engine(detector="yunet", yunet_model=str(file))), settings.Engine(), max_age_s=1e6
    )
    for number in range(600):
        there, frame = video.read()
        if not there:
            break
        if number % 5 == 0:
            assert engine.process(np.asarray(frame, dtype=np.uint8), number / 30)[0] == ()


def test_auto_takes_it_where_the_file_is(file: Path) -> None:
    loaded = models.load(settings.Engine(yunet_model=str(file)))
    assert loaded.detector.name == "yunet"
    engine = Engine(loaded, settings.Engine(), max_age_s=1e6)
    assert engine.scale == 0.625
    faces, _ = engine.process(np.ascontiguousarray(side_by_side(astronaut(), hopper())[:, :, ::-1]), 0.0)
    assert len(faces) == 2


def test_a_file_with_other_content_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / YUNET_FILE
    wrong.write_bytes(b"something else")
    with pytest.raises(ModelError, match=r"is not the YuNet model.*scripts/get-yunet"):
        models.load(settings.Engine(detector="yunet", yunet_model=str(wrong)))
    with pytest.raises(ModelError, match=r"cannot be read: No such file"):
        models.load(settings.Engine(detector="yunet", yunet_model=str(tmp_path / "none")))
    with pytest.raises(ModelError, match=rf"needs its model file: models/{YUNET_FILE}"):
        models.load(settings.Engine(detector="yunet"))


def test_auto_does_without_a_wrong_file_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wrong = tmp_path / YUNET_FILE
    wrong.write_bytes(b"something else")
    assert models.load(settings.Engine(yunet_model=str(wrong))).detector.name == "hog"
    assert [record.levelno for record in caplog.records if "yunet is refused" in record.message] == [logging.ERROR]


def test_what_auto_is_without_the_file() -> None:
    assert models.load(settings.Engine()).detector.name == "hog"
    assert models.load(settings.Engine(backend="face_recognition", detector="cnn")).detector.name == "cnn"


def test_the_file_beside_the_configuration_is_found(tmp_path: Path) -> None:
    ini = tmp_path / "config.ini"
    ini.write_text("[engine]\n")
    assert config.load(ini, {}).engine.yunet_model == ""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / YUNET_FILE).touch()
    assert config.load(ini, {}).engine.yunet_model == str(tmp_path / "models" / YUNET_FILE)
    ini.write_text("[engine]\nyunet_model = other.onnx\n")
    assert config.load(ini, {}).engine.yunet_model == str(tmp_path / "other.onnx")
