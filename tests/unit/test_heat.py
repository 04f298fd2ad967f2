"""Fewer frames on a hot board: on a stand-in for /sys, with a clock that the test moves."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from edge_face import heat
from edge_face.board import temperature
from edge_face.capture import Limiter
from edge_face.heat import LEAST, STEP_S, Heat
from tests.support.clock import HandClock


class Chip:
    """A tree as /sys, for `edge_face.board`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._zone = root / "sys/class/thermal/thermal_zone0"
        self._zone.mkdir(parents=True)
        (self._zone / "type").write_text("cpu-thermal\n")

    def is_at(self, degrees: float) -> float | None:
        (self._zone / "temp").write_text(f"{round(degrees * 1000)}\n")
        return temperature(self._root)


@pytest.fixture
def chip(tmp_path: Path) -> Chip:
    return Chip(tmp_path)


def test_it_slows_down_before_the_chip_does_and_speeds_up_when_it_is_cooler(
    chip: Chip, clock: HandClock, caplog: pytest.LogCaptureFixture
) -> None:
    governor = Heat(clock, lambda: 75)
    shares = []
    for degrees in (60, 74.9, 75, 78, 79, 80, 74, 70.1, 70, 65, 60, 60):
        governor.feel(chip.is_at(degrees))
        shares.append(governor.share)
        clock.now += STEP_S
    assert shares == [1, 1, 0.5, 0.25, 0.125, 0.125, 0.125, 0.125, 0.25, 0.5, 1, 1]
    assert len(caplog.records) == 6
    assert "75 °C" in caplog.text


def test_one_step_at_a_time(chip: Chip, clock: HandClock) -> None:
    governor = Heat(clock, lambda: 75)
    changes = 0
    for _ in range(int(3 * STEP_S)):
        changes += governor.feel(chip.is_at(90))
        clock.now += 1
    assert (changes, governor.share) == (3, LEAST)


def test_without_a_sensor_or_a_limit_nothing_changes(chip: Chip, clock: HandClock, tmp_path: Path) -> None:
    assert not Heat(clock, lambda: 75).feel(temperature(tmp_path / "none"))
    assert not Heat(clock, lambda: 0).feel(chip.is_at(120))


def test_a_limit_that_is_switched_off_gives_all_frames_back(chip: Chip, clock: HandClock) -> None:
    limit = 75.0
    governor = Heat(clock, lambda: limit)
    assert governor.feel(chip.is_at(80))
    clock.now += STEP_S
    limit = 0
    assert governor.feel(chip.is_at(80))
    assert governor.share == 1
    assert not governor.feel(chip.is_at(80))


async def test_whoever_slows_down_hears_of_it(chip: Chip, clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heat, "LOOK_EVERY_S", 0.01)
    shares: list[float] = []
    task = asyncio.create_task(Heat(clock, lambda: 75).watch(lambda: chip.is_at(77), shares.append))
    await asyncio.sleep(0.1)
    task.cancel()
    assert shares == [0.5]


def test_a_limit_that_changes_takes_effect_at_once() -> None:
    limiter = Limiter(10)

    def taken_in_ten_seconds(start: float) -> int:
        count = 0
        for tick in range(1000):
            now = start + tick / 100
            if now >= limiter.due:
                limiter.taken(now)
                count += 1
        return count

    assert taken_in_ten_seconds(0) == pytest.approx(100, abs=2)
    limiter.change(2.5)
    assert taken_in_ten_seconds(10) == pytest.approx(25, abs=2)
