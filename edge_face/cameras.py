"""What may be asked of a camera: its newest picture, and a pause of recognition, which outlives a restart."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from edge_face.bus import Bus
from edge_face.clock import Clock
from edge_face.database import StoreThread
from edge_face.errors import CaptureError, NotFoundError, StoreError
from edge_face.events import FrameView, Pause, Snapshot
from edge_face.gate import Gate
from edge_face.store import Store
from edge_face.supervisor import CameraProcess

_log = logging.getLogger(__name__)

PICTURE_S = 4.0
"""How long a picture is waited for; a camera that gives none for so long is lost."""
RETRY_S = 5.0
_VIEWS = 64
"""Frames of other cameras may come before the one that is waited for."""


class Cameras:
    """Works on the event loop. A pause takes hold at once, whatever becomes of the note of it in the database."""

    def __init__(
        self,
        gates: Mapping[str, Gate],
        processes: Mapping[str, CameraProcess],
        views: Bus[FrameView],
        store: Store,
        thread: StoreThread,
        clock: Clock,
        on_pause: Callable[[Pause], None],
    ) -> None:
        self._gates = gates
        self._processes = processes
        self._views = views
        self._store = store
        self._thread = thread
        self._clock = clock
        self._on_pause = on_pause
        self._unsaved: dict[str, bool] = {}
        self._changed = asyncio.Event()

    async def paused(self) -> Collection[str]:
        """Cameras that were paused when edge-face ended. Raises StoreError."""
        return await self._thread.run(self._store.paused_cameras)

    def restore(self, cameras: Iterable[str], paused: Collection[str]) -> None:
        """At their start: who was paused stays so."""
        for camera in cameras:
            self._apply(camera, camera in paused)

    def list(self) -> list[dict[str, Any]]:
        return [self.describe(camera) for camera in self._gates]

    def describe(self, camera: str) -> dict[str, Any]:
        """Raises NotFoundError."""
        gate, process = self._find(camera)
        return {"id": camera, "state": process.status.state, "detail": process.status.detail, "paused": gate.paused}

    async def picture(self, camera: str, *, small: bool = False) -> Snapshot:
        """A frame that was judged after this was asked. Raises NotFoundError, CaptureError (`camera_lost`)."""
        _, process = self._find(camera)
        asked_at = self._clock.monotonic()
        if process.status.state in ("lost", "ended"):
            raise CaptureError(f"The camera {camera} gives no pictures: {process.status.detail}", "camera_lost")
        with self._views.subscribe(_VIEWS) as views:
            process.want_picture(small=small)
            try:
                async with asyncio.timeout(PICTURE_S):
                    async for view in views:
                        result = view.result
                        jpeg = result.small_jpeg if small else result.jpeg
                        # An older one may still be on its way to viewers.
                        if result.camera == camera and jpeg and result.grabbed_at > asked_at - PICTURE_S:
                            return Snapshot(jpeg, result.grabbed_at, result.timestamp)
            except TimeoutError:
                pass
        raise CaptureError(f"The camera {camera} gave no picture in {PICTURE_S:.0f} s", "camera_lost")

    def age_s(self, picture: Snapshot) -> float:
        return self._clock.monotonic() - picture.grabbed_at

    async def pause(self, camera: str, paused: bool) -> None:
        """Recognition off or on. Raises NotFoundError."""
        self._find(camera)
        self._note(camera, paused)
        await self._save()

    def pause_soon(self, paused: bool, cameras: Iterable[str]) -> None:
        """The same for several, for whoever cannot wait; it is noted down soon."""
        for camera in cameras:
            if camera in self._gates:  # a reload may just have taken it away
                self._note(camera, paused)
        self._changed.set()

    async def watch(self) -> None:
        """Note down for ever what could not be noted at once."""
        while True:
            await self._save()
            try:
                async with asyncio.timeout(RETRY_S if self._unsaved else None):
                    await self._changed.wait()
            except TimeoutError:
                pass
            self._changed.clear()

    def _find(self, camera: str) -> tuple[Gate, CameraProcess]:
        if camera not in self._gates:
            raise NotFoundError(f"There is no camera {camera}")
        return self._gates[camera], self._processes[camera]

    def _note(self, camera: str, paused: bool) -> None:
        if paused != self._gates[camera].paused:
            _log.warning("camera %s: recognition is %s", camera, "paused" if paused else "on again")
            self._apply(camera, paused)
        self._unsaved[camera] = paused

    def _apply(self, camera: str, paused: bool) -> None:
        self._gates[camera].pause(paused)
        self._processes[camera].pause(paused)
        self._on_pause(Pause(camera, paused))

    async def _save(self) -> None:
        for camera, paused in list(self._unsaved.items()):
            try:
                await self._thread.run(self._store.set_paused, camera, paused)
            except StoreError as error:
                _log.error("that camera %s is %s is not noted yet: %s", camera, "paused" if paused else "on", error)
                continue
            if self._unsaved.get(camera) == paused:  # it may have changed meanwhile
                del self._unsaved[camera]
