"""Cameras over HTTP: how they are, the newest picture, pause and resume, and enrolling whoever is in view."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web

from edge_face.errors import ImageError
from edge_face.web import schema
from edge_face.web.people import PhotoWork, created, said_in
from edge_face.web.replies import reply
from edge_face.web.services import CameraControl, Route
from edge_face.web.spec import Spec

_LIST = Spec("The cameras", schema.CameraPage)
_SNAPSHOT = Spec("The newest frame, without anything drawn in", media=("image/jpeg",))
_PAUSE = Spec("Recognition off, until it is resumed", schema.Camera)
_RESUME = Spec("Recognition on", schema.Camera)
_ENROL = Spec(
    "Enrol the one face that is in view now",
    *(schema.Person, 201),
    form=schema.EnrolForm,
    body=schema.EnrolView,
    errors=(409, 422),
)
_BASE = "/api/v1/cameras"


class CamerasApi:
    def __init__(self, cameras: CameraControl, work: PhotoWork, max_age_s: Callable[[], float]) -> None:
        """`max_age_s`: an older frame is not "now"."""
        self._cameras = cameras
        self._work = work
        self._max_age_s = max_age_s

    def routes(self) -> list[Route]:
        return [
            Route("GET", _BASE, self.list, "viewer", _LIST),
            Route("GET", f"{_BASE}/{{id}}/snapshot.jpg", self.snapshot, "viewer", _SNAPSHOT),
            Route("POST", f"{_BASE}/{{id}}/pause", self.pause, "admin", _PAUSE),
            Route("POST", f"{_BASE}/{{id}}/resume", self.resume, "admin", _RESUME),
            Route("POST", f"{_BASE}/{{id}}/enroll", self.enrol, "admin", _ENROL),
        ]

    async def list(self, _request: web.Request) -> web.Response:
        return reply({"items": self._cameras.list(), "next_cursor": None})

    async def snapshot(self, request: web.Request) -> web.Response:
        picture = await self._cameras.picture(request.match_info["id"])
        return web.Response(body=picture.jpeg, content_type="image/jpeg")

    async def pause(self, request: web.Request) -> web.Response:
        return await self._switch(request.match_info["id"], paused=True)

    async def resume(self, request: web.Request) -> web.Response:
        return await self._switch(request.match_info["id"], paused=False)

    async def _switch(self, camera: str, *, paused: bool) -> web.Response:
        await self._cameras.pause(camera, paused)
        return reply(self._cameras.describe(camera))

    async def enrol(self, request: web.Request) -> web.Response:
        """The frame goes the way of an uploaded photo, so that the same is refused, and for the same reasons."""
        camera = request.match_info["id"]
        self._cameras.describe(camera)  # an unknown one is said before a form that is missing
        said = await said_in(request, schema.EnrolForm, schema.EnrolView)
        async with self._work.slots.taken():
            picture = await self._cameras.picture(camera)
            age_s = self._cameras.age_s(picture)
            if age_s > (allowed_s := self._max_age_s()):
                message = f"The newest frame is {age_s:.1f} s old; {allowed_s:g} s are allowed"
                raise ImageError(message, "stale")
            people = self._work.people
            person = await people.enrol(said.name, [picture.jpeg], said.external_id, force=said.force)
        return created(person)
