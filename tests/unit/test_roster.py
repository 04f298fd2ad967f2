"""The gallery in memory stays that of the database, and is not read again for each face that is added."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np

from edge_face.database import StoreThread
from edge_face.gallery import Gallery
from edge_face.roster import StoreRoster
from edge_face.store import Store
from tests.support.api import encoding
from tests.support.clock import HandClock


class CountingStore(Store):
    read = 0

    def gallery(self):  # type: ignore[no-untyped-def]
        self.read += 1
        return super().gallery()


def as_stored(store: Store) -> Gallery:
    rows = store.gallery()
    return Gallery.build(rows.persons, rows.owners, rows.matrix)


def same(one: Gallery, other: Gallery) -> bool:
    return one.persons == other.persons and one.starts == other.starts and np.array_equal(one.faces, other.faces)


def test_enrolling_many_reads_the_database_once(path: Path, clock: HandClock) -> None:
    async def enrol(store: CountingStore) -> None:
        thread, seen = StoreThread(), list[Gallery]()
        roster = StoreRoster(store, thread, seen.append)
        await roster.gallery()
        for number in range(30):
            await roster.add_faces(f"Person {number * 7 % 13}", [encoding(number)], None)
            assert seen[-1] is roster.current is await roster.gallery()
        await thread.close()
        assert store.read == 1
        assert same(roster.current, as_stored(store))

    store = CountingStore(path, clock)
    asyncio.run(enrol(store))
    store.close()


def test_what_another_process_changes_in_between_is_never_missed(path: Path, clock: HandClock) -> None:
    async def enrol(store: CountingStore, other: Store) -> None:
        thread = StoreThread()
        roster = StoreRoster(store, thread)
        for number in range(8):
            await roster.add_faces(f"Person {number}", [encoding(number)], f"id-{number}" if number % 2 else None)
        before = store.read
        other.add_student("Person 9", None, {})  # one without a face, who then gets one
        await roster.add_faces("Person 9", [encoding(9)], None)
        assert same(roster.current, as_stored(other))
        other.remove("Person 3")
        await roster.add_faces("Person 10", [encoding(10)], None)
        assert "Person 3" not in [person.name for person in roster.current.persons]
        assert same(roster.current, as_stored(other))
        await roster.add_faces("Person 10", [encoding(11), encoding(12)], "new-id")
        assert same(roster.current, as_stored(other))
        assert store.read == before + 2
        await thread.close()

    store, other = CountingStore(path, clock), Store(path, clock)
    asyncio.run(enrol(store, other))
    store.close()
    other.close()
