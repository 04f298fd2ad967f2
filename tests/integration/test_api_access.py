"""Who may do what: every route, with and without tokens, of every kind."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from edge_face.web.auth import CACHE_S, Delays
from tests.support.api import Api, running

ADMIN_ONLY = [
    ("POST", "/register"),
    ("POST", "/unregister"),
    ("POST", "/register-faces"),
    ("POST", "/process-frame/"),
    ("POST", "/process-frame"),
    ("POST", "/api/v1/people"),
    ("POST", "/api/v1/people/batch"),
    ("POST", "/api/v1/recognize"),
    ("POST", "/api/v1/cameras/front/pause"),
    ("POST", "/api/v1/cameras/front/resume"),
    ("POST", "/api/v1/cameras/front/enroll"),
    ("PATCH", "/api/v1/people/katya"),
    ("DELETE", "/api/v1/people/katya"),
    ("POST", "/api/v1/people/katya/faces"),
    ("DELETE", "/api/v1/people/katya/faces/1"),
    ("POST", "/match"),
    ("POST", "/recognize_faces"),
    ("POST", "/create-student"),
    ("GET", "/ws"),
]
VIEWERS_TOO = [
    ("GET", "/faces"),
    ("GET", "/api/v1/status"),
    ("GET", "/metrics"),
    ("GET", "/api/v1/people"),
    ("GET", "/api/v1/cameras"),
    ("GET", "/api/v1/cameras/front/snapshot.jpg"),
    ("GET", "/api/v1/people/katya"),
    ("GET", "/api/v1/people/katya/faces/1/thumbnail.jpg"),
    ("GET", "/api/v1/events"),
    ("GET", "/api/v1/attendance"),
    ("GET", "/api/v1/attendance/days"),
    ("GET", "/student_attendance"),
    ("GET", "/hash"),
    ("GET", "/streaming?camera=none"),  # of one that is there it has no end
    ("POST", "/api/v1/tickets"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/ws/face-stream"),
]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as api:
        yield api


def test_every_route_is_in_the_tables(tmp_path: Path) -> None:
    async def declared() -> set[tuple[str, str]]:
        async with running(tmp_path) as api:
            routes = api.server._app.router.routes()
            return {(route.method, route.resource.canonical) for route in routes if route.resource}

    assert asyncio.run(declared()) == {
        *((method, _as_declared(path.partition("?")[0])) for method, path in ADMIN_ONLY + VIEWERS_TOO),
        ("GET", "/healthz"),
        ("HEAD", "/healthz"),
    }


def _as_declared(path: str) -> str:
    return path.replace("katya", "{id}").replace("/front/", "/{id}/").replace("/faces/1", "/faces/{face_id}")


@pytest.mark.parametrize(("method", "path"), ADMIN_ONLY + VIEWERS_TOO)
async def test_who_may_do_what(api: Api, method: str, path: str) -> None:
    # As requests that are allowed go on to the form or the person that is missing, they end otherwise.
    status, body, answer = await api.ask(method, path, None)
    assert (status, body["error"]) == (401, "unauthorized")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert "message" in body

    status, body, _ = await api.ask(method, path, "viewer")
    assert (status == 403) == ((method, path) in ADMIN_ONLY)

    status, _, _ = await api.ask(method, path, "admin")
    assert status not in (401, 403)

    basic = {"Authorization": "Basic " + base64.b64encode(f"anybody:{api.admin}".encode()).decode()}
    foreign = {"Origin": "http://evil.example"}
    status, _, _ = await api.ask(method, path, None, headers=basic | foreign)
    assert (status == 403) == (method != "GET" or path.startswith(("/ws", "/streaming")))
    status, _, _ = await api.ask(method, path, None, headers=basic | {"Origin": api.server.url})
    assert status not in (401, 403)


async def test_a_revoked_token_ends_everywhere_within_a_second(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Delays, "LONGEST_S", 0.01)
    assert (await api.ask("GET", "/faces", "viewer"))[0] == 200
    api.tokens.revoke(api.viewer_id)
    await asyncio.sleep(CACHE_S + 0.05)
    for method, path in ADMIN_ONLY + VIEWERS_TOO:
        status, body, _ = await api.ask(method, path, "viewer")
        assert (status, body["error"]) == (401, "unauthorized")


@pytest.mark.parametrize("header", ["X-API-Key", "Authorization"])
async def test_each_way_to_show_a_token(api: Api, header: str) -> None:
    value = api.viewer if header == "X-API-Key" else "Basic " + base64.b64encode(f":{api.viewer}".encode()).decode()
    assert (await api.ask("GET", "/faces", None, headers={header: value}))[0] == 200
    assert (await api.ask("GET", f"/faces?token={api.viewer}", None))[0] == 401


async def test_wrong_tokens_wait_and_right_ones_from_the_same_address_do_not(api: Api) -> None:
    started = time.monotonic()
    guesses = [asyncio.create_task(api.ask("GET", "/faces", f"ef_wrong{n}")) for n in range(3)]
    await asyncio.sleep(0.1)
    for _ in range(5):
        assert (await api.ask("GET", "/faces", "viewer"))[0] == 200
        assert (await api.ask("GET", "/faces", None))[0] == 401
    assert time.monotonic() - started < 0.45
    assert [(await guess)[0] for guess in guesses] == [401] * 3
    assert time.monotonic() - started >= 2.0  # 0.5, 1 and 2 s


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("localhost:9", True), ("127.9.9.9", True), ("[::1]:5000", True), ("evil.example", False),
     ("127.0.0.1.evil.example", False), ("a@localhost", False)],
)  # fmt: skip
async def test_a_local_server_answers_to_local_names_only(api: Api, host: str, allowed: bool) -> None:
    assert (await api.ask("GET", "/faces", headers={"Host": host}))[0] == (200 if allowed else 403)
