"""What viewers of the live stream cost the camera: a real daemon, real sockets.

usage: python benchmarks/viewers.py [--seconds N] [--rounds N] [--fps N] [--json]

    --seconds  how long each number of viewers watches in a round (default 6)
    --rounds   how often they take turns (default 5)
    --fps      most frames judged in a second; 0: as many as the machine can (default 10, as the daemon's)

The clip is the demo's scene, 640x480, in a loop, and its person is enrolled. In each round nobody watches, then 1, 10,
50 viewers, and 50 with one more that never reads. They take turns, so that a noisy machine is noisy for all. The
viewers are a thread of this program that throws away what it gets; it takes processor time from the camera, which
viewers elsewhere would not. `kept` is the frame rate divided by that without viewers; `watched` are the messages that
the viewer with the fewest got, divided by the frames.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2

sys.path.insert(0, str(Path(__file__).parent.parent))

from edge_face.demo import FPS, HEIGHT, NAME, WIDTH, DemoScene, enrolment_photo
from tests.support.daemon import Daemon, edge_face, write_config
from tests.support.processes import Usage, children, usage
from tests.support.viewers import Viewers

CROWDS = ((0, 0), (1, 0), (10, 0), (50, 0), (50, 1))
"""Viewers, and those that never read."""
SETTLE_S = 1.0
CLIP = 300


@dataclass(slots=True)
class Tally:
    """What was counted with one number of viewers."""

    viewers: int
    stalled: int
    seconds: float = 0.0
    frames: int = 0
    watched: int = 0
    parent_s: float = 0.0
    child_s: float = 0.0
    parent_mib: float = 0.0


@dataclass(frozen=True, slots=True)
class Row:
    viewers: int
    stalled: int
    fps: float
    kept: float
    watched: float | None
    parent_cpu: float
    """Processor seconds a second."""
    child_cpu: float
    parent_mib: float
    """PSS, the most that was seen."""


def write_clip(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (WIDTH, HEIGHT))
    scene = DemoScene(FPS)
    for number in range(CLIP):
        writer.write(scene.frame(number))
    writer.release()
    return path


def judged(daemon: Daemon) -> int:
    """Frames so far."""
    return int(daemon.get("/api/v1/status").json()["cameras"][0]["frames"])


def used(pid: int) -> Usage:
    found = usage(pid)
    assert found, f"process {pid} has ended"
    return found


def watch(daemon: Daemon, tally: Tally, seconds: float) -> None:
    assert daemon.process is not None
    parent = daemon.process.pid
    (child,) = children(parent)
    with Viewers(daemon.port, daemon.token) as viewers:
        viewers.open(tally.viewers)
        for _ in range(tally.stalled):
            viewers.open_stalled()
        time.sleep(SETTLE_S)
        frames, got = judged(daemon), viewers.messages()
        before = used(parent), used(child)
        begin = time.monotonic()
        time.sleep(seconds)
        after = used(parent), used(child)
        tally.seconds += time.monotonic() - begin
        tally.frames += judged(daemon) - frames
        tally.watched += min((now - then for now, then in zip(viewers.messages(), got, strict=True)), default=0)
    tally.parent_s += after[0].cpu_s - before[0].cpu_s
    tally.child_s += after[1].cpu_s - before[1].cpu_s
    tally.parent_mib = max(tally.parent_mib, after[0].pss_mib)


def rows(tallies: list[Tally]) -> Iterator[Row]:
    alone = tallies[0].frames / tallies[0].seconds
    for tally in tallies:
        fps = tally.frames / tally.seconds
        watched = tally.watched / tally.frames if tally.viewers else None
        parent, child = tally.parent_s / tally.seconds, tally.child_s / tally.seconds
        yield Row(tally.viewers, tally.stalled, fps, fps / alone, watched, parent, child, tally.parent_mib)


def run(
    folder: Path, seconds: float, rounds: int, fps: float, crowds: tuple[tuple[int, int], ...] = CROWDS
) -> list[Row]:
    """`crowds` begins with nobody, with whom the others are compared."""
    source = {
        "source": write_clip(folder / "clip.avi"),
        "loop": "true",
        "fps": fps,
        "realtime": "true" if fps else "no",
    }
    config = write_config(folder, {"camera": source})
    (folder / "photo.jpg").write_bytes(enrolment_photo())
    done = edge_face("enroll", NAME, folder / "photo.jpg", config=config)
    assert done.returncode == 0, done.stderr
    tallies = [Tally(*crowd) for crowd in crowds]
    with Daemon(config) as daemon:
        daemon.wait_for("ok")
        for _ in range(rounds):
            for tally in tallies:
                watch(daemon, tally, seconds)
    return list(rows(tallies))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--fps", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = run(Path(folder), args.seconds, args.rounds, args.fps)
    if args.json:
        print(json.dumps({"name": "viewers", "rows": [asdict(row) for row in found]}))
        return
    print(
        f"{'viewers':>7}{'stalled':>8}{'fps':>8}{'kept':>7}{'watched':>9}{'parent CPU':>12}{'child CPU':>11}{'MiB':>6}"
    )
    for row in found:
        watched = "" if row.watched is None else f"{row.watched:.2f}"
        print(
            f"{row.viewers:>7}{row.stalled:>8}{row.fps:>8.2f}{row.kept:>7.3f}{watched:>9}{row.parent_cpu:>12.3f}"
            f"{row.child_cpu:>11.3f}{row.parent_mib:>6.0f}"
        )


if __name__ == "__main__":
    main()
