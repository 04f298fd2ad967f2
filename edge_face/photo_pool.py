"""Several children that read photos at once, for a command that enrols many."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace

from edge_face import memory, settings
from edge_face.backends import Backends
from edge_face.errors import ImageError
from edge_face.messages import PhotoResult
from edge_face.supervisor import PhotoProcess

_WORTH_A_CHILD = 40
"""Photos: a child takes as long to load its models as to read about so many."""
_TOGETHER, _SMALL = 8, 512 * 1024
"""Photos that a child reads together, and how many bytes each may have: the gain of a larger one is small beside it."""
_CHILD = 200 * memory.MIB
"""A child with its models, and with the faces of `_TOGETHER` photos in the encoder."""


@dataclass(frozen=True, slots=True)
class _Asked:
    data: bytes
    rivals: float
    answer: asyncio.Future[PhotoResult]

    def goes_with(self, other: _Asked) -> bool:
        return max(len(self.data), len(other.data)) <= _SMALL and self.rivals == other.rivals


class PhotoPool:
    """Reads photos as a PhotoProcess does, `at_once` of them; each child is started when it is first needed."""

    def __init__(self, options: settings.Engine, log_level: str, photos: int, *, thumbnails: bool) -> None:
        """`photos`: about how many there will be."""
        count = how_many(photos, len(os.sched_getaffinity(0)), memory.available_bytes(), memory.photo_bytes())
        if count > 1:
            options = replace(options, threads=1)  # the processors are busy with other photos
        self.at_once = 2 * _TOGETHER * count  # so that all that a child can take waits when it is ready
        backends = Backends.remembered()
        self._all = [PhotoProcess(options, log_level, backends=backends, thumbnails=thumbnails) for _ in range(count)]
        self._free = list(self._all)
        self._waiting = deque[_Asked]()
        self._reading = set[asyncio.Task[None]]()

    async def analyse(self, data: bytes, rivals: float = 0.0) -> PhotoResult:
        """Raises as PhotoProcess.analyse."""
        asked = _Asked(data, rivals, asyncio.get_running_loop().create_future())
        self._waiting.append(asked)
        if self._free:
            task = asyncio.create_task(self._read(self._free.pop()))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)
        result = await asked.answer
        if result.error:
            raise ImageError(result.message, result.error)
        return result

    async def _read(self, process: PhotoProcess) -> None:
        """Until no photo waits."""
        while self._waiting:
            together = [self._waiting.popleft()]
            while self._waiting and len(together) < _TOGETHER and self._waiting[0].goes_with(together[0]):
                together.append(self._waiting.popleft())
            await _read_together(process, together)
        self._free.append(process)

    async def close(self) -> None:
        for task in self._reading:
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)
        await asyncio.gather(*(process.close() for process in self._all))


async def _read_together(process: PhotoProcess, asked: Sequence[_Asked]) -> None:
    results: Sequence[PhotoResult | Exception]
    try:
        results = await process.analyse_all([each.data for each in asked], asked[0].rivals)
    except Exception as error:  # whatever it is, who asked must hear it
        results = [error] * len(asked)
    for each, result in zip(asked, results, strict=True):
        if each.answer.done():  # cancelled
            continue
        if isinstance(result, Exception):
            each.answer.set_exception(result)
        else:
            each.answer.set_result(result)


def how_many(photos: int, processors: int, available: int, photo: int) -> int:
    """Children: one a processor, if there is enough for each to do, and memory (bytes) if each has a photo that takes
    the most, `photo`.
    """
    return max(1, min(processors, photos // _WORTH_A_CHILD, available // (_CHILD + photo)))
