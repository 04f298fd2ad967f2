"""All that is stored of one person, as one ZIP: for whoever asks what is known of them."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO, Protocol

from edge_face.events import Encoding, Person
from edge_face.faces import EnrolledFace
from edge_face.pages import Listing, each


class Records(Protocol):
    """The store's part of it. Called on a thread, since reading a memory card takes time."""

    @property
    def events(self) -> Listing: ...
    @property
    def attendance(self) -> Listing: ...
    def person_with_faces(self, person_id: str) -> tuple[Person, list[EnrolledFace]]: ...
    def templates(self, person_id: str) -> dict[int, Encoding]: ...
    def thumbnail(self, person_id: str, face_id: int) -> bytes: ...
    def student_data(self, person_id: str) -> dict[str, Any]: ...
    def audit_of(self, person_id: str) -> Iterator[dict[str, Any]]: ...
    def note_export(self, person_id: str) -> None: ...


def write(store: Records, person_id: str, file: BinaryIO) -> Person:
    """Write the ZIP, its lists a piece at a time. Raises NotFoundError; StoreError where something cannot be read."""
    person, faces = store.person_with_faces(person_id)
    store.note_export(person_id)
    templates = store.templates(person_id)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        shown = []
        for face in [face for face in faces if face.id in templates]:  # one may have been erased meanwhile
            picture = f"pictures/{face.id}.jpg" if face.thumbnail else None
            if picture:
                archive.writestr(picture, store.thumbnail(person_id, face.id))
            template = [float(number) for number in templates[face.id]]
            shown.append({"id": face.id, "created_at": face.created_at, "picture": picture, "template": template})
        about = dataclasses.asdict(person) | {"faces": shown, "data": store.student_data(person_id)}
        archive.writestr("person.json", json.dumps(about, ensure_ascii=False, indent=1))
        # The lists are asked for an id or a name, and the name of one may be the id of another.
        _add_list(archive, "events.json", _of(person_id, each(store.events, newest_first=False, person=person_id)))
        attendance = each(store.attendance, newest_first=False, person=person_id)
        _add_list(archive, "attendance.json", _of(person_id, attendance))
        _add_list(archive, "audit.json", store.audit_of(person_id))
    return person


def _of(person_id: str, rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    return (row for row in rows if row["person_id"] == person_id)


def _add_list(archive: zipfile.ZipFile, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
    with archive.open(name, "w") as file:
        file.write(b"[")
        between = b"\n"
        for row in rows:
            file.write(between + json.dumps(row, ensure_ascii=False).encode())
            between = b",\n"
        file.write(b"\n]\n")
