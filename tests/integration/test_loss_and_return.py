"""What the world sees of a camera that goes and comes: its MQTT topic, its log lines and how long both take."""

from __future__ import annotations

import asyncio
import re
import shlex
import sys
import time
from pathlib import Path
from typing import Protocol

from tests.support import film
from tests.support.broker import Broker, Watcher, watching
from tests.support.cameras import FilmServer, RtspServer
from tests.support.daemon import Daemon, write_config

LOST_WITHIN_S, BACK_WITHIN_S = 5.0, 3.0


class Camera(Protocol):
    def start(self, width: int = 640, height: int = 480) -> None: ...
    def stop(self) -> None: ...
    def hang(self) -> None: ...
    def go_on(self) -> None: ...
    def freeze(self) -> None: ...
    def thaw(self) -> None: ...


class Program:
    """A command of exec:, which looks at files to know what it is to do."""

    def __init__(self, flags: Path) -> None:
        flags.mkdir()
        self._flags = flags
        program = Path(film.__file__).with_name("program.py")
        self.url = f"exec:FLAGS={shlex.quote(str(flags))} {shlex.join([sys.executable, str(program)])}"

    def start(self, width: int = 640, height: int = 480) -> None:
        (self._flags / "die").unlink(missing_ok=True)

    def stop(self) -> None:
        (self._flags / "die").touch()

    def hang(self) -> None:
        (self._flags / "stall").touch()

    def go_on(self) -> None:
        (self._flags / "stall").unlink()

    def freeze(self) -> None:
        (self._flags / "freeze").touch()

    def thaw(self) -> None:
        (self._flags / "freeze").unlink()


async def seconds_until(watcher: Watcher, cameras: dict[str, Camera], state: str, limit_s: float) -> dict[str, float]:
    """How long each camera's topic takes to say so; the test fails after the limit."""
    began = time.monotonic()
    took: dict[str, float] = {}
    while len(took) < len(cameras):
        for id in cameras.keys() - took:
            if watcher.texts(f"/{id}/camera")[-1:] == [state]:
                took[id] = round(time.monotonic() - began, 2)
        assert time.monotonic() - began < limit_s, f"not {state}: {cameras.keys() - took}; the others are: {took}"
        await asyncio.sleep(0.01)
    return took


async def test_each_loss_and_each_return_is_told_in_time_and_once(tmp_path: Path, broker: Broker) -> None:
    """Three real kinds of cameras that at the same time go away, hang and freeze, and come back."""
    program = Program(tmp_path / "flags")
    rtsp, mjpeg = RtspServer(), FilmServer()
    cameras: dict[str, Camera] = {"rtsp": rtsp, "mjpeg": mjpeg, "program": program}
    urls = {"rtsp": rtsp.url, "mjpeg": mjpeg.url, "program": program.url}
    sections: dict[str, dict[str, object]] = {f"camera:{id}": {"source": url} for id, url in urls.items()}
    config = write_config(tmp_path, {"mqtt": {"host": "127.0.0.1", "port": broker.port}, **sections})
    try:
        for camera in cameras.values():
            camera.start()
        async with watching(broker) as watcher:
            with Daemon(config) as daemon:
                await seconds_until(watcher, cameras, "ok", 40)
                for go, come in (("stop", "start"), ("hang", "go_on"), ("freeze", "thaw")):
                    await asyncio.sleep(0.5)
                    for camera in cameras.values():
                        getattr(camera, go)()
                    print(go, await seconds_until(watcher, cameras, "lost", LOST_WITHIN_S))
                    await asyncio.sleep(1)
                    for camera in cameras.values():
                        if go == "stop":
                            camera.start(320, 240)  # the servers return with another resolution
                        else:
                            getattr(camera, come)()
                    print(come, await seconds_until(watcher, cameras, "ok", BACK_WITHIN_S))
                log = daemon.log
    finally:
        for camera in (rtsp, mjpeg):
            camera.stop()
    for id in cameras:
        assert watcher.texts(f"/{id}/camera") == ["ok", *["lost", "ok"] * 3]
        assert log.count(f"camera {id} is lost: ") == 3, log
        assert log.count(f"camera {id} is back: ") == 3, log
    for reason in ("ended with exit code 3", "gave no picture for 3 s", "has not changed for 4 s"):
        assert re.search(f"camera program is lost: .*{reason}", log), log
    assert f"camera rtsp is back: {rtsp.url}, 320x240, " in log
    assert "geheim" not in log
