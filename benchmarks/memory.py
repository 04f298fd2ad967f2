"""Memory of the real daemon with one camera, early and late: what it needs, and whether it grows.

usage: python benchmarks/memory.py [--frames N] [--json]

    --frames  how many frames the daemon judges in all (default 20000)

The clip is the demo's scene, 640x480, in a loop: two people come and go, one of them is enrolled. Every
frame is judged.

PSS is the kernel's: a page that n processes share counts 1/n for each, so other Python programs make it smaller.
`alone` is without that favour: all private pages of both processes, and of each file the larger of their shared parts.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import requests

sys.path.insert(0, str(Path(__file__).parent.parent))

from edge_face.demo import FPS, HEIGHT, NAME, WIDTH, DemoScene, enrolment_photo
from tests.support.daemon import Daemon, edge_face, write_config

WARM_UP = (1000, 2000)
"""Frames after which it is read, too; growth counts from the last: until then allocators and caches fill."""
CLIP = 300


@dataclass(frozen=True, slots=True)
class Row:
    frames: int
    seconds: float
    parent_mib: float
    child_mib: float
    total_mib: float
    alone_mib: float
    growth_mib: float
    """Of `alone`, since the last reading of the warm-up: PSS grows, too, when somebody else's program ends."""


def pss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def alone_mib(pids: list[int]) -> float:
    """What the processes need at least when no other one maps their files."""
    private_kib = 0
    shared: list[defaultdict[str, int]] = []
    for pid in pids:
        shared.append(defaultdict(int))
        file = ""
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            fields = line.split()
            if not fields[0].endswith(":"):  # a mapping's first line; the address has no colon at its end
                file = fields[5] if len(fields) > 5 else ""
            elif fields[0] in ("Private_Clean:", "Private_Dirty:"):
                private_kib += int(fields[1])
            elif fields[0] in ("Shared_Clean:", "Shared_Dirty:"):
                shared[-1][file] += int(fields[1])
    files = {file for each in shared for file in each}
    return (private_kib + sum(max(each[file] for each in shared) for file in files)) / 1024


def write_clip(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FPS, (WIDTH, HEIGHT))
    scene = DemoScene()
    for index in range(CLIP):
        writer.write(scene.frame(index))
    writer.release()
    return path


def child_of(daemon: Daemon) -> int:
    assert daemon.process is not None
    pid = daemon.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 1, f"not one child but {children}"
    return int(children[0])


def run(folder: Path, frames: int) -> list[Row]:
    """One row for each reading; the last one is after `frames`."""
    config = write_config(
        folder,
        {
            "camera": {"source": write_clip(folder / "demo.avi"), "realtime": "no", "fps": 0, "loop": "true"},
            "engine": {"threads": 1},
        },
    )
    (folder / "photo.jpg").write_bytes(enrolment_photo())
    done = edge_face("enroll", NAME, folder / "photo.jpg", config=config)
    assert done.returncode == 0, done.stderr
    rows: list[Row] = []
    with Daemon(config) as daemon:
        daemon.wait_for("ok")
        assert daemon.process is not None
        parent, child = daemon.process.pid, child_of(daemon)
        headers, begin = daemon.auth, time.monotonic()
        base = 0.0
        for goal in (*WARM_UP, frames):
            while (seen := frames_of(daemon, headers)) < goal:
                time.sleep(0.25)
            assert child_of(daemon) == child, f"the child was started again:\n{daemon.log}"
            parent_mib, child_mib = pss_mib(parent), pss_mib(child)
            seconds, alone = time.monotonic() - begin, alone_mib([parent, child])
            base = alone if goal in WARM_UP else base
            rows.append(Row(seen, seconds, parent_mib, child_mib, parent_mib + child_mib, alone, alone - base))
    return rows


def frames_of(daemon: Daemon, headers: dict[str, str]) -> int:
    answer = requests.get(f"{daemon.url}/api/v1/status", headers=headers, timeout=10)
    (camera,) = answer.json()["cameras"]
    return int(camera["frames"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=20000)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.frames <= WARM_UP[-1]:
        parser.error(f"--frames must be more than {WARM_UP[-1]}")
    with tempfile.TemporaryDirectory() as folder:
        rows = run(Path(folder), args.frames)
    if args.json:
        print(json.dumps({"name": "memory", "rows": [asdict(row) for row in rows]}))
        return
    print("PSS in MiB (growth: of alone), 640x480, one thread\n")
    print(f"{'frames':>7}{'seconds':>9}{'parent':>9}{'child':>9}{'total':>9}{'alone':>9}{'growth':>9}")
    for row in rows:
        print(
            f"{row.frames:>7}{row.seconds:>9.0f}{row.parent_mib:>9.1f}{row.child_mib:>9.1f}{row.total_mib:>9.1f}"
            f"{row.alone_mib:>9.1f}{row.growth_mib:>+9.1f}"
        )


if __name__ == "__main__":
    main()
