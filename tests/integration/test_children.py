"""The child processes for real: started, killed, hung, and what the parent makes of it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import cv2
import pytest

from edge_face import settings
from edge_face.clock import SystemClock
from edge_face.errors import ImageError
from edge_face.events import CameraStatus, FrameResult
from edge_face.messages import CameraJob
from edge_face.supervisor import CameraProcess, PhotoProcess
from tests.support.photos import astronaut, blank, jpeg, side_by_side
from tests.support.ticker import measured_stalls


class Watched:
    """A CameraProcess and all it told."""

    def __init__(self, source: str, *, thumbnails: bool = False, **options: object) -> None:
        self.frames: list[FrameResult] = []
        self.states: list[CameraStatus] = []
        camera = settings.Camera(source=source, **options)  # type: ignore[arg-type]

        def job(first_track: int) -> CameraJob:
            engine = settings.Engine()
            return CameraJob("front", camera, engine, 70, 5.0, first_track, "warning", thumbnails=thumbnails)

        self.process = CameraProcess(job, "front", SystemClock(), self.frames.append, self.states.append)

    @property
    def told(self) -> list[str]:
        return [status.state for status in self.states]


async def until(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running(watched: Watched) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(watched.process.run())
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert watched.process.pid is None


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Eileen Collins in every frame, 3 s at 10 fps."""
    path = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (512, 512))
    for _ in range(30):
        writer.write(astronaut()[:, :, ::-1])
    writer.release()
    return path


async def test_a_clip_is_seen_to_its_end_and_the_child_is_gone(clip: Path) -> None:
    watched = Watched(str(clip), realtime=False, fps=0)
    await watched.process.run()
    assert len(watched.frames) == 30
    assert [frame.number for frame in watched.frames] == list(range(1, 31))
    assert not any(face.thumbnail for frame in watched.frames for face in frame.faces), "nobody asked for pictures"
    assert watched.told == ["ok", "ended"]
    assert {face.track for frame in watched.frames for face in frame.faces} == {1}
    result = watched.frames[0]
    assert (result.camera, result.width, result.height) == ("front", 512, 512)
    assert result.jpeg is None
    assert result.faces[0].encoding.shape == (128,)
    assert watched.process.pid is None


async def test_each_face_that_is_encoded_comes_with_a_picture_where_that_is_asked_for(clip: Path) -> None:
    watched = Watched(str(clip), realtime=False, fps=0, thumbnails=True)
    await watched.process.run()
    faces = [face for frame in watched.frames for face in frame.faces]
    assert any(face.thumbnail for face in faces)
    assert all((face.thumbnail is None) == (face.encoding is None) for face in faces)


async def test_frames_carry_a_picture_only_while_somebody_watches(clip: Path) -> None:
    watched = Watched(str(clip), loop=True)
    async with running(watched):
        await until(lambda: watched.frames)
        watched.process.want_jpeg(True)
        await until(lambda: watched.frames[-1].jpeg)
        assert watched.frames[-1].jpeg[:2] == b"\xff\xd8"  # type: ignore[index]
        watched.process.want_jpeg(False)
        await until(lambda: watched.frames[-1].jpeg is None)


async def test_a_child_that_hangs_is_a_lost_camera_before_it_is_killed(clip: Path) -> None:
    watched = Watched(str(clip), loop=True)
    async with running(watched):
        await until(lambda: watched.frames)
        hung = watched.process.pid
        assert hung is not None
        os.kill(hung, signal.SIGSTOP)
        await until(lambda: watched.told[-1] == "lost", 6)
        os.kill(hung, signal.SIGCONT)
        await until(lambda: watched.told[-1] == "ok", 6)
        assert watched.process.pid == hung


async def test_a_camera_that_is_not_there_is_lost_and_asked_again(tmp_path: Path) -> None:
    """Nothing falls back to anything else; the file that appears later is opened."""
    path = tmp_path / "late.avi"
    watched = Watched(str(path), realtime=False)
    async with running(watched) as task:
        await until(lambda: watched.told == ["lost"])
        assert str(path) in watched.states[0].detail
        writer = cv2.VideoWriter(str(tmp_path / "new.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 64))
        for _ in range(5):
            writer.write(blank(64, 64))
        writer.release()
        (tmp_path / "new.avi").rename(path)
        await until(task.done)
        assert watched.told == ["lost", "ok", "ended"]
        assert watched.process.restarts == 0


async def test_the_event_loop_never_stalls_while_the_child_works(clip: Path) -> None:
    watched = Watched(str(clip), realtime=False, fps=0)
    async with measured_stalls() as stalls:
        await watched.process.run()
    assert len(watched.frames) == 30
    assert stalls.longest_s < 0.05


class TestPhotos:
    async def test_faces_of_a_photo(self) -> None:
        photos = PhotoProcess(settings.Engine(), "warning")
        try:
            result = await photos.analyse(jpeg(astronaut()))
            assert (result.width, result.height, len(result.faces)) == (512, 512, 1)
            pair = await photos.analyse(jpeg(side_by_side(astronaut(), astronaut()[:, ::-1])))
            assert len(pair.faces) == 2
        finally:
            await photos.close()

    async def test_a_bad_photo_is_refused_and_the_next_one_read(self) -> None:
        photos = PhotoProcess(settings.Engine(), "warning")
        try:
            with pytest.raises(ImageError) as caught:
                await photos.analyse(b"no picture")
            assert caught.value.code == "bad_image"
            assert len((await photos.analyse(jpeg(astronaut()))).faces) == 1
        finally:
            await photos.close()

    async def test_a_photo_that_takes_too_long_costs_the_child_not_the_daemon(self) -> None:
        photos = PhotoProcess(settings.Engine(), "warning", timeout_s=0.001)
        try:
            with pytest.raises(ImageError, match="takes too long"):
                await photos.analyse(jpeg(astronaut()))
        finally:
            await photos.close()

    async def test_the_child_stops_when_idle(self) -> None:
        photos = PhotoProcess(settings.Engine(), "warning", idle_s=0.2)
        await photos.analyse(jpeg(astronaut()))
        assert photos.pid is not None
        await until(lambda: photos.pid is None)
        assert len((await photos.analyse(jpeg(astronaut()))).faces) == 1
        await photos.close()
