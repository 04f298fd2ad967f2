"""What a process holds: memory, descriptors, threads, as the kernel tells it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Usage:
    pss_mib: float
    """A page that n processes share counts 1/n."""
    rss_mib: float
    """A shared page counts whole, so that nobody else's start or end changes it."""
    descriptors: int
    threads: int
    cpu_s: float
    """Processor time since the process began."""


def usage(pid: int) -> Usage | None:
    """None when the process has ended."""
    process = Path(f"/proc/{pid}")
    try:
        memory = dict(_kib(line) for line in (process / "smaps_rollup").read_text().splitlines()[1:])
        descriptors = len(list((process / "fd").iterdir()))
        stat = (process / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    ticks = int(stat[11]) + int(stat[12])  # proc(5): utime and stime, fields 14 and 15
    return Usage(memory["Pss"] / 1024, memory["Rss"] / 1024, descriptors, int(stat[17]), ticks / 100)


def children(pid: int) -> list[int]:
    """Children of any of its threads, in the order of their start."""
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except FileNotFoundError:  # the thread, or the process, has ended
        pass
    return sorted(found)


def _kib(line: str) -> tuple[str, int]:
    name, value = line.split()[:2]
    return name.removesuffix(":"), int(value)
