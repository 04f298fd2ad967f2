"""How fast a folder of photos is enrolled by the command line, next to face_recognition's own functions.

usage: python benchmarks/enrolment.py FOLDER [--photos N] [--sample N] [--json]

    FOLDER     photos of people, in folders of their names or not
    --photos   how many are enrolled, one of each person as far as that goes (default 1000)
    --sample   of how many of them face_recognition's time is taken (default 40): it needs the same for each

Edge Face is `edge-face enroll --dir`, from the start of the command to its end, with all that it checks and with every
face on the disk. face_recognition is `load_image_file` and `face_encodings`, as its documentation shows, in one process
that has loaded everything; nothing is kept. Half of its sample comes before and half after, so that a noisy machine is
noisy for both. `ratio` is of photos a second, `ratio_cpu` of processor time. Then the same with some of the photos
enlarged to about the size at which a webcam or a phone takes a portrait.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

import cv2

from tests.support.daemon import edge_face, write_config

OURS = "edge-face enroll --dir"
ENDINGS = (".jpg", ".jpeg", ".png")
LARGE_PX, LARGE_SAMPLE = 1000, 10
"""The longer side of the enlarged photos, and how many of them face_recognition gets."""


@dataclass(frozen=True, slots=True)
class Row:
    program: str
    pixels: str
    photos: int
    enrolled: int
    seconds: float
    ms_each: float
    cpu_ms_each: float
    ratio: float
    """Times as many photos a second as face_recognition."""
    ratio_cpu: float


@dataclass(slots=True)
class Cost:
    photos: int = 0
    found: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0


def photos_of(folder: Path, count: int) -> list[Path]:
    """The first photo of each person (or of each file's own folder), then the second ones."""
    by_person: dict[Path, list[Path]] = {}
    for path in sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS):
        by_person.setdefault(path.parent, []).append(path)
    ranks = max(map(len, by_person.values()), default=0)
    found = [paths[rank] for rank in range(ranks) for paths in by_person.values() if rank < len(paths)]
    return found[:count]


def enrol(photos: Sequence[Path], folder: Path) -> Cost:
    """Into a new database in `folder`, which is emptied before."""
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "photos").mkdir(parents=True)
    for number, photo in enumerate(photos):
        shutil.copyfile(photo, folder / "photos" / f"Person {number}{photo.suffix.lower()}")
    config = write_config(folder, {"storage": {"path": folder / "faces.sqlite"}})
    before, begin = _children_cpu_s(), time.perf_counter()
    done = edge_face("enroll", "--dir", folder / "photos", config=config)
    took, cpu = time.perf_counter() - begin, _children_cpu_s() - before
    words = done.stdout.split()
    assert words[:1] == ["enrolled"], done.stderr
    return Cost(len(photos), int(words[1]), took, cpu)


def encode(photos: Sequence[Path], cost: Cost) -> None:
    """With face_recognition; what it took is added to `cost`."""
    package = _face_recognition()
    before, begin = time.process_time(), time.perf_counter()
    for photo in photos:
        cost.found += bool(package.face_encodings(package.load_image_file(photo)))
    cost.wall_s += time.perf_counter() - begin
    cost.cpu_s += time.process_time() - before
    cost.photos += len(photos)


def _face_recognition() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports pkg_resources
        import face_recognition

    return face_recognition


def _children_cpu_s() -> float:
    """Of all that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def compared(photos: Sequence[Path], sample: int, counts: Sequence[int], folder: Path) -> list[Row]:
    """The first so many of `photos` for each of `counts`, then face_recognition."""
    chosen = photos[:: max(1, len(photos) // sample)][:sample]
    encode(chosen[:1], Cost())  # loads and warms up
    theirs = Cost()
    encode(chosen[: len(chosen) // 2], theirs)
    ours = [enrol(photos[:count], folder / "enrolment") for count in counts]
    encode(chosen[len(chosen) // 2 :], theirs)
    height, width = cv2.imread(str(photos[0])).shape[:2]
    return [
        Row(
            name,
            f"{width}x{height}",
            cost.photos,
            cost.found,
            cost.wall_s,
            cost.wall_s / cost.photos * 1000,
            cost.cpu_s / cost.photos * 1000,
            theirs.wall_s / theirs.photos / (cost.wall_s / cost.photos),
            theirs.cpu_s / theirs.photos / (cost.cpu_s / cost.photos),
        )
        for name, cost in [*((OURS, cost) for cost in ours), ("face_recognition", theirs)]
    ]


def enlarged(photos: Sequence[Path], folder: Path) -> list[Path]:
    folder.mkdir()
    made = []
    for number, photo in enumerate(photos):
        picture = cv2.imread(str(photo))
        factor = LARGE_PX / max(picture.shape[:2])
        made.append(folder / f"{number}.jpg")
        cv2.imwrite(str(made[-1]), cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC))
    return made


def run(photos: Sequence[Path], sample: int, counts: Sequence[int], folder: Path) -> list[Row]:
    """With the photos as they are, so many of them for each of `counts`; and with all of them larger."""
    large = enlarged(photos, folder / "large")
    return compared(photos, sample, counts, folder) + compared(large, LARGE_SAMPLE, [len(large)], folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--sample", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    photos = photos_of(args.folder, args.photos)
    with tempfile.TemporaryDirectory() as folder:
        rows = run(photos, args.sample, [len(photos)], Path(folder))
    if args.json:
        print(json.dumps({"name": "enrolment", "rows": [asdict(row) for row in rows]}))
        return
    heads = ("pixels", "photos", "enrolled", "seconds", "ms each", "CPU ms", "x", "x CPU")
    print(f"{'program':<24}" + "".join(f"{head:>10}" for head in heads))
    for row in rows:
        numbers = (f"{each:>10.1f}" for each in (row.seconds, row.ms_each, row.cpu_ms_each, row.ratio, row.ratio_cpu))
        print(f"{row.program:<24}{row.pixels:>10}{row.photos:>10}{row.enrolled:>10}" + "".join(numbers))


if __name__ == "__main__":
    main()
