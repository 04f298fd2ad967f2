"""A clock for tests of everything that depends on time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class HandClock:
    """A clock that stands until the test moves it."""

    now: float = 1000.0
    date: float = 1_700_000_000.0

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.date
