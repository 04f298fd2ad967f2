"""Enrolment and still photos: what the API and the command line both do with people."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from edge_face import settings
from edge_face.access import judge
from edge_face.errors import ConflictError, EdgeFaceError, ImageError
from edge_face.events import Encoding, Face, Match, Person, Reason, Status, rounded
from edge_face.gallery import Gallery
from edge_face.messages import PhotoResult
from edge_face.names import clean_name
from edge_face.outbox import Page
from edge_face.store import By
from edge_face.zips import Member

_SECOND_FACE = 0.5
"""A second face at least this wide, measured by the first, makes it unclear who is to be enrolled."""


class PhotoReader(Protocol):
    async def analyse(self, data: bytes) -> PhotoResult: ...


class Roster(Protocol):
    """What enrolment needs of the store and of the gallery made from it."""

    async def gallery(self) -> Gallery: ...
    async def add_faces(self, name: str, encodings: Sequence[Encoding], external_id: str | None) -> Person: ...
    async def remove(self, key: str, by: By = "any") -> Person: ...
    async def people(self, query: str | None, limit: int | None, cursor: str | None) -> Page[Person]: ...


@dataclass(frozen=True, eq=False, slots=True)
class StillFace:
    """One face of a still: judged alone, so there is no vote."""

    face: Face
    status: Status
    reason: Reason
    match: Match
    person: Person | None

    def payload(self) -> dict[str, Any]:
        return {
            "box": self.face.box.as_list(),
            "status": self.status,
            "reason": self.reason,
            "name": self.person.name if self.person else None,
            "person_id": self.person.id if self.person else None,
            "distance": rounded(self.match.distance, 4),
            "margin": rounded(self.match.margin, 4),
            "score": None,
        }


@dataclass(frozen=True, eq=False, slots=True)
class Still:
    width: int
    height: int
    faces: tuple[StillFace, ...]

    def payload(self) -> dict[str, Any]:
        return {"width": self.width, "height": self.height, "faces": [face.payload() for face in self.faces]}


@dataclass(frozen=True, slots=True)
class FileReport:
    """What became of one file of a batch; `error` is None where it was enrolled."""

    file: str
    name: str
    person_id: str | None = None
    error: str | None = None
    message: str = ""


class People:
    """Reads photos, enrols, removes, recognises. Nothing here makes a live event."""

    def __init__(self, photos: PhotoReader, roster: Roster, decision: settings.Decision) -> None:
        self._photos = photos
        self._roster = roster
        self._decision = decision

    async def list(self, query: str | None = None, limit: int | None = None, cursor: str | None = None) -> Page[Person]:
        """People in the order of enrolment; `query` is part of a name, id or external id. Raises RequestError."""
        return await self._roster.people(query, limit, cursor)

    async def enrol(
        self, name: str, images: Iterable[bytes], external_id: str | None = None, *, force: bool = False
    ) -> Person:
        """Add a face for each photo to the person of that name, who is made if new; all photos or none.

        Raises ImageError (`no_face`, `several_faces`, `low_quality`, ...), ConflictError when a face would pass as
        somebody else, unless `force`, RequestError for an impossible name, StoreError.
        """
        return await self.enrol_encodings(
            clean_name(name), [await self._encoding(image) for image in images], external_id, force=force
        )

    async def enrol_encodings(
        self, name: str, encodings: Sequence[Encoding], external_id: str | None = None, *, force: bool = False
    ) -> Person:
        """The same without photos, whose quality nobody can check any more."""
        name = clean_name(name)
        if not force:
            await self._refuse_lookalikes(name, encodings)
        return await self._roster.add_faces(name, encodings, external_id)

    async def enrol_members(self, members: Iterable[Member], *, force: bool = False) -> AsyncIterator[FileReport]:
        """Enrol the photos of a ZIP or a folder one by one; a bad file never stops the rest."""
        for member in members:
            if member.refused:
                yield FileReport(member.file, member.name, error="refused", message=member.refused)
                continue
            try:
                person = await self.enrol(member.name, [member.data], force=force)
            except EdgeFaceError as error:
                yield FileReport(member.file, member.name, error=error.code, message=error.message)
            else:
                yield FileReport(member.file, member.name, person.id)

    async def remove(self, key: str, by: By = "any") -> Person:
        """Remove the person with that id or name. Raises NotFoundError, ConflictError where `any` means two people."""
        return await self._roster.remove(key, by)

    async def recognise(self, image: bytes) -> Still:
        """Every face of a still, largest first. Raises ImageError when it is no picture; no face is no error."""
        result = await self._photos.analyse(image)
        matches = (await self._roster.gallery()).match([face.encoding for face in result.faces])
        faces = []
        for face, match in zip(result.faces, matches, strict=True):
            reason = judge(match, self._decision)
            person = match.person if reason == "match" else None
            faces.append(StillFace(face, "PASS" if person else "REJECT", reason, match, person))
        return Still(result.width, result.height, tuple(faces))

    async def _encoding(self, image: bytes) -> Encoding:
        """The encoding of the one face of a photo for enrolment."""
        faces = (await self._photos.analyse(image)).faces
        if not faces:
            raise ImageError("No face was found in the photo.", "no_face")
        rivals = [face for face in faces[1:] if face.box.width >= _SECOND_FACE * faces[0].box.width]
        if rivals:
            raise ImageError(f"The photo shows {1 + len(rivals)} faces; it must show one.", "several_faces")
        if faces[0].flaws:
            raise ImageError(f"The photo is not good enough: {'; '.join(faces[0].flaws)}.", "low_quality")
        return faces[0].encoding

    async def _refuse_lookalikes(self, name: str, encodings: Sequence[Encoding]) -> None:
        for match in (await self._roster.gallery()).match(encodings):
            if judge(match, self._decision) == "match" and match.person and match.person.name != name:
                raise ConflictError(
                    f"This face would pass as {match.person.name} (distance {match.distance:.2f}).", "duplicate_person"
                )
