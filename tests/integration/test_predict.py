"""`benchmarks/predict.py` as people start it: ten seconds, real cameras beside them, and another board's file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def predict(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "ignore", "benchmarks/predict.py", *map(str, args)]
    return subprocess.run(command, cwd=ROOT, env={**os.environ}, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_a_prediction_is_checked_by_real_cameras_and_can_be_sent(tmp_path: Path) -> None:
    """Others may load this machine, so what counts is the processor's time for a frame."""
    few = ("--detector", "hog", "--size", "640x480")
    done = predict("--check", "--seconds", 2, "--case-seconds", 1, "--json", tmp_path / "speeds.json", *few)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    rows = [line.split() for line in done.stdout.partition("checked")[2].splitlines()[1:]]
    cores = len(os.sched_getaffinity(0))
    assert len(rows) == 3
    ran = [row for row in rows if row[1] == "hog"]
    assert len(ran) == (3 if cores > 1 else 1)
    assert all("impossible" in row for row in rows if row not in ran)
    for row in ran:
        assert row[7].endswith("%")
        assert float(row[6]) > 0
        if row[4] == "1":
            assert abs(float(row[9].rstrip("%"))) < 60
    told = json.loads((tmp_path / "speeds.json").read_text())
    assert {each["kind"] for each in told["rates"]["speeds"]} >= {"hog", "cnn", "encode", "scale", "grab", "align"}
    elsewhere = predict("--board", tmp_path / "speeds.json", "--people", 20000, "--faces", 2, *few)
    assert elsewhere.returncode == 0, elsewhere.stderr
    one, two = (line.split() for line in elsewhere.stdout.partition("predicted")[2].splitlines()[1:])
    assert (one[2], one[3], one[4], two[2]) == ("1", "2", "20,000", "2")
    assert 0 < float(one[5]) <= float(two[5])


def test_the_counts_are_printed() -> None:
    done = predict("--counts", "--size", "640x480")
    assert done.returncode == 0, done.stderr
    row = next(line.split() for line in done.stdout.splitlines() if line.startswith("encode"))
    assert float(row[1]) == pytest.approx(543.9, abs=0.5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "holds no board's speeds"),
        ('{"format": 0}', "is of format 0"),
        ('{"format": 1}', "holds no board's speeds"),
    ],
)
def test_a_file_that_is_none_is_told_in_one_line(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "x.json").write_text(content)
    done = predict("--board", tmp_path / "x.json")
    assert done.returncode == 1
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
