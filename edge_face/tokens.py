"""API tokens: who may ask, kept as hashes in the store's database."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sqlite3
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edge_face import audit
from edge_face.clock import Clock
from edge_face.database import Database
from edge_face.errors import NotFoundError, StoreError
from edge_face.folders import sync_folder
from edge_face.ledger import Entry, token_key

Role = Literal["admin", "viewer"]

PREFIX = "ef_"
"""Lets people, and programs that look for leaked secrets, recognise a token."""


@dataclass(frozen=True, slots=True)
class TokenInfo:
    """What may be told of a token."""

    id: int
    role: Role
    label: str
    created_at: float
    in_file: bool
    """Whether it is the admin token that stands in the file beside the database."""


def token_file(database: Path) -> Path:
    """Where the admin token of a database stands: `edge-face.db.token` beside `edge-face.db`."""
    return database.with_name(database.name + ".token")


class Tokens:
    """Tokens are 32 random bytes, so nobody can try them all, and their plain SHA-256 is as good as a slow password
    hash, at a cost that every request on a small board can pay.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def ensure_admin(self, file: Path) -> str:
        """The admin token in `file`; a new one, which ends the old, where the file is lost or no longer valid.

        Raises StoreError if the file cannot be read or written.
        """
        with self._database.reading() as db:  # first, as this works on a full disk as well
            token = _read(file)
            if token and _role_of(db, token) == "admin":
                return token
        # In the write transaction, so that a daemon and a command that start together agree on one token.
        with self._database.writing() as db:
            token = _read(file)
            if token and _role_of(db, token) == "admin":
                return token
            return self._new_in_file(db, file)

    def rotate_admin(self, file: Path) -> str:
        """A new admin token in `file`; the old one ends at once. Raises StoreError."""
        with self._database.writing() as db:
            return self._new_in_file(db, file)

    def new(self, role: Role, label: str = "") -> tuple[int, str]:
        """A further token: its id, and the token itself, which cannot be asked for again."""
        with self._database.writing() as db:
            return self._insert(db, role, label, in_file=False)

    def list(self) -> list[TokenInfo]:
        """All tokens, oldest first."""
        with self._database.reading() as db:
            rows = db.execute("SELECT id, role, label, created_at, in_file FROM tokens ORDER BY id").fetchall()
        return [
            TokenInfo(number, role, label, created_at, bool(in_file))
            for number, role, label, created_at, in_file in rows
        ]

    def revoke(self, token_id: int) -> None:
        """End a token at once. Raises NotFoundError."""
        with self._database.writing() as db:
            if not self._delete(db, "id = ?", token_id):
                raise NotFoundError(f"There is no token {token_id}")

    def _delete(self, db: sqlite3.Connection, which: str, *values: object) -> int:
        """For ever, also where an older database is restored; returns how many there were."""
        deleted = db.execute(f"DELETE FROM tokens WHERE {which} RETURNING id, hash", values).fetchall()  # noqa: S608  # ours
        for number, _ in deleted:
            audit.note(db, self._clock.wall(), "token revoked", {"token": number})
        if deleted:
            self._database.ledger.write(*(Entry("token", token_key(hash)) for _, hash in deleted))
        return len(deleted)

    def role_of(self, token: str) -> Role | None:
        """What this token allows; None: nothing."""
        if token_key(digest(token)) in self._database.ledger.withheld:
            return None
        with self._database.reading() as db:
            return _role_of(db, token)

    def _insert(self, db: sqlite3.Connection, role: Role, label: str, *, in_file: bool) -> tuple[int, str]:
        token = PREFIX + secrets.token_urlsafe(32)
        cursor = db.execute(
            "INSERT INTO tokens (hash, role, label, created_at, in_file) VALUES (?, ?, ?, ?, ?)",
            (digest(token), role, label, self._clock.wall(), in_file),
        )
        assert cursor.lastrowid is not None
        audit.note(db, self._clock.wall(), "token made", {"token": cursor.lastrowid, "role": role})
        return cursor.lastrowid, token

    def _new_in_file(self, db: sqlite3.Connection, file: Path) -> str:
        self._delete(db, "in_file")
        _, token = self._insert(db, "admin", "first admin", in_file=True)
        # Before the commit: a file that cannot be written leaves the old token in force. A crash between the two
        # leaves a file whose token is unknown, which the next start replaces.
        try:
            _write_private(file, token + "\n")
        except OSError as error:
            raise StoreError(f"The token file {file} cannot be written: {error.strerror}") from error
        return token


def digest(token: str) -> bytes:
    """What is kept of something random that its owner shows again."""
    # surrogateescape: a header may hold bytes that are no UTF-8; such a token is wrong, and no reason to fail.
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()


def _role_of(db: sqlite3.Connection, token: str) -> Role | None:
    """Compares with every token, each in constant time, so that the time taken tells nothing."""
    wanted, found = digest(token), None
    for stored, role in db.execute("SELECT hash, role FROM tokens"):
        if hmac.compare_digest(stored, wanted):
            found = role
    return found


def _read(file: Path) -> str:
    """The token in the file, empty if there is none."""
    try:
        text = file.read_text(encoding="ascii", errors="replace").strip()
        if file.stat().st_mode & 0o077:
            file.chmod(0o600)
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise StoreError(f"The token file {file} cannot be read: {error.strerror}") from error
    return text


def _write_private(file: Path, text: str) -> None:
    """Write by renaming, so that a crash leaves the old file or the new one; nobody else can read it at any moment."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)
    except BaseException:
        with suppress(FileNotFoundError):
            draft.unlink()
        raise
    sync_folder(file.parent)
