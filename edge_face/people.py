"""Enrolment and still photos: what the API and the command line both do with people."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edge_face import settings
from edge_face.access import is_allowed, judge
from edge_face.clock import trusted_date
from edge_face.errors import ConflictError, EdgeFaceError, ImageError
from edge_face.events import Encoding, Face, Match, Person, Reason, Status, rounded
from edge_face.gallery import Gallery
from edge_face.messages import PhotoResult
from edge_face.names import clean_name
from edge_face.pages import Page
from edge_face.store import By, Changes, EnrolledFace
from edge_face.zips import Member

DISAGREEMENT = 0.6
"""Two photos of one person are hardly ever farther apart (dlib's own limit for the same person)."""
_SECOND_FACE = 0.5
"""A second face at least this wide, measured by the first, makes it unclear who is to be enrolled."""


_AHEAD_BYTES = 48 * 1024 * 1024
"""Of photos that wait to be read."""


class PhotoReader(Protocol):
    at_once: int
    """How many photos are read side by side."""

    async def analyse(self, data: bytes, rivals: float = 0.0) -> PhotoResult:
        """`rivals`: faces are not wanted that are narrower than so many times the largest."""


class Roster(Protocol):
    """What enrolment needs of the store and of the gallery made from it."""

    async def gallery(self) -> Gallery: ...
    async def add_faces(
        self, name: str, encodings: Sequence[Encoding], external_id: str | None, thumbnails: Sequence[bytes | None] = ()
    ) -> Person: ...
    async def add_faces_to(
        self, person_id: str, encodings: Sequence[Encoding], thumbnails: Sequence[bytes | None] = ()
    ) -> Person: ...
    async def thumbnail(self, person_id: str, face_id: int) -> bytes: ...
    async def person(self, person_id: str) -> tuple[Person, Sequence[EnrolledFace]]: ...
    async def update(self, person_id: str, changes: Changes) -> Person: ...
    async def remove(self, key: str, by: By = "any") -> Person: ...
    async def remove_face(self, person_id: str, face_id: int) -> Person: ...
    async def people(self, query: str | None, limit: int | None, cursor: str | None) -> Page[Person]: ...


@dataclass(frozen=True, eq=False, slots=True)
class StillFace:
    """One face of a still: judged alone, so there is no vote. `person` is set for `not_allowed`, too."""

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

    def __init__(
        self,
        photos: PhotoReader,
        roster: Roster,
        decision: settings.Decision,
        date: Callable[[], float | None] = trusted_date,
    ) -> None:
        """`date`: the wall clock (Unix seconds); None while it is not synchronised."""
        self._photos = photos
        self._roster = roster
        self._decision = decision
        self._date = date

    def use(self, decision: settings.Decision) -> None:
        self._decision = decision

    async def list(self, query: str | None = None, limit: int | None = None, cursor: str | None = None) -> Page[Person]:
        """People in the order of enrolment; `query` is part of a name, id or external id. Raises RequestError."""
        return await self._roster.people(query, limit, cursor)

    async def enrol(
        self, name: str, images: Iterable[bytes], external_id: str | None = None, *, force: bool = False
    ) -> Person:
        """Add a face for each photo to the person of that name, who is made if new; all photos or none.

        Raises ImageError (`no_face`, `several_faces`, `low_quality`, ...), RequestError for an impossible name,
        StoreError; unless `force`, ImageError (`photos_disagree`) when the photos do not look like one person, and
        ConflictError when a face would pass as somebody else.
        """
        name = clean_name(name)
        faces = [await self._face(image) for image in images]
        encodings, thumbnails = [face.encoding for face in faces], [face.thumbnail for face in faces]
        return await self.enrol_encodings(name, encodings, external_id, thumbnails, force=force)

    async def enrol_encodings(
        self,
        name: str,
        encodings: Sequence[Encoding],
        external_id: str | None = None,
        thumbnails: Sequence[bytes | None] = (),
        *,
        force: bool = False,
    ) -> Person:
        """The same without photos, whose quality nobody can check any more."""
        name = clean_name(name)
        if not force:
            await self._refuse_doubtful(encodings, lambda person: person.name == name)
        return await self._roster.add_faces(name, encodings, external_id, thumbnails)

    async def add_faces(self, person_id: str, images: Iterable[bytes], *, force: bool = False) -> Person:
        """Add a face for each photo to the person with that id; all or none. Raises as `enrol`, and NotFoundError."""
        await self.person(person_id)  # before anything is read that takes long
        faces = [await self._face(image) for image in images]
        encodings, thumbnails = [face.encoding for face in faces], [face.thumbnail for face in faces]
        return await self.add_encodings(person_id, encodings, thumbnails, force=force)

    async def add_encodings(
        self,
        person_id: str,
        encodings: Sequence[Encoding],
        thumbnails: Sequence[bytes | None] = (),
        *,
        force: bool = False,
    ) -> Person:
        """The same without photos."""
        await self.person(person_id)
        if not force:
            await self._refuse_doubtful(encodings, lambda person: person.id == person_id)
        return await self._roster.add_faces_to(person_id, encodings, thumbnails)

    async def thumbnail(self, person_id: str, face_id: int) -> bytes:
        """The picture of an enrolled face, as JPEG. Raises NotFoundError where none is kept."""
        return await self._roster.thumbnail(person_id, face_id)

    async def person(self, person_id: str) -> tuple[Person, Sequence[EnrolledFace]]:
        """A person and the enrolled faces, oldest first. Raises NotFoundError."""
        return await self._roster.person(person_id)

    async def update(self, person_id: str, changes: Changes) -> Person:
        """Change a person; the gate knows when this returns. Raises NotFoundError, RequestError, ConflictError."""
        return await self._roster.update(person_id, changes)

    async def remove_face(self, person_id: str, face_id: int) -> Person:
        """Erase one face; returns the person without it. Raises NotFoundError."""
        return await self._roster.remove_face(person_id, face_id)

    async def enrol_members(self, members: Iterable[Member], *, force: bool = False) -> AsyncIterator[FileReport]:
        """Enrol the photos of a ZIP or a folder in their order; a bad file never stops the rest.

        The next ones are read meanwhile. Each is compared with all before it, as if it came alone.
        """
        async with aclosing(self._read_ahead(members)) as read:
            async for member, reading in read:
                try:
                    face = await reading
                    if face is None:
                        yield FileReport(member.file, member.name, error="refused", message=member.refused)
                        continue
                    person = await self.enrol_encodings(
                        member.name, [face.encoding], None, [face.thumbnail], force=force
                    )
                except EdgeFaceError as error:
                    yield FileReport(member.file, member.name, error=error.code, message=error.message)
                else:
                    yield FileReport(member.file, member.name, person.id)

    async def _read_ahead(
        self, members: Iterable[Member]
    ) -> AsyncGenerator[tuple[Member, asyncio.Task[Face | None]], None]:
        """Each with the face that is being read, while the readers already have the next ones."""
        ahead: deque[tuple[Member, asyncio.Task[Face | None]]] = deque()
        coming = iter(members)
        try:
            while True:
                while (
                    len(ahead) <= self._photos.at_once
                    and sum(len(member.data) for member, _ in ahead) <= _AHEAD_BYTES
                    and (member := next(coming, None)) is not None
                ):
                    ahead.append((member, asyncio.create_task(self._member_face(member))))
                if not ahead:
                    return
                yield ahead.popleft()
        finally:
            for _, reading in ahead:
                reading.cancel()
            await asyncio.gather(*(reading for _, reading in ahead), return_exceptions=True)

    async def _member_face(self, member: Member) -> Face | None:
        """None for one that is refused."""
        if member.refused:
            return None
        clean_name(member.name)  # before the photo is read, which takes long
        return await self._face(member.data)

    async def remove(self, key: str, by: By = "any") -> Person:
        """Remove the person with that id or name. Raises NotFoundError, ConflictError where `any` means two people."""
        return await self._roster.remove(key, by)

    async def recognise(self, image: bytes) -> Still:
        """Every face of a still, largest first. Raises ImageError when it is no picture; no face is no error."""
        result = await self._photos.analyse(image)
        matches = (await self._roster.gallery()).match([face.encoding for face in result.faces])
        date = self._date()
        faces = [self._judged(face, match, date) for face, match in zip(result.faces, matches, strict=True)]
        return Still(result.width, result.height, tuple(faces))

    def _judged(self, face: Face, match: Match, date: float | None) -> StillFace:
        reason = judge(match, self._decision)
        if reason != "match" or match.person is None:
            return StillFace(face, "REJECT", reason, match, None)
        if not is_allowed(match.person, date):
            return StillFace(face, "REJECT", "not_allowed", match, match.person)
        return StillFace(face, "PASS", "match", match, match.person)

    async def _face(self, image: bytes) -> Face:
        """The one face of a photo for enrolment."""
        faces = (await self._photos.analyse(image, rivals=_SECOND_FACE)).faces
        if not faces:
            raise ImageError("No face was found in the photo.", "no_face")
        rivals = [face for face in faces[1:] if face.box.width >= _SECOND_FACE * faces[0].box.width]
        if rivals:
            raise ImageError(f"The photo shows {1 + len(rivals)} faces; it must show one.", "several_faces")
        if faces[0].flaws:
            raise ImageError(f"The photo is not good enough: {'; '.join(faces[0].flaws)}.", "low_quality")
        return faces[0]

    async def _refuse_doubtful(self, encodings: Sequence[Encoding], is_same: Callable[[Person], bool]) -> None:
        gallery = await self._roster.gallery()
        for match in gallery.match(encodings):
            if judge(match, self._decision) == "match" and match.person and not is_same(match.person):
                raise ConflictError(
                    f"This face would pass as {match.person.name} (distance {match.distance:.2f}).", "duplicate_person"
                )
        _refuse_disagreeing(encodings, gallery.faces_of(is_same))


def _refuse_disagreeing(encodings: Sequence[Encoding], enrolled: npt.NDArray[np.float32]) -> None:
    """Raises ImageError (`photos_disagree`): somebody else's photo among a person's lets somebody else in.

    All new photos must be like each other; and each must be like one of those that are enrolled, which may be old.
    """
    for number, encoding in enumerate(encodings):
        for other in range(number):
            distance = float(np.linalg.norm(encoding - encodings[other]))
            if not distance <= DISAGREEMENT:
                _disagree(f"Photos {other + 1} and {number + 1} do", distance)
        if len(enrolled):
            distance = float(np.linalg.norm(enrolled - encoding, axis=1).min())
            if not distance <= DISAGREEMENT:
                which = f"Photo {number + 1} and those" if len(encodings) > 1 else "The photo and those"
                _disagree(f"{which} that are enrolled do", distance)


def _disagree(what: str, distance: float) -> None:
    limit = f"distance {distance:.2f}, at most {DISAGREEMENT} is allowed"
    raise ImageError(f"{what} not seem to show the same person ({limit}).", "photos_disagree")
