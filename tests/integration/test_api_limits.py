"""One more than there may be of each, by real clients: it is told so, and the others are served."""

from __future__ import annotations

import asyncio
import io
import json
import time
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from edge_face.store import Store
from edge_face.web import people, spec, stream, uploads
from edge_face.zips import MAX_MEMBERS
from tests.support import publishing
from tests.support.api import SOI, Api, encoding, multipart, running, view


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as api:
        yield api


async def test_viewers(api: Api) -> None:
    """As many as there may be, each of which gets its frame."""
    by_viewer = {"X-API-Key": api.viewer}
    viewers = [await api.session.ws_connect(api.stream_url, headers=by_viewer) for _ in range(stream.MAX_VIEWERS)]
    status, body, answer = await api.ask("GET", "/ws/face-stream", "viewer", headers=_upgrade())
    assert (status, body["error"], answer.headers["Retry-After"]) == (503, "too_many_viewers", "5")
    api.views.send(view())
    for viewer in viewers:
        assert "Katya" in await viewer.receive_str(timeout=5)
    await viewers[0].close()
    await asyncio.sleep(0.1)
    await api.session.ws_connect(api.stream_url, headers=by_viewer)


async def test_clients_that_send_pictures(api: Api) -> None:
    by_admin = {"X-API-Key": api.admin}
    clients = [
        await api.session.ws_connect(f"{api.server.url}/ws", headers=by_admin) for _ in range(uploads.MAX_CLIENTS)
    ]
    status, body, _ = await api.ask("GET", "/ws", headers=_upgrade())
    assert (status, body["error"]) == (503, "too_many_clients")
    for client in clients:
        await client.send_bytes(SOI + b"nobody")
        assert (await client.receive_json(timeout=5))["message"] == "No face was found."


def _upgrade() -> dict[str, str]:
    key = {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==", "Sec-WebSocket-Version": "13"}
    return {"Upgrade": "websocket", "Connection": "Upgrade", **key}


async def test_requests_with_photos(api: Api) -> None:
    over = asyncio.Event()

    async def slow() -> AsyncIterator[bytes]:
        yield b"--b\r\n"
        await over.wait()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        headers = {"X-API-Key": api.admin, "Content-Type": "multipart/form-data; boundary=b"}
        url = f"{api.server.url}/register"
        crowd = [
            asyncio.create_task(session.post(url, data=slow(), headers=headers))
            for _ in range(people.AT_ONCE + people.WAITING)
        ]
        await asyncio.sleep(0.5)
        status, body, answer = await api.ask("POST", "/match", data=multipart(("image", SOI + b"nobody")))
        assert (status, body["error"]) == (429, "busy")
        assert answer.headers["Retry-After"]
        over.set()
        assert [each.status for each in await asyncio.gather(*crowd)] == [400] * len(crowd)
    status, body, _ = await api.ask("POST", "/match", data=multipart(("image", SOI + b"nobody")))
    assert (status, body) == (200, {"match": "Unknown"})


async def test_files_in_a_zip(api: Api) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for number in range(MAX_MEMBERS + 1):
            archive.writestr(f"{number}.jpg", b"")
    for path in ("/api/v1/people/batch", "/register-faces"):
        status, body, _ = await api.ask("POST", path, data=multipart(("zip", out.getvalue())))
        assert (status, body["error"]) == (400, "too_many_files")


@pytest.mark.parametrize(("method", "path"), [("POST", "/create-student"), ("PATCH", "/api/v1/people/katya")])
async def test_a_json_body(api: Api, method: str, path: str) -> None:
    status, body, _ = await api.ask(method, path, data=b" " * (spec.MAX_JSON_BYTES + 1))
    assert (status, body["error"]) == (413, "too_large")


def a_long_history(store: Store, events: int = 20_000, people: int = 8000) -> None:
    """So that whoever looks for what is not in it keeps the disk busy for a while."""
    body = json.dumps(publishing.event("Katya").payload())
    with store.writing() as db:
        db.executemany(
            "INSERT INTO events VALUES (?, ?, 'front', 'PASS', 'katya', 'Katya', ?, 'boot', 1.0, 1)",
            ((seq, 1.7e9 + 300 * seq, body) for seq in range(1, events + 1)),
        )
        db.execute("UPDATE counters SET value = ? WHERE name = 'seq'", (events,))
        db.executemany(
            "INSERT INTO people (id, name, created_at) VALUES (?, ?, 1.0)",
            ((f"p{number}", f"Person {number}") for number in range(people)),
        )


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/events?camera=nosuch",
        "/api/v1/attendance?person=nosuch",
        "/api/v1/attendance/days?limit=1000",
        "/api/v1/people?q=nosuch",
        "/faces",
    ],
)
async def test_whoever_searches_long_lists_holds_up_no_event(api: Api, path: str) -> None:
    """A PASS that waited for a dozen viewers' searches would be over before it is told."""
    a_long_history(api.store)
    asked = [asyncio.create_task(api.ask("GET", path, "viewer")) for _ in range(12)]
    while not any(task.done() for task in asked):  # so that the others wait for their turn
        await asyncio.sleep(0)
    await api.thread.run(api.store.record, publishing.event("Katya"))
    before = sum(task.done() and task.result()[0] == 200 for task in asked)
    answers = [status for status, _, _ in await asyncio.gather(*asked)]
    assert set(answers) <= {200, 429}
    assert 5 <= answers.count(200) > before, "the event had to wait for all of them"


@pytest.mark.parametrize("path", ["/api/v1/events", "/api/v1/events?format=csv", "/api/v1/people", "/faces"])
async def test_a_list_holds_what_was_written_before_it_was_asked_for(api: Api, path: str) -> None:
    """Also when the disk is slow: the stream has shown the PASS already."""

    def slowly() -> None:
        time.sleep(0.3)
        api.store.record(publishing.event("Katya"))
        api.store.add_faces("Katya", [encoding(1)])

    assert (await api.ask("GET", path, "viewer"))[0] == 200  # so its token is known without the disk
    writing = asyncio.create_task(api.thread.run(slowly))
    await asyncio.sleep(0.05)
    body = (await api.ask("GET", path, "viewer"))[1]
    assert "Katya" in (body.decode() if isinstance(body, bytes) else str(body))
    await writing
