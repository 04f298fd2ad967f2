"""Unknown visitors: seen by a real camera, listed, enrolled, ignored, erased; and nothing of them where that is off."""

from __future__ import annotations

import io
import sqlite3
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

from edge_face import settings
from edge_face.unknowns import NOTE_AFTER_S
from edge_face.visitors import SeenVisit
from tests.integration.test_daemon import write_clip
from tests.support.api import Api, encoding, multipart, running
from tests.support.daemon import Daemon, write_config
from tests.support.disk import no_room
from tests.support.photos import astronaut, blank, hopper

BASE = "/api/v1/unknowns"
JPEG = b"\xff\xd8 a small picture"
ONE, TWO = "10000000-0000-4000-8000-000000000000", "20000000-0000-4000-8000-000000000000"
GONE = "30000000-0000-4000-8000-000000000000"


def visit(seed: int, camera: str = "front", timestamp: float = 1e9, quality: float = 0.5) -> SeenVisit:
    """Somebody whose face is that of the photo `face <seed>`."""
    return SeenVisit(camera, timestamp, 5.0, True, [encoding(seed), encoding(seed, 1)], quality, JPEG)


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    storage = settings.Storage(keep_unknowns=True, keep_faces=True)
    config = settings.Config(api=settings.Api(port=0), storage=storage)
    async with running(tmp_path, config=config) as api:
        api.store.note_visitor(ONE, visit(1))
        api.store.note_visitor(TWO, visit(2, "back", 2e9))
        api.store.note_visitor(TWO, visit(2, "front", 2e9 + 60))
        yield api


async def ids(api: Api, more: str = "") -> list[str]:
    status, page, _ = await api.ask("GET", BASE + more)
    assert status == 200, page
    return [item["id"] for item in page["items"]]


async def test_visitors_are_listed_and_shown(api: Api) -> None:
    page = (await api.ask("GET", f"{BASE}?limit=1"))[1]
    assert page["items"] == [
        {
            "id": TWO,
            "first_seen": 2e9,
            "last_seen": 2e9 + 60,
            "visits": 2,
            "cameras": ["back", "front"],
            "faces": 2,
            "ignored": False,
        }
    ]
    assert await ids(api, f"?limit=1&cursor={page['next_cursor']}") == [ONE]
    assert (await api.ask("GET", f"{BASE}/{TWO}"))[1] == page["items"][0]
    status, jpeg, answer = await api.ask("GET", f"{BASE}/{TWO}/face.jpg")
    assert (status, jpeg, answer.content_type) == (200, JPEG, "image/jpeg")
    for method, path in (("GET", GONE), ("GET", f"{GONE}/face.jpg"), ("POST", GONE), ("DELETE", GONE), ("GET", "%00")):
        assert (await api.ask(method, f"{BASE}/{path}"))[0] == 404, (method, path)
    assert (await api.ask("GET", f"{BASE}?cursor=x"))[1]["error"] == "bad_cursor"


@pytest.mark.parametrize("how", ["json", "data"])
async def test_a_visitor_becomes_a_person(api: Api, how: str) -> None:
    said = {"name": "Katya", "external_id": "7", "group": "night shift"}
    status, person, answer = await api.ask("POST", f"{BASE}/{ONE}", **{how: said})
    assert status == 201, person
    assert {key: person[key] for key in said} == said
    assert (person["faces"], answer.headers["Location"]) == (2, "/api/v1/people/katya")
    still = (await api.ask("POST", "/api/v1/recognize", data=multipart(("image", b"face 1"))))[1]
    assert still["faces"][0]["name"] == "Katya"
    assert await ids(api) == [TWO]
    assert (await api.ask("POST", f"{BASE}/{ONE}", json={"name": "Zero"}))[0] == 404
    first, second = (await api.ask("GET", "/api/v1/people/katya"))[1]["faces"]
    assert (first["thumbnail"], second["thumbnail"]) == (True, False), "the picture stays with its face"


async def test_a_visitors_face_is_added_to_a_person(api: Api) -> None:
    await api.ask("POST", "/api/v1/people", data=multipart(("name", "Katya"), ("image", b"face 1.3")))
    status, error, _ = await api.ask("POST", f"{BASE}/{TWO}", json={"person_id": "katya"})
    assert (status, error["error"]) == (422, "photos_disagree")
    status, person, _ = await api.ask("POST", f"{BASE}/{ONE}", json={"person_id": "katya"})
    assert (status, person["id"], person["faces"]) == (201, "katya", 3)
    assert (await api.ask("POST", f"{BASE}/{TWO}", json={"person_id": "nobody"}))[0] == 404
    assert await ids(api) == [TWO]


async def test_who_would_pass_as_somebody_else_is_refused(api: Api) -> None:
    await api.ask("POST", "/api/v1/people", data=multipart(("name", "Katya"), ("image", b"face 1.3")))
    status, error, _ = await api.ask("POST", f"{BASE}/{ONE}", json={"name": "Zero"})
    assert (status, error["error"]) == (409, "duplicate_person")
    assert ONE in await ids(api)
    assert (await api.ask("POST", f"{BASE}/{ONE}", json={"name": "Zero", "force": True}))[0] == 201
    assert ONE not in await ids(api)


@pytest.mark.parametrize(
    ("said", "status", "error"),
    [
        ({}, 400, "missing_field"),
        ({"name": "Zero", "person_id": "katya"}, 400, "missing_field"),
        ({"person_id": "katya", "group": "x"}, 400, "bad_field"),
        ({"nmae": "Zero"}, 400, "bad_field"),
        ({"name": ""}, 400, "bad_name"),
        ({"name": "Zero", "group": "a\nb"}, 400, "bad_group"),
    ],
)
async def test_what_cannot_be_enrolled_changes_nothing(api: Api, said: dict[str, str], status: int, error: str) -> None:
    got, answer, _ = await api.ask("POST", f"{BASE}/{ONE}", json=said)
    assert (got, answer["error"]) == (status, error)
    assert await ids(api) == [TWO, ONE]
    assert (await api.ask("GET", "/faces"))[1] == []


async def test_a_visitor_is_ignored_or_erased(api: Api, tmp_path: Path) -> None:
    status, visitor, _ = await api.ask("DELETE", f"{BASE}/{ONE}")
    assert (status, visitor["id"], visitor["ignored"]) == (200, ONE, True)
    assert await ids(api) == [TWO]
    assert await ids(api, "?ignored=true") == [ONE]
    assert (await api.ask("GET", f"{BASE}/{ONE}/face.jpg"))[0] == 404
    assert (await api.ask("POST", f"{BASE}/{ONE}", json={"name": "Katya"}))[0] == 404
    api.store.note_visitor(ONE, visit(1, quality=0.9))
    assert await ids(api) == [TWO], "not listed when the same face comes again"
    assert (await api.ask("GET", f"{BASE}/{ONE}/face.jpg"))[0] == 404
    for each in (ONE, TWO):
        assert (await api.ask("DELETE", f"{BASE}/{each}?erase=true"))[0] == 200
        assert (await api.ask("GET", f"{BASE}/{each}"))[0] == 404
    for trace in (JPEG, encoding(1).tobytes(), encoding(2).tobytes()):
        assert not is_left(trace, tmp_path)


async def test_where_none_are_kept_there_are_none(tmp_path: Path) -> None:
    async with running(tmp_path) as api:
        api.store.note_visitor(ONE, visit(1))  # of the time when they were
        assert await ids(api) == []
        for method, path in (("GET", ""), ("GET", "/face.jpg"), ("POST", ""), ("DELETE", "")):
            assert (await api.ask(method, f"{BASE}/{ONE}{path}", json={"name": "x"}))[0] == 404


def is_left(trace: bytes, folder: Path) -> bool:
    """Whether any part of it is in the files: SQLite cuts what is longer than a page."""
    files = b"".join(file.read_bytes() for file in folder.glob("edge-face.db*"))
    parts = [trace[at : at + 64] for at in range(0, len(trace), 64)]
    return any(part in files for part in parts if len(part) == 64 or part == trace)


def traces(folder: Path) -> list[bytes]:
    """Encodings and pictures that the database holds."""
    query = "SELECT encodings FROM unknowns UNION ALL SELECT jpeg FROM unknown_pictures"
    with closing(sqlite3.connect(f"file:{folder}/edge-face.db?mode=ro", uri=True)) as db:
        return [row[0] for row in db.execute(query)]


def until(what: Callable[[], Any], daemon: Daemon, limit_s: float = 30) -> Any:
    deadline = time.monotonic() + limit_s
    while not (found := what()):
        assert time.monotonic() < deadline, daemon.log
        time.sleep(0.1)
    return found


def test_strangers_who_come_twice(tmp_path: Path) -> None:
    """A real camera sees two strangers again and again; one is enrolled, one ignored; then all is switched off."""
    clip = write_clip(
        tmp_path / "clip.avi", (astronaut(), 0.9), (blank(), 0.7), (hopper()[:, 80:], 0.9), (blank(), 0.7)
    )
    common: dict[str, dict[str, Any]] = {
        "camera": {"source": clip, "loop": "true"},
        "decision": {"cooldown": 0, "presence_timeout": 0.5},
    }
    config = write_config(tmp_path, common | {"storage": {"keep_unknowns": "yes"}})
    with Daemon(config) as daemon:
        daemon.wait_for("ok")
        hashes: set[str | None] = set()

        def items(**params: Any) -> list[dict[str, Any]]:
            hashes.add(daemon.get("/hash").json()["hash"])
            found: list[dict[str, Any]] = daemon.get(BASE, **params).json()["items"]
            return found

        def ask(method: str, path: str, **more: Any) -> Any:
            answer = requests.request(method, daemon.url + path, headers=daemon.auth, timeout=30, **more)
            assert answer.ok, answer.text
            return answer.json()

        until(lambda: sorted(item["visits"] for item in items())[:1] >= [2], daemon)
        first, second = items()
        assert {tuple(first["cameras"]), tuple(second["cameras"])} == {("front",)}
        assert all(item["first_seen"] < item["last_seen"] <= time.time() for item in (first, second))
        reasons = [event["reason"] for event in daemon.get("/api/v1/events").json()["items"]]
        others = sum(reason != "unknown" for reason in reasons)  # stale ones, on a busy machine
        assert 2 <= len(hashes - {None}) <= 2 + others, "the same at the second visit"
        jpeg = daemon.get(f"{BASE}/{first['id']}/face.jpg").content
        with Image.open(io.BytesIO(jpeg)) as picture:
            assert picture.format == "JPEG"
            assert max(picture.size) <= 160
            assert not picture.getexif()
            red, _, blue = np.asarray(picture.convert("RGB"))[40:120, 40:120].reshape(-1, 3).mean(axis=0)
            assert red > 1.1 * blue, "skin, with its colours in the right order"
        assert len(jpeg) < 20_000

        person = ask("POST", f"{BASE}/{first['id']}", json={"name": "Somebody"})
        begin = time.monotonic()
        until(lambda: daemon.get("/api/v1/events").json()["items"][0]["name"] == "Somebody", daemon, 10)
        assert time.monotonic() - begin < 8, "at the next visit"
        assert person["faces"] == first["faces"]

        (other,) = items()
        assert other["id"] == second["id"]
        assert ask("DELETE", f"{BASE}/{other['id']}")["ignored"]
        until(lambda: [item["visits"] > other["visits"] for item in items(ignored="true")] == [True], daemon)
        assert items() == []
        assert daemon.get("/api/v1/status").json()["unknowns"] == {"kept": 1, "lost": 0, "gave_way": 0}
        assert daemon.end()[0] == 0
    assert "Traceback" not in daemon.log
    kept = traces(tmp_path)
    assert len(kept) == 1, "the ignored one has no picture"
    assert is_left(kept[0], tmp_path)

    write_config(tmp_path, common)
    with Daemon(config) as daemon:
        daemon.wait_for("ok")
        until(lambda: traces(tmp_path) == [], daemon)
        until(lambda: daemon.get("/api/v1/status").json()["cameras"][0]["decisions"].get("unknown"), daemon)
        time.sleep(NOTE_AFTER_S + 1)
        assert daemon.get(BASE).json()["items"] == []
        assert daemon.end()[0] == 0
    assert traces(tmp_path) == []
    assert not is_left(kept[0], tmp_path)


@pytest.mark.slow
@pytest.mark.paired
def test_a_full_disk_loses_visits_and_no_decision(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.avi", (astronaut(), 1), (blank(), 0.8))
    config = write_config(
        tmp_path,
        {
            "camera": {"source": clip, "loop": "true"},
            "decision": {"presence_timeout": 0.5},
            "storage": {"keep_unknowns": "yes"},
        },
    )
    with Daemon(config) as daemon:
        daemon.wait_for("ok")
        assert daemon.process is not None
        until(lambda: daemon.get(BASE).json()["items"], daemon)

        def status() -> tuple[int, int]:
            told = daemon.get("/api/v1/status").json()
            return told["unknowns"]["lost"], told["cameras"][0]["decisions"]["unknown"]

        with no_room(daemon.process.pid):
            before = status()[1]
            until(lambda: status()[0] >= 2, daemon)
            assert status()[1] >= before + 2
        (visitor,) = until(lambda: daemon.get(BASE).json()["items"], daemon)
        until(lambda: daemon.get(BASE).json()["items"][0]["visits"] > visitor["visits"], daemon)
        assert daemon.end()[0] == 0
    assert "Traceback" not in daemon.log
