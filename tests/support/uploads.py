"""Files as people upload them, good and bad, and what is right for each."""

from __future__ import annotations

import io
import random
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import cv2
import numpy as np
from PIL import Image
from PIL.ExifTags import Base

from tests.support.photos import astronaut, hopper, side_by_side

TURNED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""How a picture lies in a file whose EXIF gives this orientation."""


@dataclass(frozen=True, eq=False)
class Sample:
    """`enrol` is the error's code when it is enrolled (empty: it is enrolled as Eileen), `recognise` when it is only
    judged; `faces` how many are found then. `words`: what the message must say.
    """

    name: str
    data: bytes
    enrol: str = ""
    recognise: str = ""
    faces: int = 1
    words: str = ""


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def turned(image: Image.Image, orientation: int, format: str) -> bytes:
    """As a camera stores it that was held that way: the pixels as they came, and EXIF that says so."""
    exif = Image.Exif()
    exif[Base.Orientation] = orientation
    way = TURNED[orientation]
    return encoded(image if way is None else image.transpose(way), format, exif=exif)


def png(size: tuple[int, int], *extra: tuple[bytes, bytes], pixels: bytes = b"\0" * 1000) -> bytes:
    """A grey PNG with more chunks; `pixels` may be too few."""
    header = size[0].to_bytes(4, "big") + size[1].to_bytes(4, "big") + b"\x08\0\0\0\0"
    chunks = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(pixels)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big") for name, data in chunks
    )


def without_adobe(data: bytes) -> bytes:
    """A JPEG without its APP14 segment, which says how colours are meant."""
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


@cache
def eileen() -> Image.Image:
    """Her head alone: quickly searched."""
    return Image.fromarray(astronaut()[40:260, 120:340])


@cache
def megapixels(count: int, format: str, **options: Any) -> bytes:
    """Her head, so large. Not cheap to make."""
    side = round((count * 1e6) ** 0.5)
    options = {"compress_level": 1} if format == "PNG" else options
    return encoded(eileen().resize((side, side), Image.Resampling.NEAREST), format, **options)


def _sixteen_bits(suffix: str, grey: bool) -> bytes:
    pixels = np.asarray(eileen().convert("L") if grey else eileen()).astype(np.uint16) * 257
    done, data = cv2.imencode(suffix, pixels if grey else pixels[:, :, ::-1])
    assert done
    return data.tobytes()


def _animated(format: str) -> bytes:
    return encoded(eileen(), format, save_all=True, append_images=[Image.new("RGB", eileen().size)], duration=100)


def _with_background_face() -> bytes:
    """A second face in the picture, a third as wide."""
    canvas = Image.new("RGB", (400, 220), (120, 130, 140))
    canvas.paste(eileen())
    face = Image.fromarray(hopper()[90:370, 130:410])
    canvas.paste(face.resize((45, 45), Image.Resampling.LANCZOS), (300, 80))
    return encoded(canvas, "PNG")


def good() -> Iterator[Sample]:
    image, inverted = eileen(), Image.fromarray(255 - np.asarray(eileen().convert("CMYK")), "CMYK")
    for format in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF"):
        yield Sample(format, encoded(image, format))
    for orientation in range(1, 9):
        yield Sample(f"exif {orientation}", turned(image, orientation, "JPEG"))
    yield Sample("16-bit grey PNG", _sixteen_bits(".png", grey=True))
    yield Sample("16-bit PNG", _sixteen_bits(".png", grey=False))
    yield Sample("16-bit grey TIFF", _sixteen_bits(".tiff", grey=True))
    yield Sample("16-bit TIFF", _sixteen_bits(".tiff", grey=False))
    yield Sample("CMYK of Adobe", encoded(image.convert("CMYK"), "JPEG", quality=95))
    yield Sample("CMYK of others", without_adobe(encoded(inverted, "JPEG", quality=95)))
    yield Sample("CMYK TIFF", encoded(image.convert("CMYK"), "TIFF"))
    yield Sample("grey", encoded(image.convert("L"), "JPEG"))
    yield Sample("alpha", encoded(image.convert("RGBA"), "PNG"))
    yield Sample("grey alpha", encoded(image.convert("LA"), "PNG"))
    yield Sample("palette", encoded(image.quantize(255), "PNG", transparency=254))
    yield Sample("GIF in motion", _animated("GIF"))
    yield Sample("PNG in motion", _animated("PNG"))
    yield Sample("WebP in motion", _animated("WEBP"))
    yield Sample("two pictures", encoded(image, "MPO", save_all=True, append_images=[image]))
    yield Sample("progressive", encoded(image, "JPEG", progressive=True))
    yield Sample("100 megapixels", megapixels(100, "JPEG"))
    yield Sample("small second face", _with_background_face(), faces=2)


def bad() -> Iterator[Sample]:
    image, jpeg, whole = eileen(), encoded(eileen(), "JPEG"), encoded(eileen(), "PNG")
    bomb = zlib.compress(b"\0" * (40 << 20))
    two = Image.fromarray(side_by_side(astronaut()[40:260, 120:340], astronaut()[40:260, 340:120:-1]))
    yield Sample("nobody", encoded(Image.new("RGB", (200, 200), "grey"), "JPEG"), "no_face", faces=0)
    yield Sample("two", encoded(two, "JPEG"), "several_faces", faces=2, words="2 faces")
    yield Sample("one pixel", encoded(image.resize((1, 1)), "PNG"), "no_face", faces=0)
    yield Sample("strip", encoded(Image.new("L", (40_000, 1)), "PNG"), "no_face", faces=0)
    for name, data in (
        ("empty", b""),
        ("text", b"this is no picture"),
        ("corrupt", whole[:200] + bytes(50) + whole[250:]),
        ("truncated JPEG", jpeg[: len(jpeg) // 2]),
        ("truncated PNG", whole[: len(whole) // 2]),
        ("header alone", jpeg[:20]),
        ("zTXt bomb", png((100, 100), (b"zTXt", b"Comment\0\0" + bomb), pixels=bytes(10100))),
        ("iTXt bomb", png((100, 100), (b"iTXt", b"Comment\0\1\0\0\0" + bomb), pixels=bytes(10100))),
        ("iCCP bomb", png((100, 100), (b"iCCP", b"x\0\0" + bomb), pixels=bytes(10100))),
    ):
        yield Sample(name, data, "bad_image", "bad_image", words="unpacks" if "bomb" in name else "")
    for name, data, words in (
        ("PNG bomb", png((100_000, 100_000)), "10000 megapixels"),
        ("100 megapixels PNG", megapixels(100, "PNG"), "100 megapixels"),
    ):
        yield Sample(name, data, "too_large", "too_large", words=words)
    for name, data, words in (
        ("HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), "HEIC"),
        ("HEIF", b"\0\0\0\x18ftypmsf1\0\0\0\0hevcmsf1" + bytes(200), "HEIC"),
        ("AVIF", encoded(image, "AVIF"), "AVIF"),
        ("JPEG 2000", encoded(image, "JPEG2000"), "JPEG 2000"),
        ("SVG", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
    ):
        yield Sample(name, data, "unsupported_format", "unsupported_format", words=words)


@cache
def samples() -> tuple[Sample, ...]:
    return (*good(), *bad())


def mutated(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut, doubled, or numbers made extreme, mostly near the beginning where the headers are."""
    spoiled = bytearray(data or b"x")
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        reach = len(spoiled) if chance.random() < 0.4 else min(len(spoiled), 300)
        at = chance.randrange(reach)
        way = chance.randrange(5)
        if way == 0:
            spoiled[at] ^= 1 << chance.randrange(8)
        elif way == 1:
            spoiled[at : at + 4] = struct.pack(
                chance.choice("<>") + "I", chance.choice((0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 70_000))
            )
        elif way == 2:
            del spoiled[at : at + chance.choice((1, 4, 100))]
        elif way == 3:
            spoiled[at:at] = spoiled[at : at + chance.choice((1, 4, 100))]
        else:
            spoiled[at : at + 2] = struct.pack(chance.choice("<>") + "H", chance.choice((0, 1, 0xFFFF, 0x8000)))
        spoiled = spoiled or bytearray(b"x")
    return bytes(spoiled)
