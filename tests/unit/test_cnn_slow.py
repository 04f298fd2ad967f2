"""The CNN detector against dlib's own on real photos: the same faces, at least 20 times as fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def measured(*args: str) -> dict[str, object]:
    """What the benchmark says, in a process of its own with one thread for every library."""
    environ = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / "detectors.py"), "--json", *args]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    result: dict[str, object] = json.loads(done.stdout)
    return result


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.parametrize(
    ("folder", "photos", "least_faces"), [("lfw", 100, 95), ("detect", 40, 60), ("stills", 50, 50)]
)
def test_the_faces_are_those_of_dlib(folder: str, photos: int, least_faces: int, data: Path) -> None:
    found = measured(str(data / folder), "--photos", str(photos), "--rounds", "1")["agreement"]
    assert isinstance(found, dict)
    print(found)
    assert found["expected"] >= least_faces
    assert found["found"] >= 0.99 * found["expected"]
    assert all(confidence <= 0.1 for confidence in found["added"])
    assert found["largest_difference"] < 0.005


@pytest.mark.slow
def test_it_is_many_times_as_fast_on_one_thread() -> None:
    rows = measured("--photos", "1", "--rounds", "9")["rows"]
    assert isinstance(rows, list)
    print(rows)
    (row,) = (row for row in rows if row["detector"] == "cnn, onnxruntime")
    assert row["ratio_cpu"] >= 8  # a third of what a quiet machine shows (docs/performance.md)
