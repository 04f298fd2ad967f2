"""What systemd is told, and when; the unit's sandbox; the journal's fields."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edge_face import service
from edge_face.service import Pulse, Service

UNIT = Path(__file__).parents[2] / "systemd" / "edge-face.service"
GOOD = Pulse(loaded=True, delivered=True, alive=True, summary="front 10 fps")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "LOOK_S", 0.01)
    monkeypatch.setattr(service, "READY_S", 0.3)


async def told(pulse: Pulse, seconds: float, environ: dict[str, str] | None = None) -> list[str]:
    said: list[str] = []
    unit = Service(said.append, environ or {})
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(seconds):
            await unit.run(lambda: pulse)
    return said


async def test_ready_when_models_cameras_and_api_are() -> None:
    assert await told(GOOD, 0.1) == ["STATUS=front 10 fps", "READY=1"]
    unloaded = Pulse(loaded=False, delivered=False, alive=True, summary="front starting")
    assert await told(unloaded, 0.6) == ["STATUS=front starting"]


async def test_a_lost_camera_is_not_waited_for_longer_than_a_bound() -> None:
    lost = Pulse(loaded=True, delivered=False, alive=True, summary="front lost: no camera found")
    assert await told(lost, 0.15) == ["STATUS=front lost: no camera found"]
    assert await told(lost, 0.6) == ["STATUS=front lost: no camera found", "READY=1"]


async def test_the_watchdog_is_fed_only_while_it_works() -> None:
    environ = {"WATCHDOG_USEC": "200000", "WATCHDOG_PID": str(os.getpid())}
    assert 3 <= (await told(GOOD, 0.5, environ)).count("WATCHDOG=1") <= 11
    stuck = Pulse(loaded=True, delivered=True, alive=False, summary="front ok")
    assert "WATCHDOG=1" not in await told(stuck, 0.5, environ)
    for other in ({}, environ | {"WATCHDOG_PID": "1"}):
        assert "WATCHDOG=1" not in await told(GOOD, 0.2, other)


async def test_a_reload_has_a_begin_and_an_end() -> None:
    said: list[str] = []
    unit = Service(said.append, {})
    unit.reloading(True)
    assert said == []  # not before it is ready
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await unit.run(lambda: GOOD)
    unit.reloading(True)
    unit.reloading(False)
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", said[-2])
    assert said[-1] == "READY=1"


def test_without_systemd_python_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    if importlib.util.find_spec("systemd.daemon"):
        pytest.skip("systemd-python is installed here")
    assert service.find({}) is None
    assert caplog.text == ""
    assert service.find({"NOTIFY_SOCKET": "/run/none"}) is None
    assert "systemd-python is not installed" in caplog.text


def test_a_journal_entry_has_its_fields() -> None:
    sent: list[tuple[str, dict[str, Any]]] = []
    handler = service._JournalHandler(lambda message, **fields: sent.append((message, fields)))
    record = logging.LogRecord("edge_face.events", logging.WARNING, __file__, 1, "PASS %s", ("Katya",), None)
    record.__dict__ |= {"CAMERA": "front", "STATUS": "PASS", "PERSON": None}
    handler.emit(record)
    ((message, fields),) = sent
    assert message == "PASS Katya"
    assert fields["PRIORITY"] == "4"
    assert {key: fields[key] for key in service.FIELDS if key in fields} == {"CAMERA": "front", "STATUS": "PASS"}


def test_only_the_journals_own_stream_is_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JOURNAL_STREAM", raising=False)
    assert not service._is_journal(2)
    found = os.fstat(2)
    monkeypatch.setenv("JOURNAL_STREAM", f"{found.st_dev}:{found.st_ino}")
    assert service._is_journal(2)


def test_the_sandbox_is_tight() -> None:
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not there (Debian's package systemd)")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    score = re.search(r"Overall exposure level for edge-face.service: ([\d.]+)", done.stdout)
    if not score:
        pytest.skip(f"this systemd-analyze cannot read a unit offline: {done.stderr.strip()}")
    assert float(score[1]) <= 1.8


def test_every_line_of_the_sandbox_has_a_reason() -> None:
    """A block of settings begins with a comment, so that whoever changes a line knows what for it is there."""
    for block in UNIT.read_text().split("\n\n")[1:]:
        lines = [line for line in block.splitlines() if line]
        assert lines[0][0] in "#[", block
