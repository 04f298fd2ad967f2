"""The daemon as a real process, with its configuration in a temporary folder, and its commands beside it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import requests


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def write_config(folder: Path, sections: dict[str, dict[str, Any]]) -> Path:
    """A config.ini in `folder`; the API gets a free port."""
    merged: dict[str, dict[str, Any]] = {"node": {"id": "gate-1"}, "api": {"port": free_port()}, **sections}
    file = folder / "config.ini"
    file.write_text(
        "".join(
            f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
            for name, keys in merged.items()
        ),
        encoding="utf-8",
    )
    return file


def edge_face(*args: str | Path, config: Path | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, in an empty environment but for the paths."""
    command = [sys.executable, "-m", "edge_face", *map(str, args)]
    if config:
        command += ["--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, **more)


class Daemon:
    """`edge-face run` (or another command that stays) as a child process; a context manager that ends it."""

    def __init__(self, config: Path, *args: str, env: Mapping[str, str] | None = None) -> None:
        self.config = config
        self._env = dict(env or {})
        self._args = args or ("run",)
        self._log = config.parent / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        text = config.read_text(encoding="utf-8")
        self.port = int(text.partition("[api]")[2].partition("port = ")[2].split()[0])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Daemon:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "edge_face", *self._args, "--config", str(self.config)],
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | self._env,
            )
        return self

    def __exit__(self, *_exc: object) -> None:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)

    @property
    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def health(self) -> str:
        """`ok`, `degraded`, `failed`, or `down` while nothing answers."""
        assert self.process is not None
        assert self.process.poll() is None, f"the daemon ended:\n{self.log}"
        try:
            status: str = requests.get(f"{self.url}/healthz", timeout=2).json()["status"]
        except requests.ConnectionError:
            return "down"
        return status

    def wait_for(self, *health: str, limit_s: float = 30) -> None:
        deadline = time.monotonic() + limit_s
        while self.health() not in health:
            assert time.monotonic() < deadline, f"the daemon is {self.health()}:\n{self.log}"
            time.sleep(0.05)

    @cached_property
    def token(self) -> str:
        done = edge_face("token", config=self.config)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def get(self, path: str, **params: Any) -> requests.Response:
        return requests.get(self.url + path, params=params, headers=self.auth, timeout=10)

    def post(self, path: str, **more: Any) -> requests.Response:
        return requests.post(self.url + path, headers=self.auth, timeout=30, **more)

    @property
    def auth(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    def end(self, number: signal.Signals = signal.SIGINT, limit_s: float = 10) -> tuple[int, float]:
        """Send the signal; returns the exit code and how many seconds it took."""
        assert self.process is not None
        begin = time.monotonic()
        self.process.send_signal(number)
        code = self.process.wait(limit_s)
        return code, time.monotonic() - begin

    def wait(self, limit_s: float) -> int:
        assert self.process is not None
        return self.process.wait(limit_s)


def events(config: Path) -> list[dict[str, Any]]:
    done = edge_face("events", "--format", "json", config=config)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found
