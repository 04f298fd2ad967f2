"""Events over HTTP, as pages of JSON or as a file for an office."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from edge_face import export
from edge_face.journal import missed_payload
from edge_face.pages import Filters
from edge_face.web import schema
from edge_face.web.exports import Exports
from edge_face.web.services import Lists, Route
from edge_face.web.spec import Spec

_LIST = Spec(
    "Events, newest first",
    schema.EventPage,
    query=schema.EventsQuery,
    media=(export.MEDIA_TYPES["csv"], export.MEDIA_TYPES["xlsx"]),
)


class EventsApi:
    def __init__(self, store: Lists, exports: Exports) -> None:
        self._store = store
        self._exports = exports

    def routes(self) -> list[Route]:
        return [Route("GET", "/api/v1/events", self.list, "viewer", _LIST)]

    async def list(self, request: web.Request) -> web.Response:
        return await self._exports.page_or_file(
            request, "events", self._store.events, export.EVENT_COLUMNS, self._missed
        )

    def _missed(self, filters: Filters) -> dict[str, Any]:
        missed = self._store.missed(filters["since"], filters["until"])
        return {"missed": [missed_payload(note) for note in missed]} if missed else {}
