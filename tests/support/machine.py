"""A whole Debian, made by debootstrap and booted by systemd-nspawn, to install edge-face in.

The folder `.system/` keeps what debootstrap made; each run works on a copy of it. The machine shares this one's
network, so that packages can be fetched; what a test starts in it listens on free ports of 127.0.0.1.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".system"
PACKAGES = (
    "systemd,systemd-sysv,dbus,ca-certificates,python3,python3-venv,python3-dev,gcc,libc6-dev,libsystemd-dev,"
    "pkg-config,mosquitto,mosquitto-clients,procps"
)
BOOT_S = 90.0
_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"


class Machine:
    def __init__(self, suite: str) -> None:
        """Skips, with the reason, where such a machine cannot be made."""
        if os.geteuid() != 0:
            pytest.skip("only root can boot a container")
        for program in ("debootstrap", "systemd-nspawn", "nsenter"):
            if not shutil.which(program):
                pytest.skip(f"{program} is not there; scripts/test --system installs it")
        self.root = CACHE / f"machine-{suite}"
        self._nspawn: subprocess.Popen[bytes] | None = None
        made = CACHE / f"debian-{suite}"
        if not made.exists():
            half = CACHE / f"debian-{suite}.part"
            shutil.rmtree(half, ignore_errors=True)
            half.parent.mkdir(exist_ok=True)
            done = subprocess.run(
                ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(half)],
                capture_output=True,
                text=True,
                timeout=1800,
                check=False,
            )
            if done.returncode:
                pytest.skip(f"debootstrap cannot make a {suite} here: {done.stdout[-200:]}{done.stderr[-200:]}")
            half.rename(made)
        subprocess.run(["rm", "-rf", str(self.root)], check=True)
        subprocess.run(["cp", "-a", "--reflink=auto", str(made), str(self.root)], check=True)
        self._take_over_the_network()

    def _take_over_the_network(self) -> None:
        """Whatever this machine needs to fetch packages: a package mirror's settings, its authority."""
        shutil.copy(_CERTIFICATES, f"{self.root}{_CERTIFICATES}")
        for path in (Path("/etc/pip.conf"), Path.home() / ".config" / "pip" / "pip.conf"):
            if path.is_file():
                target = Path(f"{self.root}{path}")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)

    def boot(self) -> None:
        cache = Path.home() / ".cache" / "uv"
        cache.mkdir(parents=True, exist_ok=True)
        self._nspawn = subprocess.Popen(
            [
                *("systemd-nspawn", "--register=no", "--keep-unit", "--boot", "--quiet", "--resolv-conf=copy-host"),
                f"--bind={cache}:/root/.cache/uv",
                f"--directory={self.root}",
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + BOOT_S
        while self._nspawn.poll() is None and time.monotonic() < deadline:
            if self.leader and self("systemctl", "is-system-running", check=False).strip() in ("running", "degraded"):
                return
            time.sleep(0.3)
        self.power_off()
        pytest.skip("systemd-nspawn cannot boot a container here")

    @property
    def leader(self) -> int | None:
        """The machine's init, as this machine counts processes."""
        assert self._nspawn
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def __call__(self, *command: str, check: bool = True, timeout_s: float = 120, stdin: str = "") -> str:
        """Run it inside as root; returns what it wrote, errors as well."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.leader), "--all", "--root", "--wd", "env", "-i", *_ENVIRONMENT, *command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
            input=stdin,
        )
        assert done.returncode == 0 or not check, f"{command} ended with {done.returncode}:\n{done.stdout}"
        return done.stdout

    def until(self, condition: Callable[[], object], limit_s: float = 30) -> None:
        deadline = time.monotonic() + limit_s
        while not condition():
            assert time.monotonic() < deadline, self("journalctl", "--unit=edge-face", "--lines=40", "--no-pager")
            time.sleep(0.2)

    def show(self, name: str) -> str:
        """A property of the unit."""
        return self("systemctl", "show", "edge-face", f"--property={name}", "--value").strip()

    def power_off(self) -> None:
        if self._nspawn and self._nspawn.poll() is None:
            if self.leader:
                subprocess.run(["nsenter", "--target", str(self.leader), "--all", "--root", "systemctl", "poweroff"],
                               check=False, capture_output=True)  # fmt: skip
            try:
                self._nspawn.wait(40)
            except subprocess.TimeoutExpired:
                self._nspawn.kill()
                self._nspawn.wait()

    def path(self, inside: str) -> Path:
        return Path(f"{self.root}{inside}")


_ENVIRONMENT = (
    "PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    f"PIP_CERT={_CERTIFICATES}",
    f"SSL_CERT_FILE={_CERTIFICATES}",
)
