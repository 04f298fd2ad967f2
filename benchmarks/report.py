"""Runs every benchmark and prints docs/performance.md.

    .venv/bin/python benchmarks/report.py --photos FOLDER --clip CLIP [--yunet FILE] [--json FILE] > docs/performance.md

Each benchmark prints JSON and measures its peers in the same run. On a shared machine the ratios count. FAISS takes
part where it is installed. Exit code 1 if a promise is not kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import scale
from markdown import table

HERE = Path(__file__).parent
PACKAGES = ("numpy", "opencv-python-headless", "dlib-bin", "onnxruntime", "face_recognition")

Rows = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Promise:
    text: str
    limit: float
    measured: float
    at_most: bool = True

    @property
    def kept(self) -> bool:
        return self.measured <= self.limit if self.at_most else self.measured >= self.limit


def measured(script: str, *args: str) -> dict[str, Any]:
    """One benchmark's JSON."""
    print(f"running {script} {' '.join(args)}", file=sys.stderr)
    path = os.pathsep.join(filter(None, (str(HERE.parent), os.environ.get("PYTHONPATH"))))
    environment = os.environ | {"PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, str(HERE / script), *args, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, env=environment, check=True, text=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure_all(
    photos: str, clip: str, yunet: str, count: int, known: Mapping[str, dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    """Benchmark to its JSON; those in `known` are not measured again. The loop runs once for each detector."""
    yunet_args = ("--yunet", yunet) if yunet else ()

    def whole_loop() -> dict[str, Any]:
        detectors = ("hog", "cnn", *(("yunet",) if yunet else ()))
        loops = [
            measured("whole_loop.py", clip, "--detector", each, *(yunet_args if each == "yunet" else ()))
            for each in detectors
        ]
        return {"rows": [row for loop in loops for row in loop["rows"]]}

    benchmarks: dict[str, Callable[[], dict[str, Any]]] = {
        "encoder": lambda: measured("encoder.py", photos, "--photos", str(count)),
        "detectors": lambda: measured("detectors.py", photos, "--photos", str(count), *yunet_args),
        "whole_loop": whole_loop,
        "gallery": lambda: measured("gallery.py"),
        "memory": lambda: measured("memory.py"),
        "latency": lambda: measured("latency.py"),
        "storage": lambda: measured("storage.py"),
        "viewers": lambda: measured("viewers.py"),
        "scale": lambda: measured("scale.py", photos),
    }
    return {
        name: known[name] if name in known else measure() | {"at": f"{datetime.now(UTC):%Y-%m-%d %H:%M}"}
        for name, measure in benchmarks.items()
    }


def promises(found: Mapping[str, Mapping[str, Any]]) -> Iterator[Promise]:
    """What the engine promises, each with its worst measured value."""
    rows: dict[str, Rows] = {name: each["rows"] for name, each in found.items()}
    encoder = _row(rows["encoder"], backend="onnxruntime")
    yield Promise("encoder: times as fast as dlib", 15, encoder["ratio_cpu"], at_most=False)
    yield Promise("encoder: largest L2 difference to face_recognition", 1e-5, max(r["max_l2"] for r in rows["encoder"]))
    cnn = _row(rows["detectors"], detector="cnn, onnxruntime")
    yield Promise("CNN detector: times as fast as dlib", 20, cnn["ratio_cpu"], at_most=False)
    agreement = found["detectors"]["agreement"]
    share = agreement["found"] / agreement["expected"]
    yield Promise("CNN detector: share of dlib's detections found, IoU 0.9", 0.99, share, at_most=False)
    added = sum(confidence > 0.1 for confidence in agreement["added"])
    yield Promise("CNN detector: detections above confidence 0.1 that dlib has not", 0, added)
    mine = next(row for row in rows["whole_loop"] if "hog" in row["loop"])
    text = "whole loop: times less CPU than face_recognition's faster loop"
    yield Promise(text, 10, mine["ratio_cpu"], at_most=False)
    one = _row(rows["gallery"], templates=5000, probes=1)
    yield Promise("gallery: microseconds for one probe, 1,000 people with 5 templates", 150, one["p50_us"])
    text = "gallery: times as fast as face_distance on the same templates"
    yield Promise(text, 8, one["ratio_face_distance"], at_most=False)
    for row in rows["gallery"]:
        if row["ratio_faiss"] is not None:
            text = f"gallery: times as fast as FAISS, {row['templates']:,} templates, probes: {row['probes']}"
            yield Promise(text, 1, row["ratio_faiss"], at_most=False)
    yield Promise("memory: MiB (PSS) of parent and child", 260, rows["memory"][-1]["total_mib"])
    yield Promise("memory: MiB of growth after warm-up", 2, rows["memory"][-1]["growth_mib"])
    yield Promise("latency: p50 ms, grab to MQTT subscriber", 60, rows["latency"][0]["p50_ms"])
    yield Promise("latency: p99 ms, grab to MQTT subscriber", 200, rows["latency"][0]["p99_ms"])
    crowd = _row(rows["viewers"], viewers=50, stalled=1)
    text = "viewers: share of the frame rate that 50, and one more that never reads, leave"
    yield Promise(text, 0.9, crowd["kept"], at_most=False)
    for row in found["scale"]["curves"]["enrolment"]:
        if row["program"] != "face_recognition" and row["photos"] == scale.PHOTOS[-1]:
            text = f"enrolment: times as fast as face_recognition, {row['photos']:,} photos of {row['pixels']}"
            yield Promise(text, 10, row["ratio"], at_most=False)


def _row(rows: Rows, **keys: object) -> dict[str, Any]:
    return next(row for row in rows if all(row[key] == value for key, value in keys.items()))


def report(found: Mapping[str, Mapping[str, Any]], checked: Sequence[Promise]) -> Iterator[str]:
    yield "# Performance\n"
    yield "Printed by `benchmarks/report.py`; each table by the benchmark that it names, its peers in the same run."
    yield "The machine is shared, so the ratios count, not the milliseconds. One thread, down to the gallery.\n"
    yield f"{datetime.now(UTC):%Y-%m-%d}, {processor()}, {os.cpu_count()} cores, Python {platform.python_version()},"
    yield ", ".join(f"{name} {version(name)}" for name in PACKAGES) + "."
    yield "\n## Promises\n"
    yield from table(
        [
            {
                "what": promise.text,
                "limit": f"{'at most' if promise.at_most else 'at least'} {promise.limit:g}",
                "measured": promise.measured,
                "kept": "yes" if promise.kept else "**no**",
            }
            for promise in checked
        ]
    )
    for name, title in (
        ("encoder", "Encoder: one face"),
        ("detectors", "Detectors: 640x480"),
        ("whole_loop", "Whole loop: every frame decided, 1,000 people enrolled"),
        ("gallery", "Gallery: best and second-best person"),
        ("memory", "Memory: parent and one camera child, 640x480"),
        ("latency", "Latency: grab to an MQTT subscriber, 640x480 at 15 fps"),
        ("storage", "Storage: what an event costs the card"),
        ("viewers", "Viewers of the live stream: 640x480 at 10 fps"),
    ):
        yield f"\n## {title}\n\n`benchmarks/{name}.py`, {found[name]['at']} UTC\n"
        yield from table(found[name]["rows"])
        if agreement := found[name].get("agreement"):
            yield "\nAgreement with dlib's CNN:\n"
            yield from table([{**agreement, "added": len(agreement["added"])}])
        if arithmetic := found[name].get("arithmetic"):
            yield "\nA face's arithmetic, this machine's float32 matrix product, and what follows from both:\n"
            yield from table([arithmetic])
    yield f"\n## How cost grows\n\n`benchmarks/scale.py`, {found['scale']['at']} UTC\n"
    yield from scale.section(found["scale"]["curves"])


def processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", required=True, metavar="FOLDER", help="photos of people")
    parser.add_argument("--clip", required=True, help="a clip of one person")
    parser.add_argument("--yunet", default="", metavar="FILE", help="YuNet's model file")
    parser.add_argument("--count", type=int, default=100, help="how many of the photos")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured there, too")
    parser.add_argument("--again", nargs="+", metavar="NAME", help="only these; the others are read from --json FILE")
    args = parser.parse_args()
    known = json.loads(args.json.read_text()) if args.again else {}
    found = measure_all(
        args.photos, args.clip, args.yunet, args.count, {name: known[name] for name in known if name not in args.again}
    )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    checked = list(promises(found))
    print(*report(found, checked), sep="\n")
    sys.exit(not all(promise.kept for promise in checked))


if __name__ == "__main__":
    main()
