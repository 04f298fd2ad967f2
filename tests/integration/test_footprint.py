"""Memory and threads of the real daemon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import memory
from edge_face import settings
from edge_face.child import Child
from edge_face.messages import PhotoJob
from tests.support.broker import until

COMMAND_LINE = """
import os, sys
from edge_face import cli
assert "numpy" not in sys.modules, "it has read the environment already"
try:
    cli.main(["config"])
finally:
    print(os.environ["OPENBLAS_NUM_THREADS"], file=sys.stderr)
"""


def environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


async def test_the_threads_of_a_child_s_blas_are_those_of_the_option() -> None:
    async with await Child.start(PhotoJob(settings.Engine(threads=2), "info")) as child:
        pid = child.process.pid
        await until(lambda: environment(pid))  # between fork and exec there is none to be read
        found = environment(pid)
    assert [found[name] for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")] == ["2", "2", "2"]
    assert found["PATH"] == os.environ["PATH"]


def test_the_parent_s_blas_has_one_thread(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", COMMAND_LINE], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr.strip()) == (0, "1")


@pytest.mark.slow
def test_parent_and_child_stay_under_260_mib_and_do_not_grow(tmp_path: Path) -> None:
    rows = memory.run(tmp_path, 4000)
    for row in rows:
        print(row)
    assert rows[-1].total_mib < 260
    assert rows[-1].growth_mib < 0.02 * rows[-1].alone_mib
