"""`edge-face import-ids`: ids from spreadsheets as people and programs write them."""

from __future__ import annotations

from pathlib import Path

import openpyxl
import pytest

from edge_face import idlists
from edge_face.clock import SystemClock
from edge_face.errors import RequestError
from edge_face.idlists import IdRow
from edge_face.store import Store
from tests.support.daemon import edge_face, write_config


def book(path: Path, *rows: tuple[object, ...], formats: dict[str, str] | None = None) -> Path:
    workbook = openpyxl.Workbook()
    sheet = workbook.active
    assert sheet is not None
    for row in rows:
        sheet.append(row)
    for cell, number_format in (formats or {}).items():
        sheet[cell].number_format = number_format
    workbook.save(path)
    return path


def csv_file(path: Path, data: str | bytes) -> Path:
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def test_a_sheet_with_a_title_numbers_and_zeros(tmp_path: Path) -> None:
    rows = [
        ("Class 4b", None, None),
        (),
        ("Class", "STUDENT_ID ", "Student Name"),
        ("4b", 123456, "John Doe"),
        ("4b", 42, "Zoë"),
        ("4b", 7.0, "Ω"),
        ("4b", "0815", " Jan "),
        (),
        ("4b", None, "Nobody"),
    ]
    path = book(tmp_path / "ids.xlsx", *rows, formats={"B5": "00000"})
    assert idlists.read(path) == [
        IdRow(4, "John Doe", "123456"),
        IdRow(5, "Zoë", "00042"),
        IdRow(6, "Ω", "7"),
        IdRow(7, "Jan", "0815"),
        IdRow(9, "Nobody", ""),
    ]


@pytest.mark.parametrize(
    "data",
    [
        "Name,ID\nZoë,007\n",
        "\ufeffname;Student-Number\r\nZoë;007\r\n",
        "No.\tFull name\n007\tZoë\n",
        "Name;Id\nZoë;007\n".encode("cp1252"),
        "No;Name;Student ID\n1;Zoë;007\n",
        'ID,Class,NAME\n007,"4b, left",Zoë',
    ],
)
def test_csv_as_spreadsheets_write_it(tmp_path: Path, data: str | bytes) -> None:
    (row,) = idlists.read(csv_file(tmp_path / "ids.CSV", data))
    assert (row.name, row.external_id) == ("Zoë", "007")


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.csv", b""), ("a.csv", b"Katya,7\n"), ("a.csv", b"Name,Class\nKatya,4b\n"), ("a.xlsx", b""),
        ("a.xlsx", b"Name,ID\n"), ("a.xlsx", b"PK\x03\x04 no workbook"), ("a.txt", b"Name,ID\n"),
    ],
)  # fmt: skip
def test_what_is_no_such_list_is_told(tmp_path: Path, name: str, data: bytes) -> None:
    with pytest.raises(RequestError, match=name.replace(".", r"\.")):
        idlists.read(csv_file(tmp_path / name, data))


def test_each_row_is_reported_and_a_bad_one_stops_no_other(tmp_path: Path) -> None:
    config = write_config(tmp_path, {})
    store = Store(tmp_path / "edge-face.db", SystemClock())
    for name, external_id in (("John Doe", None), ("Katya", "old"), ("Zoë", "5"), ("ivan", None), ("Ivan", None)):
        store.add_faces(name, [], external_id)
    path = book(
        tmp_path / "ids.xlsx",
        *[("Name", "ID"), ("john doe", 123456), ("Katya", "K-1"), ("Ghost", 1), ("IVAN", 2), ("Ivan", 3), ("", 4)],
        *[("Katya", "K-2"), ("Zoë", None), ("ivan", 5)],
    )
    done = edge_face("import-ids", path, config=config)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "row 2: John Doe has the id 123456",
        "row 3: Katya has the id K-1",
        "row 6: Ivan has the id 3",
        "imported 3 of 9 ids, refused 6",
    ]
    refused = {int(line.split()[2]): line for line in done.stderr.splitlines()}
    assert set(refused) == {4, 5, 7, 8, 9, 10}
    for row, words in ((4, "Nobody"), (5, "alike"), (7, "name is missing"), (8, "Row 3"), (9, "id is missing")):
        assert words in refused[row]
    assert "Zoë has the external id 5" in refused[10]
    assert {person.name: person.external_id for person in store.people().items} == {
        "John Doe": "123456", "Katya": "K-1", "Zoë": "5", "ivan": None, "Ivan": "3",
    }  # fmt: skip

    good = csv_file(tmp_path / "good.csv", "Student Name,ID\nJohn Doe,123456\nKatya,K-9\n")
    done = edge_face("import-ids", good, config=config)
    assert (done.returncode, done.stderr) == (0, "")
    assert store.person("Katya").external_id == "K-9"  # type: ignore[union-attr]
    store.close()


def test_what_a_list_holds_commands_no_terminal(tmp_path: Path) -> None:
    config = write_config(tmp_path, {})
    path = csv_file(tmp_path / "ids.csv", "Name,ID\nMallory\x1b]0;owned\x07\x1b[2J,1\n")
    done = edge_face("import-ids", path, config=config)
    assert done.returncode == 1
    assert "Mallory" in done.stderr
    assert all(line.isprintable() for line in (done.stdout + done.stderr).splitlines()), repr(done.stderr)
