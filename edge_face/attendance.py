"""Who was there: a row for each visit that passed, and for each person identified in a picture sent to `/ws`.

Rows of events are made by the database itself (the triggers in migrations.py), so none can be forgotten. Those of
pictures are made here; they are no events, and open nothing.
"""

from __future__ import annotations

from typing import Any, Unpack

from edge_face.erasure import id_digest
from edge_face.events import Person, utc
from edge_face.outbox import EventStore
from edge_face.pages import Filters, Page, Table, read_page

_COLUMNS = "id, timestamp, source, camera, seq, person_id, name, external_id, clock_synced"
_ROWS = Table("attendance", _COLUMNS, order="id", cursor="a", status="'PASS'")


class AttendanceStore(EventStore):
    """The attendance rows beside the events."""

    def mark_attendance(self, person: Person, *, clock_synced: bool) -> None:
        """A row for somebody who was identified in an uploaded picture just now; none for who was erased since."""
        with self.writing() as db:
            db.execute(
                "INSERT INTO attendance (timestamp, source, person_id, name, external_id, boot_id, noted, clock_synced)"
                " SELECT ?, 'upload', ?, ?, ?, ?, ?, ? WHERE NOT EXISTS (SELECT 1 FROM retired_ids WHERE id = ?)",
                (
                    *(self._clock.wall(), person.id, person.name, person.external_id),
                    *(self._boot, self._clock.monotonic(), clock_synced, id_digest(person.id)),
                ),
            )

    def attendance(
        self,
        *,
        limit: int | None = 100,
        cursor: str | None = None,
        newest_first: bool = True,
        **filters: Unpack[Filters],
    ) -> Page[dict[str, Any]]:
        """Rows in the order in which they were noted. As everybody in the list has passed, `status` REJECT finds
        nobody. Raises RequestError (`bad_cursor`).
        """
        with self.reading_aside() as db:
            return read_page(db, _ROWS, lambda row: _payload(*row), filters, limit, cursor, newest_first)

    def attendance_time(self, since: float, until: float, *, latest: bool) -> float | None:
        """The time of the earliest or the latest row between, of those whose time is known; None: there is none."""
        which = "max" if latest else "min"
        query = f"SELECT {which}(timestamp) FROM attendance WHERE clock_synced AND timestamp >= ? AND timestamp < ?"  # noqa: S608
        with self.reading_aside() as db:
            found: float | None = db.execute(query, (since, until)).fetchone()[0]
        return found

    def purge(self, before: float, batch: int = 500) -> int:
        """Events, whose rows go with them, and as many rows of pictures; returns the larger number of the two."""
        events = super().purge(before, batch)
        old = "source = 'upload' AND clock_synced AND timestamp < :before"
        # A row of a time without a clock is as old as the next one whose time is known.
        undated = f"source = 'upload' AND NOT clock_synced AND id < (SELECT max(id) FROM attendance WHERE {old})"  # noqa: S608
        with self.writing() as db:
            query = f"SELECT id FROM attendance WHERE {{}} ORDER BY id LIMIT {int(batch)}"  # noqa: S608  # constants
            rows = db.execute(query.format(undated), {"before": before}).fetchall()
            rows = rows or db.execute(query.format(old), {"before": before}).fetchall()
            db.executemany("DELETE FROM attendance WHERE id = ?", rows)
        return max(events, len(rows))

    def date_events(self) -> int:
        dated = super().date_events()
        query = "UPDATE attendance SET timestamp = ? + noted, clock_synced = 1 WHERE boot_id = ? AND NOT clock_synced"
        with self.writing() as db:
            return dated + db.execute(query, (self._clock.wall() - self._clock.monotonic(), self._boot)).rowcount


def _payload(
    id: int,
    timestamp: float,
    source: str,
    camera: str | None,
    seq: int | None,
    person_id: str | None,
    name: str | None,
    external_id: str | None,
    clock_synced: int,
) -> dict[str, Any]:
    """A row as it is shown everywhere."""
    body = {
        "id": id,
        "name": name,
        "person_id": person_id,
        "external_id": external_id,
        "status": "PASS",
        "source": source,
        "camera": camera,
        "seq": seq,
        "timestamp": round(timestamp, 3),
        "time": utc(timestamp),
    }
    return body if clock_synced else body | {"clock": "unsynced"}
