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
from edge_face.web import schema
from edge_face.web.forms import IMAGE, IMAGES, ZIP, Form, Slots, read_form
from edge_face.web.replies import reply
from edge_face.web.services import Route
from edge_face.web.spec import Spec, query_of, texts_of

_LIST = Spec("People, in the order of enrolment", schema.PersonPage, query=schema.PeopleQuery)
_CREATE = Spec(
    "Enrol a person, or add photos to one; all photos or none",
    *(schema.Person, 201),
    form=schema.EnrolForm,
    files=IMAGES,
    errors=(409,),
)
_BATCH = Spec(
    "Enrol from a ZIP of NAME.jpg or NAME/1.jpg; a bad file never stops the rest",
    schema.BatchReport,
    form=schema.ForceForm,
    files=ZIP,
)
_REMOVE = Spec("Erase a person", schema.Person)
_RECOGNISE = Spec("Who is in a still; makes no event", schema.Still, files=IMAGE)


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
            said = texts_of(form.texts, schema.EnrolForm)
            images = [upload.data for upload in form.files]
            return await self.people.enrol(said.name, images, said.external_id, force=said.force)

    async def enrol_zip(self, request: web.Request) -> list[FileReport]:
        """Enrol from a form with `zip` and `force`; a report for each file."""
        async with self._zip_slots.taken():
            form = await read_form(request, ZIP)
            return [report async for report in self._reports(form)]

    async def _reports(self, form: Form) -> AsyncIterator[FileReport]:
        force = texts_of(form.texts, schema.ForceForm).force
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
            Route("GET", "/api/v1/people", self.list, "viewer", _LIST),
            Route("POST", "/api/v1/people", self.create, "admin", _CREATE),
            Route("POST", "/api/v1/people/batch", self.batch, "admin", _BATCH),
            Route("DELETE", "/api/v1/people/{id}", self.remove, "admin", _REMOVE),
            Route("POST", "/api/v1/recognize", self.recognise, "admin", _RECOGNISE),
        ]

    async def list(self, request: web.Request) -> web.Response:
        query = query_of(request, schema.PeopleQuery)
        page = await self._people.list(query.q, query.limit, query.cursor)
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
