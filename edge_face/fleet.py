"""The cameras of a daemon: of each its gate, its process and the task that runs it; they come, change and go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from edge_face.backends import Backends
from edge_face.child import START_S
from edge_face.clock import Clock
from edge_face.gate import Gate
from edge_face.messages import CameraJob, Tune
from edge_face.service import Pulse
from edge_face.settings import Config
from edge_face.supervisor import CameraProcess

NewGate = Callable[[str, Callable[[frozenset[int]], None]], Gate]


SILENT_S = 30.0
"""A child that is silent or hangs is killed long before."""


class Fleet:
    """`gates` and `processes` are in the order of the configuration, and always of the same cameras."""

    def __init__(self, config: Callable[[], Config], new_gate: NewGate, clock: Clock, backends: Backends) -> None:
        """`config`: what is in force, asked anew each time. `new_gate`: of a camera, given its `on_settled`."""
        self._config = config
        self._new_gate = new_gate
        self._clock = clock
        self._backends = backends
        self._want_jpeg = False
        self._share = 1.0
        self._group: asyncio.TaskGroup | None = None
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.gates: dict[str, Gate] = {}
        self.processes: dict[str, CameraProcess] = {}

    def add(self, camera: str) -> None:
        """It starts with `run`, or by `start`."""

        def job(first_track: int) -> CameraJob:
            config, tuned = self._config(), self._tuned()
            return CameraJob(
                camera,
                config.cameras[camera],
                config.engine,
                tuned.jpeg_quality,
                tuned.track_memory_s,
                first_track,
                tuned.log_level,
                max_age_s=tuned.max_age_s,
                thumbnails=config.storage.keep_unknowns,
            )

        gate = self._new_gate(camera, lambda tracks: process.settled(tracks))
        process = CameraProcess(job, camera, self._clock, gate.on_frame, gate.on_camera, self._backends)
        process.want_jpeg(self._want_jpeg)
        process.slow_down(self._share)
        self.gates[camera], self.processes[camera] = gate, process

    def want_jpeg(self, wanted: bool) -> None:
        """Whether frames are watched; it holds for cameras that come later, too."""
        self._want_jpeg = wanted
        for process in self.processes.values():
            process.want_jpeg(wanted)

    def slow_down(self, share: float) -> None:
        """To this share of the usual frame rate; it holds for cameras that come later, too."""
        self._share = share
        for process in self.processes.values():
            process.slow_down(share)

    async def run(self) -> None:
        """Until every clip has ended."""
        try:
            async with asyncio.TaskGroup() as self._group:
                for camera in self.processes:
                    self.start(camera)
        finally:
            self._group = None

    def start(self, camera: str) -> None:
        if self._group:
            self._tasks[camera] = self._group.create_task(self.processes[camera].run(), name=f"camera {camera}")

    async def change(self, removed: Iterable[str], restarted: Iterable[str], added: Iterable[str]) -> None:
        """To what is in force by now. `added` were added already; all others go on and notice nothing."""
        changed = asyncio.Event()
        if self._group is None:
            return  # every clip has ended, and so does the daemon
        self._group.create_task(changed.wait())  # so that `run` does not end while the only camera is being changed
        try:
            for camera in removed:
                await self._stop(camera)
                self.gates[camera].pause(True)  # whoever is in view is gone, and that is told
                self.processes[camera].gone()
                del self.gates[camera], self.processes[camera]
            for camera in restarted:
                await self._stop(camera)
                self.processes[camera].begin_anew()
                self.start(camera)
            for camera in added:
                self.start(camera)
            for table in (self.gates, self.processes):
                _sort(table, list(self._config().cameras))
        finally:
            changed.set()

    def payload(self) -> list[dict[str, Any]]:
        """How each camera is, for the status."""
        now = self._clock.monotonic()
        return [
            {
                "id": camera,
                "paused": self.gates[camera].paused,
                **process.payload(),
                "decisions": dict(self.gates[camera].decisions),
                **self.gates[camera].meter.payload(now),
            }
            for camera, process in self.processes.items()
        ]

    def pulse(self) -> Pulse:
        """For the service manager."""
        now = self._clock.monotonic()
        processes = self.processes.values()
        told = []
        for camera, process in self.processes.items():
            fps = self.gates[camera].meter.payload(now)["fps"]
            state, detail = process.status.state, process.status.detail
            told.append(f"{camera} {fps:g} fps" if state == "ok" else f"{camera} {state}: {detail}")
        if self._share < 1:
            told.append(f"hot: {self._share:g} of the frames")
        return Pulse(
            loaded=any(process.backend for process in processes),
            delivered=all(process.status.state in ("ok", "ended") for process in processes),
            alive=all(
                process.status.state == "ended" or now - process.progress_at < self._patience_s(camera)
                for camera, process in self.processes.items()
            ),
            summary="; ".join(told),
        )

    def _patience_s(self, camera: str) -> float:
        """How long nothing may come of a camera whose process is watched as it should be."""
        if self.processes[camera].pid is None:
            return START_S + SILENT_S
        fps = self._config().cameras[camera].fps
        return SILENT_S + (3 / fps if fps else 0)

    def tune(self) -> None:
        """What every camera takes over without a new child."""
        options, tuned = self._config().decision, self._tuned()
        for gate in self.gates.values():
            gate.use(options)
        for process in self.processes.values():
            process.tune(tuned)

    def _tuned(self) -> Tune:
        config = self._config()
        decision = config.decision
        return Tune(config.stream.jpeg_quality, decision.presence_timeout, decision.max_age, config.log.level)

    async def _stop(self, camera: str) -> None:
        task = self._tasks.pop(camera)
        task.cancel()
        await asyncio.wait([task])


def _sort(table: dict[str, Any], order: list[str]) -> None:
    """In place: others hold the table, too."""
    for key in order:
        table[key] = table.pop(key)
