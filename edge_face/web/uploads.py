"""WS `/ws`: a client sends pictures and hears who is in them; who is identified is marked as present.

These are no live frames: they make no event, and open nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from aiohttp import WSCloseCode, WSMsgType, web

from edge_face.clock import Clock
from edge_face.database import StoreThread
from edge_face.errors import EdgeFaceError
from edge_face.events import Person
from edge_face.settings import Config
from edge_face.web.connections import abort
from edge_face.web.dropin import image_bytes
from edge_face.web.forms import MAX_IMAGE_BYTES
from edge_face.web.people import PhotoWork
from edge_face.web.replies import Refusal, refusal
from edge_face.web.services import Route, Services, Students
from edge_face.web.spec import Spec

PATH = "/ws"
MAX_CLIENTS = 8
STALLED_S = 10.0
"""A client that takes no answer for this long is cut off."""
CLOSE_S = 0.3
_MAX_MESSAGE = MAX_IMAGE_BYTES * 4 // 3 + 100_000  # base64 is longer by a third
_PING_S = 30.0
_REMEMBERED = 1000

_UPLOADS = Spec(
    "WebSocket: one picture a message, one JSON with `message` and `student_data` for each", None, 101, errors=(400,)
)


class Visits:
    """When a person's pictures begin a visit: as at a camera, a visit has one row, however many pictures it has."""

    def __init__(self, clock: Clock, config: Callable[[], Config]) -> None:
        """A visit ends after `presence_timeout` without a picture; two rows are at least `cooldown` apart."""
        self._clock = clock
        self._config = config
        self._seen: dict[str, tuple[float, float]] = {}
        """Person id to the times of the last picture and of the last row."""

    def begins(self, person_id: str) -> bool:
        now = self._clock.monotonic()
        seen, marked = self._seen.pop(person_id, (-float("inf"), -float("inf")))
        decision = self._config().decision
        begins = now - seen > decision.presence_timeout and now - marked >= decision.cooldown
        while len(self._seen) >= _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._seen[person_id] = now, now if begins else marked
        return begins

    def forget(self, person_id: str) -> None:
        """The row could not be written, so the next picture begins the visit."""
        self._seen.pop(person_id, None)


class Uploads:
    def __init__(
        self, work: PhotoWork, services: Services, still_valid: Callable[[web.Request], Awaitable[bool]]
    ) -> None:
        self._work = work
        self._services = services
        self._still_valid = still_valid
        self._visits = Visits(services.clock, services.config)
        self._clients: dict[web.WebSocketResponse, asyncio.Transport | None] = {}
        self._closing = False

    def routes(self) -> list[Route]:
        return [Route("GET", PATH, self.serve, "admin", _UPLOADS, socket=True)]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """One client, one picture after the other."""
        ws = web.WebSocketResponse(compress=False, heartbeat=_PING_S, timeout=CLOSE_S, max_msg_size=_MAX_MESSAGE)
        if not ws.can_prepare(request):
            raise Refusal(400, "websocket_only", "This address speaks WebSocket only.")
        if self._closing or len(self._clients) >= MAX_CLIENTS:
            raise Refusal(503, "too_many_clients", "Too many clients send pictures already.", {"Retry-After": "5"})
        self._clients[ws] = request.transport
        try:
            await ws.prepare(request)
            async for message in ws:
                if message.type not in (WSMsgType.BINARY, WSMsgType.TEXT):
                    break
                if not await self._still_valid(request):
                    await self._dismiss(ws, WSCloseCode.POLICY_VIOLATION)
                    break
                data = message.data.encode() if message.type is WSMsgType.TEXT else message.data
                answer = json.dumps(await self._answer(request, data), ensure_ascii=False).encode()
                async with asyncio.timeout(STALLED_S):
                    await ws.send_frame(answer, WSMsgType.TEXT)
        except (TimeoutError, ConnectionError):
            self._cut_off(ws)
        finally:
            del self._clients[ws]
        return ws

    async def close(self) -> None:
        """Say goodbye (1001) to all, and cut off those who do not answer."""
        self._closing = True
        await asyncio.gather(*(self._dismiss(ws, WSCloseCode.GOING_AWAY) for ws in list(self._clients)))

    async def _dismiss(self, ws: web.WebSocketResponse, code: WSCloseCode) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                await ws.close(code=code)
        except (TimeoutError, ConnectionError, RuntimeError):  # RuntimeError: its handshake is not over yet
            self._cut_off(ws)

    def _cut_off(self, ws: web.WebSocketResponse) -> None:
        abort(self._clients.get(ws))

    async def _answer(self, request: web.Request, data: bytes) -> dict[str, Any]:
        """What is said of one picture, whatever it is."""
        try:
            async with self._work.slots.taken():
                still = await self._work.people.recognise(await asyncio.to_thread(image_bytes, data))
        except EdgeFaceError as error:
            return _reply(refusal(error, request).message)
        people = {face.person.id: face.person for face in still.faces if face.status == "PASS" and face.person}
        if not people:
            return _reply("The face is unknown." if still.faces else "No face was found.")
        first = next(iter(people.values()))
        try:
            message = await self._mark(list(people.values()))
        except EdgeFaceError as error:
            message = refusal(error, request).message
        return _reply(message, await student_data(self._services.store, self._services.thread, first))

    async def _mark(self, people: list[Person]) -> str:
        """A row for each whose visit begins. Raises StoreError."""
        services = self._services
        marked, known = [], []
        for person in people:
            if not self._visits.begins(person.id):
                known.append(person.name)
                continue
            try:
                synced = services.health().clock == "synced"
                await services.thread.run(services.store.mark_attendance, person, clock_synced=synced)
            except BaseException:
                self._visits.forget(person.id)
                raise
            marked.append(person.name)
        said = [f"Attendance marked: {', '.join(marked)}."] if marked else []
        return " ".join(said + ([f"Already marked: {', '.join(known)}."] if known else []))


async def student_data(store: Students, thread: StoreThread, person: Person) -> dict[str, Any]:
    """What `/create-student` was given for a person, with the name and id as they are now."""
    data: dict[str, Any] = {}
    with contextlib.suppress(EdgeFaceError):  # the name is known without the disk
        data = await thread.run(store.student_data, person.id)
    return data | {"name": person.name, "id": person.external_id or person.id}


def _reply(message: str, data: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"message": message, "student_data": data or {}}
