"""A pause while the database cannot be written."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from edge_face import cameras, settings
from edge_face.bus import Bus
from edge_face.cameras import Cameras
from edge_face.database import StoreThread
from edge_face.errors import CaptureError, NotFoundError, StoreError
from edge_face.events import FrameView, Pause
from edge_face.gate import Gate
from edge_face.messages import CameraJob
from edge_face.store import Store
from edge_face.supervisor import CameraProcess
from tests.support.broker import until
from tests.support.clock import HandClock


class FullStore(Store):
    full = False

    def set_paused(self, camera: str, paused: bool) -> None:
        if self.full:
            raise StoreError("it is full")
        super().set_paused(camera, paused)


def control(store: Store, thread: StoreThread, clock: HandClock, told: list[Pause]) -> Cameras:
    views: Bus[FrameView] = Bus()
    gates, processes = {}, {}
    for camera in ("front", "back"):

        def job(first_track: int, camera: str = camera) -> CameraJob:
            return CameraJob(camera, settings.Camera(), settings.Engine(), 70, 5.0, first_track, "info")

        gates[camera] = Gate(
            *("gate-1", camera, settings.Decision(), clock, views),
            *(lambda _event, _deadline: None, lambda _state: None, lambda _tracks: None),
            clock_synced=lambda: True,
        )
        processes[camera] = CameraProcess(job, camera, clock, gates[camera].on_frame, gates[camera].on_camera)
    return Cameras(gates, processes, views, store, thread, clock, told.append)


async def test_a_pause_holds_at_once_and_is_noted_when_that_is_possible(
    path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cameras, "RETRY_S", 0.05)
    store, thread, told = FullStore(path, clock), StoreThread(), list[Pause]()
    first = control(store, thread, clock, told)
    await first.restore()
    assert told == [Pause("front", False), Pause("back", False)]
    watch = asyncio.create_task(first.watch())
    store.full = True
    await first.pause("front", True)
    first.pause_all(True)
    first.pause_all(True)  # said twice, told once
    assert told[2:] == [Pause("front", True), Pause("back", True)]
    await first.pause("back", False)
    await asyncio.sleep(0.1)
    assert store.paused_cameras() == set()
    store.full = False
    await until(lambda: store.paused_cameras() == {"front"})
    watch.cancel()
    with suppress(asyncio.CancelledError):
        await watch

    second = control(store, thread, clock, told)
    await second.restore()
    assert [camera["paused"] for camera in second.list()] == [True, False]
    await second.pause("front", False)
    assert store.paused_cameras() == set()
    with pytest.raises(NotFoundError):
        await second.pause("side", True)
    await thread.close()
    store.close()


async def test_a_camera_that_gives_nothing_is_not_waited_for_long(
    store: Store, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cameras, "PICTURE_S", 0.05)
    thread = StoreThread()
    with pytest.raises(CaptureError) as caught:
        await control(store, thread, clock, []).picture("front")
    assert caught.value.code == "camera_lost"
    await thread.close()
