"""What must not come back does not, whatever becomes of the database."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest

from edge_face.caretaker import open_store
from edge_face.database import REOPEN_S
from edge_face.errors import StoreError
from edge_face.ledger import Entry, Ledger, person_key
from edge_face.settings import Config, Storage
from edge_face.store import Changes, Store
from edge_face.tokens import Tokens
from tests.support import publishing
from tests.support.clock import HandClock
from tests.support.disk import no_room


def face(number: float) -> np.ndarray:
    return np.full(128, number, np.float32)


@pytest.fixture
def older(path: Path, store: Store, clock: HandClock) -> Callable[[], Store]:
    """Copies the file of now, and puts that copy back when it is called: somebody restores by hand."""
    store.add_faces("Katya", [face(0.1), face(0.2)])
    store.add_faces("Zero", [face(0.3)])
    store.scrub_log()
    kept = path.with_suffix(".kept")
    shutil.copy(path, kept)

    def put_back() -> Store:
        store.close()
        shutil.copy(kept, path)
        again = Store(path, clock)
        again.apply_ledger()
        return again

    return put_back


def people(store: Store) -> dict[str, bool]:
    found = {person.name: person.blocked for person in store.people().items}
    store.close()
    return found


def test_who_was_removed_stays_so_when_an_older_file_comes_back(store: Store, older: Callable[[], Store]) -> None:
    store.remove("katya")
    again = older()
    assert again.add_faces("Katya", []).id != "katya", "an id of a removed person was given again"
    assert people(again) == {"Zero": False, "Katya": False}


def test_of_blocks_the_last_one_holds(store: Store, older: Callable[[], Store]) -> None:
    for name, blocks in (("katya", (True, False, True)), ("zero", (True, False))):
        for blocked in blocks:
            store.update_person(name, Changes(blocked=blocked))
    assert people(older()) == {"Katya": True, "Zero": False}


def test_a_time_that_was_cut_short_stays_so(store: Store, older: Callable[[], Store]) -> None:
    store.update_person("katya", Changes(valid_until=1000.0))
    again = older()
    assert again.person("katya").valid_until == 1000.0  # type: ignore[union-attr]
    again.close()


def test_on_an_older_file_that_cannot_be_written_nobody_passes_who_must_not(
    path: Path, store: Store, clock: HandClock
) -> None:
    """A full disk, or a program that writes for long. The others pass, and it is made up for by itself."""
    config = Config(storage=Storage(path=str(path), backups="off"))
    for number, name in enumerate(("Ada", "Bob", "Cyd", "Dee", "Eve")):
        store.add_faces(name, [face(number / 10), face(number / 10 + 0.05)])
    revoked, kept_token = (Tokens(store, clock).new("admin") for _ in range(2))
    store.scrub_log()
    kept = path.with_suffix(".kept")
    shutil.copy(path, kept)
    store.remove("ada")
    store.update_person("bob", Changes(blocked=True))
    store.update_person("cyd", Changes(valid_until=1000.0))
    store.remove_face("dee", store.faces("dee")[0].id)
    Tokens(store, clock).revoke(revoked[0])
    store.close()
    shutil.copy(kept, path)
    with ExitStack() as locks:
        with no_room():
            again, _ = open_store(config, clock, locks)
            before = again.gallery_revision()
            assert [person.name for person in again.gallery().persons] == ["Eve"]
            tokens = Tokens(again, clock)
            assert (tokens.role_of(revoked[1]), tokens.role_of(kept_token[1])) == (None, "admin")
        time.sleep(REOPEN_S)
        assert again.gallery_revision() > before
        found = {person.name: (person.blocked, person.faces) for person in again.gallery().persons}
        assert found == {"Bob": (True, 2), "Cyd": (False, 2), "Dee": (False, 1), "Eve": (False, 2)}
        assert tokens.role_of(revoked[1]) is None
        again.close()


def test_without_the_ledger_nothing_starts(path: Path, store: Store, clock: HandClock) -> None:
    """It is there, and nobody knows what it says."""
    Ledger(path).path.mkdir()
    with ExitStack() as locks, pytest.raises(StoreError, match="ledger"):
        open_store(Config(storage=Storage(path=str(path), backups="off")), clock, locks)


def test_an_erased_face_and_a_revoked_token_stay_so(path: Path, store: Store, clock: HandClock) -> None:
    tokens = Tokens(store, clock)
    number, token = tokens.new("admin")
    _, other = tokens.new("viewer")
    store.add_faces("Katya", [face(0.1), face(0.2)])
    store.scrub_log()
    kept = path.with_suffix(".kept")
    shutil.copy(path, kept)
    tokens.revoke(number)
    store.remove_face("katya", store.faces("katya")[0].id)
    store.close()
    shutil.copy(kept, path)
    again = Store(path, clock)
    assert Tokens(again, clock).role_of(token) == "admin", "the copy is not older"
    again.apply_ledger()
    assert (Tokens(again, clock).role_of(token), Tokens(again, clock).role_of(other)) == (None, "viewer")
    assert again.gallery().matrix[:, 0].tolist() == [pytest.approx(0.2)]
    again.close()


def test_it_is_written_before_the_removal_is_acknowledged(path: Path, store: Store) -> None:
    """And where it cannot be, nobody is removed."""
    store.add_faces("Katya", [face(0.1)])
    Ledger(path).path.mkdir()
    with pytest.raises(StoreError):
        store.remove("katya")
    with pytest.raises(StoreError):
        store.update_person("katya", Changes(blocked=True))
    assert [person.blocked for person in store.people().items] == [False]


def test_a_crash_between_ledger_and_database_ends_in_a_removal(path: Path, store: Store) -> None:
    person = store.add_faces("Katya", [face(0.1)])
    Ledger(path).write(Entry("removed", person_key(person.id, person.created_at)))
    assert store.apply_ledger() == 1
    assert store.apply_ledger() == 0
    assert people(store) == {}


def test_a_torn_line_spoils_no_other(path: Path, store: Store) -> None:
    ledger = Ledger(path)
    ledger.write(Entry("token", "a"))
    whole = ledger.path.read_bytes()
    for cut in range(1, len(whole)):
        ledger.path.write_bytes(whole + whole[:cut])
        assert [entry.key for entry in ledger.read()] in (["a"], ["a", "a"])  # all but the line's end is there
        ledger.write(Entry("token", "b"))
        assert ledger.read()[-1].key == "b"
        assert ledger.read()[0].key == "a"


def test_damage_within_is_told(path: Path, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    ledger = Ledger(path)
    ledger.write(Entry("token", "a"), Entry("token", "b"))
    ledger.path.write_bytes(ledger.path.read_bytes().replace(b'"a"', b'"x"'))
    assert [entry.key for entry in ledger.read()] == ["b"]
    assert "damaged" in caplog.text


def test_neither_ledger_nor_audit_names_anybody(path: Path, store: Store) -> None:
    store.add_faces("Katya", [face(0.1)], external_id="4711")
    store.update_person("katya", Changes(blocked=True, group="crew"))
    store.remove("katya")
    assert b"katya" not in Ledger(path).path.read_bytes().lower()
    assert "katya" not in str(store.audit_rows()).lower()


def test_a_removal_leaves_no_byte_of_the_person(path: Path, store: Store) -> None:
    """In tables, log and free pages: the name, the id made from it, the number, the template, the picture."""
    store.add_faces("Katya", [face(0.123)], external_id="ext-4711", thumbnails=[b"\xff\xd8 her picture"])
    store.add_student("Katya", None, {"note": "her data"})
    store.add_faces("Zero", [face(0.3)])
    for _ in range(50):
        store.record(publishing.event("Katya", id="x", person_id="katya", external_id="ext-4711"))
    store.mark_attendance(store.person("katya"), clock_synced=True)  # type: ignore[arg-type]
    traces = (b"katya", b"ext-4711", face(0.123).tobytes()[:64], b"her picture", b"her data")

    def found() -> list[bytes]:
        files = [file for file in path.parent.glob(path.name + "*") if file.is_file()]
        everything = b"".join(file.read_bytes() for file in files).lower()
        return [trace for trace in traces if trace.lower() in everything]

    assert len(found()) == len(traces)
    store.remove("katya")
    store.record(publishing.event("Katya", id="x", person_id="katya", external_id="ext-4711"))  # decided just before
    store.scrub_log()
    assert found() == []
    assert [event["seq"] for event in store.events().items] == list(range(51, 0, -1))
    assert {event["name"] for event in store.events().items} == {None}
    assert store.attendance().items == []
