"""The attendance file, on a real file system."""

from __future__ import annotations

import csv
import os
import resource
import time
from collections.abc import Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from edge_face.publish import RetryLater
from edge_face.sinks.csv import AttendanceFile, CsvSink, local_time
from tests.support.publishing import deadline, event, publishing

AT = 1_747_857_674.123  # 2025-05-21 20:01:14 UTC


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "attendance.csv"


@pytest.fixture
def kolkata(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def rows(file: Path) -> list[list[str]]:
    with file.open(newline="", encoding="utf-8") as text:
        return list(csv.reader(text))


async def test_one_row_for_each_visit_under_one_header(tmp_path: Path, file: Path) -> None:
    for name in ("Ada", "Bob"):  # two runs of the daemon
        async with publishing(tmp_path / "e.db", CsvSink(AttendanceFile(file))) as publisher:
            await publisher.publish(event(name, timestamp=AT), deadline(-1))
            await publisher.publish(event(None, timestamp=AT), deadline())
            assert await publisher.drain(2)
    at = local_time(AT)
    assert file.read_bytes() == f"Name,Timestamp\nAda,{at}\nBob,{at}\n".encode()


def test_the_time_is_local_and_has_six_digits(kolkata: None) -> None:
    assert local_time(AT) == "2025-05-22T01:31:14.123000"
    assert local_time(1_747_857_674) == "2025-05-22T01:31:14.000000"


def test_the_time_zone_can_be_chosen(file: Path, kolkata: None) -> None:
    AttendanceFile(file, ZoneInfo("America/New_York")).append("Ada", AT)
    assert rows(file)[1] == ["Ada", "2025-05-21T16:01:14.123000"]


async def test_unknown_faces_on_request(tmp_path: Path, file: Path) -> None:
    async with publishing(tmp_path / "e.db", CsvSink(AttendanceFile(file), unknown=True)) as publisher:
        await publisher.publish(event(None, timestamp=AT), deadline())
        await publisher.publish(event("Ada", status="REJECT", reason="not_allowed"), deadline())
        assert await publisher.drain(2)
    assert rows(file) == [["Name", "Timestamp"], ["Unknown", local_time(AT)]]


@pytest.mark.parametrize("name", ["Doe, John", 'the "boss"', "two\nlines", "Екатерина", "=1+1", "@x", " "])
def test_names_come_back_as_they_were(file: Path, name: str) -> None:
    AttendanceFile(file).append(name, AT)
    AttendanceFile(file).append("Ada", AT)
    assert [row[0] for row in rows(file)] == ["Name", name, "Ada"]


def test_a_file_that_was_moved_away_or_emptied_begins_anew(file: Path) -> None:
    AttendanceFile(file).append("Ada", AT)
    file.rename(file.with_suffix(".old"))
    AttendanceFile(file).append("Bob", AT)
    assert [row[0] for row in rows(file)] == ["Name", "Bob"]
    os.truncate(file, 0)
    AttendanceFile(file).append("Cyd", AT)
    assert [row[0] for row in rows(file)] == ["Name", "Cyd"]


def test_a_torn_last_line_does_not_swallow_the_next_row(file: Path) -> None:
    file.write_text("Name,Timestamp\nAda,2025-05-21T20:0")
    AttendanceFile(file).append("Bob", AT)
    assert [row[0] for row in rows(file)] == ["Name", "Ada", "Bob"]


async def test_a_row_that_was_written_just_before_a_crash_is_not_written_again(file: Path) -> None:
    payload = event("Ada", timestamp=AT).payload()
    await CsvSink(AttendanceFile(file)).deliver(payload, None, False)
    again = CsvSink(AttendanceFile(file))  # the process died before the outbox heard of it
    await again.deliver(payload, None, False)
    assert len(rows(file)) == 2
    await again.deliver(payload, None, False)  # later, an equal row is a row of its own
    assert len(rows(file)) == 3


async def test_a_folder_that_is_missing_is_tried_again_later(tmp_path: Path) -> None:
    with pytest.raises(RetryLater, match="No such file"):
        await CsvSink(AttendanceFile(tmp_path / "usb" / "a.csv")).deliver(event().payload(), None, False)


async def test_a_full_disk_is_tried_again_later() -> None:
    with pytest.raises(RetryLater, match="No space left"):
        await CsvSink(AttendanceFile(Path("/dev/full"))).deliver(event().payload(), None, False)


def test_half_a_row_is_taken_back(file: Path) -> None:
    AttendanceFile(file).append("Ada", AT)
    before = file.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 5, hard))
    try:
        with pytest.raises(OSError, match="No space left"):
            AttendanceFile(file).append("Bob", AT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert file.read_bytes() == before
