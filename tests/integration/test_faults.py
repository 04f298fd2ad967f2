"""Whatever happens to a camera's child, the real daemon goes on, and nobody is decided twice."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_face import settings
from edge_face.clock import SystemClock
from edge_face.daemon import Daemon
from edge_face.store import Store
from edge_face.supervisor import CameraProcess
from edge_face.terminal import Terminal
from tests.support import faults
from tests.support.daemon import free_port
from tests.support.photos import astronaut, hopper, jpeg, side_by_side
from tests.support.ticker import measured_stalls

MAX_STALL_S = 0.05


async def until(condition: object, timeout_s: float = 30.0) -> None:
    assert callable(condition)
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.02)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Eileen and a stranger stand there for a minute and a half, swaying."""
    path = tmp_path / "clip.avi"
    pair = cv2.resize(side_by_side(astronaut(), hopper()), (768, 384))[:, :, ::-1]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (800, 400))
    for number in range(900):
        scene = np.full((400, 800, 3), 127, np.uint8)
        shift = number % 8
        scene[shift : shift + 384, 2 * shift : 2 * shift + 768] = pair
        writer.write(scene)
    writer.release()
    return path


async def enrol_eileen(people: object) -> None:
    await people.enrol("Eileen", [jpeg(astronaut())])  # type: ignore[attr-defined]


async def test_killed_crashed_hung_and_leaking_children_are_replaced_and_nobody_is_decided_twice(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edge_face.supervisor.LOST_S", 1.5)
    monkeypatch.setattr("edge_face.supervisor.HUNG_S", 2.5)
    monkeypatch.setattr("edge_face.supervisor.BACK_OFF_S", (0.1, 0.3))
    monkeypatch.setattr("edge_face.supervisor.MEMORY_EVERY_S", 0.2)
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
    daemon = Daemon(config, Terminal(), prepare=enrol_eileen)  # type: ignore[arg-type]

    def camera() -> dict[str, object]:
        found: dict[str, object] = daemon.status()["cameras"][0]
        return found

    def process() -> CameraProcess:
        return daemon._cameras["front"]

    async def sees_both() -> None:
        before = camera()["frames"]
        assert isinstance(before, int)
        await until(lambda: camera()["state"] == "ok" and camera()["frames"] > before + 3)  # type: ignore[operator]

    running = asyncio.create_task(daemon.run())
    try:
        await until(lambda: daemon._cameras and process().pid and camera()["decisions"] == {"match": 1, "unknown": 1})
        await sees_both()
        async with measured_stalls() as stalls:
            for count, fault in enumerate(
                (signal.SIGKILL, faults.CRASH, faults.HANG, signal.SIGSTOP, faults.LEAK, signal.SIGKILL), 1
            ):
                pid = process().pid
                assert pid is not None
                os.kill(pid, fault)
                await until(lambda count=count: process().restarts == count)
                await until(lambda pid=pid: process().pid not in (None, pid))
                await sees_both()
                await asyncio.sleep(0.5)
        assert camera()["restarts"] == 6
        assert camera()["outgrown"] == 1
        assert not running.done()
    finally:
        daemon.stop()
        await asyncio.gather(running, return_exceptions=True)

    store = Store(tmp_path / "edge-face.db", SystemClock())
    told = [(event["status"], event["name"]) for event in store.events().items]
    store.close()
    assert sorted(told, key=str) == [("PASS", "Eileen"), ("REJECT", None)]
    reasons = [record.getMessage() for record in caplog.records if "starting it again" in record.getMessage()]
    for words in ("killed by signal 9", "killed by signal 11", "no sign of life", "a leak"):
        assert any(words in reason for reason in reasons), (words, reasons)
    print(f"longest stall {stalls.longest_s * 1000:.1f} ms of {len(stalls.gaps)} ticks")
    assert stalls.longest_s < MAX_STALL_S


