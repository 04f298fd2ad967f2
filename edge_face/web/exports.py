"""Lists as files for an office: which format is asked for, and how such a file is made and sent."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, BinaryIO

from aiohttp import web

from edge_face import export
from edge_face.database import StoreThread
from edge_face.errors import StoreError
from edge_face.pages import Filters, Listing, each
from edge_face.queries import parse_time
from edge_face.web import schema
from edge_face.web.forms import Slots
from edge_face.web.replies import reply
from edge_face.web.spec import query_of

DEFAULT_LIMIT = 100

_FORMATS: Mapping[str, export.Format] = {"json": "json", "csv": "csv", "xlsx": "xlsx"}
_OF_MEDIA_TYPE = {export.MEDIA_TYPES[kind].partition(";")[0]: kind for kind in _FORMATS.values()}

Rows = Iterable[Mapping[str, Any]]


class Exports:
    """Makes one file at a time, whichever list it is of."""

    def __init__(self, thread: StoreThread) -> None:
        self._thread = thread
        self._slots = Slots(at_once=1, waiting=4)
        self._pages = Slots(at_once=1, waiting=60)

    async def page_or_file(
        self,
        request: web.Request,
        name: str,
        listing: Listing,
        columns: Sequence[export.Column],
        beside: Callable[[Filters], Mapping[str, Any]] = lambda _filters: {},
    ) -> web.Response:
        """A page of JSON, newest first. CSV and XLSX hold all that matches, unless `limit` says less.

        `beside` is asked on the store's thread for what else the JSON holds.
        """
        query = query_of(request, schema.EventsQuery)
        kind = query.format or accepted_format(request)
        filters = filters_of(query)
        if kind != "json" and query.limit is None and query.cursor is None:
            return await self.file(name, each(listing, **filters), kind, columns)
        size = query.limit or DEFAULT_LIMIT
        async with self._pages.taken():
            page = await self._thread.aside(lambda: listing(**filters, limit=size, cursor=query.cursor))
        if kind == "json":
            body = {"items": page.items, "next_cursor": page.next_cursor}
            return reply(body | dict(await self._thread.run(beside, filters)))
        more = {"X-Next-Cursor": page.next_cursor} if page.next_cursor else {}
        return await self.file(name, page.items, kind, columns, more)

    async def file(
        self,
        name: str,
        rows: Rows,
        kind: export.Format,
        columns: Sequence[export.Column],
        headers: Mapping[str, str] | None = None,
    ) -> web.Response:
        """A file to save, called `name` and the format's ending."""
        disposition = {"Content-Disposition": f'attachment; filename="{name}.{kind}"'}
        return await self.body(rows, kind, columns, disposition | dict(headers or {}))

    async def body(
        self, rows: Rows, kind: export.Format, columns: Sequence[export.Column], headers: Mapping[str, str]
    ) -> web.Response:
        """All rows as they are read, so that a year of them fills no memory. Raises Refusal (429), StoreError."""
        return await self.written(
            lambda file: export.write(rows, kind, file, columns),
            {"Content-Type": export.MEDIA_TYPES[kind]} | dict(headers),
        )

    async def written(self, write: Callable[[BinaryIO], object], headers: Mapping[str, str]) -> web.Response:
        """What `write` writes, on a thread. Raises Refusal (429), StoreError, and what `write` raises."""
        async with self._slots.taken():
            try:
                file = await self._thread.aside(_written, write)
            except OSError as error:  # a full /tmp, say
                reason = (error.strerror or "no room").lower()
                raise StoreError(f"A file cannot be written: {error}", reason=reason) from error
        return web.Response(body=file, headers=headers)


def _written(write: Callable[[BinaryIO], object]) -> BinaryIO:
    """A file without a name, since a year of rows may not fit into memory. aiohttp closes it."""
    file = tempfile.TemporaryFile()  # noqa: SIM115  # it is handed on open
    try:
        write(file)
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


def filters_of(query: schema.AttendanceQuery) -> Filters:
    """What the store is asked. Raises RequestError for a time that is none."""
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
