"""Events while the database cannot be written, on real SQLite files that are out of room."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_face import journal as journals
from edge_face.errors import StoreError
from edge_face.events import Event
from edge_face.journal import Given, Journal, Mark
from edge_face.outbox import Missed
from edge_face.store import Changes, Store, Target
from tests.support import publishing
from tests.support.clock import HandClock
from tests.support.disk import no_room


def event(name: str | None = "Katya", timestamp: float = 1000.0) -> Event:
    """So long that it needs a page of its own: a database without room for one more is full."""
    return publishing.event(name, id="x" * 5000, timestamp=timestamp)


@contextmanager
def full(store: Store) -> Iterator[None]:
    """No page more for this database; the disk has room."""
    with store.reading() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count = {pages}")
    try:
        yield
    finally:
        with store.reading() as db:
            db.execute("PRAGMA max_page_count = 4294967294")


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    folder = tmp_path / "shm"
    folder.mkdir()
    return folder


@pytest.fixture
def journal(store: Store, clock: HandClock, memory: Path) -> Journal:
    return Journal(store, clock, memory=memory)


def stored(store: Store) -> list[int]:
    return [item["seq"] for item in store.events(limit=None, newest_first=False).items]


def drained(journal: Journal, target: str) -> list[int]:
    """Deliver all that the target is to get now."""
    seqs = []
    while (item := journal.pending(target)) is not None:
        journal.done(target, item.seq)
        seqs.append(item.seq)
    return seqs


def test_numbers_go_on_and_all_is_stored_in_the_end(store: Store, journal: Journal, clock: HandClock) -> None:
    journal.record(event())
    with full(store):
        clock.date += 10
        assert [journal.record(event()).seq for _ in range(3)] == [2, 3, 4]
        assert stored(store) == [1]
        assert journal.storage.payload() == {
            "state": "failing", "reason": "the disk is full", "since": clock.date, "held": 3, "lost": 0, "missed": [],
        }  # fmt: skip
        assert not journal.recover()
    assert journal.recover()
    assert not journal.storage.failing
    assert journal.record(event()).seq == 5
    assert stored(store) == [1, 2, 3, 4, 5]
    assert store.missed() == []
    assert store.last_seq() == 5


def test_deliveries_go_on_from_memory_and_none_is_made_twice(store: Store, journal: Journal, clock: HandClock) -> None:
    live, history = Target("mqtt", clock.now + 5), Target("csv")
    journal.record(event(), [live, history])
    with full(store):
        journal.record(event(), [live, history])
        journal.record(event(), [live])
        assert drained(journal, "mqtt") == [1, 2, 3]
        assert drained(journal, "csv") == [2], "what is stored waits: only the disk can remember that it is done"
        journal.record(event(), [live, history])
    assert journal.recover()
    assert drained(journal, "mqtt") == [4]
    assert drained(journal, "csv") == [1, 4]
    assert store.backlog() == {}
    assert store.dropped() == {}


def test_a_delivery_under_way_while_the_disk_comes_back(store: Store, journal: Journal) -> None:
    with full(store):
        journal.record(event(), [Target("csv")])
        item = journal.pending("csv")
    assert journal.recover()
    assert item is not None
    journal.done("csv", item.seq)
    assert journal.pending("csv") is None
    assert store.backlog() == {}


def test_what_expires_meanwhile_is_never_handed_out_as_live(store: Store, journal: Journal, clock: HandClock) -> None:
    with full(store):
        journal.record(event(), [Target("mqtt", clock.now + 5)])
        clock.now += 5
        item = journal.pending("mqtt")
        assert item is not None
        assert item.expired
        journal.drop("mqtt", item.seq, "expired")
        assert journal.pending("mqtt") is None
        journal.record(event(), [Target("mqtt", clock.now + 5)])
    clock.now += 6
    assert journal.recover()
    late = journal.pending("mqtt")
    assert late is not None
    assert (late.seq, late.expired) == (2, True)
    assert store.dropped() == {"mqtt": {"expired": 1}}


def test_what_was_given_up_meanwhile_is_counted_once(store: Store, journal: Journal, clock: HandClock) -> None:
    journal.record(event(), [Target("mqtt", clock.now + 5)])
    with full(store):
        journal.record(event())
        for _ in range(2):
            journal.drop("mqtt", 1, "parked")
    assert journal.recover()
    assert store.backlog() == {}
    assert store.dropped() == {"mqtt": {"parked": 1}}


def test_memory_is_bounded_and_history_says_what_it_missed(store: Store, clock: HandClock, memory: Path) -> None:
    journal = Journal(store, clock, held=3, memory=memory)
    journal.record(event())
    began = clock.date
    with full(store):
        for _ in range(7):
            journal.record(event(), [Target("csv")])
            clock.date += 60
        assert (journal.storage.held, journal.storage.lost) == (3, 4)
    assert journal.recover()
    assert stored(store) == [1, 6, 7, 8]
    note = Missed(2, 5, began, began + 360, "the disk is full")
    assert store.missed() == list(journal.storage.missed) == [note]
    assert store.missed(since=began + 361) == store.missed(until=began) == []
    assert store.dropped() == {"csv": {"full": 4}}
    assert drained(journal, "csv") == [6, 7, 8]
    assert Journal(store, clock, memory=memory).storage.missed == (note,)


@pytest.mark.parametrize("beside", [True, False], ids=["a block beside the database", "a file in memory"])
def test_a_crash_while_the_disk_fails_repeats_no_number(
    store: Store, path: Path, clock: HandClock, memory: Path, beside: bool
) -> None:
    journal = Journal(store, clock, memory=memory)
    journal.record(event())
    if not beside:  # a disk that cannot be written at all
        mark = path.with_name(path.name + ".mark")
        mark.unlink()
        mark.mkdir()
    with full(store):
        assert [journal.record(event()).seq for _ in range(2)] == [2, 3]
        again = Journal(store, clock, memory=memory)  # what was held is gone with the process
        assert again.storage.failing
        assert again.record(event()).seq == 4
    assert again.recover()
    assert stored(store) == [1, 4]
    assert [(note.first_seq, note.last_seq, note.since) for note in store.missed()] == [(2, 3, clock.date)]
    assert "ended before" in store.missed()[0].reason
    assert list(memory.iterdir()) == []
    last = Journal(store, clock, memory=memory)
    assert not last.storage.failing
    assert last.record(event()).seq == 5


def test_where_nothing_can_be_remembered_it_is_said(
    store: Store, clock: HandClock, memory: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every write of this process fails, those of SQLite, of the mark and in memory."""
    journal = Journal(store, clock, memory=memory)
    journal.record(event())
    with no_room():
        assert [journal.record(event(), [Target("csv")]).seq for _ in range(2)] == [2, 3]
        assert drained(journal, "csv") == [2, 3]
        with pytest.raises(StoreError):
            store.add_faces("Zero", [])
    assert [record.levelname for record in caplog.records if "given again" in record.message] == ["ERROR"]
    store._reopen_at = 0.0  # a second later
    assert journal.recover()
    assert stored(store) == [1, 2, 3]
    assert store.add_faces("Zero", []).id == "zero"


def test_who_is_removed_meanwhile_is_not_told_live(store: Store, journal: Journal, clock: HandClock) -> None:
    store.add_faces("Katya", [np.zeros(128, np.float32)])
    with full(store):
        journal.record(event(), [Target("mqtt", clock.now + 5)])
        journal.record(event("Zero"), [Target("mqtt", clock.now + 5)])
    store.remove("katya")
    item = journal.pending("mqtt")
    assert item is not None
    assert item.payload["name"] == "Zero"
    assert journal.recover()
    assert store.backlog()["mqtt"].count == 1
    assert store.dropped() == {"mqtt": {"removed": 1}}


def test_who_is_blocked_meanwhile_is_not_told_live(store: Store, journal: Journal, clock: HandClock) -> None:
    store.add_faces("Katya", [np.zeros(128, np.float32)])
    with full(store):
        journal.record(event(), [Target("mqtt", clock.now + 5)])
    store.update_person("katya", Changes(blocked=True))
    assert journal.pending("mqtt") is None
    assert journal.recover()
    assert store.pending("mqtt") is None
    assert store.dropped() == {"mqtt": {"blocked": 1}}


def test_targets_are_forgotten_when_the_disk_is_back(store: Store, journal: Journal, memory: Path) -> None:
    journal.record(event(), [Target("old")])
    with no_room():
        assert journal.forget_targets(["mqtt"]) == 0
    store._reopen_at = 0.0  # a second later
    assert journal.recover()
    assert store.backlog() == {}


def test_a_locked_database_holds_up_one_event_and_no_more(
    store: Store, path: Path, clock: HandClock, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journals, "WAIT_S", 0.05)
    monkeypatch.setattr(journals, "RECOVERY_WAIT_S", 0.05)
    other = Store(path, clock)
    with other.writing():
        assert [journal.record(event()).seq for _ in range(2)] == [1, 2]
        assert not journal.recover()
        assert journal.storage.reason == "another program is writing to the database"
    other.close()
    assert journal.recover()
    assert stored(store) == [1, 2]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["record", "fill", "free", "recover", "crash", "deliver"]), max_size=30))
def test_whatever_happens_no_number_is_missing_or_given_twice(steps: list[str]) -> None:
    """Each number is in history or in a note, once; each event that is in history reached the file once."""
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        store = Store(Path(folder) / "e.db", HandClock())
        clock, memory = HandClock(), Path(folder)
        journal = Journal(store, clock, held=3, memory=memory)
        seqs: list[int] = []
        delivered: list[int] = []
        crashed = False
        for step in steps:
            if step == "record":
                seqs.append(journal.record(event(), [Target("csv")]).seq)
            elif step in ("fill", "free"):
                with store.reading() as db:
                    pages = db.execute("PRAGMA page_count").fetchone()[0] if step == "fill" else 4294967294
                    db.execute(f"PRAGMA max_page_count = {pages}")
            elif step == "recover":
                journal.recover()
            elif step == "crash":
                journal, crashed = Journal(store, clock, held=3, memory=memory), True
            else:
                delivered += drained(journal, "csv")
        with store.reading() as db:
            db.execute("PRAGMA max_page_count = 4294967294")
        assert journal.recover()
        delivered += drained(journal, "csv")
        assert seqs == list(range(1, len(seqs) + 1))
        noted = [seq for note in store.missed() for seq in range(note.first_seq, note.last_seq + 1)]
        assert sorted(stored(store) + noted) == seqs
        assert len(set(delivered)) == len(delivered) or crashed
        assert set(stored(store)) <= set(delivered)
        store.close()


class TestMark:
    @pytest.fixture
    def place(self, tmp_path: Path) -> Path:
        return tmp_path / "e.db.mark"

    @pytest.fixture
    def mark(self, tmp_path: Path, memory: Path) -> Mark:
        return Mark(tmp_path / "e.db", memory)

    def test_it_takes_its_room_at_once_and_needs_no_more(self, mark: Mark, place: Path) -> None:
        assert mark.read() is None
        before = place.stat()
        mark.write(Given(7, 1.5, 2.25))
        assert mark.read() == Given(7, 1.5, 2.25)
        after = place.stat()
        assert (before.st_ino, before.st_blocks, before.st_size) == (after.st_ino, after.st_blocks, after.st_size)
        assert after.st_mode & 0o777 == 0o600
        mark.clear()
        assert mark.read() is None

    def test_half_a_block_is_none(self, mark: Mark, place: Path) -> None:
        mark.write(Given(7, 1.0, 2.0))
        place.write_bytes(place.read_bytes()[:9] + bytes(4087))
        assert mark.read() is None

    def test_another_user_s_file_in_memory_is_not_believed(self, mark: Mark, place: Path, memory: Path) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root can give a file away")
        place.unlink()
        place.mkdir()
        mark.write(Given(7, 1.0, 2.0))
        (foreign,) = memory.iterdir()
        os.chown(foreign, 12345, 12345)
        assert mark.read() is None
        mark.write(Given(8, 1.0, 2.0))
        assert b"8 1.0" not in foreign.read_bytes()
        foreign.unlink()
        foreign.symlink_to("/etc/hostname")
        mark.write(Given(9, 1.0, 2.0))
        assert mark.read() is None
