"""Who may do what: every route, with and without tokens, of every kind."""

from __future__ import annotations

import asyncio
import base64
import io
import re
import time
import zipfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest

from edge_face.store import Changes
from edge_face.web.auth import CACHE_S, Delays, Logins
from edge_face.web.sessions import COOKIE
from tests.support.api import Api, running

ADMIN_ONLY = [
    ("POST", "/register"),
    ("POST", "/unregister"),
    ("POST", "/register-faces"),
    ("POST", "/process-frame/"),
    ("POST", "/process-frame"),
    ("POST", "/api/v1/reload"),
    ("GET", "/api/v1/people/{id}/export"),
    ("POST", "/api/v1/people"),
    ("POST", "/api/v1/people/batch"),
    ("POST", "/api/v1/recognize"),
    ("POST", "/api/v1/cameras/front/pause"),
    ("POST", "/api/v1/cameras/front/resume"),
    ("POST", "/api/v1/cameras/front/enroll"),
    ("GET", "/api/v1/unknowns"),
    ("GET", "/api/v1/unknowns/katya"),
    ("GET", "/api/v1/unknowns/katya/face.jpg"),
    ("POST", "/api/v1/unknowns/katya"),
    ("DELETE", "/api/v1/unknowns/katya"),
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
    ("POST", "/logout"),
    ("GET", "/openapi.json"),
    ("GET", "/docs"),
    ("GET", "/ws/face-stream"),
]
OPEN = [("GET", "/healthz"), ("GET", "/login"), ("POST", "/login")]


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as api:
        yield api


async def test_every_route_has_the_role_of_the_tables(api: Api) -> None:
    declared = {(each.method, each.declared): each.role for each in await operations(api)}
    assert declared == {
        **{(method, _as_declared(path)): "admin" for method, path in ADMIN_ONLY},
        **{(method, _as_declared(path)): "viewer" for method, path in VIEWERS_TOO},
        **dict.fromkeys(OPEN),
    }


def _as_declared(path: str) -> str:
    path = path.partition("?")[0].replace("/faces/1", "/faces/{face_id}")
    return path.replace("katya", "{id}").replace("/front/", "/{id}/")


@dataclass(frozen=True)
class Operation:
    """What the document says of one method of one path."""

    method: str
    declared: str
    path: str
    role: str | None
    takes_query: bool
    websocket: bool

    @property
    def writes(self) -> bool:
        return self.method != "GET"

    def asks(self, role: str | None) -> int | None:
        """What somebody with `role` hears; None: they are let in."""
        if self.role is None or self.role == role or role == "admin":
            return None
        return 401 if role is None else 403

    async def knock(self, api: Api, headers: dict[str, str], token: str | None = None) -> int | None:
        """401 or 403; None: let in, to hear then that a form or a person is missing."""
        # The streams have no end: of a camera that is not there they are answered with 404.
        url = f"{api.server.url}{self.path}?camera=none" + (f"&token={token}" if token else "")
        status = 101
        if self.websocket:
            try:
                await (await api.session.ws_connect(url, headers=headers)).close()
            except aiohttp.WSServerHandshakeError as error:
                status = error.status
        else:
            options: Any = {"headers": headers, "allow_redirects": False}
            async with api.session.request(self.method, url, **options) as answer:
                status = answer.status
                if status >= 400:
                    assert set(await answer.json()) - {"success"} == {"error", "message"}, self
                if status == 401:
                    assert answer.headers["WWW-Authenticate"].startswith("Bearer"), self
        return status if status in (401, 403) else None


async def operations(api: Api) -> list[Operation]:
    _, document, _ = await api.ask("GET", "/openapi.json", "viewer")
    found = [
        Operation(
            method.upper(),
            path,
            re.sub(r"{\w+}", "1", path),
            said.get("x-role"),
            {"token": []} in said["security"],
            "101" in said["responses"],
        )
        for path, methods in document["paths"].items()
        for method, said in methods.items()
    ]
    # Not in the document, as it is the same as the one with a slash.
    return [*found, Operation("POST", "/process-frame", "/process-frame", "admin", False, False)]


async def session_of(api: Api, token: str) -> dict[str, str]:
    status, _, answer = await api.ask("POST", "/login", None, json={"token": token})
    assert status == 200
    return {"Cookie": f"{COOKIE}={answer.cookies[COOKIE].value}"}


async def test_every_route_of_the_document_opens_to_whom_it_should(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """By all ways to show who one is, and with origins and hosts of others. A new route is walked, too."""
    monkeypatch.setattr(Delays, "LONGEST_S", 0.001)
    monkeypatch.setattr(Logins, "MOST", 1000)  # it logs in for each route anew
    revoked_id, revoked = api.tokens.new("admin")
    revoked_session = await session_of(api, revoked)
    assert (await api.ask("GET", "/faces", revoked))[0] == 200
    api.tokens.revoke(revoked_id)
    ends_at = time.monotonic() + CACHE_S

    bearer = {"Authorization": f"Bearer {api.admin}"}
    basic = {"Authorization": "Basic " + base64.b64encode(f"anybody:{api.admin}".encode()).decode()}
    own, foreign = {"Origin": api.server.url}, {"Origin": "http://evil.example"}
    host = {"Host": "evil.example"}
    wrong: list[str] = []
    walked = await operations(api)
    assert len(walked) > 35

    for each in walked:

        async def check(
            what: str, headers: dict[str, str], expected: int | None, token: str | None = None, at: Operation = each
        ) -> None:
            heard = await at.knock(api, headers, token)
            if heard != expected:
                wrong.append(f"{at.method} {at.path} {what}: {heard}, not {expected}")

        async def as_admin() -> dict[str, str]:
            return await session_of(api, api.admin)  # a new one each time, as /logout ends it

        refused_page = 403 if each.writes or each.websocket or each.takes_query else None
        refused_socket = 403 if each.takes_query else None
        refused_login = 403 if each.declared == "/login" and each.writes else None

        await check("with nothing", {}, each.asks(None))
        await check("of a viewer", {"X-API-Key": api.viewer}, each.asks("viewer"))
        await check("of an admin", bearer, None)
        await check("by Basic", basic, None)
        await check("by Basic, of its own page", basic | own, None)
        await check("by Basic, of a foreign page", basic | foreign, refused_page)
        await check("of a foreign page with a header", bearer | foreign, refused_socket or refused_login)
        await check("of a foreign page with nothing", foreign, refused_login or each.asks(None))
        await check("with a viewer's session", await session_of(api, api.viewer) | own, each.asks("viewer"))
        await check("with a session", await as_admin() | own, None)
        no_origin = 403 if each.writes and each.role else None
        await check("with a session and no origin", await as_admin(), no_origin)
        await check("with a session, of a foreign page", await as_admin() | foreign, refused_page)
        await check("with a session's id as a token", {"X-API-Key": (await as_admin())["Cookie"][len(COOKIE) + 1 :]},
                    each.asks(None))  # fmt: skip
        for credential in ({}, bearer, await as_admin()):
            await check("by a foreign name", credential | host, 403)
        in_query = each.asks("viewer") if each.takes_query else each.asks(None)
        await check("of a viewer by the address", {}, in_query, api.viewer)
        await check("of an admin by the address", {}, each.asks(None), api.admin)
        _, made, _ = await api.ask("POST", "/api/v1/tickets", "admin")
        await check("with an admin's ticket", {}, in_query, made["ticket"])

    await asyncio.sleep(ends_at - time.monotonic())
    for each in walked:
        for what, headers in (("token", {"X-API-Key": revoked}), ("session", revoked_session | own)):
            heard = await each.knock(api, headers)
            if heard != each.asks(None):
                wrong.append(f"{each.method} {each.path} with a revoked {what}: {heard}")
    assert not wrong, "\n".join(wrong)


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


def _form(*fields: tuple[str, bytes]) -> bytes:
    return b"".join(_part(name, value) for name, value in fields) + b"--b--\r\n"


def _part(name: str, value: bytes) -> bytes:
    file = "" if name == "name" else '; filename="x"'
    return f'--b\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + value + b"\r\n"


def _zip(name: str) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, b"\xff\xd8face 9")
    return file.getvalue()


@pytest.mark.parametrize(
    ("method", "path", "kind", "body"),
    [
        ("POST", "/register", "multipart/form-data; boundary=b", _form(("name", b"Mallory"), ("image", b"face 9"))),
        ("POST", "/api/v1/people/batch", "multipart/form-data; boundary=b", _form(("zip", _zip("Mallory.jpg")))),
        ("PATCH", "/api/v1/people/katya", "application/json", b'{"blocked": false}'),
    ],
    ids=["form", "zip", "json"],
)
async def test_a_token_that_is_revoked_while_a_body_comes_changes_nothing(
    api: Api, method: str, path: str, kind: str, body: bytes
) -> None:
    """Else whoever has stolen one keeps some requests open, and enrols somebody after it was revoked."""
    api.store.add_faces("Katya", [np.zeros(128, np.float32)])
    api.store.update_person("katya", Changes(blocked=True))
    number, token = api.tokens.new("admin")
    for revoked in (False, True):
        async with asyncio.timeout(10):

            async def slow(revoke: bool = revoked) -> AsyncIterator[bytes]:
                yield body[:10]
                if revoke:
                    await asyncio.sleep(0.1)  # until it is let in
                    api.tokens.revoke(number)
                    await asyncio.sleep(CACHE_S)
                yield body[10:]

            status, said, _ = await api.ask(method, path, token, headers={"Content-Type": kind}, data=slow())
        people = {person.name: person.blocked for person in api.store.people().items}
        if revoked:
            assert (status, said["error"]) == (401, "unauthorized")
            assert people == {"Katya": True}
        else:
            assert status < 300, said
            assert people in ({"Katya": False}, {"Katya": True, "Mallory": False})
            if "Mallory" in people:
                api.store.remove("Mallory")
            api.store.update_person("katya", Changes(blocked=True))
