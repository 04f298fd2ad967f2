"""`edge-face templates`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from edge_face import config, settings
from edge_face.backups import Backups
from edge_face.clock import SystemClock
from edge_face.commands.session import open_store
from edge_face.database import lock_for_daemon
from edge_face.errors import ConfigError, StoreError
from edge_face.store import Store
from edge_face.vault import Vault, named, new_key


def templates(args: argparse.Namespace) -> int:
    if args.new_key:
        print(new_key())
        return 0
    configured = config.load(args.config)
    storage = configured.storage
    if args.encrypt:
        return _change(storage, "", _needed(storage, "template_key"))
    if args.decrypt:
        return _change(storage, _needed(storage, "template_key"), "")
    if args.rekey:
        return _change(storage, _needed(storage, "old_template_key"), _needed(storage, "template_key"))
    return _show(configured)


def _needed(storage: settings.Storage, key: str) -> str:
    value: str = getattr(storage, key)
    if not value:
        raise ConfigError([f"[storage] {key}: it is needed for this; edge-face templates --new-key prints a new one"])
    return value


def _change(storage: settings.Storage, old: str, new: str) -> int:
    database = Path(storage.path)
    if not database.is_file():
        raise StoreError(f"There is no database {database}")
    before, after = Vault(old), Vault(new)
    with lock_for_daemon(database):
        store = Store(database, SystemClock(), template_key=new)
        try:
            unread = store.change_key(before)
        finally:
            store.close()
        strange = []
        if storage.backups_folder:
            strange = Backups(database, Path(storage.backups_folder)).change_key(before, after)
    if new:
        print(f"the templates in the database and its daily backups are encrypted with {named(after.mark)}")
    else:
        print("the templates are not encrypted any more; now take [storage] template_key away")
    if unread:
        print(f"edge-face: {unread} could not be read, and stay as they were", file=sys.stderr)
    for file in strange:
        print(f"edge-face: {file} is encrypted with another key, and stays as it was", file=sys.stderr)
    return 1 if unread or strange else 0


def _show(configured: settings.Config) -> int:
    store = open_store(configured)
    try:
        rows = store.gallery()
    finally:
        store.close()
    how = f"encrypted with {named(Vault(configured.storage.template_key).mark)}" if store.encrypted else "not encrypted"
    print(f"{how}; people: {len(rows.persons)}, faces: {len(rows.owners)}")
    if store.unreadable:
        print(f"edge-face: {store.unreadable} cannot be read", file=sys.stderr)
    return 1 if store.unreadable else 0
