"""Events and what is still to be delivered of them, written together so that neither exists without the other."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from edge_face import audit
from edge_face.clock import Clock, boot_id
from edge_face.database import BUSY_TIMEOUT_S, Database
from edge_face.erasure import erase_history, id_digest
from edge_face.errors import StoreError
from edge_face.events import Event
from edge_face.pages import Filters, Page, Table, read_page
from edge_face.vault import Unreadable, Vault

ON_ITS_WAY_S = 0.1
"""To a receiver in the local network, its broker included. What has less time left (of a short life a tenth) counts as
expired: a connection that comes back just before the end must not let an event arrive after it."""
OUTBOX_LIMIT = 10_000
"""Rows kept for one target. A day at a busy gate, and some megabytes."""

_EVENTS = Table("events", columns="payload", order="seq", cursor="e")


@dataclass(frozen=True, slots=True)
class Target:
    """Where an event is to go. `deadline`: seconds of `Clock.monotonic`; None: history, which never expires."""

    name: str
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class OutboxItem:
    """One delivery that is still to be made."""

    target: str
    seq: int
    payload: dict[str, Any]
    deadline: float | None
    """Seconds of `Clock.monotonic`; None: never. Of an earlier boot: 0, which is over in every boot."""
    expired: bool
    """As it was when the item was read; ask `time_left` again just before sending."""

    @property
    def lifetime_s(self) -> float:
        """From the grab to the end."""
        return float(self.payload["expires_at"] - self.payload["timestamp"])

    def time_left(self, now: float) -> float | None:
        """Seconds in which it may be sent live; 0: none, it would arrive expired; None: without limit."""
        if self.deadline is None:
            return None
        left = self.deadline - now
        return left if left > min(ON_ITS_WAY_S, self.lifetime_s / 10) else 0.0


@dataclass(frozen=True, slots=True)
class Backlog:
    count: int
    age_s: float
    """Of the oldest event."""


@dataclass(frozen=True, slots=True)
class Missed:
    """Numbers that were given, and may have been told, while the disk could not be written; history lacks them."""

    first_seq: int
    last_seq: int
    since: float
    until: float
    """Unix seconds, as the wall clock went."""
    reason: str


@dataclass(eq=False, slots=True)
class HeldEvent:
    """An event that could not be stored yet: numbered, and perhaps delivered already."""

    event: Event
    decided: float
    """Seconds of `Clock.monotonic`."""
    targets: dict[str, float | None]
    """Deliveries that are still to be made, with their deadlines."""


class EventStore(Database):
    """The events' half of the store."""

    def __init__(
        self, path: Path, clock: Clock, *, outbox_limit: int = OUTBOX_LIMIT, boot: str = "", template_key: str = ""
    ) -> None:
        """`boot` names the present boot; empty: the kernel's own. `template_key`: see vault.py."""
        super().__init__(path)
        self._vault = Vault(template_key)
        self._clock = clock
        self._boot = boot or boot_id()
        self._outbox_limit = outbox_limit

    def _decrypted(self, data: bytes, seal: bytes | None, *place: object) -> bytes:
        """Raises StoreError."""
        try:
            return self._vault.get(data, seal, *place)
        except Unreadable as error:
            raise StoreError(f"What is stored of a face cannot be read: {error}") from None

    def record(self, event: Event, targets: Sequence[Target] = (), *, wait_s: float = BUSY_TIMEOUT_S) -> Event:
        """Number the event, keep it and queue its deliveries, all or nothing. Returns it with its seq."""
        with self.writing(wait_s) as db:
            (seq,) = db.execute("UPDATE counters SET value = value + 1 WHERE name = 'seq' RETURNING value").fetchone()
            numbered = event.numbered(seq)
            deadlines = {target.name: target.deadline for target in targets}
            self._insert(db, HeldEvent(numbered, self._clock.monotonic(), deadlines))
        return numbered

    def _insert(self, db: sqlite3.Connection, held: HeldEvent) -> None:
        event, body = held.event, held.event.payload()
        bar = self._bar(db, event)
        db.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                event.seq,
                body["timestamp"],
                event.camera,
                event.status,
                event.person_id,
                event.name,
                json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")),
                self._boot,
                held.decided,
                event.clock_synced,
            ),
        )
        decision = {"seq": event.seq, "camera": event.camera, "status": event.status, "reason": event.reason}
        audit.note(db, self._clock.wall(), "decision", decision | audit.person(db, event.person_id))
        for target, deadline in held.targets.items():
            if deadline is not None and bar:
                continue
            db.execute(
                "INSERT INTO outbox (target, seq, boot_id, deadline) VALUES (?, ?, ?, ?)",
                (target, event.seq, self._boot, deadline),
            )
            self._bound(db, target)
        if bar == "removed" and event.person_id:
            erase_history(db, event.person_id)

    def last_seq(self) -> int:
        """The last number that was given, as far as the database knows."""
        with self.reading() as db:
            return int(db.execute("SELECT value FROM counters WHERE name = 'seq'").fetchone()[0])

    def catch_up(
        self,
        last_seq: int,
        held: Sequence[HeldEvent],
        settled: Collection[tuple[str, int]],
        drops: Mapping[tuple[str, str], int],
        missed: tuple[float, float, str],
        *,
        wait_s: float,
    ) -> Missed | None:
        """Write down at once what happened while nothing could be written; all or nothing.

        Events in `held` are kept, deliveries in `settled` (target, seq) are over, `drops` counts those given up. What
        is neither stored nor held, up to `last_seq`, is noted as missed, with the time and the reason in `missed`;
        returns that note.
        """
        with self.writing(wait_s) as db:
            (stored,) = db.execute("SELECT value FROM counters WHERE name = 'seq'").fetchone()
            last_missed = held[0].event.seq - 1 if held else last_seq
            note = Missed(stored + 1, last_missed, *missed) if last_missed > stored else None
            if note:
                values = (note.first_seq, note.last_seq, note.since, note.until, note.reason)
                db.execute("INSERT INTO missed VALUES (?, ?, ?, ?, ?)", values)
                audit.note(db, self._clock.wall(), "missed", {"first_seq": note.first_seq, "last_seq": note.last_seq})
            db.executemany("DELETE FROM outbox WHERE target = ? AND seq = ?", settled)
            for late in held:
                self._insert(db, late)
            for (target, reason), count in drops.items():
                _count_drops(db, target, reason, count)
            db.execute("UPDATE counters SET value = max(value, ?) WHERE name = 'seq'", (last_seq,))
        return note

    def missed(self, since: float | None = None, until: float | None = None, limit: int = 100) -> list[Missed]:
        """What history lacks of that time (Unix seconds), newest first."""
        query = "SELECT * FROM missed WHERE until >= ? AND since < ? ORDER BY first_seq DESC LIMIT ?"
        span = (-math.inf if since is None else since, math.inf if until is None else until)
        with self.reading() as db:
            return [Missed(*row) for row in db.execute(query, (*span, limit))]

    def bar(self, event: Event) -> str | None:
        """Why the event must not go out live: its person was `removed` or `blocked` since it was decided."""
        with self.reading() as db:
            return self._bar(db, event)

    def _bar(self, db: sqlite3.Connection, event: Event) -> str | None:
        if db.execute("SELECT 1 FROM retired_ids WHERE id = ?", (id_digest(event.person_id or ""),)).fetchone():
            return "removed"
        # Who was in time when it was decided, which is later than the event's own date and earlier than now, stays so.
        query = (
            "SELECT 1 FROM people WHERE id = :id AND "
            "(blocked OR coalesce(valid_from > :now, 0) OR coalesce(valid_until <= :date, 0))"
        )
        values = {"id": event.person_id, "now": self._clock.wall(), "date": event.timestamp}
        return "blocked" if event.status == "PASS" and db.execute(query, values).fetchone() else None

    def recall_live(self, db: sqlite3.Connection, person_id: str, reason: str, status: str | None = None) -> None:
        """Of a person who is being removed or blocked nothing (of that status) goes out live any more; history stays.

        `dropped` counts it as `reason`.
        """
        theirs = "SELECT seq FROM events WHERE person_id = ? AND status = ifnull(?, status)"
        live = f"deadline IS NOT NULL AND seq IN ({theirs})"
        query = f"SELECT target, count(*) FROM outbox WHERE {live} GROUP BY target"  # noqa: S608  # a constant
        for target, count in db.execute(query, (person_id, status)).fetchall():
            _count_drops(db, target, reason, count)
        db.execute(f"DELETE FROM outbox WHERE {live}", (person_id, status))  # noqa: S608  # the same constant

    def recent_passes(self, span_s: float) -> list[tuple[str, str, float]]:
        """Camera, person id and time (seconds of `Clock.monotonic`) of each person's last PASS in that span.

        Only of this boot: the times of another cannot be compared, and its visits are over.
        """
        with self.reading() as db:
            return db.execute(
                "SELECT camera, person_id, max(decided) FROM events WHERE status = 'PASS' AND boot_id = ? "
                "AND decided > ? AND person_id IS NOT NULL GROUP BY camera, person_id",
                (self._boot, self._clock.monotonic() - span_s),
            ).fetchall()

    def _bound(self, db: sqlite3.Connection, target: str) -> None:
        """The oldest rows give way: after a long outage the newest events matter most."""
        first_too_old = "SELECT seq FROM outbox WHERE target = ? ORDER BY seq DESC LIMIT 1 OFFSET ?"
        row = db.execute(first_too_old, (target, self._outbox_limit)).fetchone()
        if row is not None:
            gone = db.execute("DELETE FROM outbox WHERE target = ? AND seq <= ?", (target, row[0])).rowcount
            _count_drops(db, target, "full", gone)

    def pending(self, target: str, skip: Collection[int] = (), *, live_only: bool = False) -> OutboxItem | None:
        """The oldest delivery that the target still has to get; None: all done.

        `skip`: numbers to leave out; `live_only`: no expired ones either.
        """
        query = (
            "SELECT seq, payload, deadline, outbox.boot_id FROM outbox JOIN events USING (seq) WHERE target = ? "
            "AND seq NOT IN (SELECT value FROM json_each(?)) AND (NOT ? OR (outbox.boot_id = ? AND deadline > ?)) "
            "ORDER BY seq LIMIT 1"
        )
        values = (target, json.dumps(list(skip)), live_only, self._boot, self._clock.monotonic())
        with self.reading() as db:
            row = db.execute(query, values).fetchone()
        if row is None:
            return None
        seq, payload, deadline, boot = row
        if deadline is not None and boot != self._boot:
            deadline = 0.0  # two boots' clocks cannot be compared, and the time spent in between is unknown
        expired = deadline is not None and self._clock.monotonic() >= deadline
        return OutboxItem(target, seq, json.loads(payload), deadline, expired)

    def done(self, target: str, seq: int, *, wait_s: float = BUSY_TIMEOUT_S) -> None:
        """The target has it."""
        with self.writing(wait_s) as db:
            db.execute("DELETE FROM outbox WHERE target = ? AND seq = ?", (target, seq))

    def drop(self, target: str, seq: int, reason: str, *, wait_s: float = BUSY_TIMEOUT_S) -> None:
        """Give this delivery up (`expired`, `parked`, ...); `dropped` counts it."""
        with self.writing(wait_s) as db:
            gone = db.execute("DELETE FROM outbox WHERE target = ? AND seq = ?", (target, seq)).rowcount
            _count_drops(db, target, reason, gone)

    def dropped(self) -> dict[str, dict[str, int]]:
        """Target to reason to how many deliveries were given up, since the database was made."""
        counts: dict[str, dict[str, int]] = {}
        with self.reading() as db:
            for target, reason, count in db.execute("SELECT target, reason, count FROM drops ORDER BY 1, 2"):
                counts.setdefault(target, {})[reason] = count
        return counts

    def backlog(self) -> dict[str, Backlog]:
        """What waits, for each target that has anything waiting."""
        with self.reading() as db:
            rows = db.execute(
                "SELECT target, waiting, timestamp, decided, boot_id FROM "
                "(SELECT target, count(*) AS waiting, min(seq) AS seq FROM outbox GROUP BY target) "
                "JOIN events USING (seq) ORDER BY target"
            ).fetchall()
        now, date = self._clock.monotonic(), self._clock.wall()
        return {
            target: Backlog(count, max(0.0, now - decided if boot == self._boot else date - timestamp))
            for target, count, timestamp, decided, boot in rows
        }

    def forget_targets(self, keep: Collection[str]) -> int:
        """Remove the deliveries and counts of targets that are no longer configured. Returns how many deliveries."""
        kept = json.dumps(sorted(keep))
        with self.writing() as db:
            db.execute("DELETE FROM drops WHERE target NOT IN (SELECT value FROM json_each(?))", (kept,))
            forgotten = db.execute("DELETE FROM outbox WHERE target NOT IN (SELECT value FROM json_each(?))", (kept,))
            return forgotten.rowcount

    def events(
        self,
        *,
        limit: int | None = 100,
        cursor: str | None = None,
        newest_first: bool = True,
        **filters: Unpack[Filters],
    ) -> Page[dict[str, Any]]:
        """Events as they were sent, by seq. Raises RequestError (`bad_cursor`)."""
        with self.reading_aside() as db:
            return read_page(db, _EVENTS, lambda row: json.loads(row[0]), filters, limit, cursor, newest_first)

    def purge(self, before: float, batch: int = 500) -> int:
        """Delete up to `batch` events older than `before` (Unix seconds); returns how many. Call until it is fewer.

        An event of a time without a synchronised clock is as old as the next one whose time is known. Retention is a
        promise about personal data, so it also ends a delivery that a target never accepted; those are counted as
        dropped. Numbers are not used again. Not to be called while the wall clock is not synchronised.
        """
        with self.writing() as db:
            old = "clock_synced AND timestamp < :before"
            # The undated first: what is dated tells their age, and must still be there for the next batch.
            undated = f"NOT clock_synced AND seq < (SELECT max(seq) FROM events WHERE {old})"  # noqa: S608
            found: list[int] = []
            for which in (f"{undated} ORDER BY seq", f"{old} ORDER BY timestamp"):
                query = f"SELECT seq FROM events WHERE {which} LIMIT :batch"  # noqa: S608  # constants
                values = {"before": before, "batch": batch - len(found)}
                found += [row[0] for row in db.execute(query, values)]
            seqs = json.dumps(found)
            undelivered = "SELECT target, count(*) FROM outbox WHERE seq IN (SELECT value FROM json_each(?)) GROUP BY 1"
            for target, count in db.execute(undelivered, (seqs,)).fetchall():
                _count_drops(db, target, "retention", count)
            db.execute("DELETE FROM missed WHERE until < ?", (before,))
            db.execute("DELETE FROM outbox WHERE seq IN (SELECT value FROM json_each(?))", (seqs,))
            return db.execute("DELETE FROM events WHERE seq IN (SELECT value FROM json_each(?))", (seqs,)).rowcount

    def date_events(self) -> int:
        """Now that the wall clock is right: give this boot's events of before their time; returns how many.

        For searching and retention. What was told, and is kept as it was told, does not change.
        """
        with self.writing() as db:
            date = "UPDATE events SET timestamp = ? + decided, clock_synced = 1 WHERE boot_id = ? AND NOT clock_synced"
            return db.execute(date, (self._clock.wall() - self._clock.monotonic(), self._boot)).rowcount


def _count_drops(db: sqlite3.Connection, target: str, reason: str, count: int) -> None:
    if count:
        db.execute(
            "INSERT INTO drops VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
            (target, reason, count),
        )
