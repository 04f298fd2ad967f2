"""Several children that read photos at once, for a command that enrols many."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace

from edge_face import memory, settings
from edge_face.backends import Backends
from edge_face.messages import PhotoResult
from edge_face.supervisor import PhotoProcess

_WORTH_A_CHILD = 40
"""Photos: a child takes as long to load its models as to read about so many."""
_CHILD = 160 * memory.MIB
"""A child with its models."""


class PhotoPool:
    """Reads photos as a PhotoProcess does, `at_once` of them; each child is started when it is first needed."""

    def __init__(self, options: settings.Engine, log_level: str, photos: int, *, thumbnails: bool) -> None:
        """`photos`: about how many there will be."""
        self.at_once = how_many(photos, len(os.sched_getaffinity(0)), memory.available_bytes(), memory.photo_bytes())
        if self.at_once > 1:
            options = replace(options, threads=1)  # the processors are busy with other photos
        backends = Backends.remembered()
        self._all = [
            PhotoProcess(options, log_level, backends=backends, thumbnails=thumbnails) for _ in range(self.at_once)
        ]
        self._free = asyncio.LifoQueue[PhotoProcess]()
        for process in self._all:
            self._free.put_nowait(process)

    async def analyse(self, data: bytes, rivals: float = 0.0) -> PhotoResult:
        """Raises as PhotoProcess.analyse."""
        process = await self._free.get()
        try:
            return await process.analyse(data, rivals)
        finally:
            self._free.put_nowait(process)

    async def close(self) -> None:
        await asyncio.gather(*(process.close() for process in self._all))


def how_many(photos: int, processors: int, available: int, photo: int) -> int:
    """Children: one a processor, if there is enough for each to do, and memory (bytes) if each has a photo that takes
    the most, `photo`.
    """
    return max(1, min(processors, photos // _WORTH_A_CHILD, available // (_CHILD + photo)))
