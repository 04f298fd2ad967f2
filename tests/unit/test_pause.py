"""A pause: what a gate makes of it, and what is left of it while the database cannot be written."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from edge_face import cameras, settings
from edge_face.bus import Bus
from edge_face.cameras import Cameras
from edge_face.database import StoreThread
from edge_face.errors import CaptureError, NotFoundError, StoreError
from edge_face.events import Box, Encoding, Event, FrameResult, FrameView, Pause, Person, Presence, State, TrackedFace
from edge_face.gallery import Gallery
from edge_face.gate import Gate
from edge_face.messages import CameraJob
from edge_face.store import Store
from edge_face.supervisor import CameraProcess
from tests.support.broker import until
from tests.support.clock import HandClock

BOTH = ("front", "back")


class FullStore(Store):
    full = False

    def set_paused(self, camera: str, paused: bool) -> None:
        if self.full:
            raise StoreError("it is full")
        super().set_paused(camera, paused)


def gate_of(camera: str, clock: HandClock, told: list[Event], states: list[State]) -> Gate:
    return Gate(
        *("gate-1", camera, settings.Decision(frames=1), clock, Bus[FrameView]()),
        *(lambda event, _deadline: told.append(event), states.append, lambda _tracks: None),
        clock_synced=lambda: True,
    )


def test_a_paused_gate_decides_nothing_whatever_still_comes(clock: HandClock) -> None:
    told: list[Event] = []
    states: list[State] = []
    gate = gate_of("front", clock, told, states)
    katya = np.zeros(128, np.float32)
    gate.use_gallery(Gallery.build([Person("katya", "Katya", faces=1)], np.zeros(1, np.int32), katya[None]))

    def frame(track: int, encoding: Encoding = katya) -> None:
        clock.now += 0.1
        face = TrackedFace(Box(0, 0, 100, 100), 1.0, track, encoding)
        gate.on_frame(FrameResult("front", 1, 0, clock.now - 0.05, clock.date, 640, 480, (face,), {}))

    frame(1, katya + 1)  # votes are open
    gate.pause(True)
    assert told == [], "nothing is told of who was in view"
    assert [state.present for state in states if isinstance(state, Presence)] == [True, False]
    for _ in range(5):
        frame(2)
    clock.now += 10
    gate.tick()
    assert told == []
    gate.pause(False)
    frame(3)
    assert [(event.status, event.name) for event in told] == [("PASS", "Katya")]


def control(store: Store, thread: StoreThread, clock: HandClock, told: list[Pause]) -> Cameras:
    views: Bus[FrameView] = Bus()
    gates, processes = {}, {}
    for camera in BOTH:

        def job(first_track: int, camera: str = camera) -> CameraJob:
            return CameraJob(camera, settings.Camera(), settings.Engine(), 70, 5.0, first_track, "info")

        gates[camera] = gate_of(camera, clock, [], [])
        processes[camera] = CameraProcess(job, camera, clock, gates[camera].on_frame, gates[camera].on_camera)
    return Cameras(gates, processes, views, store, thread, clock, told.append)


async def test_a_pause_holds_at_once_and_is_noted_when_that_is_possible(
    path: Path, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cameras, "RETRY_S", 0.05)
    store, thread, told = FullStore(path, clock), StoreThread(), list[Pause]()
    first = control(store, thread, clock, told)
    first.restore(["front", "back"], await first.paused())
    assert told == [Pause("front", False), Pause("back", False)]
    watch = asyncio.create_task(first.watch())
    store.full = True
    await first.pause("front", True)
    first.pause_soon(True, BOTH)
    first.pause_soon(True, BOTH)  # said twice, told once
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
    second.restore(["front", "back"], await second.paused())
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
