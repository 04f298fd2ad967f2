"""Cameras on the network: a real RTSP server (GStreamer's, a process of its own) and one of MJPEG over HTTP.

Both show the pictures of film.py, and go away, hang, freeze and return when they are told to.
"""

from __future__ import annotations

import functools
import http.server
import signal
import socketserver
import subprocess
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.support import film
from tests.support.daemon import free_port

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


class MjpegServer:
    """An IP camera's MJPEG, with a password in its address."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://katya:geheim@127.0.0.1:{self.port}/video"
        self._going, self._sending, self._moving = threading.Event(), threading.Event(), threading.Event()
        self._server: socketserver.ThreadingTCPServer | None = None

    def start(self, width: int = 640, height: int = 480) -> None:
        camera = self
        for event in (self._going, self._sending, self._moving):
            event.set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the name http.server asks for
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                number = film.count()
                try:
                    while camera._going.is_set():
                        if camera._moving.is_set():
                            number = film.count()
                        image = np.frombuffer(film.bgr(number, width, height), np.uint8).reshape(height, width, 3)
                        data = cv2.imencode(".jpg", image)[1].tobytes()
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                        camera._sending.wait()
                        self.wfile.write(head.encode() + data + b"\r\n")
                        time.sleep(1 / film.FPS)
                except OSError:
                    pass

            def log_message(self, *args: object) -> None:
                pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._going.clear()
        self._sending.set()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def hang(self) -> None:
        self._sending.clear()

    def go_on(self) -> None:
        self._sending.set()

    def freeze(self) -> None:
        self._moving.clear()

    def thaw(self) -> None:
        self._moving.set()
