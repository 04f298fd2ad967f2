"""Everything that happens to a daemon in its life, all at once and again and again, and a record of what it answered.

Two people come and go before the cameras. Eileen stays enrolled. Grace is enrolled again and again, each time as a new
person (`Grace 1`, `Grace 2`, ...), is awaited at the gate, and removed: so it is known who may pass, and when.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import random
import time
import zipfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import numpy as np
from aiohttp import web

from tests.support.broker import Arrivals, Broker
from tests.support.daemon import Daemon, edge_face
from tests.support.photos import astronaut, blank, hopper, jpeg, side_by_side
from tests.support.streams import StreamServer

RESIDENT = "Eileen"
FOUND_S = 60.0
"""Within this time an enrolled person passes: Grace comes at least every 22 s on each camera."""
SLOW_VIEWER_S = 13.0
"""Longer than the server's patience."""
PHOTOS_ON_S, PHOTOS_OFF_S = 50.0, 75.0
"""Photos come in spells, so that their process starts and is stopped again (after 60 s)."""

GETS = (
    "/healthz",
    "/api/v1/status",
    "/metrics",
    "/api/v1/people",
    "/api/v1/people?q=gra&limit=2",
    "/api/v1/events",
    "/api/v1/events?limit=5&status=PASS&camera=front",
    "/api/v1/events?format=csv&limit=50",
    "/api/v1/events?format=xlsx&limit=50",
    "/faces",
    "/openapi.json",
    "/docs",
)
_REFUSED = {"/nothing/here": 404, "/api/v1/events?cursor=wrong": 400, "/api/v1/people?limit=x": 400, "/register": 405}


@dataclass
class Record:
    """What came of it. Times are Unix seconds, of the same machine as the daemon's."""

    mqtt: Arrivals = field(default_factory=list)
    webhook: Arrivals = field(default_factory=list)
    enrolled: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Name to when it was enrolled at the earliest, and when its removal was acknowledged."""
    waited_s: list[float] = field(default_factory=list)
    """From an acknowledged registration to the person's first PASS."""
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class Load:
    """`run` goes on until it is cancelled; `settle` waits until nothing is on its way any more."""

    def __init__(self, daemon: Daemon, broker: Broker, stream: StreamServer, record: Record) -> None:
        self.record = record
        self._daemon = daemon
        self._broker = broker
        self._stream = stream
        self._random = random.Random(0)
        self._photos = asyncio.Event()
        self._auth = daemon.auth
        self._grace = 0

    async def run(self) -> None:
        async with aiohttp.ClientSession(headers=self._auth) as self._session, asyncio.TaskGroup() as group:
            for actor in (
                self._people, self._uploads, self._spells, self._requests, self._wrong_requests,
                self._viewers, self._viewers, self._slow_viewers, self._camera_losses, self._broker_restarts,
            ):  # fmt: skip
                group.create_task(actor())

    async def _spells(self) -> None:
        while True:
            self._photos.set()
            await asyncio.sleep(PHOTOS_ON_S)
            self._photos.clear()
            await asyncio.sleep(PHOTOS_OFF_S)

    async def _people(self) -> None:
        """Enrol Grace in one of the ways there are, wait until she passes, remove her."""
        ways: list[Callable[[str], Awaitable[Any]]] = [self._enrol, self._enrol_old, self._enrol_zip, self._enrol_cli]
        while True:
            await self._photos.wait()
            self._grace += 1
            name, begin = f"Grace {self._grace}", time.time()
            self.record.enrolled[name] = begin, float("inf")
            await ways[self._grace % len(ways)](name)
            acknowledged = time.time()
            while not any(event["name"] == name for _, event in self.record.webhook):
                if time.time() - acknowledged > FOUND_S:
                    self.record.problems.append(f"{name} was enrolled and did not pass within {FOUND_S:.0f} s")
                    break
                await asyncio.sleep(0.1)
            else:
                self.record.waited_s.append(time.time() - acknowledged)
            await (self._remove_cli if self._grace % 3 == 0 else self._remove)(name)
            self.record.enrolled[name] = begin, time.time()
            await asyncio.sleep(3)

    async def _enrol(self, name: str) -> None:
        await self._post("/api/v1/people", 201, name=name, image=GRACE)
        await self._post("/api/v1/people", 409, name=f"{name}'s twin", image=GRACE)

    async def _enrol_old(self, name: str) -> None:
        await self._post("/register", 200, name=name, image=GRACE)

    async def _enrol_zip(self, name: str) -> None:
        members = {f"{name}.jpg": GRACE, "../up.jpg": GRACE, "empty.jpg": b"", "wall.png": WALL, "two/1.jpg": TWO}
        report = await self._post("/api/v1/people/batch", 200, zip=zipped(members))
        if (report.get("enrolled"), report.get("refused")) != (1, len(members) - 1):
            self.record.problems.append(f"the ZIP with {name} gave {report}")

    async def _enrol_cli(self, name: str) -> None:
        photo = self._daemon.config.parent / "grace.jpg"
        photo.write_bytes(GRACE)
        await self._command("enroll", name, str(photo))

    async def _remove(self, name: str) -> None:
        people = (await self._get("/api/v1/people?q=grace", 200))["items"]
        (person,) = (person["id"] for person in people if person["name"] == name)
        async with self._session.delete(f"{self._daemon.url}/api/v1/people/{person}") as answer:
            self._expect(answer.status, 200, f"DELETE {person}")

    async def _remove_cli(self, name: str) -> None:
        await self._command("remove", name)
        await asyncio.sleep(2)  # the daemon sees what the command line did within 2 s

    async def _command(self, *args: str) -> None:
        done = await asyncio.to_thread(edge_face, *args, config=self._daemon.config)
        self.record.counts["commands"] += 1
        if done.returncode:
            self.record.problems.append(f"edge-face {args[0]} failed: {done.stderr.splitlines()[-1:]}")

    async def _uploads(self) -> None:
        """Good and bad photos."""
        while True:
            for body, status in UPLOADS:
                await self._photos.wait()
                await self._post("/api/v1/recognize", status, image=body)
                await self._pause(0.5, 2)
            await self._post("/process-frame/", 200, frame=EILEEN)

    async def _requests(self) -> None:
        while True:
            for path in GETS:
                await self._get(path, 200)
                await self._pause(0.05, 0.5)

    async def _wrong_requests(self) -> None:
        """Wrong addresses and, now and then, a wrong token, whose answer comes late."""
        while True:
            for path, status in _REFUSED.items():
                await self._get(path, status)
                await self._pause(0.5, 2)
            await self._get("/api/v1/people", 401, {"Authorization": "Bearer wrong"})

    async def _viewers(self) -> None:
        """Come, watch, leave: in order, or by hanging up."""
        while True:
            query = self._random.choice(("", "?frame=0"))
            async with self._watching(query) as viewer:
                deadline = time.monotonic() + self._random.uniform(1, 8)
                while viewer and time.monotonic() < deadline:
                    with contextlib.suppress(TimeoutError):
                        message = await viewer.receive(timeout=1)
                        if message.type is not aiohttp.WSMsgType.TEXT:
                            self.record.problems.append(f"a viewer got {message.type!r}")
                            break
                        self._check_frame(json.loads(message.data))
                if viewer and self._random.random() < 0.5:
                    connection = viewer.get_extra_info("socket")
                    connection.shutdown(2)  # hung up
            await self._pause(0.2, 3)

    async def _slow_viewers(self) -> None:
        while True:
            async with self._watching(""):
                await asyncio.sleep(SLOW_VIEWER_S)
            await self._pause(5, 15)

    @contextlib.asynccontextmanager
    async def _watching(self, query: str) -> AsyncIterator[aiohttp.ClientWebSocketResponse | None]:
        self.record.counts["viewers"] += 1
        url = self._daemon.url.replace("http", "ws", 1) + "/ws/face-stream" + query
        viewer = await self._session.ws_connect(url, max_msg_size=0)
        try:
            yield viewer
        finally:
            with contextlib.suppress(ConnectionError):
                await viewer.close()

    def _check_frame(self, body: dict[str, Any]) -> None:
        self.record.counts["frames watched"] += 1
        for face in body["faces"]:
            if face["status"] == "PASS" and face["name"] != RESIDENT and face["name"] not in self.record.enrolled:
                self.record.problems.append(f"the stream shows {face['name']}")

    async def _camera_losses(self) -> None:
        while True:
            await self._pause(20, 40)
            await asyncio.to_thread(self._stream.stop)
            await self._pause(1, 8)
            self._stream.start()
            self.record.counts["camera losses"] += 1

    async def _broker_restarts(self) -> None:
        while True:
            await self._pause(25, 45)
            await asyncio.to_thread(self._broker.stop)
            await self._pause(0.5, 4)
            await asyncio.to_thread(self._broker.start)
            self.record.counts["broker restarts"] += 1

    async def _get(self, path: str, status: int, headers: dict[str, str] | None = None) -> Any:
        self.record.counts["requests"] += 1
        async with self._session.get(self._daemon.url + path, headers=headers) as answer:
            self._expect(answer.status, status, path)
            return await (answer.json() if answer.content_type == "application/json" else answer.read())

    async def _post(self, path: str, status: int, **fields: str | bytes) -> Any:
        form = aiohttp.FormData(default_to_multipart=True)
        for name, value in fields.items():
            if isinstance(value, bytes):
                form.add_field(name, io.BytesIO(value), filename=f"{name}.bin")
            else:
                form.add_field(name, value)
        self.record.counts["uploads"] += 1
        async with self._session.post(self._daemon.url + path, data=form) as answer:
            self._expect(answer.status, status, f"{path} {fields.get('name', '')!r}")
            return await answer.json()

    def _expect(self, got: int, wanted: int, what: str) -> None:
        """`wanted` 4: any refusal will do."""
        if wanted not in (got, got // 100):
            self.record.problems.append(f"{what} was answered with {got}, not {wanted}")

    async def _pause(self, least_s: float, most_s: float) -> None:
        await asyncio.sleep(self._random.uniform(least_s, most_s))


@contextlib.asynccontextmanager
async def receiving(arrivals: Arrivals) -> AsyncIterator[str]:
    """A webhook's receiver, which notes what it gets; gives its address."""

    async def take(request: web.Request) -> web.Response:
        arrivals.append((time.time(), await request.json()))
        return web.Response(status=204)

    app = web.Application()
    app.router.add_post("/event", take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/event"
    finally:
        await runner.cleanup()


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


EILEEN, GRACE = jpeg(astronaut()), jpeg(hopper())
WALL, TWO = jpeg(blank()), jpeg(side_by_side(astronaut(), hopper()))
_NOISE = np.random.default_rng(0).bytes(40_000)
UPLOADS = (
    (EILEEN, 200),
    (GRACE, 200),
    (TWO, 200),
    (WALL, 200),
    (_NOISE, 4),
    (EILEEN[: len(EILEEN) // 3], 4),
    (b"", 4),
    (b"\xff\xd8\xff\xe0" + _NOISE, 4),
)
