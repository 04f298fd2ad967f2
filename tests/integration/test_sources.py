"""Real files, a real HTTP and a real RTSP server: what comes out of a source, and when."""

from __future__ import annotations

import http.server
import itertools
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest

from edge_face import devices
from edge_face.capture import CameraThread, Frame
from edge_face.clock import SystemClock
from edge_face.devices import captures, find_cameras
from edge_face.errors import CaptureError
from edge_face.freshness import SLACK_S, Lag, Queue
from edge_face.settings import Camera
from edge_face.sources import open_source
from tests.support.mjpeg import MjpegServer

BITS, CELL = 10, 32
SIZE = (BITS * CELL, 96)
CLOCK = SystemClock()


def numbered(number: int) -> npt.NDArray[np.uint8]:
    """A frame that shows its number as black and white fields, so that any codec keeps it."""
    image = np.full((SIZE[1], SIZE[0], 3), 128, np.uint8)
    for bit in range(BITS):
        image[:, bit * CELL : (bit + 1) * CELL] = 255 if number >> bit & 1 else 0
    return image


def number_of(image: npt.NDArray[np.uint8]) -> int:
    fields = [image[20:70, bit * CELL + 8 : (bit + 1) * CELL - 8].mean() for bit in range(BITS)]
    return sum(1 << bit for bit, value in enumerate(fields) if value > 128)


def make_clip(path: Path, frames: int, fps: float, codec: str = "MJPG") -> str:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, SIZE)
    assert writer.isOpened()
    for number in range(frames):
        writer.write(numbered(number))
    writer.release()
    return str(path)


@contextmanager
def playing(camera: Camera, fps: float = 0.0) -> Iterator[CameraThread]:
    thread = CameraThread(lambda: open_source(camera, CLOCK), CLOCK, fps)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop()


def take_all(thread: CameraThread, pause_s: float = 0.0) -> list[Frame]:
    frames: list[Frame] = []
    while True:
        frame = thread.take(2)
        if frame is None:
            assert thread.state.name == "ended", thread.state
            return frames
        frames.append(frame)
        time.sleep(pause_s)


def take(thread: CameraThread, timeout_s: float = 5.0) -> Frame:
    frame = thread.take(timeout_s)
    assert frame is not None, thread.state
    return frame


def test_a_clip_plays_at_its_own_speed_and_ends(tmp_path: Path) -> None:
    with playing(Camera(source=make_clip(tmp_path / "clip.avi", 30, 25))) as thread:
        frames = take_all(thread)
    # A busy machine may drop one here and there; what arrives is in order and on time.
    numbers = [number_of(frame.image) for frame in frames]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 29
    assert len(numbers) >= 20
    assert [frame.number - 1 for frame in frames] == numbers
    assert sum(frame.dropped for frame in frames) + len(frames) == 30
    assert frames[-1].grabbed_at - frames[0].grabbed_at == pytest.approx((numbers[-1] - numbers[0]) / 25, abs=0.1)
    assert abs(frames[-1].timestamp - time.time()) < 1


def test_a_slow_reader_sees_recent_frames_and_how_many_it_missed(tmp_path: Path) -> None:
    with playing(Camera(source=make_clip(tmp_path / "clip.avi", 45, 30))) as thread:
        frames = []
        while (frame := thread.take(2)) is not None:
            last = number_of(frame.image) == 44  # it lies there from the end of the clip on
            assert last or CLOCK.monotonic() - frame.grabbed_at < 0.12
            frames.append(frame)
            time.sleep(0.2)
    assert 5 <= len(frames) <= 10
    assert sum(frame.dropped for frame in frames) + len(frames) == 45
    assert number_of(frames[-1].image) == 44


def test_without_realtime_every_frame_comes_once(tmp_path: Path) -> None:
    camera = Camera(source=make_clip(tmp_path / "clip.avi", 40, 5), realtime=False)
    with playing(camera, fps=10) as thread:
        began = time.monotonic()
        frames = take_all(thread, pause_s=0.005)
    assert [number_of(frame.image) for frame in frames] == list(range(40))
    assert all(frame.dropped == 0 for frame in frames)
    assert time.monotonic() - began < 3  # 8 s at its own speed, 4 s at the frame limit


def test_a_clip_that_loops_begins_an_epoch_each_time(tmp_path: Path) -> None:
    camera = Camera(source=make_clip(tmp_path / "clip.avi", 4, 25), realtime=False, loop=True)
    with playing(camera) as thread:
        frames = [take(thread) for _ in range(10)]
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 3] * 2 + [0, 1]
    assert [frame.epoch for frame in frames] == [0] * 4 + [1] * 4 + [2] * 2
    assert [frame.number for frame in frames] == list(range(1, 11))


def test_a_file_that_vanishes_is_lost_and_played_again_when_it_is_back(tmp_path: Path) -> None:
    path = make_clip(tmp_path / "clip.avi", 4, 25)
    with playing(Camera(source=path, loop=True)) as thread:
        take(thread)
        (tmp_path / "clip.avi").rename(tmp_path / "away")
        end = time.monotonic() + 5
        while thread.state.name != "lost":
            assert time.monotonic() < end
            thread.take(0.05)
        (tmp_path / "away").rename(tmp_path / "clip.avi")
        began = time.monotonic()
        take(thread)
        assert time.monotonic() - began < 3


def test_a_clip_over_http_that_breaks_off_is_lost_and_did_not_end(tmp_path: Path) -> None:
    data = Path(make_clip(tmp_path / "clip.avi", 200, 25)).read_bytes()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:  # the name http.server asks for
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(data[: len(data) // 2])
                closing.wait(20)

        def log_message(self, *args: object) -> None:
            pass

    closing = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/clip.avi"
        with playing(Camera(source=address, realtime=False)) as thread:
            end = time.monotonic() + 10
            while thread.state.name != "lost":
                assert time.monotonic() < end, thread.state  # the most that may happen is its end
                thread.take(0.1)
            assert "broke off after " in thread.state.detail
        closing.set()
        server.shutdown()


@pytest.mark.parametrize(("fps", "count", "expected_s"), [(20.0, 10, 0.45), (0.0, 3, 1.0)])
def test_a_folder_shows_its_images_by_name(tmp_path: Path, fps: float, count: int, expected_s: float) -> None:
    for number in range(count):
        suffix = ("png", "jpg", "JPEG", "bmp", "webp")[number % 5]
        cv2.imwrite(str(tmp_path / f"{number:02}.{suffix.lower()}"), numbered(number))
        if suffix == "JPEG":
            (tmp_path / f"{number:02}.jpeg").rename(tmp_path / f"{number:02}.JPEG")
    (tmp_path / "notes.txt").write_text("no image")
    with playing(Camera(source=str(tmp_path), fps=fps)) as thread:
        frames = take_all(thread)
    assert [number_of(frame.image) for frame in frames] == list(range(count))
    assert frames[-1].grabbed_at - frames[0].grabbed_at == pytest.approx(expected_s, abs=0.15)


def test_a_folder_skips_what_is_unreadable_and_turns_photos(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8\xff no more")
    grey = np.full((40, 60), 90, np.uint8)
    cv2.imwrite(str(tmp_path / "2.png"), grey)
    cv2.imwrite(str(tmp_path / "3.png"), np.dstack([grey, grey, grey, grey]))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # orientation: turned by 90 degrees
    PIL.Image.fromarray(grey).convert("RGB").save(tmp_path / "4.jpg", exif=exif)
    with playing(Camera(source=str(tmp_path), realtime=False, loop=True)) as thread:
        frames = [take(thread) for _ in range(6)]
    assert [frame.image.shape for frame in frames] == [(40, 60, 3), (40, 60, 3), (60, 40, 3)] * 2
    assert [frame.epoch for frame in frames] == [0, 0, 0, 1, 1, 1]
    assert sum("1.jpg" in record.getMessage() for record in caplog.records) == 1  # not once per round


def test_a_folder_of_broken_images_is_lost_and_not_an_endless_loop(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").write_bytes(b"no image")
    with playing(Camera(source=str(tmp_path), loop=True)) as thread:
        assert thread.take(0.5) is None
        assert thread.state.name == "lost"
        assert "none of its images" in thread.state.detail


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("missing.mp4", "missing.mp4: no such file"),
        ("/dev/video77", "/dev/video77: no such camera"),
        ("/dev/null", "/dev/null: cannot be opened"),
        ("87", "/dev/video87: no such camera"),
        ("webcam", "possible are auto, 0"),
        ("ftp://katya:secret@host/clip.mp4", "unknown kind of address ftp://"),
        ("rtsp://katya:secret@127.0.0.1:{closed}/live", "cannot be reached (Connection refused)"),
        ("http://katya:secret@127.0.0.1:{closed}/live", "cannot be reached (Connection refused)"),
        ("http://katya:secret@[nonsense/", "is no valid address"),
        ("rtsp:///live", "host is missing"),
        ("rtsp://katya:p#secret@127.0.0.1/live", "write # / ? @ : as %23"),
        ("rtsp://katya:12/secret@127.0.0.1/live", "write # / ? @ : as %23"),
    ],
)
def test_what_cannot_be_opened_is_said_in_words_and_without_the_password(source: str, said: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        closed = server.getsockname()[1]
    with pytest.raises(CaptureError) as caught:
        open_source(Camera(source=source.replace("{closed}", str(closed))), CLOCK)
    assert said in caught.value.message
    assert "secret" not in caught.value.message


def test_a_host_that_does_not_answer_at_all_is_given_up_soon() -> None:
    """As one that is switched off: else it could come back during a try that takes 5 s and is not repeated."""
    with socket.socket() as server, ExitStack() as clients:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(3):  # its queue is full, and the kernel drops who wants to connect
            client = clients.enter_context(socket.socket())
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(server.getsockname())
        began = time.monotonic()
        with pytest.raises(CaptureError, match=r"cannot be reached \(timed out\)"):
            open_source(Camera(source=f"rtsp://127.0.0.1:{server.getsockname()[1]}/live"), CLOCK)
        assert time.monotonic() - began < 2


def test_opencv_and_ffmpeg_keep_quiet_at_each_attempt() -> None:
    program = """if True:
        import sys
        from edge_face import capture, clock, settings, sources
        for address in sys.argv[1:]:
            try:
                sources.open_source(settings.Camera(source=address), clock.SystemClock())
            except capture.CaptureError as error:
                print(error)
    """
    # A process of its own: FFmpeg's log level is set once, at its first use.
    addresses = ("rtsp://katya:secret@127.0.0.1:1/live", "http://katya:secret@127.0.0.1:1/", "/dev/null", __file__)
    run = subprocess.run([sys.executable, "-c", program, *addresses], capture_output=True, text=True, check=True)
    assert len(run.stdout.splitlines()) == 4
    assert run.stderr == ""


def test_a_file_that_is_no_video(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(os.urandom(5000))
    with pytest.raises(CaptureError, match="no video that can be read"):
        open_source(Camera(source=str(tmp_path / "clip.mp4")), CLOCK)
    with pytest.raises(CaptureError, match="no images in this folder"):
        open_source(Camera(source=str(tmp_path)), CLOCK)


def test_cameras_are_told_from_other_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def capability(driver: bytes, whole: int, node: int) -> bytes:
        return devices._CAPABILITY.pack(driver, b"a card", b"a bus", 0x060000, whole, node)

    assert captures(capability(b"uvcvideo", 0x84A00001, 0x04200001))
    assert not captures(capability(b"uvcvideo", 0x84A00001, 0x04A00000))  # the webcam's second node: metadata only
    assert captures(capability(b"old", 0x05000001, 0))  # a driver that knows no device_caps
    assert not captures(capability(b"bcm2835-isp", 0x85200001, 0x05200001))  # scales images; sees nothing
    for name in ("video0", "video10", "video2", "video-none", "vbi0"):
        (tmp_path / name).touch()
    assert find_cameras(tmp_path) == []
    monkeypatch.setattr(devices, "_is_camera", lambda path: True)
    assert [path.name for path in find_cameras(tmp_path)] == ["video0", "video2", "video10"]


def test_auto_without_a_camera_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    if find_cameras():
        pytest.skip("this machine has a camera")
    with pytest.raises(CaptureError, match="no camera"):
        open_source(Camera(source="auto"), CLOCK)


class NumberedServer(MjpegServer):
    """Frames carry their number, 20 in a second."""

    def __init__(self) -> None:
        super().__init__(self._count)
        self.number = 0

    def _count(self) -> Iterator[bytes]:
        while True:
            self.number += 1
            yield cv2.imencode(".jpg", numbered(self.number))[1].tobytes()
            time.sleep(0.05)


def test_an_http_camera_that_goes_away_and_returns() -> None:
    camera = NumberedServer()
    camera.start()
    try:
        with playing(Camera(source=f"http://katya:secret@127.0.0.1:{camera.port}/video")) as thread:
            for _ in range(5):
                frame = take(thread)
                assert camera.number - number_of(frame.image) <= 2  # nothing old from the time of opening
            assert "secret" not in thread.state.detail
            camera.stop()
            began = time.monotonic()
            while thread.state.name != "lost":
                assert time.monotonic() - began < 4
                thread.take(0.1)
            before = camera.number
            time.sleep(0.8)
            camera.start()
            began = time.monotonic()
            frame = take(thread)
            assert time.monotonic() - began < 3
            assert number_of(frame.image) > before
            assert (frame.epoch, thread.state.name) == (1, "ok")
    finally:
        camera.stop()


class QueueingServer(MjpegServer):
    """An IP camera of the worst kind: each connection has a queue without end, so all that is not read comes later."""

    def __init__(self, fps: float, padding: int = 0) -> None:
        super().__init__(self._queued)
        self.made: dict[int, float] = {}
        self.moving = threading.Event()  # cleared: the network stands still
        self.moving.set()
        self._queues: list[queue.SimpleQueue[bytes]] = []
        self._fps = fps
        self._padding = bytes(padding)
        self._closing = threading.Event()
        self.start()
        threading.Thread(target=self._film, daemon=True).start()

    def _queued(self) -> Iterator[bytes]:
        parts: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._queues.append(parts)
        while part := parts.get():
            self.moving.wait()
            yield part

    def _film(self) -> None:
        while not self._closing.wait(1 / self._fps):
            number = len(self.made)
            data = cv2.imencode(".jpg", numbered(number))[1].tobytes() + self._padding
            self.made[number] = CLOCK.monotonic()
            for parts in self._queues:
                parts.put(data)

    def too_young(self, number: int, grabbed_at: float) -> float:
        """By how many seconds the frame's stamp is later than the moment at which it was made."""
        return grabbed_at - self.made[number]

    def stop(self) -> None:
        self._closing.set()
        for parts in self._queues:
            parts.put(b"")
        super().stop()


@contextmanager
def filming(fps: float, padding: int = 0) -> Iterator[QueueingServer]:
    server = QueueingServer(fps, padding)
    try:
        yield server
    finally:
        server.stop()


READER = """if True:
    import sys
    from edge_face import capture, clock, settings, sources
    bits, cell = map(int, sys.argv[2:])
    clock = clock.SystemClock()
    thread = capture.CameraThread(lambda: sources.open_source(settings.Camera(source=sys.argv[1]), clock), clock)
    thread.start()
    while True:
        frame = thread.take(1)
        if frame is not None:
            row = frame.image[45, cell // 2 :: cell, 0]
            print(sum(1 << bit for bit in range(bits) if row[bit] > 128), frame.grabbed_at, flush=True)
"""


def test_a_reader_that_was_stopped_gets_nothing_old_as_new() -> None:
    """A large frame fills the socket, so that the backlog is the sender's; small ones lie in FFmpeg's buffer too."""
    with filming(10) as small, filming(20, padding=150_000) as large:
        cameras = {}
        for camera in (small, large):
            command = [sys.executable, "-c", READER, camera.url, str(BITS), str(CELL)]
            cameras[camera] = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        frames: dict[QueueingServer, list[tuple[int, float]]] = {small: [], large: []}

        def listen(camera: QueueingServer) -> None:
            stdout = cameras[camera].stdout
            assert stdout
            for line in stdout:
                number, grabbed_at = line.split()
                frames[camera].append((int(number), float(grabbed_at)))

        listeners = [threading.Thread(target=listen, args=(camera,)) for camera in cameras]
        try:
            for listener in listeners:
                listener.start()
            end = time.monotonic() + 8
            while min(map(len, frames.values())) < 5:
                assert time.monotonic() < end
                time.sleep(0.05)
            # One long stop, then many that are each too short to be noticed as one.
            for stopped_s, running_s in [(1.8, 0.8), *[(0.45, 0.05)] * 3, (0.0, 0.8)]:
                for signal_, pause_s in ((signal.SIGSTOP, stopped_s), (signal.SIGCONT, running_s)):
                    for process in cameras.values():
                        process.send_signal(signal_)
                    time.sleep(pause_s)
            now = CLOCK.monotonic()
        finally:
            for process in cameras.values():
                process.kill()
                process.wait()
            for listener in listeners:
                listener.join()
            for process in cameras.values():
                assert process.stdout
                process.stdout.close()
    for camera, seen in frames.items():
        assert max(camera.too_young(*frame) for frame in seen) < 0.5, seen
        assert now - camera.made[seen[-1][0]] < 0.5  # and it is back


def test_a_burst_after_a_stall_is_not_new() -> None:
    with filming(20) as camera, playing(Camera(source=camera.url)) as thread:
        frames: list[Frame] = []
        for stall_s in (0.6, 1.2):  # one that is dated, and one after which only a new connection is sure
            take(thread)
            camera.moving.clear()
            time.sleep(stall_s)
            camera.moving.set()
            released = CLOCK.monotonic()
            frames = []
            while not frames or frames[-1].grabbed_at < released + 0.3:
                frames.append(take(thread))
            assert max(camera.too_young(number_of(frame.image), frame.grabbed_at) for frame in frames) < 0.5
            assert CLOCK.monotonic() - released < 3
        assert frames[-1].epoch == 1


def test_a_reader_slower_than_its_camera_skips_or_is_lost() -> None:
    """Without any long gap the backlog grows by 0.1 s at each read."""
    with filming(20) as small, filming(20, padding=150_000) as large:
        opened = {camera: open_source(Camera(source=camera.url), CLOCK) for camera in (small, large)}
        young, ages = [], []
        end = time.monotonic() + 2
        while time.monotonic() < end:
            for camera, source in opened.items():
                grab = source.read()
                assert grab
                young.append(camera.too_young(number_of(grab.image), grab.grabbed_at))
                ages.append(CLOCK.monotonic() - camera.made[number_of(grab.image)])
            time.sleep(0.15)
        for source in opened.values():
            source.close()
    assert max(young) < 0.5
    assert max(ages) < 1.2  # it was caught up with
    assert len(ages) >= 16


class Device:
    """cv2.VideoCapture of a webcam: a queue of frames in the driver, filled at 20 fps while there is room."""

    def __init__(self, stamped: bool, size: int) -> None:
        self.stamped, self.size = stamped, size
        self.began = time.monotonic()
        self.queued: list[float] = []
        self.next = self.began
        self.shown = 0.0
        self.shots = 0
        self.unplugged = threading.Event()
        self.asked: dict[int, float] = {}

    def _fill(self) -> None:
        while self.next <= time.monotonic():
            if len(self.queued) < self.size:
                self.queued.append(self.next)
            self.next += 0.05

    def isOpened(self) -> bool:  # noqa: N802  # OpenCV's names
        return True

    def set(self, name: int, value: float) -> bool:
        self.asked[name] = value
        return True

    def get(self, name: int) -> float:
        gives = {cv2.CAP_PROP_FRAME_WIDTH: 640.0, cv2.CAP_PROP_FRAME_HEIGHT: 480.0, cv2.CAP_PROP_FPS: 25.0}
        if name in gives:
            return gives[name]
        if name == cv2.CAP_PROP_FOURCC:
            return float(cv2.VideoWriter.fourcc(*"YUYV"))
        return self.shown * 1000 if name == cv2.CAP_PROP_POS_MSEC and self.stamped else 0.0

    def grab(self) -> bool:
        self._fill()
        if self.unplugged.is_set():
            return False
        if not self.queued:
            time.sleep(max(0.0, self.next - time.monotonic()))
            self._fill()
        self.shown = self.queued.pop(0)
        return True

    def retrieve(self) -> tuple[bool, npt.NDArray[np.uint8]]:
        self.shots += 1
        return True, numbered(self.shots)

    def release(self) -> None:
        pass


def test_a_driver_s_old_frames_are_not_new(monkeypatch: pytest.MonkeyPatch) -> None:
    ahead = CLOCK.monotonic() - time.monotonic()

    def check(device: Device, source: devices.DeviceSource) -> None:
        for pause_s in [0.0] * 5 + [0.8] + [0.0] * 3 + [0.12] * 6:
            time.sleep(pause_s)
            young = source.read().grabbed_at - ahead - device.shown
            assert young < (0.05 if device.stamped else 0.3), device.stamped
            assert time.monotonic() - device.shown < 0.75
        source.close()

    with ThreadPoolExecutor() as pool:
        checks = []
        for stamped, size in itertools.product((True, False), (1, 4)):
            device = Device(stamped, size)
            monkeypatch.setattr(cv2, "VideoCapture", lambda *_, device=device: device)
            checks.append(
                pool.submit(check, device, devices.DeviceSource(Path("/dev/null"), Camera(source="0"), CLOCK))
            )
        for done in checks:
            done.result()


@pytest.mark.parametrize(
    ("camera", "asked"),
    [
        (Camera(), "640x480, 30 fps"),
        (Camera(size="1280x720"), "1280x720, 30 fps, MJPG"),  # raw, USB 2 carries 10 of them in a second
        (Camera(size="1280x720", format="yuv420p"), "1280x720, 30 fps, YU12"),
        (Camera(size="320x240", format="mjpeg"), "320x240, 30 fps, MJPG"),
    ],
)
def test_what_a_camera_is_asked_for_and_what_it_gives_are_both_told(
    monkeypatch: pytest.MonkeyPatch, camera: Camera, asked: str
) -> None:
    """No camera is needed to see what it is asked: OpenCV's object is replaced, its node is a real one."""
    device = Device(True, 4)
    monkeypatch.setattr(cv2, "VideoCapture", lambda *_: device)
    source = devices.DeviceSource(Path("/dev/null"), camera, CLOCK)
    assert source.description == f"/dev/null, 640x480, 25 fps, YUYV (asked for {asked})"
    code = asked.partition("fps, ")[2]
    assert device.asked.get(cv2.CAP_PROP_FOURCC) == (cv2.VideoWriter.fourcc(*code) if code else None)
    assert list(device.asked)[-4:-2] == [cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT]  # after the format


def test_a_node_that_vanishes_is_found_again_under_another_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name and the nodes are real, the driver is not: nodes of /dev that everybody has stand for video0 and 1."""
    opened: list[tuple[str, Device]] = []

    def open_node(node: str, _api: int) -> Device:
        opened.append((node, Device(True, 4)))
        return opened[-1][1]

    monkeypatch.setattr(cv2, "VideoCapture", open_node)
    name = tmp_path / "usb-Camera-video-index0"
    name.symlink_to("/dev/null")
    with playing(Camera(source=f"/dev/..{name}")) as thread:
        take(thread)
        assert thread.state.detail.startswith(f"/dev/..{name} (null), 640x480")
        name.unlink()
        opened[0][1].unplugged.set()
        end = time.monotonic() + 5
        while "no such camera (is it plugged in?)" not in thread.state.detail:
            assert time.monotonic() < end
            thread.take(0.05)
        assert thread.state.name == "lost"
        name.symlink_to("/dev/zero")
        began = time.monotonic()
        assert take(thread).epoch == 1
        assert time.monotonic() - began < 3
    assert [node for node, _device in opened] == ["/dev/null", "/dev/zero"]


def test_without_a_known_connection_a_grab_that_slept_counts() -> None:
    with filming(20) as camera:
        capture = cv2.VideoCapture(camera.url, cv2.CAP_FFMPEG)
        frames = Queue(capture, CLOCK)
        for _ in range(8):
            assert frames.grab()
        was_fresh = frames.fresh
        assert was_fresh
        assert frames.ended - frames.grabbed_at < 0.01
        empty_at = frames.ended
        time.sleep(0.9)
        assert frames.grab()
        assert not frames.fresh
        assert frames.stale
        assert frames.grabbed_at <= empty_at + SLACK_S
        frames.close()


def test_a_file_over_http_is_a_clip_with_an_end(tmp_path: Path) -> None:
    make_clip(tmp_path / "clip.avi", 10, 25)

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(tmp_path))  # type: ignore[arg-type]  # passed on as it came

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}/clip.avi"
        with playing(Camera(source=address, realtime=False)) as thread:
            assert [number_of(frame.image) for frame in take_all(thread)] == list(range(10))
        server.shutdown()


def test_lag_is_measured_from_the_best_frame() -> None:
    lag = Lag()
    assert lag.update(100.0, 5.0) == 0
    assert lag.update(100.1, 5.1) == pytest.approx(0, abs=1e-3)
    assert lag.update(100.5, 5.2) == pytest.approx(0.3, abs=1e-3)
    assert lag.update(100.5, 5.5) == pytest.approx(0, abs=1e-3)
    assert lag.update(103.0, 5.6) == pytest.approx(2.4, abs=5e-3)
    assert lag.update(103.1, 1.0) == 0  # the camera's clock was set back
    assert lag.update(103.2, 1.1) == pytest.approx(0, abs=1e-3)
    drifting = Lag()
    assert max(drifting.update(second * 1.0002, float(second)) for second in range(86_400)) < 0.01
    standing = Lag()
    assert {standing.update(float(second), 0.0) for second in range(100)} == {0.0}


@pytest.mark.parametrize(
    ("name", "fps"),
    [("one-man-turning-head.mp4", 30), ("two-people-walking-up.gif", 12), ("street-crowd-1080p.mp4", 25)],
)
def test_real_clips_play_at_their_speed(data: Path, name: str, fps: float) -> None:
    with playing(Camera(source=str(data / "video" / name))) as thread:
        first = take(thread)
        frame = first
        while frame.grabbed_at - first.grabbed_at < 0.9:
            frame = take(thread)
        played = (frame.number - first.number) / (frame.grabbed_at - first.grabbed_at)
    assert played == pytest.approx(fps, rel=0.15)
