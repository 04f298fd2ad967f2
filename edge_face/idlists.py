"""Names and the ids that another system gave them, out of a spreadsheet (.xlsx) or a CSV file."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_face.errors import RequestError

NAME_HEADERS = (
    *("name", "studentname", "fullname", "personname", "employeename"),
    *("names", "student", "person"),
)
ID_HEADERS = (
    *("externalid", "studentid", "personid", "employeeid", "id", "ids"),
    *("studentnumber", "studentno", "employeenumber", "rollnumber", "rollno", "matricule", "code", "number", "no"),
)
"""Compared without case, blanks and punctuation: `Student ID`, `student_id` and `STUDENT-ID` are one. The first of
these that a header has counts: beside a `Student ID`, a `No.` merely numbers the rows.
"""
_HEADER_WITHIN = 20
"""Rows at the top, a title say, in which the header is looked for."""
_ZEROS = re.compile(r"0{2,20}")


@dataclass(frozen=True, slots=True)
class IdRow:
    """`number` is the row's in the file, the first is 1."""

    number: int
    name: str
    external_id: str


def read(path: Path) -> list[IdRow]:
    """The rows below the header; empty ones are left out. Raises RequestError where there is no such table, OSError."""
    kind = path.suffix.lower()
    if kind not in (".xlsx", ".csv"):
        raise RequestError(f"{path.name} is neither .xlsx nor .csv")
    rows = list(_sheet(path) if kind == ".xlsx" else _csv(path.read_bytes()))
    for index, row in enumerate(rows[:_HEADER_WITHIN]):
        columns = _columns(row)
        if columns:
            return list(_below(rows, index + 1, *columns))
    raise RequestError(
        f"{path.name} has no header with a column for the name (Name, Student Name, ...) and one for the id (ID, "
        "Student ID, Number, ...)"
    )


def _columns(row: Sequence[str]) -> tuple[int, int] | None:
    """Where names and ids stand; None if this row is no header."""
    words = [_word(cell) for cell in row]
    name = next((words.index(known) for known in NAME_HEADERS if known in words), None)
    id = next((words.index(known) for known in ID_HEADERS if known in words), None)
    return None if name is None or id is None else (name, id)


def _word(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    return "".join(char for char in folded if char.isalnum())


def _below(rows: Sequence[Sequence[str]], first: int, name: int, id: int) -> Iterator[IdRow]:
    for number, row in enumerate(rows[first:], first + 1):
        cells = [row[column].strip() if column < len(row) else "" for column in (name, id)]
        if any(cells):
            yield IdRow(number, *cells)


def _csv(data: bytes) -> Iterator[list[str]]:
    """As spreadsheets write it: with commas, semicolons or tabs, in UTF-8, else in Windows' Western encoding."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("cp1252", "replace")
    first_line = text.lstrip().partition("\n")[0]
    delimiter = max(",;\t", key=first_line.count)
    try:
        yield from csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    except csv.Error as error:
        raise RequestError(f"The CSV file cannot be read: {error}") from None


def _sheet(path: Path) -> Iterator[list[str]]:
    """The first sheet."""
    import openpyxl  # here, because it takes a second on a small board
    from openpyxl.utils.exceptions import InvalidFileException

    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            for row in book.worksheets[0].iter_rows():
                yield [_text(cell) for cell in row]
        finally:
            book.close()
    except (InvalidFileException, zipfile.BadZipFile, LookupError, ValueError, TypeError, SyntaxError) as error:
        # What openpyxl, zipfile and the XML parser (a SyntaxError) raise for a file that is no workbook.
        raise RequestError(f"{path.name} is no Excel workbook ({type(error).__name__})") from None


def _text(cell: Any) -> str:
    """What the cell shows: a number without `.0`, and with the zeros in front that its format (00000) adds."""
    value = cell.value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and _ZEROS.fullmatch(str(cell.number_format)):
        return str(value).zfill(len(cell.number_format))
    return str(value)
