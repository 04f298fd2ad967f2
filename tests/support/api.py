"""The web server on a free port over a real store, with photos that were read beforehand."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np

from edge_face import settings
from edge_face.bus import Bus
from edge_face.clock import SystemClock
from edge_face.database import StoreThread
from edge_face.errors import CaptureError, ImageError, NotFoundError
from edge_face.events import (
    Box,
    Encoding,
    Event,
    Face,
    FrameResult,
    FrameView,
    InView,
    Match,
    Person,
    Quality,
    Snapshot,
    Verdict,
)
from edge_face.messages import PhotoResult
from edge_face.people import People, PhotoReader
from edge_face.roster import StoreRoster
from edge_face.store import Store
from edge_face.tokens import Tokens
from edge_face.unknowns import Unknowns
from edge_face.web.app import Health, Services
from edge_face.web.server import Server
from tests.support import publishing

KEY = b"k" * 32
SOI = b"\xff\xd8"
"""How a JPEG begins; a made-up photo may do so as well."""
QUALITY = Quality(size_px=100, sharpness=80.0, brightness=120.0, contrast=40.0, yaw=0.0, pitch=0.0, roll_deg=0.0)
STATUS: dict[str, Any] = {
    "node": "gate-1", "version": "1", "people": 2, "faces": 3, "uptime_s": 4.5, "clock": "synced",
    "cameras": [
        {
            "id": "front", "state": "ok", "paused": False, "frames": 10, "dropped": 1, "restarts": 2, "outgrown": 1,
            "memory_mib": 125.5, "decisions": {"match": 2},
            "latency_ms": {"p50": 80.0, "p95": 90.0, "p99": 95.0}, "stages_ms": {"detect": {"p50": 20.0}},
            "refused_backends": {"onnxruntime": "It returns no numbers."},
        }
    ],
    "sinks": {
        "mqtt": {
            "healthy": False, "delivered": 1, "expired": 2, "refused": 3, "retries": 4, "dropped": {"expired": 2},
            "capture_to_publish": {"count": 2, "sum_s": 0.3, "buckets": {"0.1": 1, "0.5": 2, "+Inf": 2}},
        }
    },
    "unknowns": {"kept": 2, "lost": 1, "gave_way": 0},
    "board": {
        "temperature_c": 51.5, "memory_mib": {"daemon": {"rss": 100.0, "pss": 80.0}}, "database_bytes": 4096,
    },
    "storage": {"state": "ok", "held": 0},
    "queues": {"mqtt": {"count": 5, "oldest_s": 6.0}},
}  # fmt: skip
KATYA = Person("katya", "Katya", "7")


def encoding(seed: int, view: int = 0) -> Encoding:
    """A made-up face: two of different seeds are far apart, two views of one about 0.3."""
    spread = np.random.default_rng([seed, view]).normal(0, 0.02, 128) if view else 0
    return (np.random.default_rng(seed).normal(0, 0.1, 128) + spread).astype(np.float32)


def face(seed: int, left: int = 10, width: int = 100) -> Face:
    return Face(Box(left, 20, left + width, 20 + width), 1.0, encoding(seed), QUALITY)


@dataclass
class PreparedPhotos:
    """Knows a few "photos" by their bytes: `face 3`, `face 3.1` (another view of it), `nobody`, `crowd`, `blurred`,
    `huge`, `heic`; anything else is no picture.
    """

    asked: int = 0
    thumbnail: bytes | None = None
    """What comes with each face."""

    at_once = 1

    async def analyse(self, data: bytes, rivals: float = 0.0) -> PhotoResult:
        self.asked += 1
        word, _, number = data.removeprefix(SOI).decode("latin-1").partition(" ")
        if word == "face":
            seed, _, look = number.partition(".")
            found = replace(face(int(seed)), encoding=encoding(int(seed), int(look or 0)), thumbnail=self.thumbnail)
            return PhotoResult(self.asked, 640, 480, (found,))
        if word == "nobody":
            return PhotoResult(self.asked, 640, 480)
        if word == "crowd":
            return PhotoResult(self.asked, 640, 480, (face(1), face(2, left=200)))
        if word == "blurred":
            return PhotoResult(self.asked, 640, 480, (replace(face(1), flaws=("it is blurred",)),))
        if word == "bug":
            raise ZeroDivisionError
        codes = {"huge": "too_large", "heic": "unsupported_format"}
        raise ImageError("This is not a picture.", codes.get(word, "bad_image"))


@dataclass
class PreparedCameras:
    """One camera, `front`, whose picture a test may change; None: it is lost."""

    jpeg: bytes | None = SOI + b"face 1"
    old_s: float = 0.0
    paused: bool = False

    def describe(self, camera: str) -> dict[str, Any]:
        if camera != "front":
            raise NotFoundError(f"There is no camera {camera}")
        return {"id": camera, "state": "ok" if self.jpeg else "lost", "detail": "", "paused": self.paused}

    async def picture(self, camera: str) -> Snapshot:
        self.describe(camera)
        if self.jpeg is None:
            raise CaptureError("It gives no pictures", "camera_lost")
        return Snapshot(self.jpeg, 0.0, 0.0)

    def age_s(self, _picture: Snapshot) -> float:
        return self.old_s

    async def pause(self, camera: str, paused: bool) -> None:
        self.describe(camera)
        self.paused = paused

    def list(self) -> list[dict[str, Any]]:
        return [self.describe("front")]


def view(number: int = 1, jpeg: bytes | None = b"\xff\xd8 picture") -> FrameView:
    """Katya, let in."""
    box = Box(120, 80, 240, 300)
    verdict = Verdict(box, 17, "PASS", "match", Match(KATYA, 0.4123, 0.21), KATYA, 3)
    result = FrameResult("front", number, 0, 5.0, 1736400000.0, 640, 480, (), {}, jpeg=jpeg)
    return FrameView("gate-1", result, (verdict,), 0.45, 1736400005.0, 87.2)


def event(timestamp: float, name: str = "Katya", status: str = "PASS", camera: str = "front") -> Event:
    """An event to be stored."""
    return publishing.event(name if status == "PASS" else None, timestamp=timestamp, camera=camera)


@dataclass
class Api:
    """A running server, and a client that says who it is."""

    server: Server
    session: aiohttp.ClientSession
    store: Store
    tokens: Tokens
    views: Bus[FrameView]
    admin: str
    viewer: str
    viewer_id: int
    health: Health
    cameras: PreparedCameras
    thread: StoreThread
    wanted: list[bool] = field(default_factory=list)
    """What `on_viewers` was told."""
    in_view: list[InView] = field(default_factory=list)
    """The faces now before the cameras."""

    @property
    def stream_url(self) -> str:
        return self.server.url.replace("http", "ws", 1) + "/ws/face-stream"

    async def ask(
        self, method: str, path: str, token: str | None = "admin", **options: Any
    ) -> tuple[int, Any, aiohttp.ClientResponse]:
        """Status, body (JSON, else bytes) and answer. `token`: `admin`, `viewer`, a token itself, or None."""
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {ROLES.get(token, lambda _api: token)(self)}"
        async with self.session.request(method, self.server.url + path, headers=headers, **options) as answer:
            body: Any = await answer.read()
            if answer.content_type == "application/json" and body:
                body = await answer.json()
            return answer.status, body, answer


ROLES: dict[str, Any] = {"admin": lambda api: api.admin, "viewer": lambda api: api.viewer}


def multipart(*fields: tuple[str, str | bytes]) -> aiohttp.FormData:
    """Bytes become files, text becomes fields."""
    form = aiohttp.FormData(default_to_multipart=True)
    for name, value in fields:
        if isinstance(value, bytes):
            form.add_field(name, io.BytesIO(value), filename=f"{name}.jpg", content_type="image/jpeg")
        else:
            form.add_field(name, value)
    return form


@asynccontextmanager
async def running(
    folder: Path, photos: PhotoReader | None = None, config: settings.Config | None = None
) -> AsyncIterator[Api]:
    clock = SystemClock()
    thread = StoreThread()
    store = Store(folder / "edge-face.db", clock)
    tokens = Tokens(store, clock)
    _, admin = tokens.new("admin")
    viewer_id, viewer = tokens.new("viewer")
    views: Bus[FrameView] = Bus()
    wanted: list[bool] = []
    cameras = PreparedCameras()
    in_view: list[InView] = []
    config = config or settings.Config(api=settings.Api(port=0))
    async with aiohttp.ClientSession() as session:
        services = Services(
            people=People(photos or PreparedPhotos(), StoreRoster(store, thread), config.decision),
            unknowns=Unknowns(store, thread, config, clock, lambda: True),
            store=store,
            thread=thread,
            tokens=tokens,
            views=views,
            cameras=cameras,
            health=lambda: api.health,
            status=lambda: STATUS,
            pseudonym_key=KEY,
            on_viewers=wanted.append,
            in_view=lambda: in_view,
            config=lambda: config,
        )
        server = Server(config, services)
        api = Api(
            *(server, session, store, tokens, views, admin, viewer, viewer_id, Health("ok", "synced"), cameras, thread),
            *(wanted, in_view),
        )
        try:
            await server.start()
            yield api
        finally:
            await server.stop()
            await thread.close()
            store.close()
