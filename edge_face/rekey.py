"""Another key for what is encrypted in a database (vault.py), or the first one, or none any more.

In the database it is one transaction; then file and log are written anew, and the daily backups, so that nothing stays
behind that the old key, or no key, can read. What was cut off in the middle is finished by doing the same again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from edge_face.errors import TemplateKeyError
from edge_face.vault import FACE_PLACE, FACES, Unreadable, Vault, mark_of, named, set_mark

_TABLES = (
    ("templates", "id", "encoding", f"SELECT {FACE_PLACE} FROM {FACES} WHERE templates.id = ?"),  # noqa: S608  # constants
    (
        *("thumbnails", "face_id", "jpeg"),
        "SELECT 'thumbnail', face_id, person_id FROM thumbnails JOIN templates ON id = face_id WHERE face_id = ?",
    ),
    ("unknowns", "id", "encodings", "SELECT 'unknown', id FROM unknowns WHERE id = ?"),
    ("unknown_pictures", "id", "jpeg", "SELECT 'unknown picture', id FROM unknown_pictures WHERE id = ?"),
)
"""Table, key, what is encrypted; its place."""


def convert(
    db: sqlite3.Connection, old: Vault, new: Vault, note: Callable[[sqlite3.Connection], object] = lambda _db: None
) -> int:
    """Encrypt all of a copy of a database, or of one that nobody else writes; returns how many could not be read.

    These stay as they are. `note`: written in the same transaction. Raises TemplateKeyError; sqlite3.Error.
    """
    unread = 0
    db.execute("BEGIN IMMEDIATE")
    try:
        mark = mark_of(db)
        if mark not in (old.mark, new.mark):
            raise TemplateKeyError(f"The templates are encrypted with {named(mark)}, and not with {named(old.mark)}")
        if mark != new.mark:
            unread = sum(_convert(db, old, new, *table) for table in _TABLES)
            set_mark(db, new.mark)
            note(db)
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
    db.execute("VACUUM")  # the rest of a page may still hold what was there before
    return unread


def _convert(db: sqlite3.Connection, old: Vault, new: Vault, table: str, key: str, column: str, place: str) -> int:
    unread = 0
    for (id,) in db.execute(f"SELECT {key} FROM {table}").fetchall():  # noqa: S608  # constants, here and below
        data, seal = db.execute(f"SELECT {column}, seal FROM {table} WHERE {key} = ?", (id,)).fetchone()  # noqa: S608
        bound = db.execute(place, (id,)).fetchone()
        try:
            data, seal = new.put(old.get(data, seal, *bound), *bound)
        except Unreadable:
            unread += 1
        else:
            db.execute(f"UPDATE {table} SET {column} = ?, seal = ? WHERE {key} = ?", (data, seal, id))  # noqa: S608
    return unread
