"""The daemon as a unit's process: what it reports to a service manager's socket, by systemd-python."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

from tests.integration.test_daemon import write_clip
from tests.support.broker import until
from tests.support.daemon import Daemon, write_config
from tests.support.photos import blank
from tests.support.systemd import Manager, systemd_python


async def test_from_the_start_to_the_end(tmp_path: Path) -> None:
    module = systemd_python()
    manager = Manager(tmp_path / "notify")
    heard: Callable[[], list[str]] = manager.listen
    clip = write_clip(tmp_path / "clip.avi", (blank(), 20))
    config = write_config(tmp_path, {"camera": {"source": clip, "loop": "true"}})
    env = {"NOTIFY_SOCKET": str(manager.path), "WATCHDOG_USEC": "2000000", "PYTHONPATH": f"{module}:{Path.cwd()}"}
    with Daemon(config, env=env) as daemon:
        await until(lambda: "READY=1" in heard(), 60)
        # Not before the API answers and the camera delivers.
        assert daemon.health() == "ok"
        before = heard()[: heard().index("READY=1")]
        assert any(line.startswith("STATUS=front") and line.endswith("fps") for line in before)

        fed = heard().count("WATCHDOG=1")
        await until(lambda: heard().count("WATCHDOG=1") > fed + 2, 10)

        assert daemon.process
        daemon.process.send_signal(signal.SIGHUP)
        await until(lambda: heard().count("READY=1") == 2, 10)
        reloading = heard().index("RELOADING=1")
        assert heard()[reloading + 1].startswith("MONOTONIC_USEC=")
        assert "READY=1" in heard()[reloading:]

        # A camera that is gone is said, and that it is tried again keeps the watchdog quiet.
        clip.unlink()
        for child in Path(f"/proc/{daemon.process.pid}/task/{daemon.process.pid}/children").read_text().split():
            os.kill(int(child), signal.SIGKILL)
        await until(lambda: any(line.startswith("STATUS=front lost") for line in heard()), 30)
        fed = heard().count("WATCHDOG=1")
        await until(lambda: heard().count("WATCHDOG=1") > fed + 2, 10)
        assert daemon.end(signal.SIGTERM)[0] == 0
    assert heard().count("STOPPING=1") == 1
    manager.close()
