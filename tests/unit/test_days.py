"""Attendance by day."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from edge_face import pages
from edge_face.days import Days
from edge_face.errors import RequestError
from edge_face.store import Store
from tests.support.publishing import event

PARIS = ZoneInfo("Europe/Paris")


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def seen(store: Store, *visits: tuple[str, str]) -> None:
    for name, when in visits:
        store.record(event(name, timestamp=at(when)))


def rows(days: Days, **asked: Any) -> list[tuple[str, str, str, str, int]]:
    """Oldest first, unless told otherwise."""
    found = pages.each(days.page, **{"newest_first": False, **asked})
    return [(row["date"], row["name"], row["first"], row["last"], row["visits"]) for row in found]


def test_first_and_last_sight_of_each_day_and_person(store: Store) -> None:
    seen(
        store,
        ("Katya", "2026-03-28T22:59:59"),  # 23:59 in Paris
        ("Katya", "2026-03-28T23:00:00"),  # the next day there; summer time begins in its night
        ("Ivan", "2026-03-29T06:00:00"),
        ("Katya", "2026-03-29T21:59:59"),
        ("Ivan", "2026-03-29T22:00:00"),
    )
    store.record(event(None, timestamp=at("2026-03-29T12:00:00")))
    assert rows(Days(store, PARIS)) == [
        ("2026-03-28", "Katya", "2026-03-28T23:59:59+01:00", "2026-03-28T23:59:59+01:00", 1),
        ("2026-03-29", "Katya", "2026-03-29T00:00:00+01:00", "2026-03-29T23:59:59+02:00", 2),
        ("2026-03-29", "Ivan", "2026-03-29T08:00:00+02:00", "2026-03-29T08:00:00+02:00", 1),
        ("2026-03-30", "Ivan", "2026-03-30T00:00:00+02:00", "2026-03-30T00:00:00+02:00", 1),
    ]


def test_a_person_is_found_in_the_order_of_the_day_however_late_the_rows_came(store: Store) -> None:
    seen(store, ("Ivan", "2026-03-01T12:00:00"), ("Katya", "2026-03-01T08:00:00"), ("Ivan", "2026-03-01T07:00:00"))
    assert [row[1:4] for row in rows(Days(store, UTC))] == [
        ("Ivan", "2026-03-01T07:00:00+00:00", "2026-03-01T12:00:00+00:00"),
        ("Katya", "2026-03-01T08:00:00+00:00", "2026-03-01T08:00:00+00:00"),
    ]


@pytest.mark.parametrize("newest_first", [True, False])
def test_pages_hold_each_row_once(store: Store, newest_first: bool) -> None:
    seen(store, *((f"P{person}", f"2026-03-{day:02}T08:00:0{person}") for day in (1, 2, 5) for person in range(3)))
    days = Days(store, UTC)
    whole = [row["first"] for row in days.page(limit=None, newest_first=newest_first).items]
    assert len(whole) == 9
    assert whole[0][:10] == ("2026-03-05" if newest_first else "2026-03-01")
    paged, cursor = [], None
    for _ in range(5):
        page = days.page(limit=2, cursor=cursor, newest_first=newest_first)
        paged += [row["first"] for row in page.items]
        cursor = page.next_cursor
    assert (paged, cursor) == (whole, None)
    with pytest.raises(RequestError, match="cursor"):
        days.page(cursor="nonsense")


def test_filters(store: Store) -> None:
    seen(store, ("Katya", "2026-03-01T08:00:00"), ("Katya", "2026-03-01T12:00:00"), ("Ivan", "2026-03-02T08:00:00"))
    days = Days(store, UTC)
    assert [row[1] for row in rows(days, person="ivan")] == ["Ivan"]
    assert [row[3:] for row in rows(days, until=at("2026-03-01T12:00:00"))] == [("2026-03-01T08:00:00+00:00", 1)]
    assert [row[0] for row in rows(days, since=at("2026-03-01T12:00:00"))] == ["2026-03-01", "2026-03-02"]
    assert rows(days, since=at("2027-01-01T00:00:00")) == []


def test_nobody_was_there(store: Store) -> None:
    assert Days(store, None).page().items == []


def test_a_time_without_a_clock_is_of_no_day(store: Store) -> None:
    store.record(event("Katya", timestamp=5.0, clock_synced=False))
    seen(store, ("Ivan", "2026-03-02T08:00:00"))
    assert [row[1] for row in rows(Days(store, UTC))] == ["Ivan"]
