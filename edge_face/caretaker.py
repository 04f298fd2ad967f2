"""The daemon's part of looking after the data: when backups are made and relieved, and how it went."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

from edge_face import __version__, settings
from edge_face.backups import Backups
from edge_face.clock import Clock
from edge_face.config import effective_text
from edge_face.database import lock_for_daemon
from edge_face.errors import StoreError
from edge_face.events import utc
from edge_face.restore import Restored, recover
from edge_face.store import Store
from edge_face.vault import Vault

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
SETTLE_S = 600.0
"""After a start: a box that restarts again and again must not spend itself on backups."""
DAY_S = 86_400.0
RETRY_S = 3600.0


def open_store(config: settings.Config, clock: Clock, locks: ExitStack | AsyncExitStack) -> tuple[Store, Caretaker]:
    """Lock the database for this daemon, replace it by a backup if it is damaged, and account for the start.

    Raises StoreError.
    """
    storage = config.storage
    database, folder = Path(storage.path), Path(storage.backups_folder) if storage.backups_folder else None
    locks.enter_context(lock_for_daemon(database))
    vault = Vault(storage.template_key)
    restored = recover(database, folder, clock.wall(), vault)
    if restored:
        locks.enter_context(lock_for_daemon(database))  # it is another file now
    store = Store(database, clock, template_key=storage.template_key)
    try:
        store.check_key()
        store.apply_ledger()
    except StoreError:  # nobody knows who may not pass any more
        store.close()
        raise
    try:
        store.note_start(__version__, effective_text(config))
    except StoreError as error:
        _log.error("the start cannot be written down: %s", error)
    return store, Caretaker(store, folder, clock, restored)


class Caretaker:
    def __init__(self, store: Store, folder: Path | None, clock: Clock, restored: Restored | None = None) -> None:
        """`folder`: where the backups are; None: there are none."""
        self._store = store
        self._folder = folder
        self._backups = Backups(store.path, folder) if folder else None
        self._clock = clock
        self._head = ""
        self._head_told_at = float("-inf")
        self._scrubbed = -1
        self._scrub_at = clock.monotonic()
        self._backup_at = clock.monotonic() + SETTLE_S
        self._error = ""
        self._unusable = ""
        self._count = 0
        self._latest: float | None = None
        self.restored = restored
        """Why health is not ok until the next start: a damaged database was replaced."""

    async def run(self) -> None:
        if self._backups:
            with contextlib.suppress(OSError):  # told below
                self._backup_at += await asyncio.to_thread(self._early, self._backups)
        while True:
            await self.look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def look(self) -> None:
        """Do what is due."""
        with contextlib.suppress(StoreError):  # whoever needs the database more logs it
            self._head = await asyncio.to_thread(self._store.audit_head)
        now = self._clock.monotonic()
        if self._head and now - self._head_told_at >= DAY_S:
            _log.info("the audit's head is %s", self._head)
            self._head_told_at = now
        if self._backups:
            try:
                await self._keep(self._backups, now)
                self._unusable = ""
            except OSError as error:  # a stick that was pulled out, a share that is away: no matter of the gate
                if not self._unusable:
                    _log.error("the backups: %s cannot be used: %s", self._folder, error.strerror)
                self._unusable = f"{self._folder} cannot be used: {error.strerror}"

    async def _keep(self, backups: Backups, now: float) -> None:
        if now >= self._scrub_at and (size := await asyncio.to_thread(self._store.ledger.size)) != self._scrubbed:
            if not await asyncio.to_thread(backups.files) or await self._do("scrub"):
                self._scrubbed = size
            else:
                self._scrub_at = now + RETRY_S
        if now >= self._backup_at:
            self._backup_at = now + (DAY_S if await self._do("make") else RETRY_S)
        self._count, self._latest = await asyncio.to_thread(_found, backups)

    @property
    def healthy(self) -> bool:
        return not self.restored and not self._store.unreadable

    def payload(self) -> dict[str, Any]:
        return {
            "audit_head": self._head,
            "restored": self.restored.payload() if self.restored else None,
            "templates": {"encrypted": self._store.encrypted, "unreadable": self._store.unreadable},
            "backups": {
                "count": self._count,
                "latest": None if self._latest is None else utc(self._latest),
                "error": self._unusable or self._error,
            },
        }

    def _early(self, backups: Backups) -> float:
        """Seconds until the next one is due, as the last run has made one; 0 if the clock makes no sense of it."""
        _, latest = _found(backups)
        age = DAY_S if latest is None else self._clock.wall() - latest
        return DAY_S - age if 0 <= age < DAY_S else 0.0

    async def _do(self, what: str) -> bool:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "edge_face.backups", what, str(self._store.path), str(self._folder)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        try:
            _, said = await process.communicate()
        finally:
            if process.returncode is None:  # the daemon ends; what is half done is left out, or done at the next start
                process.kill()
                await process.wait()
        self._error = "" if not process.returncode else said.decode(errors="replace").strip().rpartition("\n")[2]
        if self._error:
            _log.error("the backups: %s", self._error)
        return not process.returncode


def _found(backups: Backups) -> tuple[int, float | None]:
    """How many there are, and when the newest was written."""
    files = backups.files()
    return len(files), files[0].stat().st_mtime if files else None
