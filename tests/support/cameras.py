"""Cameras on the network: a real RTSP server (GStreamer's, a process of its own) and one of MJPEG over HTTP.

Both show the pictures of film.py, and go away, hang, freeze and return when they are told to.
"""

from __future__ import annotations

import functools
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support import film
from tests.support.daemon import free_port
from tests.support.mjpeg import MjpegServer

_PYTHON = "/usr/bin/python3"
_BINDINGS = """
import gi
gi.require_version("GstRtspServer", "1.0")
from gi.repository import Gst, GstRtspServer
Gst.init(None)
raise SystemExit(not all(map(Gst.ElementFactory.find, ("appsrc", "videoconvert", "x264enc", "rtph264pay"))))
"""


@functools.cache
def _has_gstreamer() -> bool:
    try:
        return subprocess.run([_PYTHON, "-c", _BINDINGS], capture_output=True, timeout=30, check=False).returncode == 0
    except OSError:
        return False


class RtspServer:
    """Keeps its port over a restart."""

    def __init__(self) -> None:
        if not _has_gstreamer():
            pytest.skip("GStreamer's RTSP server is not installed; scripts/test names the packages")
        self.port = free_port()
        self.url = f"rtsp://127.0.0.1:{self.port}/live"
        self._process: subprocess.Popen[str] | None = None

    def start(self, width: int = 640, height: int = 480) -> None:
        """Returns when it listens."""
        script = Path(__file__).with_name("gst_rtsp.py")
        command = [_PYTHON, str(script), *map(str, (self.port, width, height))]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout
        with self._process.stdout:
            assert self._process.stdout.readline() == "ready\n"

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _send(self, number: signal.Signals) -> None:
        assert self._process
        self._process.send_signal(number)

    def hang(self) -> None:
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        self._send(signal.SIGCONT)

    def freeze(self) -> None:
        self._send(signal.SIGUSR1)

    def thaw(self) -> None:
        self._send(signal.SIGUSR2)


class FilmServer(MjpegServer):
    """The film over HTTP, with a password in its address."""

    def __init__(self) -> None:
        super().__init__(self._play, free_port())
        self._size = (640, 480)
        self._sending, self._moving = threading.Event(), threading.Event()

    @property
    def url(self) -> str:
        return f"http://katya:geheim@127.0.0.1:{self.port}/video"

    def start(self, width: int = 640, height: int = 480) -> None:
        self._size = width, height
        self._sending.set()
        self._moving.set()
        super().start()

    def _play(self) -> Iterator[bytes]:
        width, height = self._size
        number = film.count()
        while True:
            if self._moving.is_set():
                number = film.count()
            image = np.frombuffer(film.bgr(number, width, height), np.uint8).reshape(height, width, 3)
            data = cv2.imencode(".jpg", image)[1].tobytes()
            self._sending.wait()
            yield data
            time.sleep(1 / film.FPS)

    def stop(self) -> None:
        self._sending.set()
        super().stop()

    def hang(self) -> None:
        self._sending.clear()

    def go_on(self) -> None:
        self._sending.set()

    def freeze(self) -> None:
        self._moving.clear()

    def thaw(self) -> None:
        self._moving.set()
