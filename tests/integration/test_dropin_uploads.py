"""Pictures sent as the older projects' clients send them: /match, /recognize_faces, /create-student, /ws."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests
import websockets

from edge_face import settings
from edge_face.errors import StoreError
from edge_face.supervisor import PhotoProcess
from edge_face.web import uploads
from tests.support.api import SOI, Api, multipart, running


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as api:
        yield api


async def enrol(api: Api, name: str, seed: int, external_id: str = "") -> None:
    form = multipart(("name", name), ("external_id", external_id), ("image", f"face {seed}".encode()))
    assert (await api.ask("POST", "/api/v1/people", data=form))[0] == 201


async def curl(api: Api, path: str, *args: str) -> Any:
    """The reply to a request as the projects' own texts show it, with a token."""
    done = await asyncio.to_thread(
        subprocess.run,
        ["curl", "-sS", "-H", f"X-API-Key: {api.admin}", *args, api.server.url + path],
        capture_output=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "image.jpg"
    path.write_bytes(b"face 1")
    return path


async def test_match(api: Api) -> None:
    await enrol(api, "Moctar", 1)

    async def match(field: str, data: bytes) -> requests.Response:
        return await asyncio.to_thread(
            requests.post,
            f"{api.server.url}/match",
            files={field: ("frame.jpg", data, "image/jpeg")},
            headers={"X-API-Key": api.admin},
            timeout=5,
        )

    for field in ("image", "file", "frame"):
        assert (await match(field, b"face 1")).json() == {"match": "Moctar"}
    for picture in (b"face 2", b"nobody"):
        assert (await match("image", picture)).json() == {"match": "Unknown"}
    assert (await match("crowd", b"face 1")).status_code == 400
    assert (await match("image", b"no picture")).status_code == 422
    assert api.store.attendance().items == []
    assert api.store.events().items == []


async def test_the_largest_face_that_is_somebody_matches(api: Api) -> None:
    await enrol(api, "Second", 2)
    assert (await api.ask("POST", "/match", data=multipart(("image", b"crowd"))))[1] == {"match": "Second"}


async def test_recognize_faces(api: Api, photo: Path) -> None:
    await enrol(api, "John Doe", 1, "123456")
    assert await curl(api, "/recognize_faces", "-X", "POST", "-F", f"file=@{photo}") == [
        {"Student Name": "John Doe", "ID": "123456"}, {"unknown_faces": 0},
    ]  # fmt: skip
    photo.write_bytes(b"crowd")
    assert await curl(api, "/recognize_faces", "-X", "POST", "-F", f"file=@{photo}") == [
        {"Student Name": "John Doe", "ID": "123456"}, {"unknown_faces": 1},
    ]  # fmt: skip
    photo.write_bytes(b"nobody")
    assert await curl(api, "/recognize_faces", "-X", "POST", "-F", f"file=@{photo}") == [{"unknown_faces": 0}]
    photo.write_bytes(b"no picture")
    assert (await curl(api, "/recognize_faces", "-X", "POST", "-F", f"file=@{photo}"))["error"] == "bad_image"


async def create(api: Api, body: Any) -> tuple[int, Any]:
    status, reply, _ = await api.ask("POST", "/create-student", json=body)
    return status, reply


async def test_create_student(api: Api) -> None:
    made = {"status": "Student created successfully", "student_id": "S-7"}
    student = {"name": "Katya", "id": "S-7", "class": "4b", "marks": {"art": 1, "sum": 10**30}}
    assert await create(api, student) == (200, made)
    assert await create(api, student) == (200, made), "told again, as after a lost reply"
    assert await create(api, {"name": "Ivan", "id": 42}) == (200, made | {"student_id": "42"})
    assert await create(api, {"name": "Olga"}) == (200, made | {"student_id": "olga"})
    assert (await create(api, {"name": "Katya", "id": "S-8"}))[0] == 409, "another student of the same name"
    assert (await create(api, {"name": "Jan", "id": "S-7"}))[0] == 409, "the number of another student"
    assert api.store.student_data("katya") == {"class": "4b", "marks": {"art": 1, "sum": 10**30}}
    api.store.remove("katya")
    assert api.store.student_data("katya") == {}


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", 400), (b"[]", 400), (b"{}", 400), (b'{"name": 7}', 400), (b'{"name": ""}', 400), (b"{" * 9999, 400),
        (b'{"name": "x", "id": []}', 400), (b'{"name": "x", "a": ' + b"[" * 30 + b"]" * 30 + b"}", 400),
        (b'{"name": "x", "a": "' + b"y" * 70_000 + b'"}', 413),
    ],
)  # fmt: skip
async def test_what_is_no_student_is_told(api: Api, data: bytes, status: int) -> None:
    assert (await api.ask("POST", "/create-student", data=data))[0] == status
    assert api.store.people().items == []


def sending(api: Api, **options: Any) -> Any:
    url = api.server.url.replace("http", "ws", 1) + "/ws"
    return websockets.connect(url, additional_headers={"Authorization": f"Bearer {api.admin}"}, **options)


async def told(socket: Any, picture: bytes | str) -> Any:
    await socket.send(picture)
    return json.loads(await asyncio.wait_for(socket.recv(), 5))


async def test_ws_says_who_it_is_and_marks_attendance(api: Api) -> None:
    await create(api, {"name": "Katya", "id": "S-7", "class": "4b"})
    await enrol(api, "Katya", 1)
    async with sending(api) as socket:
        answer = await told(socket, SOI + b"face 1")
        student = {"name": "Katya", "id": "S-7", "class": "4b"}
        assert answer == {"message": "Attendance marked: Katya.", "student_data": student}
        assert await told(socket, SOI + b"face 9") == {"message": "The face is unknown.", "student_data": {}}
        assert (await told(socket, SOI + b"nobody"))["student_data"] == {}
        # The pictures of a camera at the client's follow each other: one visit, one row, as at a camera here.
        for _ in range(3):
            answer = await told(socket, base64.b64encode(SOI + b"face 1").decode())
            assert answer == {"message": "Already marked: Katya.", "student_data": student}
    (row,) = api.store.attendance().items
    assert (row["name"], row["external_id"], row["source"], row["camera"], row["seq"]) == (
        "Katya", "S-7", "upload", None, None,
    )  # fmt: skip
    assert api.store.events().items == [], "no live event"


async def test_each_person_of_a_picture_is_marked(api: Api) -> None:
    await enrol(api, "Katya", 1)
    await enrol(api, "Ivan", 2)
    async with sending(api) as socket:
        answer = await told(socket, SOI + b"crowd")
    assert answer == {"message": "Attendance marked: Katya, Ivan.", "student_data": {"name": "Katya", "id": "katya"}}
    assert {row["name"] for row in api.store.attendance().items} == {"Katya", "Ivan"}


async def test_ws_never_dies_of_a_picture(api: Api) -> None:
    await enrol(api, "Katya", 1)
    async with sending(api) as socket:
        for picture in (
            b"",
            "",
            b"\xff" * 100_000,
            "plain text",
            "data:image/png;base64,@",
            SOI + b"huge",
            SOI + b"heic",
        ):
            answer = await told(socket, picture)
            assert set(answer) == {"message", "student_data"}
            assert answer["message"]
            assert answer["student_data"] == {}
        await socket.send(b"\xff" * (21 << 20))
        assert "20 MiB" in json.loads(await socket.recv())["message"]
        assert (await told(socket, SOI + b"face 1"))["message"] == "Attendance marked: Katya."
    async with sending(api) as socket:
        with suppress(websockets.ConnectionClosed):  # it may be told while it still sends
            await socket.send(b"\xff" * (30 << 20))
        with pytest.raises(websockets.ConnectionClosed):
            await socket.recv()
    assert (await api.ask("GET", "/healthz", None))[0] == 200


async def test_ws_says_when_nothing_can_be_written_and_marks_later(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await enrol(api, "Katya", 1)

    def full(*_args: Any, **_more: Any) -> None:
        raise StoreError("no", reason="the disk is full")

    async with sending(api) as socket:
        monkeypatch.setattr(type(api.store), "mark_attendance", full)
        answer = await told(socket, SOI + b"face 1")
        assert "the disk is full" in answer["message"]
        assert answer["student_data"]["name"] == "Katya"
        monkeypatch.undo()
        assert (await told(socket, SOI + b"face 1"))["message"] == "Attendance marked: Katya."


async def test_ws_is_for_admins_of_the_same_origin_and_bounded(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{api.server.url}/ws"

    async def refused(headers: dict[str, str], query: str = "") -> int:
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await api.session.ws_connect(url + query, headers=headers)
        return error.value.status

    by_admin = {"X-API-Key": api.admin}
    assert await refused({"X-API-Key": api.viewer}) == 403
    assert await refused({}, f"?token={api.viewer}") == 403
    assert await refused({}, f"?token={api.admin}") == 401
    assert await refused(by_admin | {"Origin": "http://evil.example"}) == 403
    monkeypatch.setattr(uploads, "MAX_CLIENTS", 1)
    first = await api.session.ws_connect(url, headers=by_admin | {"Origin": api.server.url})
    assert await refused(by_admin) == 503
    await asyncio.gather(api.server.stop(), first.receive(timeout=3))
    assert first.close_code == 1001


async def test_ws_ends_with_its_token(api: Api) -> None:
    number, token = api.tokens.new("admin")
    socket = await api.session.ws_connect(f"{api.server.url}/ws", headers={"X-API-Key": token})
    api.tokens.revoke(number)
    await asyncio.sleep(1.1)
    await socket.send_bytes(b"face 1")
    await socket.receive(timeout=3)
    assert socket.close_code == 1008


async def test_real_photos(tmp_path: Path, eileen: bytes, grace: bytes) -> None:
    photos = PhotoProcess(settings.Engine(), "error")
    try:
        async with running(tmp_path, photos) as api:
            form = multipart(("name", "Eileen"), ("external_id", "7"), ("image", eileen))
            assert (await api.ask("POST", "/api/v1/people", data=form))[0] == 201
            assert (await api.ask("POST", "/match", data=multipart(("frame", eileen))))[1] == {"match": "Eileen"}
            assert (await api.ask("POST", "/match", data=multipart(("frame", grace))))[1] == {"match": "Unknown"}
            _, body, _ = await api.ask("POST", "/recognize_faces", data=multipart(("file", grace)))
            assert body == [{"unknown_faces": 1}]
            async with sending(api) as socket:
                assert (await told(socket, grace))["student_data"] == {}
                assert (await told(socket, eileen[:5000]))["student_data"] == {}
                assert (await told(socket, eileen))["student_data"] == {"name": "Eileen", "id": "7"}
            assert len(api.store.attendance().items) == 1
    finally:
        await photos.close()
