"""Unknown visitors in the database: who came that nobody knows, how often, and what the face is like.

Templates and picture are of one and the same visit, the one best seen, so that whoever enrols the face in the picture
enrols no other. One that is ignored keeps its templates, to be known again, and loses the picture.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edge_face.attendance import AttendanceStore
from edge_face.blobs import from_blobs, to_blob
from edge_face.errors import NotFoundError, StoreError
from edge_face.events import Encoding
from edge_face.ledger import Entry
from edge_face.names import key_text
from edge_face.pages import Page, after_of, page_of, rows_for

MOST_VISITORS = 1000
"""Kept at once, about 10 MB. Whoever came longest ago gives way."""
CLEARLY_BETTER = 1.2
"""A visit whose best view is so many times better than the one that is kept replaces it."""
WRITE_WAIT_S = 0.2
"""A visit is not worth holding up events while another program writes."""

_COLUMNS = "id, first_seen, last_seen, visits, cameras, length(encodings) / 512, ignored, clock_synced"


@dataclass(frozen=True, slots=True)
class Visitor:
    """An unknown visitor. Times are Unix seconds, as the clock said."""

    id: str
    first_seen: float
    last_seen: float
    visits: int
    cameras: tuple[str, ...]
    faces: int
    """How many templates are kept."""
    ignored: bool
    clock_synced: bool


@dataclass(frozen=True, eq=False, slots=True)
class SeenVisit:
    """One visit of somebody unknown. `encodings`: the best view first, of which `quality` (0 to 1) and `jpeg` are."""

    camera: str
    timestamp: float
    seen: float
    """Seconds of `Clock.monotonic`."""
    clock_synced: bool
    encodings: Sequence[Encoding]
    quality: float
    jpeg: bytes


class VisitorStore(AttendanceStore):
    """The unknown visitors beside the attendance rows."""

    def note_visitor(self, id: str, visit: SeenVisit, most: int = MOST_VISITORS) -> int:
        """Another visit of the visitor with that id, or the first one; returns how many others gave way.

        Raises StoreError, ValueError (an encoding is not 128 finite numbers).
        """
        values: dict[str, Any] = {
            "id": id,
            "at": visit.timestamp,
            "quality": visit.quality,
            "boot": self._boot,
            "seen": visit.seen,
            "synced": visit.clock_synced,
        }
        encodings = b"".join(to_blob(encoding) for encoding in visit.encodings)
        values["encodings"], values["seal"] = self._vault.put(encodings, "unknown", id)
        with self.writing(WRITE_WAIT_S) as db:
            self._vault.check(db, writing=True)
            query = "SELECT cameras, quality, ignored FROM unknowns WHERE id = ?"
            cameras, quality, ignored = db.execute(query, (id,)).fetchone() or ("[]", 0.0, False)
            values["cameras"] = json.dumps(sorted({*json.loads(cameras), visit.camera}))
            (values["latest"],) = db.execute("SELECT coalesce(max(latest), 0) + 1 FROM unknowns").fetchone()
            db.execute(
                "INSERT INTO unknowns VALUES "
                "(:id, :latest, :at, :at, 1, :cameras, 0, :quality, :encodings, :boot, :seen, :synced, :seal) "
                "ON CONFLICT (id) DO UPDATE SET latest = :latest, last_seen = :at, visits = visits + 1, "
                "cameras = :cameras, boot_id = :boot, seen = :seen, clock_synced = :synced",
                values,
            )
            if visit.quality > CLEARLY_BETTER * quality:
                better = "quality = :quality, encodings = :encodings, seal = :seal"
                db.execute(f"UPDATE unknowns SET {better} WHERE id = :id", values)  # noqa: S608  # a constant
                if not ignored:
                    jpeg, seal = self._vault.put(visit.jpeg, "unknown picture", id)
                    db.execute("INSERT OR REPLACE INTO unknown_pictures VALUES (?, ?, ?)", (id, jpeg, seal))
            surplus = "SELECT id FROM unknowns ORDER BY latest DESC LIMIT -1 OFFSET ?"
            gone = db.execute(f"DELETE FROM unknowns WHERE id IN ({surplus})", (most,)).rowcount  # noqa: S608  # constants
        if gone:
            self.scrub_log(WRITE_WAIT_S)
        return gone

    def visitors(self, limit: int | None = 100, cursor: str | None = None, *, ignored: bool = False) -> Page[Visitor]:
        """Who came last stands first; either those that are ignored, or the others. Raises RequestError."""
        wanted = "ignored = :ignored AND (:after IS NULL OR latest < :after)"
        values = {"ignored": ignored, "after": after_of(cursor, "u"), "rows": rows_for(limit)}
        query = f"SELECT {_COLUMNS}, latest FROM unknowns WHERE {wanted} ORDER BY latest DESC LIMIT :rows"  # noqa: S608  # constants
        with self.reading() as db:
            rows = db.execute(query, values).fetchall()
        return page_of([(row[:-1], row[-1]) for row in rows], limit, "u", _visitor)

    def visitor(self, id: str) -> Visitor:
        """Raises NotFoundError."""
        with self.reading() as db:
            return _get(db, id)

    def visitor_faces(self, id: str) -> list[Encoding]:
        """The templates of a visitor who is not ignored, the best first. Raises NotFoundError."""
        query = "SELECT encodings, seal FROM unknowns WHERE id = ? AND NOT ignored"
        with self.reading() as db:
            row = db.execute(query, (key_text(id),)).fetchone()
        if row is None:
            raise _not_found(id)
        return list(from_blobs(self._decrypted(*row, "unknown", key_text(id))))

    def visitor_picture(self, id: str) -> bytes:
        """As JPEG. Raises NotFoundError."""
        with self.reading() as db:
            row = db.execute("SELECT jpeg, seal FROM unknown_pictures WHERE id = ?", (key_text(id),)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no picture of an unknown visitor {id}")
        return self._decrypted(*row, "unknown picture", key_text(id))

    def visitor_templates(self) -> list[tuple[str, npt.NDArray[np.float32]]]:
        """Id and templates (n, 128) of all, those that are ignored as well."""
        with self.reading() as db:
            rows = db.execute("SELECT id, encodings, seal FROM unknowns ORDER BY id").fetchall()
        found = []
        for id, blobs, seal in rows:
            with suppress(StoreError):  # the disk may be damaged, or the key another one
                encodings = from_blobs(self._decrypted(blobs, seal, "unknown", id))
                if np.isfinite(encodings).all():
                    found.append((id, encodings))
        return found

    def ignore_visitor(self, id: str) -> Visitor:
        """Not to be listed any more; the picture is erased. Raises NotFoundError."""
        with self.writing() as db:
            visitor = _get(db, id)
            db.execute("UPDATE unknowns SET ignored = 1 WHERE id = ?", (visitor.id,))
            db.execute("DELETE FROM unknown_pictures WHERE id = ?", (visitor.id,))
            visitor = _get(db, id)
        self.scrub_log()
        return visitor

    def erase_visitors(self, ids: Sequence[str]) -> int:
        """Forget them wholly, and for ever; returns how many there were."""
        return self._erase([key_text(id) for id in ids], for_ever=True)

    def _erase(self, ids: Sequence[str], *, for_ever: bool) -> int:
        with self.writing() as db:
            erased = db.execute(
                "DELETE FROM unknowns WHERE id IN (SELECT value FROM json_each(?))",
                (json.dumps(ids),),
            ).rowcount
            if erased and for_ever:
                self.ledger.write(*(Entry("visitor", id) for id in ids))
        if erased:
            self.scrub_log()
        return erased

    def forget_visitors(self) -> int:
        """Erase all; returns how many there were."""
        return self.erase_all("unknowns")

    def purge_visitors(self, before: float, batch: int) -> int:
        """Erase up to `batch` whose last visit is older than `before` (Unix seconds); returns how many.

        A visit of a time without a clock is as old as the next one whose time is known.
        """
        old = "clock_synced AND last_seen < :before"
        undated = f"NOT clock_synced AND latest < (SELECT max(latest) FROM unknowns WHERE {old})"  # noqa: S608  # constants
        # The undated first: what is dated tells their age, and must still be there for the next batch.
        query = f"SELECT id FROM unknowns WHERE {old} OR {undated} ORDER BY clock_synced, latest LIMIT :batch"  # noqa: S608  # constants
        with self.reading() as db:
            ids = [row[0] for row in db.execute(query, {"before": before, "batch": batch})]
        return self._erase(ids, for_ever=False) if ids else 0

    def date_events(self) -> int:
        dated = super().date_events()
        query = (
            "UPDATE unknowns SET last_seen = :booted + seen, clock_synced = 1, "
            "first_seen = iif(visits = 1, :booted + seen, min(first_seen, :booted + seen)) "
            "WHERE boot_id = :boot AND NOT clock_synced"
        )
        values = {"booted": self._clock.wall() - self._clock.monotonic(), "boot": self._boot}
        with self.writing() as db:
            return dated + db.execute(query, values).rowcount


def _get(db: sqlite3.Connection, id: str) -> Visitor:
    row = db.execute(f"SELECT {_COLUMNS} FROM unknowns WHERE id = ?", (key_text(id),)).fetchone()  # noqa: S608  # constants
    if row is None:
        raise _not_found(id)
    return _visitor(row)


def _not_found(id: str) -> NotFoundError:
    return NotFoundError(f"There is no unknown visitor {id}")


def _visitor(row: Sequence[Any]) -> Visitor:
    id, first_seen, last_seen, visits, cameras, faces, ignored, clock_synced = row
    return Visitor(
        *(id, first_seen, last_seen, visits, tuple(json.loads(cameras)), faces), bool(ignored), bool(clock_synced)
    )
