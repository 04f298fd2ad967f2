"""edge-face beside what somebody would take instead, in one run: the same clip, gallery and machine.

usage: python benchmarks/compare.py [CLIP] [--photo FILE] [--visits FILE] [--yunet FILE] [--people N] [--json]

    CLIP      a video; without it, the demo's scene, in which the enrolled person and a stranger take turns
    --photo   who is enrolled (default: whoever is in the clip's first frame; the demo's own photo)
    --visits  who is in the clip when: lines of FIRST TAB LAST TAB NAME, frames and `man` or `-` for a stranger
              (default: one visit of `man`, the whole clip)
    --yunet   YuNet's model file (scripts/get-yunet); without it, the two loops with YuNet are left out
    --loops   only these, with commas: see LOOPS

The clip is a live camera: while a loop works, frames pass by that it never sees. Each loop runs in a process of its
own and decodes for itself. They take turns every two seconds of the clip, so that a noisy machine is noisy for all.

A visit of the enrolled person is right if they are named and nobody else is, missed if nobody is named; a stranger's
visit is right if nobody is named. To name a wrong person is wrong. "named ms": from the first frame of a visit to the
right name, walking up included. CPU time is that of all threads of the process, decoding included. All loops together
take some minutes, most of which dlib's CNN takes.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import whole_loop
from whole_loop import MAN

from edge_face import demo, photos, settings
from edge_face.engine import Engine
from edge_face.vision import models

TURN_S = 2.0
ACCEPT, COOLDOWN_S, SCALE, QUALITY = 0.45, 5.0, 0.5, 70
"""Of the service with Flask, OpenCV and WebSocket, as its description gives them."""

Frame = npt.NDArray[np.uint8]
Step = Callable[[Frame, int], list[str | None]]


@dataclass(frozen=True, slots=True)
class Job:
    """What a loop's process has to know."""

    clip: str
    gallery: str
    fps: float
    threads: int
    yunet: str


@dataclass(frozen=True, slots=True)
class Visit:
    first: int
    last: int
    enrolled: bool


@dataclass(frozen=True, slots=True)
class Row:
    loop: str
    fps: float
    """Frames a second that it could judge."""
    seen: float
    """Part of the camera's frames that it saw."""
    cpu_ms: float
    """For a frame that it judged."""
    busy: float
    """Processors that the camera kept busy: CPU seconds for a second of the clip."""
    frame_p50_ms: float
    frame_p95_ms: float
    latency_ms: float | None
    """From the visit's first frame to the right name, the median; None where it never came."""
    memory_mib: float
    right: int
    wrong: int
    missed: int


def edge_face(detector: str) -> Callable[[Job, npt.NDArray[np.float32]], Step]:
    def make(job: Job, known: npt.NDArray[np.float32]) -> Step:
        options = settings.Engine(threads=job.threads, detector=detector, yunet_model=job.yunet)
        inner = whole_loop.ours(models.load(options), options, known)[0].step
        # Its clock is the frame's number at 30 a second.
        return lambda frame, number: inner(frame, round(number * whole_loop.FPS / job.fps))

    return make


def faster(_job: Job, known: npt.NDArray[np.float32]) -> Step:
    """face_recognition's facerec_from_webcam_faster.py: every second frame that it reads."""
    inner = whole_loop.theirs(known).step
    read = iter(range(1 << 62))
    return lambda frame, _number: inner(frame, next(read))


def plain(detector: str) -> Callable[[Job, npt.NDArray[np.float32]], Step]:
    """face_recognition's facerec_from_webcam.py: each frame, whole; with dlib's `hog` or `cnn`."""

    def make(_job: Job, known: npt.NDArray[np.float32]) -> Step:
        package = whole_loop.face_recognition_package()
        name = whole_loop.their_names(package, known)

        def step(frame: Frame, _number: int) -> list[str | None]:
            rgb = np.ascontiguousarray(frame[:, :, ::-1])
            return name(rgb, package.face_locations(rgb, model=detector))

        return step

    return make


def yunet(job: Job, known: npt.NDArray[np.float32]) -> Step:
    """OpenCV's YuNet on the whole frame, faces encoded by face_recognition."""
    package = whole_loop.face_recognition_package()
    name = whole_loop.their_names(package, known)
    detector = cv2.FaceDetectorYN.create(job.yunet, "", (320, 320))

    def step(frame: Frame, _number: int) -> list[str | None]:
        height, width = frame.shape[:2]
        detector.setInputSize((width, height))
        found: Any = detector.detect(frame)[1]  # None without a face, which OpenCV's types do not tell
        boxes = [] if found is None else [[round(float(value)) for value in face[:4]] for face in found]
        places = [(max(0, y), min(width, x + w), min(height, y + h), max(0, x)) for x, y, w, h in boxes]
        return name(np.ascontiguousarray(frame[:, :, ::-1]), places)

    return step


def service(job: Job, known: npt.NDArray[np.float32]) -> Step:
    """The loop that the description of a face recognition service (Flask, OpenCV, WebSocket) tells, written anew.

    Half scale, the first face, a PASS at 0.45 with a cooldown for each person; box and label are drawn, and each frame
    is made into JSON with its JPEG.
    """
    package = whole_loop.face_recognition_package()
    names, encodings = whole_loop.names_of(len(known)), list(known.astype(np.float64))
    passed: dict[str, float] = {}

    def step(frame: Frame, number: int) -> list[str | None]:
        small = np.ascontiguousarray(cv2.resize(frame, (0, 0), fx=SCALE, fy=SCALE)[:, :, ::-1])
        places = package.face_locations(small, number_of_times_to_upsample=0)[:1]
        told: dict[str, Any] = {"type": "face_event", "status": "NO_FACE", "timestamp": number / job.fps}
        named: list[str | None] = []
        for encoding, place in zip(package.face_encodings(small, places), places, strict=True):
            distances = package.face_distance(encodings, encoding)
            best = int(np.argmin(distances))
            good = bool(distances[best] <= ACCEPT)
            top, right, bottom, left = (round(edge / SCALE) for edge in place)
            told |= {"name": names[best], "distance": float(distances[best]), "box": [left, top, right, bottom]}
            told["status"] = "PASS" if good else "REJECT"
            cv2.rectangle(frame, (left, top), (right, bottom), (0, 255, 0), 2)
            cv2.putText(frame, names[best], (left, top - 8), cv2.FONT_HERSHEY_SIMPLEX, 0.6, (0, 255, 0), 2)
            if good and number / job.fps - passed.get(names[best], -math.inf) >= COOLDOWN_S:
                passed[names[best]] = number / job.fps
                named.append(names[best])
        jpeg = cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
        json.dumps(told | {"frame": base64.b64encode(jpeg.tobytes()).decode()})
        return named

    return step


LOOPS: dict[str, tuple[str, Callable[[Job, npt.NDArray[np.float32]], Step]]] = {
    "edge-face-hog": ("edge-face, hog", edge_face("hog")),
    "edge-face-cnn": ("edge-face, cnn", edge_face("cnn")),
    "edge-face-yunet": ("edge-face, yunet", edge_face("yunet")),
    "faster": ("face_recognition, faster loop", faster),
    "plain": ("face_recognition, plain loop", plain("hog")),
    "cnn": ("face_recognition, dlib's CNN", plain("cnn")),
    "yunet": ("OpenCV's YuNet, face_recognition", yunet),
    "service": ("Flask service's loop", service),
}


def worker(name: str, job: Job) -> None:
    """One loop: a line on standard input for each turn, one of JSON back. Nothing else may write to that."""
    answers = sys.stdout
    sys.stdout = sys.stderr
    cv2.setNumThreads(job.threads)
    step = LOOPS[name][1](job, np.load(job.gallery))
    capture = cv2.VideoCapture(job.clip)
    good, first = capture.read()
    if good:
        step(np.asarray(first, dtype=np.uint8).copy(), -1)  # libraries load what they need
        capture = cv2.VideoCapture(job.clip)
    print(json.dumps({"ready": good}), file=answers, flush=True)
    number, now, more = 0, 0.0, good
    for line in sys.stdin:
        until = float(line)
        took: list[float] = []
        named: list[tuple[int, float, list[str]]] = []
        cpu = time.process_time()
        while more and now < until:
            begin = time.perf_counter()
            more, frame = capture.read()
            if not more:
                break
            shown = step(np.asarray(frame, dtype=np.uint8), number)
            passed = time.perf_counter() - begin
            took.append(passed * 1000)
            grabbed = number / job.fps
            if names := [each for each in shown if each]:
                named.append((number, grabbed + passed, names))
            number += 1
            now = max(grabbed + passed, number / job.fps)
            while more and (number + 1) / job.fps <= now:  # a newer frame is there already
                more = capture.grab()
                number += 1
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answer = {"cpu_s": time.process_time() - cpu, "took_ms": took, "named": named, "mib": peak, "more": more}
        print(json.dumps(answer), file=answers, flush=True)


def start(name: str, job: Job) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "ignore", __file__, "--worker", name, json.dumps(asdict(job))]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ask(process: subprocess.Popen[str], line: str = "") -> dict[str, Any]:
    """Raises RuntimeError when the loop's process has died; it has written why."""
    assert process.stdin is not None
    assert process.stdout is not None
    if line:
        process.stdin.write(f"{line}\n")
        process.stdin.flush()
    answer = process.stdout.readline()
    if not answer:
        raise RuntimeError(f"a loop's process ended with {process.wait()}: {process.args!r}")
    found: dict[str, Any] = json.loads(answer)
    return found


def compare(names: list[str], job: Job, visits: list[Visit], frames: int) -> list[Row]:
    processes = {name: start(name, job) for name in names}
    try:
        turns: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for process in processes.values():
            ask(process)
        for turn in range(1, math.ceil(frames / job.fps / TURN_S) + 2):
            for name, process in processes.items():
                turns[name].append(ask(process, str(turn * TURN_S)))
        return [judged(name, found, visits, frames, job.fps) for name, found in turns.items()]
    finally:
        for process in processes.values():
            process.kill()
            process.wait()


def judged(name: str, turns: list[dict[str, Any]], visits: list[Visit], frames: int, fps: float) -> Row:
    took = [ms for turn in turns for ms in turn["took_ms"]]
    cpu_s = sum(turn["cpu_s"] for turn in turns)
    outcomes, latencies = [], []
    for visit in visits:
        outcome, latency_s = outcome_of(visit, [tuple(each) for turn in turns for each in turn["named"]], fps)
        outcomes.append(outcome)
        if latency_s is not None:
            latencies.append(latency_s * 1000)
    p50, p95 = (float(value) for value in np.percentile(took, (50, 95)))
    return Row(
        loop=LOOPS[name][0],
        fps=len(took) / sum(took) * 1000,
        seen=len(took) / frames,
        cpu_ms=cpu_s / len(took) * 1000,
        busy=cpu_s / (frames / fps),
        frame_p50_ms=p50,
        frame_p95_ms=p95,
        latency_ms=float(np.median(latencies)) if latencies else None,
        memory_mib=max(turn["mib"] for turn in turns),
        right=outcomes.count("right"),
        wrong=outcomes.count("wrong"),
        missed=outcomes.count("missed"),
    )


def outcome_of(visit: Visit, named: list[tuple[Any, ...]], fps: float) -> tuple[str, float | None]:
    """`named`: frame, time of the answer and names. Right, wrong or missed, and seconds to the right name."""
    during = [each for each in named if visit.first <= each[0] <= visit.last]
    wanted = {MAN} if visit.enrolled else set()
    if any(set(names) - wanted for _, _, names in during):
        return "wrong", None
    if not visit.enrolled:
        return "right", None
    answered = next((at for _, at, _ in during), None)
    return ("missed", None) if answered is None else ("right", answered - visit.first / fps)


def demo_clip(path: Path, count: int) -> list[Visit]:
    """The demo's scene, until its first visits are over."""
    scene, visits, number = demo.DemoScene(), list[Visit](), 0
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), demo.FPS, (demo.WIDTH, demo.HEIGHT))
    begun: tuple[int, bool] | None = None
    while len(visits) < count:
        present = scene.person_at(number)
        if present is not None:
            begun = begun or (number, present[0] == 0)
        elif begun is not None:
            visits.append(Visit(begun[0], number - 1, begun[1]))
            begun = None
        writer.write(scene.frame(number))
        number += 1
    writer.release()
    return visits


def read_visits(path: Path) -> list[Visit]:
    """Raises ValueError."""
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [Visit(int(first), int(last), name.strip() == "man") for first, last, name in rows]


def face_of(picture: Frame) -> npt.NDArray[np.float32]:
    """The largest face of an RGB picture; the program ends where there is none."""
    options = settings.Engine(detector="hog")
    faces = Engine(models.load(options), options).still(picture)
    if not faces:
        raise SystemExit(
            "compare.py: there is no face in the photo, or in the clip's first frame; name one with --photo"
        )
    return faces[0].encoding


def table(rows: list[Row]) -> Iterator[str]:
    heads = ("fps", "seen", "CPU ms", "busy", "p50 ms", "p95 ms", "named ms", "MiB", "right", "wrong", "missed")
    yield f"{'loop':<34}" + "".join(f"{head:>9}" for head in heads)
    for row in rows:
        cells = (
            *(f"{row.fps:.1f}", f"{row.seen:.0%}", f"{row.cpu_ms:.1f}", f"{row.busy:.2f}"),
            *(f"{row.frame_p50_ms:.1f}", f"{row.frame_p95_ms:.1f}"),
            "-" if row.latency_ms is None else f"{row.latency_ms:.0f}",
            *(f"{row.memory_mib:.0f}", str(row.right), str(row.wrong), str(row.missed)),
        )
        yield f"{row.loop:<34}" + "".join(f"{cell:>9}" for cell in cells)


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], Job(**json.loads(sys.argv[3])))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=Path)
    parser.add_argument("--photo", type=Path)
    parser.add_argument("--visits", type=Path)
    parser.add_argument("--yunet", default="", metavar="FILE")
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--loops", default="", metavar="NAMES", help=", ".join(LOOPS))
    parser.add_argument("--demo-visits", type=int, default=4, metavar="N", help="of the demo's scene (default 4)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    names = args.loops.split(",") if args.loops else [name for name in LOOPS if args.yunet or "yunet" not in name]
    if unknown := [name for name in names if name not in LOOPS]:
        parser.error(f"there is no loop {unknown[0]}; there are {', '.join(LOOPS)}")
    if not args.yunet and any("yunet" in name for name in names):
        parser.error("YuNet's loops need its file: --yunet")
    with tempfile.TemporaryDirectory(prefix="edge-face-compare-") as folder:
        clip = args.clip or Path(folder) / "demo.avi"
        visits = [] if args.clip else demo_clip(clip, args.demo_visits)
        capture = cv2.VideoCapture(str(clip))
        good, first = capture.read()
        if not good:
            parser.error(f"{clip} cannot be read")
        fps = capture.get(cv2.CAP_PROP_FPS) or float(whole_loop.FPS)
        frames = 1
        while capture.grab():
            frames += 1
        if args.visits:
            visits = read_visits(args.visits)
        if args.photo or not args.clip:
            picture = photos.decode(args.photo.read_bytes() if args.photo else demo.enrolment_photo()).pixels
        else:
            picture = np.ascontiguousarray(np.asarray(first, dtype=np.uint8)[:, :, ::-1])
        np.save(Path(folder) / "gallery.npy", whole_loop.gallery_of(face_of(picture), args.people))
        job = Job(str(clip), str(Path(folder) / "gallery.npy"), fps, args.threads, args.yunet)
        rows = compare(names, job, visits or [Visit(0, frames, enrolled=True)], frames)
    if args.json:
        print(json.dumps({"name": "compare", "rows": [dataclasses.asdict(row) for row in rows]}))
        return
    print(f"{frames} frames at {fps:.1f} a second, {args.people:,} people enrolled, {args.threads} thread(s)\n")
    for line in table(rows):
        print(line)


if __name__ == "__main__":
    main()
