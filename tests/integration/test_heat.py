"""A hot board for real: a stand-in /sys, the daemon with a camera's process on a clip, and what it does of it."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from edge_face import board, config, daemon, heat
from edge_face.supervisor import CameraProcess
from edge_face.terminal import Terminal
from tests.integration.test_daemon import write_clip
from tests.support.daemon import write_config
from tests.support.photos import blank

FPS = 10


@pytest.mark.slow
@pytest.mark.paired
async def test_a_hot_board_judges_fewer_frames_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")

    def is_at(degrees: int) -> None:
        (zone / "temp.new").write_text(f"{degrees}000\n")
        (zone / "temp.new").replace(zone / "temp")

    is_at(50)
    monkeypatch.setattr(board, "EVERY_S", 0.1)
    monkeypatch.setattr(heat, "LOOK_EVERY_S", 0.1)
    monkeypatch.setattr(heat, "STEP_S", 0.5)
    monkeypatch.setattr(heat, "LEAST", 0.25)
    monkeypatch.setattr(daemon, "Board", partial(board.Board, root=tmp_path))
    clip = write_clip(tmp_path / "clip.avi", (blank(), 2), fps=30)
    file = write_config(
        tmp_path,
        {
            "camera": {"source": clip, "loop": "true", "fps": FPS},
            "storage": {"path": tmp_path / "edge-face.db", "backups": "off"},
            "engine": {"max_temperature": 75},
        },
    )
    configured = config.load(file, os.environ)
    running = daemon.Daemon(configured, Terminal(), load=lambda: configured)
    task = asyncio.create_task(running.run())

    async def until(share: float) -> None:
        async with asyncio.timeout(30):
            while not task.done() and not (
                hasattr(running, "_board") and running.status()["heat"]["share"] == share and camera()["state"] == "ok"
            ):
                await asyncio.sleep(0.05)

    def camera() -> dict[str, Any]:
        (found,) = running.status()["cameras"]
        return found

    def camera_process() -> CameraProcess:
        return running._fleet.processes["front"]

    async def rate() -> float:
        """Frames a second that the camera's process judged, over a while after the change has arrived."""
        await asyncio.sleep(0.5)
        begin, before = time.monotonic(), camera()["frames"]
        await asyncio.sleep(3)
        return (camera()["frames"] - before) / (time.monotonic() - begin)

    try:
        await until(1)
        child = camera_process().pid
        assert await rate() == pytest.approx(FPS, rel=0.3)
        is_at(80)
        await until(0.25)
        assert await rate() == pytest.approx(FPS / 4, abs=1)
        assert running.status()["board"]["temperature_c"] == 80.0
        assert "hot: 0.25 of the frames" in running._fleet.pulse().summary
        assert "the processor has 80 °C: 0.25 of the frames are judged" in caplog.text
        is_at(60)
        await until(1)
        assert await rate() == pytest.approx(FPS, rel=0.3)
        assert "the processor has cooled down to 60 °C" in caplog.text
        assert camera_process().pid == child, "it was started anew"
    finally:
        running.stop()
        await task
