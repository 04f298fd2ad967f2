"""Bytes of a photo to pixels: formats, orientation and limits. Runs in a child process only."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from edge_face.errors import ImageError
from edge_face.vision.models import RgbImage

MAX_PIXELS = 50_000_000
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")


def decode(data: bytes) -> RgbImage:
    """The photo upright (EXIF orientation applied), as (height, width, 3) RGB. Raises ImageError.

    Of an animation it is the first picture; transparent pixels become white.
    """
    if not data:
        raise ImageError("The file is empty.")
    if data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypheim", b"ftypavif"):
        raise ImageError("HEIC and AVIF photos are not read; save it as JPEG or PNG.", "unsupported_format")
    Image.MAX_IMAGE_PIXELS = None  # the limit below is told in words
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # importing face_recognition turns this on
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                megapixels = image.width * image.height / 1e6
                limit = MAX_PIXELS // 1_000_000
                raise ImageError(f"The picture has {megapixels:.0f} megapixels; {limit} are allowed.", "too_large")
            image.load()
            upright = ImageOps.exif_transpose(image)
            return np.ascontiguousarray(_as_rgb(upright))
    except UnidentifiedImageError:
        raise ImageError("This is not a picture that can be read (JPEG, PNG, WebP, BMP, GIF, TIFF).") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise ImageError(f"The picture is damaged: {error}.") from error


def _as_rgb(image: Image.Image) -> RgbImage:
    if image.mode.startswith("I"):  # 16 and 32 bits of grey: stretch what is there to 8 bits
        grey = np.asarray(image, dtype=np.float64)
        low, high = grey.min(), grey.max()
        eight = ((grey - low) * (255.0 / max(high - low, 1.0))).astype(np.uint8)
        return np.stack([eight] * 3, axis=-1)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.asarray(image.convert("RGB"), dtype=np.uint8)
