"""When the wall clock may be trusted with deleting, and when not."""

from __future__ import annotations

import asyncio

import pytest

from edge_face import retention
from edge_face.database import StoreThread
from edge_face.retention import Steadiness
from edge_face.store import Store
from tests.support import publishing
from tests.support.broker import until
from tests.support.clock import HandClock

DAY = 86_400.0


def ticks(steadiness: Steadiness, clock: HandClock, seconds: float, *, synced: bool = True) -> bool:
    """Time passes; whether it was settled at any look."""
    settled = False
    for _ in range(round(seconds / 30)):
        clock.now += 30
        clock.date += 30
        settled |= steadiness.settled(synced)
    return settled


def test_a_steady_clock_is_believed_after_a_while(clock: HandClock) -> None:
    steadiness = Steadiness(clock)
    assert not ticks(steadiness, clock, 600)
    assert ticks(steadiness, clock, 60)


@pytest.mark.parametrize("jump_s", [3600, -3600, 61])
def test_after_a_jump_it_has_to_settle_again(clock: HandClock, jump_s: float) -> None:
    steadiness = Steadiness(clock)
    ticks(steadiness, clock, 700)
    clock.date += jump_s
    assert not ticks(steadiness, clock, 600)
    assert ticks(steadiness, clock, 60)


def test_a_small_correction_is_no_jump(clock: HandClock) -> None:
    steadiness = Steadiness(clock)
    ticks(steadiness, clock, 700)
    clock.date += 2
    assert steadiness.settled(True)


def test_an_unsynchronised_clock_is_never_believed(clock: HandClock) -> None:
    steadiness = Steadiness(clock)
    assert not ticks(steadiness, clock, 5000, synced=False)
    assert not ticks(steadiness, clock, 600)
    assert ticks(steadiness, clock, 60)


def test_a_jump_by_years_is_not_believed_before_the_next_start(
    clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    steadiness = Steadiness(clock)
    ticks(steadiness, clock, 700)
    clock.date += 1000 * DAY
    assert not ticks(steadiness, clock, 5000)
    assert [record.message for record in caplog.records] == [
        "the clock was set by +1000.0 days: no old events are deleted until the next start"
    ]
    clock.date -= 1000 * DAY
    assert ticks(steadiness, clock, 700)


async def test_old_events_are_deleted_and_no_others(
    store: Store, clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(retention, "BATCH", 2)
    monkeypatch.setattr(retention, "BETWEEN_BATCHES_S", 0)
    synced = False
    for age in (95, 94, 93, 91, 89, 1):
        store.record(publishing.event(timestamp=clock.date - age * DAY))
    thread = StoreThread()
    task = asyncio.create_task(retention.keep(store, thread, clock, lambda: 90, lambda: synced))

    async def pass_time() -> None:
        clock.now += retention.SETTLE_S
        clock.date += retention.SETTLE_S
        await asyncio.sleep(0.1)

    await pass_time()
    await pass_time()
    assert len(store.events().items) == 6
    synced = True
    await asyncio.sleep(0.1)
    await pass_time()
    await until(lambda: len(store.events().items) == 2)
    clock.date += 1000 * DAY
    for _ in range(10):
        await pass_time()
    assert len(store.events().items) == 2
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await thread.close()
