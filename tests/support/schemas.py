"""Databases as earlier versions wrote them."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path

from edge_face.migrations import MIGRATIONS, migrate

OLD_EVENT = {"type": "face_event", "id": "of long ago", "seq": 1, "status": "PASS", "person_id": "eileen"}


def make_older(database: Path) -> None:
    """A database as an early version wrote it, with who is enrolled now, and an event of then."""
    owner = database.stat()
    with closing(sqlite3.connect(database)) as db:
        (person,) = db.execute("SELECT id, name, created_at FROM people").fetchall()
        (face,) = db.execute("SELECT person_id, encoding, created_at FROM templates").fetchall()
    for file in database.parent.glob(f"{database.name}*"):
        if file.is_file():
            file.unlink()
    with closing(sqlite3.connect(database, isolation_level=None)) as db:
        migrate(db, MIGRATIONS[:5])
        db.execute("INSERT INTO people (id, name, created_at) VALUES (?, ?, ?)", person)
        db.execute("INSERT INTO templates (person_id, encoding, created_at) VALUES (?, ?, ?)", face)
        row = (1, time.time() - 86_400, "front", "PASS", "eileen", "Eileen", json.dumps(OLD_EVENT), "a boot", 1.0)
        columns = "seq, timestamp, camera, status, person_id, name, payload, boot_id, decided"
        db.execute(f"INSERT INTO events ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        db.execute("UPDATE counters SET value = 1 WHERE name = 'seq'")
    os.chown(database, owner.st_uid, owner.st_gid)
    database.chmod(0o600)


def schema(database: Path) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])
