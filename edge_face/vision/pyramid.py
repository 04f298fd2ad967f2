"""dlib's tiled image pyramid: a picture and smaller and smaller copies of it, on one canvas, for one run of a network.

A copy is 5/6 as large as the one before it. After dlib 20.0.1: which copies there are and where they lie,
image_transforms/image_pyramid.h (compute_tiled_image_pyramid_details for pyramid_down<6>); how one is made of the one
before, dnn/input.h (create_tiled_pyramid) and cuda/cpu_dlib.cpp (resize_bilinear); the paddings, dnn/input.h.

The places matter: the network sees across the gaps, and its cells stand on a fixed grid. With each copy on a canvas of
its own, for a tenth of all faces another cell is the strongest, and the box is then that of the next copy (measured).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

STEP = 6 / 5
_RATE = (6 - 1) / 6
SHIFT = 0.3
"""Pixels that a coordinate moves on its way up by one copy (pyramid_down::point_up)."""
_GAP = 10
_BORDER = 11
_LOWEST = 5
"""Rows; a copy with fewer is not made."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One copy of the picture on the canvas; pixels."""

    level: int
    """How many times it was made smaller."""
    left: int
    top: int
    width: int
    height: int

    def distance(self, x: float, y: float) -> float:
        """From a point on the canvas to the nearest of the tile's pixels."""
        across = max(self.left - x, 0.0, x - (self.left + self.width - 1))
        down = max(self.top - y, 0.0, y - (self.top + self.height - 1))
        return math.hypot(across, down)

    def to_picture(self, x: float, y: float) -> tuple[float, float]:
        """A point on the canvas as one in the picture, as pyramid_down::point_up does it, level by level."""
        x, y = x - self.left, y - self.top
        for _ in range(self.level):
            x, y = x * STEP + SHIFT, y * STEP + SHIFT
        return x, y


@dataclass(frozen=True, slots=True)
class Layout:
    """The canvas for pictures of one size."""

    sizes: tuple[tuple[int, int], ...]
    """Width and height of every copy that has to be made, the picture first, on the canvas or not."""
    tiles: tuple[Tile, ...]
    """Those on the canvas, the largest first. dlib leaves out the last ones when the canvas is full."""
    width: int
    height: int

    def tile_at(self, x: float, y: float) -> Tile:
        """The tile that a point belongs to: the nearest one (geometry/rectangle.h, nearest_rect)."""
        return min(self.tiles, key=lambda tile: tile.distance(x, y))


def layout(width: int, height: int, window: int, min_face: float = 0, max_face: float = 0) -> Layout | None:
    """Where the copies of a picture go, without those that cannot hold a face of min_face to max_face pixels (0: any).

    `window` is the width in pixels of the faces that the network finds in each copy. None if no copy is left.
    """
    sizes = [(width, height)]
    while (smaller := (math.floor(sizes[-1][0] * _RATE), math.floor(sizes[-1][1] * _RATE)))[0] and smaller[
        1
    ] >= _LOWEST:
        sizes.append(smaller)
    # Two steps more on either side: a face between two windows is seen in either, and a face that is too small or too
    # large is also seen in the first window that is not, but less surely than in its own, which has to compete.
    spare = STEP**2
    levels = []
    for level in range(len(sizes)):
        seen = window * STEP**level
        if seen * spare > min_face and (not max_face or seen / spare < max_face):
            levels.append(level)
    if not levels or not width or not height:
        return None
    sizes = sizes[: levels[-1] + 1]
    return _arranged(sizes, levels)


def _arranged(sizes: Sequence[tuple[int, int]], levels: Sequence[int]) -> Layout:
    """Tiles in a column under each other, then the rest in a second one on the right, from the bottom up."""
    shown = [sizes[level] for level in levels]
    full_width, full_height = shown[0]
    rows = _first_column_rows(shown)
    tiles: list[Tile] = []
    top = _BORDER
    while len(tiles) < len(shown) and top < rows + _BORDER:
        width, height = shown[len(tiles)]
        tiles.append(Tile(levels[len(tiles)], _BORDER, top, width, height))
        top += height + _GAP
    bottom = top - _GAP
    while len(tiles) < len(shown):
        width, height = shown[len(tiles)]
        left, top = _BORDER + full_width - width, bottom - height
        if top < _BORDER + full_height:
            break  # it would cover the largest one
        tiles.append(Tile(levels[len(tiles)], left, top, width, height))
        bottom = top - _GAP
    return Layout(tuple(sizes), tuple(tiles), full_width + 2 * _BORDER, rows + 2 * _BORDER)


def _first_column_rows(shown: Sequence[tuple[int, int]]) -> int:
    """Height of the first column: it ends where the next tile fits beside the one before and half of all are placed."""
    full_width, full_height = shown[0]
    total = sum(height + _GAP for _, height in shown) - 2 * _GAP
    rows = before = 0
    for width, height in shown:
        if width <= full_width - before - _GAP and (rows - full_height) * 2 >= total - full_height:
            break
        rows += height + _GAP
        before = width
    return rows - _GAP


class Canvas:
    """The canvas in memory, used again for every picture of that size: what is around the tiles never changes."""

    def __init__(self, layout: Layout, background: Sequence[float]) -> None:
        """`background`: R, G, B around the tiles."""
        self.layout = layout
        self._pixels = np.empty((layout.height, layout.width, 3), np.uint8)
        self._pixels[:] = np.rint(background).astype(np.uint8)

    def paint(self, image: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        """The canvas with a picture, (height, width, 3), and its copies: shape (rows, columns, 3). It stays ours."""
        tiles = {tile.level: tile for tile in self.layout.tiles}
        copy = image
        for level, size in enumerate(self.layout.sizes):
            if level:
                copy = _smaller(copy, size)
            if tile := tiles.get(level):
                self._pixels[tile.top : tile.top + tile.height, tile.left : tile.left + tile.width] = copy
        return self._pixels


def _smaller(image: npt.NDArray[np.uint8], size: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Bilinear, the corner pixels onto the corner pixels (cpu_dlib.cpp, resize_bilinear).

    That is not cv2.resize, which lays the pixels' outer edges onto each other. dlib keeps fractions of a grey value,
    and OpenCV weighs in steps of 1/32: on real photos the scores differ by 0.001 at most.
    """
    height, width = image.shape[:2]
    across = (width - 1) / max(size[0] - 1, 1)
    down = (height - 1) / max(size[1] - 1, 1)
    to_source = np.array([[across, 0.0, 0.0], [0.0, down, 0.0]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image, to_source, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, dtype=np.uint8)
