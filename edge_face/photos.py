"""Bytes of a photo to pixels: formats, orientation and limits. Runs in a child process only."""

from __future__ import annotations

import io
import math
import struct
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageChops, ImageFile, UnidentifiedImageError

from edge_face import memory
from edge_face.errors import ImageError
from edge_face.events import Box
from edge_face.images import RgbImage

MAX_PIXELS = 50_000_000
MAX_JPEG_PIXELS = 200_000_000
"""JPEG can be decoded at a half, a quarter or an eighth of its size, so that phones' largest photos cost little. Not
progressive JPEG, which is put together at full size."""
WORKING_PIXELS = 27_000_000
"""Larger pictures are reduced by a whole number; 108 megapixels by 2, whose faces are still far larger than needed."""
THUMBNAIL_PX = 160
"""Enough to know somebody by."""
_AROUND = 0.3
"""What is shown around a face, in its widths."""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
TOO_MUCH_MEMORY = "The picture needs more memory to be read than a photo may have."

_LIBRARY_BYTES = 8
"""For a pixel: what a library may need while it decodes."""
_READ = "save it as JPEG or PNG"
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
    b"crx ": "CR3",
    b"jxl ": "JPEG XL",
}
"""The kinds of ISO media files that hold a picture (the word after `ftyp`)."""
_OTHERS = {
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000",
    b"%PDF": "PDF",
    b"8BPS": "Photoshop",
    b"<svg": "SVG",
}
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What EXIF's orientations other than 1 ask for; those above 4 swap width and height."""
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, struct.error, KeyError, IndexError, TypeError, OverflowError)
"""What Pillow raises for damaged files."""


@dataclass(frozen=True, eq=False, slots=True)
class Picture:
    """A photo upright. `pixels` is (height, width, 3) RGB, reduced by the factor `reduced`; sizes are the whole's."""

    pixels: RgbImage
    width: int
    height: int
    reduced: int = 1


def decode(data: bytes | bytearray) -> Picture:
    """The photo upright (EXIF orientation applied). Raises ImageError; MemoryError when it needs too much.

    Of an animation it is the first picture; transparent pixels become white.
    """
    if not data:
        raise ImageError("The file is empty.")
    _refuse_other_formats(bytes(data[:32]))
    Image.MAX_IMAGE_PIXELS = None  # the limits above are told in words
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # importing face_recognition turns this on
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return _upright(image)
    except UnidentifiedImageError:
        raise ImageError("This is not a picture that can be read (JPEG, PNG, WebP, BMP, GIF, TIFF).") from None
    except _DAMAGE as error:
        if "Decompressed data too large" in str(error):  # Pillow's limit for texts and colour profiles in a PNG
            raise ImageError("The picture holds a text or a colour profile that unpacks to far too much.") from None
        raise ImageError(f"The picture is damaged: {error}.") from error


def thumbnail(pixels: npt.NDArray[np.uint8], box: Box, *, bgr: bool = False) -> bytes:
    """A small JPEG of one face. It is made of the pixels alone, so nothing of the photo's metadata comes along.

    `pixels`: (height, width, 3) RGB, or BGR as cameras deliver it. Raises ImageError.
    """
    around = round(_AROUND * box.width)
    top, left = max(0, box.y1 - around), max(0, box.x1 - around)
    face = pixels[top : box.y2 + around, left : box.x2 + around]
    scale = min(1.0, THUMBNAIL_PX / max(*face.shape[:2], 1))
    size = [max(1, round(scale * edge)) for edge in face.shape[1::-1]]
    if face.size:
        small = cv2.resize(face, size, interpolation=cv2.INTER_AREA)
        small = small if bgr else cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
        done, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 85])
        if done:
            return data.tobytes()
    raise ImageError("The face cannot be kept as a picture.")


def _refuse_other_formats(head: bytes) -> None:
    name = ""
    if head[4:8] == b"ftyp":
        brands = (head[8:12], *(head[start : start + 4] for start in range(16, len(head), 4)))
        name = next((_BRANDS[brand] for brand in brands if brand in _BRANDS), "")
    name = name or next((other for magic, other in _OTHERS.items() if head.startswith(magic)), "")
    if name:
        raise ImageError(f"{name} files are not read; {_READ}.", "unsupported_format")


def _upright(image: Image.Image) -> Picture:
    is_jpeg = image.format in ("JPEG", "MPO")  # MPO: JPEG with more pictures behind it, as some phones write it
    size, pixels = image.size, image.width * image.height
    if pixels > (MAX_JPEG_PIXELS if is_jpeg and "progressive" not in image.info else MAX_PIXELS):
        allowed = f"{MAX_PIXELS // 1_000_000} are allowed, {MAX_JPEG_PIXELS // 1_000_000} as baseline JPEG"
        raise ImageError(f"The picture has {pixels / 1e6:.0f} megapixels; {allowed}.", "too_large")
    reduced = max(1, math.ceil(math.sqrt(pixels / WORKING_PIXELS)))
    if is_jpeg and reduced > 1:
        reduced = 1 << (reduced - 1).bit_length()
        image.draft(None, (image.width // reduced, image.height // reduced))
    try:
        image.load()
    except OSError:
        if memory.short_of(_LIBRARY_BYTES * pixels):
            raise MemoryError from None  # the libraries call it damage when they get no memory
        raise
    orientation = _orientation(image)
    plain = _eight_bits(image)
    if not is_jpeg and reduced > 1:
        plain = plain.reduce(reduced)
    if is_jpeg and plain.mode == "CMYK" and "adobe" not in image.info:
        plain = ImageChops.invert(plain)  # Pillow takes all for Adobe's, who writes them inverted
    plain = _on_white(plain)
    if orientation in _TURNS:
        size = size[::-1] if orientation > 4 else size
        plain = plain.transpose(_TURNS[orientation])
    return Picture(np.asarray(plain, dtype=np.uint8), *size, reduced)


def _orientation(image: Image.Image) -> int:
    """As EXIF tells it, 1 (upright) to 8. A picture is none the worse for damaged EXIF."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except _DAMAGE:
        return 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """In a mode whose pixels can be averaged: greys of more bits are stretched to 8, palettes looked up."""
    if image.mode[0] in "IF":
        grey = np.nan_to_num(np.asarray(image), posinf=0, neginf=0)
        grey = grey.astype({"u2": np.uint16, "i4": np.int32}.get(grey.dtype.str[1:], np.float32), copy=False)
        low, high = float(grey.min()), float(grey.max())
        factor = 255.0 / (high - low) if high > low else 0.0
        return Image.fromarray(np.asarray(cv2.convertScaleAbs(grey, alpha=factor, beta=-low * factor)))
    if image.mode in ("P", "PA", "1"):
        return image.convert("RGBA" if image.has_transparency_data else "RGB")
    if image.mode == "RGB" and image.has_transparency_data:  # one colour of a PNG stands for transparent
        return image.convert("RGBA")
    return image


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    with_alpha = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(with_alpha, mask=with_alpha)
    return white
