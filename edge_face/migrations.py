"""The database's tables, as ordered steps. A step that was released is never edited: a change is a new step."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from edge_face.erasure import id_digest

APPLICATION_ID = 0x0EDFACE1
"""Marks the file as ours (SQLite header, `PRAGMA application_id`), so that nobody else's database is ever altered."""

MIGRATIONS: tuple[str, ...] = (
    # 1: people and their templates, events and what is still to be delivered, counters, secrets, API tokens
    """
    CREATE TABLE people (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL UNIQUE,
        external_id TEXT UNIQUE,
        created_at REAL NOT NULL
    ) STRICT;

    -- An id of a removed person is never given again: old events and other systems still know it.
    CREATE TABLE retired_ids (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;

    -- 128 little-endian float32; NaN and infinity are refused by the code.
    CREATE TABLE templates (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        person_id TEXT NOT NULL REFERENCES people (id) ON DELETE CASCADE,
        encoding BLOB NOT NULL CHECK (length(encoding) = 512),
        created_at REAL NOT NULL
    ) STRICT;
    CREATE INDEX templates_by_person ON templates (person_id, id);

    CREATE TABLE counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO counters VALUES ('seq', 0), ('gallery', 1);

    -- Triggers, so that no change of the gallery, from whichever code, can go unnoticed by the daemon.
    CREATE TRIGGER people_added AFTER INSERT ON people BEGIN
        UPDATE counters SET value = value + 1 WHERE name = 'gallery'; END;
    CREATE TRIGGER people_changed AFTER UPDATE ON people BEGIN
        UPDATE counters SET value = value + 1 WHERE name = 'gallery'; END;
    CREATE TRIGGER people_removed AFTER DELETE ON people BEGIN
        UPDATE counters SET value = value + 1 WHERE name = 'gallery'; END;
    CREATE TRIGGER templates_added AFTER INSERT ON templates BEGIN
        UPDATE counters SET value = value + 1 WHERE name = 'gallery'; END;
    CREATE TRIGGER templates_changed AFTER UPDATE ON templates BEGIN
        UPDATE counters SET value = value + 1 WHERE name = 'gallery'; END;
    CREATE TRIGGER templates_removed AFTER DELETE ON templates BEGIN
        UPDATE counters SET value = value + 1 WHERE name = 'gallery'; END;

    -- The columns are for filters; payload is the event as it was sent.
    CREATE TABLE events (
        seq INTEGER PRIMARY KEY,
        timestamp REAL NOT NULL,
        camera TEXT NOT NULL,
        status TEXT NOT NULL,
        person_id TEXT,
        name TEXT,
        payload TEXT NOT NULL,
        boot_id TEXT NOT NULL,
        decided REAL NOT NULL -- seconds since that boot
    ) STRICT;
    CREATE INDEX events_by_time ON events (timestamp);
    CREATE INDEX events_by_person ON events (person_id) WHERE person_id IS NOT NULL;
    CREATE INDEX events_by_name ON events (name) WHERE name IS NOT NULL;

    -- deadline is on the boot clock, so it means something only together with boot_id; NULL never expires.
    CREATE TABLE outbox (
        target TEXT NOT NULL,
        seq INTEGER NOT NULL,
        boot_id TEXT NOT NULL,
        deadline REAL,
        PRIMARY KEY (target, seq)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE drops (
        target TEXT NOT NULL,
        reason TEXT NOT NULL,
        count INTEGER NOT NULL,
        PRIMARY KEY (target, reason)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE secrets (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;

    CREATE TABLE tokens (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        hash BLOB NOT NULL UNIQUE,
        role TEXT NOT NULL,
        label TEXT NOT NULL,
        created_at REAL NOT NULL,
        in_file INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    """,
    # 2: whether an event's time is to be trusted; numbers that were told while the disk could not be written
    """
    ALTER TABLE events ADD COLUMN clock_synced INTEGER NOT NULL DEFAULT 1;
    CREATE INDEX events_without_time ON events (boot_id) WHERE NOT clock_synced;

    -- Events first_seq to last_seq, from `since` to `until` (Unix seconds), were told and are not in `events`.
    CREATE TABLE missed (
        first_seq INTEGER PRIMARY KEY,
        last_seq INTEGER NOT NULL,
        since REAL NOT NULL,
        until REAL NOT NULL,
        reason TEXT NOT NULL
    ) STRICT;
    """,
    # 3: who may pass, and when (Unix seconds)
    """
    ALTER TABLE people ADD COLUMN "group" TEXT;
    ALTER TABLE people ADD COLUMN valid_from REAL;
    ALTER TABLE people ADD COLUMN valid_until REAL;
    ALTER TABLE people ADD COLUMN blocked INTEGER NOT NULL DEFAULT 0 CHECK (blocked IN (0, 1));
    """,
    # 4: cameras whose recognition is off
    """
    CREATE TABLE paused_cameras (camera TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    """,
    # 5: small pictures of enrolled faces, where they are kept
    """
    CREATE TABLE thumbnails (
        face_id INTEGER PRIMARY KEY REFERENCES templates (id) ON DELETE CASCADE,
        jpeg BLOB NOT NULL
    ) STRICT;
    """,
    # 6: attendance; what other systems keep of a person
    """
    -- source: camera (then seq is the event's) or upload (then camera and seq are NULL).
    CREATE TABLE attendance (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        timestamp REAL NOT NULL,
        source TEXT NOT NULL,
        camera TEXT,
        seq INTEGER UNIQUE,
        person_id TEXT,
        name TEXT,
        external_id TEXT,
        boot_id TEXT NOT NULL,
        noted REAL NOT NULL, -- seconds since that boot
        clock_synced INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX attendance_by_time ON attendance (timestamp);

    INSERT INTO attendance (timestamp, source, camera, seq, person_id, name, external_id, boot_id, noted, clock_synced)
        SELECT timestamp, 'camera', camera, seq, person_id, name, json_extract(payload, '$.external_id'), boot_id,
            decided, clock_synced FROM events WHERE status = 'PASS' ORDER BY seq;

    -- Triggers, so that an event and its row come, are dated and go in one transaction, also when they come late.
    CREATE TRIGGER attended AFTER INSERT ON events WHEN NEW.status = 'PASS' BEGIN
        INSERT INTO attendance
            (timestamp, source, camera, seq, person_id, name, external_id, boot_id, noted, clock_synced)
        VALUES (NEW.timestamp, 'camera', NEW.camera, NEW.seq, NEW.person_id, NEW.name,
            json_extract(NEW.payload, '$.external_id'), NEW.boot_id, NEW.decided, NEW.clock_synced); END;
    CREATE TRIGGER attendance_dated AFTER UPDATE OF timestamp ON events BEGIN
        UPDATE attendance SET timestamp = NEW.timestamp, clock_synced = NEW.clock_synced WHERE seq = NEW.seq; END;
    CREATE TRIGGER attendance_purged AFTER DELETE ON events BEGIN
        DELETE FROM attendance WHERE seq = OLD.seq; END;

    -- A JSON object, kept as it came.
    CREATE TABLE person_data (
        person_id TEXT PRIMARY KEY REFERENCES people (id) ON DELETE CASCADE,
        data TEXT NOT NULL
    ) STRICT, WITHOUT ROWID;
    """,
    # 7: unknown visitors, where they are kept
    """
    -- latest: the visits' order, as the clock may be wrong. boot_id and seen: the last visit, in seconds of that boot.
    CREATE TABLE unknowns (
        id TEXT PRIMARY KEY,
        latest INTEGER NOT NULL UNIQUE,
        first_seen REAL NOT NULL,
        last_seen REAL NOT NULL,
        visits INTEGER NOT NULL,
        cameras TEXT NOT NULL, -- a JSON list
        ignored INTEGER NOT NULL DEFAULT 0 CHECK (ignored IN (0, 1)),
        quality REAL NOT NULL,
        encodings BLOB NOT NULL CHECK (length(encodings) > 0 AND length(encodings) % 512 = 0), -- of one visit
        boot_id TEXT NOT NULL,
        seen REAL NOT NULL,
        clock_synced INTEGER NOT NULL
    ) STRICT;

    -- Apart, so that another visit does not write it again.
    CREATE TABLE unknown_pictures (
        id TEXT PRIMARY KEY REFERENCES unknowns (id) ON DELETE CASCADE,
        jpeg BLOB NOT NULL
    ) STRICT;
    """,
    # 8: whoever was removed is not named any more: neither in events, nor by the ids that are not given again
    """
    DELETE FROM attendance WHERE person_id IN (SELECT id FROM retired_ids);
    UPDATE events SET person_id = NULL, name = NULL,
        payload = json_set(payload, '$.person_id', NULL, '$.name', NULL, '$.external_id', NULL)
        WHERE person_id IN (SELECT id FROM retired_ids);
    UPDATE retired_ids SET id = id_digest(id);
    """,
    # 9: the audit: each row's hash covers the one before; the base is the last row that was given up
    """
    CREATE TABLE audit (
        n INTEGER PRIMARY KEY,
        at REAL NOT NULL, -- Unix seconds
        what TEXT NOT NULL,
        data TEXT NOT NULL, -- a JSON object
        hash BLOB NOT NULL
    ) STRICT;
    CREATE TABLE audit_base (n INTEGER NOT NULL, hash BLOB NOT NULL) STRICT;
    INSERT INTO audit_base VALUES (0, zeroblob(32));
    CREATE TRIGGER audit_stands BEFORE UPDATE ON audit BEGIN SELECT raise(ABORT, 'the audit is append-only'); END;
    CREATE TRIGGER audit_stays BEFORE DELETE ON audit WHEN OLD.n > (SELECT n FROM audit_base)
        BEGIN SELECT raise(ABORT, 'the audit is append-only'); END;
    """,
    # 10: nonce and tag of what is encrypted (vault.py); NULL: it is not
    """
    ALTER TABLE templates ADD COLUMN seal BLOB;
    ALTER TABLE thumbnails ADD COLUMN seal BLOB;
    ALTER TABLE unknowns ADD COLUMN seal BLOB;
    ALTER TABLE unknown_pictures ADD COLUMN seal BLOB;
    """,
)


class UnsuitableDatabase(Exception):
    """The file is a database that this version must not touch; the text says why."""


def check(connection: sqlite3.Connection, migrations: Sequence[str] = MIGRATIONS) -> int:
    """The schema's version, 0 for an empty file. Raises UnsuitableDatabase; alters nothing."""
    # One statement, so that another process cannot create the tables between two of the answers.
    version, application, tables = connection.execute(
        "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_schema) "
        "FROM pragma_user_version, pragma_application_id"
    ).fetchone()
    if application != APPLICATION_ID and (version or application or tables):
        raise UnsuitableDatabase("it is the database of another program")
    if version > len(migrations):
        raise UnsuitableDatabase(
            f"it was written by a newer edge-face (schema {version}, this version knows {len(migrations)}); "
            "install that version again"
        )
    return int(version)


def migrate(connection: sqlite3.Connection, migrations: Sequence[str] = MIGRATIONS) -> None:
    """Bring the schema up to date, each step in a transaction of its own. Needs `isolation_level=None`."""
    connection.create_function("id_digest", 1, id_digest, deterministic=True)
    while check(connection, migrations) < len(migrations):
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Read again under the lock: another process may have taken the step in between.
            version = check(connection, migrations)
            if version < len(migrations):
                for statement in _statements(migrations[version]):
                    connection.execute(statement)
                connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _statements(script: str) -> Iterator[str]:
    """A script's statements one by one: `executescript` would commit the transaction that surrounds it."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if line.strip() and sqlite3.complete_statement(statement):
            yield statement
            statement = ""
    if statement.strip():
        raise ValueError(f"a migration ends inside a statement: {statement.strip()[:60]}")
