"""Builds ONNX models from dlib's weights: the residual face encoder, and plain chains of convolutions.

All models take pixels as they are: float32, shape (n, 3, height, width), RGB, 0 to 255. The subtraction of the mean and
the division are folded into the first convolution; that is exact because it pads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from edge_face.vision.weights import Block, Conv, DetectorWeights, EncoderWeights, Floats

INPUT = "image"
ENCODER_OUTPUT = "encoding"
DETECTOR_OUTPUT = "scores"

_OPSET = 13
_IR_VERSION = 8
"""What onnxruntime 1.20 and the dnn module of OpenCV 4.10 and later both read."""

Dim = int | str
"""A size, or the name of one that may change from run to run."""


class Graph:
    """Nodes and weights in the order of the calls; each call returns the name of its result."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._weights: list[onnx.TensorProto] = []

    def conv(self, data: str, conv: Conv) -> str:
        top, left = conv.padding
        result = self.node(
            "Conv",
            [data, self.constant(conv.kernel), self.constant(conv.bias)],
            kernel_shape=list(conv.kernel.shape[2:]),
            strides=list(conv.stride),
            pads=[top, left, top, left],
        )
        return self.node("Relu", [result]) if conv.relu else result

    def constant(self, values: npt.NDArray[np.float32] | npt.NDArray[np.int64]) -> str:
        name = f"weights_{len(self._weights)}"
        self._weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, inputs: Sequence[str], result: str = "", **attributes: Any) -> str:
        name = result or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def model(self, shape: Sequence[Dim], output: str, output_shape: Sequence[Dim]) -> bytes:
        """The graph from INPUT to the result named `output`, serialised."""
        graph = helper.make_graph(
            self._nodes,
            "edge-face",
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, output_shape)],
            self._weights,
        )
        opset = helper.make_opsetid("", _OPSET)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=_IR_VERSION, producer_name="edge-face")
        content: bytes = model.SerializeToString()
        return content


def encoder_model(weights: EncoderWeights) -> bytes:
    """dlib's face encoder as ONNX: (n, 3, 150, 150) to (n, 128), any n in one run."""
    graph = Graph()
    data = graph.conv(INPUT, normalised(weights.stem, weights.mean, weights.divisor))
    data = graph.node("MaxPool", [data], kernel_shape=[3, 3], strides=[2, 2])
    size = (_after(weights.size, weights.stem) - 3) // 2 + 1
    for block in weights.blocks:
        data, size = _block(graph, data, size, block)
    data = graph.node("Flatten", [graph.node("GlobalAveragePool", [data])])
    graph.node("Gemm", [data, graph.constant(weights.output)], ENCODER_OUTPUT)
    return graph.model(["n", 3, weights.size, weights.size], ENCODER_OUTPUT, ["n", weights.output.shape[1]])


def detector_model(weights: DetectorWeights) -> bytes:
    """dlib's MMOD detector as ONNX: (n, 3, height, width) to a score per cell, (n, 1, rows, columns); any sizes."""
    return chain_model(weights.convs, weights.mean, weights.divisor, DETECTOR_OUTPUT)


def chain_model(convs: Sequence[Conv], mean: Sequence[float], divisor: float, output: str) -> bytes:
    """Convolutions in a row on (pixel - mean) / divisor, with n, height and width free."""
    graph = Graph()
    data = INPUT
    for conv in (normalised(convs[0], mean, divisor), *convs[1:]):
        data = graph.conv(data, conv)
    graph.node("Identity", [data], output)
    return graph.model(["n", 3, "height", "width"], output, ["n", len(convs[-1].bias), "rows", "columns"])


def normalised(conv: Conv, mean: Sequence[float], divisor: float) -> Conv:
    """The convolution on (pixel - mean) / divisor as one on plain pixels."""
    if any(conv.padding):
        raise ValueError("a zero that pads the picture is not subtracted from: this cannot be folded")
    kernel = conv.kernel.astype(np.float64) / divisor
    bias = conv.bias - np.einsum("oihw,i->o", kernel, np.asarray(mean, np.float64))
    return replace(conv, kernel=kernel.astype(np.float32), bias=bias.astype(np.float32))


def _block(graph: Graph, data: str, size: int, block: Block) -> tuple[str, int]:
    """A residual block on a picture of that size, and the size of its result."""
    inner_size = _after(size, block.first)
    inner = graph.conv(graph.conv(data, block.first), _reaching(block.second, inner_size))
    if not block.halves:
        return graph.node("Relu", [graph.node("Add", [inner, data])]), size
    # dlib adds tensors of different shapes as if the smaller had zeros behind its last row, column and channel
    # (dnn/layers.h, add_prev_). Here the average has fewer channels, and the block sometimes fewer rows and columns.
    pooled_size = size // 2
    skip = graph.node("AveragePool", [data], kernel_shape=[2, 2], strides=[2, 2])
    had, wanted = block.first.kernel.shape[1], block.second.kernel.shape[0]
    if wanted > had:
        skip = graph.conv(skip, _widening(had, wanted))
    if pooled_size > inner_size:
        missing = pooled_size - inner_size
        inner = graph.node("Pad", [inner, graph.constant(np.array([0, 0, 0, 0, 0, 0, missing, missing], np.int64))])
    return graph.node("Relu", [graph.node("Add", [inner, skip])]), pooled_size


def _reaching(conv: Conv, size: int) -> Conv:
    """Without the weights that only ever meet zeros: a 3x3 kernel on a single pixel is its own centre.

    dlib's last block is such a one; a tenth of all weights need not be read from memory for each face.
    """
    if size > 1 or conv.kernel.shape[2:] != (3, 3) or conv.padding != (1, 1):
        return conv
    return replace(conv, kernel=conv.kernel[:, :, 1:2, 1:2], padding=(0, 0))


def _widening(channels: int, wanted: int) -> Conv:
    """Adds channels of zeros.

    As a convolution, because ONNX Runtime fuses that with the addition behind it; a padding of channels it copies
    (measured: 4 % of the whole network).
    """
    kernel: Floats = np.zeros((wanted, channels, 1, 1), np.float32)
    kernel[np.arange(channels), np.arange(channels)] = 1.0
    return Conv(kernel, np.zeros(wanted, np.float32), (1, 1), (0, 0), relu=False)


def _after(size: int, conv: Conv) -> int:
    """Height (and width) of what the convolution makes of a square picture."""
    rows: int = conv.kernel.shape[2]
    return (size + 2 * conv.padding[0] - rows) // conv.stride[0] + 1
