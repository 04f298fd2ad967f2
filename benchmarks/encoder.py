"""How fast dlib's face encoder is in each backend on one thread, and how well the backends agree with dlib.

usage: python benchmarks/encoder.py [FOLDER] [--photos N] [--rounds N] [--json]

    FOLDER    photos of people (searched to any depth); without it, frames of the demo's clip
    --photos  how many of them, spread evenly over the folder (default 600)

Agreement: the largest L2 difference to `face_recognition.face_encodings` over all faces that HOG finds. Times are
for one face, of backends that take turns: wall clock, and the median of CPU time, which holds on a busy machine.

Arithmetic: what the network has to compute for a face, how fast this machine multiplies matrices, and from both how
many times as fast as dlib a backend could at best be here.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import cv2
import face_recognition
import numpy as np
import numpy.typing as npt

from edge_face import demo, settings
from edge_face.bench import counts
from edge_face.errors import EdgeFaceError
from edge_face.vision import models
from edge_face.vision.interfaces import Encoder

Image = npt.NDArray[np.uint8]

BURST = 8
"""Faces that a backend encodes, one by one, before it is the next one's turn: each finds the caches full of others'."""


@dataclass(frozen=True, slots=True)
class Row:
    backend: str
    p50_ms: float
    """The percentiles are of wall clock."""
    p95_ms: float
    p99_ms: float
    cpu_ms: float
    ratio: float
    """How many times as fast as dlib: p50."""
    ratio_cpu: float
    batch_ms: float
    """CPU time for one face of BURST in one run."""
    max_l2: float


def demo_photos() -> Iterator[Image]:
    scene = demo.DemoScene()
    for index in range(0, 400, 3):
        yield np.ascontiguousarray(scene.frame(index)[:, :, ::-1])


def photos(folder: Path, count: int) -> Iterator[Image]:
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    for path in paths[:: max(1, len(paths) // count)][:count]:
        image = cv2.imread(str(path))
        if image is not None:
            yield np.ascontiguousarray(image[:, :, ::-1], dtype=np.uint8)


def faces(images: Iterable[Image], loaded: models.Models) -> tuple[Image, npt.NDArray[np.float64]]:
    """Chips (n, 150, 150, 3), cut as the daemon does it, and face_recognition's own encodings (n, 128) of the faces."""
    chips, encodings = [], []
    for image in images:
        for found in loaded.detector.detect(image):
            box = found.box
            chips.append(loaded.aligner.align(image, box).chip)
            edges = (box.y1, box.x2 - 1, box.y2 - 1, box.x1)  # face_recognition's are inclusive
            encodings += face_recognition.face_encodings(image, [edges])
    return np.stack(chips), np.array(encodings)


def measure(chips: Image, expected: npt.NDArray[np.float64], encoders: dict[str, Encoder], rounds: int) -> list[Row]:
    few = np.stack([chips[number % len(chips)] for number in range(BURST)])
    walls: dict[str, list[float]] = {name: [] for name in encoders}
    cpus: dict[str, list[float]] = {name: [] for name in encoders}
    batches: dict[str, list[float]] = {name: [] for name in encoders}
    for number in range(rounds + 1):
        for name, encoder in encoders.items():
            cpu = time.process_time()
            for chip in few:
                wall = time.perf_counter()
                encoder.encode(chip[np.newaxis])
                if number:  # the first round warms up
                    walls[name].append((time.perf_counter() - wall) * 1000)
            if number:
                cpus[name].append((time.process_time() - cpu) * 1000 / BURST)
            if number % 4 == 1:
                cpu = time.process_time()
                encoder.encode(few)
                batches[name].append((time.process_time() - cpu) * 1000 / BURST)
    dlibs_wall, dlibs_cpu = (statistics.median(each["face_recognition"]) for each in (walls, cpus))
    rows = []
    for name, encoder in encoders.items():
        p50, p95, p99 = (float(each) for each in np.percentile(walls[name], (50, 95, 99)))
        cpu_ms, batch_ms = statistics.median(cpus[name]), statistics.median(batches[name])
        max_l2 = float(np.linalg.norm(encoder.encode(chips) - expected, axis=1).max())
        rows.append(Row(name, p50, p95, p99, cpu_ms, dlibs_wall / p50, dlibs_cpu / cpu_ms, batch_ms, max_l2))
    return rows


def arithmetic(dlib_ms: float) -> dict[str, float]:
    gflop = counts.encoder().flop / 1e9
    speed = matrix_speed()
    return {
        "gflop": gflop,
        "machine_gflop_per_s": speed,
        "least_ms": gflop / speed * 1000,
        "most_ratio": dlib_ms / (gflop / speed * 1000),
    }


def matrix_speed(size: int = 512, rounds: int = 50) -> float:
    """GFLOP/s of NumPy's float32 matrix product on one thread: the best of many, as other programs may run."""
    a, b = np.random.default_rng(1).random((2, size, size), np.float32)
    least = math.inf
    for _ in range(rounds):
        begin = time.perf_counter()
        a @ b
        least = min(least, time.perf_counter() - begin)
    return 2e-9 * size**3 / least


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--photos", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    loaded: dict[str, models.Models] = {}
    for backend in models.BACKENDS:
        try:
            loaded[backend] = models.load(settings.Engine(backend=backend, detector="hog", threads=1))
        except EdgeFaceError as error:
            print(error.message)
    chips, expected = faces(
        photos(args.folder, args.photos) if args.folder else demo_photos(), loaded["face_recognition"]
    )
    rows = measure(chips, expected, {name: each.encoder for name, each in loaded.items()}, args.rounds)
    limits = arithmetic(next(row.cpu_ms for row in rows if row.backend == "face_recognition"))
    if args.json:
        print(json.dumps({"faces": len(chips), "rows": [asdict(row) for row in rows], "arithmetic": limits}))
        return
    print(
        f"{platform.machine()}, Python {platform.python_version()}, {len(chips)} faces, {args.rounds} rounds, "
        "one thread\n"
    )
    titles = ("p50 ms", "p95 ms", "p99 ms", "CPU ms", "ratio", "ratio CPU", "of 8, ms", "max L2")
    print(f"{'backend':<18}" + "".join(f"{title:>11}" for title in titles))
    for row in rows:
        numbers = (row.p50_ms, row.p95_ms, row.p99_ms, row.cpu_ms, row.ratio, row.ratio_cpu, row.batch_ms)
        print(f"{row.backend:<18}" + "".join(f"{number:>11.2f}" for number in numbers) + f"{row.max_l2:>11.2g}")
    print(
        "\n{gflop:.3f} GFLOP for a face; this machine multiplies matrices with {machine_gflop_per_s:.0f} GFLOP/s: "
        "{least_ms:.2f} ms at least, {most_ratio:.1f} times as fast as dlib at most".format(**limits)
    )


if __name__ == "__main__":
    main()
