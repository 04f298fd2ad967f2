"""A backup becomes the database: by `edge-face restore`, and by itself where the disk has damaged the database.

All is made ready beside the database and checked whole; only then it takes the place, by one renaming. What must not
come back (ledger.py) is applied before, deliveries of then are dropped, and numbers that were given since stay given.
"""

from __future__ import annotations

import logging
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from edge_face import audit, backup
from edge_face.backups import Backups, erase
from edge_face.database import DAMAGED, Database
from edge_face.erasure import id_digest
from edge_face.errors import BackupError, StoreError, TemplateKeyError
from edge_face.events import utc
from edge_face.folders import sync_folder
from edge_face.ledger import Ledger
from edge_face.rekey import convert
from edge_face.vault import Vault, mark_of

_log = logging.getLogger(__name__)

NO_VAULT = Vault()
JUMP = 1_000_000
"""Where nobody knows which numbers were given since the backup: as many are left out."""


@dataclass(frozen=True, slots=True)
class Restored:
    backup: str
    created_at: float
    """Unix seconds."""
    reason: str = ""
    """Why, where nobody asked for it."""

    def payload(self) -> dict[str, str]:
        return {"backup": self.backup, "from": utc(self.created_at), "reason": self.reason}


def restore(
    file: Path,
    database: Path,
    now: float,
    passphrase: str = "",
    before: Callable[[], None] = lambda: None,
    vault: Vault = NO_VAULT,
) -> Restored:
    """Put a backup in the database's place; `before` is called when it is ready. The caller holds `lock_for_daemon`.

    Templates that are not encrypted in it are encrypted, where `vault` has a key; any other key is an error. Raises
    BackupError, StoreError, OSError; then everything is as it was.
    """
    with _ready(file, database, now, passphrase) as (copy, header):
        with closing(sqlite3.connect(copy, isolation_level=None)) as db:
            if vault.mark and not mark_of(db):
                convert(db, NO_VAULT, vault)
            vault.check(db)
        before()
        _end_log(database)
        _take_place(copy, database)
    return Restored(str(file), header.created_at)


def recover(database: Path, folder: Path | None, now: float, vault: Vault = NO_VAULT) -> Restored | None:
    """At the daemon's start: put the last good backup in the place of a damaged database. None: it is sound.

    Raises StoreError where it is damaged and there is no good backup. The caller holds `lock_for_daemon`.
    """
    try:
        files = Backups(database, folder).files() if folder else []
    except OSError as error:
        _log.error("the backups: %s cannot be used: %s", folder, error.strerror)
        files = []
    damage = _damage(database, expected=bool(files))
    if not damage:
        return None
    _log.error("%s", damage)
    for file in files:
        try:
            with _ready(file, database, now) as (copy, header):
                with closing(sqlite3.connect(copy)) as db:
                    vault.check(db)
                _set_aside(database)
                _take_place(copy, database)
        except (BackupError, TemplateKeyError, OSError, sqlite3.Error) as error:
            _log.error("the backup %s cannot be restored: %s", file, error)
            continue
        _log.error("THE DATABASE WAS DAMAGED: the backup of %s is in its place", utc(header.created_at))
        return Restored(str(file), header.created_at, damage)
    raise StoreError(
        f"{damage.rstrip('.')}; there is no good backup in {folder or 'any folder'}. "
        "Restore one kept elsewhere with edge-face restore, or move the file away to begin with nobody enrolled",
        reason=DAMAGED,
    )


def _damage(database: Path, *, expected: bool) -> str:
    """What is wrong with the file; empty: nothing, or nothing that a backup would help against."""
    if not database.exists() or not database.stat().st_size:
        # Power cuts and repairs of a file system leave such; without any backup it is simply a first start.
        return f"The database {database} is empty" if expected else ""
    try:
        with closing(Database(database)) as db:
            db.check()
    except StoreError as error:
        return error.message if error.reason == DAMAGED else ""
    return ""


@contextmanager
def _ready(file: Path, database: Path, now: float, passphrase: str = "") -> Iterator[tuple[Path, backup.Header]]:
    """A copy of the backup's database, as it is to be from now on."""
    copy = database.with_name(f".{database.name}.restore-{secrets.token_hex(4)}")
    try:
        header = backup.unpack(file, copy, passphrase)
        with closing(sqlite3.connect(copy, isolation_level=None)) as db:
            backup.check_whole(db)
            erase(db, Ledger(database))
            db.execute("BEGIN IMMEDIATE")
            _go_on(db, database, header, now)
            db.execute("COMMIT")
            backup.check_whole(db)
        yield copy, header
    finally:
        copy.unlink(missing_ok=True)


def _go_on(db: sqlite3.Connection, database: Path, header: backup.Header, now: float) -> None:
    """Nothing that was given since the backup is given again, and nothing is sent again."""
    db.execute("DELETE FROM outbox")
    (seq,) = db.execute("SELECT value FROM counters WHERE name = 'seq'").fetchone()
    last = _take_over(db, database)
    last = seq + JUMP if last is None else max(seq, last)
    if last > seq:
        db.execute(
            "INSERT OR REPLACE INTO missed VALUES (?, ?, ?, ?, 'a backup was restored')",
            (seq + 1, last, min(header.created_at, now), now),
        )
        db.execute("UPDATE counters SET value = ? WHERE name = 'seq'", (last,))
    audit.note(db, now, "restored", {"backup_of": utc(header.created_at), "last_seq": last})


def _take_over(db: sqlite3.Connection, database: Path) -> int | None:
    """The audit since then, row numbers and people's ids, from the present database; the last event's number.

    None where it cannot be read, or is another gate's.
    """
    if not database.exists() or not database.stat().st_size:
        return None
    try:
        with closing(backup.connect(database)) as old:
            if not audit.carry_over(old, db):
                return None
            for name, number in old.execute("SELECT name, seq FROM sqlite_sequence"):
                db.execute("UPDATE sqlite_sequence SET seq = max(seq, ?) WHERE name = ?", (number, name))
            known = {id for (id,) in db.execute("SELECT id FROM people")}
            given = old.execute("SELECT id FROM retired_ids").fetchall()
            given += [(id_digest(id),) for (id,) in old.execute("SELECT id FROM people") if id not in known]
            db.executemany("INSERT OR IGNORE INTO retired_ids VALUES (?)", given)
            return int(old.execute("SELECT value FROM counters WHERE name = 'seq'").fetchone()[0])
    except sqlite3.Error as error:
        _log.warning("the present database tells nothing any more: %s", error)
        return None


def _end_log(database: Path) -> None:
    """SQLite would apply a log that stays behind to the new file."""
    try:
        with closing(backup.connect(database)) as old:
            old.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    except sqlite3.Error as error:
        _log.debug("the old database's log is deleted as it is: %s", error)
    for log in _logs(database):
        log.unlink(missing_ok=True)


def _set_aside(database: Path) -> None:
    """The log first: without it the file is only older, and with a log that is not its own it would be nonsense."""
    aside = database.with_name(database.name + ".damaged")
    for part in (*_logs(database), database):
        if part.exists():
            part.replace(aside.with_name(aside.name + part.name.removeprefix(database.name)))


def _logs(database: Path) -> list[Path]:
    return [database.with_name(database.name + suffix) for suffix in ("-wal", "-shm")]


def _take_place(copy: Path, database: Path) -> None:
    copy.replace(database)
    sync_folder(database.parent)
