"""Templates and pictures of faces encrypted in the database, where a key is configured (`[storage] template_key`).

AES-256-GCM. The data stay in their column, as long as they were; nonce and tag are the row's `seal`, which is NULL
where nothing is encrypted. Each is bound to its place, that is to its row and its person, so whoever can write the file
cannot give one person's face to another, nor bring back a face under a number or a date by which the ledger misses it.

`secrets` holds a digest of the key, which tells a missing or wrong key from a damaged row. It is there if and only if
the database is encrypted, and only `edge-face templates` (rekey.py) changes that, but for a database without any face:
otherwise a file in which nothing is encrypted could be slipped in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import sqlite3
from functools import cached_property
from typing import TYPE_CHECKING

from edge_face.errors import TemplateKeyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
_MARK = "template_key"
_NONCE = 12
FACES = "templates JOIN people ON people.id = person_id"
FACE_PLACE = "'face', templates.id, templates.created_at, person_id, people.created_at"
"""A template's, of FACES. The times are what the ledger knows faces and persons by."""
_FILLED = "SELECT EXISTS (SELECT 1 FROM templates) OR EXISTS (SELECT 1 FROM unknowns)"


class Unreadable(Exception):
    """This one cannot be decrypted; the text says why."""


def new_key() -> str:
    """As the configuration holds it."""
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def parse_key(text: str) -> bytes:
    """Empty: none. Raises ValueError, without the key."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b"?"
    if len(key) not in (0, KEY_BYTES):
        raise ValueError(f"expected {KEY_BYTES} bytes in base64, as edge-face templates --new-key prints them")
    return key


class Vault:
    """Without a key it hands everything through, and refuses what is encrypted."""

    def __init__(self, key: str = "") -> None:
        self._key = parse_key(key)
        self.mark = hmac.digest(self._key, b"edge-face key check", hashlib.sha256)[:8] if self._key else b""
        """Which key it is, without telling anything of it."""

    @cached_property
    def _aes(self) -> AESGCM:
        # Imported here: most gates need neither its memory nor its time.
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(hmac.digest(self._key, b"edge-face templates", hashlib.sha256))

    def put(self, data: bytes, *place: object) -> tuple[bytes, bytes | None]:
        """What is to be stored at that place: the data as long as before, and the seal."""
        if not self._key:
            return data, None
        nonce = os.urandom(_NONCE)
        sealed = self._aes.encrypt(nonce, data, _bound(place))
        return sealed[: len(data)], nonce + sealed[len(data) :]

    def get(self, data: bytes, seal: bytes | None, *place: object) -> bytes:
        """What `put` was given. Raises Unreadable."""
        if seal is None and not self._key:
            return data
        if seal is None:
            raise Unreadable("it is not encrypted, and everything else is")
        if not self._key:
            raise Unreadable("it is encrypted, and nothing else is")
        from cryptography.exceptions import InvalidTag

        try:
            return self._aes.decrypt(seal[:_NONCE], data + seal[_NONCE:], _bound(place))
        except (InvalidTag, ValueError):
            raise Unreadable("it was altered, or belongs to another place") from None

    def check(self, db: sqlite3.Connection, *, writing: bool = False) -> None:
        """That this is the key of that database. Raises TemplateKeyError, in words for whoever set it up.

        `writing`: in a transaction that writes, and the first face decides whether the database is encrypted.
        """
        mark = mark_of(db)
        if mark == self.mark:
            return
        if not self._key:
            message = f"the templates are encrypted with {named(mark)}, and [storage] template_key is empty"
        elif mark:
            message = f"the templates are encrypted with {named(mark)}; template_key is another: {named(self.mark)}"
        elif db.execute(_FILLED).fetchone()[0]:
            message = "there is a template_key, but they are not encrypted: edge-face templates --encrypt does it"
        else:
            if writing:
                set_mark(db, self.mark)
            return
        raise TemplateKeyError(f"The faces cannot be used: {message}", reason="the key of the templates does not fit")


def named(mark: bytes) -> str:
    return f"the key {mark.hex()}" if mark else "no key"


def mark_of(db: sqlite3.Connection) -> bytes:
    """Of the key with which the database is encrypted; empty: it is not."""
    row = db.execute("SELECT value FROM secrets WHERE name = ?", (_MARK,)).fetchone()
    return bytes(row[0]) if row else b""


def set_mark(db: sqlite3.Connection, mark: bytes) -> None:
    if mark:
        db.execute("INSERT OR REPLACE INTO secrets VALUES (?, ?)", (_MARK, mark))
    else:
        db.execute("DELETE FROM secrets WHERE name = ?", (_MARK,))


def _bound(place: tuple[object, ...]) -> bytes:
    return json.dumps(place).encode()
