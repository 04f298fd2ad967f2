"""Everything that is stored of one person, handed out by the command and by the API, and nothing of anybody else."""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_face import oversight
from edge_face.clock import SystemClock
from edge_face.outbox import Target
from edge_face.store import Changes, Store
from edge_face.vault import new_key
from tests.support import publishing
from tests.support.api import running
from tests.support.daemon import edge_face, write_config

FACES = [np.full(128, value, np.float32) for value in (0.125, 0.25)]
PICTURE = b"\xff\xd8 a picture"


def fill(store: Store) -> None:
    person = store.add_faces("Katya", FACES, "4711", [PICTURE, None])
    store.add_faces("Zero", [FACES[0] + 1])
    store.add_student("Katya", "4711", {"school": "No. 12"})
    store.update_person("katya", Changes(group="staff"))
    other = store.add_faces("Somebody", [FACES[0] + 2])
    store.update_person(other.id, Changes(name="katya"))  # a name that is Katya's id
    for id in ("katya", "zero", "somebody", "katya"):
        name = {"zero": "Zero", "somebody": "katya"}.get(id, "Katya")
        store.record(publishing.event(name, id=id, person_id=id), [Target("csv")])
    store.mark_attendance(person, clock_synced=True)


def check(content: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        parts: dict[str, Any] = {
            name: json.loads(archive.read(name)) for name in archive.namelist() if name.endswith(".json")
        }
        about = parts["person.json"]
        assert archive.read(about["faces"][0]["picture"]) == PICTURE
        assert set(archive.namelist()) == {*parts, about["faces"][0]["picture"]}
    assert (about["name"], about["id"], about["external_id"], about["group"]) == ("Katya", "katya", "4711", "staff")
    assert about["data"] == {"school": "No. 12"}
    assert [face["template"] for face in about["faces"]] == [face.tolist() for face in FACES]
    assert about["faces"][1]["picture"] is None
    assert [event["seq"] for event in parts["events.json"]] == [1, 4]
    assert {event["person_id"] for event in parts["events.json"]} == {"katya"}
    assert [row["source"] for row in parts["attendance.json"]] == ["camera", "camera", "upload"]
    assert {row["person_id"] for row in parts["attendance.json"]} == {"katya"}
    assert [row["what"] for row in parts["audit.json"]] == [
        *("enrolled", "student", "changed", "decision", "decision", "exported")
    ]


def test_the_command_writes_all_of_one_person_and_nothing_of_others(tmp_path: Path) -> None:
    key = new_key()
    config = write_config(tmp_path, {"storage": {"keep_faces": "true", "template_key": key}})
    with closing(Store(tmp_path / "edge-face.db", SystemClock(), template_key=key)) as store:
        fill(store)
    file = tmp_path / "katya.zip"
    done = edge_face("export", "Katya", file, config=config)
    assert done.returncode == 0, done.stderr
    check(file.read_bytes())
    assert file.stat().st_mode & 0o777 == 0o600
    before = file.read_bytes()
    for who, said in (("Nobody", "Nobody is enrolled as Nobody"), ("katya", "the id of one person and the name")):
        done = edge_face("export", who, file, config=config)
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert file.read_bytes() == before
    assert sorted(each.name for each in tmp_path.glob(".*")) == []


async def test_an_admin_gets_the_same_from_the_api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oversight, "AT_ONCE", 2)  # the audit is read in pieces
    async with running(tmp_path) as api:
        await asyncio.to_thread(fill, api.store)
        status, content, answer = await api.ask("GET", "/api/v1/people/katya/export")
        assert (status, answer.headers["Content-Type"]) == (200, "application/zip")
        assert answer.headers["Content-Disposition"] == 'attachment; filename="katya.zip"'
        check(content)
        assert (await api.ask("GET", "/api/v1/people/nobody/export"))[0] == 404
        assert (await api.ask("GET", "/api/v1/people/katya/export", "viewer"))[0] == 403
