"""Ten minutes in which everything happens to one daemon: benchmarks/soak.py says what, and what must hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import usage

ROOT = Path(__file__).parent.parent.parent
MINUTES = 9.5


@pytest.mark.slow
@pytest.mark.paired
@pytest.mark.early(1)
@pytest.mark.timeout(900)
def test_after_minutes_of_everything_nothing_grew_and_nothing_was_wrong() -> None:
    command = [sys.executable, "benchmarks/soak.py", "--minutes", str(MINUTES), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800, check=False)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    print(json.dumps(report, indent=1))
    assert report["problems"] == []
    assert done.returncode == 0
    assert [row["process"] for row in report["rows"]] == ["parent", "camera 1", "camera 2", "camera 3"]
    for row in report["rows"]:
        assert row["growth"] < 0.02
    # That it was no idle time.
    done_so_far = report["figures"]
    for what, least in {
        "passes": 50, "registrations": 10, "requests": 300, "viewers": 30, "uploads": 40, "commands": 5,
        "camera losses": 5, "broker restarts": 5, "starts of the photo process": 2,
    }.items():  # fmt: skip
        assert done_so_far[what] >= least, what


def test_what_a_process_holds_is_seen(tmp_path: Path) -> None:
    """The soak's own eyes: 32 MiB, 20 descriptors and 3 threads more are noticed."""
    script = """
import sys, threading, time
held = [open(sys.argv[0]) for _ in range(20)]
for _ in range(3): threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
ballast = b"x" * (32 << 20)
print("ready", flush=True)
time.sleep(60)
"""
    found = []
    for text in (script, "import time; print('ready', flush=True); time.sleep(60)"):
        (tmp_path / "program.py").write_text(text)
        program = [sys.executable, str(tmp_path / "program.py")]
        with subprocess.Popen(program, stdout=subprocess.PIPE) as process:
            assert process.stdout
            process.stdout.readline()
            used = usage(process.pid)
            process.kill()
        assert used is not None
        found.append(used)
    assert found[0].pss_mib - found[1].pss_mib > 30
    assert found[0].descriptors - found[1].descriptors == 20
    assert found[0].threads - found[1].threads == 3
