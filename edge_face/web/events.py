"""Events over HTTP, as pages of JSON or as a file for an office."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterable, Mapping
from typing import IO, Any

from aiohttp import web

from edge_face import export
from edge_face.database import StoreThread
from edge_face.errors import StoreError
from edge_face.journal import missed_payload
from edge_face.queries import parse_time
from edge_face.web import schema
from edge_face.web.forms import Slots
from edge_face.web.replies import reply
from edge_face.web.services import EventReader, Route
from edge_face.web.spec import Spec, query_of

DEFAULT_LIMIT = 100
_LIST = Spec(
    "Events, newest first",
    schema.EventPage,
    query=schema.EventsQuery,
    media=(export.MEDIA_TYPES["csv"], export.MEDIA_TYPES["xlsx"]),
)

_FORMATS: Mapping[str, export.Format] = {"json": "json", "csv": "csv", "xlsx": "xlsx"}
_OF_MEDIA_TYPE = {export.MEDIA_TYPES[kind].partition(";")[0]: kind for kind in _FORMATS.values()}


class EventsApi:
    def __init__(self, store: EventReader, thread: StoreThread) -> None:
        self._store = store
        self._thread = thread
        self._exports = Slots(at_once=1, waiting=4)

    def routes(self) -> list[Route]:
        return [Route("GET", "/api/v1/events", self.list, "viewer", _LIST)]

    async def list(self, request: web.Request) -> web.Response:
        """A page of JSON, newest first. CSV and XLSX hold all that matches, unless `limit` says less."""
        query = query_of(request, schema.EventsQuery)
        kind = query.format or accepted_format(request)
        filters = _filters(query)
        if kind == "json" or query.limit is not None or query.cursor is not None:
            size = query.limit or DEFAULT_LIMIT
            page = await self._thread.run(lambda: self._store.events(**filters, limit=size, cursor=query.cursor))
            if kind == "json":
                body = {"items": page.items, "next_cursor": page.next_cursor}
                missed = await self._thread.run(self._store.missed, filters["since"], filters["until"])
                return reply(body | ({"missed": [missed_payload(note) for note in missed]} if missed else {}))
            more = {"X-Next-Cursor": page.next_cursor} if page.next_cursor else {}
            return await self._file(page.items, kind, more)
        return await self._file(self._store.each_event(**filters), kind, {})

    async def _file(
        self, rows: Iterable[Mapping[str, Any]], kind: export.Format, headers: Mapping[str, str]
    ) -> web.Response:
        async with self._exports.taken():
            # Not on the store's thread: writing takes long, and reads a little at a time.
            try:
                file = await asyncio.to_thread(_written, rows, kind)
            except OSError as error:  # a full /tmp, say
                reason = (error.strerror or "no room").lower()
                raise StoreError(f"A file of events cannot be written: {error}", reason=reason) from error
        disposition = {"Content-Disposition": f'attachment; filename="events.{kind}"'}
        return web.Response(body=file, headers={"Content-Type": export.MEDIA_TYPES[kind]} | disposition | dict(headers))


def _written(rows: Iterable[Mapping[str, Any]], kind: export.Format) -> IO[bytes]:
    """The rows in a file without a name, since a year of them may not fit into memory. aiohttp closes it."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  # it is handed on open
    try:
        export.write(rows, kind, file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def _filters(query: schema.EventsQuery) -> dict[str, Any]:
    return {
        "since": parse_time(query.since, "since"),
        "until": parse_time(query.until, "until"),
        "status": query.status and query.status.upper(),
        "person": query.person,
        "camera": query.camera,
    }


def accepted_format(request: web.Request) -> export.Format:
    """The first known type of `Accept`, else JSON."""
    media_types = (part.partition(";")[0].strip().lower() for part in request.headers.get("Accept", "").split(","))
    return next((_OF_MEDIA_TYPE[media] for media in media_types if media in _OF_MEDIA_TYPE), "json")
