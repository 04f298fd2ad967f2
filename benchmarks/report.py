"""Runs every benchmark and prints docs/performance.md.

    .venv/bin/python benchmarks/report.py --photos FOLDER --clip CLIP [--yunet FILE] > docs/performance.md

Each benchmark prints JSON and measures its peers in the same run. On a shared machine the ratios count.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGES = ("numpy", "opencv-python-headless", "dlib-bin", "onnxruntime", "face_recognition")


def measured(script: str, *args: str) -> dict[str, Any]:
    """One benchmark's JSON."""
    print(f"running {script} {' '.join(args)}", file=sys.stderr)
    environment = os.environ | {"PYTHONPATH": str(HERE.parent), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(HERE / script), *args, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def table(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    """Rows with the same keys as Markdown."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    yield "| " + " | ".join(keys) + " |"
    yield "|" + "---|" * len(keys)
    for row in rows:
        yield "| " + " | ".join(_cell(row.get(key)) for key in keys) + " |"


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def report(photos: str, clip: str, yunet: str, count: int) -> Iterator[str]:
    yunet_args = ("--yunet", yunet) if yunet else ()
    yield "# Performance\n"
    yield "Printed by `benchmarks/report.py`; each table by the benchmark that it names, its peers in the same run."
    yield "The machine is shared, so the ratios count, not the milliseconds.\n"
    yield f"{datetime.now(UTC):%Y-%m-%d}, {processor()}, {os.cpu_count()} cores, Python {platform.python_version()},"
    yield ", ".join(f"{name} {version(name)}" for name in PACKAGES) + "."
    for title, script, args in (
        ("Encoder: one face, one thread", "encoder.py", (photos, "--photos", str(count))),
        ("Detectors: 640x480, one thread", "detectors.py", (photos, "--photos", str(count), *yunet_args)),
        ("Whole loop: CPU per frame, every frame decided, 1,000 people", "whole_loop.py", (clip,)),
        ("Gallery: best and second-best person", "gallery.py", ()),
        ("Memory: parent and one camera child, 640x480", "memory.py", ()),
        ("Latency: grab to an MQTT subscriber, 640x480 at 15 fps", "latency.py", ()),
    ):
        found = measured(script, *args)
        yield f"\n## {title}\n\n`benchmarks/{script}`\n"
        yield from table(found["rows"])
        if agreement := found.get("agreement"):
            yield "\nAgreement with dlib's CNN:\n"
            yield from table([agreement])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, metavar="FOLDER", help="photos of people")
    parser.add_argument("--clip", required=True, help="a clip of one person")
    parser.add_argument("--yunet", default="", metavar="FILE", help="YuNet's model file")
    parser.add_argument("--count", type=int, default=100, help="how many of the photos")
    args = parser.parse_args()
    for line in report(args.photos, args.clip, args.yunet, args.count):
        print(line, flush=True)


if __name__ == "__main__":
    main()
