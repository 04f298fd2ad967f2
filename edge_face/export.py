"""Lists of events, attendance and the like as a table for people, JSON for programs, CSV and XLSX for offices."""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, BinaryIO, Literal, NamedTuple, get_args

Format = Literal["table", "json", "csv", "xlsx"]
FORMATS: tuple[Format, ...] = get_args(Format)

MEDIA_TYPES: Mapping[Format, str] = {
    "table": "text/plain; charset=utf-8",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


class Column(NamedTuple):
    """A key of the rows. A screen is narrow, so the table shows only some."""

    key: str
    in_table: bool = True


EVENT_COLUMNS: tuple[Column, ...] = (
    Column("seq"),
    Column("time"),
    Column("node", in_table=False),
    Column("camera"),
    Column("status"),
    Column("reason"),
    Column("name"),
    Column("person_id", in_table=False),
    Column("external_id", in_table=False),
    Column("distance"),
    Column("threshold", in_table=False),
    Column("margin"),
    Column("score", in_table=False),
    Column("rule", in_table=False),
    Column("box", in_table=False),
    Column("track", in_table=False),
    Column("frames", in_table=False),
    Column("liveness", in_table=False),
    Column("timestamp", in_table=False),
    Column("expires_at", in_table=False),
    Column("latency_ms", in_table=False),
    Column("clock", in_table=False),
    Column("demo", in_table=False),
    Column("id", in_table=False),
)

ATTENDANCE_COLUMNS: tuple[Column, ...] = (
    Column("id"),
    Column("time"),
    Column("name"),
    Column("external_id"),
    Column("source"),
    Column("camera"),
    Column("person_id", in_table=False),
    Column("status", in_table=False),
    Column("seq", in_table=False),
    Column("timestamp", in_table=False),
    Column("clock", in_table=False),
)

DAY_COLUMNS: tuple[Column, ...] = (
    Column("date"),
    Column("name"),
    Column("external_id"),
    Column("first"),
    Column("last"),
    Column("visits"),
    Column("person_id", in_table=False),
    Column("first_timestamp", in_table=False),
    Column("last_timestamp", in_table=False),
)

_Cell = str | int | float | None
_Rows = Iterable[Mapping[str, Any]]

# A spreadsheet runs a text that begins like this as a formula (full-width forms too), and an event's name is a
# stranger's to choose. OWASP, "CSV injection".
_FORMULA = re.compile(r"[=+\-@\t\r\n＝＋－＠]")
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")
_SHEET_ROWS = 1_000_000
"""A sheet holds 1,048,576 rows; the rest goes to further sheets."""


def write(
    rows: Iterable[Mapping[str, Any]], fmt: Format, out: BinaryIO, columns: Sequence[Column] = EVENT_COLUMNS
) -> None:
    """Write the rows to `out`, which is left open. Only `table` needs all rows at once.

    `json` is an array of the rows as they are; the others show `columns`, and an empty cell for a missing key or None.
    """
    _WRITERS[fmt](rows, out, columns)


def _write_json(rows: _Rows, out: BinaryIO, _columns: Sequence[Column]) -> None:
    before = b"[\n"
    for row in rows:
        out.write(before + json.dumps(row, ensure_ascii=False, allow_nan=False).encode("utf-8"))
        before = b",\n"
    out.write(b"\n]\n" if before == b",\n" else b"[]\n")


def _write_csv(rows: _Rows, out: BinaryIO, columns: Sequence[Column]) -> None:
    # No byte-order mark: programs would read it as part of the first column's name.
    text = io.TextIOWrapper(out, encoding="utf-8", errors="replace", newline="", write_through=True)
    try:
        writer = csv.writer(text)
        writer.writerow([column.key for column in columns])
        writer.writerows([_harmless(_cell(row.get(column.key))) for column in columns] for row in rows)
        text.flush()
    finally:
        text.detach()  # otherwise it would close `out` with itself


def _write_xlsx(rows: _Rows, out: BinaryIO, columns: Sequence[Column]) -> None:
    # Here, because it takes a second and 20 MB on a small board, which a daemon that exports nothing can do without.
    from openpyxl import Workbook
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE

    def cells(row: Mapping[str, Any]) -> Iterator[_Cell]:
        for column in columns:
            cell = _harmless(_cell(row.get(column.key)))
            yield ILLEGAL_CHARACTERS_RE.sub("\ufffd", cell)[:_LONGEST_CELL] if isinstance(cell, str) else cell

    book = Workbook(write_only=True)
    keys = [column.key for column in columns]
    sheet = book.create_sheet()
    sheet.append(keys)
    for number, row in enumerate(rows):
        if number and number % _SHEET_ROWS == 0:
            sheet = book.create_sheet()
            sheet.append(keys)
        sheet.append(list(cells(row)))
    book.save(out)


_LONGEST_CELL = 32_767  # Excel's limit; a longer text makes it call the file damaged


def _write_table(rows: _Rows, out: BinaryIO, columns: Sequence[Column]) -> None:
    shown = [column.key for column in columns if column.in_table]
    body = [[_cell(row.get(key)) for key in shown] for row in rows]
    lines = [[_printable("" if cell is None else str(cell)) for cell in line] for line in [list[_Cell](shown), *body]]
    widths = [max(_width(line[i]) for line in lines) for i in range(len(shown))]
    numeric = [
        any(isinstance(line[i], int | float) for line in body) and not any(isinstance(line[i], str) for line in body)
        for i in range(len(shown))
    ]
    for line in lines:
        padded = (
            " " * (width - _width(text)) + text if right else text + " " * (width - _width(text))
            for text, width, right in zip(line, widths, numeric, strict=True)
        )
        out.write(("  ".join(padded).rstrip() + "\n").encode("utf-8", "replace"))


def _cell(value: Any) -> _Cell:
    """Text, number or nothing; what is neither becomes JSON."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _harmless(cell: _Cell) -> _Cell:
    """An apostrophe, as spreadsheets themselves use it, turns a would-be formula into text. Numbers stay numbers."""
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def _printable(text: str) -> str:
    """Without what a terminal would obey: escape sequences, line ends, reversals of the writing direction."""
    marked = _BIDI.sub("\ufffd", text)
    return "".join("\ufffd" if unicodedata.category(char) in ("Cc", "Cs", "Zl", "Zp") else char for char in marked)


def _width(text: str) -> int:
    """Columns on a terminal: two for East Asian and emoji, none for combining marks and joiners."""
    return sum(
        0
        if unicodedata.category(char) in ("Mn", "Me", "Cf")
        else 2
        if unicodedata.east_asian_width(char) in ("W", "F")
        else 1
        for char in text
    )


_WRITERS: Mapping[Format, Callable[[_Rows, BinaryIO, Sequence[Column]], None]] = {
    "table": _write_table,
    "json": _write_json,
    "csv": _write_csv,
    "xlsx": _write_xlsx,
}
