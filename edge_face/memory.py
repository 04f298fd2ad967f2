"""How much memory a child process has of its own: the parent's bound on a camera's child, and a photo child's limit.

A library that leaks would take the board's memory in hours or days. What counts is a process's private memory, in RAM
and in swap; program files that it shares with other processes do not.
"""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

MIB = 1 << 20
GROWTH = 256 * MIB
"""A camera's child may grow by this much, and by `_FRAMES` of its frames: decoders hold up to 16 (H.265)."""
_FRAMES = 16
_AT_ONCE = 1.5
"""Past this many times the allowed growth it is no longer waited for a moment without a face."""
PHOTO = 512 * MIB
"""What the photo child may take for one picture, on top of its models; on a small board a third of all memory."""
_SHARE = 3


def own_bytes(pid: int) -> int:
    """Private memory of a process, in RAM and in swap; 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith(("RssAnon:", "VmSwap:")))


class Growth:
    """Watches one process: how far it has grown since its models were loaded."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self.start = self.now = own_bytes(pid)

    def outgrown(self, frame_bytes: int, *, quiet: bool) -> bool:
        """Measure; whether the process is to be replaced. `quiet`: nobody is in view, so nothing is missed by it."""
        self.now = own_bytes(self._pid)
        allowed = GROWTH + _FRAMES * frame_bytes
        return self.now - self.start > (allowed if quiet else _AT_ONCE * allowed)


def available_bytes(root: Path = Path("/")) -> int:
    """What programs on this board may still take; 0 where it does not tell."""
    try:
        text = (root / "proc/meminfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return 0
    found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) << 10 if found else 0


def photo_bytes() -> int:
    """What the photo child may take for one picture."""
    return min(PHOTO, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _SHARE)


def limit_growth() -> None:
    """This process may not take more than what a photo may: then allocations fail, and the board has memory left."""
    limit = _data_bytes() + photo_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))


def short_of(wanted: int) -> bool:
    """Whether that much is more than what `limit_growth` left."""
    limit = resource.getrlimit(resource.RLIMIT_DATA)[0]
    return limit != resource.RLIM_INFINITY and _data_bytes() + wanted > limit


def _data_bytes() -> int:
    """What RLIMIT_DATA counts: private memory that can be written, touched or not."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8", errors="replace").splitlines()
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("VmData:"))


def first_to_go(score: int) -> None:
    """When the machine is out of memory, the kernel ends this process before its parent (proc(5), oom_score_adj)."""
    try:
        Path("/proc/self/oom_score_adj").write_text(str(score), encoding="ascii")
    except OSError:
        pass  # a sandbox may forbid it
