"""The parent's handle on the child that draws (drawing.py): started at the first frame, closed with the last viewer."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable

from edge_face.child import Child
from edge_face.errors import WorkerError
from edge_face.messages import Draw, DrawJob, Drawn, Label

_log = logging.getLogger(__name__)

ANSWER_S = 20.0
"""The first answer includes the start of the process."""


class Painter:
    """One frame at a time. What cannot be drawn is left out, and a child that fails is started again."""

    def __init__(self, quality: Callable[[], int]) -> None:
        self._quality = quality
        self._child: Child | None = None
        self._ids = itertools.count(1)
        self._one_at_a_time = asyncio.Lock()
        self._told = False

    @property
    def pid(self) -> int | None:
        return self._child.process.pid if self._child else None

    async def draw(self, jpeg: bytes, labels: tuple[Label, ...]) -> bytes | None:
        async with self._one_at_a_time:
            try:
                if self._child is None:
                    self._child = await Child.start(DrawJob())
                asked = Draw(next(self._ids), jpeg, labels, self._quality())
                self._child.send(asked)
                answer = await self._child.receive(ANSWER_S)
                if not isinstance(answer, Drawn) or answer.id != asked.id:
                    raise WorkerError("answers something else")
            except (WorkerError, OSError) as error:
                if not self._told:
                    _log.error("frames cannot be drawn for /streaming: the process that draws %s", error)
                self._told = True
                await self._stop()
                return None
            except asyncio.CancelledError:
                await self._stop()  # its answer would be taken for that of the next frame
                raise
            self._told = False
            return answer.jpeg

    async def close(self) -> None:
        async with self._one_at_a_time:
            await self._stop()

    async def _stop(self) -> None:
        child, self._child = self._child, None
        if child:
            await child.close()
