"""Memory, threads and latency of the real daemon."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edge_face import settings
from edge_face.messages import PhotoJob
from edge_face.supervisor import Child

BLAS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def environment(pid: int) -> dict[str, str]:
    entries = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    return dict(entry.split("=", 1) for entry in entries if entry)


async def test_the_threads_of_blas_are_bounded_unless_the_user_bounds_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in BLAS:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    async with await Child.start(PhotoJob(settings.Engine(threads=2), "info")) as child:
        found = environment(child.process.pid)
    assert [found[variable] for variable in BLAS] == ["2", "3", "2"]
    assert found["PATH"] == os.environ["PATH"]
