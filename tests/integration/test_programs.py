"""Cameras that another program reads, with real programs: padded raw pictures, MJPEG, and what goes wrong."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from edge_face import programs, settings
from edge_face.capture import CameraThread, Frame
from edge_face.clock import SystemClock
from edge_face.errors import CaptureError
from edge_face.events import FrameResult
from edge_face.messages import CameraJob
from edge_face.settings import Camera
from edge_face.sources import open_source
from edge_face.supervisor import CameraProcess
from tests.support import film

CLOCK = SystemClock()
PROGRAM = shlex.join([sys.executable, str(Path(film.__file__).with_name("program.py"))])


@contextmanager
def playing(camera: Camera) -> Iterator[CameraThread]:
    thread = CameraThread(lambda: open_source(camera, CLOCK), CLOCK)
    thread.start()
    try:
        yield thread
    finally:
        thread.stop(2)


def take(thread: CameraThread, timeout_s: float = 8.0) -> Frame:
    frame = thread.take(timeout_s)
    assert frame is not None, thread.state
    return frame


def until(condition: Callable[[], object], limit_s: float = 8.0) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def too_young_s(frame: Frame) -> float:
    """By how much the frame's stamp is later than the moment at which it was due."""
    made = CLOCK.monotonic() - film.age_s(film.number_of(frame.image))
    return frame.grabbed_at - made


def running(mark: str) -> list[int]:
    """Processes with that word in their command line."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and mark.encode() in (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            pass
    return found


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "flags"
    folder.mkdir()
    monkeypatch.setenv("FLAGS", str(folder))
    return folder


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def install(path: Path, command: str) -> None:
    path.write_text(f'#!/bin/sh\n{command} "$@"\n')
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ("", Camera()),
        ("--codec bgr24", Camera(size="640x480", format="bgr24")),
        ("--codec yuv420 --width 800 --height 600", Camera(size="800x600", format="yuv420p")),
        ("--codec yuv420 --width 800 --align 64", Camera(size="800x480", format="yuv420p", stride=832)),
    ],
    ids=["mjpeg", "bgr24", "yuv420p", "padded"],
)
def test_the_newest_picture_of_a_command(options: str, asked: Camera) -> None:
    camera = Camera(source=f"exec:{PROGRAM} {options}", size=asked.size, format=asked.format, stride=asked.stride)
    with playing(camera) as thread:
        frames = [take(thread) for _ in range(8)]
        state = thread.state
    ages = sorted(film.age_s(film.number_of(frame.image)) - (CLOCK.monotonic() - frame.grabbed_at) for frame in frames)
    assert ages[-3] < 0.15  # on a busy machine one may come late
    assert all(too_young_s(frame) < 0.5 for frame in frames)
    assert [frame.number for frame in frames] == sorted({frame.number for frame in frames})
    assert state.name == "ok"
    assert state.detail.startswith("python")


@pytest.mark.parametrize(
    ("program", "board", "size", "align", "stride"),
    [("libcamera-vid", b"brcm,bcm2711\0", "780x360", 64, 832), ("rpicam-vid", b"brcm,bcm2712\0", "780x360", 128, 896)],
)
def test_csi_with_the_padding_of_each_raspberry_pi(
    tools: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    program: str,
    board: bytes,
    size: str,
    align: int,
    stride: int,
) -> None:
    install(tools / program, f"exec {PROGRAM} --align {align}")
    (tmp_path / "compatible").write_bytes(board)
    monkeypatch.setattr(programs.padded, "__defaults__", (tmp_path / "compatible",))
    with playing(Camera(source="csi", size=size)) as thread:
        frames = [take(thread) for _ in range(4)]
        assert thread.state.detail == f"csi, 780x360, yuvj420p, stride {stride} (asked for 780x360)"
    for frame in frames:
        assert frame.image.shape == (360, 780, 3)
        assert film.age_s(film.number_of(frame.image)) < 1
        assert (frame.image == frame.image[0]).all()  # nothing is shifted from line to line


def test_csi_takes_what_libcamera_gives_instead(tools: Path) -> None:
    """A sensor that cannot do the size that was asked for gives another one, and libcamera says so."""
    install(tools / "rpicam-vid", f'exec {PROGRAM} --align 64 "$@" --width 600 #')
    with playing(Camera(source="csi")) as thread:
        frame = take(thread)
        assert frame.image.shape == (720, 600, 3)
        assert "600x720" in thread.state.detail
        assert "asked for 1280x720" in thread.state.detail


def test_csi_as_mjpeg_and_csi_without_its_program(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tools / "rpicam-vid", f"exec {PROGRAM}")
    with playing(Camera(source="csi", format="mjpeg", size="640x360")) as thread:
        assert take(thread).image.shape == (360, 640, 3)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CaptureError, match="neither rpicam-vid nor libcamera-vid"):
        open_source(Camera(source="csi"), CLOCK)
    with pytest.raises(CaptureError, match=r"gst-launch-1\.0 is not there"):
        open_source(Camera(source="jetson-csi"), CLOCK)


GST = shutil.which("gst-launch-1.0")


@pytest.mark.skipif(not GST, reason="gst-launch-1.0 is not installed (Debian's gstreamer1.0-tools)")
def test_jetson_csi_with_a_real_gst_launch(tools: Path) -> None:
    """NVIDIA's two elements and its memory are replaced; it also writes to the standard output, as NVIDIA's does."""
    script = """#!/bin/sh
    echo 'GST_ARGUS: Creating output stream'
    for word in "$@"; do
      case "$word" in
        nvarguscamerasrc) word='videotestsrc is-live=true pattern=snow' ;;
        nvvidconv) word=videoconvert ;;
        *NVMM*) word="video/x-raw,${word#*),}" ;;
      esac
      all="$all $word"
    done
    exec """
    (tools / "gst-launch-1.0").write_text(f"{script}{GST} $all\n")
    (tools / "gst-launch-1.0").chmod(0o755)
    with playing(Camera(source="jetson-csi", size="648x360")) as thread:
        frames = [take(thread) for _ in range(5)]
        assert thread.state.detail == "jetson-csi, 648x360, yuv420p, stride 648 (asked for 648x360)"
    noise = frames[-1].image.astype(float)
    assert noise.shape == (360, 648, 3)
    assert np.abs(noise[:, :, 0] - noise[:, :, 2]).mean() < 2  # snow has no colour: the planes lie where they should


@pytest.mark.parametrize(
    ("command", "camera", "said"),
    [
        ("echo 'cannot open rtsp://katya:geheim@door' >&2; exit 7", {}, "ended with exit code 7 (cannot open rtsp://"),
        ("no-such-program --password geheim", {}, "ended with exit code 127 ("),
        ("kill -SEGV $$", {}, "was killed by signal 11"),
        ("exec >&-; sleep 60", {}, "closed its output"),
        ("true", {}, "true ended with exit code 0"),
        ("PIN=geheim /bin/false", {}, "false ended with exit code 1"),
        ("'geheim", {}, "the command ended with exit code 2"),
        ("cat /dev/zero", {}, "writes no MJPEG"),
        (
            "echo password=geheim; echo token: geheim >&2; sleep 60",
            {},
            "wrote 16 bytes in 1 s, but no picture in",
        ),
        ("sleep 60", {}, "wrote nothing for 1 s"),
        ("head -c 5000 /dev/zero; sleep 60", {"size": "64x64", "format": "bgr24"}, "no picture of 12288 bytes"),
        ("true", {"format": "bgr24"}, "set [camera] size"),
        ("", {}, "names no command"),
        ("true", {"format": "yuv420p", "size": "65x64"}, "needs an even [camera] size"),
    ],
)
def test_what_gives_no_picture_is_said_without_a_secret(
    command: str, camera: dict[str, str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(programs, "OPEN_S", 1.0)
    with pytest.raises(CaptureError) as caught:
        open_source(Camera(source=f"exec:{command}", **camera), CLOCK)  # type: ignore[arg-type]
    assert said in caught.value.message
    assert "geheim" not in caught.value.message


def test_a_wrong_stride_is_told_and_not_shown_for_ever() -> None:
    camera = Camera(source=f"exec:{PROGRAM} --codec yuv420 --width 800 --align 64", size="800x480", format="yuv420p")
    with playing(camera) as thread:
        until(lambda: thread.take(0.1) is None and thread.state.name == "lost")
        assert f"pictures of {832 * 480 * 3 // 2} bytes, but 800x480 yuv420p with stride 800 has" in thread.state.detail


def test_a_talkative_command_that_dies_is_told_once_and_back_within_three_seconds(
    flags: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "edge_face.capture")
    with playing(Camera(source=f"exec:{PROGRAM} --flood")) as thread:
        for _ in range(25):  # a pipe is full after one
            take(thread)
        (flags / "die").touch()
        until(lambda: "lost: " in caplog.messages[-1])
        time.sleep(1.2)  # some tries fail
        (flags / "die").unlink()
        began = time.monotonic()
        assert film.age_s(film.number_of(take(thread).image)) < 0.7
        assert time.monotonic() - began < 3
        until(lambda: "is back" in caplog.messages[-1])
    said = "python ended with exit code 3 (ERROR: *** no cameras available, at rtsp://********@door ***)"
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "python, 640x480, MJPEG",
        said,
        "python, 640x480, MJPEG",
    ]


async def test_damaged_pictures_are_no_reason_to_fill_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    """In a real child: libjpeg writes to its stderr behind our back."""
    frames: list[FrameResult] = []

    def job(first_track: int) -> CameraJob:
        camera = Camera(source=f"exec:{PROGRAM} --damage")
        return CameraJob("front", camera, settings.Engine(), 70, 5.0, first_track, "info")

    task = asyncio.create_task(CameraProcess(job, "front", CLOCK, frames.append, lambda _status: None).run())
    async with asyncio.timeout(30):
        while len(frames) < 10:
            await asyncio.sleep(0.05)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert "JPEG" not in capfd.readouterr().err


def test_nothing_is_left_of_a_program_that_is_started_again_and_again(tmp_path: Path) -> None:
    """Neither processes nor zombies nor descriptors: a camera may be away for weeks."""
    code = """if True:
        import ctypes, os, sys
        from edge_face import clock, errors, settings, sources
        ctypes.CDLL(None).prctl(36, 1)  # as edge_face.worker
        for turn in range(6):
            try:
                sources.open_source(settings.Camera(source=sys.argv[1]), clock.SystemClock())
            except errors.CaptureError as error:
                assert "exit code 3" in str(error), error
            if turn == 1:
                before = len(os.listdir("/proc/self/fd"))
        assert len(os.listdir("/proc/self/fd")) == before
        print(open(f"/proc/self/task/{os.getpid()}/children").read().split())
    """
    mark = f"mark-{tmp_path.name}-{os.getpid()}"
    source = f"exec:(trap '' INT; sleep 1000; : {mark}) >&- & echo 'no cameras' >&2; exit 3"
    done = subprocess.run([sys.executable, "-c", code, source], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert not running(mark)


def test_the_whole_group_ends_with_the_source(tmp_path: Path) -> None:
    mark = f"mark-{tmp_path.name}-{os.getpid()}"
    camera = Camera(source=f"exec:sleep 1000 & (trap '' INT TERM; {PROGRAM} --output {mark}) & : {mark}; wait")
    source = open_source(camera, CLOCK)
    assert len(running(mark)) >= 2
    source.close()
    assert not running(mark)


READER = """if True:
    import sys
    from edge_face import capture, clock, settings, sources
    from tests.support import film
    camera = settings.Camera(source=sys.argv[1], size=sys.argv[2], format=sys.argv[3])
    clock = clock.SystemClock()
    thread = capture.CameraThread(lambda: sources.open_source(camera, clock), clock)
    thread.start()
    while True:
        frame = thread.take(1)
        if frame is not None:
            print(film.number_of(frame.image), frame.grabbed_at, clock.monotonic(), flush=True)
"""


def reading(camera: Camera) -> subprocess.Popen[str]:
    """A process that prints number, date and time of each frame that it takes."""
    command = [sys.executable, "-c", READER, camera.source, camera.size, camera.format]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def test_a_program_ends_with_a_reader_that_is_killed(flags: Path, tmp_path: Path) -> None:
    mark = f"mark-{tmp_path.name}-{os.getpid()}"
    reader = reading(Camera(source=f"exec:{PROGRAM} --output {mark}"))
    assert reader.stdout
    with reader.stdout:
        reader.stdout.readline()
        assert len(running(mark)) >= 2
        (flags / "stall").touch()  # else it would end by itself, when it writes to nobody
        time.sleep(0.2)
        reader.kill()
        reader.wait()
        until(lambda: not running(mark), 3)


@pytest.mark.slow
def test_a_reader_that_was_stopped_gets_nothing_old_as_new() -> None:
    """The program stores all that it cannot write, which is the worst it can do; a pipe holds less than a picture."""
    source = f"exec:{PROGRAM} --queue --codec bgr24"
    reader = reading(Camera(source=source, size="640x480", format="bgr24"))
    assert reader.stdout
    try:
        for _ in range(10):
            reader.stdout.readline()
        for stopped_s, running_s in [*[(0.6, 0.3)] * 4, *[(0.4, 0.05)] * 4, (0.0, 0.5), (1.8, 3.0)]:
            reader.send_signal(signal.SIGSTOP)
            time.sleep(stopped_s)
            reader.send_signal(signal.SIGCONT)
            time.sleep(running_s)
    finally:
        reader.kill()
        reader.wait()
    lines = [line.split() for line in reader.stdout]
    reader.stdout.close()
    assert len(lines) > 15
    now = CLOCK.monotonic()
    young = [float(grabbed_at) - (now - film.age_s(int(number))) for number, grabbed_at, _taken_at in lines[:-1]]
    assert max(young) < 0.5
    assert now - float(lines[-2][2]) < 1.5  # and it is back


def test_a_program_faster_than_its_reader_is_no_source_of_old_pictures() -> None:
    with playing(Camera(source=f"exec:{PROGRAM} --fps 0 --codec mjpeg")) as thread:
        until(lambda: thread.take(0.1) is not None)
        end = time.monotonic() + 1.5
        ages = []
        while time.monotonic() < end:
            if frame := thread.take(0.2):
                ages.append(film.age_s(film.number_of(frame.image)))
                time.sleep(0.1)
    assert len(ages) > 5
    assert sorted(ages)[len(ages) // 2] < 0.3
    assert max(ages) < 0.8
