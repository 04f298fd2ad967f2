"""The login page and its sessions, over real connections."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import logging
import re
import time
from collections.abc import AsyncIterator
from http.cookies import Morsel
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import requests

from edge_face.web import stream
from edge_face.web.auth import CACHE_S, Delays, Logins
from edge_face.web.login import HOME
from edge_face.web.sessions import COOKIE
from tests.support.api import Api, multipart, running
from tests.support.daemon import Daemon, edge_face, write_config

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    async with running(tmp_path) as api:
        yield api


async def post(api: Api, headers: dict[str, str] | None = None, **what: Any) -> tuple[int, Any, aiohttp.ClientResponse]:
    headers = {"Origin": api.server.url} | (headers or {})
    return await api.ask("POST", "/login", None, headers=headers, allow_redirects=False, **what)


def cookie(answer: aiohttp.ClientResponse) -> dict[str, str]:
    return {"Cookie": f"{COOKIE}={answer.cookies[COOKIE].value}"}


async def test_the_page_works_without_scripts_and_says_what_its_field_is(api: Api) -> None:
    status, body, answer = await api.ask("GET", "/login?next=/api/v1/people", None)
    page = body.decode()
    assert status == 200
    assert answer.content_type == "text/html"
    assert re.search(r'<html lang="en">.*<title>Log in.*</title>.*<main><h1>', page, re.DOTALL)
    assert '<label for="token">Token</label><input id="token" name="token" type="password"' in page
    assert "required autofocus>" in page
    assert 'name="next" value="/api/v1/people"' in page
    assert 'role="alert"' not in page
    assert "<script" not in page
    assert "://" not in page, "nothing comes from elsewhere"
    policy = answer.headers["Content-Security-Policy"]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style
    hashed = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{hashed}'" in policy
    for rule in ("default-src 'none'", "form-action 'self'", "frame-ancestors 'none'", "base-uri 'none'"):
        assert rule in policy
    assert answer.headers["Cache-Control"] == "no-store"
    # With no-referrer a browser would send "Origin: null" with the form.
    assert answer.headers["Referrer-Policy"] == "same-origin"


@pytest.mark.parametrize(
    ("wanted", "leads_to"), [(None, HOME), ("/api/v1/status", "/api/v1/status"), ("//evil.example", HOME)]
)
async def test_a_form_leads_on_with_a_cookie(api: Api, wanted: str | None, leads_to: str) -> None:
    fields = {"token": f" {api.viewer}\r\n"} | ({"next": wanted} if wanted else {})
    for data in (fields, multipart(*fields.items())):
        status, _, answer = await post(api, BROWSER, data=data)
        assert (status, answer.headers["Location"]) == (303, leads_to)
        status, _, _ = await api.ask("GET", leads_to, None, headers=cookie(answer))
        assert status == 200
        morsel: Morsel[str] = answer.cookies[COOKIE]
        assert api.viewer not in morsel.value
        assert (morsel["httponly"], morsel["samesite"], morsel["path"], morsel["domain"]) == (True, "Strict", "/", "")
        assert morsel["max-age"] == morsel["expires"] == "", "it ends with the browser"
        assert not morsel["secure"], "served without TLS it would not come back"


async def test_json_is_answered_with_json(api: Api) -> None:
    status, body, answer = await post(api, json={"token": api.admin})
    assert (status, body) == (200, {"role": "admin", "expires_in_s": 12 * 3600.0})
    assert (await api.ask("GET", "/faces", None, headers=cookie(answer)))[0] == 200
    for wrong in ({}, {"token": 1}, {"token": ""}, {"token": " "}, [], None):
        assert (await post(api, json=wrong))[0] == 400
    assert (await post(api, data=b"{", headers={"Content-Type": "application/json"}))[0] == 400
    assert (await post(api, data=b"x", headers={"Content-Type": "text/plain"}))[0] == 415
    assert (await post(api, json={"token": "x" * 100_000}))[0] == 413


async def test_a_wrong_token_is_401_and_in_words_on_the_page(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Delays, "LONGEST_S", 0.01)
    _, made, _ = await api.ask("POST", "/api/v1/tickets")
    _, _, answer = await post(api, json={"token": api.admin})
    session = answer.cookies[COOKIE].value
    for wrong in ("ef_wrong", "Катя", made["ticket"], session):
        for how in ({"json": {"token": wrong}}, {"data": {"token": wrong}}):
            status, body, answer = await post(api, **how)  # type: ignore[arg-type]
            assert (status, body["error"]) == (401, "unauthorized")
            assert COOKIE not in answer.cookies
            assert "Basic" not in answer.headers["WWW-Authenticate"], "a browser would ask in a window of its own"
    status, _, answer = await post(api, BROWSER, data={"token": "ef_wrong", "next": "/faces"})
    assert status == 303
    assert COOKIE not in answer.cookies
    _, body, _ = await api.ask("GET", answer.headers["Location"], None)
    page = body.decode()
    assert '<p role="alert" id="error">This token is not valid.</p>' in page
    assert 'aria-describedby="error"' in page
    assert "<title>Error: log in" in page
    assert 'value="/faces"' in page, "the next try still leads there"
    _, _, answer = await post(api, BROWSER, data={"token": " "})
    assert "Enter a token." in (await api.ask("GET", answer.headers["Location"], None))[1].decode()


async def test_wrong_logins_wait_like_other_wrong_tokens_and_right_ones_do_not(api: Api) -> None:
    started = time.monotonic()
    guesses = [asyncio.create_task(post(api, data={"token": f"ef_{n}"})) for n in range(2)]
    guesses.append(asyncio.create_task(api.ask("GET", "/faces", "ef_wrong")))
    await asyncio.sleep(0.1)
    for _ in range(5):
        assert (await post(api, data={"token": api.viewer}))[0] == 303
        assert (await api.ask("GET", "/login", None))[0] == 200
        # A browser goes on sending the cookie of a session that is over.
        status, body, answer = await api.ask("GET", "/faces", None, headers={"Cookie": f"{COOKIE}=es_over"})
        assert (status, body["error"]) == (401, "unauthorized")
        assert "Basic" not in answer.headers["WWW-Authenticate"]
    assert time.monotonic() - started < 0.45
    await asyncio.gather(*guesses)
    assert time.monotonic() - started >= 2.0  # 0.5, 1 and 2 s


async def test_a_token_that_logs_in_again_and_again_fills_no_audit(api: Api) -> None:
    """Each login is written to the disk: events would wait, and all else would be pushed out of the audit."""
    answers = [await post(api, json={"token": api.viewer}) for _ in range(Logins.MOST + 3)]
    assert [status for status, _, _ in answers] == [200] * Logins.MOST + [429] * 3
    assert answers[-1][1]["error"] == "too_many_logins"
    assert 0 < int(answers[-1][2].headers["Retry-After"]) <= Logins.SPAN_S
    assert sum(row["what"] == "login" for row in api.store.audit_rows()) == Logins.MOST
    assert (await post(api, json={"token": api.admin}))[0] == 200, "another one's logins are another matter"
    _, _, answer = await post(api, BROWSER, data={"token": api.viewer})
    assert "logged in too often" in (await api.ask("GET", answer.headers["Location"], None))[1].decode()


async def test_logins_are_logged_without_the_token(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Delays, "LONGEST_S", 0.01)
    caplog.set_level(logging.DEBUG)
    await post(api, data={"token": "ef_wrong"})
    _, _, answer = await post(api, data={"token": api.admin})
    said = [(each.levelname, each.message) for each in caplog.records if "login" in each.message]
    assert said == [
        ("WARNING", "a login from 127.0.0.1 failed: This token is not valid."),
        ("INFO", "a login from 127.0.0.1 with an admin's token"),
    ]
    for secret in ("ef_wrong", api.admin, answer.cookies[COOKIE].value):
        assert secret not in caplog.text


async def test_logout_ends_the_session_and_what_it_opened(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "RECHECK_S", 0.05)
    own = {"Origin": api.server.url}
    _, _, answer = await post(api, json={"token": api.viewer})
    session = cookie(answer)
    _, made, _ = await api.ask("POST", "/api/v1/tickets", None, headers=session | own)
    viewers = [
        await api.session.ws_connect(api.stream_url, headers=session | own),
        await api.session.ws_connect(f"{api.stream_url}?token={made['ticket']}"),
    ]
    await asyncio.sleep(0.2)
    assert all(not viewer.closed for viewer in viewers)
    status, _, answer = await api.ask("POST", "/logout", None, headers=session | own, allow_redirects=False)
    assert (status, answer.headers["Location"]) == (303, "/login")
    assert answer.cookies[COOKIE].value == ""
    assert answer.cookies[COOKIE]["max-age"] == "0"
    assert (await api.ask("GET", "/faces", None, headers=session))[0] == 401
    for viewer in viewers:
        assert (await viewer.receive(timeout=3)).type is aiohttp.WSMsgType.CLOSE
        assert viewer.close_code == 1008
    assert (await api.ask("GET", "/faces", "viewer"))[0] == 200, "the token stays good"
    assert (await api.ask("POST", "/logout", "viewer", allow_redirects=False))[0] == 303


async def test_a_token_beside_the_cookie_comes_first(api: Api) -> None:
    _, _, answer = await post(api, json={"token": api.admin})
    assert (await api.ask("POST", "/match", "viewer", headers=cookie(answer)))[0] == 403
    for rubbish in ("", "x", "es_", "=;;,", f"{COOKIE}={api.admin}"):
        assert (await api.ask("GET", "/faces", None, headers={"Cookie": rubbish}))[0] == 401


async def test_a_body_that_never_ends_is_given_up(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_face.web.login.BODY_S", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", api.server.port)
    writer.write(
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    )
    assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 408")
    writer.close()


def test_a_daemons_session_ends_with_its_token_and_with_the_daemon(tmp_path: Path) -> None:
    """The token is made and revoked by commands while the daemon runs."""
    config = write_config(tmp_path, {"camera": {"source": "/dev/video-that-is-not-there"}})
    token = edge_face("token", "--new", "--role", "viewer", config=config).stdout.strip()
    with Daemon(config) as daemon, requests.Session() as browser, requests.Session() as admin:
        daemon.wait_for("failed")
        login = f"{daemon.url}/login"
        answer = browser.post(login, data={"token": token, "next": "/faces"}, headers={"Origin": daemon.url})
        assert (answer.status_code, answer.url, answer.json()) == (200, f"{daemon.url}/faces", [])
        assert admin.post(login, json={"token": daemon.token}).json()["role"] == "admin"
        listed = edge_face("token", "--list", config=config).stdout
        number = next(line.split("\t")[0] for line in listed.splitlines() if "\tviewer\t" in line)
        assert browser.get(f"{daemon.url}/faces").status_code == 200
        assert edge_face("token", "--revoke", number, config=config).returncode == 0
        time.sleep(CACHE_S)
        assert browser.get(f"{daemon.url}/faces").status_code == 401
        assert admin.get(f"{daemon.url}/faces").status_code == 200
        assert daemon.end()[0] == 0
        log = daemon.log
    assert "a login from 127.0.0.1 with a viewer's token" in log
    assert token not in log
    with Daemon(config) as daemon:
        daemon.wait_for("failed")
        assert admin.get(f"{daemon.url}/faces").status_code == 401
