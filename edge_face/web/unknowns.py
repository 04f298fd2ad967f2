"""Unknown visitors over HTTP: list, enrol, ignore, erase. For admins only: these people were never asked."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from aiohttp import web

from edge_face.errors import RequestError, StoreError
from edge_face.events import Person
from edge_face.names import clean_group
from edge_face.people import People
from edge_face.store import Changes
from edge_face.unknowns import Unknowns
from edge_face.visitors import Visitor
from edge_face.web import schema
from edge_face.web.people import created, said_in
from edge_face.web.replies import reply
from edge_face.web.services import Route
from edge_face.web.spec import Spec, query_of

_log = logging.getLogger(__name__)

_LIST = Spec("Unknown visitors, who came last first", schema.UnknownPage, query=schema.UnknownsQuery)
_SHOW = Spec("An unknown visitor", schema.UnknownVisitor)
_FACE = Spec("A small picture of the face; none of those that are ignored", media=("image/jpeg",))
_ENROL = Spec(
    "Enrol an unknown visitor as a person, or add the face to one",
    *(schema.Person, 201),
    form=schema.EnrolUnknownForm,
    body=schema.EnrolUnknown,
    errors=(409, 422),
)
_IGNORE = Spec(
    "Ignore an unknown visitor, who is not listed again; or erase it",
    schema.UnknownVisitor,
    query=schema.DeleteUnknownQuery,
)
_BASE = "/api/v1/unknowns"


class UnknownsApi:
    def __init__(self, unknowns: Unknowns, people: People, *, keep_faces: bool) -> None:
        """`keep_faces`: whether the picture stays with the person."""
        self._unknowns = unknowns
        self._people = people
        self._keep_faces = keep_faces

    def routes(self) -> list[Route]:
        return [
            Route("GET", _BASE, self.list, "admin", _LIST),
            Route("GET", f"{_BASE}/{{id}}", self.show, "admin", _SHOW),
            Route("GET", f"{_BASE}/{{id}}/face.jpg", self.face, "admin", _FACE),
            Route("POST", f"{_BASE}/{{id}}", self.enrol, "admin", _ENROL),
            Route("DELETE", f"{_BASE}/{{id}}", self.remove, "admin", _IGNORE),
        ]

    async def list(self, request: web.Request) -> web.Response:
        query = query_of(request, schema.UnknownsQuery)
        page = await self._unknowns.page(query.limit, query.cursor, ignored=query.ignored)
        return reply({"items": [_payload(visitor) for visitor in page.items], "next_cursor": page.next_cursor})

    async def show(self, request: web.Request) -> web.Response:
        return reply(_payload(await self._unknowns.visitor(request.match_info["id"])))

    async def face(self, request: web.Request) -> web.Response:
        jpeg = await self._unknowns.picture(request.match_info["id"])
        return web.Response(body=jpeg, content_type="image/jpeg")

    async def remove(self, request: web.Request) -> web.Response:
        erase = query_of(request, schema.DeleteUnknownQuery).erase
        change = self._unknowns.erase if erase else self._unknowns.ignore
        return reply(_payload(await change(request.match_info["id"])))

    async def enrol(self, request: web.Request) -> web.Response:
        id = request.match_info["id"]
        await self._unknowns.visitor(id)  # an unknown one is said before a form that is missing
        said = await said_in(request, schema.EnrolUnknownForm, schema.EnrolUnknown)
        if (said.name is None) == (said.person_id is None):
            raise RequestError("Say either a name or a person_id.", "missing_field")
        if said.person_id is not None and (said.external_id is not None or said.group is not None):
            raise RequestError("external_id and group go with a name, not with a person_id.", "bad_field")
        async with self._unknowns.enrolling:
            person = await self._enrolled(id, said)
            try:
                await self._unknowns.forget([id])
            except StoreError as error:  # it goes as soon as the database can be written: it would pass now
                _log.error("an unknown visitor was enrolled and cannot be erased yet: %s", error)
        return created(person)

    async def _enrolled(self, id: str, said: schema.EnrolUnknownForm) -> Person:
        group = clean_group(said.group)  # before anybody is enrolled
        faces = await self._unknowns.faces(id)
        thumbnails: list[bytes | None] = [None] * len(faces)
        if self._keep_faces:
            thumbnails[0] = await self._unknowns.picture(id)
        if said.name is None:
            assert said.person_id is not None
            return await self._people.add_encodings(said.person_id, faces, thumbnails, force=said.force)
        person = await self._people.enrol_encodings(said.name, faces, said.external_id, thumbnails, force=said.force)
        return person if group is None else await self._people.update(person.id, Changes(group=group))


def _payload(visitor: Visitor) -> dict[str, Any]:
    body = dataclasses.asdict(visitor)
    return body if body.pop("clock_synced") else body | {"clock": "unsynced"}
