"""What the web part needs of the rest of edge-face, and what a route is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from aiohttp import web

from edge_face import dossier
from edge_face.bus import Bus
from edge_face.clock import Clock, SystemClock
from edge_face.database import StoreThread
from edge_face.events import FrameView, InView, Person, Snapshot
from edge_face.outbox import Missed
from edge_face.pages import Listing
from edge_face.people import People
from edge_face.reload import Plan
from edge_face.settings import Config
from edge_face.tokens import Role
from edge_face.unknowns import Unknowns
from edge_face.web.spec import Spec

TOKEN = web.RequestKey("token", str)
"""Where a request that was let in keeps the token, or the id of the session, that it came with."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
RoleOf = Callable[[str], Awaitable[Role | None]]


class TokenReader(Protocol):
    """Called on the store's thread."""

    def role_of(self, token: str) -> Role | None: ...


class Lists(Protocol):
    """The store's long lists. Called on threads, since reading a memory card takes time."""

    @property
    def events(self) -> Listing: ...
    @property
    def attendance(self) -> Listing: ...
    def attendance_time(self, since: float, until: float, *, latest: bool) -> float | None: ...
    def missed(self, since: float | None = None, until: float | None = None) -> list[Missed]: ...


class CameraControl(Protocol):
    """Runs on the event loop; raises NotFoundError for a camera that is not there."""

    def list(self) -> list[dict[str, Any]]: ...
    def describe(self, camera: str) -> dict[str, Any]: ...
    async def picture(self, camera: str) -> Snapshot: ...
    def age_s(self, picture: Snapshot) -> float: ...
    async def pause(self, camera: str, paused: bool) -> None: ...


class Students(Protocol):
    """What an older project's clients keep of people, and the rows made by their pictures; on the store's thread."""

    def add_student(self, name: str, external_id: str | None, data: Mapping[str, Any]) -> Person: ...
    def student_data(self, person_id: str) -> dict[str, Any]: ...
    def mark_attendance(self, person: Person, *, clock_synced: bool) -> None: ...


class Accounts(Protocol):
    """Who came in; on the store's thread. Raises StoreError."""

    def note_login(self, address: str, role: str) -> None: ...
    def note_failed_login(self, address: str) -> None: ...


class Records(Lists, Students, Accounts, dossier.Records, Protocol):
    """All that the store is asked for here."""


@dataclass(frozen=True, slots=True)
class Health:
    """`failed`: no decision can be made, as no camera or no engine works. `degraded`: something is amiss."""

    status: Literal["ok", "degraded", "failed"]
    clock: Literal["synced", "unsynced"]


@dataclass(frozen=True, slots=True)
class Services:
    """Handed in once, by whoever wires the daemon. Callables run on the event loop and answer at once."""

    people: People
    unknowns: Unknowns
    store: Records
    thread: StoreThread
    tokens: TokenReader
    views: Bus[FrameView]
    cameras: CameraControl
    health: Callable[[], Health]
    status: Callable[[], dict[str, Any]]
    pseudonym_key: bytes
    """Keys the hashes that stand for a person (`Database.secret`); without it nobody can tell whom a hash means."""
    on_viewers: Callable[[bool], None] = lambda _wanted: None
    """Told whether frames with pictures are watched, each time that it changes."""
    in_view: Callable[[], Sequence[InView]] = tuple
    """The faces now before the cameras."""
    config: Callable[[], Config] = Config
    """What is in force; it may change while the server runs."""
    reload: Callable[[str], Awaitable[Plan]] | None = None
    """Read the configuration anew, asked by somebody; None: nothing was read, so nothing can be."""
    clock: Clock = field(default_factory=SystemClock)

    async def role_of(self, token: str) -> Role | None:
        return await self.thread.run(self.tokens.role_of, token)


class Part(Protocol):
    def routes(self) -> list[Route]: ...


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. `role`: the least that a caller needs; None: nothing."""

    method: str
    path: str
    handler: Handler
    role: Role | None
    spec: Spec | None = None
    """What it says of itself; None: left out of the OpenAPI document."""
    socket: bool = False
    """A WebSocket or another stream: takes `?token=`, and only pages of the same origin may open it."""
