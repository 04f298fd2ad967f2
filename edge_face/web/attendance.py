"""Attendance over HTTP: a page or a file as with events, and the plain list that an older project's clients read."""

from __future__ import annotations

from aiohttp import web

from edge_face import export
from edge_face.database import StoreThread
from edge_face.web import schema
from edge_face.web.events import DEFAULT_LIMIT, filters_of
from edge_face.web.exports import Exports, accepted_format
from edge_face.web.replies import reply
from edge_face.web.services import AttendanceReader, Route
from edge_face.web.spec import Spec, query_of

_LIST = Spec(
    "Attendance, newest first: visits that passed, and people in pictures sent to /ws",
    schema.AttendancePage,
    query=schema.EventsQuery,
    media=(export.MEDIA_TYPES["csv"], export.MEDIA_TYPES["xlsx"]),
)
_ALL = Spec("All attendance rows, oldest first", list[schema.AttendanceRow], query=schema.AttendanceQuery)


class AttendanceApi:
    def __init__(self, store: AttendanceReader, thread: StoreThread, exports: Exports) -> None:
        self._store = store
        self._thread = thread
        self._exports = exports

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/api/v1/attendance", self.list, "viewer", _LIST),
            Route("GET", "/student_attendance", self.all, "viewer", _ALL),
        ]

    async def list(self, request: web.Request) -> web.Response:
        """A page of JSON, newest first. CSV and XLSX hold all that matches, unless `limit` says less."""
        query = query_of(request, schema.EventsQuery)
        kind = query.format or accepted_format(request)
        filters = filters_of(query)
        if kind == "json" or query.limit is not None or query.cursor is not None:
            size = query.limit or DEFAULT_LIMIT
            page = await self._thread.run(lambda: self._store.attendance(**filters, limit=size, cursor=query.cursor))
            if kind == "json":
                return reply({"items": page.items, "next_cursor": page.next_cursor})
            more = {"X-Next-Cursor": page.next_cursor} if page.next_cursor else {}
            return await self._exports.file("attendance", page.items, kind, export.ATTENDANCE_COLUMNS, more)
        rows = self._store.each_attendance(**filters)
        return await self._exports.file("attendance", rows, kind, export.ATTENDANCE_COLUMNS)

    async def all(self, request: web.Request) -> web.Response:
        filters = filters_of(query_of(request, schema.AttendanceQuery))
        rows = self._store.each_attendance(**filters, newest_first=False)
        return await self._exports.body(rows, "json", export.ATTENDANCE_COLUMNS, {})
