"""The people in the database and the gallery in memory, kept the same, also when another process changes them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from edge_face.database import StoreThread
from edge_face.errors import EdgeFaceError, StoreError
from edge_face.events import Encoding, Person
from edge_face.gallery import Gallery
from edge_face.pages import Page
from edge_face.store import By, Changes, EnrolledFace, Store

_log = logging.getLogger(__name__)

POLL_S = 0.5
"""How soon a change made by the command line is seen."""


class StoreRoster:
    """`current` is the newest gallery; `on_change` is called with each new one, on the event loop."""

    def __init__(self, store: Store, thread: StoreThread, on_change: Callable[[Gallery], None] | None = None) -> None:
        self._store = store
        self._thread = thread
        self._on_change = on_change
        self._revision = -1
        self._refreshing = asyncio.Lock()
        self._listing = asyncio.Lock()
        self.current = Gallery.empty()

    async def gallery(self) -> Gallery:
        """The gallery as it now is in the database."""
        async with self._refreshing:
            if await self._thread.run(self._store.gallery_revision) != self._revision:
                rows = await self._thread.run(self._store.gallery)
                self._use(Gallery.build(rows.persons, rows.owners, rows.matrix), rows.revision)
        return self.current

    def _use(self, gallery: Gallery, revision: int) -> None:
        self.current, self._revision = gallery, revision
        if self._on_change:
            self._on_change(gallery)

    async def watch(self) -> None:
        """Follow the database for ever. While it cannot be read, the gate goes on with the gallery it has."""
        failing = False
        while True:
            try:
                if not await self._thread.run(self._store.is_in_place):
                    # Commands would work on another file than this daemon, and a removal never reach the gate.
                    raise EdgeFaceError(f"The database {self._store.path} was deleted or replaced.", "storage")
                await self.gallery()
                if failing:
                    _log.info("the database can be read again")
                failing = False
            except StoreError as error:
                if not failing:
                    _log.error("the people cannot be read from the database: %s", error)
                failing = True
            await asyncio.sleep(POLL_S)

    async def people(self, query: str | None, limit: int | None, cursor: str | None) -> Page[Person]:
        async with self._listing:
            return await self._thread.aside(self._store.people, query, limit, cursor)

    async def add_faces(
        self, name: str, encodings: Sequence[Encoding], external_id: str | None, thumbnails: Sequence[bytes | None] = ()
    ) -> Person:
        """The gallery grows by itself: else a thousand enrolments would read the whole database a thousand times."""
        async with self._refreshing:
            added = await self._thread.run(self._store.grow, name, encodings, external_id, thumbnails)
            if added.before == self._revision:
                self._use(self.current.grown(added.person, encodings), added.after)
                return added.person
        await self.gallery()
        return added.person

    async def add_faces_to(
        self, person_id: str, encodings: Sequence[Encoding], thumbnails: Sequence[bytes | None] = ()
    ) -> Person:
        person = await self._thread.run(self._store.add_faces_to, person_id, encodings, thumbnails)
        await self.gallery()
        return person

    async def person(self, person_id: str) -> tuple[Person, Sequence[EnrolledFace]]:
        return await self._thread.run(self._store.person_with_faces, person_id)

    async def thumbnail(self, person_id: str, face_id: int) -> bytes:
        return await self._thread.run(self._store.thumbnail, person_id, face_id)

    async def update(self, person_id: str, changes: Changes) -> Person:
        person = await self._thread.run(self._store.update_person, person_id, changes, "id")
        await self.gallery()
        return person

    async def remove_face(self, person_id: str, face_id: int) -> Person:
        person = await self._thread.run(self._store.remove_face, person_id, face_id)
        await self.gallery()
        return person

    async def remove(self, key: str, by: By = "any") -> Person:
        person = await self._thread.run(self._store.remove, key, by)
        await self.gallery()
        return person
