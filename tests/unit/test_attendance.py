"""Attendance rows: with their events, also late ones, and of pictures."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Unpack

import pytest

from edge_face import pages
from edge_face.errors import RequestError
from edge_face.events import Person
from edge_face.journal import Journal
from edge_face.migrations import MIGRATIONS, migrate
from edge_face.store import Store
from tests.support import publishing
from tests.support.clock import HandClock
from tests.unit.test_journal import full

IVAN = Person("ivan", "Ivan", "42")


def rows(store: Store) -> list[tuple[str, str, int | None]]:
    """Oldest first."""
    return [(row["name"], row["source"], row["seq"]) for row in pages.each(store.attendance, newest_first=False)]


def test_a_visit_that_passed_is_a_row_and_a_rejected_one_is_not(store: Store) -> None:
    store.record(publishing.event("Katya", external_id="7", timestamp=1000.0))
    store.record(publishing.event(None))
    assert store.attendance().items == [
        {
            "id": 1, "name": "Katya", "person_id": "katya", "external_id": "7", "status": "PASS", "source": "camera",
            "camera": "front", "seq": 1, "timestamp": 1000.0, "time": "1970-01-01T00:16:40.000Z",
        }
    ]  # fmt: skip


def test_no_row_without_its_event(store: Store) -> None:
    with suppress(RuntimeError), store.writing() as db:
        db.execute("INSERT INTO events VALUES (9, 1.0, 'front', 'PASS', 'katya', 'Katya', '{}', 'boot', 1.0, 1)")
        assert db.execute("SELECT count(*) FROM attendance").fetchone() == (1,)
        raise RuntimeError
    assert rows(store) == []


def test_a_full_disk_delays_rows_and_loses_none(store: Store, clock: HandClock, tmp_path: Path) -> None:
    journal = Journal(store, clock, memory=tmp_path)
    long_id = "x" * 5000  # needs a page of its own
    journal.record(publishing.event("Katya", id=long_id))
    with full(store):
        for name in ("Ivan", None, "Olga"):
            journal.record(publishing.event(name, id=long_id))
        assert [row[0] for row in rows(store)] == ["Katya"]
    assert journal.recover()
    assert rows(store) == [("Katya", "camera", 1), ("Ivan", "camera", 2), ("Olga", "camera", 4)]


def test_filters_and_pages(store: Store, clock: HandClock) -> None:
    for at, name, camera in ((1000, "Katya", "front"), (2000, "Ivan", "back"), (3000, "Katya", "back")):
        store.record(publishing.event(name, timestamp=float(at), camera=camera))
    clock.date = 4000.0
    store.mark_attendance(IVAN, clock_synced=True)

    def found(**filters: Unpack[pages.Filters]) -> list[float]:
        return [row["timestamp"] for row in pages.each(store.attendance, **filters)]

    assert found() == [4000, 3000, 2000, 1000]
    assert found(since=2000.0, until=4000.0) == [3000, 2000]
    assert found(person="katya") == found(person="Katya") == [3000, 1000]
    assert found(camera="back") == [3000, 2000]
    assert found(status="PASS") == found()
    assert found(status="REJECT") == []
    page = store.attendance(limit=3)
    assert len(page.items) == 3
    assert [row["timestamp"] for row in store.attendance(limit=3, cursor=page.next_cursor).items] == [1000]
    with pytest.raises(RequestError):
        store.attendance(cursor="nonsense")


def test_rows_without_a_clock_are_dated_later(store: Store, clock: HandClock) -> None:
    clock.now, clock.date = 100.0, 5.0
    store.record(publishing.event("Katya", timestamp=5.0, clock_synced=False))
    store.mark_attendance(IVAN, clock_synced=False)
    assert [row["clock"] for row in store.attendance().items] == ["unsynced"] * 2
    clock.now, clock.date = 110.0, 1_700_000_010.0
    store.date_events()
    assert [(row["timestamp"], row.get("clock")) for row in store.attendance().items] == [(1_700_000_000.0, None)] * 2


def test_retention_ends_rows_of_both_kinds(store: Store, clock: HandClock) -> None:
    clock.date = 1000.0
    store.mark_attendance(IVAN, clock_synced=False)
    for at in (1000.0, 2000.0, 3000.0):
        clock.date = at
        store.record(publishing.event("Katya", timestamp=at))
        store.mark_attendance(IVAN, clock_synced=True)
    while store.purge(2500.0, batch=1):
        pass
    assert [row["timestamp"] for row in store.attendance().items] == [3000, 3000]


def test_an_older_database_has_its_rows_after_the_update(tmp_path: Path, clock: HandClock) -> None:
    path = tmp_path / "old.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        migrate(db, MIGRATIONS[:2])
        for seq, status in ((1, "PASS"), (2, "REJECT")):
            db.execute(
                "INSERT INTO events VALUES (?, 1000.0, 'front', ?, 'katya', 'Katya', ?, 'boot', 1.0, 1)",
                (seq, status, '{"external_id": "7"}'),
            )
    store = Store(path, clock)
    assert [(row["seq"], row["external_id"]) for row in store.attendance().items] == [(1, "7")]
    store.close()


def test_whoever_was_erased_while_the_picture_was_read_leaves_no_row(store: Store) -> None:
    person = store.add_faces("Katya", [])
    store.remove("Katya")
    store.mark_attendance(person, clock_synced=True)
    assert rows(store) == []
