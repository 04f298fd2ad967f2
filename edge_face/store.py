"""The store: people and their templates; with all the rest on one SQLite file (database.py)."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from msgspec import UNSET, UnsetType

from edge_face import audit
from edge_face.access import is_allowed
from edge_face.blobs import to_blob
from edge_face.database import StoreThread
from edge_face.erasure import erase_person, id_digest
from edge_face.errors import ConflictError, NotFoundError, RequestError
from edge_face.events import Encoding, Person
from edge_face.faces import PEOPLE, EnrolledFace, FaceStore, person_of, revision_of
from edge_face.gallery import Added, GalleryRows
from edge_face.ledger import Entry, face_key, person_key
from edge_face.names import clean_external_id, clean_group, clean_name, key_text
from edge_face.outbox import Backlog, OutboxItem, Target
from edge_face.pages import Page, after_of, page_of, rows_for
from edge_face.slugs import person_id

__all__ = [
    "Backlog", "By", "Changes", "EnrolledFace", "GalleryRows", "OutboxItem", "Page", "Store", "StoreThread", "Target",
    "clean_name",
]  # fmt: skip

_YEAR_10000 = 253_402_214_400.0
"""Less a day, as the year is another one elsewhere."""

By = Literal["any", "id", "name"]
"""How a person is looked up: `any` takes an id or an exact name."""

_LOOKUP: dict[By, str] = {"any": "id = :key OR name = :key", "id": "id = :key", "name": "name = :key"}


@dataclass(frozen=True, slots=True)
class Changes:
    """Of a person. UNSET leaves a value; None, or a blank text, takes it away."""

    name: str | UnsetType = UNSET
    external_id: str | UnsetType | None = UNSET
    group: str | UnsetType | None = UNSET
    valid_from: float | UnsetType | None = UNSET
    valid_until: float | UnsetType | None = UNSET
    blocked: bool | UnsetType = UNSET


class Store(FaceStore):
    """All that outlives the process. Every change is on the disk before its method returns.

    Any thread may call, one call runs at a time; the daemon and the command line use the same file at once. Raises
    StoreError when the database cannot be used.
    """

    def people(self, query: str | None = None, limit: int | None = None, cursor: str | None = None) -> Page[Person]:
        """People in the order in which they were added; `query`: part of the name, id, external id or group.

        Raises RequestError (`bad_cursor`).
        """
        wanted = (
            "number > :after AND (:query = '' OR instr(casefold(name), :query) OR instr(id, :query) "
            "OR instr(casefold(coalesce(external_id, '')), :query) OR instr(casefold(coalesce(\"group\", '')), :query))"
        )
        values = {
            "after": after_of(cursor, "p") or 0,
            "query": key_text(query or "").casefold(),
            "rows": rows_for(limit),
        }
        with self.reading_aside() as db:
            columns = PEOPLE.replace(" FROM people", ", number FROM people")
            rows = db.execute(f"{columns} WHERE {wanted} ORDER BY number LIMIT :rows", values).fetchall()
        return page_of([(row[:-1], row[-1]) for row in rows], limit, "p", person_of)

    def person(self, key: str, by: By = "any") -> Person | None:
        """Who has this id or exact name. Raises ConflictError where `any` means two people."""
        with self.reading() as db:
            return _find(db, key, by)

    def add_faces(
        self,
        name: str,
        encodings: Sequence[Encoding],
        external_id: str | None = None,
        thumbnails: Sequence[bytes | None] = (),
    ) -> Person:
        """The person, after `grow`."""
        return self.grow(name, encodings, external_id, thumbnails).person

    def grow(
        self,
        name: str,
        encodings: Sequence[Encoding],
        external_id: str | None = None,
        thumbnails: Sequence[bytes | None] = (),
    ) -> Added:
        """Add faces to the person of exactly this name, who is made if there is none; all or nothing.

        No encodings: a person without a face yet. `external_id` replaces the present one; None leaves it. `thumbnails`:
        JPEGs, one for each encoding, or none at all. Raises RequestError (name or external id is malformed),
        ConflictError (another person has the external id), ValueError (an encoding is not 128 finite numbers).
        """
        name, external_id = clean_name(name), clean_external_id(external_id)
        blobs = [to_blob(encoding) for encoding in encodings]
        now = self._clock.wall()
        with self.writing() as db:
            before, person = revision_of(db), _find(db, name, "name")
            if external_id is not None:
                _refuse_taken(db, external_id, person)
            if person is None:
                owner = _insert_person(db, name, external_id, now)
            else:
                owner = person.id
                if external_id is not None and external_id != person.external_id:
                    db.execute("UPDATE people SET external_id = ? WHERE id = ?", (external_id, owner))
            self._insert_faces(db, owner, blobs, thumbnails, now)
            self._note(db, "enrolled", owner, faces=len(blobs))
            return Added(_get(db, owner, "id"), before, revision_of(db))

    def add_student(self, name: str, external_id: str | None, data: Mapping[str, Any]) -> Person:
        """Keep what another system knows of the person of that name, who is made, without a face, if there is none.

        Raises RequestError; ConflictError where the person has another external id, so is somebody else, or somebody
        else has that one.
        """
        name, external_id = clean_name(name), clean_external_id(external_id)
        with self.writing() as db:
            person = _find(db, name, "name")
            if external_id is not None:
                _refuse_taken(db, external_id, person)
            if person is None:
                owner = _insert_person(db, name, external_id, self._clock.wall())
            else:
                owner = person.id
                if external_id is not None and person.external_id not in (None, external_id):
                    raise ConflictError(f"{name} has another external id already")
                if external_id is not None and person.external_id is None:
                    db.execute("UPDATE people SET external_id = ? WHERE id = ?", (external_id, owner))
            text = json.dumps(data, ensure_ascii=False, allow_nan=False)
            db.execute("INSERT OR REPLACE INTO person_data VALUES (?, ?)", (owner, text))
            self._note(db, "student", owner)
            return _get(db, owner, "id")

    def student_data(self, person_id: str) -> dict[str, Any]:
        """What `add_student` was given; empty for everybody else."""
        with self.reading() as db:
            row = db.execute("SELECT data FROM person_data WHERE person_id = ?", (person_id,)).fetchone()
        data: dict[str, Any] = json.loads(row[0]) if row else {}
        return data

    def add_faces_to(
        self, person_id: str, encodings: Sequence[Encoding], thumbnails: Sequence[bytes | None] = ()
    ) -> Person:
        """Add faces to the person with that id. Raises NotFoundError, ValueError."""
        blobs = [to_blob(encoding) for encoding in encodings]
        with self.writing() as db:
            person = _get(db, person_id, "id")
            self._insert_faces(db, person.id, blobs, thumbnails, self._clock.wall())
            self._note(db, "enrolled", person.id, faces=len(blobs))
            return _get(db, person.id, "id")

    def update_person(self, key: str, changes: Changes, by: By = "any") -> Person:
        """Change a person; the id stays. A PASS of somebody who may not pass any more is called back.

        Raises NotFoundError, RequestError, ConflictError (another person has that name or external id).
        """
        with self.writing() as db:
            person = _get(db, key, by)
            values = _changed(db, person, changes)
            if values:
                assigned = ", ".join(f'"{column}" = :{column}' for column in values)  # the columns are our own
                db.execute(f"UPDATE people SET {assigned} WHERE id = :id", values | {"id": person.id})  # noqa: S608
                self._note(db, "changed", person.id, keys=sorted(values))
            changed = _get(db, person.id, "id")
            if not is_allowed(changed, self._clock.wall()):
                self.recall_live(db, person.id, "blocked", "PASS")
            if changed.blocked and values:
                self.ledger.write(_rules(changed))
        if values and not changed.blocked:
            # What lets somebody in is noted when it is sure, and as it then is: another block may have come meanwhile.
            with self.writing() as db:
                if (current := _find(db, person.id, "id")) is not None:
                    self.ledger.write(_rules(current))
        return changed

    def remove(self, key: str, by: By = "any") -> Person:
        """Erase a person, their templates and their name in history; returns who it was.

        The id is never given to anybody again. Backups are another matter (backups.py). Raises NotFoundError;
        ConflictError where `any` means two people.
        """
        with self.writing() as db:
            person = _get(db, key, by)
            self.recall_live(db, person.id, "removed")
            self._note(db, "removed", person.id)
            erase_person(db, person.id)
            self.ledger.write(Entry("removed", person_key(person.id, person.created_at)))
        self.scrub_log()
        return person

    def _note(self, db: sqlite3.Connection, what: str, person_id: str, **data: Any) -> None:
        audit.note(db, self._clock.wall(), what, audit.person(db, person_id) | data)

    def person_with_faces(self, person_id: str) -> tuple[Person, list[EnrolledFace]]:
        """A person and the enrolled faces, oldest first. Raises NotFoundError."""
        with self.reading() as db:
            person = _get(db, person_id, "id")
            columns = "id, created_at, EXISTS (SELECT 1 FROM thumbnails WHERE face_id = templates.id)"
            query = f"SELECT {columns} FROM templates WHERE person_id = ? ORDER BY id"  # noqa: S608  # constants
            return person, [EnrolledFace(id, at, bool(shown)) for id, at, shown in db.execute(query, (person.id,))]

    def thumbnail(self, person_id: str, face_id: int) -> bytes:
        """The picture of an enrolled face, as JPEG. Raises NotFoundError where none is kept."""
        query = (
            "SELECT jpeg, thumbnails.seal FROM thumbnails JOIN templates ON id = face_id WHERE person_id = ? AND id = ?"
        )
        with self.reading() as db:
            person = _get(db, person_id, "id")
            row = db.execute(query, (person.id, face_id)).fetchone()
        if row is None:
            raise NotFoundError(f"There is no picture of face {face_id} of {person.name}")
        return self._decrypted(*row, "thumbnail", face_id, person.id)

    def faces(self, person_id: str) -> list[EnrolledFace]:
        """The faces alone."""
        return self.person_with_faces(person_id)[1]

    def remove_face(self, person_id: str, face_id: int) -> Person:
        """Erase one face; returns the person without it. Raises NotFoundError.

        A PASS that is still on its way may be due to that face, which may have been the wrong one; it is called back.
        """
        with self.writing() as db:
            person = _get(db, person_id, "id")
            delete = "DELETE FROM templates WHERE id = ? AND person_id = ? RETURNING id, created_at"
            found = db.execute(delete, (face_id, person.id)).fetchall()
            if not found:
                raise NotFoundError(f"{person.name} has no face {face_id}")
            self.recall_live(db, person.id, "removed", "PASS")
            self._note(db, "face removed", person.id, face=face_id)
            self.ledger.write(Entry("face", face_key(*found[0])))
            person = _get(db, person.id, "id")
        self.scrub_log()
        return person

    def paused_cameras(self) -> set[str]:
        """Whose recognition is off."""
        with self.reading() as db:
            return {row[0] for row in db.execute("SELECT camera FROM paused_cameras")}

    def set_paused(self, camera: str, paused: bool) -> None:
        change = "INSERT OR IGNORE INTO paused_cameras VALUES (?)"
        with self.writing() as db:
            done = db.execute(change if paused else "DELETE FROM paused_cameras WHERE camera = ?", (camera,)).rowcount
            if done:
                audit.note(db, self._clock.wall(), "paused" if paused else "resumed", {"camera": camera})


def _rules(person: Person) -> Entry:
    key = person_key(person.id, person.created_at)
    return Entry("rules", key, person.blocked, person.valid_from, person.valid_until)


def _changed(db: sqlite3.Connection, person: Person, changes: Changes) -> dict[str, Any]:
    """The columns that change, and their new values, checked."""
    values: dict[str, Any] = {}
    if not isinstance(changes.name, UnsetType):
        values["name"] = clean_name(changes.name)
        holder = _find(db, values["name"], "name")
        if holder is not None and holder.id != person.id:
            raise ConflictError(f"Another person is named {holder.name}")
    if not isinstance(changes.external_id, UnsetType):
        values["external_id"] = clean_external_id(changes.external_id)
        if values["external_id"] is not None:
            _refuse_taken(db, values["external_id"], person)
    if not isinstance(changes.group, UnsetType):
        values["group"] = clean_group(changes.group)
    if not isinstance(changes.blocked, UnsetType):
        values["blocked"] = changes.blocked
    for column in ("valid_from", "valid_until"):
        if getattr(changes, column) is not UNSET:
            values[column] = _checked_date(getattr(changes, column), column)
    begin, end = values.get("valid_from", person.valid_from), values.get("valid_until", person.valid_until)
    if begin is not None and end is not None and not begin < end:
        raise RequestError("valid_from must be before valid_until", "bad_time")
    return values


def _checked_date(date: float | None, what: str) -> float | None:
    if date is not None and not 0 <= date < _YEAR_10000:
        raise RequestError(f"{what} is a date from 1970 to 9999", "bad_time")
    return date


def _insert_person(db: sqlite3.Connection, name: str, external_id: str | None, now: float) -> str:
    """A person without a face; returns the id."""
    made = person_id(name, lambda candidate: _is_taken(db, candidate))
    insert = "INSERT INTO people (id, name, external_id, created_at) VALUES (?, ?, ?, ?)"
    db.execute(insert, (made, name, external_id, now))
    return made


def _find(db: sqlite3.Connection, key: str, by: By) -> Person | None:
    found = [person_of(row) for row in db.execute(f"{PEOPLE} WHERE {_LOOKUP[by]}", {"key": key_text(key)})]
    if len(found) > 1:  # Katya has the id katya, and then comes a katya; guessing could remove the wrong one
        people = ", ".join(f"{person.name} (id {person.id})" for person in found)
        raise ConflictError(f"{key} is the id of one person and the name of another: {people}", "ambiguous")
    return found[0] if found else None


def _get(db: sqlite3.Connection, key: str, by: By) -> Person:
    person = _find(db, key, by)
    if person is None:
        raise NotFoundError(f"Nobody is enrolled as {key}")
    return person


def _refuse_taken(db: sqlite3.Connection, external_id: str, person: Person | None) -> None:
    row = db.execute("SELECT id, name FROM people WHERE external_id = ?", (external_id,)).fetchone()
    if row is not None and (person is None or row[0] != person.id):
        raise ConflictError(f"{row[1]} has the external id {external_id} already")


def _is_taken(db: sqlite3.Connection, candidate: str) -> bool:
    """Whether an id was ever given; or is somebody else's name, which would make `remove` ambiguous."""
    query = "SELECT 1 FROM people WHERE id = :id OR name = :id UNION ALL SELECT 1 FROM retired_ids WHERE id = :digest"
    return db.execute(query, {"id": candidate, "digest": id_digest(candidate)}).fetchone() is not None
