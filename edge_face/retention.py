"""Old events are deleted by the wall clock, so only while it can be believed: a wrong date would delete them all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from edge_face.clock import Clock
from edge_face.database import StoreThread
from edge_face.errors import StoreError

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 30.0
PURGE_EVERY_S = 3600.0
BATCH = 500
BETWEEN_BATCHES_S = 0.5
"""The gate's own writes come in between."""

JUMP_S = 60.0
"""Wall and boot clock that part by more than this between two looks: somebody has set the clock."""
SETTLE_S = 600.0
"""How long it must have gone steadily since."""
FAR_S = 86_400.0
"""Who sets a synchronised clock by more than a day is not believed until the next start."""

Purge = Callable[[float, int], Awaitable[int]]
"""Deletes up to so many (the second number) of what is older than the first (Unix seconds); returns how many."""
Rule = tuple[Callable[[], float], Purge]
"""Days, and what is deleted after them."""


class EventPurger(Protocol):
    def purge(self, before: float, batch: int) -> int: ...
    def date_events(self) -> int: ...


class Steadiness:
    """Whether the wall clock may be trusted with deleting. To be asked regularly."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._first: float | None = None
        self._offset = 0.0
        self._since: float | None = None
        self._told = False

    def settled(self, synced: bool) -> bool:
        now = self._clock.monotonic()
        offset = self._clock.wall() - now
        if not synced:
            self._since = None
            return False
        if self._first is None:
            self._first = offset
        if self._since is None or abs(offset - self._offset) > JUMP_S:
            self._since = now
        self._offset = offset
        if abs(offset - self._first) > FAR_S:
            if not self._told:
                days = (offset - self._first) / 86_400
                _log.warning("the clock was set by %+.1f days: no old events are deleted until the next start", days)
            self._told = True
            return False
        return now - self._since >= SETTLE_S


async def keep(
    store: EventPurger,
    thread: StoreThread,
    clock: Clock,
    days: Callable[[], float],
    synced: Callable[[], bool],
    *others: Rule,
) -> None:
    """Delete events older than `days` (0: never), and what `others` say, for ever. Days are asked each time."""

    async def purge_events(before: float, batch: int) -> int:
        return await thread.run(store.purge, before, batch)

    rules: tuple[Rule, ...] = ((days, purge_events), *others)
    steadiness = Steadiness(clock)
    purged_at = float("-inf")
    while True:
        settled = steadiness.settled(synced())
        if settled and any(each() for each, _ in rules) and clock.monotonic() - purged_at >= PURGE_EVERY_S:
            try:
                await thread.run(store.date_events)
                for each, purge in rules:
                    if kept_days := each():
                        await _purge(purge, clock.wall() - kept_days * 86_400)
                purged_at = clock.monotonic()
            except StoreError as error:
                _log.error("what is old could not be deleted: %s", error)
        await asyncio.sleep(LOOK_EVERY_S)


async def _purge(purge: Purge, before: float) -> None:
    purged = BATCH
    while purged == BATCH:
        purged = await purge(before, BATCH)
        await asyncio.sleep(BETWEEN_BATCHES_S)
