"""Cameras as the daemon has them: a child process each, and the parent that matches and decides."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from edge_face import board, settings
from edge_face.backends import Backends
from edge_face.bench.results import BenchError, CameraRun, Timing
from edge_face.bus import Bus
from edge_face.child import started
from edge_face.clock import SystemClock
from edge_face.errors import WorkerError
from edge_face.events import CameraStatus, FrameResult, FrameView
from edge_face.gallery import Gallery
from edge_face.gate import Gate
from edge_face.memory import MIB
from edge_face.messages import CameraJob, PhotoJob
from edge_face.supervisor import CameraProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_WARM_UP_FRAMES = 3


@dataclass(slots=True)
class _Seen:
    """Of one camera, since `counting` was set."""

    total: int = 0
    counting: bool = False
    took_ms: list[float] = field(default_factory=list)
    failure: str = ""


async def first_start(options: settings.Engine) -> tuple[str, float]:
    """The backend that works on this board, tried in a process of its own, and the seconds it took to load.

    Raises BenchError.
    """
    begin = time.monotonic()
    try:
        child, ready = await started(PhotoJob(options, "error"), Backends.remembered())
    except WorkerError as error:
        raise BenchError(f"The models cannot be used here: {error.message}") from None
    await child.close()
    return ready.backend, time.monotonic() - begin


async def watch(
    count: int,
    config: settings.Config,
    engine: settings.Engine,
    clip: Path,
    gallery: Gallery,
    seconds: float,
    start_s: float,
) -> CameraRun:
    """`engine`: whose detector is named. `start_s`: how long the children may take to begin. Raises BenchError."""
    async with _cameras(count, config, engine, clip, gallery) as running:
        await _begun([seen for _, seen in running], start_s)
        pids = [process.pid for process, _ in running if process.pid is not None]
        begin, used_s = time.monotonic(), board.cpu_s(pids)
        for _, seen in running:
            seen.counting = True
        await asyncio.sleep(seconds)
        took = [ms for _, seen in running for ms in seen.took_ms]
        fps = len(took) / (time.monotonic() - begin)
        used_s = board.cpu_s(pids) - used_s
        memory = await asyncio.to_thread(board.memory_of, pids)
        for _, seen in running:
            if seen.failure:
                raise BenchError(f"A camera's process failed: {seen.failure}")
        if not took:
            raise BenchError(f"{count} cameras with {engine.detector}: not one frame in {seconds:.0f} s")
        name = running[0][0].detector
    each_mib, cpu_ms = memory.pss / MIB / max(1, len(pids)), 1000 * used_s / len(took)
    return CameraRun(name, count, round(fps, 2), Timing.of("frame", took), round(each_mib, 1), round(cpu_ms, 2))


async def _begun(cameras: list[_Seen], start_s: float) -> None:
    """Until each has judged its first frames. Raises BenchError."""
    try:
        async with asyncio.timeout(start_s):
            while any(seen.total < _WARM_UP_FRAMES for seen in cameras):
                if failure := next((seen.failure for seen in cameras if seen.failure), ""):
                    raise BenchError(f"A camera's process failed: {failure}")
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise BenchError(f"{len(cameras)} cameras had not begun after {start_s:.0f} s") from None


@asynccontextmanager
async def _cameras(
    count: int, config: settings.Config, engine: settings.Engine, clip: Path, gallery: Gallery
) -> AsyncIterator[list[tuple[CameraProcess, _Seen]]]:
    clock, backends = SystemClock(), Backends.remembered()
    running = [_camera(f"bench-{number}", config, engine, clip, gallery, clock, backends) for number in range(count)]
    tasks = [asyncio.create_task(process.run()) for process, _ in running]
    try:
        yield running
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _camera(
    id: str,
    config: settings.Config,
    engine: settings.Engine,
    clip: Path,
    gallery: Gallery,
    clock: SystemClock,
    backends: Backends,
) -> tuple[CameraProcess, _Seen]:
    """Every frame of the clip is judged, as fast as that goes."""
    seen = _Seen()
    scale = next(iter(config.cameras.values())).scale
    source = settings.Camera(source=str(clip), realtime=False, fps=0, loop=True, scale=scale)
    options = config.decision

    def job(first_track: int) -> CameraJob:
        quality = config.stream.jpeg_quality
        memory_s, age_s = options.presence_timeout, options.max_age
        return CameraJob(id, source, engine, quality, memory_s, first_track, "error", max_age_s=age_s)

    def on_frame(result: FrameResult) -> None:
        seen.total += 1
        if seen.counting:
            seen.took_ms.append(sum(result.stages_ms.values()))
        gate.on_frame(result)

    def on_state(status: CameraStatus) -> None:
        if status.state == "lost":
            seen.failure = status.detail

    process = CameraProcess(job, id, clock, on_frame, on_state, backends)
    gate = Gate(
        "bench",
        id,
        options,
        clock,
        Bus[FrameView](),
        lambda _event, _deadline: None,
        lambda _state: None,
        process.settled,
        clock_synced=lambda: True,
    )
    gate.use_gallery(gallery)
    return process, seen
