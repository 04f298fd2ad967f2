"""What each stage computes and moves, beside values known from elsewhere; and what follows from a board's speeds."""

from __future__ import annotations

import dataclasses
import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from edge_face import settings
from edge_face.access import Access
from edge_face.bench import counts, rates, scene
from edge_face.bench.predict import EVERYTHING, Scenario, Scene, predict
from edge_face.bench.results import Rates, Speed
from edge_face.engine import Engine
from edge_face.events import FrameResult, Match
from edge_face.vision import models
from edge_face.vision.models import Models
from edge_face.vision.onnx_build import Graph
from edge_face.vision.pyramid import layout
from edge_face.vision.weights import Conv, read_detector


def test_a_convolution_counted_by_hand() -> None:
    """8 channels of 20x10 to 16, 3x3, every second place, nothing around: 9x4 places."""
    graph = Graph()
    kernel = np.zeros((16, 8, 3, 3), np.float32)
    graph.node("Identity", [graph.conv("image", Conv(kernel, np.zeros(16, np.float32), (2, 2), (0, 0), True))], "out")
    work = counts.net(graph.model(["n", 8, "height", "width"], "out", ["n", 16, "rows", "columns"]), (1, 8, 10, 20))
    assert work.flop == 2 * (16 * 4 * 9) * (8 * 3 * 3)
    assert work.bytes == 4 * (8 * 10 * 20 + 16 * 8 * 3 * 3 + 16 + 16 * 4 * 9)
    assert work.fresh == 0


def test_the_encoder_is_as_large_as_is_known() -> None:
    """272 million multiply-adds and 5.6 million weights (dlib's own description of the network)."""
    assert counts.encoder().flop / 2 == pytest.approx(272e6, rel=0.005)
    assert counts.encoder().bytes > 4 * 5.0e6


@pytest.mark.parametrize("size", [(320, 240), (640, 480)])
def test_the_cnn_is_its_layers_on_its_canvas(size: tuple[int, int]) -> None:
    weights = read_detector(models.weights(models.DETECTOR))
    places = layout(*size, weights.window[0])
    assert places
    width, height, channels, macs = places.width, places.height, 3, 0
    for number, conv in enumerate(weights.convs):
        rows, columns = conv.kernel.shape[2:]
        last = number == len(weights.convs) - 1
        if not last:
            width = (width + 2 * conv.padding[1] - columns) // conv.stride[1] + 1
            height = (height + 2 * conv.padding[0] - rows) // conv.stride[0] + 1
        made = rows * columns if last else math.ceil(len(conv.bias) / 16) * 16
        macs += width * height * channels * (made if last else made * rows * columns)
        channels = made
    assert counts.cnn_search(*size).flop == pytest.approx(2 * macs, rel=0.03)  # painting and summing besides


def test_dlibs_filters_are_as_many_as_its_detector_has() -> None:
    """scan_fhog_pyramid.h keeps singular values from a thousandth of the largest on, and 0.0001 at least."""
    import dlib

    state = pickle.dumps(dlib.get_frontal_face_detector())
    at, numbers = state.index(b"B") + 5, []
    while at < len(state) - 16:
        length, sign = state[at] & 127, -1 if state[at] & 128 else 1
        numbers.append(sign * int.from_bytes(state[at + 1 : at + 1 + length], "little"))
        at += 1 + length
    begins = [place + 2 for place in range(len(numbers)) if numbers[place] == -3101]
    assert len(begins) == 5
    kept = 0
    for begin in begins:
        pairs = numbers[begin : begin + 6200]
        weights = np.array([math.ldexp(m, e) for m, e in zip(pairs[::2], pairs[1::2], strict=True)])
        for plane in weights.reshape(31, 10, 10):
            values = np.linalg.svd(plane)[1]
            kept += int((values >= max(1e-4, values.max() * 0.001)).sum())
    assert kept == counts.HOG_FILTERS


def test_hog_by_its_cells() -> None:
    """80x72 has one copy only: 5/6 of it is lower than 64 pixels."""
    filters = 10 * 9 * counts.HOG_FILTERS * 20 * 2
    one = counts.hog_search(80, 72).flop
    assert filters < one < 1.5 * filters
    many = counts.hog_search(1280, 960).flop / counts.hog_search(640, 480).flop
    assert many == pytest.approx(4, rel=0.05)


def test_yunet_is_what_its_file_says(data: Path) -> None:
    counted = counts.yunet_net(data / "models" / "face_detection_yunet_2023mar.onnx", 640)
    told = counts.yunet_search(640, 640)
    assert told.flop == pytest.approx(counted.flop, rel=1e-3)
    assert told.bytes == pytest.approx(counted.bytes, rel=1e-3)
    assert counts.yunet_search(1280, 1280).flop == pytest.approx(
        5 * counted.flop, rel=1e-3
    )  # and once at half its size


def test_what_is_too_large_to_be_kept_is_fresh() -> None:
    assert counts.cnn_search(640, 480).fresh == 0
    large = counts.cnn_search(1280, 720)
    assert 32 << 20 < large.fresh < large.bytes


def test_pictures_by_their_pixels() -> None:
    assert counts.scale(100, 50, 1.0).bytes == 2 * 3 * 100 * 50
    assert counts.resized(101, 51, 0.5) == (50, 26)  # OpenCV's rounding, to even
    assert counts.jpeg(64, 64).flop == 64 * 1.5 * 544 + 64 * 64 * 9
    assert counts.match(1000).flop == 2 * 129 * 1000
    names = [name for name, _ in counts.table(640, 480, 80, 150, 1000)]
    assert {"grab", "detect hog", "detect cnn", "detect yunet", "encode", "match 1,000", "JPEG"} <= set(names)


def test_the_scene_is_the_demos(loaded_models: Models) -> None:
    """Each frame as the daemon takes it: what is settled is not encoded again. All within a second."""
    engine, access = Engine(loaded_models, settings.Engine()), Access(settings.Decision())
    frames = scene.demo_visit()
    aligned = encoded = seen = 0
    for number, frame in enumerate(frames):
        at = number / 100
        faces, _ = engine.process(frame, at)
        result = FrameResult("demo", number, 0, at, 1e9 + at, 640, 480, faces, {})
        matches = [None if face.encoding is None else Match() for face in faces]
        engine.settled(access.observe(result, matches, at).settled)
        seen += len(faces)
        aligned += sum(face.quality is not None for face in faces)
        encoded += sum(face.encoding is not None for face in faces)
    told = Scene()
    print(engine.counts, seen, aligned, encoded)
    assert engine.counts["search"] == pytest.approx(told.searched * len(frames), abs=2)
    assert seen == pytest.approx(told.seen * len(frames), abs=2)
    assert aligned == pytest.approx(seen, abs=3)
    assert encoded == pytest.approx(told.encoded * len(frames), abs=3)


KINDS = ("hog", "cnn", "encode", "scale", "grab", "motion", "align", "JPEG", "follow", "hand over", "match")
RATES = Rates(
    (*(Speed(kind, 1, 10.0, 0.5) for kind in KINDS), *(Speed(kind, 2, 20.0, 0.5) for kind in ("cnn", "encode"))),
    *(10.0, 20.0, 1.0, 5, 10.0),
)
VGA = Scenario(640, 480, "hog", cores=1)


def fps(found: Rates = RATES, **changes: object) -> float:
    one = predict(found, dataclasses.replace(VGA, **changes))
    assert one
    return one.fps


def test_a_stage_takes_its_arithmetic_and_its_fixed_time() -> None:
    one = predict(RATES, VGA)
    assert one
    assert one.stages_ms["encode"] == pytest.approx(0.5 + counts.encoder().flop / 10e6, rel=1e-3)
    assert one.stages_ms["detect"] == pytest.approx(0.5 + counts.hog_search(576, 432).flop / 10e6, rel=1e-3)
    everything = sum(ms for name, ms in one.stages_ms.items() if name != "JPEG")
    assert one.whole_ms == pytest.approx(everything, rel=1e-3)
    assert one.fps == pytest.approx(1000 / one.frame_ms, rel=1e-3)
    assert not one.at_least


def test_cameras_are_limited_by_cores() -> None:
    assert fps(cores=2, cameras=2) == pytest.approx(2 * fps(), rel=1e-3)
    assert fps(cores=2, cameras=6) == pytest.approx(2 * fps(), rel=0.1)  # each has fewer frames, so more are encoded
    assert fps(cores=4, cameras=1) == pytest.approx(fps(), rel=1e-3)


def test_cameras_share_the_memory() -> None:
    """One core can have all of it here, so two are slower than one each."""
    narrow = dataclasses.replace(RATES, copy_all_gbs=10.0)
    alone = fps(narrow)
    assert alone == fps()
    assert 1.2 * alone < fps(narrow, cores=2, cameras=2) < 1.9 * alone


def test_fresh_memory_takes_the_kernels_time() -> None:
    """The CNN at 720p, where its arrays are too large to be kept, and not at VGA."""
    fast = dataclasses.replace(RATES, fresh_gbs=1e9)
    for size, fresh in (((640, 480), 0), ((1280, 720), counts.cnn_search(1200, 675).fresh)):
        scenario = dataclasses.replace(VGA, width=size[0], height=size[1], detector="cnn")
        slow_one, fast_one = predict(RATES, scenario), predict(fast, scenario)
        assert slow_one
        assert fast_one
        more_ms = slow_one.stages_ms["detect"] - fast_one.stages_ms["detect"]
        assert more_ms == pytest.approx(fresh / RATES.fresh_gbs / 1e6, abs=0.01)


def test_threads_help_what_has_them_and_only_on_cores_of_their_own() -> None:
    assert fps(detector="cnn", cores=2, threads=2) > 1.7 * fps(detector="cnn", cores=2)
    assert fps(detector="cnn", cores=1, threads=2) == fps(detector="cnn", cores=1)
    assert fps(detector="cnn", cores=4, threads=4) == fps(detector="cnn", cores=4, threads=2)  # more were not tried


def test_everything_costs_something() -> None:
    base = fps()
    dearer: tuple[dict[str, object], ...] = (
        {"width": 1280, "height": 720},
        {"faces": 3},
        {"people": 100_000},
        {"min_face": 40},
        {"watched": True},
        {"detector": "cnn"},
        {"scene": EVERYTHING},
    )
    for change in dearer:
        assert fps(**change) < base, change


def test_a_detector_that_was_not_measured_is_not_predicted() -> None:
    assert predict(RATES, dataclasses.replace(VGA, detector="yunet")) is None


def test_a_search_that_is_too_slow_is_not_made_in_each_frame() -> None:
    one = predict(RATES, dataclasses.replace(VGA, detector="cnn"))
    assert one
    assert one.stages_ms["detect"] > 500
    assert one.at_least


def test_a_speed_is_the_line_through_two_works() -> None:
    def probe(flop: float, ms: float) -> rates.Probe:
        return rates.Probe("x", 1, counts.Work(flop), lambda _: None, [ms])

    assert rates.speed_of("x", 1, [probe(30e6, 5.0), probe(10e6, 3.0)]) == Speed("x", 1, 10.0, 2.0)
    assert rates.speed_of("x", 1, [probe(10e6, 5.0), probe(30e6, 3.0)]) == Speed("x", 1, 10.0, 0.0)  # falls: noise
    assert rates.speed_of("x", 1, [probe(0, 5.0)]) == Speed("x", 1, 0.0, 5.0)
    assert rates.speed_of("x", 1, [probe(20e6, 4.0)]) == Speed("x", 1, 5.0, 0.0)
