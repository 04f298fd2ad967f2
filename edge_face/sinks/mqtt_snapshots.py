"""Pictures for the broker: after each event, and when one is asked for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

from edge_face.errors import CaptureError
from edge_face.events import Snapshot
from edge_face.sinks.mqtt_link import Link, LinkLost
from edge_face.sinks.mqtt_messages import Topics

_log = logging.getLogger(__name__)


class Snapshots:
    """Beside the events, which wait for no picture. Of a camera that is asked for again meanwhile, one is sent."""

    def __init__(self, topics: Topics, picture: Callable[[str], Awaitable[Snapshot]]) -> None:
        self._topics = topics
        self._picture = picture
        self._wanted: dict[str, None] = {}
        self._asked = asyncio.Event()

    def ask(self, cameras: Sequence[str]) -> None:
        """By a command."""
        self.want(cameras)

    def want(self, cameras: Sequence[str]) -> None:
        self._wanted |= dict.fromkeys(cameras)
        self._asked.set()

    async def run(self, link: Link) -> None:
        """Until the connection ends. What was asked for before it is forgotten: it would show something else."""
        self._wanted.clear()
        while True:
            self._asked.clear()
            while self._wanted:
                camera = next(iter(self._wanted))
                del self._wanted[camera]
                try:
                    link.post(self._topics.of(camera, "snapshot"), (await self._picture(camera)).jpeg)
                except CaptureError as error:
                    _log.warning("no snapshot is sent: %s", error)
                except LinkLost:
                    return
            await self._asked.wait()


class NoSnapshots(Snapshots):
    """They are off, because whoever reads the broker would see who comes and goes."""

    def ask(self, cameras: Sequence[str]) -> None:  # noqa: ARG002
        _log.warning("no snapshot is sent: [mqtt] snapshots is off")

    def want(self, cameras: Sequence[str]) -> None:
        """Nothing is made."""
