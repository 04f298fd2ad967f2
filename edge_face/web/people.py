"""People over HTTP: list, enrol, remove, recognise. Thin over `edge_face.people.People`."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

from aiohttp import web

from edge_face import zips
from edge_face.events import Person
from edge_face.people import FileReport, People
from edge_face.queries import parse_limit
from edge_face.web.forms import IMAGE, IMAGES, ZIP, Form, Slots, read_form
from edge_face.web.replies import reply
from edge_face.web.services import Route


class PhotoWork:
    """Requests with photos, a few at a time: one child reads them all, one after another."""

    def __init__(self, people: People) -> None:
        self.people = people
        self.slots = Slots(at_once=4, waiting=28)
        self._zip_slots = Slots(at_once=1)

    async def enrol(self, request: web.Request) -> Person:
        """Enrol from a form with `name`, `image` (several), `external_id` and `force`."""
        async with self.slots.taken():
            form = await read_form(request, IMAGES)
            images = [upload.data for upload in form.files]
            return await self.people.enrol(
                form.text("name"), images, form.texts.get("external_id"), force=form.flag("force")
            )

    async def enrol_zip(self, request: web.Request) -> list[FileReport]:
        """Enrol from a form with `zip` and `force`; a report for each file."""
        async with self._zip_slots.taken():
            form = await read_form(request, ZIP)
            return [report async for report in self._reports(form)]

    async def _reports(self, form: Form) -> AsyncIterator[FileReport]:
        force = form.flag("force")
        # Unpacked on a thread, since a photo takes long enough to hold up a decision.
        members = iter(await asyncio.to_thread(zips.Archive, form.files[0].data))
        while (member := await asyncio.to_thread(next, members, None)) is not None:
            async for report in self.people.enrol_members([member], force=force):
                yield report


class PeopleApi:
    def __init__(self, work: PhotoWork) -> None:
        self._work = work
        self._people = work.people

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/api/v1/people", self.list, "viewer"),
            Route("POST", "/api/v1/people", self.create, "admin"),
            Route("POST", "/api/v1/people/batch", self.batch, "admin"),
            Route("DELETE", "/api/v1/people/{id}", self.remove, "admin"),
            Route("POST", "/api/v1/recognize", self.recognise, "admin"),
        ]

    async def list(self, request: web.Request) -> web.Response:
        query = request.query
        page = await self._people.list(query.get("q"), parse_limit(query.get("limit")), query.get("cursor"))
        return reply({"items": [dataclasses.asdict(person) for person in page.items], "next_cursor": page.next_cursor})

    async def create(self, request: web.Request) -> web.Response:
        person = await self._work.enrol(request)
        return reply(dataclasses.asdict(person), 201, {"Location": f"/api/v1/people/{quote(person.id, safe='')}"})

    async def batch(self, request: web.Request) -> web.Response:
        """200 whatever became of the single files: the report is what was asked for."""
        reports = await self._work.enrol_zip(request)
        enrolled = sum(report.error is None for report in reports)
        items = [dataclasses.asdict(report) for report in reports]
        return reply({"items": items, "enrolled": enrolled, "refused": len(items) - enrolled, "total": len(items)})

    async def remove(self, request: web.Request) -> web.Response:
        # By id alone: a name that happens to be in the address must not erase anybody.
        return reply(dataclasses.asdict(await self._people.remove(request.match_info["id"], "id")))

    async def recognise(self, request: web.Request) -> web.Response:
        async with self._work.slots.taken():
            (upload,) = (await read_form(request, IMAGE)).files
            still = await self._people.recognise(upload.data)
        body: dict[str, Any] = {"file": upload.filename}
        return reply(body | still.payload())
