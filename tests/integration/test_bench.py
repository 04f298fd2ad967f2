"""`edge-face bench` as people start it: real children, a real broker, the demo's photos."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.broker import Broker
from tests.support.daemon import edge_face, write_config

STAGES = {"grab", "decode", "motion", "scale", "track", "align", "encode", "detect hog", "decide", "JPEG", "WebSocket"}


def test_a_short_run_measures_every_stage(tmp_path: Path, broker: Broker) -> None:
    config = write_config(tmp_path, {"mqtt": {"host": "127.0.0.1", "port": broker.port}})
    files = tmp_path / "bench.json", tmp_path / "bench.html"
    done = edge_face(
        *("bench", "--quick", "--seconds", "3", "--latency", "60000"),
        *("--json", files[0], "--html", files[1]),
        config=config,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(files[0].read_text())
    assert {stage["name"] for stage in told["stages"]} >= STAGES | {"publish"}
    assert all(0 < stage["p50_ms"] <= stage["p95_ms"] <= stage["p99_ms"] for stage in told["stages"])
    assert told["cameras"][0]["fps"] > 0
    assert told["cameras"][0]["memory_mib"] > 20
    assert told["cameras"][0]["cpu_ms"] > 0
    assert told["advice"]["fragment"] in done.stdout
    assert "edge-face on" in files[1].read_text()


@pytest.mark.slow
def test_half_a_minute_is_half_a_minute(tmp_path: Path) -> None:
    begin = time.monotonic()
    done = edge_face("bench", "--quick", "--json", tmp_path / "bench.json", config=write_config(tmp_path, {}))
    assert done.returncode in (0, 1), done.stderr
    assert time.monotonic() - begin < 45  # others may load this machine
    told = json.loads((tmp_path / "bench.json").read_text())
    assert {match["faces"] for match in told["matches"]} == {10, 100, 1_000, 10_000, 100_000}
    assert [run["cameras"] for run in told["cameras"]] == [1, 2]
    assert {cost["detector"] for cost in told["searches"]} >= {"hog", "cnn"}
    assert len(told["vitals"]["samples"]) > 10


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--latency", "soon"), 2, "expected 10 to 60000 milliseconds, not soon"),
        (("--json", "/nowhere/x.json"), 1, "There is no folder /nowhere"),
        (("--html", "/"), 1, "/ is a folder"),
        (("--source", "/nowhere.mp4"), 1, "/nowhere.mp4: no such file"),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path: Path, arguments: tuple[str, ...], code: int, words: str) -> None:
    done = edge_face("bench", *arguments, config=write_config(tmp_path, {}))
    assert done.returncode == code
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_ctrl_c_ends_it_and_leaves_nothing(tmp_path: Path) -> None:
    """The bar is seen on a terminal; the children and the pictures are gone."""
    config, temporary = write_config(tmp_path, {}), tmp_path / "tmp"
    temporary.mkdir()
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_face", "bench", "--config", str(config)],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    os.close(theirs)
    seen = b""
    try:
        while b"1 camera" not in seen:
            seen += os.read(ours, 4096)
        assert list(temporary.iterdir())
        deadline = time.monotonic() + 20
        while not (children := Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    finally:
        process.kill()
        process.wait()
    assert b"[#" in seen or b"[." in seen
    assert b"Traceback" not in seen + os.read(ours, 4096)
    assert list(temporary.iterdir()) == []
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    os.close(ours)
