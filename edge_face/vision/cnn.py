"""dlib's CNN face detector (MMOD) on a fast backend: the same boxes and scores as `dlib.cnn_face_detection_model_v1`.

A picture and its smaller copies go through the network on one canvas (pyramid.py). Each cell of the result is the score
of one window on the canvas; the windows above a limit are mapped back, and of overlapping ones the strongest stays
(dlib 20.0.1, dnn/loss.h, loss_mmod_: tensor_to_dets and to_label).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from edge_face.errors import ModelError
from edge_face.events import Box
from edge_face.images import RgbImage
from edge_face.vision.interfaces import Detection
from edge_face.vision.known_answer import test_chip
from edge_face.vision.pyramid import Canvas, Layout, layout
from edge_face.vision.weights import Conv, DetectorWeights, parse_detector

if TYPE_CHECKING:
    from edge_face.vision.onnx_backend import Session

Floats = npt.NDArray[np.float32]

_CHANNELS = 16
"""Channels are filled up to a multiple of it: ONNX Runtime's blocked convolutions need 8 or 16 (AVX, AVX-512)."""

_KNOWN_SCORES = (-1.748918, -1.842213, -1.551537)
"""Of the test picture's cells (4, 4), (8, 8), (12, 12), from the network that had dlib's scores on 159 photos."""
_TOLERANCE = 1e-3
"""Of a score. Backends differ by 1e-5; half precision, or other weights, by more than this."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the cells of the network's result lie on the canvas: cell n is centred on pixel `first + n * step`."""

    first: int
    step: int
    reach: int
    """Rows or columns that the network needs at least."""


class CnnDetector:
    """Not thread-safe: it keeps the canvas of the last picture's size."""

    name = "cnn"
    smallest_px = 75  # measured on 7 faces at 10 offsets each: the last one is found in all of them from here on

    def __init__(self, session: Session, weights: DetectorWeights, min_confidence: float = 0.0) -> None:
        """`session` runs the model that `convert` made of the same weights. Raises ModelError if it is wrong.

        A box scores above `min_confidence`; 0 is dlib's own limit.
        """
        self._session = session
        self._weights = weights
        self._min_confidence = min_confidence
        self._grid = grid(weights.convs)
        self._canvas: Canvas | None = None
        self._made_for: tuple[float, ...] = ()
        self._self_test()

    def detect(self, image: RgbImage, min_face: float = 0, max_face: float = 0) -> list[Detection]:
        """Faces in a picture, the surest first. Boxes are dlib's and may reach over the picture's edge.

        Copies that cannot hold a face of min_face to max_face pixels of this picture (0: any) are not searched.
        """
        canvas = self._canvas_for(image, min_face, max_face)
        if canvas is None:
            return []
        scores = self.scores(canvas.paint(image))
        found = []
        for row, column in np.argwhere(scores > self._min_confidence).tolist():
            found.append(Detection(self._box(canvas.layout, row, column), float(scores[row, column])))
        found.sort(key=lambda detection: -detection.confidence)
        return self._without_overlaps(found)

    def scores(self, canvas: npt.NDArray[np.uint8]) -> Floats:
        """The network's result for a canvas (height, width, 3) RGB: a score per cell, (rows, columns)."""
        planes = np.ascontiguousarray(canvas.transpose(2, 0, 1)[np.newaxis], dtype=np.float32)
        last = self._weights.convs[-1]
        return _summed(self._session.run(planes)[0], last.kernel.shape[2:], float(last.bias[0]))

    def _canvas_for(self, image: RgbImage, min_face: float, max_face: float) -> Canvas | None:
        height, width = image.shape[:2]
        made_for = (width, height, min_face, max_face)
        if made_for != self._made_for:
            self._made_for = made_for
            places = layout(width, height, self._weights.window[0], min_face, max_face)
            fits = places is not None and min(places.width, places.height) >= self._grid.reach
            self._canvas = Canvas(places, self._weights.mean) if places and fits else None
        return self._canvas

    def _box(self, places: Layout, row: int, column: int) -> Box:
        """A cell's window in the picture. dlib's rectangles include their right and bottom pixels, ours end before."""
        x, y = self._grid.first + column * self._grid.step, self._grid.first + row * self._grid.step
        tile = places.tile_at(x, y)
        across, down = ((size - 1) / 2 for size in self._weights.window)
        left, top = tile.to_picture(x - across, y - down)
        right, bottom = tile.to_picture(x + across, y + down)
        return Box(_lround(left), _lround(top), _lround(right) + 1, _lround(bottom) + 1)

    def _without_overlaps(self, found: Sequence[Detection]) -> list[Detection]:
        """`found`, the surest first, without those that overlap a surer one."""
        kept: list[Detection] = []
        for detection in found:
            if not any(self._overlap(other.box, detection.box) for other in kept):
                kept.append(detection)
        return kept

    def _overlap(self, one: Box, other: Box) -> bool:
        """As image_processing/box_overlap_testing.h decides it: the whole is the box around both, not their union."""
        width = min(one.x2, other.x2) - max(one.x1, other.x1)
        height = min(one.y2, other.y2) - max(one.y1, other.y1)
        if width <= 0 or height <= 0:
            return False
        shared = width * height
        around = (max(one.x2, other.x2) - min(one.x1, other.x1)) * (max(one.y2, other.y2) - min(one.y1, other.y1))
        covered = shared / min(one.area, other.area)
        return shared / around > self._weights.overlap_iou or covered > self._weights.overlap_covered

    def _self_test(self) -> None:
        scores = self.scores(test_chip())
        middle = scores.diagonal()[4:13:4]
        if middle.shape != (3,) or not np.allclose(middle, _KNOWN_SCORES, rtol=0, atol=_TOLERANCE):
            raise ModelError("The CNN detector fails its known-answer test on this machine.")


def convert(content: bytes, name: str) -> bytes:
    """dlib's detector, a weights file's content, as the ONNX model that CnnDetector runs. Raises ModelError.

    It differs from dlib's network in form and not in result (measured: 2e-6), and runs 1.6 times as fast. Channels are
    filled up with zeros. The last convolution, whose 9x9 kernel makes one channel of many, ends with a product for each
    place of the kernel; `_summed` adds them up.
    """
    from edge_face.vision.onnx_build import DETECTOR_OUTPUT, chain_model

    weights = parse_detector(content, name)
    convs: list[Conv] = []
    for conv in weights.convs:
        convs.append(_filled(conv, len(convs[-1].bias) if convs else conv.kernel.shape[1]))
    convs[-1] = _products(convs[-1])
    return chain_model(convs, weights.mean, weights.divisor, DETECTOR_OUTPUT)


def grid(convs: Sequence[Conv]) -> Grid:
    """Followed from the last layer back to the first: a cell is centred on `cell * stride - padding + kernel // 2`.

    (dnn/layers.h, con_::map_output_to_input.)
    """
    first, step, reach = 0, 1, 1
    for conv in reversed(convs):
        kernel, stride, padding = conv.kernel.shape[2], conv.stride[0], conv.padding[0]
        first = first * stride - padding + kernel // 2
        step *= stride
        reach = max((reach - 1) * stride + kernel - 2 * padding, 1)
    return Grid(first, step, reach)


def _filled(conv: Conv, inputs: int) -> Conv:
    """The same with `inputs` channels coming in and a multiple of _CHANNELS going out; a single one stays single."""
    had_out, had_in, rows, columns = conv.kernel.shape
    outputs = had_out if had_out == 1 else math.ceil(had_out / _CHANNELS) * _CHANNELS
    kernel: Floats = np.zeros((outputs, inputs, rows, columns), np.float32)
    kernel[:had_out, :had_in] = conv.kernel
    bias: Floats = np.zeros(outputs, np.float32)
    bias[:had_out] = conv.bias
    return replace(conv, kernel=kernel, bias=bias)


def _products(conv: Conv) -> Conv:
    """A convolution to one channel as one that gives each place of the kernel a channel: its product with one cell."""
    _, inputs, rows, columns = conv.kernel.shape
    kernel = np.ascontiguousarray(conv.kernel[0].transpose(1, 2, 0).reshape(rows * columns, inputs, 1, 1))
    return Conv(kernel, np.zeros(rows * columns, np.float32), (1, 1), (0, 0), relu=False)


def _summed(products: Floats, kernel: Sequence[int], bias: float) -> Floats:
    """What `_products` left to do: the products, (places, rows, columns), added up where their sum belongs."""
    _, rows, columns = products.shape
    down, across = kernel[0] // 2, kernel[1] // 2
    total: Floats = np.full((rows + 2 * down, columns + 2 * across), bias, np.float32)
    for place, product in enumerate(products):
        top, left = 2 * down - place // kernel[1], 2 * across - place % kernel[1]
        total[top : top + rows, left : left + columns] += product
    return total[down : down + rows, across : across + columns]


def _lround(value: float) -> int:
    """C's lround: halves away from zero. (Python's round goes to the even one.)"""
    return math.floor(abs(value) + 0.5) * (1 if value >= 0 else -1)
