"""What the machine says of itself: its temperature, the memory of edge-face's processes, the size of the database.

Measured on a thread: to add up a process's memory the kernel walks through all of it.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge_face.memory import MIB

EVERY_S = 5.0
ROOT = Path("/")
_PROCESSOR = re.compile("cpu|soc|core|x86_pkg|acpitz", re.IGNORECASE)
"""Thermal zones of the processor: cpu-thermal (Pi), CPU-therm (Jetson), soc-thermal (Rockchip), x86_pkg_temp, acpitz.
Not of, say, a Jetson's PMIC-Die, which always says 100 °C."""
_PLAUSIBLE_C = (-50.0, 150.0)
"""A sensor that is switched off says -274 or less."""
_PROC = Path("/proc")


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process and its own children, in bytes. `pss` counts what it shares with others in part only."""

    rss: int
    pss: int


@dataclass(frozen=True, slots=True)
class Vitals:
    temperature_c: float | None = None
    """None: this machine has no sensor that Linux knows."""
    memory: Mapping[str, Memory] = field(default_factory=dict)
    database_bytes: int = 0

    def payload(self) -> dict[str, Any]:
        return {
            "temperature_c": self.temperature_c,
            "memory_mib": {
                process: {"rss": round(memory.rss / MIB, 1), "pss": round(memory.pss / MIB, 1)}
                for process, memory in self.memory.items()
            },
            "database_bytes": self.database_bytes,
        }


class Board:
    """Measures now and then; `vitals` is what was found last."""

    def __init__(self, database: Path, children: Callable[[], Mapping[str, int | None]], root: Path = ROOT) -> None:
        """`children`: the names and ids of child processes, None where one does not run; others are `other`."""
        self._database = database
        self._children = children
        self._root = root
        self.vitals = Vitals(temperature(root))

    async def watch(self) -> None:
        while True:
            self.vitals = await asyncio.to_thread(self.measure, self._children())
            await asyncio.sleep(EVERY_S)

    def measure(self, children: Mapping[str, int | None]) -> Vitals:
        return Vitals(temperature(self._root), _memory(children), database_bytes(self._database))


def temperature(root: Path = ROOT) -> float | None:
    """Degrees Celsius of the processor's hottest zone; `root`: where `sys` is found."""
    found = []
    for zone in root.glob("sys/class/thermal/thermal_zone*"):
        try:
            kind = (zone / "type").read_text(encoding="ascii", errors="replace")
            degrees = int((zone / "temp").read_text(encoding="ascii")) / 1000
        except (OSError, ValueError):
            continue  # a zone that is switched off cannot be read
        if _PROCESSOR.search(kind) and _PLAUSIBLE_C[0] < degrees < _PLAUSIBLE_C[1]:
            found.append(degrees)
    return round(max(found), 1) if found else None


def database_bytes(path: Path) -> int:
    """The file and what SQLite keeps beside it."""
    total = 0
    for suffix in ("", "-wal", "-shm"):
        try:
            total += path.with_name(path.name + suffix).stat().st_size
        except OSError:
            continue
    return total


def _memory(children: Mapping[str, int | None]) -> dict[str, Memory]:
    names = {pid: name for name, pid in children.items()}
    found = {"daemon": memory_of([os.getpid()])}
    others: list[int] = []
    for child in _children_of(os.getpid()):
        if child in names:
            found[names[child]] = memory_of(_family(child))
        else:
            others += _family(child)
    if others:
        found["other"] = memory_of(others)
    return found


def memory_of(pids: Iterable[int]) -> Memory:
    """Of all of them together; nothing for those that have ended."""
    rss = pss = 0
    for pid in pids:
        try:
            text = (_PROC / str(pid) / "smaps_rollup").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        sizes = {key: int(value.split()[0]) << 10 for key, value in re.findall(r"^(Rss|Pss):\s+(.*)$", text, re.M)}
        rss += sizes.get("Rss", 0)
        pss += sizes.get("Pss", 0)
    return Memory(rss, pss)


def cpu_s(pids: Iterable[int]) -> float:
    """Seconds of processors that they have used since they started; nothing for those that have ended."""
    ticks = 0
    for pid in pids:
        try:
            text = (_PROC / str(pid) / "stat").read_text(encoding="ascii", errors="replace")
        except OSError:
            continue
        fields = text.rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # proc(5): utime and stime
    return ticks / os.sysconf("SC_CLK_TCK")


def _family(pid: int) -> list[int]:
    """A process and all below it: a camera's program belongs to the camera."""
    return [pid, *(below for child in _children_of(pid) for below in _family(child))]


def _children_of(pid: int) -> list[int]:
    """None of a process that has ended, be it while this looks: what is a folder may be none a moment later."""
    found: list[int] = []
    with suppress(OSError):
        for task in (_PROC / str(pid) / "task").iterdir():
            with suppress(OSError):
                found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found
