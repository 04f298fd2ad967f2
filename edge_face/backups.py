"""The daily backups: a folder with the last seven.

They are made, and relieved of who was removed, by a process of their own with the lowest priority, so that no decision
waits for it: `python -m edge_face.backups make|scrub DATABASE FOLDER`.
"""

from __future__ import annotations

import ctypes
import fcntl
import logging
import os
import secrets
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from edge_face import backup
from edge_face.errors import BackupError, EdgeFaceError, StoreError, TemplateKeyError
from edge_face.ledger import ERASES, Ledger, apply
from edge_face.migrations import migrate
from edge_face.rekey import convert
from edge_face.vault import Vault

_log = logging.getLogger(__name__)

KEEP = 7
_SPARE = 64 << 20
"""Bytes that stay free, for events."""
_WEEK_S = 7 * 86_400
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Backups:
    """The folder's files, numbered, since the clock of a gate may be wrong."""

    def __init__(self, database: Path, folder: Path) -> None:
        self._database = database
        self._folder = folder
        self._ledger = Ledger(database)

    def files(self) -> list[Path]:
        """The newest first."""
        return sorted(self._folder.glob(f"{self._database.name}-*.backup"), key=_number, reverse=True)

    def make(self, now: float) -> Path:
        """A new one; the eighth goes. Raises BackupError, OSError."""
        with self._locked(), self._draft() as copy:
            size = self._database.stat().st_size
            if shutil.disk_usage(self._folder).free < 2 * size + _SPARE:
                raise BackupError("There is no room for a backup: twice the database's size and 64 MiB must be free")
            ledger = backup.snapshot(self._database, copy)
            found = self.files()
            number = _number(found[0]) + 1 if found else 1
            made = self._folder / f"{self._database.name}-{number:06}.backup"
            backup.pack(copy, made, ledger, now)
            for old in self.files()[KEEP:]:
                old.unlink()
        for aside in set_aside(self._database):
            if now - aside.stat().st_mtime > _WEEK_S:
                aside.unlink()
        return made

    def scrub(self) -> int:
        """Erase from them whatever was erased since they were made; returns how many were written anew.

        Raises EdgeFaceError, OSError; what was not done then is done at the next call.
        """
        if not self._folder.is_dir():
            return 0
        changed = 0
        with self._locked():
            size = self._ledger.size()
            for file in self.files():
                try:
                    changed += self._scrub(file, size)
                except BackupError as error:
                    # It may hold who was removed, and nobody could restore it.
                    _log.error("the backup %s is deleted: %s", file, error)
                    file.unlink()
        if size:
            for aside in set_aside(self._database):  # nobody can erase anything from a damaged one
                if aside.stat().st_mtime <= self._ledger.path.stat().st_mtime:
                    aside.unlink()
        return changed

    def change_key(self, old: Vault, new: Vault) -> list[Path]:
        """Encrypt the templates in them anew; returns those that a third key has encrypted, which stay as they are.

        Databases that are set aside, and drafts, hold what nobody can encrypt any more: they are deleted. Raises
        EdgeFaceError, OSError.
        """
        strange = []
        if self._folder.is_dir():
            with self._locked():
                for file in self.files():
                    try:
                        self._change_key(file, old, new)
                    except TemplateKeyError:
                        strange.append(file)
                    except BackupError as error:
                        _log.error("the backup %s is deleted: %s", file, error)
                        file.unlink()
        drafts = self._database.parent.glob(f".{self._database.name}.*-*")  # of commands that were killed
        for left in (*set_aside(self._database), *drafts):
            left.unlink()
        return strange

    def _change_key(self, file: Path, old: Vault, new: Vault) -> None:
        with self._draft() as copy:
            header = backup.unpack(file, copy)
            size = self._ledger.size()
            try:
                with closing(sqlite3.connect(copy, isolation_level=None)) as db:
                    erase(db, self._ledger)
                    convert(db, old, new)
            except sqlite3.Error as error:  # a full disk, say, which is no reason to give the backup up
                raise StoreError(f"The backup {file} cannot be encrypted anew: {error}") from error
            backup.pack(copy, file, size, header.created_at)

    def _scrub(self, file: Path, size: int) -> bool:
        header = backup.header(file)
        entries = self._ledger.read(header.ledger) if header.ledger < size else []
        if not any(entry.what in ERASES for entry in entries):
            return False
        with self._draft() as copy:
            backup.unpack(file, copy)
            with closing(sqlite3.connect(copy, isolation_level=None)) as db:
                erase(db, self._ledger)
            backup.pack(copy, file, size, header.created_at)
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time; what a killed one has left is removed."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            for left in (*self._folder.glob(".*.backup.*"), *self._folder.glob(".copy-*")):
                left.unlink()
            yield
        finally:
            os.close(descriptor)

    @contextmanager
    def _draft(self) -> Iterator[Path]:
        """Where a copy of the database may stand for a moment."""
        copy = self._folder / f".copy-{secrets.token_hex(4)}"
        try:
            yield copy
        finally:
            copy.unlink(missing_ok=True)


def erase(db: sqlite3.Connection, ledger: Ledger) -> None:
    """Apply the ledger to a copy, so that no byte of what it erases stays. Raises sqlite3.Error, StoreError."""
    for setting in ("foreign_keys = ON", "secure_delete = ON", "journal_mode = MEMORY"):
        db.execute(f"PRAGMA {setting}")
    migrate(db)
    db.execute("BEGIN IMMEDIATE")
    apply(db, ledger.read())
    db.execute("COMMIT")


def set_aside(database: Path) -> list[Path]:
    """Damaged databases that were replaced by a backup."""
    return list(database.parent.glob(f"{database.name}.damaged*"))


def _number(file: Path) -> int:
    text = file.stem.rpartition("-")[2]
    return int(text) if text.isascii() and text.isdecimal() else 0


def main() -> None:
    what, database, folder = sys.argv[1:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.nice(19)  # the kernel derives the disk's priority from it
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    backups = Backups(Path(database), Path(folder))
    try:
        if what == "make":
            backups.make(time.time())
        else:
            backups.scrub()
    except (EdgeFaceError, OSError, sqlite3.Error) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
