"""Long lists in pages: cursors, and the filters that the lists of events and of attendance share."""

from __future__ import annotations

import base64
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypedDict, TypeVar, Unpack

from edge_face.errors import RequestError
from edge_face.names import key_text

READ_AT_ONCE = 500

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Part of a list; `next_cursor` asks for the rest and is None at the end."""

    items: list[T]
    next_cursor: str | None


class Filters(TypedDict, total=False):
    """`since` (included) and `until` (not included) are Unix seconds; `person` is an id or an exact name."""

    since: float | None
    until: float | None
    status: str | None
    person: str | None
    camera: str | None


class Listing(Protocol):
    """A list read a page at a time. `limit` None: all of it. Raises RequestError (`bad_cursor`)."""

    def __call__(
        self,
        *,
        limit: int | None = 100,
        cursor: str | None = None,
        newest_first: bool = True,
        **filters: Unpack[Filters],
    ) -> Page[dict[str, Any]]: ...


@dataclass(frozen=True, slots=True)
class Table:
    """A table that has the columns which `Filters` need, but for `status`, which may be any SQL expression."""

    name: str
    columns: str
    order: str
    """The column that rows are ordered by."""
    cursor: str
    """The letter of its cursors, so that one of another list is noticed."""
    status: str = "status"


def read_page(
    db: sqlite3.Connection,
    table: Table,
    build: Callable[[Sequence[Any]], T],
    filters: Filters,
    limit: int | None,
    cursor: str | None,
    newest_first: bool,
) -> Page[T]:
    """What matches; `build` makes an item from a row's columns. Raises RequestError (`bad_cursor`)."""
    wanted: dict[str, tuple[str, float | str | None]] = {
        "since": ("timestamp >= :since", filters.get("since")),
        "until": ("timestamp < :until", filters.get("until")),
        "status": (f"{table.status} = :status", filters.get("status")),
        "person": ("(person_id = :person OR name = :person)", filters.get("person")),
        "camera": ("camera = :camera", filters.get("camera")),
        "after": (f"{table.order} {'<' if newest_first else '>'} :after", after_of(cursor, table.cursor)),
    }
    values = {name: key_text(value) if isinstance(value, str) else value for name, (_, value) in wanted.items()}
    where = " AND ".join(sql for sql, value in wanted.values() if value is not None) or "true"
    order = f"{table.order} {'DESC' if newest_first else 'ASC'}"
    # Only constants are put together; every value is bound.
    query = f"SELECT {table.columns}, {table.order} FROM {table.name} WHERE {where} ORDER BY {order} LIMIT :rows"  # noqa: S608
    rows = db.execute(query, values | {"rows": rows_for(limit)}).fetchall()
    return page_of([(row[:-1], row[-1]) for row in rows], limit, table.cursor, build)


def each(listing: Listing, *, newest_first: bool = True, **filters: Unpack[Filters]) -> Iterator[dict[str, Any]]:
    """All of a list in small reads, so that an export fills no memory and holds up no daemon."""
    cursor: str | None = None
    while True:
        page = listing(limit=READ_AT_ONCE, cursor=cursor, newest_first=newest_first, **filters)
        yield from page.items
        cursor = page.next_cursor
        if cursor is None:
            return


def rows_for(limit: int | None) -> int:
    """How many rows to ask SQLite for: one more than the page, to know whether there is a next one; -1: all."""
    return -1 if limit is None else max(1, limit) + 1


def page_of(rows: Sequence[tuple[Any, Any]], limit: int | None, kind: str, build: Callable[[Any], T]) -> Page[T]:
    """A page from rows of (what to build the item from, its place in the order)."""
    size = len(rows) if limit is None else max(1, limit)
    items = [build(row[0]) for row in rows[:size]]
    place = None if len(rows) <= size else f"{kind}{rows[size - 1][1]}"
    return Page(items, None if place is None else base64.urlsafe_b64encode(place.encode("ascii")).decode("ascii"))


def after_of(cursor: str | None, kind: str) -> int | None:
    """The place that a cursor stands for. Raises RequestError for one that this list never gave."""
    if cursor is None:
        return None
    try:
        place = base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode("ascii")
    except ValueError:
        place = ""
    if not re.fullmatch(rf"{kind}[0-9]{{1,18}}", place):
        raise RequestError("The cursor is not one that this list gave", "bad_cursor")
    return int(place[1:])
