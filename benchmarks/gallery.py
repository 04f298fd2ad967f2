"""How long one thread takes to find the nearest two people, next to face_recognition's and FAISS's exact search.

usage: python benchmarks/gallery.py [--largest N] [--rounds N] [--json]

    --largest  templates of the largest gallery (default 1000000, which takes 2 GB with FAISS's copy)

1,000 templates up to that many, five for a person, for one probe and for eight. Times are of one call for all the
probes, of searches that take turns of eight calls. `faiss` gives Edge Face's own answer, the nearest person and how
much farther the second one is: IndexFlatL2 searches the six templates it takes to be sure of a second person. The
others give less: `f. bare` is its search alone, for two templates, which may both be one person's; face_distance gives
distances, of the same float32 templates and, `64`, of the float64 ones that face_recognition makes (both left out above
100,000 templates). FAISS is left out where it is not installed.

BLAS reads its number of threads before it starts: OPENBLAS_NUM_THREADS is set to 1 here unless it is set already.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import face_recognition
import numpy as np
import numpy.typing as npt

from edge_face.events import Match, Person
from edge_face.gallery import Gallery

try:
    import faiss
except ImportError:
    faiss = None

Array = npt.NDArray[np.float32]

EACH = 5
"""Templates of one person."""

TEMPLATES = (1_000, 5_000, 10_000, 100_000, 1_000_000)
PROBES = (1, 8)
FACE_DISTANCE_UP_TO = 100_000

BURST = 8
"""Calls of one search before it is the next one's turn: a turn's first call finds the caches full of others'."""


@dataclass(frozen=True, slots=True)
class Row:
    templates: int
    people: int
    probes: int
    p50_us: float
    p95_us: float
    p99_us: float
    face_distance_us: float | None
    face_distance64_us: float | None
    faiss_us: float | None
    """All of these are medians."""
    faiss_bare_us: float | None
    ratio_face_distance: float | None
    """How many times as fast as face_distance."""
    ratio_face_distance64: float | None
    ratio_faiss: float | None
    ratio_faiss_bare: float | None


def made_up(templates: int) -> tuple[list[Person], npt.NDArray[np.int32], Array]:
    """People whose templates lie as far apart as those of dlib's encoder do."""
    random = np.random.default_rng(7)
    count = templates // EACH
    centres = random.standard_normal((count, 128), np.float32) * np.float32(0.07)
    matrix = np.repeat(centres, EACH, axis=0)
    matrix += random.standard_normal(matrix.shape, np.float32) * np.float32(0.02)
    owners = np.repeat(np.arange(count, dtype=np.int32), EACH)
    return [Person(f"p{number}", f"Person {number}") for number in range(count)], owners, matrix


def take_turns(searches: dict[str, Callable[[Array], object]], probes: list[Array]) -> dict[str, list[float]]:
    """Microseconds of each search of each of `probes`."""
    took: dict[str, list[float]] = {name: [] for name in searches}
    for first in range(0, len(probes), BURST):
        for name, search in searches.items():
            for probe in probes[first : first + BURST]:
                begin = time.perf_counter()
                search(probe)
                if first:  # the first round warms up
                    took[name].append((time.perf_counter() - begin) * 1e6)
    return took


def measure(templates: int, rounds: int | None) -> list[Row]:
    persons, owners, matrix = made_up(templates)
    gallery = Gallery.build(persons, owners, matrix)
    index: Any = None
    if faiss is not None:
        faiss.omp_set_num_threads(1)
        index = faiss.IndexFlatL2(128)
        index.add(matrix)

    doubles = matrix.astype(np.float64) if templates <= FACE_DISTANCE_UP_TO else np.empty(0)

    def face_distance(probe: Array) -> None:
        for encoding in probe:
            face_recognition.face_distance(matrix, encoding)

    def face_distance64(probe: Array) -> None:
        for encoding in probe.astype(np.float64):
            face_recognition.face_distance(doubles, encoding)

    random = np.random.default_rng(8)
    rows = []
    for count in PROBES:
        times = rounds or max(3, min(100, 1_000_000 // templates))
        shape = ((times + 1) * BURST, count)
        probes = matrix[random.integers(0, templates, shape)]
        probes += random.standard_normal((*shape, 128), np.float32) * np.float32(0.02)
        searches: dict[str, Callable[[Array], object]] = {"edge-face": lambda probe: gallery.match(list(probe))}
        if templates <= FACE_DISTANCE_UP_TO:
            searches["face_distance"] = face_distance
            searches["face_distance64"] = face_distance64
        if index is not None:
            searches["faiss"] = lambda probe: with_faiss(index, persons, owners, probe)
            searches["faiss_bare"] = lambda probe: index.search(probe, 2)
            check(gallery.match(list(probes[0])), with_faiss(index, persons, owners, probes[0]))
        took = take_turns(searches, list(probes))
        p50, p95, p99 = (float(each) for each in np.percentile(took["edge-face"], (50, 95, 99)))
        medians = {name: float(np.median(each)) for name, each in took.items()}
        others = [medians.get(name) for name in ("face_distance", "face_distance64", "faiss", "faiss_bare")]
        ratios = [other and other / p50 for other in others]
        rows.append(Row(templates, len(gallery), count, p50, p95, p99, *others, *ratios))
    return rows


def with_faiss(index: Any, persons: list[Person], owners: npt.NDArray[np.int32], probes: Array) -> list[Match]:
    """What `Gallery.match` answers, as somebody would write it who uses FAISS."""
    matches = []
    for squares, templates in zip(*index.search(probes, EACH + 1), strict=True):
        found = owners[templates]
        second = int((found != found[0]).argmax())
        distance = math.sqrt(max(squares.item(0), 0))
        matches.append(Match(persons[found.item(0)], distance, math.sqrt(max(squares.item(second), 0)) - distance))
    return matches


def check(ours: list[Match], theirs: list[Match]) -> None:
    """Fast is no use if it is wrong."""
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.person == other.person, (mine, other)
        for value, expected in ((mine.distance, other.distance), (mine.margin, other.margin)):
            assert value is not None
            assert expected is not None
            assert abs(value - expected) < 1e-3, (mine, other)


def cell(value: float | None, digits: int = 0) -> str:
    return f"{'-' if value is None else format(value, f',.{digits}f'):>11}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--largest", type=int, default=TEMPLATES[-1])
    parser.add_argument("--rounds", type=int, help="default: fewer for larger galleries, 3 to 100")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    rows = [row for templates in TEMPLATES if templates <= args.largest for row in measure(templates, args.rounds)]
    if args.json:
        print(json.dumps({"name": "gallery", "rows": [asdict(row) for row in rows]}))
        return
    threads = os.environ["OPENBLAS_NUM_THREADS"]
    print(f"{platform.machine()}, Python {platform.python_version()}, NumPy {np.__version__}, {threads} BLAS thread(s)")
    if faiss is None:
        print("FAISS is not installed (pip install faiss-cpu) and is left out.")
    titles = (
        *("p50 us", "p95 us", "p99 us", "face_d.", "face_d. 64", "faiss", "f. bare"),
        *("x face_d.", "x f_d. 64", "x faiss", "x f. bare"),
    )
    print(f"\n{'templates':>9}{'people':>9}{'probes':>8}" + "".join(f"{title:>11}" for title in titles))
    for row in rows:
        times = (row.p50_us, row.p95_us, row.p99_us, row.face_distance_us, row.face_distance64_us)
        ratios = (row.ratio_face_distance, row.ratio_face_distance64, row.ratio_faiss, row.ratio_faiss_bare)
        print(
            f"{row.templates:>9}{row.people:>9}{row.probes:>8}"
            + "".join(cell(time) for time in (*times, row.faiss_us, row.faiss_bare_us))
            + "".join(cell(ratio, 2) for ratio in ratios)
        )


if __name__ == "__main__":
    main()
