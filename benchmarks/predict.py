"""Ten seconds that tell how many frames a second a board manages, and how far that is from what it really does.

usage: python benchmarks/predict.py [--board FILE] [--check | --counts] [--json FILE] [scenario]

    --board FILE  of another board: what `predict.py --json` or `edge-face bench --json` wrote there; without it this
                  board is measured, for 10 seconds
    --check       run real cameras too, pinned to one core and to two, at two resolutions, and print the error
    --counts      only the arithmetic and the bytes of each stage
    --json FILE   write the board's speeds there, to be sent to somebody

A scenario: --size 1280x720 --detector hog --cameras 2 --threads 1 --faces 3 --people 5000 --min-face 80, each of them
once or more; without it, the usual ones. It is the demo's visit: one comes, stays and goes. `whole` is a frame in which
everything has to be done. How it is reckoned: docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import itertools
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent.parent))

import cv2
import msgspec
import numpy as np

from edge_face import settings
from edge_face.bench import cameras, counts, predict, rates, scene, vitals
from edge_face.bench.predict import Prediction, Scenario
from edge_face.bench.results import FORMAT, BenchError, CameraRun, Speeds
from edge_face.bench.run import this_board
from edge_face.bench.stages import gallery_of
from edge_face.child import START_S
from edge_face.demo import HEIGHT as DEMO_HEIGHT
from edge_face.demo import WIDTH as DEMO_WIDTH
from edge_face.errors import EdgeFaceError
from edge_face.images import BgrImage
from edge_face.vision.known_answer import KNOWN_ANSWER

DETECTORS = tuple(counts.SMALLEST_PX)
SIZES = ((640, 480), (1280, 720))
LAYOUTS = ((1, 1, 1), (2, 1, 2), (2, 2, 1))
"""Cores, cameras, and threads of each, that are tried by --check."""

NEVER_LATE_S = 600.0


def pictures(width: int, height: int) -> list[BgrImage]:
    """The demo's visit at another size, with its own wall at the sides. Raises EdgeFaceError."""
    if width * DEMO_HEIGHT < height * DEMO_WIDTH:
        raise BenchError(f"{width}x{height} is too narrow for the demo's pictures")
    shown = []
    for frame in scene.demo_visit():
        factor = height / frame.shape[0]
        sized = cv2.resize(frame, (round(frame.shape[1] * factor), height), interpolation=cv2.INTER_LINEAR)
        missing = width - sized.shape[1]
        sides = (missing // 2, missing - missing // 2)
        shown.append(np.asarray(cv2.copyMakeBorder(sized, 0, 0, *sides, cv2.BORDER_REPLICATE), dtype=np.uint8))
    return shown


@dataclass(frozen=True, slots=True)
class Checked:
    """A prediction beside what real cameras did."""

    predicted: Prediction
    measured: CameraRun
    others: float
    """Part of the processor's time that other programs took meanwhile."""

    @property
    def error(self) -> float:
        """Part of the measured frames a second; above 0: it promised too much."""
        return self.predicted.fps / self.measured.fps - 1

    @property
    def cpu_error(self) -> float | None:
        """The same of the processor's time for a frame, in which others have no part; only told of single threads."""
        return self.measured.cpu_ms / self.predicted.frame_ms - 1 if self.predicted.scenario.threads == 1 else None


def check(
    found: Speeds, options: settings.Engine, sizes: Sequence[tuple[int, int]], detectors: Sequence[str], seconds: float
) -> Iterator[Checked | str]:
    """Each case as it is done; words where it cannot be done here. Raises BenchError."""
    allowed = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="edge-face-predict-") as folder:
        for width, height in sizes:
            shown = pictures(width, height)
            clip = scene.write_clip(shown, Path(folder) / f"{width}x{height}.avi")
            for (cores, count, threads), detector in itertools.product(LAYOUTS, detectors):
                name = f"{width}x{height}, {detector}, {cores} cores, {count} cameras with {threads} threads"
                if cores > len(allowed):
                    yield f"{name}: impossible here, this machine has {len(allowed)}"
                    continue
                predicted = predict.predict(found.rates, Scenario(width, height, detector, cores, count, threads))
                if predicted is None:
                    yield f"{name}: {detector} was not measured"
                    continue
                engine = dataclasses.replace(options, backend=found.backend, detector=detector, threads=threads)
                with vitals.Watcher() as watcher:
                    measured = pinned(allowed[:cores], count, engine, clip, seconds)
                yield Checked(predicted, measured, watcher.vitals().others)


def pinned(cores: list[int], count: int, engine: settings.Engine, clip: Path, seconds: float) -> CameraRun:
    """Real cameras on these cores alone: children have what their parent's thread has when it starts them."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        gallery = gallery_of(np.array(KNOWN_ANSWER, np.float32), counts.TEMPLATES)
        # However long a frame takes: an engine that is late searches fewer frames, and others may make it late.
        config = settings.Config(decision=settings.Decision(max_age=NEVER_LATE_S))
        return asyncio.run(cameras.watch(count, config, engine, clip, gallery, seconds, START_S))
    finally:
        os.sched_setaffinity(0, before)


def own_speeds(options: settings.Engine, seconds: float) -> Speeds:
    """Of this board; a process of its own tells first which backend works. Raises EdgeFaceError."""
    backend, _ = asyncio.run(cameras.first_start(options))
    with vitals.Watcher() as watcher:
        measured = rates.measure(options, backend, len(os.sched_getaffinity(0)), seconds)
    others = watcher.vitals().others
    return Speeds(this_board(), datetime.now(UTC).isoformat(timespec="seconds"), backend, others, measured)


def read(path: Path) -> Speeds:
    """What somebody sent: these ten seconds, a whole report with them, or a result with either. Raises BenchError."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] != FORMAT:
            raise BenchError(f"{path}: is of format {data['format']}; this program reads {FORMAT}")
        data = data.get("report", data)
        others = data["others"] if "others" in data else data["vitals"]["others"]
        return msgspec.convert({**data, "others": others}, Speeds)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{path}: holds no board's speeds: {error!r}") from None


def scenarios(args: argparse.Namespace, cores: int) -> Iterator[Scenario]:
    for (width, height), detector, count, faces, people in itertools.product(
        args.size or SIZES,
        args.detector or DETECTORS,
        args.cameras or (1, 2),
        args.faces or (1,),
        args.people or (1000,),
    ):
        yield Scenario(width, height, detector, cores, count, args.threads, faces, people, args.min_face)


def told_speeds(found: Speeds) -> Iterator[str]:
    board, speeds = found.board, found.rates
    yield f"{board.name}, {board.cpus} processors ({board.machine}), {board.memory_mib} MiB"
    yield f"{found.date}, backend {found.backend}, {speeds.rounds} rounds in {speeds.seconds:.0f} s"
    memory = f"{speeds.copy_gbs:.1f} by one core, {speeds.copy_all_gbs:.1f} by all, {speeds.fresh_gbs:.1f} anew"
    yield f"memory, GB/s: {memory}"
    yield f"other programs: {found.others:.0%} of the processor"
    yield ""
    yield f"{'work':<12}{'threads':>8}{'GFLOP/s':>10}{'fixed ms':>10}"
    for each in speeds.speeds:
        yield f"{each.kind:<12}{each.threads:>8}{each.gflops:>10.2f}{each.fixed_ms:>10.3f}"


def told_counts(sizes: Sequence[tuple[int, int]], min_face: int) -> Iterator[str]:
    for width, height in sizes:
        yield f"{f'{width}x{height}':<18}{'MFLOP':>10}{'MB':>10}"
        for name, work in counts.table(width, height, min_face, predict.Scene().face_px, counts.TEMPLATES):
            yield f"{name:<18}{work.flop / 1e6:>10.2f}{work.bytes / 1e6:>10.2f}"
        yield ""


def told_predictions(found: Speeds, wanted: Iterator[Scenario]) -> Iterator[str]:
    yield (
        f"{'predicted':<12}{'detector':<10}{'cameras':>8}{'faces':>6}{'people':>9}{'fps':>9}"
        f"{'frame ms':>10}{'whole ms':>10}"
    )
    missing: dict[str, None] = {}
    for scenario in wanted:
        one = predict.predict(found.rates, scenario)
        if one is None:
            missing[scenario.detector] = None
            continue
        fps = f"{'>' if one.at_least else ''}{one.fps:.1f}"
        yield (
            f"{f'{scenario.width}x{scenario.height}':<12}{scenario.detector:<10}{scenario.cameras:>8}{scenario.faces:>6}"
            f"{scenario.people:>9,}{fps:>9}{one.frame_ms:>10.1f}{one.whole_ms:>10.1f}"
        )
    for detector in missing:
        yield f"{detector}: its speed was not measured on this board"


def told_check(done: Iterator[Checked | str]) -> Iterator[str]:
    yield (
        f"{'checked':<12}{'detector':<10}{'cores':>6}{'cameras':>8}{'threads':>8}"
        f"{'predicted':>11}{'measured':>10}{'error':>8}{'CPU ms':>9}{'error':>8}{'others':>8}"
    )
    for each in done:
        if isinstance(each, str):
            yield each
            continue
        scenario, measured = each.predicted.scenario, each.measured
        by_cpu = "" if each.cpu_error is None else f"{each.cpu_error:+.0%}"
        yield (
            f"{f'{scenario.width}x{scenario.height}':<12}{scenario.detector:<10}{scenario.cores:>6}{scenario.cameras:>8}"
            f"{scenario.threads:>8}{each.predicted.fps:>11.1f}{measured.fps:>10.1f}{each.error:>+8.0%}"
            f"{measured.cpu_ms:>9.1f}{by_cpu:>8}{each.others:>8.0%}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--board", type=Path, metavar="FILE")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--counts", action="store_true")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--yunet", type=Path, metavar="FILE", help="YuNet's model file (scripts/get-yunet)")
    parser.add_argument("--size", type=size, action="append", metavar="WxH")
    parser.add_argument("--detector", choices=DETECTORS, action="append")
    parser.add_argument("--cameras", type=positive, action="append", metavar="N")
    parser.add_argument("--faces", type=positive, action="append", metavar="N")
    parser.add_argument("--people", type=positive, action="append", metavar="N")
    parser.add_argument("--threads", type=positive, default=1, metavar="N", help="of each camera's process (default 1)")
    parser.add_argument("--min-face", type=positive, default=80, metavar="PX")
    parser.add_argument("--seconds", type=float, default=rates.SECONDS, help="that the speeds may take (default 10)")
    parser.add_argument("--case-seconds", type=float, default=8.0, help="of each case of --check (default 8)")
    args = parser.parse_args()
    if args.counts:
        print(*told_counts(args.size or SIZES, args.min_face), sep="\n")
        return
    if args.check and args.board:
        parser.error("--check measures the board that it runs on, so it takes no --board")
    options = settings.Engine(yunet_model=str(args.yunet.resolve()) if args.yunet else "")
    try:
        found = read(args.board) if args.board else own_speeds(options, args.seconds)
        print(*told_speeds(found), "", sep="\n", flush=True)
        if args.json:
            told = {"format": FORMAT, **dataclasses.asdict(found)}
            args.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        for line in told_predictions(found, scenarios(args, found.board.cpus)):
            print(line)
        if args.check:
            print()
            done = check(found, options, args.size or SIZES, args.detector or DETECTORS, args.case_seconds)
            for line in told_check(done):
                print(line, flush=True)
    except EdgeFaceError as error:
        sys.exit(error.message)
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")


def size(text: str) -> tuple[int, int]:
    width, _, height = text.partition("x")
    found = int(width), int(height)
    if min(found) < 64:
        raise ValueError(text)
    return found


def positive(text: str) -> int:
    found = int(text)
    if found < 1:
        raise ValueError(text)
    return found


if __name__ == "__main__":
    main()
