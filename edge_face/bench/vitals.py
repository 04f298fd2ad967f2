"""What the board says while it works: temperature, throttling, power, memory, and who else wants the processor."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from edge_face import board
from edge_face.bench.results import Sample, Vitals
from edge_face.memory import MIB

_EVERY_S = 1.0
_COMMAND_S = 2.0
_PI_THROTTLED = "sys/devices/platform/soc/soc:firmware/get_throttled"
_PI_BITS = {
    0: "its supply voltage is too low",
    1: "its clock is capped",
    2: "it is throttled",
    3: "it is near its temperature limit",
}
"""Of the Raspberry Pi's firmware: what is so now. The same, 16 bits higher, since the start of the board."""
_SINCE_START = 16


class Power:
    """Watts, where the board tells them; asked again and again, since some count energy."""

    def __init__(self, root: Path = board.ROOT) -> None:
        self._root = root
        self._energy: tuple[float, dict[Path, int]] | None = None

    def watts(self, now: float) -> float | None:
        """Of the whole board if it tells that, else of the processor (RAPL). The first answer of RAPL is None."""
        rails = self._ina3221()
        if rails is None:
            rails = self._sum("sys/class/hwmon/hwmon*/power1_input", 1e-6)
        if rails is None:
            rails = self._sum("sys/bus/i2c/drivers/ina3221x/*/iio:device*/in_power0_input", 1e-3)
        return self._rapl(now) if rails is None else round(rails, 3)

    def _ina3221(self) -> float | None:
        """A Jetson's: volts times amperes of the first rail, which feeds the board."""
        for chip in self._root.glob("sys/class/hwmon/hwmon*"):
            if _text(chip / "name") == "ina3221":
                millivolts, milliamperes = _number(chip / "in1_input"), _number(chip / "curr1_input")
                if millivolts is not None and milliamperes is not None:
                    return millivolts * milliamperes * 1e-6
        return None

    def _sum(self, pattern: str, unit: float) -> float | None:
        told = [value for path in self._root.glob(pattern) if (value := _number(path)) is not None]
        return sum(told) * unit if told else None

    def _rapl(self, now: float) -> float | None:
        counts: dict[Path, int] = {}
        for zone in self._root.glob("sys/class/powercap/intel-rapl:*"):
            if re.fullmatch(r"intel-rapl:\d+", zone.name) and _text(zone / "name").startswith("package"):
                count = _number(zone / "energy_uj")
                if count is not None:
                    counts[zone] = count
        before, self._energy = self._energy, (now, counts)
        if not counts or before is None or now <= before[0] or before[1].keys() != counts.keys():
            return None
        used = 0
        for zone, count in counts.items():
            used += count - before[1][zone]
            if count < before[1][zone]:  # it has begun anew
                used += _number(zone / "max_energy_range_uj") or 0
        return round(used * 1e-6 / (now - before[0]), 3)


class Throttling:
    """What slowed the board down since this was made."""

    def __init__(self, root: Path = board.ROOT) -> None:
        self._root = root
        self._pi_before = self._pi() or 0
        self._counted = dict(self._counters())
        self.found: dict[str, None] = {}
        self.known = bool(self._counted) or self._pi() is not None or any(True for _ in self._coolers())

    def look(self) -> None:
        bits = self._pi() or 0
        for bit, words in _PI_BITS.items():
            fresh = bits & ~self._pi_before & 1 << bit + _SINCE_START
            if bits & 1 << bit or fresh:
                self.found[words] = None
        if any(count > self._counted.get(path, count) for path, count in self._counters()):
            self.found["its processor was throttled because it was too hot"] = None
        if any(state > 0 for state in self._coolers()):
            self.found["its clock was lowered to cool it"] = None

    def _pi(self) -> int | None:
        text = _text(self._root / _PI_THROTTLED)
        if not text and self._root == board.ROOT and shutil.which("vcgencmd"):
            try:
                done = subprocess.run(
                    ["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=_COMMAND_S, check=False
                )
            except (OSError, subprocess.TimeoutExpired):
                return None
            text = done.stdout.strip().partition("throttled=0x")[2]
        try:
            return int(text, 16)
        except ValueError:
            return None

    def _counters(self) -> Iterator[tuple[Path, int]]:
        for path in self._root.glob("sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count"):
            if (count := _number(path)) is not None:
                yield path, count

    def _coolers(self) -> Iterator[int]:
        """How far the kernel has lowered the processor's clock, in steps."""
        for device in self._root.glob("sys/class/thermal/cooling_device*"):
            if re.search("cpufreq|^processor$", _text(device / "type"), re.IGNORECASE):
                state = _number(device / "cur_state")
                if state is not None:
                    yield state


class Watcher:
    """Looks at the board once a second, on a thread of its own. A context manager."""

    def __init__(self, root: Path = board.ROOT) -> None:
        self._root = root
        self._power = Power(root)
        self._throttling = Throttling(root)
        self._board = board.Board(root / "no-database", dict, root)
        self._samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="vitals", daemon=True)
        self._begin = time.monotonic()
        self._busy_before = _busy_s(root), _own_s()

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stop.set()
        self._thread.join()

    def vitals(self) -> Vitals:
        """To be asked at the end, when all children are gone: until then their time is nobody's."""
        seconds = max(1e-3, time.monotonic() - self._begin)
        busy, own = _busy_s(self._root) - self._busy_before[0], _own_s() - self._busy_before[1]
        others = min(1.0, max(0.0, (busy - own) / seconds / (os.cpu_count() or 1)))
        return Vitals(tuple(self._samples), tuple(self._throttling.found), self._throttling.known, round(others, 3))

    def _watch(self) -> None:
        while True:
            self._look()
            if self._stop.wait(_EVERY_S):
                return

    def _look(self) -> None:
        now = time.monotonic()
        self._throttling.look()
        seen = self._board.measure({})
        memory = sum(each.pss for each in seen.memory.values()) / MIB
        self._samples.append(
            Sample(round(now - self._begin, 1), seen.temperature_c, self._power.watts(now), round(memory, 1))
        )


def _busy_s(root: Path) -> float:
    """Seconds of all processors together that were not idle, since the board started."""
    first = _text(root / "proc/stat").partition("\n")[0].split()[1:]
    if len(first) < 8:
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, first[:8])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    try:
        return int(_text(path))
    except ValueError:
        return None


def name_of(root: Path = board.ROOT) -> str:
    """The board, or its processor."""
    model = _text(root / "proc/device-tree/model") or _text(root / "sys/firmware/devicetree/base/model")
    if model:
        return model
    found = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", _text(root / "proc/cpuinfo"), re.MULTILINE)
    return found[1].strip() if found else "unknown board"


def memory_mib(key: str = "MemTotal", root: Path = board.ROOT) -> int:
    """Of the board: `MemTotal` or `MemAvailable`."""
    found = re.search(rf"^{key}:\s+(\d+) kB", _text(root / "proc/meminfo"), re.MULTILINE)
    return int(found[1]) >> 10 if found else 0
