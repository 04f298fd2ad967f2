"""An RTSP camera as small as one can be: FFmpeg encodes H.264, and this file serves it over TCP.

It checks what only a real stream can: that the newest frame is really new, and what a silent camera does.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from edge_face import clips, streams
from edge_face.capture import CameraThread
from edge_face.clock import SystemClock
from edge_face.settings import Camera
from edge_face.sources import open_source
from tests.support import film
from tests.support.cameras import RtspServer

WIDTH, HEIGHT, FPS, BITS = 320, 96, 25, 10
CLOCK = SystemClock()

pytestmark = pytest.mark.skipif(not shutil.which("ffmpeg"), reason="ffmpeg is not installed: nothing encodes H.264")


def numbered(number: int) -> npt.NDArray[np.uint8]:
    bits = [255 if number >> bit & 1 else 0 for bit in range(BITS)]
    return np.repeat(np.array(bits, np.uint8), WIDTH // BITS)[None, :, None].repeat(HEIGHT, 0).repeat(3, 2)


def number_of(image: npt.NDArray[np.uint8]) -> int:
    columns = image[HEIGHT // 2, WIDTH // BITS // 2 :: WIDTH // BITS, 0]
    return sum(1 << bit for bit, value in enumerate(columns) if value > 128)


class RtspCamera:
    """`number` is the newest frame that was handed to the encoder. `mute` holds the packets back."""

    def __init__(self, folder: Path) -> None:
        self.number = 0
        self.mute = threading.Event()
        self._closing = threading.Event()
        self._client: socket.socket | None = None
        self._packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._packets.bind(("127.0.0.1", 0))
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"rtsp://127.0.0.1:{self._server.getsockname()[1]}/live"
        self._sdp = folder / "live.sdp"
        raw = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "pipe:"]
        h264 = ["-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-g", "10", "-pix_fmt", "yuv420p"]
        out = f"rtp://127.0.0.1:{self._packets.getsockname()[1]}?pkt_size=1200"
        rtp = ["-f", "rtp", "-sdp_file", str(self._sdp), out]
        command = ["ffmpeg", "-v", "error", "-fflags", "nobuffer", *raw, *h264, *rtp]
        self._ffmpeg = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        for target in (self._film, self._relay, self._serve):
            threading.Thread(target=target, daemon=True).start()

    def _film(self) -> None:
        assert self._ffmpeg.stdin
        with suppress(OSError, ValueError):
            due = time.monotonic()
            while not self._closing.is_set():
                self.number += 1
                self._ffmpeg.stdin.write(numbered(self.number).tobytes())
                self._ffmpeg.stdin.flush()
                due += 1 / FPS
                time.sleep(max(0.0, due - time.monotonic()))

    def _relay(self) -> None:
        with suppress(OSError):
            while True:
                packet = self._packets.recv(65536)
                client = self._client
                if client is not None and not self.mute.is_set():
                    with suppress(OSError):
                        client.sendall(b"$\0" + len(packet).to_bytes(2) + packet)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _address = self._server.accept()
                threading.Thread(target=self._talk, args=(client,), daemon=True).start()

    def _talk(self, client: socket.socket) -> None:
        with suppress(OSError, ValueError), client, client.makefile("rb") as lines:
            while request := lines.readline().decode():
                fields = {}
                while line := lines.readline().decode().strip():
                    name, _, value = line.partition(":")
                    fields[name.lower()] = value.strip()
                verb = request.split()[0]
                body, extra = "", ""
                if verb == "DESCRIBE":
                    body = self._sdp.read_text().removeprefix("SDP:\n").replace("\n", "\r\n")
                    extra = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
                elif verb == "SETUP":
                    extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
                elif verb == "OPTIONS":
                    extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
                client.sendall(f"RTSP/1.0 200 OK\r\nCSeq: {fields['cseq']}\r\n{extra}\r\n{body}".encode())
                if verb == "PLAY":
                    self._client = client
                elif verb == "TEARDOWN":
                    return

    def close(self) -> None:
        self._closing.set()
        self._ffmpeg.kill()
        self._ffmpeg.wait()
        assert self._ffmpeg.stdin
        with suppress(OSError):
            self._ffmpeg.stdin.close()
        for open_socket in (self._server, self._packets):
            with suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
            open_socket.close()


@pytest.fixture
def camera(tmp_path: Path) -> Iterator[RtspCamera]:
    camera = RtspCamera(tmp_path)
    end = time.monotonic() + 5
    while not (tmp_path / "live.sdp").exists() and time.monotonic() < end:
        time.sleep(0.02)
    yield camera
    camera.close()


@contextmanager
def playing(address: str) -> Iterator[CameraThread]:
    thread = CameraThread(lambda: open_source(Camera(source=address), CLOCK), CLOCK)
    thread.start()
    yield thread
    thread.stop()


@pytest.mark.slow
def test_a_real_server_that_was_stopped_sends_nothing_old_as_new() -> None:
    """GStreamer's. Stopped, it has pictures in its encoder and its queues, and catches up when it goes on."""
    server = RtspServer()
    server.start()
    try:
        with playing(server.url) as thread:
            young, ages = [], []
            for stopped_s in (0.0, 0.4, 1.5):
                if stopped_s:
                    server.hang()
                    time.sleep(stopped_s)
                    server.go_on()
                end = time.monotonic() + 1.5
                while time.monotonic() < end:
                    frame = thread.take(0.5)
                    if frame is not None:
                        age_s = film.age_s(film.number_of(frame.image))
                        young.append(age_s - (CLOCK.monotonic() - frame.grabbed_at))
                        ages.append(age_s)
            assert max(young) < 0.6, young
            assert sorted(ages)[len(ages) // 2] < 0.25
            assert len(ages) > 40
    finally:
        server.stop()


def test_frames_are_new_from_the_first_one_on(camera: RtspCamera) -> None:
    for _opening in range(2):
        behind = []
        with playing(camera.address) as thread:
            for _ in range(12):
                frame = thread.take(8)
                assert frame is not None, thread.state
                behind.append(camera.number - number_of(frame.image))
        assert max(behind) <= 4, behind  # 160 ms, on a busy machine
        assert sorted(behind)[6] <= 2, behind


@pytest.mark.slow  # the same with GStreamer's server: test_loss_and_return.py
def test_a_camera_that_falls_silent_is_lost_and_comes_back(camera: RtspCamera, monkeypatch: pytest.MonkeyPatch) -> None:
    shorter = [1000 if value == clips.READ_TIMEOUT_MS else value for value in streams.STREAM_SETTINGS]
    monkeypatch.setattr(streams, "STREAM_SETTINGS", tuple(shorter))
    with playing(camera.address) as thread:
        assert thread.take(8) is not None
        camera.mute.set()
        began = time.monotonic()
        while thread.state.name != "lost":
            assert time.monotonic() - began < 3
            thread.take(0.1)
        silent = camera.number
        camera.mute.clear()
        began = time.monotonic()
        frame = thread.take(8)
        assert frame is not None, thread.state
        assert time.monotonic() - began < 3
        assert number_of(frame.image) >= silent
        assert frame.epoch == 1
