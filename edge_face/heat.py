"""A hot processor gets fewer frames to judge, before it slows itself down by more and at its own choice."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from edge_face.clock import Clock

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
STEP_S = 20.0
"""Between two steps: the chip needs time to show what the last one did."""
COOLER_C = 5.0
"""By so much it must cool down before there are more frames again."""
LEAST = 0.125


class Heat:
    """`share` of the usual frame rate: halved while it is too hot, doubled when it has cooled down."""

    def __init__(self, clock: Clock, limit_c: Callable[[], float]) -> None:
        """`limit_c`: asked anew each time; 0: never."""
        self._clock = clock
        self._limit_c = limit_c
        self._stepped_at = float("-inf")
        self.share = 1.0

    def feel(self, degrees: float | None) -> bool:
        """Whether the share has changed. None, no sensor, changes nothing."""
        now, limit_c = self._clock.monotonic(), self._limit_c()
        if now - self._stepped_at < STEP_S:
            return False
        if not limit_c:
            changed, self.share = self.share < 1, 1.0
            return changed
        if degrees is None:
            return False
        if degrees >= limit_c and self.share > LEAST:
            self.share /= 2
            _log.warning(
                "the processor has %.0f °C: %g of the frames are judged until it is cooler", degrees, self.share
            )
        elif degrees <= limit_c - COOLER_C and self.share < 1:
            self.share *= 2
            _log.warning("the processor has cooled down to %.0f °C: %g of the frames are judged", degrees, self.share)
        else:
            return False
        self._stepped_at = now
        return True

    async def watch(self, degrees: Callable[[], float | None], slow_down: Callable[[float], None]) -> None:
        """For ever; `slow_down` hears of each new share."""
        while True:
            if self.feel(degrees()):
                slow_down(self.share)
            await asyncio.sleep(LOOK_EVERY_S)

    def payload(self) -> dict[str, Any]:
        return {"limit_c": self._limit_c(), "share": self.share}
