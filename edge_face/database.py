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
from contextlib import closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal, ParamSpec, TypeVar

from edge_face.errors import StoreError
from edge_face.folders import sync_folder
from edge_face.ledger import Ledger
from edge_face.migrations import UnsuitableDatabase, check, migrate

DAMAGED = "the database is damaged"
BUSY_TIMEOUT_S = 5.0
"""How long one process waits for another's write."""
SCRUB_WAIT_S = 1.0
REOPEN_S = 1.0
"""How often a file that could not be opened as it should is tried again."""

P = ParamSpec("P")
T = TypeVar("T")


class Database:
    """One connection, usable from any thread, one call at a time. Several processes may have the file open.

    A disk that is full or read-only when the file is opened is no reason to stop: what is there can be read, writing
    raises StoreError, and the file is opened anew, about once a second, until it can be used as it should.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._closed = False
        self._limited = False
        self._reopen_at = 0.0
        self._unscrubbed = False
        self.ledger = Ledger(path)
        with self._errors():
            _create_private(path)
            self._opened = path.stat()
            self._connection = self._open()

    @property
    def limited(self) -> bool:
        """Whether the file could only be opened for reading, or failed since."""
        return self._limited

    def _open(self) -> sqlite3.Connection:
        self._reopen_at = time.monotonic() + REOPEN_S
        self._limited = False
        try:
            return self._open_fully()
        except sqlite3.OperationalError as error:
            if _primary(error) not in _DISK_ERRORS:
                raise
            self._limited = True
            try:
                return self._open_for_reading()
            except (sqlite3.Error, UnsuitableDatabase):
                raise error from None

    def _open_fully(self) -> sqlite3.Connection:
        db = self._connect("mode=rw")
        try:
            check(db)  # first of all, so that a file that is not ours stays exactly as it is
            # Of a new file: a commit writes whole pages, and small ones are half the bytes (benchmarks/storage.py).
            db.execute("PRAGMA page_size = 1024")
            _switch_to_wal(db)
            # FULL: an acknowledged write outlives a power cut, which at a gate is how most devices are switched off.
            db.execute("PRAGMA synchronous = FULL")
            db.execute("PRAGMA foreign_keys = ON")
            # Faces are biometric data: what is deleted is overwritten, not merely unlinked.
            db.execute("PRAGMA secure_delete = ON")
            db.execute("PRAGMA journal_size_limit = 4194304")
            migrate(db)
        except BaseException:
            db.close()
            raise
        return db

    def _open_for_reading(self) -> sqlite3.Connection:
        """For a disk on which SQLite cannot make its shared memory file, which readers need as well.

        On a full one, exclusive locking does without it. On a read-only one nobody can write, so a file without a log
        may be taken as it is; one with a log may not: it would show people who were removed.
        """
        try:
            return self._checked(self._connect("mode=rw"), "PRAGMA locking_mode = EXCLUSIVE")
        except sqlite3.Error:
            log = self.path.with_name(self.path.name + "-wal")
            read_only = os.statvfs(self.path).f_flag & os.ST_RDONLY
            if not read_only or (log.exists() and log.stat().st_size):
                raise
        return self._checked(self._connect("immutable=1"))

    def _checked(self, db: sqlite3.Connection, *settings: str) -> sqlite3.Connection:
        try:
            for setting in settings:
                db.execute(setting)
            if not check(db):
                raise UnsuitableDatabase("it is empty")
        except BaseException:
            db.close()
            raise
        return db

    def _connect(self, mode: str) -> sqlite3.Connection:
        """Never makes a file: who opens an existing one anew must not find an empty one in its place."""
        db = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?{mode}",
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
            uri=True,
        )
        db.create_function("casefold", 1, str.casefold, deterministic=True)
        return db

    def _heal(self) -> None:
        """After an error of the disk: open the file anew, since SQLite never turns a connection for reading back."""
        if self._closed or not self._limited or time.monotonic() < self._reopen_at:
            return
        with suppress(sqlite3.Error):  # the disk is broken, so closing may fail
            self._connection.close()
        try:
            self._connection = self._open()
        except BaseException:
            self._limited = True
            raise

    def close(self) -> None:
        with self._lock, self._errors():
            self._closed = True
            self._connection.close()

    def is_in_place(self) -> bool:
        """Whether the file that is open still is the one that others find at its path."""
        try:
            return os.path.samestat(self._opened, self.path.stat())
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # a disk that fails is another matter
            return True

    def check(self) -> None:
        """Look for damage in the file. Raises StoreError."""
        with self.reading() as db:
            problems = [row[0] for row in db.execute("PRAGMA quick_check(5)") if row[0] != "ok"]
        if problems:
            raise StoreError(f"The database {self.path} is damaged: {'; '.join(problems)}", reason=DAMAGED)

    def secret(self, name: str) -> bytes:
        """32 random bytes, made once and kept, as the key of pseudonyms and signatures."""
        query = "SELECT value FROM secrets WHERE name = ?"
        with self.reading() as db:  # first, as this works on a full disk as well
            row = db.execute(query, (name,)).fetchone()
        if row is None:
            with self.writing() as db:
                db.execute("INSERT OR IGNORE INTO secrets VALUES (?, ?)", (name, os.urandom(32)))
                row = db.execute(query, (name,)).fetchone()
        value: bytes = row[0]
        return value

    def erase_all(self, table: Literal["thumbnails", "unknowns"]) -> int:
        """Empty a table and leave no trace of what it held; returns how many rows there were."""
        with self.reading() as db:
            if db.execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone() is None:  # noqa: S608  # one of our own
                return 0  # then nothing is written, which a full disk would not allow
        with self.writing() as db:
            erased = db.execute(f"DELETE FROM {table}").rowcount  # noqa: S608
        self.scrub_log()
        return erased

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction in which everything that is read is of one moment."""
        with self._transaction("BEGIN") as connection:
            yield connection

    @contextmanager
    def reading_aside(self) -> Iterator[sqlite3.Connection]:
        """The same for what may take long: on a connection of its own, so that no event waits for it.

        Where a disk that fails allows no other connection, on this one.
        """
        aside = None if self._limited or self._closed else self._aside()
        if aside is None:
            with self.reading() as connection:
                yield connection
            return
        with closing(aside):
            try:
                yield aside
            except sqlite3.Error as error:
                raise StoreError(f"The database {self.path} cannot be used: {error}", reason=_reason(error)) from error

    def _aside(self) -> sqlite3.Connection | None:
        """In a transaction; None: somebody has the file for themselves, or it cannot be opened."""
        with suppress(sqlite3.Error):
            aside = self._connect("mode=ro")
            try:
                aside.execute("PRAGMA busy_timeout = 0")
                aside.execute("BEGIN")
                aside.execute("SELECT count(*) FROM sqlite_schema")  # only now the transaction begins
            except BaseException:
                aside.close()
                raise
            return aside
        return None

    @contextmanager
    def writing(self, wait_s: float = BUSY_TIMEOUT_S) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk when the block is left, or, after any exception, never happened.

        `wait_s`: how long another process may go on writing before it is an error.
        """
        # IMMEDIATE: take the write lock before the first read, so that what was read still holds when writing.
        with self._transaction("BEGIN IMMEDIATE", wait_s) as connection:
            yield connection
        if self._unscrubbed:
            self.scrub_log(wait_s=0)

    @contextmanager
    def _transaction(self, begin: str, wait_s: float = BUSY_TIMEOUT_S) -> Iterator[sqlite3.Connection]:
        with self._lock, self._errors():
            self._heal()
            self._connection.execute(f"PRAGMA busy_timeout = {round(wait_s * 1000)}")
            self._connection.execute(begin)
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                # Not always open still: SQLite itself rolls back when, say, the disk is full.
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def scrub_log(self, wait_s: float = SCRUB_WAIT_S) -> None:
        """Move the write-ahead log into the file and empty it: it still holds pages as they were before a deletion.

        The deletion itself is committed by then, so what hinders this (a full disk, a reader) is no error: it is tried
        again after each later write.
        """
        with self._lock:
            try:
                self._connection.execute(f"PRAGMA busy_timeout = {round(wait_s * 1000)}")
                busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            except sqlite3.Error:
                busy = 1
            self._unscrubbed = bool(busy)

    def rewrite(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """After a change that writes the whole file anew, leave nothing of what was before beside it either."""
        with self._lock, self._errors():
            self._heal()
            done = change(self._connection)
        self.scrub_log()
        if self._unscrubbed:
            raise StoreError("It is done, but another program is reading the database: end it, and do this once more")
        return done

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (UnsuitableDatabase, OSError) as error:
            raise StoreError(f"The database {self.path} cannot be used: {error}") from error
        except sqlite3.Error as error:
            if _primary(error) in _DISK_ERRORS - {sqlite3.SQLITE_FULL}:
                self._limited = True
            raise StoreError(f"The database {self.path} cannot be used: {error}", reason=_reason(error)) from error


_DISK_ERRORS = frozenset({sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN})
_REASONS = {
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "the disk is read-only",
    sqlite3.SQLITE_IOERR: "the disk cannot be written or read",
    sqlite3.SQLITE_CANTOPEN: "the disk cannot be written or read",
    sqlite3.SQLITE_BUSY: "another program is writing to the database",
    sqlite3.SQLITE_CORRUPT: DAMAGED,
    sqlite3.SQLITE_NOTADB: DAMAGED,
}


def _primary(error: sqlite3.Error) -> int:
    """SQLite's result code without its details; 0 for an error of Python's module."""
    return (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF


def _reason(error: sqlite3.Error) -> str:
    """What is wrong with the disk, for people; empty where that is not known."""
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_IOERR_SHMSIZE:
        return _REASONS[sqlite3.SQLITE_FULL]
    return _REASONS.get(_primary(error), "")


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


def lock_for_daemon(path: Path) -> BinaryIO:
    """Make sure that only one daemon works with this database: two would decide everything twice.

    Commands need no lock. Holds until the returned file is closed, or the process ends. Raises StoreError. It is the
    database itself that is locked (flock, which SQLite does not use), so this needs no room on the disk.
    """
    while True:
        _create_private(path)
        try:
            file = path.open("rb")
        except OSError as error:
            raise StoreError(f"The database {path} cannot be opened: {error.strerror}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
            file.close()  # a backup was restored in between
        except FileNotFoundError:
            file.close()
        except OSError:
            file.close()
            raise StoreError(f"Another edge-face daemon is already running with the database {path}.") from None


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

    async def aside(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call what may take long beside the thread: it sees all that was asked for before, and holds up nothing."""
        await self.run(lambda: None)
        return await asyncio.to_thread(function, *args, **kwargs)

    async def close(self) -> None:
        """Let the calls that were asked for finish, then end the thread."""
        self._pool.shutdown(wait=False)  # takes no new calls, and keeps those that wait
        await asyncio.to_thread(self._pool.shutdown, wait=True)
