"""The SQLite file: opening, locking, transactions, and the one place where its errors become StoreError."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

from edge_face.errors import StoreError
from edge_face.migrations import UnsuitableDatabase, check, migrate

BUSY_TIMEOUT_S = 5.0
"""How long one process waits for another's write."""

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """One connection, usable from any thread, one call at a time. Several processes may have the file open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        with self._errors():
            _create_private(path)
            self._connection = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            self._opened = path.stat()
            try:
                self._prepare()
            except BaseException:
                self._connection.close()
                raise

    def _prepare(self) -> None:
        db = self._connection
        check(db)  # first of all, so that a file that is not ours stays exactly as it is
        _switch_to_wal(db)
        # FULL: an acknowledged write outlives a power cut, which at a gate is how most devices are switched off.
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
        # Faces are biometric data: what is deleted is overwritten, not merely unlinked.
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA journal_size_limit = 4194304")
        db.create_function("casefold", 1, str.casefold, deterministic=True)
        migrate(db)

    def close(self) -> None:
        with self._lock, self._errors():
            self._connection.close()

    def is_in_place(self) -> bool:
        """Whether the file that is open still is the one that others find at its path."""
        try:
            return os.path.samestat(self._opened, self.path.stat())
        except OSError:
            return False

    def check(self) -> None:
        """Look for damage in the file. Raises StoreError."""
        with self.reading() as db:
            problems = [row[0] for row in db.execute("PRAGMA quick_check(5)") if row[0] != "ok"]
        if problems:
            raise StoreError(f"The database {self.path} is damaged: {'; '.join(problems)}")

    def secret(self, name: str) -> bytes:
        """32 random bytes, made once and kept, as the key of pseudonyms and signatures."""
        with self.writing() as db:
            db.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (name, os.urandom(32)))
            value: bytes = db.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()[0]
        return value

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction in which everything that is read is of one moment."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk when the block is left, or, after any exception, never happened."""
        # IMMEDIATE: take the write lock before the first read, so that what was read still holds when writing.
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._connection.execute(begin)
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # Not always open still: SQLite itself rolls back when, say, the disk is full.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def scrub_log(self) -> None:
        """Move the write-ahead log into the file and empty it: it still holds pages as they were before a deletion."""
        with self._lock, self._errors():
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnsuitableDatabase) as error:
            raise StoreError(f"The database {self.path} cannot be used: {error}") from error


def _create_private(path: Path) -> None:
    """Make a new file with mode 0600 (SQLite gives its side files the same); an existing one is left alone.

    A missing folder is an error: it may be a disk that is not mounted, and a new, empty gallery would hide that.
    """
    try:
        # O_EXCL: opening and closing an existing database would release SQLite's locks on it (POSIX record locks).
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    except OSError as error:
        raise StoreError(f"The database {path} cannot be made: {error.strerror}") from error
    os.close(descriptor)
    sync_folder(path.parent)


def _switch_to_wal(db: sqlite3.Connection) -> None:
    """Readers and the writer do not block each other in WAL mode."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            if db.execute("PRAGMA journal_mode = WAL").fetchone()[0] == "wal":
                return
            raise UnsuitableDatabase("its file system has no shared memory (a network share?); use a local disk")
        except sqlite3.OperationalError as error:
            # SQLite does not wait here by itself when two processes open a new file at once.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def sync_folder(folder: Path) -> None:
    """Make a new or renamed file's directory entry durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock_for_daemon(path: Path) -> BinaryIO:
    """Make sure that only one daemon works with this database: two would decide everything twice.

    Commands need no lock. Holds until the returned file is closed, or the process ends. Raises StoreError.
    """
    lock = path.with_name(path.name + ".lock")
    try:
        file = lock.open("ab")
    except OSError as error:
        raise StoreError(f"The lock file {lock} cannot be made: {error.strerror}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise StoreError(f"Another edge-face daemon is already running with the database {path}.") from None
    return file


class StoreThread:
    """Runs database calls on one thread of their own, so that the event loop never waits for an SD card."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="store")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call it on the thread, in the order of asking. Cancelling the wait does not undo the call."""
        try:
            future = asyncio.get_running_loop().run_in_executor(self._pool, partial(function, *args, **kwargs))
        except RuntimeError as error:
            raise StoreError("The database is closed") from error
        return await future

    async def close(self) -> None:
        """Let the calls that were asked for finish, then end the thread."""
        self._pool.shutdown(wait=False)  # takes no new calls, and keeps those that wait
        await asyncio.to_thread(self._pool.shutdown, wait=True)
