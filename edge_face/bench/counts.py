"""How much each stage has to compute and to move: from the real networks' graphs and the pictures' sizes.

A multiply-add is two operations. Bytes are what a stage reads and writes, each layer's input and output once, as if no
cache kept anything: an upper bound, which is what counts where a picture is larger than the cache. Fresh bytes are
those of arrays too large for the C library to keep: the kernel makes them anew each time, page by page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_face.vision import cnn, models, yunet
from edge_face.vision.dlib_backend import HogDetector
from edge_face.vision.interfaces import CHIP_SIZE
from edge_face.vision.pyramid import layout
from edge_face.vision.weights import read_detector

if TYPE_CHECKING:
    from edge_face.vision.weights import DetectorWeights

TEMPLATES = 1000
"""That matching is measured with."""
_FRESH_FROM = 32 << 20
"""Bytes of an array (glibc's largest M_MMAP_THRESHOLD, mallopt(3))."""

_FLOAT = 4
_CHANNELS = 3
_ENCODING = 128

_HOG_CELL = 8
_HOG_PLANES = 31
_HOG_WINDOW = 10
"""Cells along a filter."""
HOG_FILTERS = 305
"""Separable filters of dlib's five frontal detectors together: 61, 58, 54, 66 and 66."""
_HOG_LOWEST = 64
"""Pixels; dlib makes no smaller copy (scan_fhog_pyramid, min_pyramid_layer_width and _height)."""
_HOG_PIXEL = 57
"""Operations for a pixel (fhog.h): three channels' gradients and lengths 24, the strongest 2, nine directions 27, and
its place in the histogram 4."""
_HOG_FEATURES = 8 * _HOG_PLANES
"""For a cell: four normalisations of each plane, summed up."""
_HOG_BYTES = 5 * _FLOAT
"""A filter on a cell: the plane read, the row filter's result written and read, the score read and written."""

YUNET_FLOP, YUNET_BYTES = 1680.78, 382.91
"""For a pixel, of the one known model file, which not everybody has; counted by `net`."""
_YUNET_MULTIPLE = 32

SMALLEST_PX = {
    "hog": HogDetector.smallest_px,
    "cnn": cnn.CnnDetector.smallest_px,
    "yunet": yunet.YunetDetector.smallest_px,
}
"""Width of the smallest face, in the picture that is searched."""

_BLOCK = 8
_DCT = 16 * 34
"""Operations of a JPEG's 8x8 block: 16 transforms of a row or column (Arai, Agui, Nakajima 1988: 5 multiplications and
29 additions)."""
_JPEG_BLOCKS = 1.5
"""For each 64 pixels: colours at half the resolution."""
_JPEG_PIXEL = 9
"""Operations: to another colour space."""

_AREA = 4 * _CHANNELS
"""Operations for a source pixel of an area average: a multiply-add across and one down."""
_LANDMARKS = 15 * 500 * 4 + 15 * 400 * 6 + 15 * 500 * 10
"""The five-point model: 15 rounds of 500 trees, each a few comparisons deep, the pixels that they look at, and the ten
numbers that each tree adds."""
_CHIP = CHIP_SIZE**2 * _CHANNELS * 8
"""A bilinear cut."""
ALIGN_REACH = 2.6
"""Widths of a face: what is cut out around it before it is aligned."""
_FOLLOW = (33**2) * (32**2) * 2
"""A template of 32x32 at 33x33 places."""
_SAMPLED_WIDTH = 320


@dataclass(frozen=True, slots=True)
class Work:
    """`flop`: arithmetic operations; `bytes`: read and written; `fresh`: of them, into memory that is new each time."""

    flop: float = 0.0
    bytes: float = 0.0
    fresh: float = 0.0

    def __add__(self, other: Work) -> Work:
        return Work(self.flop + other.flop, self.bytes + other.bytes, self.fresh + other.fresh)


def net(model: bytes, shape: tuple[int, ...]) -> Work:
    """An ONNX model's arithmetic and bytes for an input of that shape.

    Only what multiplies counts as arithmetic; a Relu is done where its convolution writes.
    """
    import onnx

    loaded = onnx.load_model_from_string(model)
    graph = loaded.graph
    del graph.value_info[:]
    for dim, size in zip(graph.input[0].type.tensor_type.shape.dim, shape, strict=True):
        dim.dim_value = size
    for each in graph.output:
        each.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(loaded, strict_mode=True, data_prop=True).graph
    shapes = {each.name: list(each.dims) for each in graph.initializer}
    for each in (*graph.input, *graph.value_info, *graph.output):
        shapes[each.name] = [dim.dim_value for dim in each.type.tensor_type.shape.dim]
    total = Work()
    for node in graph.node:
        total += _node(node, shapes)
    return total


_IN_PLACE = ("Relu", "Identity", "Flatten", "Reshape", "Constant", "Shape")


def _node(node: Any, shapes: dict[str, list[int]]) -> Work:
    if node.op_type in _IN_PLACE:
        return Work()
    flop = 0.0
    made = sum(math.prod(shapes[name]) for name in node.output)
    if node.op_type == "Conv":
        flop = 2.0 * made * math.prod(shapes[node.input[1]][1:])
    elif node.op_type in ("Gemm", "MatMul"):
        flop = 2.0 * made * shapes[node.input[0]][-1]
    read = sum(math.prod(shapes[name]) for name in node.input if name in shapes)
    return Work(flop, _FLOAT * (read + made), _fresh(_FLOAT * made))


def _fresh(size: float) -> float:
    return size if size > _FRESH_FROM else 0.0


@cache
def encoder() -> Work:
    """One face."""
    path = models.weights(models.ENCODER)
    model = models.model_cache().get(path, models.convert_encoder)
    return net(model, (1, _CHANNELS, CHIP_SIZE, CHIP_SIZE))


@cache
def _detector_weights() -> DetectorWeights:
    return read_detector(models.weights(models.DETECTOR))


@cache
def cnn_search(width: int, height: int, min_face: float = 0) -> Work:
    """A picture with its smaller copies, on one canvas."""
    weights = _detector_weights()
    places = layout(width, height, weights.window[0], min_face)
    if places is None:
        return Work()
    model = models.model_cache().get(models.weights(models.DETECTOR), cnn.convert)
    last = weights.convs[-1].kernel.shape
    canvas = places.width * places.height
    cells = canvas / cnn.grid(weights.convs).step ** 2
    summed = cells * last[2] * last[3]
    pixels = sum(across * down for across, down in places.sizes)
    planes = _CHANNELS * _FLOAT * canvas
    painted = Work(pixels * _CHANNELS * 8, _CHANNELS * (3 * pixels + canvas) + planes, _fresh(planes))
    return net(model, (1, _CHANNELS, places.height, places.width)) + painted + Work(summed, 3 * _FLOAT * summed)


def hog_search(width: int, height: int) -> Work:
    """A picture and its smaller copies, each 5/6 of the one before, and five detectors of many filters each."""
    total = Work()
    for level, (across, down) in enumerate(_hog_levels(width, height)):
        pixels = across * down
        cells = (across // _HOG_CELL) * (down // _HOG_CELL)
        filters = HOG_FILTERS * 2 * _HOG_WINDOW * 2
        shrunk = pixels * _CHANNELS if level else 0
        total += Work(
            pixels * _HOG_PIXEL + cells * (_HOG_FEATURES + filters) + 8 * shrunk,
            pixels * _CHANNELS + 2 * shrunk + cells * (2 * _HOG_PLANES * _FLOAT + HOG_FILTERS * _HOG_BYTES),
        )
    return total


def _hog_levels(width: int, height: int) -> Iterator[tuple[int, int]]:
    yield width, height
    while True:
        width, height = width * 5 // 6, height * 5 // 6
        if min(width, height) < _HOG_LOWEST:
            return
        yield width, height


def yunet_search(width: int, height: int) -> Work:
    """A picture, and half as large ones until its longer side is short enough."""
    pixels = 0
    while True:
        pixels += math.prod(math.ceil(side / _YUNET_MULTIPLE) * _YUNET_MULTIPLE for side in (width, height))
        if max(width, height) <= yunet.LONGEST_PX:
            return Work(pixels * YUNET_FLOP, pixels * YUNET_BYTES)
        width, height = max(1, width // 2), max(1, height // 2)


def yunet_net(path: Path, side: int = 640) -> Work:
    """The same from the model file itself, for a square picture."""
    return net(path.read_bytes(), (1, _CHANNELS, side, side))


def search(detector: str, width: int, height: int, min_face: float) -> Work:
    """A picture that is searched at that size; `min_face` in its pixels."""
    if detector == "cnn":
        return cnn_search(width, height, min_face)
    return hog_search(width, height) if detector == "hog" else yunet_search(width, height)


def resized(width: int, height: int, factor: float) -> tuple[int, int]:
    """Width and height after OpenCV's resize."""
    return max(1, round(width * factor)), max(1, round(height * factor))


def scale(width: int, height: int, factor: float) -> Work:
    """Reduced or enlarged, and to RGB."""
    pixels = width * height * _CHANNELS
    across, down = resized(width, height, factor)
    made = across * down * _CHANNELS
    if factor == 1:
        return Work(0, 2 * pixels)
    return Work(max(width * height, across * down) * _AREA, pixels + 3 * made)


def motion(width: int, height: int) -> Work:
    """One colour of every few pixels, averaged."""
    step = max(1, round(width / _SAMPLED_WIDTH))
    sampled = (width // step) * (height // step)
    return Work(2 * sampled, 2 * sampled + width * height * _CHANNELS / step)


def jpeg(width: int, height: int) -> Work:
    """Either way: to a JPEG or from it."""
    pixels = width * height
    blocks = pixels / _BLOCK**2 * _JPEG_BLOCKS
    return Work(blocks * _DCT + pixels * _JPEG_PIXEL, pixels * (_CHANNELS + 2 * _JPEG_BLOCKS))


def align(face_px: float) -> Work:
    """One face: cut out, five points found, turned upright."""
    cut = (ALIGN_REACH * face_px) ** 2 * _CHANNELS
    return Work(_LANDMARKS + _CHIP, 4 * cut)


def follow() -> Work:
    """One face, found again by its look."""
    return Work(_FOLLOW, 2 * 64 * 64)


def match(templates: int) -> Work:
    """One face with all that are enrolled: a product, and twice the largest of the results."""
    return Work(2 * (_ENCODING + 1) * templates, _FLOAT * (_ENCODING + 1 + 3) * templates)


def table(width: int, height: int, min_face: int, face_px: float, templates: int) -> Iterator[tuple[str, Work]]:
    """Each stage once, for a frame of that size."""
    yield "grab", jpeg(width, height)
    yield "decode", jpeg(width, height)
    yield "motion", motion(width, height)
    for detector, smallest in SMALLEST_PX.items():
        factor = smallest / min_face
        across, down = resized(width, height, factor)
        yield f"scale for {detector}", scale(width, height, factor)
        yield f"detect {detector}", search(detector, across, down, min_face * factor)
    yield "follow", follow()
    yield "align", align(face_px)
    yield "encode", encoder()
    yield f"match {templates:,}", match(templates)
    yield "JPEG", jpeg(width, height)
