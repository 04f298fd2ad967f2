"""Attendance over HTTP: a page or a file as with events, and the plain list that an older project's clients read."""

from __future__ import annotations

from aiohttp import web

from edge_face import export
from edge_face.pages import Listing, each
from edge_face.web import schema
from edge_face.web.exports import Exports, filters_of
from edge_face.web.services import Lists, Route
from edge_face.web.spec import Spec, query_of

_LIST = Spec(
    "Attendance, newest first: visits that passed, and people in pictures sent to /ws",
    schema.AttendancePage,
    query=schema.EventsQuery,
    media=(export.MEDIA_TYPES["csv"], export.MEDIA_TYPES["xlsx"]),
)
_DAYS = Spec(
    "Attendance by day, newest first: each person's first and last sight",
    schema.AttendanceDayPage,
    query=schema.EventsQuery,
    media=(export.MEDIA_TYPES["csv"], export.MEDIA_TYPES["xlsx"]),
)
_ALL = Spec("All attendance rows, oldest first", list[schema.AttendanceRow], query=schema.AttendanceQuery)


class AttendanceApi:
    def __init__(self, store: Lists, days: Listing, exports: Exports) -> None:
        """`days`: the list by day."""
        self._store = store
        self._days = days
        self._exports = exports

    def routes(self) -> list[Route]:
        return [
            Route("GET", "/api/v1/attendance", self.list, "viewer", _LIST),
            Route("GET", "/api/v1/attendance/days", self.list_days, "viewer", _DAYS),
            Route("GET", "/student_attendance", self.all, "viewer", _ALL),
        ]

    async def list(self, request: web.Request) -> web.Response:
        return await self._exports.page_or_file(
            request, "attendance", self._store.attendance, export.ATTENDANCE_COLUMNS
        )

    async def list_days(self, request: web.Request) -> web.Response:
        return await self._exports.page_or_file(request, "attendance-days", self._days, export.DAY_COLUMNS)

    async def all(self, request: web.Request) -> web.Response:
        filters = filters_of(query_of(request, schema.AttendanceQuery))
        rows = each(self._store.attendance, newest_first=False, **filters)
        return await self._exports.body(rows, "json", export.ATTENDANCE_COLUMNS, {})
