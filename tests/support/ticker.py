"""How long an event loop was held up, by itself and not by other programs on the same processors."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge_face.upkeep import keep_heap

_TICK_S = 0.005


@dataclass
class Stalls:
    longest_s: float = 0.0
    gaps: list[float] = field(default_factory=list)


@asynccontextmanager
async def measured_stalls() -> AsyncIterator[Stalls]:
    """Ticks in this loop. A gap counts without the time that this thread waited for a processor (schedstat).

    What pytest keeps in memory is no more searched for garbage than what the daemon keeps: 60 ms in a process of tests.
    """
    stalls = Stalls()
    keep_heap()
    task = asyncio.create_task(_tick(stalls))
    try:
        yield stalls
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        gc.unfreeze()
        stalls.longest_s = max(stalls.gaps, default=0.0)


async def _tick(stalls: Stalls) -> None:
    loop = asyncio.get_running_loop()
    waits = Path(f"/proc/self/task/{threading.get_native_id()}/schedstat")
    with waits.open("rb", buffering=0) as file:

        def waited_s() -> float:
            file.seek(0)
            return int(file.read().split()[1]) / 1e9

        at, waited = loop.time(), waited_s()
        while True:
            await asyncio.sleep(_TICK_S)
            now, now_waited = loop.time(), waited_s()
            stalls.gaps.append(max(0.0, now - at - _TICK_S - (now_waited - waited)))
            at, waited = now, now_waited
