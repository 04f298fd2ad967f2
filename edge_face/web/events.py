"""Events over HTTP, as pages of JSON or as a file for an office."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from edge_face import export
from edge_face.database import StoreThread
from edge_face.journal import missed_payload
from edge_face.queries import parse_time
from edge_face.web import schema
from edge_face.web.exports import Exports, accepted_format
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


class EventsApi:
    def __init__(self, store: EventReader, thread: StoreThread, exports: Exports) -> None:
        self._store = store
        self._thread = thread
        self._exports = exports

    def routes(self) -> list[Route]:
        return [Route("GET", "/api/v1/events", self.list, "viewer", _LIST)]

    async def list(self, request: web.Request) -> web.Response:
        """A page of JSON, newest first. CSV and XLSX hold all that matches, unless `limit` says less."""
        query = query_of(request, schema.EventsQuery)
        kind = query.format or accepted_format(request)
        filters = filters_of(query)
        if kind == "json" or query.limit is not None or query.cursor is not None:
            size = query.limit or DEFAULT_LIMIT
            page = await self._thread.run(lambda: self._store.events(**filters, limit=size, cursor=query.cursor))
            if kind == "json":
                body = {"items": page.items, "next_cursor": page.next_cursor}
                missed = await self._thread.run(self._store.missed, filters["since"], filters["until"])
                return reply(body | ({"missed": [missed_payload(note) for note in missed]} if missed else {}))
            more = {"X-Next-Cursor": page.next_cursor} if page.next_cursor else {}
            return await self._exports.file("events", page.items, kind, export.EVENT_COLUMNS, more)
        return await self._exports.file("events", self._store.each_event(**filters), kind, export.EVENT_COLUMNS)


def filters_of(query: schema.AttendanceQuery) -> dict[str, Any]:
    """What the store is asked. Raises RequestError for a time that is none."""
    return {
        "since": parse_time(query.since, "since"),
        "until": parse_time(query.until, "until"),
        "status": query.status and query.status.upper(),
        "person": query.person,
        "camera": query.camera,
    }
