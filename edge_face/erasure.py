"""Erasing a person from a database: what is deleted, and what is kept without saying whom it was about."""

from __future__ import annotations

import hashlib
import sqlite3


def id_digest(id: str) -> str:
    """What is kept of a removed person's id, which is made from the name, so that nobody else is ever given it."""
    return hashlib.sha256(b"edge-face id " + id.encode()).hexdigest()[:32]


def erase_person(db: sqlite3.Connection, id: str) -> None:
    """The person, and by cascade the templates, pictures and data of other systems; then the history."""
    db.execute("DELETE FROM people WHERE id = ?", (id,))
    db.execute("INSERT OR IGNORE INTO retired_ids VALUES (?)", (id_digest(id),))
    erase_history(db, id)


def erase_history(db: sqlite3.Connection, id: str) -> None:
    """Events stay, as their numbers have no gaps, and say no more whose they were; attendance rows go."""
    db.execute("DELETE FROM attendance WHERE person_id = ?", (id,))
    db.execute(
        "UPDATE events SET person_id = NULL, name = NULL, "
        "payload = json_set(payload, '$.person_id', NULL, '$.name', NULL, '$.external_id', NULL) WHERE person_id = ?",
        (id,),
    )
