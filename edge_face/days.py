"""Attendance by day: when each person was first and last seen, and how often."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, datetime, tzinfo
from itertools import islice
from typing import Any, Protocol, Unpack

from edge_face.pages import Filters, Listing, Page, after_of, each, page_of, rows_for
from edge_face.queries import day_span

_PLACES = 1_000_000
"""More than the people of a day: a row's place is its day's number times this, and its number within the day."""


class AttendanceRows(Protocol):
    @property
    def attendance(self) -> Listing: ...

    def attendance_time(self, since: float, until: float, *, latest: bool) -> float | None: ...


class Days:
    """Reads a day at a time, so that years fill no memory. Rows of a time without a clock belong to no day."""

    def __init__(self, store: AttendanceRows, zone: tzinfo | None) -> None:
        self._store = store
        self._zone = zone

    def page(
        self,
        *,
        limit: int | None = 100,
        cursor: str | None = None,
        newest_first: bool = True,
        **filters: Unpack[Filters],
    ) -> Page[dict[str, Any]]:
        """A row for each person and day, by day and first sight. Raises RequestError (`bad_cursor`)."""
        after = after_of(cursor, "d")
        rows = self._rows(None if after is None else divmod(after, _PLACES), newest_first, filters)
        return page_of(list(islice(rows, None if limit is None else rows_for(limit))), limit, "d", lambda row: row)

    def _rows(
        self, after: tuple[int, int] | None, newest_first: bool, filters: Filters
    ) -> Iterator[tuple[dict[str, Any], int]]:
        """Each row and its place."""
        for day in self._days(newest_first, filters):
            number = day.toordinal()
            if after and number != after[0] and (number > after[0]) == newest_first:
                continue
            shown = after[1] + 1 if after and number == after[0] else 0
            for index, row in enumerate(self._of(day, filters)[shown:], shown):
                yield row, number * _PLACES + index

    def _days(self, newest_first: bool, filters: Filters) -> Iterator[date]:
        """Those with a row. Each is found by one look into the index, so an empty year costs nothing."""
        since, until = filters.get("since"), filters.get("until")
        since, until = -math.inf if since is None else since, math.inf if until is None else until
        while (at := self._store.attendance_time(since, until, latest=newest_first)) is not None:
            day = datetime.fromtimestamp(at, self._zone).date()
            yield day
            begin, end = day_span(day, self._zone)
            since, until = (since, min(until, begin)) if newest_first else (max(since, end), until)

    def _of(self, day: date, filters: Filters) -> list[dict[str, Any]]:
        begin, end = day_span(day, self._zone)
        within: Filters = {
            **filters,
            "since": max(begin, filters.get("since") or begin),
            "until": min(end, filters.get("until") or end),
        }
        visits: dict[str, list[dict[str, Any]]] = {}
        for row in each(self._store.attendance, newest_first=False, **within):
            if "clock" not in row:
                visits.setdefault(row["person_id"] or row["name"], []).append(row)
        found = [self._row(day, sorted(rows, key=_timestamp)) for rows in visits.values()]
        return sorted(found, key=lambda row: (row["first_timestamp"], row["name"]))

    def _row(self, day: date, rows: list[dict[str, Any]]) -> dict[str, Any]:
        first, last = _timestamp(rows[0]), _timestamp(rows[-1])
        return {
            "date": day.isoformat(),
            **{key: rows[-1][key] for key in ("name", "person_id", "external_id")},
            "first": self._local(first),
            "last": self._local(last),
            "visits": len(rows),
            "first_timestamp": first,
            "last_timestamp": last,
        }

    def _local(self, timestamp: float) -> str:
        """With the zone's offset: 2026-01-31T08:00:01+01:00."""
        return datetime.fromtimestamp(timestamp, self._zone).astimezone(self._zone).isoformat(timespec="seconds")


def _timestamp(row: dict[str, Any]) -> float:
    return float(row["timestamp"])
