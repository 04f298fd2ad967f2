"""The store's part that watches over itself: the ledger applied, the audit written, read and verified."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

from edge_face import audit
from edge_face.database import BUSY_TIMEOUT_S
from edge_face.errors import StoreError
from edge_face.ledger import apply, missing
from edge_face.visitors import VisitorStore

_log = logging.getLogger(__name__)

AT_ONCE = 2000
"""Rows of the audit that are read in one go."""
FAILED_EVERY_S = 60.0
"""Wrong logins: one row in this time, with their number; anybody may cause them."""


class OversightStore(VisitorStore):
    """Raises StoreError, like the rest of the store."""

    _failed_logins = 0
    _failed_noted_at = float("-inf")

    def apply_ledger(self, wait_s: float = BUSY_TIMEOUT_S) -> int:
        """Make true what must not come back: this file may be an older one. Returns how many things were changed.

        While that cannot be written, nobody whom it concerns passes. Raises StoreError where nothing can be read.
        """
        ledger, told = self.ledger, bool(self.ledger.withheld)
        with self.reading() as db:  # first: mostly there is nothing to do, and then a full disk hinders nobody
            ledger.withheld = frozenset(change.about for change in missing(db, ledger.read()))
        if not ledger.withheld:
            return 0
        try:
            with self.writing(wait_s) as db:
                changed = apply(db, ledger.read())
                audit.note(db, self._clock.wall(), "ledger applied", {"changes": changed})
        except StoreError as error:
            if not told:
                _log.error("whoever was removed or blocked is kept out, and stays in the database for now: %s", error)
            return 0
        ledger.withheld = frozenset()
        _log.warning("%d removals, blocks or revocations were missing in the database, and hold again", changed)
        self.scrub_log()
        return changed

    def note_start(self, version: str, configuration: str) -> None:
        """A start, and, where it is another one than at the last start, the configuration (secrets masked)."""
        with self.writing() as db:
            audit.note(db, self._clock.wall(), "started", {"version": version})
        self.note_configuration(configuration)

    def note_configuration(self, configuration: str) -> None:
        """The configuration that is in force from now on, if it has changed. Also after a reload."""
        settings = _settings(configuration)
        with self.writing() as db:
            row = db.execute("SELECT value FROM secrets WHERE name = 'configuration'").fetchone()
            before = json.loads(row[0]) if row else {}
            changed = {
                key: settings.get(key) for key in sorted({*before, *settings}) if before.get(key) != settings.get(key)
            }
            if changed:
                audit.note(db, self._clock.wall(), "configured", changed if row else {"first": True})
                value = json.dumps(settings, ensure_ascii=False).encode()
                db.execute("INSERT OR REPLACE INTO secrets VALUES ('configuration', ?)", (value,))

    def note_login(self, address: str, role: str) -> None:
        """Somebody began a session, as `admin` or `viewer`."""
        with self.writing() as db:
            audit.note(db, self._clock.wall(), "login", {"address": address, "role": role})

    def note_failed_login(self, address: str) -> None:
        now = self._clock.monotonic()
        self._failed_logins += 1
        if now - self._failed_noted_at < FAILED_EVERY_S:
            return
        with self.writing() as db:
            data = {"address": address, "count": self._failed_logins}
            audit.note(db, self._clock.wall(), "login failed", data)
        self._failed_logins, self._failed_noted_at = 0, now

    def audit_rows(self, since: float | None = None, until: float | None = None) -> list[dict[str, Any]]:
        """Oldest first."""
        with self.reading() as db:
            return list(audit.rows(db, since, until))

    def audit_of(self, person_id: str) -> Iterator[dict[str, Any]]:
        """The rows about one person, oldest first; read a piece at a time, as no decision should wait for them."""
        with self.reading() as db:
            first, last = audit.span(db)
        while first <= last:
            with self.reading() as db:
                found = list(audit.rows_of(db, person_id, first, first + AT_ONCE))
            yield from found
            first += AT_ONCE

    def note_export(self, person_id: str) -> None:
        """All that is stored of that person is handed out."""
        with self.writing() as db:
            audit.note(db, self._clock.wall(), "exported", audit.person(db, person_id))

    def verify_audit(self, known: audit.Head | None = None) -> audit.Verdict:
        with self.reading() as db:
            return audit.verify(db, known)

    def audit_head(self) -> str:
        with self.reading() as db:
            return str(audit.head(db))


def _settings(text: str) -> dict[str, str]:
    """`section.key` to value, of an effective configuration's text."""
    found, section = {}, ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, _, value = line.partition(" =")
            found[f"{section}.{key}"] = value.strip()
    return found
