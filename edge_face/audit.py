"""The audit: what was decided and changed, as a chain of rows in which each hash covers all rows before.

A row is written in the transaction of what it tells of, so it is there exactly if that happened, also after a crash. It
holds numbers and ids of cameras and tokens, and no names: a person is the row number of `people`, which nothing leads
back from once the person is erased. Whoever can write the database can also write a whole new chain; that shows to
those who kept a head (`12345:hash`, in the log each day and in the status), so keep one elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import math
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

KEEP = 200_000
"""Rows, some 30 MB. The oldest are given up, a thousand at a time; the chain goes on from the last of them."""
STEP = 1000


@dataclass(frozen=True, slots=True)
class Head:
    """The last row: whoever knows it knows all before it."""

    n: int
    hash: bytes

    def __str__(self) -> str:
        return f"{self.n}:{self.hash.hex()}"


def parse_head(text: str) -> Head:
    """A head as it is printed. Raises ValueError."""
    number, _, digest = text.partition(":")
    return Head(int(number), bytes.fromhex(digest))


@dataclass(frozen=True, slots=True)
class Verdict:
    rows: int
    head: Head
    problem: str = ""
    """Empty: the chain is whole."""


def person(db: sqlite3.Connection, id: str | None) -> dict[str, int]:
    """How a row names a person; nothing where there is none."""
    row = db.execute("SELECT number FROM people WHERE id = ?", (id,)).fetchone() if id else None
    return {"person": row[0]} if row else {}


def note(db: sqlite3.Connection, at: float, what: str, data: Mapping[str, Any], *, keep: int = KEEP) -> None:
    """Add a row, in the caller's write transaction."""
    last = head(db)
    n, at, text = last.n + 1, round(at, 3), json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    db.execute("INSERT INTO audit VALUES (?, ?, ?, ?, ?)", (n, at, what, text, _hash(last.hash, n, at, what, text)))
    if n % STEP == 0:
        _shorten(db, n - keep)


def head(db: sqlite3.Connection) -> Head:
    query = "SELECT n, hash FROM audit ORDER BY n DESC LIMIT 1"
    return Head(*(db.execute(query).fetchone() or db.execute("SELECT n, hash FROM audit_base").fetchone()))


def rows(db: sqlite3.Connection, since: float | None = None, until: float | None = None) -> Iterator[dict[str, Any]]:
    """All rows of that time, oldest first, and who a person's number is, where that is still known."""
    query = (
        "SELECT audit.n, at, what, data, people.id FROM audit "
        "LEFT JOIN people ON number = json_extract(data, '$.person') WHERE at >= ? AND at < ? ORDER BY audit.n"
    )
    span = (-math.inf if since is None else since, math.inf if until is None else until)
    for n, at, what, data, person_id in db.execute(query, span):
        yield {"n": n, "at": at, "what": what, **json.loads(data), **({"person_id": person_id} if person_id else {})}


def span(db: sqlite3.Connection) -> tuple[int, int]:
    """The first row that is kept, and the last."""
    (base,) = db.execute("SELECT n FROM audit_base").fetchone()
    return base + 1, head(db).n


def rows_of(db: sqlite3.Connection, person_id: str, first: int, end: int) -> Iterator[dict[str, Any]]:
    """The rows about one person among those from `first` on, and before `end`."""
    query = (
        "SELECT n, at, what, data FROM audit WHERE n >= ? AND n < ? "
        "AND json_extract(data, '$.person') = (SELECT number FROM people WHERE id = ?) ORDER BY n"
    )
    for n, at, what, data in db.execute(query, (first, end, person_id)):
        yield {"n": n, "at": at, "what": what, **json.loads(data), "person_id": person_id}


def verify(db: sqlite3.Connection, known: Head | None = None) -> Verdict:
    """Recompute the chain; `known`: a head of earlier, which must be part of it.

    A crash leaves no half of a row, since SQLite undoes it; so what does not fit was altered.
    """
    base = Head(*db.execute("SELECT n, hash FROM audit_base").fetchone())
    last, count, met = base, 0, known is None or known == base
    for n, at, what, text, hash in db.execute("SELECT n, at, what, data, hash FROM audit ORDER BY n"):
        if n != last.n + 1:
            return Verdict(count, last, f"rows {last.n + 1} to {n - 1} are missing")
        if _hash(last.hash, n, at, what, text) != hash:
            return Verdict(count, last, f"row {n} was altered")
        last, count = Head(n, hash), count + 1
        met = met or last == known
    if known and not met:
        if known.n < base.n:
            return Verdict(
                count, last, f"row {known.n} was given up meanwhile; the oldest that is kept is {base.n + 1}"
            )
        what = "is missing: the end of the chain was cut off" if known.n > last.n else "is another one than it was"
        return Verdict(count, last, f"row {known.n} {what}")
    return Verdict(count, last)


def carry_over(old: sqlite3.Connection, db: sqlite3.Connection) -> bool:
    """Bring what came since into a database that was restored, so that a restore hides nothing that was decided.

    False where the restored chain is no part of the old one, or that is not whole.
    """
    last = head(db)
    if verify(old, last).problem:
        return False
    new = old.execute("SELECT n, at, what, data, hash FROM audit WHERE n > ? ORDER BY n", (last.n,))
    db.executemany("INSERT INTO audit VALUES (?, ?, ?, ?, ?)", new)
    return True


def _shorten(db: sqlite3.Connection, last: int) -> None:
    """Give up the rows up to that one."""
    row = db.execute("SELECT n, hash FROM audit WHERE n = ?", (last,)).fetchone()
    if row is not None:
        db.execute("UPDATE audit_base SET n = ?, hash = ?", row)
        db.execute("DELETE FROM audit WHERE n <= ?", (last,))


def _hash(before: bytes, n: int, at: float, what: str, text: str) -> bytes:
    return hashlib.sha256(before + json.dumps([n, at, what, text]).encode()).digest()
