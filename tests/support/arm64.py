"""An arm64 Debian's Python, run by qemu's user mode as a process of this machine: what a board loads, without a board.

The folder `.arm64/` keeps the unpacked Debian packages, which the machine's own apt fetches, from its own mirrors and
with its own keys. The environment beside them is made anew each time, from the locks. Nothing of it needs root.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".arm64"
UV = ROOT / ".uv" / "bin" / "uv"

PACKAGES = ("python3", "libstdc++6")
"""The library is on every board, and no wheel brings it."""
PROCESSOR = "cortex-a72"
"""A Raspberry Pi 4's. A Pi 3, a Zero 2 and a Jetson Nano have the same instructions, newer boards have more."""
PURE_SDIST = "face-recognition-models"
"""The one package without a wheel: weights and a few paths, so that nothing is compiled."""

# Started as this script the guest's Python takes it for its own name, so what it starts by that name (the children of a
# daemon) is emulated as well, without a word to this machine's kernel.
_START = """#!/bin/sh
exec '{qemu}' -cpu {processor} -0 "$0" -L '{debian}' '{debian}/usr/bin/python3' "$@"
"""


class Guest:
    def __init__(self) -> None:
        """Skips, with the reason, where there cannot be one."""
        if platform.machine() == "aarch64":
            pytest.skip("this machine is aarch64 itself: scripts/test tells what this would")
        qemu = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
        if not qemu:
            pytest.skip("qemu-user-static is not there; scripts/test --arm64 installs it")
        for program in ("apt-get", "dpkg-deb"):
            if not shutil.which(program):
                pytest.skip(f"{program} is not there: Debian's packages cannot be fetched")
        if not UV.exists():
            pytest.skip("uv is not in .uv/; scripts/test --arm64 brings it")
        CACHE.mkdir(exist_ok=True)
        self._lock = os.open(CACHE / "lock", os.O_CREAT | os.O_RDWR)  # two runs have one environment
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._debian = CACHE / "debian"
        if not self._debian.exists():
            self._unpack()
        self.home = CACHE / "home"
        environment = CACHE / "venv"
        for old in (self.home, environment):
            shutil.rmtree(old, ignore_errors=True)
        self.python = environment / "bin" / "python"
        self.python.parent.mkdir(parents=True)
        (environment / "pyvenv.cfg").write_text(f"home = {self._debian}/usr/bin\n")
        self.python.write_text(_START.format(qemu=qemu, processor=PROCESSOR, debian=self._debian))
        self.python.chmod(0o755)
        probe = self.run("-c", "import platform; print(platform.machine(), platform.python_version())")
        if probe.returncode:
            pytest.skip(f"an arm64 Python does not run under {qemu} here: {probe.stdout[-300:]}")
        machine, version = probe.stdout.split()
        assert machine == "aarch64"
        self.python_version = ".".join(version.split(".")[:2])

    def close(self) -> None:
        os.close(self._lock)

    def _unpack(self) -> None:
        """Debian's Python and all that it needs, as apt resolves it for a machine on which nothing is installed."""
        half = CACHE / "debian.part"
        shutil.rmtree(half, ignore_errors=True)
        for folder in ("debian", "state/lists/partial", "cache/archives/partial"):
            (half / folder).mkdir(parents=True)
        (half / "status").touch()
        options = {
            "APT::Architecture": "arm64",
            "APT::Architectures": "arm64",
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Debug::NoLocking": "true",
            "Dir::State": half / "state",
            "Dir::State::status": half / "status",
            "Dir::Cache": half / "cache",
        }
        apt = ["apt-get", "-qq", "--yes", *(f"--option={name}={value}" for name, value in options.items())]
        fetch = ["install", "--download-only", "--no-install-recommends", *PACKAGES]
        for command in ([*apt, "update"], [*apt, *fetch]):
            done = _run(command, timeout_s=600)
            if done.returncode:
                pytest.skip(f"apt cannot fetch Debian's arm64 packages here: {done.stdout[-300:]}")
        for package in (half / "cache" / "archives").glob("*.deb"):
            subprocess.run(["dpkg-deb", "--extract", package, half / "debian"], check=True)
        if not (half / "debian" / "lib").exists():  # of Debian 13, whose packages leave these links to another
            (half / "debian" / "lib").symlink_to("usr/lib")
        (half / "debian").rename(self._debian)
        shutil.rmtree(half)

    @property
    def packages(self) -> Path:
        """Where its environment's packages are."""
        (found,) = self.python.parents[1].glob("lib/python3*/site-packages")
        return found

    def install(self, lock: str) -> subprocess.CompletedProcess[str]:
        """As scripts/lib.sh does it on a board, but from wheels alone."""
        file = ROOT / "requirements" / lock
        return _run(
            [
                *(UV, "pip", "install", "--python", self.python, "--no-deps", "--require-hashes"),
                *("--only-binary", ":all:", "--no-binary", PURE_SDIST),
                *("--build-constraints", file, "--requirement", file),
            ],
            timeout_s=900,
        )

    def run(self, *arguments: str | Path, timeout_s: float = 1800) -> subprocess.CompletedProcess[str]:
        """Python with these arguments, errors in its output as well; it finds this checkout as it stands."""
        kept = {name: os.environ[name] for name in ("EDGEFACE_TEST_DATA", "PATH") if name in os.environ}
        environment = {"HOME": str(self.home), "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), **kept}
        return _run(["nice", self.python, *arguments], timeout_s, environment)


def _run(
    command: list[str | Path], timeout_s: float, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout_s,
        check=False,
        cwd=ROOT,
        env=environment,
    )
