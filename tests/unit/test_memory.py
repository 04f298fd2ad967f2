"""A real process that takes memory when it is told to, and who notices."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from edge_face import memory
from edge_face.memory import GROWTH, MIB, Growth, own_bytes

_GROWING = """
import sys
kept = []
print(flush=True)
for line in sys.stdin:
    kept.append(b"x" * int(line))
    print(flush=True)
"""
_LIMITED = """
from edge_face import memory
memory.PHOTO = 64 << 20
memory.limit_growth()
assert not memory.short_of(60 << 20) and memory.short_of(70 << 20)
kept = b"x" * (50 << 20)
try:
    b"x" * (50 << 20)
except MemoryError:
    print("refused")
"""
UHD = 3840 * 2160 * 3


class Growing:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _GROWING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._wait()

    def _wait(self) -> None:
        assert self.process.stdout
        self.process.stdout.readline()

    def grow(self, count: int) -> None:
        assert self.process.stdin
        self.process.stdin.write(f"{count}\n")
        self.process.stdin.flush()
        self._wait()


@pytest.fixture
def growing() -> Iterator[Growing]:
    growing = Growing()
    yield growing
    growing.process.communicate()


def test_own_memory_is_measured(growing: Growing) -> None:
    before = own_bytes(growing.process.pid)
    growing.grow(50 * MIB)
    assert own_bytes(growing.process.pid) - before == pytest.approx(50 * MIB, abs=2 * MIB)


def test_a_process_that_is_gone_has_none() -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    assert own_bytes(process.pid) == 0


def test_a_child_is_replaced_at_a_quiet_moment_and_when_it_grows_on_at_once(growing: Growing) -> None:
    growth = Growth(growing.process.pid)
    growing.grow(GROWTH - 20 * MIB)
    assert not growth.outgrown(0, quiet=True)
    growing.grow(40 * MIB)
    assert growth.outgrown(0, quiet=True)
    assert not growth.outgrown(0, quiet=False)
    assert not growth.outgrown(UHD, quiet=True)  # whose frames are large may have more of them
    growing.grow(GROWTH // 2)
    assert growth.outgrown(0, quiet=False)


def test_a_limit_that_bites() -> None:
    done = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_a_small_board_gives_a_photo_a_third_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[int] = []
    pages = {"SC_PHYS_PAGES": 231_936, "SC_PAGE_SIZE": 4096}  # a Pi with 1 GB
    monkeypatch.setattr("edge_face.memory.os.sysconf", pages.__getitem__)
    monkeypatch.setattr("edge_face.memory.resource.setrlimit", lambda _what, both: limits.extend(both))
    monkeypatch.setattr("edge_face.memory._data_bytes", lambda: 100 * MIB)
    memory.limit_growth()
    assert limits == [402 * MIB] * 2
