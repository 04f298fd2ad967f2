"""How cost grows: with templates, faces in a frame, resolution, cameras, viewers, and photos that are enrolled.

usage: python benchmarks/scale.py PHOTOS [--only NAME ...] [--json]

    PHOTOS   a folder of photos of at least 20 people, in folders of their names or not
    --only   templates, faces, resolution, cameras, viewers, enrolment; default: all

Everything is measured in the product's own code: the gallery, the engine, the daemon with its processes and sockets,
the command that enrols. It prints Markdown, a table and a plot of each, for docs/performance.md and for the terminal.
What one thread does is told in its processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

import cv2
import enrolment
import gallery as galleries
import numpy as np
import viewers
from markdown import Points, each_more, exponent, plot, table

from edge_face import memory, settings
from edge_face.bench.scene import rgb
from edge_face.engine import Engine
from edge_face.gallery import Gallery
from edge_face.images import BgrImage
from edge_face.vision import models
from edge_face.vision.detect import detect, resized, search_scale
from edge_face.vision.motion import MotionGate
from tests.support.crowd import Somebody, crowd, portrayed
from tests.support.daemon import Daemon, write_config
from tests.support.processes import children

Rows = list[dict[str, Any]]

TEMPLATES = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
BYTES_OF_A_TEMPLATE = 3 * 4 * 129 + 600
"""While a gallery is built, with the person's record."""
FACES = (1, 2, 5, 10, 15, 20)
FRAMES = 10
SIZES = {"QVGA": (320, 240), "VGA": (640, 480), "720p": (1280, 720), "1080p": (1920, 1080), "4K": (3840, 2160)}
CAMERAS = (1, 2, 3, 4)
CAMERAS_S = 4.0
CROWDS = ((0, 0), (1, 0), (10, 0), (25, 0), (50, 0))
PHOTOS = (100, 300, 1000)
FPS = 10


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def cpu_ms(call: Callable[[int], object], seconds: float = 0.4) -> float:
    """The median processor time of as many calls as fit in, but five at least, after one that warms up.

    Not of the wall clock: whatever else the machine does would count as growth. One thread does all of it.
    """
    call(0)
    took: list[float] = []
    end = time.perf_counter() + seconds
    while len(took) < 5 or time.perf_counter() < end:
        begin = time.process_time()
        call(len(took))
        took.append((time.process_time() - begin) * 1000)
    return float(np.median(took))


def templates() -> Rows:
    rows = []
    for count in TEMPLATES:
        if memory.available_bytes() < 2 * count * BYTES_OF_A_TEMPLATE:
            say(f"templates: {count:,} do not fit into this machine's memory")
            break
        say(f"templates: {count:,}")
        rows.append(with_templates(count))
    return rows


def with_templates(count: int) -> dict[str, Any]:
    """One probe; what it takes to build the gallery, and to add a face to it."""
    persons, owners, matrix = galleries.made_up(count)
    persons.sort(key=lambda person: person.id)
    begin = time.process_time()
    gallery = Gallery.build(persons, owners, matrix)
    build_ms = (time.process_time() - begin) * 1000
    random = np.random.default_rng(8)
    probes = matrix[random.integers(0, count, 100)]
    probes += random.standard_normal(probes.shape, np.float32) * np.float32(0.02)
    match_ms = cpu_ms(lambda n: gallery.match([probes[n % 100]]))
    return {
        "templates": count,
        "match_us": match_ms * 1000,
        "match_ns_each": match_ms * 1e6 / count,
        "build_ms": build_ms,
        "add_ms": cpu_ms(lambda _: gallery.grown(persons[len(persons) // 2], [probes[0]])),
        "mib": 4 * 130 * count / 2**20,
    }


def faces(standing: Sequence[Somebody], loaded: models.Models) -> Rows:
    """Frames of one size with more and more people, who never stand quite still."""
    nobody = replace(standing[0], photo=np.full_like(standing[0].photo, 127))
    rows = []
    for count in FACES:
        say(f"faces: {count}")
        shown = [*standing[:count], *[nobody] * (FACES[-1] - count)]
        frames = [crowd(shown, number) for number in range(FRAMES)]
        settled_ms, _ = judged(frames, loaded, is_settled=True)
        undecided_ms, stages = judged(frames, loaded, is_settled=False)
        rows.append({"faces": count, "undecided_ms": undecided_ms, "settled_ms": settled_ms, **stages})
    return rows


def judged(frames: Sequence[BgrImage], loaded: models.Models, *, is_settled: bool) -> tuple[float, dict[str, float]]:
    """A frame's processor time on average, when it is the second time that they are seen; the stages' medians."""
    engine = Engine(loaded, settings.Engine(threads=1))
    stages: dict[str, list[float]] = {}
    begin, seen = 0.0, 0
    for number, frame in enumerate([*frames, *frames]):
        if number == len(frames):
            begin = time.process_time()
        found, stages_ms = engine.process(frame, number / FPS)
        if is_settled:
            engine.settled([face.track for face in found])
        if number >= len(frames):
            seen += len(found)
            for stage in ("follow", "detect", "align", "encode", "track"):
                stages.setdefault(f"{stage}_ms", []).append(stages_ms.get(stage, 0.0))
    medians = {stage: float(np.median(each)) for stage, each in stages.items()}
    return (time.process_time() - begin) / len(frames) * 1000, {"seen": seen / len(frames), **medians}


def resolution(somebody: Somebody, loaded: models.Models) -> Rows:
    rows = []
    for name, (width, height) in SIZES.items():
        say(f"resolution: {name}")
        frames = [portrait(somebody, width, height, number) for number in range(FRAMES)]
        rows.append({"resolution": name, "megapixels": width * height / 1e6, **of_size(frames, loaded)})
    return rows


def of_size(frames: Sequence[BgrImage], loaded: models.Models) -> dict[str, float]:
    """The same picture by better and better cameras: a face a third of the frame's height."""
    min_face = settings.Engine().min_face
    motion = MotionGate()
    jpegs = [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 90])[1] for frame in frames]

    def searched(min_face: int) -> tuple[float, float]:
        scale = search_scale(None, min_face, loaded.detector)
        reduced = [rgb(resized(frame, scale)) for frame in frames[:3]]
        return (
            cpu_ms(lambda n: rgb(resized(frames[n % len(frames)], scale))),
            cpu_ms(lambda n: detect(reduced[n % 3], loaded.detector, scale, min_face, 0)),
        )

    scale_ms, detect_ms = searched(min_face)
    far_scale_ms, far_detect_ms = searched(max(20, round(min_face * frames[0].shape[0] / 480)))
    frame_ms, _ = judged(frames, loaded, is_settled=True)
    return {
        "decode_ms": cpu_ms(lambda n: cv2.imdecode(jpegs[n % len(jpegs)], cv2.IMREAD_COLOR)),
        "motion_ms": cpu_ms(lambda n: motion.look(frames[n % len(frames)])),
        "scale_ms": scale_ms,
        "detect_ms": detect_ms,
        "as_far_scale_ms": far_scale_ms,
        "as_far_detect_ms": far_detect_ms,
        "frame_ms": frame_ms,
    }


def portrait(somebody: Somebody, width: int, height: int, number: int) -> BgrImage:
    """Frame `number` of a clip in which somebody sways before a wall."""
    frame = np.full((height, width, 3), 127, np.uint8)
    side = round(height * 0.8)
    photo = cv2.resize(somebody.photo, (side, side), interpolation=cv2.INTER_CUBIC)
    top, left = round(height * 0.1), round(width * (0.1 + 0.004 * (number * 3 % 7)))
    frame[top : top + side, left : left + side] = photo[:, : width - left]
    return frame


def cameras(folder: Path) -> Rows:
    """The daemon with so many cameras, each of which it judges as fast as it can."""
    clip = viewers.write_clip(folder / "clip.avi")
    rows = []
    for count in CAMERAS:
        say(f"cameras: {count}")
        source = {"source": clip, "loop": "true", "fps": 0, "realtime": "no"}
        place = folder / f"cameras-{count}"
        place.mkdir()
        config = write_config(place, {f"camera:number-{number}": source for number in range(count)})
        with Daemon(config) as daemon:
            daemon.wait_for("ok")
            time.sleep(viewers.SETTLE_S)
            assert daemon.process is not None
            parent = daemon.process.pid
            pids = [parent, *children(parent)]
            seen, begin = frames_of(daemon), time.monotonic()
            before = [viewers.used(pid) for pid in pids]
            time.sleep(CAMERAS_S)
            after = [viewers.used(pid) for pid in pids]
            frames, seconds = frames_of(daemon) - seen, time.monotonic() - begin
        used = [one.cpu_s - other.cpu_s for one, other in zip(after, before, strict=True)]
        rows.append(
            {
                "cameras": count,
                "fps": frames / seconds,
                "fps_each": frames / seconds / count,
                "cpu_ms_a_frame": sum(used) / frames * 1000,
                "parent_ms_a_frame": used[0] / frames * 1000,
                "cores_busy": sum(used) / seconds,
                "mib": sum(one.pss_mib for one in after),
            }
        )
    return rows


def frames_of(daemon: Daemon) -> int:
    return sum(int(camera["frames"]) for camera in daemon.get("/api/v1/status").json()["cameras"])


def watched(folder: Path) -> Rows:
    say("viewers: " + ", ".join(str(count) for count, _ in CROWDS))
    return [
        {
            "viewers": row.viewers,
            "fps": row.fps,
            "kept": row.kept,
            "parent_ms_a_frame": row.parent_cpu / row.fps * 1000,
            "child_ms_a_frame": row.child_cpu / row.fps * 1000,
            "parent_mib": row.parent_mib,
        }
        for row in viewers.run(folder, 3.0, 2, FPS, CROWDS)
    ]


def enrolled(photos: Path, folder: Path) -> Rows:
    chosen = enrolment.photos_of(photos, PHOTOS[-1])
    counts = [count for count in PHOTOS if count <= len(chosen)] or [len(chosen)]
    say(f"enrolment: {', '.join(map(str, counts))} photos")
    return [asdict(row) for row in enrolment.run(chosen, 40, counts, folder)]


def measure(photos: Path, only: Sequence[str]) -> dict[str, Rows]:
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        loaded = models.load(settings.Engine(threads=1))
        named = ((path.parent.name, path) for path in enrolment.photos_of(photos, 500))
        standing = portrayed(named, Engine(loaded, settings.Engine(threads=1)), FACES[-1])
        curves: dict[str, Callable[[], Rows]] = {
            "templates": templates,
            "faces": lambda: faces(standing, loaded),
            "resolution": lambda: resolution(standing[0], loaded),
            "cameras": lambda: cameras(folder),
            "viewers": lambda: watched(folder),
            "enrolment": lambda: enrolled(photos, folder),
        }
        return {name: curve() for name, curve in curves.items() if not only or name in only}


@dataclass(frozen=True, slots=True)
class Shown:
    """What is said of a curve, and plotted: a column across, others up."""

    title: str
    across: str
    up: tuple[str, ...]
    text: str
    logarithmic: bool = False


SHOWN = {
    "templates": Shown(
        "Templates",
        "templates",
        ("match_us",),
        """\
A probe is compared with each template, so the cost must grow with them: with the processor's speed while they fit into
its caches, with the memory's from then on. Below a thousand it is the call that costs. `add`: one more face enrolled
beside so many, in memory; on the disk it costs the same however many there are.""",
        logarithmic=True,
    ),
    "faces": Shown(
        "Faces in a frame",
        "faces",
        ("undecided_ms", "settled_ms"),
        """\
1270x1020 pixels, people who move. `undecided`: each face is encoded in each frame, as at first; `settled`: as soon as
everybody is decided. Searching costs the same however many there are, so what grows is the encoding, a face at a time.
The stages are those of the undecided, in wall-clock time.""",
    ),
    "resolution": Shown(
        "Resolution",
        "megapixels",
        ("decode_ms", "detect_ms", "frame_ms"),
        """\
One person who moves and is decided. `detect` searches for faces of `min_face` pixels however large the frame is, so for
people farther off, and must grow with the pixels. `as_far` has a `min_face` that grows with the frame, for people as
far off as those whom 480 lines show, and need not grow. `frame`: all stages but the decoding, as the engine does them
frame by frame; where a whole search takes too long for a gate, it is made rarely, and coarser ones in between.""",
        logarithmic=True,
    ),
    "cameras": Shown(
        "Cameras",
        "cameras",
        ("fps", "fps_each"),
        """\
640x480, every frame judged, as many as the machine can, which others use too. Each camera is a process of its own: the
cost of a frame must stay the same, and frames are shared out once the processors are busy.""",
    ),
    "viewers": Shown(
        "Viewers of the live stream",
        "viewers",
        ("parent_ms_a_frame",),
        """\
640x480 at 10 frames a second. A frame becomes a JPEG and a message once, however many watch; a viewer more costs the
parent one write to a socket, and the camera's process nothing.""",
    ),
    "enrolment": Shown(
        "Enrolment of a folder",
        "photos",
        ("seconds",),
        """\
`edge-face enroll --dir` from its start to its end, on all processors, with everything checked and on the disk.
face_recognition loads a photo and encodes its face, in one process, for a sample of the photos. `ratio`: times as many
photos a second, `ratio_cpu`: of processor time. Of a photo of 250 pixels both search a picture of 500, half of
edge-face's work, though it leaves out the finest copies, mostly three (never a face that could be a rival). With the
encoding, whose limit is the processor's arithmetic, less than 20 ms are left beside 100: a processor does more than
five times as much, less the start of the processes. The larger the photo, the more is won by not searching its fine
copies.""",
    ),
}


def lines_of(name: str, rows: Rows) -> dict[str, Points]:
    across, up = SHOWN[name].across, SHOWN[name].up
    counted = [row for row in rows if row[across] > 0 and row.get("pixels") == rows[0].get("pixels")]
    counted = [row for row in counted if row.get("program") == rows[0].get("program")]
    return {column: [(row[across], row[column]) for row in counted] for column in up}


def growth(curves: Mapping[str, Rows]) -> Rows:
    rows = []
    for name, measured in curves.items():
        for column, points in lines_of(name, measured).items():
            rows.append(
                {
                    "curve": SHOWN[name].title,
                    "cost": column,
                    "from": f"{points[0][0]:,.3g}",
                    "to": f"{points[-1][0]:,.3g}",
                    "at_first": points[0][1],
                    "at_last": points[-1][1],
                    "power": exponent(points),
                    "each_more": each_more(points),
                }
            )
    return rows


def section(curves: Mapping[str, Rows]) -> Iterator[str]:
    """Everything as Markdown."""
    yield "How each cost grows: `power` 1 means that twice as many cost twice as much, over the larger half of them;"
    yield "`each_more` is what one more costs.\n"
    yield from table(growth(curves))
    for name, rows in curves.items():
        shown = SHOWN[name]
        yield f"\n### {shown.title}\n\n{shown.text}\n"
        yield from table(rows)
        yield ""
        yield from plot(lines_of(name, rows), shown.across, logarithmic=shown.logarithmic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--only", nargs="+", default=(), choices=tuple(SHOWN), metavar="NAME")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    curves = measure(args.photos, args.only)
    if args.json:
        print(json.dumps({"name": "scale", "rows": growth(curves), "curves": curves}))
    else:
        print(*section(curves), sep="\n")


if __name__ == "__main__":
    main()
