"""The wall clock of a real daemon, set by the test: `wrong_clock.c` compiled and preloaded."""

from __future__ import annotations

import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")


class WallClock:
    """What the daemon and its children believe. `env` is for their start."""

    def __init__(self, folder: Path) -> None:
        """Skips the test where there is no C compiler."""
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("setting the clock of a process needs a C compiler (apt install gcc libc6-dev)")
        library = folder / "wrong_clock.so"
        subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE)], check=True)
        self._file = folder / "wrong_clock"
        self.offset_s = 0.0
        self.set(0.0, synced=True)
        self.env = {"LD_PRELOAD": str(library), "WRONG_CLOCK": str(self._file)}

    def set(self, offset_s: float, *, synced: bool) -> None:
        self.offset_s = offset_s
        values = struct.pack("=qq", round(offset_s * 1e9), int(synced))
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(values)

    def now(self) -> float:
        """The time as the daemon has it."""
        return time.time() + self.offset_s
