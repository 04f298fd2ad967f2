"""`edge-face run` and `edge-face demo`."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import logging
import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from edge_face import config, logs, service, settings
from edge_face import demo as demo_clip
from edge_face.daemon import Daemon
from edge_face.devices import find_cameras
from edge_face.errors import ConfigError, EdgeFaceError
from edge_face.people import People
from edge_face.terminal import Terminal

_log = logging.getLogger(__name__)


def run(args: argparse.Namespace) -> int:
    configured = config.load(args.config)
    if args.demo_without_camera and _only_auto(configured) and not find_cameras():
        print("No camera was found on this machine: starting the demo instead. To use a network camera, set")
        print("[camera] source = rtsp://... in config.ini.", flush=True)
        return demo(args)
    if any(camera.source == "demo" for camera in configured.cameras.values()):
        return demo(args)
    logs.configure(configured.log.level)
    return _serve(configured, lambda: _without_demo(config.load(args.config)))


def demo(args: argparse.Namespace) -> int:
    configured = config.load(args.config)
    logs.configure(configured.log.level)
    with tempfile.TemporaryDirectory(prefix="edge-face-demo-") as folder:
        return _serve(
            _demo_config(configured, Path(folder)),
            lambda: _demo_config(config.load(args.config), Path(folder)),
            enrol_in_demo=True,
        )


def _only_auto(configured: settings.Config) -> bool:
    """Whether no camera was named. One that was named and is missing is lost, and never replaced by a demo."""
    return all(camera.source == "auto" for camera in configured.cameras.values())


def _demo_config(configured: settings.Config, folder: Path) -> settings.Config:
    """The demo leaves nothing behind and opens nothing: an own node and database, no webhook, no CSV."""
    return dataclasses.replace(
        configured,
        node=settings.Node(id="demo"),
        cameras={"front": settings.Camera(source="demo")},
        storage=settings.Storage(path=str(folder / "demo.db"), backups="off"),
        webhooks={},
        remote=settings.Remote(),
        attendance=settings.Attendance(),
        homeassistant=dataclasses.replace(configured.homeassistant, discovery=False),
        demo=True,
    )


def _without_demo(configured: settings.Config) -> settings.Config:
    """The demo has a database and a node of its own, so nothing that runs can turn into it. Raises ConfigError."""
    if any(camera.source == "demo" for camera in configured.cameras.values()):
        raise ConfigError(["[camera] source: the demo begins at a start only"])
    return configured


def _serve(configured: settings.Config, load: Callable[[], settings.Config], *, enrol_in_demo: bool = False) -> int:
    """`load`: read the configuration anew."""
    terminal = Terminal()

    async def enrol(people: People) -> None:
        person = await people.enrol(demo_clip.NAME, [demo_clip.enrolment_photo()])
        terminal.note(f"Demo: {person.name} is enrolled and may pass; the other visitor is a stranger.")

    async def serve() -> None:
        in_terminal = os.isatty(0)

        def hung_up() -> None:
            """SIGHUP asks for a reload, unless it says that the terminal has gone, and with it whoever was there."""
            if in_terminal and not os.isatty(0):
                daemon.stop()
            else:
                daemon.reloader.soon("SIGHUP")

        prepare = enrol if enrol_in_demo else None
        daemon = Daemon(configured, terminal, prepare=prepare, load=load, service=service.find())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, daemon.stop)
        loop.add_signal_handler(signal.SIGHUP, hung_up)
        await daemon.run()

    try:
        asyncio.run(serve())
    except* EdgeFaceError as group:
        raise _first(group) from None
    return 0


def _first(group: BaseExceptionGroup[EdgeFaceError]) -> EdgeFaceError:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, EdgeFaceError)
    return error
