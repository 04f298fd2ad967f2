"""The command line as people use it, well and badly."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
import zipfile
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import openpyxl
import pytest

from edge_face.clock import SystemClock
from edge_face.store import Store
from tests.support.daemon import edge_face, write_config
from tests.support.photos import astronaut, blank, hopper, jpeg, side_by_side
from tests.support.publishing import event as an_event


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write_config(tmp_path, {"camera": {"source": "demo"}})


def photo(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


COMMANDS = (
    "run",
    "demo",
    "check",
    "bench",
    "config",
    "enroll",
    "people",
    "remove",
    "recognize",
    "events",
    "attendance",
    "token",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    done = edge_face(command, "--help")
    assert done.returncode == 0
    assert "--config" in done.stdout
    assert f"example: edge-face {command}" in done.stdout


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["nonsense"],
        ["enroll"],
        ["enroll", "Katya"],
        ["enroll", "Katya", "--zip", "a.zip"],
        ["remove"],
        ["recognize"],
        ["events", "--status", "MAYBE"],
        ["events", "--since", "yesterday"],
        ["events", "--format", "pdf"],
        ["attendance", "--date", "yesterday"],
        ["token", "--role", "viewer"],
        ["token", "--new", "--role", "king"],
        ["token", "--new", "--label", "hall screen"],
        ["run", "--conf", "x.ini"],
    ],
)
def test_wrong_usage_is_2_with_one_line(args: list[str], tmp_path: Path) -> None:
    done = edge_face(*args, cwd=tmp_path)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "--help" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["remove", "Nobody"], "Nobody"),
        (["enroll", "Katya", "missing.jpg"], "missing.jpg"),
        (["enroll", "--zip", "missing.zip"], "missing.zip"),
        (["enroll", "--dir", "missing"], "missing"),
        (["token", "--revoke", "999"], "999"),
        (["token", "--new", "--role", "viewer", "--label", "two\nlines"], "line ends"),
        (["import-ids", "missing.csv"], "missing.csv"),
        (["people", "--config", "missing.ini"], "missing.ini"),
    ],
)
def test_failures_are_1_with_one_line_and_no_traceback(args: list[str], words: str, config: Path) -> None:
    done = edge_face(*args, cwd=config.parent)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert words in line


def test_config_errors_are_all_told(tmp_path: Path) -> None:
    file = tmp_path / "config.ini"
    file.write_text("[camera]\nscal = 1\n[mqtt]\nport = x\n")
    done = edge_face("run", config=file)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "[camera] scal: no such key; did you mean scale?",
        "[mqtt] port: expected a whole number, not 'x'",
    ]


def test_config_prints_what_is_in_force_and_masks_secrets(tmp_path: Path) -> None:
    (tmp_path / "config.ini").write_text("[mqtt]\nhost = broker\npassword = hunter2\n")
    shown = edge_face("config", cwd=tmp_path)
    assert "host = broker" in shown.stdout
    assert "hunter2" not in shown.stdout
    defaults = edge_face("config", "--defaults", cwd=tmp_path)
    assert defaults.stdout == (Path(__file__).parents[2] / "config.ini").read_text()


def test_enrol_list_recognise_remove(config: Path, tmp_path: Path, eileen: bytes, grace: bytes) -> None:
    one, two = photo(tmp_path, "e.jpg", eileen), photo(tmp_path, "g.jpg", grace)
    half = hopper()[::2, ::2]
    pair = photo(tmp_path, "pair.jpg", jpeg(side_by_side(astronaut()[:256], half)))
    nobody, broken = photo(tmp_path, "n.jpg", jpeg(blank())), photo(tmp_path, "b.jpg", b"no picture")

    assert "nobody is enrolled" in edge_face("people", config=config).stdout
    assert edge_face("people", "--json", config=config).stdout == "[]\n"
    done = edge_face("enroll", "Катя О'Нил", one, "--external-id", "7", config=config)
    assert done.returncode == 0
    assert "Катя О'Нил" in done.stdout
    (person,) = json.loads(edge_face("people", "--json", config=config).stdout)
    assert (person["name"], person["external_id"], person["faces"]) == ("Катя О'Нил", "7", 1)
    assert person["id"].isascii()

    for bad, words in ((nobody, "No face"), (pair, "2 faces"), (broken, "not a picture")):
        refused = edge_face("enroll", "Grace", bad, config=config)
        assert refused.returncode == 1
        assert words in refused.stderr
    lookalike = edge_face("enroll", "Grace", one, config=config)
    assert lookalike.returncode == 1
    assert "would pass as Катя О'Нил" in lookalike.stderr
    assert edge_face("enroll", "Twin", one, "--force", config=config).returncode == 0
    assert edge_face("remove", "Twin", config=config).returncode == 0

    found = edge_face("recognize", "--json", one, "missing.jpg", two, broken, nobody, config=config)
    assert found.returncode == 1
    rows = [json.loads(line) for line in found.stdout.splitlines()]
    assert [row["file"] for row in rows] == [str(one), "missing.jpg", str(two), str(broken), str(nobody)]
    first = rows[0]["faces"][0]
    assert list(first) == ["box", "status", "reason", "name", "person_id", "distance", "margin", "score"]
    assert (first["status"], first["reason"], first["name"], first["margin"]) == ("PASS", "match", "Катя О'Нил", None)
    assert (rows[0]["width"], rows[0]["height"]) == (512, 512)
    assert (rows[2]["faces"][0]["status"], rows[2]["faces"][0]["name"]) == ("REJECT", None)
    assert [set(rows[at]) for at in (1, 3)] == [{"file", "error", "message"}] * 2
    assert rows[4]["faces"] == []

    assert edge_face("remove", person["id"], config=config).returncode == 0
    assert edge_face("people", "--json", config=config).stdout == "[]\n"
    assert edge_face("events", "--format", "json", config=config).stdout == "[]\n"


@pytest.mark.parametrize("kind", ["zip", "dir"])
def test_a_batch_reports_each_refused_file_and_enrols_the_rest(
    kind: str, config: Path, tmp_path: Path, eileen: bytes, grace: bytes
) -> None:
    files = {"Eileen Collins.jpg": eileen, "Grace/1.jpg": grace, "broken.jpg": b"x", "notes.txt": b"hello"}
    if kind == "dir":
        for name, data in files.items():
            photo(tmp_path / "faces", name, data)
        done = edge_face("enroll", "--dir", tmp_path / "faces", config=config)
    else:
        with zipfile.ZipFile(tmp_path / "faces.zip", "w") as archive:
            for name, data in files.items():
                archive.writestr(name, data)
        done = edge_face("enroll", "--zip", tmp_path / "faces.zip", config=config)
    assert done.returncode == 1
    refused = sorted(line.split(":")[0] for line in done.stderr.splitlines())
    assert refused == ["refused broken.jpg", "refused notes.txt"]
    assert "enrolled 2 photos, refused 2" in done.stdout
    enrolled = json.loads(edge_face("people", "--json", config=config).stdout)
    assert sorted(person["name"] for person in enrolled) == ["Eileen Collins", "Grace"]


def test_events_in_every_format(config: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "edge-face.db", SystemClock())
    for at in (1000.0, 2000.0, 3000.0):
        store.record(an_event(timestamp=at))
    store.close()
    assert edge_face("events", config=config).stdout.count("\n") >= 4
    found = json.loads(
        edge_face("events", "--format", "json", "--since", "1500", "--until", "2500", config=config).stdout
    )
    assert [event["timestamp"] for event in found] == [2000.0]
    assert len(edge_face("events", "--format", "csv", config=config).stdout.splitlines()) == 4
    book = tmp_path / "events.xlsx"
    assert edge_face("events", "--format", "xlsx", "-o", book, config=config).returncode == 0
    assert zipfile.is_zipfile(book)
    assert json.loads(edge_face("events", "--format", "json", "--status", "reject", config=config).stdout) == []


def test_attendance_of_a_day_in_every_format(config: Path, tmp_path: Path) -> None:
    midnight = datetime.combine(date(2026, 3, 2), datetime.min.time()).timestamp()  # of this box
    store = Store(tmp_path / "edge-face.db", SystemClock())
    for at in (midnight - 1, midnight, midnight + 80_000, midnight + 86_400):
        store.record(an_event(timestamp=at))
    store.record(an_event(None, timestamp=midnight + 1))
    store.close()

    def listed(*args: str) -> list[float]:
        done = edge_face("attendance", "--format", "json", *args, config=config)
        assert done.returncode == 0, done.stderr
        return [row["timestamp"] for row in json.loads(done.stdout)]

    assert listed("--date", "2026-03-02") == [midnight, midnight + 80_000]
    assert listed("--date", "today") == []
    assert len(listed()) == 4
    assert "Katya" in edge_face("attendance", config=config).stdout
    done = edge_face("attendance", "--daily", "--date", "2026-03-02", "--format", "json", config=config)
    (day,) = json.loads(done.stdout)
    assert (day["date"], day["visits"], day["last_timestamp"]) == ("2026-03-02", 2, midnight + 80_000)
    config.write_text(config.read_text() + "\n[attendance]\ntimezone = Pacific/Kiritimati\n")
    there = datetime(2026, 3, 2, tzinfo=ZoneInfo("Pacific/Kiritimati")).timestamp()
    visits = [midnight - 1, midnight, midnight + 80_000, midnight + 86_400]
    assert listed("--date", "2026-03-02") == [at for at in visits if there <= at < there + 86_400]
    book = tmp_path / "attendance.xlsx"
    assert edge_face("attendance", "--format", "xlsx", "-o", book, config=config).returncode == 0
    sheet = openpyxl.load_workbook(book).active
    assert sheet is not None
    assert [row[2] for row in sheet.iter_rows(values_only=True)] == ["name", *["Katya"] * 4]


def test_a_closed_pipe_is_no_error(config: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "edge-face.db", SystemClock())
    for _ in range(1000):
        store.record(an_event())
    store.close()
    command = f"{sys.executable} -m edge_face events --format csv --config {config} | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_token_prints_one_line_and_can_be_changed_listed_and_revoked(config: Path, tmp_path: Path) -> None:
    first = edge_face("token", config=config)
    assert re.fullmatch(r"ef_[\w-]{40,}\n", first.stdout)
    assert edge_face("token", config=config).stdout == first.stdout
    file = tmp_path / "edge-face.db.token"
    assert file.read_text().strip() == first.stdout.strip()
    assert file.stat().st_mode & 0o777 == 0o600
    viewer = edge_face("token", "--new", "--role", "viewer", "--label", "hall screen", config=config).stdout
    assert viewer != first.stdout
    listed = edge_face("token", "--list", config=config).stdout
    assert viewer.strip() not in listed
    number = next(line.split("\t")[0] for line in listed.splitlines() if line.endswith("\thall screen"))
    assert edge_face("token", "--revoke", number, config=config).returncode == 0
    assert "viewer" not in edge_face("token", "--list", config=config).stdout
    stored = b"".join(each.read_bytes() for each in tmp_path.iterdir() if each != file)
    assert first.stdout.strip().encode() not in stored
    assert viewer.strip().encode() not in stored
    assert edge_face("token", "--new", config=config).stdout != first.stdout


def test_check_is_one_table(config: Path, tmp_path: Path) -> None:
    good = edge_face("check", config=config)
    assert good.returncode == 0, good.stdout
    assert {line.split()[0] for line in good.stdout.splitlines()} == {"config", "database", "models", "camera"}
    bad = write_config(
        tmp_path,
        {
            "camera": {"source": tmp_path / "missing.mp4"},
            "mqtt": {"host": "127.0.0.1", "port": 9},
            "webhook": {"url": "http://127.0.0.1:9/"},
        },
    )
    failed = edge_face("check", config=bad)
    assert failed.returncode == 1
    verdicts = {line.split("  ")[0]: "FAILED" in line for line in failed.stdout.splitlines()}
    failing = {"camera front", "mqtt", "webhook default"}
    assert verdicts == {part: part in failing for part in ("config", "database", "models", *sorted(failing))}
    assert "Traceback" not in failed.stderr


def test_a_person_at_a_terminal_sees_events_address_token_and_topic(config: Path, tmp_path: Path) -> None:
    """On a real terminal: the demo, its first event, then Ctrl-C."""
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "edge_face", "demo", "--config", str(config)],
        stdin=child,
        stdout=child,
        stderr=child,
        start_new_session=True,
        close_fds=True,
    )
    os.close(child)
    seen = ""
    deadline = time.monotonic() + 40
    while "PASS" not in seen and time.monotonic() < deadline:
        if select.select([parent], [], [], 0.5)[0]:
            seen += os.read(parent, 65536).decode()
    os.write(parent, b"\x03")  # to nobody's foreground group: so send the signal as the terminal would
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    assert process.wait(10) == 0
    assert time.monotonic() - begin < 2
    os.close(parent)
    assert "http://127.0.0.1:" in seen
    assert re.search(r"token:\s+ef_[\w-]{40,}", seen)
    assert "MQTT" in seen.upper()
    assert re.search(r"PASS\s+Eileen Collins", seen)
    assert "Traceback" not in seen
