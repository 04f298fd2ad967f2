"""Children that fail when a test says so: a `sitecustomize` that answers signals with real crashes, hangs and leaks."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

CRASH, HANG, LEAK, DEAF = signal.SIGUSR1, signal.SIGUSR2, signal.SIGRTMIN, signal.SIGRTMIN + 1
"""A write to address 0; a native call that keeps the interpreter's lock for ever; 50 MiB more every 0.1 s; the socket
closed, and then a hang.
"""
CRASHING_PHOTO, HANGING_PHOTO = b"crash the reader", b"hang the reader"
"""Somewhere in a photo, these do the same to whoever opens it."""

_SITE = """
import ctypes, signal, socket, sys, threading, time

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


def deaf(number, frame):
    sys.setswitchinterval(3600)  # or the thread that listens could end the process before it hangs
    libc = ctypes.PyDLL(None)
    libc.shutdown(int(sys.orig_argv[-1]), socket.SHUT_RDWR)
    libc.sleep(3600)


def open_photo(fp, *args, **options):
    data = bytes(fp.getvalue())
    if b"crash the reader" in data:
        crash(0, None)
    if b"hang the reader" in data:
        hang(0, None)
    return really_open(fp, *args, **options)


if "edge_face.worker" in sys.orig_argv:
    signal.signal(signal.SIGUSR1, crash)
    signal.signal(signal.SIGUSR2, hang)
    signal.signal(signal.SIGRTMIN, leak)
    signal.signal(signal.SIGRTMIN + 1, deaf)
    from PIL import Image

    really_open, Image.open = Image.open, open_photo
"""


def prepare(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Children that are started from now on can fail."""
    site = folder / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(_SITE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(site), str(ROOT))))
