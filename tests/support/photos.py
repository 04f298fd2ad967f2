"""Real photos in the public domain, from packages that are installed anyway, and ways to spoil them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import skimage.data

Image = npt.NDArray[np.uint8]
"""(height, width, 3) RGB."""


@cache
def astronaut() -> Image:
    """Eileen Collins (NASA), 512x512."""
    return np.asarray(skimage.data.astronaut(), dtype=np.uint8)  # type: ignore[no-untyped-call]


@cache
def hopper() -> Image:
    """Grace Hopper (US Navy), 512x600."""
    path = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    image = cv2.imread(str(path))
    assert image is not None
    return np.ascontiguousarray(image[:, :, ::-1])


def jpeg(image: Image, quality: int = 95) -> bytes:
    done, data = cv2.imencode(".jpg", image[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert done
    return data.tobytes()


def side_by_side(*images: Image) -> Image:
    height = min(image.shape[0] for image in images)
    return np.ascontiguousarray(np.hstack([image[:height] for image in images]))


def blank(height: int = 480, width: int = 640) -> Image:
    return np.full((height, width, 3), 127, np.uint8)
