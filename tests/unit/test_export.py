"""Exports: every format says the same, and none of them runs what a stranger typed."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openpyxl import load_workbook

from edge_face import export
from edge_face.export import EVENT_COLUMNS, FORMATS, Column, Format, write

ROW: dict[str, Any] = {
    "type": "face_event", "id": "0194", "seq": 7, "node": "gate-1", "camera": "front", "status": "PASS",
    "reason": "match", "name": "Катя", "person_id": "person", "external_id": "00123", "distance": 0.4123,
    "threshold": 0.45, "margin": -0.5, "score": None, "rule": "distance", "box": [120, 80, 240, 300], "track": 17,
    "frames": 3, "liveness": {"level": "off", "result": None}, "timestamp": 1736400000.123,
    "time": "2025-01-09T05:20:00.123Z", "expires_at": 1736400005.123, "latency_ms": 87,
}  # fmt: skip


def text_of(rows: list[dict[str, Any]], fmt: Format, columns: tuple[Column, ...] = EVENT_COLUMNS) -> str:
    out = io.BytesIO()
    write(iter(rows), fmt, out, columns)
    return out.getvalue().decode("utf-8")


def sheet_of(rows: list[dict[str, Any]], sheet: int = 0) -> list[tuple[Any, ...]]:
    out = io.BytesIO()
    write(iter(rows), "xlsx", out)
    out.seek(0)
    return list(load_workbook(out).worksheets[sheet].iter_rows(values_only=True))


def test_json_is_an_array_of_the_rows_as_they_are() -> None:
    assert json.loads(text_of([ROW, ROW], "json")) == [ROW, ROW]
    assert json.loads(text_of([], "json")) == []


def test_csv_has_a_header_and_one_line_per_row() -> None:
    parsed = list(csv.DictReader(io.StringIO(text_of([ROW], "csv"), newline="")))
    assert list(parsed[0]) == [column.key for column in EVENT_COLUMNS]
    assert parsed[0]["name"] == "Катя"
    assert parsed[0]["external_id"] == "00123"
    assert parsed[0]["margin"] == "-0.5", "numbers stay numbers"
    assert parsed[0]["score"] == ""
    assert parsed[0]["box"] == "[120,80,240,300]"


def test_xlsx_keeps_numbers_as_numbers_and_ids_as_text() -> None:
    header, line = sheet_of([ROW])
    cells = dict(zip(header, line, strict=True))
    assert cells["seq"] == 7
    assert cells["margin"] == -0.5
    assert cells["external_id"] == "00123"
    assert cells["name"] == "Катя"
    assert cells["score"] is None


@pytest.mark.parametrize(
    "evil", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1+1", '=HYPERLINK("http://x","y")']
)
def test_formulas_are_neutralised(evil: str) -> None:
    row = ROW | {"name": evil}
    assert next(csv.DictReader(io.StringIO(text_of([row], "csv"), newline="")))["name"] == "'" + evil
    out = io.BytesIO()
    write([row], "xlsx", out)
    cell = load_workbook(out).active["G2"]  # type: ignore[index]
    assert cell.data_type == "s"
    assert cell.value.startswith("'")


@given(st.text())
def test_no_csv_cell_begins_a_formula_and_nothing_is_lost(name: str) -> None:
    cell = next(csv.DictReader(io.StringIO(text_of([ROW | {"name": name}], "csv"), newline="")))["name"]
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
    assert cell.removeprefix("'") == name.removeprefix("'")


def test_xlsx_takes_characters_that_its_format_forbids() -> None:
    assert "a\ufffdb" in sheet_of([ROW | {"name": "a\x01b"}])[1]
    assert max(len(str(cell)) for cell in sheet_of([ROW | {"name": "=" + "x" * 40_000}])[1]) == 32_767


def test_xlsx_goes_on_in_a_further_sheet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_SHEET_ROWS", 2)
    rows = [ROW | {"seq": seq} for seq in range(5)]
    assert [line[0] for sheet in range(3) for line in sheet_of(rows, sheet)] == ["seq", 0, 1, "seq", 2, 3, "seq", 4]


def test_the_table_lines_up_with_wide_and_combining_characters() -> None:
    columns = (Column("name"), Column("hidden", in_table=False), Column("n"))
    rows: list[dict[str, Any]] = [
        {"name": "张伟", "n": 5, "hidden": "x"},
        {"name": "Zoe\u0301", "n": 12},
        {"name": None, "n": None},
    ]
    assert text_of(rows, "table", columns).splitlines() == [
        "name   n",
        "张伟   5",
        "Zoe\u0301   12",
        "",
    ]  # fmt: skip


def test_the_table_sends_nothing_to_the_terminal_that_it_would_obey() -> None:
    table = text_of([ROW | {"name": "\x1b[2Jx\n\u202egnp"}], "table")
    assert "\x1b" not in table
    assert "\u202e" not in table
    assert table.count("\n") == 2


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_format_takes_no_rows_and_leaves_the_file_open(fmt: Format) -> None:
    out = io.BytesIO()
    write([], fmt, out)
    assert not out.closed
    assert out.getvalue()
    assert fmt in export.MEDIA_TYPES
