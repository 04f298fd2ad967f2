"""CPU per frame of the whole loop (decode, find, encode, match, decide), beside face_recognition's own "faster" loop.

    .venv/bin/python benchmarks/whole_loop.py CLIP [--people 1000] [--threads 1]

Both loops take every frame of the clip and compare with the same gallery; face_recognition's example
(facerec_from_webcam_faster.py) shrinks the frame to a quarter and looks at every second one. They take turns, a part of
the clip each, so that a noisy machine is noisy for both. CPU time is that of all threads of the process.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edge_face import settings
from edge_face.access import Access
from edge_face.engine import Engine
from edge_face.events import FrameResult, Match, Person
from edge_face.gallery import Gallery
from edge_face.vision import models

FPS = 30
MAN = "Man"
"""Who is seen and enrolled."""
PART = 60
"""Frames of a turn."""


@dataclass
class Loop:
    """One way of doing it: a step takes a frame and returns who is named in it."""

    name: str
    step: Callable[[npt.NDArray[np.uint8], int], list[str | None]]
    cpu_s: float = 0.0
    frames: int = 0
    decided: int = 0
    """Frames in which the man was named."""
    wrong: int = 0
    took_ms: list[float] = field(default_factory=list)
    """Wall time of each frame, decoding included."""

    @property
    def cpu_ms(self) -> float:
        return self.cpu_s / self.frames * 1000


def gallery_of(first: npt.NDArray[np.float32], people: int) -> npt.NDArray[np.float32]:
    """The man and strangers who look like nobody: random directions at the length of dlib's descriptors."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(0, 0.12, (people, 128)).astype(np.float32)
    matrix[people // 2] = first
    return matrix


def names_of(people: int) -> list[str]:
    """Of `gallery_of`."""
    return [MAN if number == people // 2 else f"Stranger {number}" for number in range(people)]


def ours(loaded: models.Models, options: settings.Engine, known: npt.NDArray[np.float32]) -> tuple[Loop, Engine]:
    engine = Engine(loaded, options)
    people = len(known)
    persons = [Person(f"p{number}", name) for number, name in enumerate(names_of(people))]
    gallery = Gallery.build(persons, np.arange(people, dtype=np.int32), known)
    access = Access(settings.Decision())

    def step(frame: npt.NDArray[np.uint8], number: int) -> list[str | None]:
        now = number / FPS
        faces, stages = engine.process(frame, now)
        found = iter(gallery.match([face.encoding for face in faces if face.encoding is not None]))
        matches: list[Match | None] = [None if face.encoding is None else next(found) for face in faces]
        height, width = frame.shape[:2]
        outcome = access.observe(FrameResult("c", number, 0, now, now, width, height, faces, stages), matches, now)
        engine.settled(outcome.settled)
        return [verdict.person.name if verdict.person else None for verdict in outcome.verdicts]

    return Loop(f"edge-face ({loaded.detector.name}, {loaded.backend})", step), engine


def face_recognition_package() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it imports pkg_resources
        import face_recognition

    return face_recognition


Names = Callable[[npt.NDArray[np.uint8], Any], list[str | None]]


def their_names(package: Any, known: npt.NDArray[np.float32]) -> Names:
    """How face_recognition's examples name faces of an RGB picture: the nearest one, if it is one of the matches."""
    names = names_of(len(known))
    encodings = list(known.astype(np.float64))

    def name(picture: npt.NDArray[np.uint8], places: Any) -> list[str | None]:
        shown: list[str | None] = []
        for encoding in package.face_encodings(picture, places):
            matches = package.compare_faces(encodings, encoding)
            best = int(np.argmin(package.face_distance(encodings, encoding)))
            shown.append(names[best] if matches[best] else None)
        return shown

    return name


def theirs(known: npt.NDArray[np.float32]) -> Loop:
    package = face_recognition_package()
    name = their_names(package, known)

    def step(frame: npt.NDArray[np.uint8], number: int) -> list[str | None]:
        if number % 2 == 0:
            small = np.ascontiguousarray(cv2.resize(frame, (0, 0), fx=0.25, fy=0.25)[:, :, ::-1], dtype=np.uint8)
            return name(small, package.face_locations(small))
        return []

    return Loop("face_recognition, faster loop", step)


def turns(loops: list[Loop], clip: str) -> Iterator[None]:
    """Play the clip to both, part by part; each decodes for itself."""
    captures = [cv2.VideoCapture(clip) for _ in loops]
    number = 0
    while True:
        for loop, capture in zip(loops, captures, strict=True):
            begin = time.process_time()
            for offset in range(PART):
                started = time.perf_counter()
                more, frame = capture.read()
                if not more:
                    loop.cpu_s += time.process_time() - begin
                    if loop is loops[-1]:
                        return
                    break
                named = loop.step(np.asarray(frame, dtype=np.uint8), number + offset)
                loop.took_ms.append((time.perf_counter() - started) * 1000)
                loop.frames += 1
                loop.decided += MAN in named
                loop.wrong += any(name not in (None, MAN) for name in named)
            else:
                loop.cpu_s += time.process_time() - begin
        number += PART
        yield


def run(
    clip: str, people: int = 1000, threads: int = 1, detector: str = "auto", yunet: str = ""
) -> tuple[Loop, Loop, dict[str, int]]:
    """Our loop, theirs, and how often ours did the costly things."""
    cv2.setNumThreads(threads)
    _, first = cv2.VideoCapture(clip).read()
    options = settings.Engine(threads=threads, detector=detector, yunet_model=yunet)
    loaded = models.load(options)
    rgb = np.ascontiguousarray(np.asarray(first, dtype=np.uint8)[:, :, ::-1])
    matrix = gallery_of(Engine(loaded, options).still(rgb)[0].encoding, people)
    mine, engine = ours(loaded, options, matrix)
    other = theirs(matrix)
    for _ in turns([mine, other], clip):
        pass
    return mine, other, engine.counts


def row(loop: Loop, peer: Loop) -> dict[str, object]:
    p50, p95, p99 = np.percentile(loop.took_ms, (50, 95, 99)).tolist()
    return {
        "loop": loop.name,
        "cpu_ms": loop.cpu_ms,
        "ratio_cpu": peer.cpu_ms / loop.cpu_ms,
        "wall_p50_ms": p50,
        "wall_p95_ms": p95,
        "wall_p99_ms": p99,
        "frames": loop.frames,
        "named": loop.decided,
        "wrong": loop.wrong,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip")
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--detector", default="auto", help="auto, cnn, hog or yunet")
    parser.add_argument("--yunet", default="", metavar="FILE", help="YuNet's model file")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    mine, other, counts = run(args.clip, args.people, args.threads, args.detector, args.yunet)
    if args.json:
        print(json.dumps({"rows": [row(loop, other) for loop in (mine, other)], "counts": counts}))
        return
    print(f"{'loop':<40} {'CPU ms/frame':>12} {'frames named':>13} {'wrong':>6}")
    for loop in (mine, other):
        print(f"{loop.name:<40} {loop.cpu_ms:12.2f} {loop.decided:6}/{loop.frames:<6} {loop.wrong:6}")
    print(f"ratio {other.cpu_ms / mine.cpu_ms:.1f}; edge-face's whole searches, local ones, encodings: {counts}")


if __name__ == "__main__":
    main()
