"""Children that fail when a test says so: a `sitecustomize` that answers signals with real crashes, hangs and leaks."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CRASH, HANG, LEAK = signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN
"""A write to address 0; a native call that keeps the interpreter's lock for ever; 50 MiB more every 0.1 s."""

_SITE = """
import ctypes, signal, sys, threading, time

kept = []


def crash(number, frame):
    ctypes.memset(0, 1, 1)


def hang(number, frame):
    ctypes.PyDLL(None).sleep(3600)


def leak(number, frame):
    def grow():
        while True:
            kept.append(b"x" * (50 << 20))
            time.sleep(0.1)

    threading.Thread(target=grow, daemon=True).start()


if "edge_face.worker" in sys.orig_argv:
    signal.signal(signal.SIGUSR1, crash)
    signal.signal(signal.SIGUSR2, hang)
    signal.signal(signal.SIGRTMIN, leak)
"""


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that are started from now on can fail."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SITE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(site), str(ROOT))))
