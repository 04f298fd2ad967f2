"""systemd-python, built from the service's lock, and a service manager's socket."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def systemd_python() -> Path:
    """A folder with the module, kept over runs. Skips where it cannot be compiled."""
    folder = ROOT / ".system" / f"systemd-python-{sys.version_info.major}.{sys.version_info.minor}"
    if (folder / "systemd" / "daemon.py").exists():
        return folder
    if not shutil.which("cc") or not shutil.which("pkg-config"):
        pytest.skip("systemd-python cannot be compiled here: cc and pkg-config are needed")
    if subprocess.run(["pkg-config", "--exists", "libsystemd"], check=False).returncode:
        pytest.skip("systemd-python cannot be compiled here: libsystemd-dev is missing")
    lock = (ROOT / "requirements" / "service.txt").read_text()
    entry = re.search(r"^systemd-python==.*(\n +--hash.*)+", lock, re.MULTILINE)
    assert entry
    wanted = folder.parent / "systemd-python.txt"
    folder.parent.mkdir(exist_ok=True)
    wanted.write_text(entry[0])
    half = folder.with_name(folder.name + ".part")
    shutil.rmtree(half, ignore_errors=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(half), "--requirement"]
    # In the environment that is there: what is fetched to build with is in no lock.
    subprocess.run([*pip, str(wanted), "--no-build-isolation"], check=True, timeout=300)
    half.replace(folder)
    return folder


class Manager:
    """Listens where a unit's process reports to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        """All that was heard so far, a line each."""
        while True:
            try:
                self.heard += self._socket.recv(65536).decode().splitlines()
            except BlockingIOError:
                return self.heard

    def close(self) -> None:
        self._socket.close()
