"""`benchmarks/compare.py`: what counts as right, and real loops beside each other."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def compare(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return importlib.import_module("compare")


@pytest.mark.parametrize(
    ("enrolled", "named", "expected"),
    [
        (True, [(12, 1.5, ["Man"])], ("right", 0.5)),
        (True, [], ("missed", None)),
        (True, [(5, 0.5, ["Man"]), (21, 2.5, ["Man"])], ("missed", None)),
        (True, [(12, 1.5, ["Man"]), (13, 1.6, ["Stranger 3"])], ("wrong", None)),
        (False, [], ("right", None)),
        (False, [(12, 1.5, ["Man"])], ("wrong", None)),
    ],
)
def test_what_a_visit_counts_as(
    compare: ModuleType,
    enrolled: bool,
    named: list[tuple[int, float, list[str]]],
    expected: tuple[str, float | None],
) -> None:
    assert compare.outcome_of(compare.Visit(10, 20, enrolled), named, 10.0) == expected


@pytest.mark.slow
def test_edge_face_is_right_at_each_visit_and_costs_less() -> None:
    options = ["--loops", "edge-face-hog,service", "--demo-visits", "2", "--json"]
    command = [sys.executable, "-W", "ignore", str(BENCHMARKS / "compare.py"), *options]
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS.parent)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ours, theirs = json.loads(done.stdout)["rows"]
    assert (ours["right"], ours["wrong"], ours["missed"]) == (2, 0, 0)
    assert ours["cpu_ms"] < theirs["cpu_ms"]
    assert all(row["memory_mib"] > 50 and row["fps"] > 0 and 0 < row["seen"] <= 1 for row in (ours, theirs))
