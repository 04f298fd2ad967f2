"""People over HTTP: list, enrol, remove, recognise. Thin over `edge_face.people.People`."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

from aiohttp import web
from msgspec import Struct, UnsetType

from edge_face import dossier, zips
from edge_face.errors import NotFoundError
from edge_face.events import Person
from edge_face.people import FileReport, People
from edge_face.queries import parse_time
from edge_face.store import Changes
from edge_face.web import schema
from edge_face.web.exports import Exports
from edge_face.web.forms import IMAGE, IMAGES, ZIP, Slots, check_again, memory_file, read_form
from edge_face.web.replies import reply
from edge_face.web.services import Route
from edge_face.web.spec import JSON, Spec, body_of, query_of, texts_of

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
_SHOW = Spec("A person and the enrolled faces", schema.PersonDetail)
_CHANGE = Spec(
    "Change a person: absent stays, null takes away", schema.PersonDetail, body=schema.PersonPatch, errors=(409,)
)
_ADD_FACES = Spec(
    "Add photos of a person; all or none",
    *(schema.PersonDetail, 201),
    form=schema.ForceForm,
    files=IMAGES,
    errors=(409,),
)
_THUMBNAIL = Spec("A small picture of an enrolled face, where such are kept", media=("image/jpeg",))
_EXPORT = Spec("All that is stored of a person: data, templates, pictures, history", media=("application/zip",))
_REMOVE_FACE = Spec("Erase one face", schema.PersonDetail)
_REMOVE = Spec("Erase a person", schema.Person)
_RECOGNISE = Spec("Who is in a still; makes no event", schema.Still, files=IMAGE)

F = TypeVar("F", bound=Struct)

AT_ONCE, WAITING = 4, 28
"""Requests with photos."""
_DIGITS = 19  # SQLite's numbers have 63 bits


class PhotoWork:
    """Requests with photos, a few at a time: one child reads them all, one after another."""

    def __init__(self, people: People) -> None:
        self.people = people
        self.slots = Slots(AT_ONCE, WAITING)
        self._zip_slots = Slots(at_once=1)

    async def enrol(self, request: web.Request) -> Person:
        """Enrol from a form with `name`, `image` (several), `external_id` and `force`."""
        async with self.slots.taken():
            form = await read_form(request, IMAGES)
            said = texts_of(form.texts, schema.EnrolForm)
            images = [upload.data for upload in form.files]
            return await self.people.enrol(said.name, images, said.external_id, force=said.force)

    async def add_faces(self, request: web.Request, person_id: str) -> Person:
        """Add faces from a form with `image` (several) and `force`."""
        async with self.slots.taken():
            form = await read_form(request, IMAGES)
            said = texts_of(form.texts, schema.ForceForm)
            return await self.people.add_faces(person_id, [upload.data for upload in form.files], force=said.force)

    async def enrol_zip(self, request: web.Request) -> list[FileReport]:
        """Enrol from a form with `zip` and `force`; a report for each file."""
        async with self._zip_slots.taken(), memory_file() as file:
            form = await read_form(request, ZIP, file)
            force = texts_of(form.texts, schema.ForceForm).force
            return [report async for report in self._reports(request, file, force=force)]

    async def _reports(self, request: web.Request, file: BinaryIO, *, force: bool) -> AsyncIterator[FileReport]:
        # Unpacked on a thread, since a photo takes long enough to hold up a decision.
        members = iter(await asyncio.to_thread(zips.Archive, file))
        while (member := await asyncio.to_thread(next, members, None)) is not None:
            await check_again(request)
            async for report in self.people.enrol_members([member], force=force):
                yield report


async def said_in(request: web.Request, form: type[F], body: type[F]) -> F:
    """What a request says as a form, or as JSON. Raises as `read_form`, `texts_of` and `body_of`."""
    if request.content_type == JSON:
        return await body_of(request, body)
    return texts_of((await read_form(request)).texts, form)


def created(person: Person) -> web.Response:
    return reply(dataclasses.asdict(person), 201, {"Location": f"/api/v1/people/{quote(person.id, safe='')}"})


class PeopleApi:
    def __init__(self, work: PhotoWork, store: dossier.Records, exports: Exports) -> None:
        self._work = work
        self._people = work.people
        self._store = store
        self._exports = exports

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/api/v1/people", self.list, "viewer", _LIST),
            Route("POST", "/api/v1/people", self.create, "admin", _CREATE),
            Route("POST", "/api/v1/people/batch", self.batch, "admin", _BATCH),
            Route("GET", "/api/v1/people/{id}", self.show, "viewer", _SHOW),
            Route("PATCH", "/api/v1/people/{id}", self.change, "admin", _CHANGE),
            Route("DELETE", "/api/v1/people/{id}", self.remove, "admin", _REMOVE),
            Route("POST", "/api/v1/people/{id}/faces", self.add_faces, "admin", _ADD_FACES),
            Route("GET", "/api/v1/people/{id}/export", self.export, "admin", _EXPORT),
            Route("GET", "/api/v1/people/{id}/faces/{face_id}/thumbnail.jpg", self.thumbnail, "viewer", _THUMBNAIL),
            Route("DELETE", "/api/v1/people/{id}/faces/{face_id}", self.remove_face, "admin", _REMOVE_FACE),
            Route("POST", "/api/v1/recognize", self.recognise, "admin", _RECOGNISE),
        ]

    async def list(self, request: web.Request) -> web.Response:
        query = query_of(request, schema.PeopleQuery)
        page = await self._people.list(query.q, query.limit, query.cursor)
        return reply({"items": [dataclasses.asdict(person) for person in page.items], "next_cursor": page.next_cursor})

    async def create(self, request: web.Request) -> web.Response:
        return created(await self._work.enrol(request))

    async def batch(self, request: web.Request) -> web.Response:
        """200 whatever became of the single files: the report is what was asked for."""
        reports = await self._work.enrol_zip(request)
        enrolled = sum(report.error is None for report in reports)
        items = [dataclasses.asdict(report) for report in reports]
        return reply({"items": items, "enrolled": enrolled, "refused": len(items) - enrolled, "total": len(items)})

    async def show(self, request: web.Request) -> web.Response:
        return await self._shown(request.match_info["id"])

    async def change(self, request: web.Request) -> web.Response:
        patch = await body_of(request, schema.PersonPatch)
        changes = Changes(
            name=patch.name,
            external_id=patch.external_id,
            group=patch.group,
            valid_from=_date(patch.valid_from, "valid_from"),
            valid_until=_date(patch.valid_until, "valid_until"),
            blocked=patch.blocked,
        )
        person = await self._people.update(request.match_info["id"], changes)
        return await self._shown(person.id)

    async def add_faces(self, request: web.Request) -> web.Response:
        person = await self._work.add_faces(request, request.match_info["id"])
        return await self._shown(person.id, 201)

    async def remove_face(self, request: web.Request) -> web.Response:
        person = await self._people.remove_face(request.match_info["id"], _face_id(request))
        return await self._shown(person.id)

    async def thumbnail(self, request: web.Request) -> web.Response:
        jpeg = await self._people.thumbnail(request.match_info["id"], _face_id(request))
        return web.Response(body=jpeg, content_type="image/jpeg")

    async def export(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        person, _ = await self._people.person(id)
        disposition = {"Content-Disposition": f'attachment; filename="{quote(person.id, safe="")}.zip"'}
        headers = {"Content-Type": "application/zip"} | disposition
        return await self._exports.written(lambda file: dossier.write(self._store, person.id, file), headers)

    async def _shown(self, id: str, status: int = 200) -> web.Response:
        person, faces = await self._people.person(id)
        return reply(dataclasses.asdict(person) | {"faces": [dataclasses.asdict(face) for face in faces]}, status)

    async def remove(self, request: web.Request) -> web.Response:
        # By id alone: a name that happens to be in the address must not erase anybody.
        return reply(dataclasses.asdict(await self._people.remove(request.match_info["id"], "id")))

    async def recognise(self, request: web.Request) -> web.Response:
        async with self._work.slots.taken():
            (upload,) = (await read_form(request, IMAGE)).files
            still = await self._people.recognise(upload.data)
        body: dict[str, Any] = {"file": upload.filename}
        return reply(body | still.payload())


def _face_id(request: web.Request) -> int:
    number = request.match_info["face_id"]
    if not (number.isascii() and number.isdecimal() and len(number) < _DIGITS):
        raise NotFoundError(f"There is no face {number}")
    return int(number)


def _date(value: str | float | UnsetType | None, what: str) -> float | UnsetType | None:
    return parse_time(value, what) if isinstance(value, str) else value
