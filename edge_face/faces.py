"""The store's part for the templates: written, and read as one gallery; encrypted where there is a key (vault.py)."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from edge_face import audit
from edge_face.blobs import from_blobs
from edge_face.errors import StoreError
from edge_face.events import Encoding, Person
from edge_face.gallery import GalleryRows
from edge_face.oversight import OversightStore
from edge_face.rekey import convert
from edge_face.vault import FACE_PLACE, FACES, Unreadable, Vault

_log = logging.getLogger(__name__)

PEOPLE = (
    "SELECT id, name, external_id, (SELECT count(*) FROM templates WHERE person_id = people.id), created_at, "
    '"group", valid_from, valid_until, blocked FROM people'
)


@dataclass(frozen=True, slots=True)
class EnrolledFace:
    """One enrolled face, without its encoding. `thumbnail`: whether a picture of it is kept."""

    id: int
    created_at: float
    thumbnail: bool = False


class FaceStore(OversightStore):
    """Raises StoreError, like the rest of the store."""

    unreadable = 0
    """Faces that the last gallery had to leave out."""

    @property
    def encrypted(self) -> bool:
        return bool(self._vault.mark)

    def check_key(self) -> None:
        """That the faces in the database can be used with the key. Raises StoreError."""
        with self.reading() as db:
            self._vault.check(db)

    def change_key(self, old: Vault) -> int:
        """Encrypt with this store's key what `old` had encrypted; returns how many could not be read.

        Nobody else may be at work with the database. Raises TemplateKeyError.
        """

        def note(db: sqlite3.Connection) -> None:
            audit.note(db, self._clock.wall(), "templates encrypted", {"key": self._vault.mark.hex()})

        return self.rewrite(lambda db: convert(db, old, self._vault, note))

    def _insert_faces(
        self, db: sqlite3.Connection, owner: str, blobs: Sequence[bytes], thumbnails: Sequence[bytes | None], now: float
    ) -> None:
        if not blobs:
            return
        self._vault.check(db, writing=True)
        # A face is bound to its number, which there is only once the row is there.
        insert = "INSERT INTO templates (person_id, encoding, created_at) VALUES (?, zeroblob(512), ?)"
        place = f"SELECT {FACE_PLACE} FROM {FACES} WHERE templates.id = ?"  # noqa: S608  # constants
        for blob, thumbnail in zip(blobs, thumbnails or [None] * len(blobs), strict=True):
            face_id = db.execute(insert, (owner, now)).lastrowid
            data, seal = self._vault.put(blob, *db.execute(place, (face_id,)).fetchone())
            db.execute("UPDATE templates SET encoding = ?, seal = ? WHERE id = ?", (data, seal, face_id))
            if thumbnail is not None:
                data, seal = self._vault.put(thumbnail, "thumbnail", face_id, owner)
                db.execute("INSERT INTO thumbnails VALUES (?, ?, ?)", (face_id, data, seal))

    def templates(self, person_id: str) -> dict[int, Encoding]:
        """Of one person, by the faces' numbers. Raises StoreError where one cannot be read."""
        query = f"SELECT {FACE_PLACE}, encoding, seal FROM {FACES} WHERE person_id = ?"  # noqa: S608  # constants
        with self.reading() as db:
            self._vault.check(db)
            rows = db.execute(query, (person_id,)).fetchall()
        return {place[1]: from_blobs(self._decrypted(data, seal, *place))[0] for *place, data, seal in rows}

    def forget_thumbnails(self) -> int:
        """Erase all pictures of faces; returns how many."""
        return self.erase_all("thumbnails")

    def gallery_revision(self) -> int:
        """Grows with every change of people or templates, by whichever process; cheap enough to ask every second."""
        if self.ledger.withheld:
            self.apply_ledger(wait_s=0)
        with self.reading() as db:
            return revision_of(db)

    def gallery(self) -> GalleryRows:
        """All templates, as of one moment. Raises StoreError if one of them is damaged, or the key does not fit.

        One that cannot be decrypted is left out, and told: the others open as before, and nobody by that one. So is
        whoever should not be there any more and cannot be erased yet.
        """
        query = f"SELECT {FACE_PLACE}, encoding, seal FROM {FACES} ORDER BY person_id, templates.id"  # noqa: S608  # constants
        with self.reading() as db:
            self._vault.check(db)
            revision = revision_of(db)
            people = [person_of(row) for row in db.execute(f"{PEOPLE} ORDER BY id")]
            persons = tuple(person for person in people if person.faces and person.id not in self.ledger.withheld)
            rows = [row for row in db.execute(query) if row[3] not in self.ledger.withheld]
        numbers = {person.id: number for number, person in enumerate(persons)}
        blobs, faces = [], []
        for *place, data, seal in rows:
            _, face, _, owner, _ = place
            number = numbers[owner]
            try:
                blobs.append(self._vault.get(data, seal, *place))
                faces.append(number)
            except Unreadable as error:
                _log.error("face %d of %s is left out: %s", face, persons[number].name, error)
        self.unreadable = len(rows) - len(blobs)
        matrix, owners = from_blobs(b"".join(blobs)), np.array(faces, np.int32)
        damaged = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
        if damaged.size:
            name = persons[owners[damaged[0]]].name
            raise StoreError(f"The database {self.path} is damaged: a template of {name} is not a number")
        matrix.flags.writeable = owners.flags.writeable = False
        return GalleryRows(revision, persons, owners, matrix)


def person_of(row: Sequence[Any]) -> Person:
    return Person(*(*row[:-1], bool(row[-1])))


def revision_of(db: sqlite3.Connection) -> int:
    return int(db.execute("SELECT value FROM counters WHERE name = 'gallery'").fetchone()[0])
