"""What the machine says of itself, from a stand-in /sys and real processes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edge_face.board import Board, cpu_s, database_bytes, temperature


def zones(root: Path, *found: tuple[str, str]) -> Path:
    for number, (kind, degrees) in enumerate(found):
        zone = root / f"sys/class/thermal/thermal_zone{number}"
        zone.mkdir(parents=True)
        (zone / "type").write_text(kind + "\n")
        (zone / "temp").write_text(degrees + "\n")
    return root


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        ((("cpu-thermal", "51540"),), 51.5),
        ((("CPU-therm", "43500"), ("PMIC-Die", "100000"), ("GPU-therm", "60000")), 43.5),
        ((("acpitz", "27800"), ("x86_pkg_temp", "48000"), ("iwlwifi_1", "99000")), 48.0),
        ((("soc-thermal", "-274000"), ("cpu-thermal", "40000")), 40.0),
        ((("cpu-thermal", "none"),), None),
        ((("iwlwifi_1", "40000"),), None),
        ((), None),
    ],
)
def test_the_hottest_zone_of_the_processor(
    tmp_path: Path, found: tuple[tuple[str, str], ...], expected: float | None
) -> None:
    assert temperature(zones(tmp_path, *found)) == expected


def test_a_zone_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    root = zones(tmp_path, ("cpu0-thermal", "45000"), ("cpu1-thermal", "0"))
    hotter = root / "sys/class/thermal/thermal_zone1/temp"
    hotter.unlink()
    hotter.mkdir()
    assert temperature(root) == 45.0


def test_the_database_is_counted_with_what_stands_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "edge-face.db"
    assert database_bytes(path) == 0
    for suffix, size in (("", 4096), ("-wal", 1000), ("-shm", 100), (".mark", 7)):
        path.with_name(path.name + suffix).write_bytes(bytes(size))
    assert database_bytes(path) == 5196


def test_memory_of_the_daemon_a_child_with_its_program_and_others(tmp_path: Path) -> None:
    hold = "import sys; block = bytearray(b'x') * (64 << 20); print(flush=True); sys.stdin.read()"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for code in (nested, hold)
    ]
    try:
        for child in children:
            assert child.stdout is not None
            child.stdout.readline()
        vitals = Board(tmp_path / "none.db", dict, zones(tmp_path)).measure(
            {"camera:front": children[0].pid, "photos": None}
        )
        memory = vitals.memory
        assert set(memory) == {"daemon", "camera:front", "other"}
        for process in ("camera:front", "other"):
            assert 64 << 20 < memory[process].pss <= memory[process].rss < 200 << 20
        status = Path(f"/proc/{os.getpid()}/status").read_text()
        own = int(status.partition("VmRSS:")[2].split()[0]) << 10
        assert memory["daemon"].rss == pytest.approx(own, rel=0.1)
    finally:
        for child in children:
            child.communicate(timeout=10)


def test_the_processors_time_of_processes() -> None:
    """Of those that are gone nothing is counted."""
    before, begin = cpu_s([os.getpid()]), time.process_time()
    while time.process_time() - begin < 0.2:
        pass
    assert cpu_s([os.getpid(), 2**22 - 1]) - before == pytest.approx(0.2, abs=0.05)


def test_a_process_that_ends_while_it_is_looked_at_has_no_children() -> None:
    """A camera's program that fails again and again does so at any moment; it ended the daemon."""
    looking = """
import os, sys, time
from edge_face.board import cpu_s, memory_of, _children_of
for _ in range(300):
    dying = os.fork() or os._exit(0)
    looker = os.fork()
    if not looker:
        try:
            end = time.monotonic() + 0.003
            while time.monotonic() < end:
                _children_of(dying)
            memory_of([dying]), cpu_s([dying])
        except BaseException as error:
            print(repr(error), flush=True)
        os._exit(0)
    time.sleep(0.001)
    os.waitpid(dying, 0)
    os.waitpid(looker, 0)
"""
    done = subprocess.run([sys.executable, "-c", looking], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == ""
