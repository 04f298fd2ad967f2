"""Live fan-out to whoever watches: each has a bounded queue, and a slow one loses the oldest, not the newest."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

T = TypeVar("T")


class Subscription(Generic[T]):
    """An async iterator over what was sent since it was opened. `lost` counts what did not fit."""

    def __init__(self, bound: int) -> None:
        self._queue: asyncio.Queue[T | None] = asyncio.Queue(bound)
        self.lost = 0

    def put(self, item: T | None) -> None:
        if self._queue.full():
            self._queue.get_nowait()
            self.lost += 1
        self._queue.put_nowait(item)

    async def __aiter__(self) -> AsyncIterator[T]:
        while (item := await self._queue.get()) is not None:
            yield item


class Bus(Generic[T]):
    """Used from the event loop only. `send` never waits."""

    def __init__(self) -> None:
        self._subscriptions: set[Subscription[T]] = set()
        self._closed = False

    @property
    def watched(self) -> bool:
        """Whether anybody listens, so that nothing is made for nobody."""
        return bool(self._subscriptions)

    def send(self, item: T) -> None:
        for subscription in self._subscriptions:
            subscription.put(item)

    @contextmanager
    def subscribe(self, bound: int) -> Iterator[Subscription[T]]:
        subscription = Subscription[T](bound)
        if self._closed:
            subscription.put(None)
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)

    def close(self) -> None:
        """End every subscriber's iteration, after what is already queued."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription.put(None)


class Wants:
    """Several who may want something made. `tell` hears when the first of them does, and when none does any more."""

    def __init__(self, tell: Callable[[bool], None]) -> None:
        self._tell = tell
        self._who: set[str] = set()

    def of(self, who: str) -> Callable[[bool], None]:
        """How one of them says so."""

        def say(wanted: bool) -> None:
            before = bool(self._who)
            (self._who.add if wanted else self._who.discard)(who)
            if bool(self._who) != before:
                self._tell(not before)

        return say
