"""One person: shown, changed, blocked, photos added and erased; and what the gate makes of it."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import ExifTags, Image

from edge_face import pages
from edge_face.clock import SystemClock
from edge_face.store import Changes, Store
from tests.integration.test_api import zipped
from tests.integration.test_daemon import write_clip
from tests.integration.test_mqtt import gate
from tests.support import publishing
from tests.support.api import Api, PreparedPhotos, multipart, running
from tests.support.broker import Broker, until, watching
from tests.support.daemon import Daemon, edge_face, write_config
from tests.support.photos import astronaut, blank
from tests.support.wrong_clock import WallClock

KATYA = "/api/v1/people/katya"


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as api:
        form = multipart(("name", "Katya"), ("image", b"face 1"), ("external_id", "7"))
        assert (await api.ask("POST", "/api/v1/people", data=form))[0] == 201
        yield api


async def test_a_person_is_shown_with_the_faces(api: Api) -> None:
    status, person, _ = await api.ask("GET", KATYA, "viewer")
    assert status == 200
    (face,) = person.pop("faces")
    assert set(face) == {"id", "created_at", "thumbnail"}
    assert person.pop("created_at") == face["created_at"]
    assert person == {
        "id": "katya",
        "name": "Katya",
        "external_id": "7",
        "group": None,
        "valid_from": None,
        "valid_until": None,
        "blocked": False,
    }
    assert (await api.ask("GET", "/api/v1/people/Katya"))[0] == 404  # a name is no id


async def test_what_is_absent_stays_and_null_takes_away(api: Api) -> None:
    async def patched(**changes: Any) -> dict[str, Any]:
        status, person, _ = await api.ask("PATCH", KATYA, json=changes)
        assert status == 200, person
        return {key: person[key] for key in ("name", "external_id", "group", "valid_from", "valid_until", "blocked")}

    before = await patched()
    nothing: dict[str, Any] = {"external_id": None, "group": None, "valid_from": None, "valid_until": None}
    assert before == nothing | {"name": "Katya", "external_id": "7", "blocked": False}
    rules = {"group": "night shift", "valid_from": 1e9, "valid_until": "2033-05-18T03:33:20Z", "blocked": True}
    after = before | rules | {"valid_until": 2e9}
    assert await patched(**rules) == after
    assert await patched(name="Katya Petrova") == after | {"name": "Katya Petrova"}
    assert (await api.ask("GET", "/api/v1/people?q=NIGHT"))[1]["items"][0]["blocked"] is True
    assert await patched(**nothing, blocked=False) == before | nothing | {"name": "Katya Petrova"}


@pytest.mark.parametrize(
    ("body", "status", "error"),
    [
        (b"no json", 400, "malformed_json"),
        (b"[]", 400, "bad_field"),
        (b'{"name": null}', 400, "bad_field"),
        (b'{"blocked": null}', 400, "bad_field"),
        (b'{"blocked": "yes"}', 400, "bad_field"),
        (b'{"blokced": true}', 400, "bad_field"),
        (b'{"name": " "}', 400, "bad_name"),
        (b'{"name": "Zero"}', 409, "conflict"),
        (b'{"external_id": "8"}', 409, "conflict"),
        (b'{"group": "a\\nb"}', 400, "bad_group"),
        (b'{"valid_from": "tomorrow"}', 400, "bad_time"),
        (b'{"valid_from": 1e300}', 400, "bad_time"),
        (b'{"valid_from": -1}', 400, "bad_time"),
        (b'{"valid_from": 2e9, "valid_until": 1e9}', 400, "bad_time"),
    ],
)
async def test_a_change_that_is_refused_changes_nothing(api: Api, body: bytes, status: int, error: str) -> None:
    form = multipart(("name", "Zero"), ("image", b"face 2"), ("external_id", "8"))
    await api.ask("POST", "/api/v1/people", data=form)
    before = (await api.ask("GET", KATYA))[1]
    got, answer, _ = await api.ask("PATCH", KATYA, data=body, headers={"Content-Type": "application/json"})
    assert (got, answer["error"]) == (status, error)
    assert (await api.ask("GET", KATYA))[1] == before
    assert (await api.ask("PATCH", "/api/v1/people/nobody", json={"blocked": True}))[0] == 404


async def test_faces_are_added_and_erased_one_by_one(api: Api) -> None:
    faces = f"{KATYA}/faces"
    status, person, _ = await api.ask("POST", faces, data=multipart(("image", b"face 1"), ("image", b"face 1")))
    assert (status, len(person["faces"])) == (201, 3)
    assert (await api.ask("POST", faces, data=multipart(("image", b"nobody"))))[1]["error"] == "no_face"
    assert (await api.ask("POST", "/api/v1/people/zero/faces", data=multipart(("image", b"face 1"))))[0] == 404

    await api.ask("POST", "/api/v1/people", data=multipart(("name", "Zero"), ("image", b"face 2")))
    status, answer, _ = await api.ask("POST", faces, data=multipart(("image", b"face 2")))
    assert (status, answer["error"]) == (409, "duplicate_person")

    first, *rest = person["faces"]
    status, person, _ = await api.ask("DELETE", f"{faces}/{first['id']}")
    assert (status, person["faces"]) == (200, rest)
    for number in (first["id"], "x", "٣", "9" * 30, "-1"):
        assert (await api.ask("DELETE", f"{faces}/{number}"))[0] == 404
    other = (await api.ask("GET", "/api/v1/people/zero"))[1]["faces"][0]["id"]
    assert (await api.ask("DELETE", f"{faces}/{other}"))[0] == 404, "a face of somebody else"
    assert (await api.ask("GET", "/api/v1/people?q=katya"))[1]["items"][0]["faces"] == 2


async def test_photos_that_disagree_are_refused_with_the_distance(api: Api) -> None:
    async def enrolled(path: str, *images: bytes, **fields: str) -> tuple[int, dict[str, Any]]:
        form = multipart(*fields.items(), *(("image", image) for image in images))
        status, body, _ = await api.ask("POST", path, data=form)
        return status, body

    status, error = await enrolled("/api/v1/people", b"face 2", b"face 2.1", b"face 3", name="Zero")
    assert (status, error["error"]) == (422, "photos_disagree")
    assert re.search(r"Photos 1 and 3 do not .* \(distance 1\.\d\d, at most 0\.6 is allowed\)", error["message"])
    assert (await api.ask("GET", "/faces"))[1] == ["Katya"]
    assert (await enrolled("/api/v1/people", b"face 2", b"face 2.1", b"face 2.2", name="Zero"))[0] == 201

    for path, fields in (
        (f"{KATYA}/faces", {}),
        ("/api/v1/people", {"name": "Katya"}),
        ("/register", {"name": "Katya"}),
    ):
        status, error = await enrolled(path, b"face 3", **fields)
        assert (status, error["error"]) == (422, "photos_disagree")
        assert "those that are enrolled" in error["message"]
    assert (await enrolled(f"{KATYA}/faces", b"face 1.1"))[0] == 201
    status, person = await enrolled(f"{KATYA}/faces", b"face 3", force="yes")
    assert (status, len(person["faces"])) == (201, 3)
    assert (await enrolled(f"{KATYA}/faces", b"face 3.1"))[0] == 201, "like one of those that are enrolled"


async def test_of_a_zip_the_photo_that_disagrees_is_refused(api: Api) -> None:
    files = {"Zero/1.jpg": b"face 2", "Zero/2.jpg": b"face 3", "Zero/3.jpg": b"face 2.1"}
    report = (await api.ask("POST", "/api/v1/people/batch", data=multipart(("zip", zipped(files)))))[1]
    assert [item["error"] for item in report["items"]] == [None, "photos_disagree", None]


async def test_thumbnails_are_kept_shown_and_erased_with_the_face(tmp_path: Path) -> None:
    picture = b"\xff\xd8 a small picture"
    async with running(tmp_path, PreparedPhotos(thumbnail=picture)) as api:
        form = multipart(("name", "Katya"), ("image", b"face 1"), ("image", b"face 1.1"))
        await api.ask("POST", "/api/v1/people", data=form)
        first, second = (await api.ask("GET", KATYA))[1]["faces"]
        assert first["thumbnail"] is True
        url = f"{KATYA}/faces/{first['id']}"
        status, got, answer = await api.ask("GET", f"{url}/thumbnail.jpg", "viewer")
        assert (status, got, answer.content_type) == (200, picture, "image/jpeg")
        other = (await api.ask("POST", "/api/v1/people", data=multipart(("name", "Zero"), ("image", b"face 2"))))[1]
        assert (await api.ask("GET", f"/api/v1/people/{other['id']}/faces/{first['id']}/thumbnail.jpg"))[0] == 404

        assert (await api.ask("DELETE", url))[0] == 200
        assert (await api.ask("GET", f"{url}/thumbnail.jpg"))[0] == 404
        assert (await api.ask("GET", f"{KATYA}/faces/{second['id']}/thumbnail.jpg"))[0] == 200
        for person in ("katya", "zero"):
            assert (await api.ask("DELETE", f"/api/v1/people/{person}"))[0] == 200
        assert api.store.forget_thumbnails() == 0
        remains = b"".join(file.read_bytes() for file in tmp_path.glob("edge-face.db*"))
        assert picture not in remains


def test_pictures_of_faces_are_kept_only_while_that_is_wanted(tmp_path: Path) -> None:
    """Through the real child, with a photo that says where it was taken."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "a camera that tells"
    photo = io.BytesIO()
    Image.fromarray(astronaut()[:, :, ::-1]).save(photo, "JPEG", quality=95, exif=exif, comment=b"at home")
    (tmp_path / "e.jpg").write_bytes(photo.getvalue())
    config = write_config(tmp_path, {"storage": {"keep_faces": "yes"}})
    assert edge_face("enroll", "Eileen", tmp_path / "e.jpg", config=config).returncode == 0
    store = Store(tmp_path / "edge-face.db", SystemClock())
    (face,) = store.faces("eileen")
    assert face.thumbnail
    jpeg = store.thumbnail("eileen", face.id)
    with Image.open(io.BytesIO(jpeg)) as small:
        assert max(small.size) <= 160
        assert not small.getexif()
        assert set(small.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
    assert b"tells" not in jpeg
    assert b"at home" not in jpeg

    clip = write_clip(tmp_path / "clip.avi", (blank(), 1))
    config = write_config(tmp_path, {"camera": {"source": clip}})
    with Daemon(config) as daemon:
        assert daemon.wait(30) == 0, daemon.log
    assert "1 pictures of faces were erased" in daemon.log
    (face,) = store.faces("eileen")
    assert not face.thumbnail
    store.close()


async def test_a_still_is_judged_by_the_same_rules(api: Api) -> None:
    async def judged() -> tuple[str, str, str | None]:
        still = (await api.ask("POST", "/api/v1/recognize", data=multipart(("image", b"face 1"))))[1]
        return still["faces"][0]["status"], still["faces"][0]["reason"], still["faces"][0]["name"]

    assert await judged() == ("PASS", "match", "Katya")
    for rule in ({"blocked": True}, {"blocked": False, "valid_until": 1e9}):
        await api.ask("PATCH", KATYA, json=rule)
        assert await judged() == ("REJECT", "not_allowed", "Katya")
    await api.ask("PATCH", KATYA, json={"valid_until": None})
    assert await judged() == ("PASS", "match", "Katya")


async def test_a_pass_that_waits_for_the_broker_is_called_back(broker: Broker, tmp_path: Path) -> None:
    """The broker is away, Katya passes, is blocked, and the broker comes back while the event is still live."""
    broker.stop()
    async with gate(tmp_path, broker.options(), connected=False) as (sink, publisher):
        store = Store(tmp_path / "edge-face.db", SystemClock())
        store.add_faces("Katya", [])
        await publisher.publish(publishing.event("Katya"), publishing.deadline(20))
        await publisher.publish(publishing.event("Zero"), publishing.deadline(20))
        await asyncio.sleep(0.1)  # the delivery waits for the connection now
        store.update_person("katya", Changes(blocked=True))
        broker.start()
        async with watching(broker) as watcher:
            await until(lambda: sink.healthy)
            await until(lambda: watcher.events() != [])
            assert [event["name"] for event in watcher.events()] == ["Zero"]
        assert store.dropped() == {"mqtt": {"blocked": 1}}
        store.close()


def patch(daemon: Daemon, auth: dict[str, str], **changes: Any) -> None:
    answer = requests.patch(f"{daemon.url}/api/v1/people/eileen", json=changes, headers=auth, timeout=10)
    assert answer.status_code == 200, answer.text


def told_since(config: Path, seq: int) -> list[tuple[str, str, str | None]]:
    """Read beside the daemon, and without it."""
    store = Store(config.parent / "edge-face.db", SystemClock())
    told = [event for event in pages.each(store.events) if event["seq"] > seq]
    store.close()
    return [(event["status"], event["reason"], event["name"]) for event in told]


def wait_for_blocked(config: Path, seq: int) -> None:
    """Eileen is seen and refused, and was not let in."""
    deadline = time.monotonic() + 20
    while ("REJECT", "not_allowed", "Eileen") not in told_since(config, seq):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    assert "PASS" not in {status for status, _, _ in told_since(config, seq)}


def test_a_block_takes_hold_at_once_and_outlives_a_crash(tmp_path: Path, eileen: bytes) -> None:
    clip = write_clip(tmp_path / "clip.avi", (astronaut(), 0.8), (blank(), 0.4))
    decision = {"cooldown": 0, "presence_timeout": 0.2}  # each round of the clip is a visit
    config = write_config(tmp_path, {"camera": {"source": clip, "loop": "true"}, "decision": decision})
    (tmp_path / "e.jpg").write_bytes(eileen)
    assert edge_face("enroll", "Eileen", tmp_path / "e.jpg", config=config).returncode == 0
    with Daemon(config) as daemon:
        daemon.wait_for("ok")
        auth = daemon.auth
        deadline = time.monotonic() + 20
        while not any(event["status"] == "PASS" for event in daemon.get("/api/v1/events").json()["items"]):
            assert time.monotonic() < deadline, daemon.log
        patch(daemon, auth, blocked=True)
        wait_for_blocked(config, len(told_since(config, 0)))
        patch(daemon, auth, blocked=False)
        patch(daemon, auth, blocked=True)
        daemon.end(signal.SIGKILL)  # the very moment after the answer
    (person,) = json.loads(edge_face("people", "--json", config=config).stdout)
    assert person["blocked"] is True
    assert ": blocked" in edge_face("people", config=config).stdout
    last = len(told_since(config, 0))
    with Daemon(config) as daemon:
        wait_for_blocked(config, last)
        assert daemon.end()[0] == 0
    assert "Eileen (not_allowed)" in daemon.log


def test_a_time_that_is_limited_needs_a_clock_that_is_right(tmp_path: Path, eileen: bytes) -> None:
    clock = WallClock(tmp_path)
    clip = write_clip(tmp_path / "clip.avi", (astronaut(), 0.8), (blank(), 0.4))
    decision = {"cooldown": 0, "presence_timeout": 0.2}
    config = write_config(tmp_path, {"camera": {"source": clip, "loop": "true"}, "decision": decision})
    (tmp_path / "e.jpg").write_bytes(eileen)
    assert edge_face("enroll", "Eileen", tmp_path / "e.jpg", config=config).returncode == 0
    store = Store(tmp_path / "edge-face.db", SystemClock())
    store.update_person("eileen", Changes(valid_from=1.0, valid_until=time.time() + 3600))
    store.close()
    clock.set(0.0, synced=False)
    with Daemon(config, env=clock.env) as daemon:

        def told(reason: str) -> list[dict[str, Any]]:
            return [event for event in daemon.get("/api/v1/events").json()["items"] if event["reason"] == reason]

        def wait_for(reason: str, count: int = 1) -> None:
            deadline = time.monotonic() + 20
            while len(told(reason)) < count:
                assert time.monotonic() < deadline, daemon.log
                time.sleep(0.1)

        daemon.wait_for("ok")
        wait_for("not_allowed", 2)
        assert told("match") == []
        clock.set(0.0, synced=True)
        wait_for("match")
