"""The delivery loop on a real store."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from edge_face import publish
from edge_face.errors import StoreError
from edge_face.events import Presence
from edge_face.journal import Journal
from edge_face.outbox import ON_ITS_WAY_S
from edge_face.publish import HISTORY, Publisher, Refused, RetryLater, SwitchedOff
from edge_face.store import Changes, Store, StoreThread
from tests.support.broker import until
from tests.support.publishing import CLOCK, RecordingSink, deadline, event, publishing


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "edge-face.db"


async def test_each_wanting_sink_gets_each_event_once_and_in_order(path: Path) -> None:
    one, two = RecordingSink("one"), RecordingSink("two", history=True)
    async with publishing(path, one, two) as publisher:
        numbered = [await publisher.publish(event(name), deadline()) for name in ("Ada", "Bob", "Cyd")]
        await publisher.publish(event(None), deadline())
        assert await publisher.drain(2)
    assert [e.seq for e in numbered] == [1, 2, 3]
    assert one.names == two.names == ["Ada", "Bob", "Cyd"]
    assert [payload["seq"] for payload in one.delivered] == [1, 2, 3]
    assert publisher.counters["one"].delivered == 3
    assert one.closed
    assert two.closed


async def test_a_slow_sink_delays_no_other(path: Path) -> None:
    slow, fast = RecordingSink("slow", delay_s=30), RecordingSink("fast")
    async with publishing(path, slow, fast) as publisher:
        for name in ("Ada", "Bob"):
            await publisher.publish(event(name), deadline())
        await until(lambda: fast.names == ["Ada", "Bob"], 1)
    assert slow.delivered == []


async def test_a_live_event_is_tried_until_its_time_is_over_and_never_after(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = RecordingSink("dead")
    sink.answers = [RetryLater("nobody there") for _ in range(100)]
    ends = deadline(0.8)
    async with publishing(path, sink) as publisher:
        for name in ("Ada", "Bob", "Cyd"):
            await publisher.publish(event(name), ends)
        assert await publisher.drain(3)
        assert CLOCK.monotonic() >= ends - ON_ITS_WAY_S
        assert publisher.status()["dead"]["healthy"] is publisher.healthy is False
        sink.answers.clear()
        await publisher.publish(event("Dee"), deadline())
        assert await publisher.drain(1)
        assert publisher.status()["dead"]["healthy"]
    assert sink.names == ["Dee"]
    assert 2 <= len(sink.attempts) - 1 <= 8
    assert max(at for at, payload, _ in sink.attempts if payload["name"] != "Dee") < ends - ON_ITS_WAY_S
    assert publisher.counters["dead"].expired == 3
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "dead: nobody there",
        "dead: events expire before they can be delivered",
    ]


async def test_an_attempt_is_ended_at_the_deadline(path: Path) -> None:
    sink = RecordingSink("hung", delay_s=30)
    async with publishing(path, sink) as publisher:
        await publisher.publish(event("Ada"), deadline(0.3))
        assert await publisher.drain(1)
    assert len(sink.attempts) == 1
    assert sink.delivered == []
    assert publisher.counters["hung"].expired == 1


@pytest.mark.parametrize("how", ["removed", "blocked", "out of date", "face erased"])
async def test_what_waits_for_the_target_does_not_go_out_once_its_person_may_not_pass(path: Path, how: str) -> None:
    """The attempt itself holds the event: it is not in the store's hands while the broker is away."""
    sink = RecordingSink("away", delay_s=0.5)
    store = Store(path, CLOCK)
    person = store.add_faces("Ada", [np.ones(128, np.float32), np.zeros(128, np.float32)])
    async with publishing(path, sink) as publisher:
        await publisher.publish(event("Ada", person_id=person.id), deadline())
        await publisher.publish(event("Bob"), deadline())
        await until(lambda: sink.attempts)
        publisher.people_changed()
        await asyncio.sleep(0.1)
        assert len(sink.attempts) == 1, "broken off without need"
        if how == "removed":
            store.remove("Ada")
        elif how == "face erased":
            store.remove_face(person.id, store.faces(person.id)[0].id)
        else:
            store.update_person("Ada", Changes(blocked=True) if how == "blocked" else Changes(valid_until=1000.0))
        store.close()
        publisher.people_changed()
        assert await publisher.drain(2)
    assert sink.names == ["Bob"]
    assert publisher.status()["away"]["healthy"]


async def test_an_event_that_is_late_already_is_not_tried(path: Path) -> None:
    live, history = RecordingSink("live"), RecordingSink("history", history=True)
    async with publishing(path, live, history) as publisher:
        await publisher.publish(event("Ada"), deadline(-1))
        assert await publisher.drain(1)
    assert live.attempts == []
    assert [(payload["type"], late) for _, payload, late in history.attempts] == [(HISTORY, True)]


async def test_history_changes_its_type_when_its_time_is_over(path: Path) -> None:
    sink = RecordingSink("history", history=True)
    sink.answers = [RetryLater("busy"), RetryLater("busy"), RetryLater("busy")]
    ends = deadline(0.4)
    async with publishing(path, sink) as publisher:
        await publisher.publish(event("Ada"), ends)
        assert await publisher.drain(3)
    assert sink.attempts[0][1]["type"] == "face_event"
    assert sink.delivered[0]["type"] == HISTORY
    assert all((payload["type"] == HISTORY) == late == (at >= ends) for at, payload, late in sink.attempts)


async def test_a_refused_event_is_parked_and_the_next_goes_out(path: Path) -> None:
    sink = RecordingSink("picky")
    sink.answers = [Refused("400")]
    async with publishing(path, sink) as publisher:
        await publisher.publish(event("Ada"), deadline())
        await publisher.publish(event("Bob"), deadline())
        assert await publisher.drain(1)
    assert sink.names == ["Bob"]
    assert publisher.counters["picky"].refused == 1
    store = Store(path, CLOCK)
    assert store.dropped() == {"picky": {"parked": 1}}
    store.close()


async def test_a_receivers_wish_for_a_pause_is_granted(path: Path) -> None:
    sink = RecordingSink("busy")
    sink.answers = [RetryLater("429", after_s=0.7)]
    async with publishing(path, sink) as publisher:
        await publisher.publish(event("Ada"), deadline())
        assert await publisher.drain(3)
    assert sink.attempts[1][0] - sink.attempts[0][0] >= 0.7


async def test_a_pause_ends_with_the_event(path: Path) -> None:
    sink = RecordingSink("busy")
    sink.answers = [RetryLater("429", after_s=60)]
    async with publishing(path, sink) as publisher:
        await publisher.publish(event("Ada"), deadline(0.2))
        assert await publisher.drain(2)
    assert len(sink.attempts) == 1
    assert publisher.counters["busy"].expired == 1


async def test_a_sink_that_is_switched_off_gets_nothing_until_the_next_start(path: Path) -> None:
    gone, other = RecordingSink("gone", history=True), RecordingSink("other")
    gone.answers = [SwitchedOff("410")]
    async with publishing(path, gone, other) as publisher:
        await publisher.publish(event("Ada"), deadline())
        assert await publisher.drain(1)
        await publisher.publish(event("Bob"), deadline())
        assert await publisher.drain(1)
        assert publisher.status()["gone"]["switched_off"]
        assert not publisher.healthy
    assert len(gone.attempts) == 1
    assert other.names == ["Ada", "Bob"]
    async with publishing(path, gone) as publisher:
        await until(lambda: gone.names == ["Ada"])


async def test_what_waits_outlives_the_process_and_removed_targets_are_forgotten(path: Path) -> None:
    sink, removed = RecordingSink("kept", history=True), RecordingSink("removed", history=True)
    for dead in (sink, removed):
        dead.answers = [RetryLater("off")] * 9
    async with publishing(path, sink, removed) as publisher:
        await publisher.publish(event("Ada"), deadline(0.1))
        assert not await publisher.drain(0.2)
    sink.answers.clear()
    async with publishing(path, sink) as publisher:
        await until(lambda: sink.names == ["Ada"])
        assert await publisher.drain(1)
    store = Store(path, CLOCK)
    assert store.backlog() == {}
    store.close()


class ForgetfulStore(Store):
    """A disk that is full at the wrong moment."""

    failures = 1

    def done(self, target: str, seq: int, *, wait_s: float = 0) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreError("the disk is full")
        super().done(target, seq, wait_s=wait_s)


async def test_a_database_in_trouble_does_not_make_a_sink_deliver_twice(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "RECOVER_S", 0.1)
    sink = RecordingSink("once")
    async with publishing(path, sink, kind=ForgetfulStore) as publisher:
        for name in ("Ada", "Bob"):
            await publisher.publish(event(name), deadline())
        assert await publisher.drain(2)
        assert sink.names == ["Ada", "Bob"]
        await until(lambda: not publisher.storage.failing)
    async with publishing(path, sink) as publisher:  # nothing was left over
        await publisher.publish(event("Cyd"), deadline())
        assert await publisher.drain(2)
    assert [(payload["name"], payload["seq"]) for payload in sink.delivered] == [("Ada", 1), ("Bob", 2), ("Cyd", 3)]


async def test_states_reach_every_sink_at_once(path: Path) -> None:
    sink = RecordingSink("any")
    async with publishing(path, sink) as publisher:
        publisher.state(Presence("front", True))
    assert sink.states == [Presence("front", True)]


async def test_without_sinks_events_are_kept_and_the_loop_goes_on(path: Path) -> None:
    async with publishing(path) as publisher:
        assert (await publisher.publish(event("Ada"), deadline())).seq == 1
        assert await publisher.drain(1)


async def test_a_defect_in_a_sink_ends_the_publisher_and_closes_all(path: Path) -> None:
    broken, other = RecordingSink("broken"), RecordingSink("other")
    broken.answers = [KeyError("a bug")]
    thread = StoreThread()
    store = await thread.run(Store, path, CLOCK)
    publisher = Publisher(await thread.run(Journal, store, CLOCK), thread, [broken, other], CLOCK)
    running = asyncio.create_task(publisher.run())
    await publisher.publish(event("Ada"), deadline())
    with pytest.raises(ExceptionGroup) as caught:
        await running
    assert caught.group_contains(KeyError)
    assert other.closed
    store.close()
    await thread.close()
    with pytest.raises(StoreError):
        await publisher.publish(event("Bob"), deadline())
