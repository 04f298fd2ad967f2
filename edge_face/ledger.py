"""What must never come back: removals, blocks, erased faces and revoked tokens, in a file beside the database.

A database may be replaced by an older one: by `edge-face restore`, by itself when the disk has damaged it, or by
somebody who copies files. The ledger is no part of any backup, and is applied to whatever database the daemon opens.
An entry is on the disk before what it says is acknowledged, and, but for what lets somebody in again, before the
database's own transaction ends. So after a crash in between, a removal that nobody was told of may still come true; one
that somebody was told of always does.

It names nobody: a person or a face stands in it as a digest of id and time of enrolment, a token as a digest of its
own. A line is a JSON object behind its checksum; about 100 bytes, and few are written in a year.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from edge_face.erasure import erase_person
from edge_face.errors import StoreError
from edge_face.folders import sync_folder

_log = logging.getLogger(__name__)

What = Literal["removed", "rules", "face", "token", "visitor"]
ERASES = ("removed", "face", "visitor")
"""These take something out of existing backups; the others matter when one is restored."""
_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk is full",
    errno.EROFS: "the disk is read-only",
    errno.EIO: "the disk cannot be written or read",
}


@dataclass(frozen=True, slots=True)
class Entry:
    what: What
    key: str
    blocked: bool = False
    valid_from: float | None = None
    valid_until: float | None = None
    """Of `rules`: who may pass, and when, from now on."""

    def line(self) -> bytes:
        body: dict[str, Any] = {"what": self.what, "key": self.key}
        if self.what == "rules":
            body |= {"blocked": self.blocked, "from": self.valid_from, "until": self.valid_until}
        text = json.dumps(body, separators=(",", ":")).encode()
        return b"%08x %s\n" % (zlib.crc32(text), text)


def person_key(id: str, created_at: float) -> str:
    return _digest(f"person {id} {created_at!r}".encode())


def face_key(number: int, created_at: float) -> str:
    return _digest(f"face {number} {created_at!r}".encode())


def old_face_key(encoding: bytes) -> str:
    """As entries once had it. It would also hit the same photo enrolled anew, and no face that is encrypted."""
    return _digest(b"face " + encoding)


def token_key(hash: bytes) -> str:
    return _digest(b"token " + hash)


class Ledger:
    """The file of one database. Written inside its write transactions, so by one process at a time."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + ".ledger")
        self.withheld: frozenset[str] = frozenset()
        """Whom and what (`Change.about`) the database cannot be relieved of yet: as if it did not hold them."""

    def write(self, *entries: Entry) -> None:
        """They are on the disk when this returns. Raises StoreError."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                size = os.fstat(descriptor).st_size
                torn = size and os.pread(descriptor, 1, size - 1) != b"\n"
                block = b"\n" * bool(torn) + b"".join(entry.line() for entry in entries)
                if os.write(descriptor, block) != len(block):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            if not size:
                sync_folder(self.path.parent)
        except OSError as error:
            reason = _REASONS.get(error.errno or 0, "")
            raise StoreError(f"{self.path} cannot be written: {error.strerror}", reason=reason) from error

    def size(self) -> int:
        """Bytes; 0 where there is none yet. Raises OSError."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def read(self, since: int = 0) -> list[Entry]:
        """All entries from that byte on. Raises StoreError where the file cannot be read."""
        try:
            with self.path.open("rb") as file:
                file.seek(since)
                lines = file.read().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error.strerror}") from error
        found = [(line, _parsed(line)) for line in lines if line]
        damaged = sum(entry is None for _, entry in found)
        if damaged > bool(found and found[-1][1] is None):  # a torn last line was never acknowledged
            _log.error("%d lines of %s are damaged, and cannot be applied", damaged, self.path)
        return [entry for _, entry in found if entry is not None]


@dataclass(frozen=True, slots=True)
class Change:
    """Something that a database lacks."""

    make: Callable[[], object]
    about: str
    """The person's id, the token's key, the visitor's id."""


def missing(db: sqlite3.Connection, entries: Iterable[Entry]) -> list[Change]:
    """What of them is not true in a database, which is only read."""
    rules, gone = {}, {what: set[str]() for what in (*ERASES, "token")}
    for entry in entries:
        if entry.what == "rules":
            rules[entry.key] = entry  # the last one holds
        else:
            gone[entry.what].add(entry.key)
    found: list[Change] = []
    query = "SELECT id, created_at, blocked, valid_from, valid_until FROM people"
    for id, created_at, *current in db.execute(query).fetchall() if rules or gone["removed"] else ():
        key = person_key(id, created_at)
        if key in gone["removed"]:
            found.append(Change(partial(erase_person, db, id), id))
        elif key in rules:
            wanted = [int(rules[key].blocked), rules[key].valid_from, rules[key].valid_until]
            if wanted != current:
                update = "UPDATE people SET blocked = ?, valid_from = ?, valid_until = ? WHERE id = ?"
                found.append(Change(partial(db.execute, update, (*wanted, id)), id))
    if gone["face"]:
        query = "SELECT id, created_at, encoding, person_id FROM templates"
        for number, created_at, encoding, owner in db.execute(query).fetchall():
            if gone["face"] & {face_key(number, created_at), old_face_key(encoding)}:
                found.append(Change(partial(db.execute, "DELETE FROM templates WHERE id = ?", (number,)), owner))
    if gone["token"]:
        for number, hash in db.execute("SELECT id, hash FROM tokens").fetchall():
            if token_key(hash) in gone["token"]:
                found.append(Change(partial(db.execute, "DELETE FROM tokens WHERE id = ?", (number,)), token_key(hash)))
    if gone["visitor"]:
        for (visitor,) in db.execute("SELECT id FROM unknowns").fetchall():
            if visitor in gone["visitor"]:
                found.append(Change(partial(db.execute, "DELETE FROM unknowns WHERE id = ?", (visitor,)), visitor))
    return found


def apply(db: sqlite3.Connection, entries: Iterable[Entry]) -> int:
    """Make them true in a database, within the caller's transaction; returns how many things had to be changed."""
    changes = missing(db, entries)
    for change in changes:
        change.make()
    return len(changes)


def _digest(data: bytes) -> str:
    return hashlib.sha256(b"edge-face ledger " + data).hexdigest()[:32]


def _parsed(line: bytes) -> Entry | None:
    check, _, text = line.partition(b" ")
    if check != b"%08x" % zlib.crc32(text):
        return None
    try:
        body = json.loads(text)
        return Entry(
            *(body["what"], body["key"]),
            *(bool(body.get("blocked")), body.get("from"), body.get("until")),
        )
    except (ValueError, KeyError, TypeError):
        return None
