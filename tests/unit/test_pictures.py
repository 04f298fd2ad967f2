"""Bytes to pictures: the padding that rpicam-vid really writes, and MJPEG with all that may stand in between."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from edge_face.errors import CaptureError
from edge_face.pictures import MjpegSplitter, RawFormat, RawSplitter
from edge_face.programs import padded
from tests.support import film


def jpeg(value: int, thumbnail: bytes = b"") -> bytes:
    """A JPEG of noise, in which each byte value occurs; with an EXIF segment that holds another JPEG."""
    noise = np.random.default_rng(value).integers(0, 255, (48, 64, 3), np.uint8)
    file = io.BytesIO()
    exif = PIL.Image.Exif()
    if thumbnail:
        exif[0x9286] = thumbnail  # the user's comment: bytes of any kind
    PIL.Image.fromarray(noise).save(file, "JPEG", exif=exif)
    return file.getvalue()


@pytest.mark.parametrize(
    ("board", "width", "stride"),
    [
        (b"raspberrypi,4-model-b\0brcm,bcm2711\0", 780, 832),  # as reported of libcamera-vid
        (b"raspberrypi,4-model-b\0brcm,bcm2711\0", 1296, 1344),
        (b"raspberrypi,5-model-b\0brcm,bcm2712\0", 780, 896),
        (b"raspberrypi,5-model-b\0brcm,bcm2712\0", 1296, 1408),
        *((board, width, width) for board in (b"brcm,bcm2711\0", b"brcm,bcm2712\0") for width in (640, 1280, 1920)),
        (None, 800, 832),
    ],
)
def test_the_stride_of_each_raspberry_pi(tmp_path: Path, board: bytes | None, width: int, stride: int) -> None:
    if board:
        (tmp_path / "compatible").write_bytes(board)
    assert padded(width, tmp_path / "compatible") == stride


@pytest.mark.parametrize("stride", [780, 832, 896])
@pytest.mark.parametrize(
    ("name", "white", "black"),
    [  # BGR of Y = 235 and 16 with U = 110 and V = 150
        ("yuvj420p", (203, 225, 255), (0, 6, 47)),  # as in JPEG: R = Y + 1.402 (V - 128) ...
        ("yuv420p", (219, 244, 255), (0, 0, 35)),  # as on television: R = 1.164 (Y - 16) + 1.596 (V - 128) ...
    ],
)
def test_padded_yuv_becomes_the_picture_without_its_padding(
    name: str, white: tuple[int, ...], black: tuple[int, ...], stride: int
) -> None:
    format = RawFormat.of(name, 780, 360, stride)
    data = film.i420(0b1000000001, 780, 360, stride)
    assert format.length == len(data)
    image = format.decode(data)
    assert image.shape == (360, 780, 3)
    assert image.flags.c_contiguous
    assert film.number_of(image) == 0b1000000001
    assert image[0, 0] == pytest.approx(white, abs=2)
    assert image[0, -1] == pytest.approx(white, abs=2)  # next to the padding, which is green
    assert image[0, 390] == pytest.approx(black, abs=2)
    assert (image == image[0]).all()  # no line is shifted


def test_padded_bgr() -> None:
    row = bytes(range(30)) + b"\xff" * 2
    image = RawFormat.of("bgr24", 10, 4, 32).decode(row * 4)
    assert image.shape == (4, 10, 3)
    assert (image.reshape(4, 30) == np.arange(30)).all()


@pytest.mark.parametrize(
    ("name", "size", "stride"), [("yuv420p", (641, 480), 0), ("yuv420p", (640, 480), 600), ("bgr24", (640, 480), 640)]
)
def test_what_no_picture_can_be_is_refused(name: str, size: tuple[int, int], stride: int) -> None:
    with pytest.raises(CaptureError, match=r"\[camera\]"):
        RawFormat.of(name, *size, stride)


def test_raw_pictures_are_cut_wherever_the_bytes_came_apart() -> None:
    splitter = RawSplitter(RawFormat.of("bgr24", 16, 16))
    stream = b"".join(bytes((value,)) * 768 for value in range(9))
    found = []
    between = []
    for start in range(0, len(stream), 1000):
        between.append(splitter.between)
        found += splitter.add(stream[start : start + 1000])
    assert [picture[0] for picture in found] == list(range(9))
    assert {len(picture) for picture in found} == {768}
    assert between == [True] + [False] * 6
    assert splitter.between


@pytest.mark.parametrize("step", [1, 7, 1000, 1 << 20])
def test_each_jpeg_is_found(step: int) -> None:
    """One after the other, in a multipart stream, with a thumbnail inside, after garbage, after half of another one."""
    pictures = [jpeg(1), jpeg(2), jpeg(3, thumbnail=jpeg(4)), jpeg(5), jpeg(6)]
    head = b"\r\n--frame\r\nContent-Type: image/jpeg\r\n\r\n"
    noise = bytes(range(200)) + b"\xff\xd8 \xff\xff\xd9"
    parts = [pictures[0], pictures[1], head, pictures[2], noise, pictures[3], jpeg(7)[:900], pictures[4], b"\n"]
    stream = b"".join(parts)
    splitter = MjpegSplitter()
    found = [picture for at in range(0, len(stream), step) for picture in splitter.add(stream[at : at + step])]
    assert found == pictures
    assert splitter.between
    for data in found:
        image = splitter.decode(data)
        assert image is not None
        assert image.shape == (48, 64, 3)
    assert splitter.decode(b"\xff\xd8\xff\xd9") is None


def test_what_is_no_mjpeg_is_refused_and_not_kept() -> None:
    splitter = MjpegSplitter()
    for _ in range(60):
        splitter.add(bytes(1 << 16))
    assert len(splitter._buffer) < 10
    with pytest.raises(CaptureError, match="no MJPEG"):
        splitter.add(bytes(1 << 20))
    endless = MjpegSplitter()
    endless.add(jpeg(1)[:900])
    with pytest.raises(CaptureError, match="no MJPEG"):
        endless.add(bytes(65 << 20))
