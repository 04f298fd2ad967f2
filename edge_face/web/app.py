"""The application: all routes, and the one place where errors and access are dealt with."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from edge_face import prometheus, settings
from edge_face.bus import Wants
from edge_face.days import Days
from edge_face.errors import ConfigError, EdgeFaceError
from edge_face.pages import Page
from edge_face.painter import Painter
from edge_face.queries import zone_of
from edge_face.reload import Plan
from edge_face.web import dropin, schema
from edge_face.web.apidocs import ApiDocs
from edge_face.web.attendance import AttendanceApi
from edge_face.web.auth import Guard
from edge_face.web.cameras import CamerasApi
from edge_face.web.dropin import DropIn
from edge_face.web.events import EventsApi
from edge_face.web.exports import Exports
from edge_face.web.login import LoginApi
from edge_face.web.mjpeg import MJPEG, Mjpeg
from edge_face.web.people import PeopleApi, PhotoWork
from edge_face.web.replies import Refusal, error_reply, refusal, reply
from edge_face.web.services import Health, Part, Route, Services
from edge_face.web.spec import Spec
from edge_face.web.stream import FrameStream
from edge_face.web.unknowns import UnknownsApi
from edge_face.web.uploads import Uploads

__all__ = ["GUARD", "STREAM", "Health", "Services", "build_app", "build_legacy_app"]

_log = logging.getLogger(__name__)

GUARD = web.AppKey("guard", Guard)
STREAM = web.AppKey("stream", FrameStream)

_HEALTH = Spec("Whether decisions can be made", Health, others={503: Health})
_STATUS = Spec("Cameras, engine, queues, versions, latencies", dict[str, Any])
_METRICS = Spec("The same for Prometheus", media=(prometheus.CONTENT_TYPE.partition(";")[0],))

_RELOAD = Spec("Read the configuration anew", schema.Reloaded, others={422: schema.ConfigRefused})

_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Server": "edge-face"}


def build_app(services: Services, config: settings.Config) -> web.Application:
    """Everything on the one port."""
    guard = Guard(services.role_of, config.api.host, services.clock)
    wants = Wants(services.on_viewers)
    stream = FrameStream(services.views, wants.of("stream"), guard.still_valid)
    painter = Painter(lambda: services.config().stream.jpeg_quality)
    mjpeg = Mjpeg(services.views, wants.of("mjpeg"), guard.still_valid, services.status, painter)
    work = PhotoWork(services.people)
    uploads = Uploads(work, services, guard.still_valid)
    exports = Exports(services.thread)

    def days(**query: Any) -> Page[dict[str, Any]]:
        return Days(services.store, zone_of(services.config().attendance.timezone)).page(**query)

    parts: tuple[Part, ...] = (
        StatusApi(services),
        ReloadApi(services.reload),
        LoginApi(guard, services),
        PeopleApi(work, services.store, exports),
        UnknownsApi(services.unknowns, services.people, keep_faces=config.storage.keep_faces),
        CamerasApi(services.cameras, work, lambda: services.config().decision.max_age),
        EventsApi(services.store, exports),
        AttendanceApi(services.store, days, exports),
        stream,
        guard.tickets,
        uploads,
        mjpeg,
        DropIn(work, services),
    )
    routes = [route for part in parts for route in part.routes()]
    app = _application(guard, stream, routes + ApiDocs(routes).routes(), stream.close, uploads.close, mjpeg.close)
    app[MJPEG] = mjpeg
    return app


def build_legacy_app(app: web.Application) -> web.Application:
    """The second port: the same stream, and nothing else."""
    return _application(app[GUARD], app[STREAM], app[STREAM].routes(), app[STREAM].close)


class StatusApi:
    def __init__(self, services: Services) -> None:
        self._services = services

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/healthz", self.health, None, _HEALTH),
            Route("HEAD", "/healthz", self.health, None),
            Route("GET", "/api/v1/status", self.status, "viewer", _STATUS),
            Route("GET", "/metrics", self.metrics, "viewer", _METRICS),
        ]

    async def health(self, _request: web.Request) -> web.Response:
        health = self._services.health()
        return reply({"status": health.status, "clock": health.clock}, 503 if health.status == "failed" else 200)

    async def status(self, _request: web.Request) -> web.Response:
        return reply(self._services.status())

    async def metrics(self, _request: web.Request) -> web.Response:
        text = prometheus.exposition(self._services.status())
        return web.Response(body=text, headers={"Content-Type": prometheus.CONTENT_TYPE})


class ReloadApi:
    """The configuration read anew, as by SIGHUP."""

    def __init__(self, reload: Callable[[str], Awaitable[Plan]] | None) -> None:
        self._reload = reload

    def routes(self) -> list[Route]:
        return [Route("POST", "/api/v1/reload", self.reload, "admin", _RELOAD)]

    async def reload(self, _request: web.Request) -> web.Response:
        if self._reload is None:
            raise Refusal(503, "not_ready", "There is no configuration to be read anew.")
        try:
            return reply((await self._reload("the API")).payload())
        except ConfigError as error:
            said = {"error": error.code, "message": error.message, "problems": error.problems}
            return reply(said, 422)


def _application(
    guard: Guard, stream: FrameStream, routes: Iterable[Route], *closes: Callable[[], Awaitable[None]]
) -> web.Application:
    """`closes` end what would otherwise go on for ever."""
    known: dict[web.AbstractRoute, Route] = {}
    app = web.Application(middlewares=[_door(guard, known)])
    app[GUARD], app[STREAM] = guard, stream
    for route in routes:
        known[app.router.add_route(route.method, route.path, route.handler)] = route

    async def close_streams(_app: web.Application) -> None:
        await asyncio.gather(*(close() for close in closes))

    app.on_shutdown.append(close_streams)
    return app


def _door(guard: Guard, known: dict[web.AbstractRoute, Route]) -> Middleware:
    """Every request passes here, also those for which there is no route."""

    @web.middleware
    async def door(request: web.Request, handler: Handler) -> web.StreamResponse:
        route = known.get(request.match_info.route)
        try:
            await guard.admit(request, route)
            response = await handler(request)
        except (EdgeFaceError, web.HTTPException) as error:
            response = _refused(request, refusal(error, request))
        except Exception:
            # The path as declared: what the caller wrote may hold a token, or line ends.
            _log.exception("%s %s failed", request.method, route.path if route else "(no route)")
            response = _refused(request, Refusal(500, "internal", "Something went wrong here; the log says what."))
        if not response.prepared:
            response.headers.update(_HEADERS)
        return response

    return door


def _refused(request: web.Request, error: Refusal) -> web.Response:
    return error_reply(error, drop_in=request.path in dropin.PATHS)
