"""A backup: a copy of the database in one file, compressed, checksummed, and, with a passphrase, encrypted.

    edge-face backup 1\\n
    one line of JSON: when, by which version, how many bytes the database has, how it is encrypted
    blocks: length (4 bytes, big-endian) and so many bytes of one zlib stream; the length 0 ends them
    SHA-256 of all of that

Encrypted blocks are AES-256-GCM with a key of their own for each file (scrypt). The nonce is the block's number and
whether it is the last, and the first two lines are authenticated with each: blocks that are missing, moved or cut off
are found, as is a header that was altered.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sqlite3
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from edge_face import __version__, migrations
from edge_face.errors import BackupError
from edge_face.folders import new_private, whole_file
from edge_face.ledger import Ledger

MAGIC = b"edge-face backup 1\n"
BLOCK = 256 * 1024
_MAX_HEADER = 4096
_SCRYPT = {"n": 2**15, "r": 8, "p": 1}
"""32 MiB and some tenths of a second on a small board, for each guess."""
_SCRYPT_MEMORY = 64 << 20

Crypt = Callable[[bytes, bool], bytes]
"""Encrypts or decrypts the next block; told whether it is the last."""


@dataclass(frozen=True, slots=True)
class Header:
    created_at: float
    """Unix seconds."""
    version: str
    size: int
    """Bytes of the database."""
    ledger: int
    """Bytes of the ledger that were in force: what was removed after that is still in this backup."""
    cipher: dict[str, Any] | None = None

    def line(self) -> bytes:
        body = {name: getattr(self, name) for name in self.__slots__}
        return json.dumps(body, separators=(",", ":")).encode() + b"\n"


def snapshot(database: Path, copy: Path) -> int:
    """Copy the database while it is in use, as of one moment, and check the copy; returns the ledger's size of then.

    Raises BackupError when it is damaged: that would replace a good backup by a bad one.
    """
    os.close(new_private(copy))
    source = connect(database)
    target = connect(copy)
    try:
        # Under the write lock nobody is about to write into the ledger, so all up to here is in the copy.
        source.execute("BEGIN IMMEDIATE")
        size = Ledger(database).size()
        source.execute("COMMIT")
        source.backup(target)  # in one step: a writer in between would make it begin anew, for ever at a busy gate
        target.execute("PRAGMA journal_mode = DELETE")
        check_whole(target)
    except sqlite3.Error as error:
        raise BackupError(f"The database {database} cannot be copied: {error}") from error
    finally:
        source.close()
        target.close()
    return size


def check_whole(db: sqlite3.Connection) -> None:
    """That it is a database of ours without damage. Raises BackupError."""
    try:
        version = migrations.check(db)
        problems = [row[0] for row in db.execute("PRAGMA integrity_check(3)") if row[0] != "ok"]
    except (sqlite3.Error, migrations.UnsuitableDatabase) as error:
        raise BackupError(f"The database cannot be used: {error}") from error
    if not version:
        problems.append("it is empty")
    if problems:
        raise BackupError(f"The database is damaged: {'; '.join(problems)}")


def pack(copy: Path, file: Path, ledger: int, created_at: float, passphrase: str = "") -> None:
    """Write a backup of that copy: all of it, or an error and what was there before. Raises OSError."""
    cipher = {"name": "aes-256-gcm", "salt": secrets.token_hex(16), **_SCRYPT} if passphrase else None
    head = MAGIC + Header(created_at, __version__, copy.stat().st_size, ledger, cipher).line()
    encrypt = _crypt(head, cipher, passphrase, encrypting=True)
    with copy.open("rb") as source, whole_file(file) as out:
        digest = hashlib.sha256()

        def write(data: bytes) -> None:
            digest.update(data)
            out.write(data)

        write(head)
        for block, last in _with_last(_compressed(source)):
            block = encrypt(block, last)
            write(len(block).to_bytes(4, "big") + block)
        write(bytes(4))
        out.write(digest.digest())


def header(file: Path) -> Header:
    """What a backup says of itself. Raises BackupError; OSError."""
    with file.open("rb") as source:
        return _header(source)[0]


def unpack(file: Path, copy: Path, passphrase: str = "") -> Header:
    """Write the database of a backup, after all of it was verified. Raises BackupError; OSError."""
    try:
        with file.open("rb") as source, os.fdopen(new_private(copy), "wb") as out:
            found, head = _header(source)
            _verify(source, head)
            decrypt = _crypt(head, found.cipher, passphrase, encrypting=False)
            unzip, left = zlib.decompressobj(), found.size
            for block, last in _with_last(_blocks(source)):
                data = unzip.decompress(decrypt(block, last), left + 1)
                left -= len(data)
                if left < 0 or unzip.unconsumed_tail:
                    raise BackupError(f"{file} is damaged: it is larger than it says")
                out.write(data)
            if left or not unzip.eof:
                raise BackupError(f"{file} is damaged: it ends too early")
            out.flush()
            os.fsync(out.fileno())
    except zlib.error as error:
        raise BackupError(f"{file} is damaged: {error}") from error
    return found


def _header(source: BinaryIO) -> tuple[Header, bytes]:
    """The header, and its bytes; the blocks follow."""
    if source.read(len(MAGIC)) != MAGIC:
        raise BackupError(f"{source.name} is no backup of edge-face")
    line = source.readline(_MAX_HEADER)
    try:
        return Header(**json.loads(line)), MAGIC + line
    except (ValueError, TypeError) as error:
        raise BackupError(f"{source.name} is damaged: its header cannot be read") from error


def _verify(source: BinaryIO, head: bytes) -> None:
    """The checksum over everything, before anything is made of it; then stand behind the header again."""
    digest = hashlib.sha256(head)
    left = os.fstat(source.fileno()).st_size - len(head) - digest.digest_size
    while left > 0 and (data := source.read(min(left, BLOCK))):
        digest.update(data)
        left -= len(data)
    if left or source.read() != digest.digest():
        raise BackupError(f"{source.name} is damaged: its checksum does not fit")
    source.seek(len(head))


def _blocks(source: BinaryIO) -> Iterator[bytes]:
    while length := int.from_bytes(source.read(4), "big"):
        yield source.read(length)


def _compressed(source: BinaryIO) -> Iterator[bytes]:
    """Pieces of one zlib stream, none empty."""
    zipper, held = zlib.compressobj(), b""
    while data := source.read(BLOCK):
        held += zipper.compress(data)
        if len(held) >= BLOCK:
            yield held
            held = b""
    yield held + zipper.flush()


def _with_last(blocks: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    before = next(blocks, None)
    for block in blocks:
        assert before is not None
        yield before, False
        before = block
    if before is not None:
        yield before, True


def _crypt(head: bytes, cipher: dict[str, Any] | None, passphrase: str, *, encrypting: bool) -> Crypt:
    """Raises BackupError."""
    if cipher is None:
        return lambda block, _last: block
    # Imported here: a camera's gate needs neither its memory nor its time.
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    if not passphrase:
        raise BackupError("This backup is encrypted; its passphrase is needed", "passphrase")
    try:
        cost = {name: int(cipher[name]) for name in _SCRYPT}
        salt = bytes.fromhex(cipher["salt"])
        key = hashlib.scrypt(passphrase.encode(), salt=salt, dklen=32, maxmem=_SCRYPT_MEMORY, **cost)
    except (KeyError, TypeError, ValueError) as error:
        raise BackupError("The backup is damaged: its header does not say how it is encrypted") from error
    aes, number = AESGCM(key), 0

    def crypt(block: bytes, last: bool) -> bytes:
        nonlocal number
        nonce = number.to_bytes(11, "big") + bytes([last])
        number += 1
        try:
            return (aes.encrypt if encrypting else aes.decrypt)(nonce, block, head)
        except InvalidTag:
            raise BackupError("The passphrase is wrong, or the backup was altered", "passphrase") from None

    return crypt


def connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, timeout=30)
