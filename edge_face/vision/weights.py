"""Reads dlib's weights files (`.dat`): the face encoder and the MMOD face detector, for conversion to ONNX.

The format, after dlib 20.0.1: integers and floats in serialize.h, tensors in cuda/tensor.h, layers in dnn/layers.h, the
nesting in dnn/core.h, the losses' options in dnn/loss.h, the inputs in dnn/input.h. A file holds, in this order:

    the loss, its options; a version for every layer, the outermost first; the input layer; then, for every layer, the
    innermost first: its tag and parameters, three flags, and three tensors that only training needs

Reading is strict: the layers have to be those of the one network that is known, and every byte has to be accounted for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from edge_face.errors import ModelError

T = TypeVar("T")
Floats = npt.NDArray[np.float32]

_DIVISOR = 256.0
"""Input is (pixel - mean) / 256; not in the file (dnn/input.h)."""

_ENCODER_BLOCKS = (
    ((32, False),) * 3
    + ((64, True),)
    + ((64, False),) * 3
    + ((128, True),)
    + ((128, False),) * 2
    + ((256, True),)
    + ((256, False),) * 2
    + ((256, True),)
)
"""Channels of each residual block, and whether it halves the picture (tools/python/src/face_recognition.cpp)."""
_DETECTOR_CONVS = 6
"""Convolutions with batch norm and ReLU before the last, plain one (tools/python/src/cnn_face_detector.cpp)."""

_MODE_CONV = 0  # layer_mode CONV_MODE (dnn/layers.h): one factor per channel
_NO_BIAS = 1  # fc_bias_mode FC_NO_BIAS


@dataclass(frozen=True, slots=True)
class Conv:
    """A convolution, with the scaling (affine or batch norm) that follows it folded in."""

    kernel: Floats
    """Shape (out channels, in channels, height, width)."""
    bias: Floats
    """Shape (out channels,)."""
    stride: tuple[int, int]
    """Down, across."""
    padding: tuple[int, int]
    """Zeros on either side: top and bottom, left and right."""
    relu: bool
    """Whether negative output is cut off."""


@dataclass(frozen=True, slots=True)
class Block:
    """A residual block: relu(skip + second(first(x))). A block that halves has a 2x2/2 average pool on its skip."""

    first: Conv
    second: Conv
    halves: bool


@dataclass(frozen=True, slots=True)
class EncoderWeights:
    """dlib's face encoder: stem, max-pool 3x3/2, blocks, mean over the picture, product with `output`."""

    size: int
    """Height and width of the face chip in pixels."""
    mean: tuple[float, float, float]
    """Subtracted from R, G, B (0 to 255)."""
    divisor: float
    """The difference is then divided by this."""
    stem: Conv
    blocks: tuple[Block, ...]
    output: Floats
    """Shape (256, 128)."""


@dataclass(frozen=True, slots=True)
class DetectorWeights:
    """dlib's MMOD face detector: a chain of convolutions whose last one gives a score per cell."""

    mean: tuple[float, float, float]
    """Subtracted from R, G, B (0 to 255)."""
    divisor: float
    """The difference is then divided by this."""
    convs: tuple[Conv, ...]
    window: tuple[int, int]
    """Width and height in pixels of the face that a cell stands for."""
    overlap_iou: float
    """Of two boxes with a larger intersection over union, the weaker is dropped."""
    overlap_covered: float
    """The same for the part of either box that the other covers."""


def read_encoder(path: Path) -> EncoderWeights:
    """Read `dlib_face_recognition_resnet_model_v1.dat`. Raises ModelError."""
    return parse_encoder(_content(path), path.name)


def read_detector(path: Path) -> DetectorWeights:
    """Read `mmod_human_face_detector.dat`. Raises ModelError."""
    return parse_detector(_content(path), path.name)


def parse_encoder(content: bytes, name: str) -> EncoderWeights:
    """The encoder in a file's bytes; `name` is for messages. Raises ModelError."""
    return _Reader(content, name).all(_encoder)


def parse_detector(content: bytes, name: str) -> DetectorWeights:
    """The detector in a file's bytes; `name` is for messages. Raises ModelError."""
    return _Reader(content, name).all(_detector)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelError(f"The weights file {path} cannot be read: {error.strerror}.") from None


class _Reader:
    """dlib's values, one after the other."""

    def __init__(self, content: bytes, name: str) -> None:
        self._content = content
        self._at = 0
        self._name = name

    def all(self, parse: Callable[[_Reader], T]) -> T:
        """What `parse` reads, if that is the whole file."""
        parsed = parse(self)
        left = len(self._content) - self._at
        if left:
            raise self.wrong(f"{left} bytes follow the end of the network")
        return parsed

    def wrong(self, what: str) -> ModelError:
        return ModelError(f"The weights file {self._name} is not what dlib writes: {what}, at byte {self._at}.")

    def expect(self, what: str, found: object, *wanted: object) -> None:
        if found not in wanted:
            raise self.wrong(f"{what} is {found!r} and not {' or '.join(map(repr, wanted))}")

    def take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._content) - self._at:
            raise self.wrong("it ends too soon")
        self._at += count
        return self._content[self._at - count : self._at]

    def integer(self) -> int:
        """One byte with the number of bytes (bit 7: negative), then those, little-endian."""
        head = self.take(1)[0]
        if head & 0x70 or not 1 <= head & 0x0F <= 8:
            raise self.wrong(f"an integer cannot begin with 0x{head:02x}")
        size = int.from_bytes(self.take(head & 0x0F), "little")
        return -size if head & 0x80 else size

    def flag(self) -> bool:
        flag = self.take(1)
        self.expect("a flag", flag, b"0", b"1")
        return flag == b"1"

    def number(self) -> float:
        """Mantissa and exponent of 2; an exponent from 32000 on means infinity or NaN (float_details.h)."""
        mantissa, exponent = self.integer(), self.integer()
        if abs(mantissa) >= 1 << 63 or exponent > 900:
            raise self.wrong("a number is infinite or none")
        return math.ldexp(mantissa, exponent)

    def text(self) -> str:
        return self.take(self.integer()).decode("latin-1")

    def shape(self, version: int) -> tuple[int, int, int, int]:
        """Samples, channels, rows, columns."""
        self.expect("the version of a tensor", self.integer(), version)
        shape = (self.integer(), self.integer(), self.integer(), self.integer())
        if min(shape) < 0:
            raise self.wrong("a tensor has a negative size")
        return shape

    def tensor(self) -> Floats:
        """Shape and raw little-endian float32."""
        shape = self.shape(2)
        values = np.frombuffer(self.take(4 * math.prod(shape)), "<f4").astype(np.float32, copy=False)
        if not np.isfinite(values).all():
            raise self.wrong("a weight is infinite or not a number")
        return values.reshape(shape)

    def part(self, of: Floats, begin: int, shape: Sequence[int]) -> Floats:
        """A view into a layer's one flat tensor of parameters."""
        flat, count = of.reshape(-1), math.prod(shape)
        if begin + count > flat.size:
            raise self.wrong("a layer has fewer parameters than its shapes need")
        return flat[begin : begin + count].reshape(shape)


def _encoder(reader: _Reader) -> EncoderWeights:
    reader.expect("the version of the loss", reader.integer(), 1)
    reader.expect("the loss", reader.text(), "loss_metric_2")
    reader.number(), reader.number()  # its margin and distance: training only
    forward = ["con", "affine", "relu", "max_pool"]
    for _, halves in _ENCODER_BLOCKS:
        skip = ["tag", "skip", "avg_pool"] if halves else []
        forward += ["tag", "con", "affine", "relu", "con", "affine", *skip, "add_prev", "relu"]
    _versions(reader, [*forward, "avg_pool", "fc"])
    reader.expect("the input", reader.text(), "input_rgb_image_sized")
    mean = (reader.number(), reader.number(), reader.number())
    size = reader.integer()
    reader.expect("the width of the input", reader.integer(), size)

    stem = _scaled_conv(reader, 3, first=True)
    _relu(reader)
    _pool(reader, "max_pool_2", (3, 3, 2, 2, 0, 0))
    blocks: list[Block] = []
    for channels, halves in _ENCODER_BLOCKS:
        blocks.append(_block(reader, _outputs(blocks[-1].second if blocks else stem), channels, halves))
    _pool(reader, "avg_pool_2", (0, 0, 1, 1, 0, 0))  # 0 rows, 0 columns: all of them
    return EncoderWeights(size, mean, _DIVISOR, stem, tuple(blocks), _fc(reader, _outputs(blocks[-1].second)))


def _detector(reader: _Reader) -> DetectorWeights:
    reader.expect("the version of the loss", reader.integer(), 1)
    reader.expect("the loss", reader.text(), "loss_mmod_")
    # mmod_options, version 1: one window without a label; no list of them, no bounding box regression.
    reader.expect("the version of the options", reader.integer(), 1)
    window = (reader.integer(), reader.integer())
    reader.number(), reader.number(), reader.number()  # costs of both errors, IoU that counts as found: training only
    overlap_iou, overlap_covered = reader.number(), reader.number()
    reader.number(), reader.number()  # overlap with boxes to ignore: training only
    _versions(reader, ["con", "affine", "relu"] * _DETECTOR_CONVS + ["con"])
    # Without the "2": no paddings of the pyramid in the file, they are 10 and 11 (dnn/input.h).
    reader.expect("the input", reader.text(), "input_rgb_image_pyramid")
    mean = (reader.number(), reader.number(), reader.number())
    convs: list[Conv] = []
    for _ in range(_DETECTOR_CONVS):
        convs.append(_scaled_conv(reader, _outputs(convs[-1]) if convs else 3, first=not convs))
        _relu(reader)
    kernel, bias, stride, padding = _conv(reader, _outputs(convs[-1]))
    _trailer(reader)
    last = Conv(kernel, bias, stride, padding, relu=False)
    return DetectorWeights(mean, _DIVISOR, (*convs, last), window, overlap_iou, overlap_covered)


def _versions(reader: _Reader, forward: Sequence[str]) -> None:
    """Outermost first; tags and skips have nothing but this version; the innermost layer has one of its own."""
    for kind in reversed(forward[1:]):
        reader.expect(f"the version of a {kind} layer", reader.integer(), 1 if kind in ("tag", "skip") else 2)
    reader.expect("the version of the first layer", reader.integer(), 3)


def _trailer(reader: _Reader, first: bool = False) -> None:
    """What follows every layer's own data: state of the training run."""
    reader.flag(), reader.flag(), reader.flag()
    reader.tensor(), reader.tensor(), reader.tensor()
    if first:
        reader.expect("the sample expansion factor", reader.integer(), 1)


def _block(reader: _Reader, inputs: int, channels: int, halves: bool) -> Block:
    first = _scaled_conv(reader, inputs)
    _relu(reader)
    second = _scaled_conv(reader, _outputs(first), relu=False)
    if halves:
        _pool(reader, "avg_pool_2", (2, 2, 2, 2, 0, 0))
    _tag(reader, "add_prev_")
    _trailer(reader)
    _relu(reader)
    reader.expect("a block's channels", _outputs(second), channels)
    reader.expect("a block's first stride", first.stride, (2, 2) if halves else (1, 1))
    reader.expect("a block's second stride and padding", (second.stride, second.padding), ((1, 1), (1, 1)))
    return Block(first, second, halves)


def _scaled_conv(reader: _Reader, inputs: int, *, relu: bool = True, first: bool = False) -> Conv:
    """A convolution and the affine or batch norm layer after it, as one: factor * (kernel, bias) + shift."""
    kernel, bias, stride, padding = _conv(reader, inputs)
    _trailer(reader, first)
    with np.errstate(all="ignore"):  # what is no number then is refused below
        factor, shift = _scaling(reader, len(bias))
        folded = (kernel * factor[:, np.newaxis, np.newaxis, np.newaxis]).astype(np.float32)
        offset = (bias * factor + shift).astype(np.float32)
    if not (np.isfinite(folded).all() and np.isfinite(offset).all()):
        raise reader.wrong("a layer's scaling is infinite or not a number")
    _trailer(reader)
    return Conv(folded, offset, stride, padding, relu)


def _conv(reader: _Reader, inputs: int) -> tuple[Floats, Floats, tuple[int, int], tuple[int, int]]:
    """Kernel, bias, stride, padding."""
    _tag(reader, "con_4")
    params = reader.tensor()
    channels, rows, columns = reader.integer(), reader.integer(), reader.integer()
    stride, padding = (reader.integer(), reader.integer()), (reader.integer(), reader.integer())
    filters, biases = reader.shape(1), reader.shape(1)
    for _ in range(4):  # learning rates and weight decays
        reader.number()
    reader.expect("the shape of a convolution", (filters[0], *filters[2:]), (channels, rows, columns))
    reader.expect("the number of its inputs", filters[1], inputs)
    reader.expect("the shape of its bias", biases, (1, channels, 1, 1))
    kernel = reader.part(params, 0, filters)
    bias = reader.part(params, kernel.size, (channels,))
    reader.expect("the number of its parameters", params.size, kernel.size + bias.size)
    return kernel, bias, stride, padding


def _scaling(reader: _Reader, channels: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Factor and shift per channel, of an `affine_` layer, or of a `bn_con2` layer that dlib reads as one."""
    tag = reader.text()
    reader.expect("a layer", tag, "affine_", "bn_con2")
    params = reader.tensor().astype(np.float64)
    wanted = (1, channels, 1, 1)
    reader.expect("the shape of a factor", reader.shape(1), wanted)
    reader.expect("the shape of a shift", reader.shape(1), wanted)
    reader.expect("the number of their values", params.size, 2 * channels)
    factor, shift = params.reshape(2, channels)
    if tag == "affine_":
        reader.expect("the mode of an affine layer", reader.integer(), _MODE_CONV)
        return factor, shift
    reader.tensor(), reader.tensor()  # the last batch's statistics
    mean, variance = reader.tensor(), reader.tensor()
    reader.expect("the shape of a running mean", mean.shape, wanted)
    reader.expect("the shape of a running variance", variance.shape, wanted)
    reader.integer(), reader.integer()  # number of updates, window
    for _ in range(4):  # learning rates and weight decays
        reader.number()
    factor = factor / np.sqrt(variance.reshape(-1).astype(np.float64) + reader.number())
    return factor, shift - factor * mean.reshape(-1)


def _fc(reader: _Reader, channels: int) -> Floats:
    _tag(reader, "fc_2")
    outputs, inputs = reader.integer(), reader.integer()
    reader.expect("the number of inputs of the last layer", inputs, channels)
    params = reader.tensor()
    reader.expect("the shape of the last layer", reader.shape(1), (inputs, outputs, 1, 1))
    reader.shape(1)  # of a bias that is not there
    reader.expect("the bias of the last layer", reader.integer(), _NO_BIAS)
    for _ in range(4):  # learning rates and weight decays
        reader.number()
    _trailer(reader)
    reader.expect("the number of its parameters", params.size, inputs * outputs)
    return reader.part(params, 0, (inputs, outputs))


def _outputs(conv: Conv) -> int:
    return len(conv.bias)


def _relu(reader: _Reader) -> None:
    _tag(reader, "relu_")
    _trailer(reader)


def _pool(reader: _Reader, tag: str, wanted: tuple[int, ...]) -> None:
    """Rows, columns, strides and paddings of a pooling layer, which are always the same."""
    _tag(reader, tag)
    reader.expect(f"the shape of {tag}", tuple(reader.integer() for _ in wanted), wanted)
    _trailer(reader)


def _tag(reader: _Reader, wanted: str) -> None:
    reader.expect("a layer", reader.text(), wanted)
