"""Cameras and clips of composed scenes, for daemons that run for a while."""

from __future__ import annotations

import http.server
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from tests.support.scenes import FPS, HEIGHT, WIDTH, Scene, crossing

Frame = npt.NDArray[np.uint8]
"""(height, width, 3) BGR."""


def busy_gate(first: int = 0) -> list[Frame]:
    """22 s at a gate: Eileen and Grace cross, then each comes alone. The clip begins with frame `first`."""
    scene = Scene()
    frames = [scene.frame(*people)[0] for people in _comings()]
    return frames[first:] + frames[:first]


def _comings() -> Iterator[list[tuple[str, float, float]]]:
    nobody = list[tuple[str, float, float]]()
    eileen, grace = ([(name, 320.0 + 3 * (step % 9), 240.0) for step in range(4 * FPS)] for name in ("Eileen", "Grace"))
    pause = list(repeat(nobody, int(2.5 * FPS)))
    yield from chain(pause, crossing(), pause, ([one] for one in eileen), pause, ([one] for one in grace))


def write_clip(path: Path, frames: Sequence[Frame], fps: float = FPS) -> Path:
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (width, height))
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


class StreamServer:
    """An IP camera over HTTP (MJPEG) that plays frames in a loop; it can go away, and come back on the same port."""

    def __init__(self, frames: Sequence[Frame], fps: float = FPS) -> None:
        self._jpegs = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in frames]
        self._fps = fps
        self._server: socketserver.ThreadingTCPServer | None = None
        self._on = threading.Event()
        self.port = 0
        self.start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/video"

    def start(self) -> None:
        camera = self
        camera._on.set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:  # the name http.server asks for
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                try:
                    while camera._on.is_set():
                        data = camera._jpegs[int(time.monotonic() * camera._fps) % len(camera._jpegs)]
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                        self.wfile.write(head.encode() + data + b"\r\n")
                        time.sleep(1 / camera._fps - time.monotonic() % (1 / camera._fps))
                except OSError:
                    pass

            def log_message(self, *args: object) -> None:
                pass

        class Server(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True

        self._server = Server(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._on.clear()
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def blank_frame(width: int = WIDTH, height: int = HEIGHT) -> Frame:
    return np.full((height, width, 3), 127, np.uint8)
