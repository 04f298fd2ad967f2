"""Whatever happens to a camera's child, the real daemon goes on, and nobody is decided twice."""

from __future__ import annotations

import asyncio
import io
import os
import re
import signal
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from edge_face import settings
from edge_face.clock import SystemClock
from edge_face.daemon import Daemon
from edge_face.errors import ImageError
from edge_face.memory import PHOTO, own_bytes
from edge_face.store import Store
from edge_face.supervisor import CameraProcess, PhotoProcess
from edge_face.terminal import Terminal
from tests.support import faults
from tests.support.api import multipart, running
from tests.support.daemon import free_port
from tests.support.photos import astronaut, hopper, jpeg, side_by_side
from tests.support.ticker import measured_stalls
from tests.support.uploads import eileen, encoded, megapixels

MAX_STALL_S = 0.05
FAULTS = (signal.SIGKILL, faults.CRASH, faults.HANG, signal.SIGSTOP, faults.DEAF, faults.LEAK)


async def until(condition: object, timeout_s: float = 30.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Eileen and a stranger stand there, swaying."""
    path = tmp_path / "clip.avi"
    pair = cv2.resize(side_by_side(astronaut(), hopper()), (768, 384))[:, :, ::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (800, 400))
    for number in range(250):
        scene = np.full((400, 800, 3), 127, np.uint8)
        shift = number % 8
        scene[shift : shift + 384, 2 * shift : 2 * shift + 768] = pair
        writer.write(scene)
    writer.release()
    return path


async def enrol_eileen(people: object) -> None:
    await people.enrol("Eileen", [jpeg(astronaut())])  # type: ignore[attr-defined]


@pytest.mark.slow
async def test_killed_crashed_hung_and_leaking_children_are_replaced_and_nobody_is_decided_twice(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edge_face.supervisor.LOST_S", 1.5)
    monkeypatch.setattr("edge_face.supervisor.HUNG_S", 2.5)
    monkeypatch.setattr("edge_face.supervisor.BACK_OFF_S", (0.1, 0.3))
    monkeypatch.setattr("edge_face.supervisor.MEMORY_EVERY_S", 0.2)
    monkeypatch.setattr("edge_face.child._END_S", 0.5)
    monkeypatch.setattr("edge_face.memory.GROWTH", 64 << 20)
    faults.prepare(tmp_path, monkeypatch)
    config = settings.Config(
        node=settings.Node("gate-1"),
        cameras={"front": settings.Camera(source=str(clip))},
        # The cooldown is short, so that only the visit keeps a second PASS away, and no visit ends during a restart.
        decision=settings.Decision(cooldown=0.1, presence_timeout=30, max_age=5),
        storage=settings.Storage(path=str(tmp_path / "edge-face.db")),
        api=settings.Api(port=free_port()),
    )
    daemon = Daemon(config, Terminal(), prepare=enrol_eileen, load=lambda: config)  # type: ignore[arg-type]

    def camera() -> dict[str, object]:
        found: dict[str, object] = daemon.status()["cameras"][0]
        return found

    def process() -> CameraProcess:
        return daemon._fleet.processes["front"]

    async def sees_both() -> None:
        before = camera()["frames"]
        assert isinstance(before, int)
        await until(lambda: camera()["state"] == "ok" and camera()["frames"] > before + 3)  # type: ignore[operator]

    task = asyncio.create_task(daemon.run())
    try:
        await until(
            lambda: daemon._fleet.processes and process().pid and camera()["decisions"] == {"match": 1, "unknown": 1}
        )
        await sees_both()
        async with measured_stalls() as stalls:
            for count, fault in enumerate(
                (signal.SIGKILL, faults.CRASH, faults.HANG, signal.SIGSTOP, faults.DEAF, faults.LEAK), 1
            ):
                pid = process().pid
                assert pid is not None
                os.kill(pid, fault)
                await until(lambda count=count: process().restarts == count)
                await until(lambda pid=pid: process().pid not in (None, pid))
                await sees_both()
                await asyncio.sleep(0.5)
        assert camera()["restarts"] == len(FAULTS)
        assert camera()["outgrown"] == 1
        assert not task.done()
    finally:
        daemon.stop()
        await asyncio.gather(task, return_exceptions=True)

    store = Store(tmp_path / "edge-face.db", SystemClock())
    told = [(event["status"], event["name"]) for event in store.events().items]
    store.close()
    assert sorted(told, key=str) == [("PASS", "Eileen"), ("REJECT", None)]
    reasons = [record.getMessage() for record in caplog.records if "starting it again" in record.getMessage()]
    for words in ("killed by signal 9", "killed by signal 11", "no sign of life", "no longer listens", "a leak"):
        assert any(words in reason for reason in reasons), (words, reasons)
    print(f"longest stall {stalls.longest_s * 1000:.1f} ms of {len(stalls.gaps)} ticks")
    assert stalls.longest_s < MAX_STALL_S


class TestPhotos:
    """The child that reads photos: what it costs, and what happens to it."""

    @pytest.fixture
    async def photos(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PhotoProcess]:
        faults.prepare(tmp_path, monkeypatch)
        photos = PhotoProcess(settings.Engine(), "warning", timeout_s=5)
        yield photos
        await photos.close()

    @pytest.fixture
    def photo(self) -> bytes:
        return encoded(eileen(), "PNG")

    async def test_a_photo_that_crashes_or_hangs_its_reader_is_refused_and_the_batch_goes_on(
        self, photos: PhotoProcess, photo: bytes, tmp_path: Path
    ) -> None:
        files = {"a": photo, "b": photo + faults.CRASHING_PHOTO, "c": photo, "d": photo + faults.HANGING_PHOTO}
        files |= {"e": photo}
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, data in files.items():
                archive.writestr(f"Eileen/{name}.png", data)
        async with running(tmp_path, photos) as api, measured_stalls() as stalls:
            form = multipart(("zip", out.getvalue()))
            status, body, _ = await api.ask("POST", "/api/v1/people/batch", data=form)
            assert (status, body["enrolled"]) == (200, 3)
            errors = {item["file"]: (item["error"], item["message"]) for item in body["items"] if item["error"]}
            assert set(errors) == {"Eileen/b.png", "Eileen/d.png"}
            assert "killed by signal 11" in errors["Eileen/b.png"][1]
            assert "takes too long" in errors["Eileen/d.png"][1]
            form = multipart(("image", files["b"]))
            status, body, _ = await api.ask("POST", "/api/v1/recognize", data=form)
            assert (status, body["error"]) == (422, "bad_image")
            form = multipart(("image", photo))
            status, body, _ = await api.ask("POST", "/api/v1/recognize", data=form)
            assert (status, body["faces"][0]["name"]) == (200, "Eileen")
        assert stalls.longest_s < MAX_STALL_S

    async def test_of_photos_that_are_read_together_only_those_at_fault_are_refused(
        self, photos: PhotoProcess, photo: bytes
    ) -> None:
        large = encoded(Image.fromarray(np.zeros((7000, 7000), np.float32)), "TIFF", compression="tiff_deflate")
        groups = {
            "crash": photo + faults.CRASHING_PHOTO,
            "memory": large,
            "damage": photo[:1000],
        }
        first = (await photos.analyse_all((photo,)))[0]
        for name, bad in groups.items():
            before = photos.pid
            results = await photos.analyse_all((photo, bad, photo))
            assert [bool(result.error) for result in results] == [False, True, False], name
            assert [len(result.faces) for result in results] == [1, 0, 1], name
            assert results[0].faces[0].box == results[2].faces[0].box == first.faces[0].box
            assert (photos.pid == before) == (name == "damage")

    @pytest.mark.parametrize("fault", [signal.SIGKILL, faults.CRASH])
    async def test_a_child_that_ends_between_two_photos_or_during_one_costs_no_photo(
        self, fault: signal.Signals, photos: PhotoProcess, photo: bytes
    ) -> None:
        await photos.analyse(photo)
        first = photos.pid
        assert first is not None
        os.kill(first, fault)
        assert len((await photos.analyse(photo)).faces) == 1
        second = photos.pid
        assert second not in (None, first)
        under_way = asyncio.create_task(photos.analyse(megapixels(100, "JPEG")))
        await asyncio.sleep(0.1)
        os.kill(second, fault)  # type: ignore[arg-type]
        assert len((await under_way).faces) == 1
        assert photos.pid not in (None, second)

    async def test_a_photo_that_needs_more_memory_than_it_may_have_costs_the_child(
        self, photos: PhotoProcess, photo: bytes
    ) -> None:
        await photos.analyse(photo)
        first = photos.pid
        assert first is not None
        used, most = own_bytes(first), 0
        large = Image.fromarray(np.zeros((7000, 7000), np.float32))
        task = asyncio.create_task(photos.analyse(encoded(large, "TIFF", compression="tiff_deflate")))
        while not task.done():
            most = max(most, own_bytes(first))
            await asyncio.sleep(0.005)
        with pytest.raises(ImageError, match="more memory") as caught:
            await task
        assert caught.value.code == "too_large"
        assert most - used < PHOTO
        assert len((await photos.analyse(photo)).faces) == 1
        assert photos.pid != first

    async def test_it_leaves_the_processor_and_the_memory_to_the_gate(
        self, photos: PhotoProcess, photo: bytes, tmp_path: Path
    ) -> None:
        await photos.analyse(photo)
        assert os.getpriority(os.PRIO_PROCESS, photos.pid or 0) == os.getpriority(os.PRIO_PROCESS, 0) + 10
        assert int(Path(f"/proc/{photos.pid}/oom_score_adj").read_text()) == 800
        status = Path(f"/proc/{photos.pid}/limits").read_text()
        assert re.search(r"Max data size +\d+ ", status)
