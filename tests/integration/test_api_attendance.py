"""Attendance over HTTP, by real clients."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from pathlib import Path

import openpyxl
import pytest
import requests

from tests.support.api import KATYA, Api, event, running


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as api:
        for at, name in ((1000.0, "Katya"), (2000.0, "=1+1"), (3000.0, "Katya")):
            api.store.record(event(at, name))
        api.store.record(event(2500.0, status="REJECT"))
        api.store.mark_attendance(KATYA, clock_synced=True)
        yield api


async def test_pages_with_filters(api: Api) -> None:
    status, body, _ = await api.ask("GET", "/api/v1/attendance?limit=3", "viewer")
    assert (status, [row["name"] for row in body["items"]]) == (200, ["Katya", "Katya", "=1+1"])
    assert [(row["source"], row["seq"]) for row in body["items"]] == [("upload", None), ("camera", 3), ("camera", 2)]
    _, rest, _ = await api.ask("GET", f"/api/v1/attendance?limit=3&cursor={body['next_cursor']}", "viewer")
    assert ([row["seq"] for row in rest["items"]], rest["next_cursor"]) == ([1], None)
    _, body, _ = await api.ask("GET", "/api/v1/attendance?person=Katya&since=500&until=2000&status=PASS", "viewer")
    assert [row["timestamp"] for row in body["items"]] == [1000]
    assert (await api.ask("GET", "/api/v1/attendance?camera=back"))[1]["items"] == []
    assert (await api.ask("GET", "/api/v1/attendance?status=reject"))[1]["items"] == []
    status, body, _ = await api.ask("GET", "/api/v1/attendance?since=yesterday")
    assert (status, body["error"]) == (400, "bad_time")


async def test_first_and_last_sight_by_day(api: Api) -> None:
    status, body, _ = await api.ask("GET", "/api/v1/attendance/days?until=3600", "viewer")
    assert status == 200
    assert [(row["name"], row["first_timestamp"], row["last_timestamp"], row["visits"]) for row in body["items"]] == [
        ("Katya", 1000, 3000, 2),
        ("=1+1", 2000, 2000, 1),
    ]
    _, body, _ = await api.ask("GET", "/api/v1/attendance/days?limit=1", "viewer")
    assert body["items"][0]["date"] >= "2026"
    _, rest, _ = await api.ask("GET", f"/api/v1/attendance/days?limit=5&cursor={body['next_cursor']}", "viewer")
    assert [row["name"] for row in rest["items"]] == ["Katya", "=1+1"]
    _, body, answer = await api.ask("GET", "/api/v1/attendance/days?format=csv", "viewer")
    assert body.decode().splitlines()[0].startswith("date,name,external_id,first,last,visits")
    assert answer.headers["Content-Disposition"] == 'attachment; filename="attendance-days.csv"'


async def test_files_for_an_office(api: Api) -> None:
    _, body, answer = await api.ask("GET", "/api/v1/attendance?format=csv", "viewer")
    lines = body.decode().splitlines()
    assert lines[0].startswith("id,time,name,external_id,source,camera")
    assert len(lines) == 5
    assert ",'=1+1," in lines[3], "no formula for a spreadsheet to run"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="attendance.csv"'
    media = {"Accept": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"}
    _, body, _ = await api.ask("GET", "/api/v1/attendance?limit=1", "viewer", headers=media)
    sheet = openpyxl.load_workbook(io.BytesIO(body)).active
    assert sheet is not None
    assert sheet.max_row == 2


async def test_the_older_project_s_list_holds_all_rows_as_they_came(api: Api) -> None:
    answer = await asyncio.to_thread(
        requests.get, f"{api.server.url}/student_attendance", headers={"X-API-Key": api.viewer}, timeout=5
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert [(row["name"], row["source"]) for row in answer.json()] == [
        ("Katya", "camera"), ("=1+1", "camera"), ("Katya", "camera"), ("Katya", "upload"),
    ]  # fmt: skip
    _, body, _ = await api.ask("GET", "/student_attendance?since=2500&until=3500", "viewer")
    assert [row["timestamp"] for row in body] == [3000]
