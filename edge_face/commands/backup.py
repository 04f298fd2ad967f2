"""`edge-face backup` and `edge-face restore`."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import secrets
import sys
import time
from functools import partial
from pathlib import Path

from edge_face import backup as backups
from edge_face import config
from edge_face.backups import Backups
from edge_face.database import lock_for_daemon
from edge_face.errors import BackupError, EdgeFaceError
from edge_face.events import utc
from edge_face.restore import restore as put_back
from edge_face.vault import Vault

_ATTEMPTS = 3


def backup(args: argparse.Namespace) -> int:
    database = Path(config.load(args.config).storage.path)
    passphrase = _new_passphrase(args)
    if not database.is_file():
        raise BackupError(f"There is no database {database}")
    copy = database.with_name(f".{database.name}.copy-{secrets.token_hex(4)}")
    try:
        ledger = backups.snapshot(database, copy)
        backups.pack(copy, args.file, ledger, time.time(), passphrase)
    finally:
        copy.unlink(missing_ok=True)
    print(f"wrote {args.file} ({args.file.stat().st_size} bytes{', encrypted' if passphrase else ''})")
    return 0


def restore(args: argparse.Namespace) -> int:
    storage = config.load(args.config).storage
    database, there = Path(storage.path), Path(storage.path).exists()
    header = backups.header(args.file)
    passphrase = ""
    if header.cipher:
        passphrase = _read_file(args.passphrase_file) if args.passphrase_file else getpass.getpass("passphrase: ")
    try:
        with lock_for_daemon(database):
            keep = partial(_keep_present, database, Path(storage.backups_folder))
            before = keep if there and storage.backups_folder else lambda: None
            done = put_back(args.file, database, time.time(), passphrase, before, Vault(storage.template_key))
    except (EdgeFaceError, OSError):
        if not there:
            with contextlib.suppress(OSError):
                if not database.stat().st_size:
                    database.unlink()
        raise
    print(f"restored the backup of {utc(done.created_at)}; what was removed or blocked since stays so")
    return 0


def _keep_present(database: Path, folder: Path) -> None:
    """As one of the daily backups, should this restore be a mistake."""
    try:
        kept = Backups(database, folder).make(time.time())
    except (BackupError, OSError) as error:
        print(f"edge-face: the present database could not be kept: {error}", file=sys.stderr)
    else:
        print(f"kept the present database as {kept}")


def _new_passphrase(args: argparse.Namespace) -> str:
    if args.passphrase_file:
        return _read_file(args.passphrase_file)
    if not args.encrypt:
        return ""
    for _ in range(_ATTEMPTS):
        first = getpass.getpass("passphrase: ")
        if first and first == getpass.getpass("again: "):
            return first
        print("edge-face: the two are not the same, or empty", file=sys.stderr)
    raise BackupError("No backup was made")


def _read_file(file: Path) -> str:
    """The first line."""
    passphrase = file.read_text(encoding="utf-8").partition("\n")[0].strip()
    if not passphrase:
        raise BackupError(f"There is no passphrase in {file}")
    return passphrase
