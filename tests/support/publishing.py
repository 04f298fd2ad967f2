"""Events to publish, and a running publisher on a real store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from edge_face.clock import SystemClock
from edge_face.errors import CaptureError
from edge_face.events import Event, Snapshot, State, uuid7
from edge_face.journal import Journal
from edge_face.publish import Publisher, Sink
from edge_face.store import Store, StoreThread

CLOCK = SystemClock()


def event(name: str | None = "Katya", **changes: Any) -> Event:
    """A PASS of `name`, or a REJECT of somebody unknown."""
    now = CLOCK.wall()
    values: dict[str, Any] = {
        "type": "face_event",
        "id": uuid7(now),
        "seq": 0,
        "node": "gate-1",
        "camera": "front",
        "status": "PASS" if name else "REJECT",
        "reason": "match" if name else "unknown",
        "name": name,
        "person_id": name.lower() if name else None,
        "external_id": None,
        "distance": 0.41,
        "threshold": 0.45,
        "margin": 0.2,
        "score": None,
        "rule": "distance",
        "box": (1, 2, 3, 4),
        "track": 1,
        "frames": 3,
        "timestamp": now,
        "expires_at": now + 5,
        "latency_ms": 80.0,
    }
    return Event(**values | changes)


def deadline(ttl_s: float = 5.0) -> float:
    return CLOCK.monotonic() + ttl_s


class RecordingSink:
    """Takes what it gets, after raising what it was told to raise first."""

    healthy = True

    def __init__(self, name: str, *, history: bool = False, delay_s: float = 0.0) -> None:
        self.name = name
        self.history = history
        self.delay_s = delay_s
        self.answers: list[Exception] = []
        self.attempts: list[tuple[float, Mapping[str, Any], bool]] = []
        self.delivered: list[Mapping[str, Any]] = []
        self.states: list[State] = []
        self.closed = False

    def wants(self, event: Event) -> bool:
        return event.status == "PASS"

    async def deliver(self, payload: Mapping[str, Any], deadline: float | None, late: bool) -> None:
        self.attempts.append((CLOCK.monotonic(), payload, late))
        await asyncio.sleep(self.delay_s)
        if self.answers:
            raise self.answers.pop(0)
        self.delivered.append(payload)

    def state(self, change: State) -> None:
        self.states.append(change)

    async def run(self) -> None:
        pass

    async def close(self) -> None:
        self.closed = True

    @property
    def names(self) -> list[str]:
        return [payload["name"] for payload in self.delivered]


class AskedCameras:
    """Notes what a sink asks of the cameras; each has one picture, and None is lost."""

    def __init__(self, jpeg: bytes | None = b"\xff\xd8 picture") -> None:
        self.jpeg = jpeg
        self.pauses: list[tuple[bool, tuple[str, ...]]] = []
        self.pictures: list[str] = []

    def pause_soon(self, paused: bool, cameras: Iterable[str]) -> None:
        self.pauses.append((paused, tuple(cameras)))

    async def picture(self, camera: str, *, small: bool = False) -> Snapshot:
        self.pictures.append(camera)
        if self.jpeg is None:
            raise CaptureError(f"The camera {camera} gives no pictures", "camera_lost")
        return Snapshot(self.jpeg + camera.encode(), 0.0, 0.0)


@asynccontextmanager
async def publishing(path: Path, *sinks: Sink, kind: type[Store] = Store) -> AsyncIterator[Publisher]:
    """A publisher at work; leaving the block stops it in order."""
    thread = StoreThread()
    store = await thread.run(kind, path, CLOCK)
    journal = await thread.run(Journal, store, CLOCK)
    publisher = Publisher(journal, thread, sinks, CLOCK)
    task = asyncio.create_task(publisher.run())
    try:
        yield publisher
    finally:
        task.cancel()
        results = await asyncio.gather(task, return_exceptions=True)
        store.close()
        await thread.close()
    assert isinstance(results[0], asyncio.CancelledError), results[0]
