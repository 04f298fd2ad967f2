"""How fast each face detector is on one thread, and how well the CNN detector agrees with dlib's own.

usage: python benchmarks/detectors.py [FOLDER] [--photos N] [--rounds N] [--yunet FILE] [--json]

    FOLDER    photos of people (searched to any depth) for the agreement; without it, frames of the demo's clip
    --photos  how many of them, spread evenly over the folder (default 100)
    --yunet   YuNet's model file (scripts/get-yunet); without it, YuNet is left out

Times are medians for one picture of 640x480 (the demo's clip), of detectors that take turns: wall clock, and CPU time,
which holds on a busy machine. Agreement: of dlib's detections, how many the CNN detector has with an IoU of 0.9 at
least, and how many it has that dlib has not.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import cv2
import numpy as np

from edge_face import demo, settings
from edge_face.errors import EdgeFaceError
from edge_face.images import RgbImage
from edge_face.vision import models
from edge_face.vision.interfaces import Detection, Detector

LONGEST_PX = 800
SAME_IOU = 0.9
MIN_FACE = 120
"""For the row that searches large faces only."""

Run = Callable[[RgbImage], list[Detection]]


@dataclass(frozen=True, slots=True)
class Row:
    detector: str
    p50_ms: float
    """The percentiles are of wall clock."""
    p95_ms: float
    p99_ms: float
    cpu_ms: float
    """The median."""
    ratio: float
    """How many times as fast as dlib's CNN detector: p50."""
    ratio_cpu: float


@dataclass(slots=True)
class Agreement:
    photos: int = 0
    expected: int = 0
    found: int = 0
    added: list[float] = field(default_factory=list)
    """Confidences of what dlib has not."""
    smallest_iou: float = 1.0
    largest_difference: float = 0.0
    """Of the confidences of a face that both have."""

    def count(self, expected: list[Detection], found: list[Detection]) -> None:
        self.photos += 1
        self.expected += len(expected)
        left = list(found)
        for wanted in expected:
            best = max(left, key=lambda each: each.box.iou(wanted.box), default=None)
            if best is None or best.box.iou(wanted.box) < SAME_IOU:
                continue
            left.remove(best)
            self.found += 1
            self.smallest_iou = min(self.smallest_iou, best.box.iou(wanted.box))
            self.largest_difference = max(self.largest_difference, abs(best.confidence - wanted.confidence))
        self.added += [each.confidence for each in left]


def demo_frames(count: int) -> Iterator[RgbImage]:
    scene = demo.DemoScene()
    for index in range(30, 30 + 5 * count, 5):
        yield np.ascontiguousarray(scene.frame(index)[:, :, ::-1])


def photos(folder: Path, count: int) -> Iterator[RgbImage]:
    """Those that OpenCV reads, LONGEST_PX at most."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for path in paths[:: max(1, len(paths) // count)][:count]:
        image = cv2.imread(str(path))
        if image is not None:
            yield shrunk(np.ascontiguousarray(image[:, :, ::-1], dtype=np.uint8))


def shrunk(image: RgbImage) -> RgbImage:
    factor = LONGEST_PX / max(image.shape[:2])
    if factor >= 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def agreement(detector: Detector, reference: Detector, images: Iterable[RgbImage]) -> Agreement:
    result = Agreement()
    for image in images:
        result.count(reference.detect(image), detector.detect(image))
    return result


def measure(runs: dict[str, Run], frames: list[RgbImage], rounds: int) -> list[Row]:
    """Each against the first one. They take turns picture by picture."""
    walls: dict[str, list[float]] = {name: [] for name in runs}
    cpus: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        frame = frames[number % len(frames)]
        for name, run in runs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            run(frame)
            if number:  # the first round warms up
                cpus[name].append((time.process_time() - cpu) * 1000)
                walls[name].append((time.perf_counter() - wall) * 1000)
    first = next(iter(runs))
    rows = []
    for name in runs:
        p50, p95, p99 = (float(each) for each in np.percentile(walls[name], (50, 95, 99)))
        cpu = statistics.median(cpus[name])
        ratios = (statistics.median(walls[first]) / p50, statistics.median(cpus[first]) / cpu)
        rows.append(Row(name, p50, p95, p99, cpu, *ratios))
    return rows


def load(detector: str, backend: str = "auto", yunet: str = "") -> Detector:
    return models.load(settings.Engine(backend=backend, detector=detector, threads=1, yunet_model=yunet)).detector


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--photos", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--yunet", default="")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    dlibs = load("cnn", "face_recognition")
    runs: dict[str, Run] = {"dlib's CNN": dlibs.detect, "hog": load("hog").detect}
    fast: Detector | None = None
    for backend in ("opencv", "onnxruntime"):  # the fastest last
        try:
            fast = load("cnn", backend)
        except EdgeFaceError as error:
            print(error.message)
            continue
        runs[f"cnn, {backend}"] = fast.detect
        runs[f"cnn, {backend}, {MIN_FACE} px and more"] = lambda image, each=fast: each.detect(image, MIN_FACE)  # type: ignore[misc]
    if args.yunet:
        runs["yunet"] = load("yunet", yunet=args.yunet).detect
    rows = measure(runs, list(demo_frames(8)), args.rounds)
    images = photos(args.folder, args.photos) if args.folder else demo_frames(args.photos)
    agreed = agreement(fast, dlibs, images) if fast else Agreement()
    if args.json:
        print(json.dumps({"rows": [asdict(row) for row in rows], "agreement": asdict(agreed)}))
        return
    print(f"{platform.machine()}, Python {platform.python_version()}, 640x480, {args.rounds} rounds, one thread\n")
    titles = ("p50 ms", "p95 ms", "p99 ms", "CPU ms", "ratio", "ratio CPU")
    print(f"{'detector':<36}" + "".join(f"{title:>11}" for title in titles))
    for row in rows:
        numbers = (row.p50_ms, row.p95_ms, row.p99_ms, row.cpu_ms, row.ratio, row.ratio_cpu)
        print(f"{row.detector:<36}" + "".join(f"{number:>11.1f}" for number in numbers))
    print(
        f"\ncnn and dlib's CNN on {agreed.photos} photos: {agreed.found} of {agreed.expected} detections found "
        f"(smallest IoU {agreed.smallest_iou:.3f}, largest difference in confidence {agreed.largest_difference:.4f}), "
        f"{len(agreed.added)} added" + (f" (up to {max(agreed.added):.2f})" if agreed.added else "")
    )


if __name__ == "__main__":
    main()
