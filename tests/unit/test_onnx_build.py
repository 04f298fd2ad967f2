"""The converted networks, compared with plain arithmetic and with dlib."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_face import settings
from edge_face.vision import known_answer, models, onnx_build, weights
from edge_face.vision.files import DETECTOR
from edge_face.vision.interfaces import Encoder
from edge_face.vision.onnx_backend import CvSession, OrtSession, Session, pixels
from edge_face.vision.weights import Conv
from tests.support.photos import Image, astronaut, hopper


def conv(shape: tuple[int, int, int, int], stride: int, padding: int, seed: int, *, relu: bool) -> Conv:
    random = np.random.default_rng(seed)
    kernel = random.normal(0, 0.2, shape).astype(np.float32)
    bias = random.normal(0, 0.2, shape[0]).astype(np.float32)
    return Conv(kernel, bias, (stride, stride), (padding, padding), relu)


def apply(data: np.ndarray, layer: Conv) -> np.ndarray:
    """The definition, in float64: (channels, height, width) to the same."""
    (pad, _), (stride, _), (_, _, rows, columns) = layer.padding, layer.stride, layer.kernel.shape
    padded = np.pad(data, ((0, 0), (pad, pad), (pad, pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (rows, columns), axis=(1, 2))[:, ::stride, ::stride]
    result = np.einsum("cyxij,ocij->oyx", windows, layer.kernel.astype(np.float64)) + layer.bias[:, None, None]
    return np.maximum(result, 0) if layer.relu else result


def session(kind: str, model: bytes) -> Session:
    return OrtSession(model, 1) if kind == "onnxruntime" else CvSession(model)


@pytest.mark.parametrize("kind", ["onnxruntime", "opencv"])
def test_a_chain_is_what_its_definition_says_at_any_size(kind: str) -> None:
    layers = [conv((8, 3, 5, 5), 2, 0, 1, relu=True), conv((4, 8, 3, 3), 1, 1, 2, relu=False)]
    mean = (120.0, 110.0, 100.0)
    model = session(kind, onnx_build.chain_model(layers, mean, 256.0, "out"))
    for height, width in ((40, 60), (33, 21), (40, 60)):
        image = np.random.default_rng(height).integers(0, 256, (1, height, width, 3), dtype=np.uint8)
        expected = (image[0].transpose(2, 0, 1) - np.array(mean)[:, None, None]) / 256
        for layer in layers:
            expected = apply(expected, layer)
        found = model.run(pixels(image))
        assert found.shape == (1, *expected.shape)
        assert np.abs(found[0] - expected).max() < 1e-4


def test_a_first_layer_that_pads_cannot_take_the_normalisation() -> None:
    with pytest.raises(ValueError, match="cannot be folded"):
        onnx_build.normalised(conv((4, 3, 3, 3), 1, 1, 1, relu=True), (1.0, 2.0, 3.0), 256.0)


@pytest.mark.parametrize("kind", ["onnxruntime", "opencv"])
def test_a_residual_block_adds_as_if_the_smaller_had_zeros_behind_it(kind: str) -> None:
    """4 by 4 pixels: the block gives 1 by 1 with 6 channels, the pooled skip 2 by 2 with 3."""
    first, second = conv((6, 3, 3, 3), 2, 0, 3, relu=True), conv((6, 6, 3, 3), 1, 1, 4, relu=False)
    graph = onnx_build.Graph()
    result, size = onnx_build._block(graph, onnx_build.INPUT, 4, weights.Block(first, second, True))
    graph.node("Identity", [result], "out")
    model = session(kind, graph.model(["n", 3, 4, 4], "out", ["n", 6, 2, 2]))
    data = np.random.default_rng(5).normal(size=(3, 4, 4)).astype(np.float32)
    expected = np.zeros((6, 2, 2))
    expected[:, :1, :1] += apply(apply(data, first), second)
    expected[:3] += data.reshape(3, 2, 2, 2, 2).mean(axis=(2, 4))
    assert size == 2
    assert np.abs(model.run(data[np.newaxis])[0] - np.maximum(expected, 0)).max() < 1e-5


@pytest.mark.parametrize("kind", ["onnxruntime", "opencv"])
def test_the_detector_runs_at_any_size_and_both_agree(kind: str) -> None:
    model = onnx_build.detector_model(weights.read_detector(models.weights(DETECTOR)))
    image = np.ascontiguousarray(astronaut()[np.newaxis, :300, :400])
    scores = session(kind, model).run(pixels(image))
    assert scores.shape == (1, 1, 34, 47)
    row, column = np.unravel_index(scores[0, 0].argmax(), scores.shape[2:])
    assert scores.max() > 0  # Eileen's face, whose centre is near (225, 115)
    assert (8 * column + 14, 8 * row + 14) == pytest.approx((225, 115), abs=40)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Encoder]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        return {name: models.load(settings.Engine(backend=name)).encoder for name in models.BACKENDS}


def chips(loaded: models.Models) -> Image:
    """Both faces, upright, mirrored, dark and bright."""
    found = []
    for photo in (astronaut(), hopper()):
        for image in (photo, np.ascontiguousarray(photo[:, ::-1]), photo // 2, 255 - (255 - photo) // 2):
            found += [loaded.aligner.align(image, face.box).chip for face in loaded.detector.detect(image)]
    return np.stack(found)


@pytest.mark.parametrize("backend", ["onnxruntime", "opencv"])
def test_encodings_are_dlibs_in_a_batch_of_any_size(
    backend: str, encoders: dict[str, Encoder], loaded_models: models.Models
) -> None:
    faces = chips(loaded_models)
    assert len(faces) >= 8
    expected = encoders["face_recognition"].encode(faces)
    for count in (1, 3, 2, len(faces)):
        found = encoders[backend].encode(faces[:count])
        assert found.dtype == np.float32
        assert np.linalg.norm(found - expected[:count], axis=1).max() < 1e-5
    repeated = np.tile(faces, (3, 1, 1, 1))  # more than one run takes
    assert np.linalg.norm(encoders[backend].encode(repeated) - np.tile(expected, (3, 1)), axis=1).max() < 1e-5
    assert encoders[backend].encode(faces[:0]).shape == (0, 128)


def test_results_of_one_run_outlive_the_next(encoders: dict[str, Encoder]) -> None:
    chip = known_answer.test_chip()[np.newaxis]
    for encoder in encoders.values():
        first = encoder.encode(chip)
        kept = first.copy()
        encoder.encode(255 - chip)
        assert np.array_equal(first, kept)


def test_a_conversion_is_the_same_every_time() -> None:
    content = Path(models.weights(DETECTOR)).read_bytes()
    made = [onnx_build.detector_model(weights.parse_detector(content, DETECTOR)) for _ in range(2)]
    assert made[0] == made[1]
