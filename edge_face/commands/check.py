"""`edge-face check`: tries every part and prints one table."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edge_face import config, logs, settings
from edge_face.backends import Backends
from edge_face.clock import SystemClock
from edge_face.commands.session import open_store
from edge_face.config import mask_url
from edge_face.errors import ConfigError, EdgeFaceError
from edge_face.events import CameraStatus, FrameResult
from edge_face.messages import CameraJob
from edge_face.sinks import mqtt, webhook
from edge_face.supervisor import CameraProcess

_CAMERA_S = 20.0


@dataclass(frozen=True, slots=True)
class Row:
    part: str
    good: bool
    finding: str


def check(args: argparse.Namespace) -> int:
    try:
        configured = config.load(args.config)
    except ConfigError as error:
        rows = [Row("config", False, problem) for problem in error.problems]
    else:
        logs.configure("error")
        rows = asyncio.run(_check(configured))
    width = max(len(row.part) for row in rows)
    for row in rows:
        print(f"{row.part:<{width}}  {'ok    ' if row.good else 'FAILED'}  {row.finding}")
    failures = sum(not row.good for row in rows)
    if failures:
        print(f"edge-face check: {failures} of {len(rows)} failed", file=sys.stderr)
    return 1 if failures else 0


async def _check(configured: settings.Config) -> list[Row]:
    return [row async for row in _rows(configured)]


async def _rows(configured: settings.Config) -> AsyncIterator[Row]:
    yield Row("config", True, configured.file or "defaults")
    yield await _try("database", lambda: _database(configured))
    for id, options in configured.cameras.items():
        seen = await _watch(id, options, configured)
        if seen.failure or id == next(iter(configured.cameras)):  # all cameras use the same models
            yield Row("models", not seen.failure, seen.failure or seen.models)
        if not seen.failure:
            yield Row(f"camera {id}", bool(seen.frame), seen.frame or f"{mask_url(options.source)}: {seen.detail}")
    if configured.mqtt.host:
        yield await _try("mqtt", lambda: mqtt.probe(configured))
    if configured.attendance.csv:
        yield await _try("attendance", lambda: asyncio.to_thread(_writable, Path(configured.attendance.csv)))
    for id, hook in configured.webhooks.items():
        yield await _try(f"webhook {id}", partial(webhook.probe, id, hook, SystemClock()))


async def _try(part: str, attempt: Callable[[], Awaitable[str]]) -> Row:
    try:
        return Row(part, True, await attempt())
    except EdgeFaceError as error:
        return Row(part, False, error.message)


def _writable(path: Path) -> str:
    if not path.parent.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise EdgeFaceError(f"{path} cannot be written")
    return str(path)


async def _database(configured: settings.Config) -> str:
    store = open_store(configured)
    try:
        store.check()
        store.check_key()
        return f"{configured.storage.path}, {len(store.people().items)} enrolled"
    finally:
        store.close()


@dataclass(slots=True)
class _Seen:
    """What one camera's child showed until its first frame, or in the time allowed."""

    models: str = ""
    failure: str = ""
    frame: str = ""
    detail: str = "no frame"


async def _watch(id: str, options: settings.Camera, configured: settings.Config) -> _Seen:
    seen, done = _Seen(), asyncio.Event()

    def on_frame(result: FrameResult) -> None:
        took_ms = sum(result.stages_ms.values())
        seen.frame = f"{mask_url(options.source)}: {result.width}x{result.height}, judged in {took_ms:.0f} ms"
        done.set()

    def on_state(status: CameraStatus) -> None:
        if status.state == "lost":
            seen.detail = status.detail
            done.set()

    def job(first_track: int) -> CameraJob:
        return CameraJob(id, options, configured.engine, configured.stream.jpeg_quality, 1.0, first_track, "error")

    process = CameraProcess(job, id, SystemClock(), on_frame, on_state, Backends.remembered())
    task = asyncio.create_task(process.run())
    try:
        async with asyncio.timeout(_CAMERA_S):
            await done.wait()
    except TimeoutError:
        pass
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    if process.backend:
        seen.models = f"{process.backend} passed its self-test, {process.encode_ms:.0f} ms a face"
        seen.models += "".join(f"; {name} was refused: {reason}" for name, reason in process.refused)
    else:
        seen.failure = seen.detail
    return seen
