"""Photos as people send them: every format, every damage."""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edge_face.errors import ImageError
from edge_face.photos import decode
from tests.support.photos import astronaut


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


SMALL = Image.fromarray(astronaut()).resize((64, 48))


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"])
def test_common_formats(format: str) -> None:
    pixels = decode(encoded(SMALL, format)).pixels
    assert pixels.shape == (48, 64, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert np.abs(pixels.astype(int) - np.asarray(SMALL)).mean() < 12


def test_exif_orientation_is_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    turned = SMALL.transpose(Image.Transpose.ROTATE_90)
    pixels = decode(encoded(turned, "JPEG", exif=exif, quality=95)).pixels
    assert pixels.shape == (48, 64, 3)
    assert np.abs(pixels.astype(int) - np.asarray(SMALL)).mean() < 12


@pytest.mark.parametrize(
    ("mode", "format"), [("L", "PNG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG"), ("1", "PNG")]
)
def test_other_modes(mode: str, format: str) -> None:
    assert decode(encoded(SMALL.convert(mode), format)).pixels.shape == (48, 64, 3)


def test_sixteen_bits_of_grey_keep_their_contrast() -> None:
    grey = np.asarray(SMALL.convert("L"), dtype=np.uint16) * 257
    pixels = decode(encoded(Image.fromarray(grey), "PNG")).pixels
    assert np.abs(pixels[:, :, 0].astype(int) - np.asarray(SMALL.convert("L"))).max() <= 12


def test_transparency_becomes_white() -> None:
    assert (decode(encoded(Image.new("RGBA", (8, 8), (0, 0, 0, 0)), "PNG")).pixels == 255).all()


def test_an_animation_is_its_first_picture() -> None:
    data = encoded(
        Image.new("RGB", (8, 8), "red"), "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), "blue")]
    )
    assert tuple(decode(data).pixels[0, 0]) == (255, 0, 0)


@pytest.mark.parametrize("data", [b"", b"hello", encoded(SMALL, "PNG")[:60], encoded(SMALL, "JPEG")[:200]])
def test_what_is_no_whole_picture_is_refused(data: bytes) -> None:
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert caught.value.code == "bad_image"
    assert caught.value.message.endswith(".")


def test_heic_is_refused_by_name() -> None:
    with pytest.raises(ImageError, match="HEIC"):
        decode(b"\0\0\0\x18ftypheic" + b"\0" * 40)


def test_a_png_bomb_is_refused_by_its_header() -> None:
    """100,000 x 100,000 pixels in a few bytes."""
    header = (100_000).to_bytes(4, "big") * 2 + b"\x08\x02\0\0\0"
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 1000)), (b"IEND", b"")]
    body = b"".join(
        len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big") for name, data in chunks
    )
    with pytest.raises(ImageError) as caught:
        decode(b"\x89PNG\r\n\x1a\n" + body)
    assert caught.value.code == "too_large"
