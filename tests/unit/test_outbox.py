"""Events and their deliveries, on real SQLite files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edge_face import pages
from edge_face.errors import StoreError
from edge_face.events import Event
from edge_face.store import Changes, Store, Target
from tests.support import publishing
from tests.support.clock import HandClock


def event(camera: str = "front", status: str = "PASS", name: str | None = "Katya", timestamp: float = 1000.0) -> Event:
    return publishing.event(
        name, id="x", camera=camera, status=status, timestamp=timestamp, expires_at=timestamp + 5, frames=2
    )


def test_events_are_numbered_over_restarts_and_processes(store: Store, path: Path, clock: HandClock) -> None:
    other = Store(path, clock)
    seqs = [store.record(event()).seq, other.record(event()).seq, store.record(event()).seq]
    other.close()
    with store.writing() as db:
        db.execute("DELETE FROM events")
    store.close()
    again = Store(path, clock)
    assert [*seqs, again.record(event()).seq] == [1, 2, 3, 4]
    again.close()


def test_a_failed_record_uses_no_number(store: Store) -> None:
    with store.writing() as db:
        db.execute("CREATE TEMP TRIGGER t BEFORE INSERT ON outbox BEGIN SELECT raise(ABORT, 'no'); END")
    with pytest.raises(StoreError):
        store.record(event(), [Target("mqtt")])
    with store.writing() as db:
        db.execute("DROP TRIGGER t")
    assert store.record(event()).seq == 1
    assert store.pending("mqtt") is None


def test_deliveries_come_oldest_first_and_once(store: Store, clock: HandClock) -> None:
    for name in ("Katya", "Zero"):
        store.record(event(name=name), [Target("mqtt", clock.now + 5), Target("csv")])
    first = store.pending("mqtt")
    assert first is not None
    assert (first.seq, first.expired, first.payload["name"], first.payload["seq"]) == (
        1, False, "Katya", 1,
    )  # fmt: skip
    assert first.payload == event().numbered(1).payload()
    assert first.time_left(clock.now + 2) == 3
    assert first.time_left(clock.now + 9) == 0
    store.done("mqtt", 1)
    second = store.pending("mqtt")
    assert second is not None
    assert second.seq == 2
    history = store.pending("csv")
    assert history is not None
    assert (history.seq, history.deadline, history.time_left(1e12)) == (1, None, None)


def test_what_would_arrive_expired_is_expired(store: Store, clock: HandClock) -> None:
    """A broker that is back 50 ms before the end would hand a PASS to the lock when it is over."""
    for ttl in (5.0, 0.5):
        sent = replace(event(), expires_at=event().timestamp + ttl)
        seq = store.record(sent, [Target(f"mqtt {ttl}", clock.now + ttl)]).seq
        item = store.pending(f"mqtt {ttl}")
        assert item is not None
        assert item.seq == seq
        on_its_way = min(0.1, ttl / 10)
        assert item.time_left(clock.now + ttl - 1.1 * on_its_way) == pytest.approx(1.1 * on_its_way)
        assert item.time_left(clock.now + ttl - 0.9 * on_its_way) == 0


def test_a_live_delivery_expires_with_the_boot_clock(store: Store, clock: HandClock) -> None:
    store.record(event(), [Target("mqtt", clock.now + 5), Target("csv")])
    clock.now += 4.999
    assert not store.pending("mqtt").expired  # type: ignore[union-attr]
    clock.now += 0.001
    assert store.pending("mqtt").expired  # type: ignore[union-attr]
    assert not store.pending("csv").expired  # type: ignore[union-attr]


def test_after_a_restart_only_the_same_boot_s_deliveries_are_live(path: Path, clock: HandClock) -> None:
    before = Store(path, clock, boot="first boot")
    before.record(event(), [Target("mqtt", clock.now + 5), Target("csv")])
    before.close()
    restarted = Store(path, clock, boot="first boot")
    assert not restarted.pending("mqtt").expired  # type: ignore[union-attr]
    restarted.close()
    clock.now = 3.0  # a new boot's clock starts again, below the old deadline
    rebooted = Store(path, clock, boot="second boot")
    item = rebooted.pending("mqtt")
    assert item is not None
    assert item.expired
    assert item.time_left(clock.now) == 0
    assert not rebooted.pending("csv").expired  # type: ignore[union-attr]
    rebooted.close()


def test_what_is_given_up_is_counted(store: Store) -> None:
    for _ in range(3):
        store.record(event(), [Target("mqtt"), Target("webhook")])
    store.drop("mqtt", 1, "expired")
    store.drop("mqtt", 2, "expired")
    store.drop("mqtt", 2, "expired")
    store.drop("webhook", 1, "parked")
    assert store.dropped() == {"mqtt": {"expired": 2}, "webhook": {"parked": 1}}
    assert {name: backlog.count for name, backlog in store.backlog().items()} == {"mqtt": 1, "webhook": 2}


def test_the_outbox_is_bounded_and_the_newest_stay(path: Path, clock: HandClock) -> None:
    store = Store(path, clock, outbox_limit=3)
    for number in range(5):
        store.record(event(timestamp=100.0 + number), [Target("mqtt")])
        store.record(event(), [Target("csv")])
    backlog = store.backlog()["mqtt"]
    assert (backlog.count, backlog.age_s) == (3, 0.0)
    assert store.dropped() == {"mqtt": {"full": 2}, "csv": {"full": 2}}
    store.close()


def test_targets_that_are_gone_are_forgotten(store: Store) -> None:
    store.record(event(), [Target("mqtt"), Target("webhook:old's")])
    store.record(event(), [Target("webhook:old's")])
    store.drop("webhook:old's", 2, "parked")
    assert store.forget_targets({"mqtt", "csv"}) == 1
    assert list(store.backlog()) == ["mqtt"]
    assert store.dropped() == {}


def test_events_are_filtered(store: Store) -> None:
    store.record(event(timestamp=100))
    store.record(event(timestamp=200, name="Zero", camera="back"))
    store.record(event(timestamp=300, name=None, status="REJECT"))

    def seqs(**filters: object) -> list[int]:
        return [item["seq"] for item in store.events(**filters).items]  # type: ignore[arg-type]

    assert seqs() == [3, 2, 1]
    assert seqs(newest_first=False) == [1, 2, 3]
    assert seqs(since=200) == [3, 2]
    assert seqs(until=200) == [1]
    assert seqs(status="REJECT") == [3]
    assert seqs(person="Zero") == seqs(person="zero") == seqs(camera="back") == [2]
    assert seqs(person="katya", camera="back") == []
    assert seqs(person="' OR 1=1 --") == seqs(person="\udcff") == []
    assert seqs(limit=None) == [3, 2, 1]


def test_events_come_in_pages_while_new_ones_arrive(store: Store) -> None:
    for _ in range(5):
        store.record(event())
    page = store.events(limit=2)
    store.record(event())
    rest = store.events(limit=3, cursor=page.next_cursor)
    assert [item["seq"] for item in page.items + rest.items] == [5, 4, 3, 2, 1]
    assert rest.next_cursor is None
    assert [item["seq"] for item in pages.each(store.events, newest_first=False)] == [1, 2, 3, 4, 5, 6]


def test_a_long_export_reads_in_pages(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_face.pages.READ_AT_ONCE", 2)
    for _ in range(5):
        store.record(event())
    assert [item["seq"] for item in pages.each(store.events, status="PASS")] == [5, 4, 3, 2, 1]


def test_retention_deletes_old_events_in_batches(store: Store) -> None:
    for number in range(5):
        store.record(event(timestamp=float(number)), [Target("mqtt")])
    assert [store.purge(4.0, batch=3), store.purge(4.0, batch=3), store.purge(4.0, batch=3)] == [3, 1, 0]
    assert [item["seq"] for item in store.events().items] == [5]
    assert store.pending("mqtt").seq == 5  # type: ignore[union-attr]
    assert store.dropped() == {"mqtt": {"retention": 4}}
    assert store.record(event()).seq == 6


def test_of_a_removed_person_nothing_more_goes_out_live(store: Store, clock: HandClock) -> None:
    store.add_faces("Katya", [np.zeros(128, np.float32)])
    live, history = Target("mqtt", clock.now + 5), Target("csv")
    store.record(event(), [live, history])
    store.record(event(name="Zero"), [live])
    store.remove("katya", "id")
    store.record(event(), [live, history])  # decided just before
    item = store.pending("mqtt")
    assert item is not None
    assert item.payload["name"] == "Zero"
    store.done("mqtt", item.seq)
    assert store.pending("mqtt") is None
    kept = store.pending("csv")
    assert kept is not None
    assert store.dropped()["mqtt"] == {"removed": 1}


@pytest.mark.parametrize(
    "changes",
    [Changes(blocked=True), Changes(valid_until=900.0), Changes(valid_from=1_800_000_000.0)],
    ids=["blocked", "over", "not yet"],
)
def test_a_pass_of_who_may_not_pass_any_more_does_not_go_out_live(
    store: Store, clock: HandClock, changes: Changes
) -> None:
    store.add_faces("Katya", [np.zeros(128, np.float32)])
    live, history = Target("mqtt", clock.now + 5), Target("csv")
    store.record(event(), [live, history])
    store.record(replace(event(), status="REJECT", reason="not_allowed"), [live])
    store.update_person("katya", changes)
    store.record(event(), [live, history])  # decided just before
    item = store.pending("mqtt")
    assert item is not None
    assert item.payload["status"] == "REJECT"
    store.done("mqtt", item.seq)
    assert store.pending("mqtt") is None
    assert store.backlog()["csv"].count == 2
    assert store.dropped()["mqtt"] == {"blocked": 1}


def test_a_pass_within_the_time_goes_out(store: Store, clock: HandClock) -> None:
    """Decided at the very beginning, from a frame of just before; told when the time is just over."""
    store.add_faces("Katya", [np.zeros(128, np.float32)])
    store.update_person("katya", Changes(valid_from=1000.0, valid_until=1001.0))
    clock.date = 1001.5
    store.record(event(timestamp=999.9), [Target("mqtt", clock.now + 5)])
    assert store.pending("mqtt") is not None


def test_a_pass_due_to_a_face_that_was_erased_does_not_go_out(store: Store, clock: HandClock) -> None:
    store.add_faces("Katya", [np.zeros(128, np.float32), np.ones(128, np.float32)])
    store.record(event(), [Target("mqtt", clock.now + 5)])
    store.remove_face("katya", store.faces("katya")[0].id)
    assert store.pending("mqtt") is None


def test_recent_passes_are_those_of_this_boot(path: Path, clock: HandClock) -> None:
    store = Store(path, clock, boot="one")
    store.record(event())
    clock.now += 20
    store.record(event(name="Zero"))
    store.record(event(status="REJECT"))
    assert store.recent_passes(10) == [("front", "zero", clock.now)]
    assert len(store.recent_passes(30)) == 2
    store.close()
    store = Store(path, clock, boot="two")
    assert store.recent_passes(30) == []
    store.close()


def test_events_of_an_unset_clock_are_not_old_because_they_look_old(store: Store, clock: HandClock) -> None:
    """They are as old as the next event whose time is known."""

    def undated(timestamp: float) -> Event:
        return publishing.event(timestamp=timestamp, clock_synced=False)

    day = 86_400.0
    for told in (event(timestamp=10 * day), undated(5.0), event(timestamp=11 * day), undated(6.0)):
        store.record(told)
    store.record(event(timestamp=20 * day))
    store.record(undated(7.0))
    assert [store.purge(15 * day, batch=1) for _ in range(4)] == [1, 1, 1, 0]
    assert [item["seq"] for item in store.events(newest_first=False).items] == [4, 5, 6]
    assert store.purge(25 * day) == 2
    assert [item["seq"] for item in store.events().items] == [6]


def test_events_get_their_date_when_the_clock_becomes_right(path: Path, clock: HandClock) -> None:
    clock.now, clock.date = 50.0, 60.0
    earlier = Store(path, clock, boot="earlier")
    earlier.record(publishing.event(timestamp=60.0, clock_synced=False))
    earlier.close()
    store = Store(path, clock, boot="this")
    store.record(publishing.event(timestamp=60.0, clock_synced=False))
    clock.now, clock.date = 80.0, 1_000_000.0
    assert store.date_events() == 1
    (found,) = store.events(since=1000).items
    assert (found["seq"], found["timestamp"], found["clock"]) == (2, 60.0, "unsynced"), "as it was told"
    assert store.events(since=999_970).items == [found]
    assert store.events(since=999_971).items == []
    assert store.date_events() == 0
    store.close()


def test_notes_of_missed_events_go_with_the_events_around_them(store: Store) -> None:
    assert store.catch_up(3, [], [], {}, (100.0, 200.0, "the disk is full"), wait_s=1)
    assert [(note.first_seq, note.last_seq) for note in store.missed()] == [(1, 3)]
    assert [len(store.missed(since)) for since in (200.0, 201.0)] == [1, 0]
    assert [len(store.missed(None, until)) for until in (100.0, 101.0)] == [0, 1]
    assert store.record(event()).seq == 4
    store.purge(200.0)
    assert store.missed()
    store.purge(200.5)
    assert not store.missed()
