"""How much work a frame can take before it is too old to decide anything: learned from how long the work took lately.

Without it a crowd, or a picture too large for the board, makes every frame too old, and nobody gets in at all.
"""

from __future__ import annotations

import math
from collections import deque

ENCODING_PART, SEARCH_PART = 1 / 3, 1 / 2
"""Of the time within which a frame must be judged: what encoding may take, and from where on a search is slow."""
FULL_SEARCH_PART = 0.1
"""Of all time, for slow searches that also find the smallest faces; the others find near ones, and in time."""
FULL_SEARCH_EVERY_S = 10.0


class Budget:
    """Times are seconds; `now` is monotonic."""

    def __init__(self, max_age_s: float, encode_s: float) -> None:
        """`max_age_s`: a frame judged later than that is of no use. `encode_s`: first guess of the time for a face."""
        self.max_age_s = max_age_s
        self._encode_s = encode_s
        self._search_s = 0.0
        self._full_search_s: deque[float] = deque(maxlen=2)
        """What the last two searches would have taken at full scale. Two, as one may be an accident."""
        self._full_search_at = float("-inf")

    @property
    def faces(self) -> int:
        """How many to encode in one frame; one at least."""
        return max(1, int(ENCODING_PART * self.max_age_s / max(self._encode_s, 1e-6)))

    def encoded(self, faces: int, took_s: float) -> None:
        self._encode_s += (took_s / faces - self._encode_s) / 2

    def searched(self, took_s: float, reduction: float, now: float) -> None:
        """The time goes with the square of the reduction."""
        self._search_s = took_s
        self._full_search_s.append(took_s / reduction**2)
        if reduction == 1:
            self._full_search_at = now

    def rests(self, since_s: float) -> bool:
        """After a slow search, whose frame comes too late, as long again belongs to quick frames without one."""
        return self._search_s > SEARCH_PART * self.max_age_s and since_s < 2 * self._search_s

    def reduction(self, least: float, now: float) -> float:
        """How much coarser than at full scale to search, because that takes too long here: `least` to 1, mostly 1."""
        full_s = min(self._full_search_s) if len(self._full_search_s) == 2 else 0.0
        slow_s = SEARCH_PART * self.max_age_s
        full_is_due = now - self._full_search_at >= max(FULL_SEARCH_EVERY_S, full_s / FULL_SEARCH_PART)
        if full_s <= slow_s or full_is_due:
            return 1.0
        return min(1.0, max(least, math.sqrt(slow_s / 2 / full_s)))
