"""`/login` and `/logout`: a page where a person shows a token once, and has a session from then on."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import logging
import re
from collections.abc import Callable, Mapping
from typing import ParamSpec
from urllib.parse import urlencode

from aiohttp import web

from edge_face.errors import EdgeFaceError, RequestError, StoreError
from edge_face.web import schema
from edge_face.web.auth import Guard
from edge_face.web.forms import read_form
from edge_face.web.replies import Refusal, refusal, reply
from edge_face.web.services import TOKEN, Route, Services
from edge_face.web.sessions import LIFE_S, clear_cookie, set_cookie
from edge_face.web.spec import JSON, Spec, body_of, query_of, texts_of

P = ParamSpec("P")

_log = logging.getLogger(__name__)

PATH = "/login"
HOME = "/docs"
"""Where a login leads when it says nothing else."""
BODY_S = 10.0
"""For the body of a login: anybody may send one."""

_PAGE = Spec("The login page", media=("text/html",), query=schema.LoginQuery)
_LOG_IN = Spec(
    "A token for a session's cookie; a form leads on (303), JSON is answered with JSON",
    schema.LoggedIn,
    form=schema.LoginForm,
    body=schema.Login,
    others={303: None},
    errors=(401, 408, 429),
)
_LOG_OUT = Spec("End the session; leads to the login page", None, 303)

_WORDS: Mapping[str, str] = {
    "unauthorized": "This token is not valid.",
    "missing_field": "Enter a token.",
    "too_many_attempts": "Too many wrong tokens came from this address. Wait a moment, then try again.",
    "too_many_logins": "This token has logged in too often. Wait a moment, then try again.",
    "storage_unavailable": "The database cannot be used at present. Try again later.",
}
_OTHER = "That did not work. Try again."

# Printable ASCII that names a path of this server. Browsers take a backslash for a slash, drop line ends and tabs, and
# two slashes begin the name of another server.
_LOCAL_PATH = re.compile(r"/(?!/)[!-\[\]-~]{0,2000}")

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 15vh auto 0; max-width: 24rem; padding: 0 1rem; color: #1c1e21;
  background: #fff }
label, input, button { display: block; width: 100%; box-sizing: border-box; font: inherit }
input, button { padding: .6rem; margin: .25rem 0 1rem; border: 1px solid #767676; border-radius: .25rem }
input { color: inherit; background: transparent } button { color: #fff; background: #0b57d0; border-color: #0b57d0 }
[role=alert] { border-left: .25rem solid #c5221f; padding-left: .75rem; font-weight: 600 }
code { font-size: .9em }
@media (prefers-color-scheme: dark) { body { color: #e4e6eb; background: #18191a } }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; img-src data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    # Not no-referrer, with which browsers would name the origin of the form as "null".
    "Referrer-Policy": "same-origin",
}


class LoginApi:
    def __init__(self, guard: Guard, services: Services) -> None:
        self._guard = guard
        self._services = services

    def routes(self) -> list[Route]:
        return [
            Route("GET", PATH, self.show, None, _PAGE),
            Route("POST", PATH, self.log_in, None, _LOG_IN),
            Route("POST", "/logout", self.log_out, "viewer", _LOG_OUT),
        ]

    async def show(self, request: web.Request) -> web.Response:
        query = query_of(request, schema.LoginQuery)
        return web.Response(text=page(query.next, query.error), content_type="text/html", headers=_HEADERS)

    async def log_in(self, request: web.Request) -> web.Response:
        said = schema.LoginForm("")
        try:
            said = await _read(request)
            session, role = await self._guard.log_in(said.token, request)
        except EdgeFaceError as error:
            answer = refusal(error, request)
            if answer.status == 401:  # not 429, of which there may be any number
                _log.warning("a login from %s failed: %s", request.remote, answer.message)
                await self._account(self._services.store.note_failed_login, request.remote or "")
            if request.content_type == JSON or "text/html" not in request.headers.get("Accept", ""):
                raise answer from None
            # A person at the form: the same page again, with the reason in words.
            return _lead_to(f"{PATH}?{urlencode({'error': answer.code, 'next': local_path(said.next)})}")
        _log.info("a login from %s with %s token", request.remote, "an admin's" if role == "admin" else "a viewer's")
        await self._account(self._services.store.note_login, request.remote or "", role)
        if request.content_type == JSON:
            response = reply(schema.LoggedIn(role, LIFE_S))
        else:
            response = _lead_to(local_path(said.next))
        set_cookie(response, session, secure=request.secure)
        return response

    async def _account(self, note: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
        """Into the audit. A disk that fails is no reason to keep an administrator out."""
        try:
            await self._services.thread.run(note, *args, **kwargs)
        except StoreError as error:
            _log.error("a login could not be written down: %s", error)

    async def log_out(self, request: web.Request) -> web.Response:
        """Whoever came with a token and no session has none to end, and hears the same."""
        self._guard.sessions.end(request[TOKEN])
        response = _lead_to(PATH)
        clear_cookie(response, secure=request.secure)
        return response


async def _read(request: web.Request) -> schema.LoginForm:
    """Raises RequestError, Refusal (408, 413, 415)."""
    try:
        async with asyncio.timeout(BODY_S):
            if request.content_type == JSON:
                said = schema.LoginForm((await body_of(request, schema.Login)).token)
            else:
                said = texts_of((await read_form(request)).texts, schema.LoginForm)
    except TimeoutError:
        raise Refusal(408, "request_timeout", "The request's body took too long.") from None
    said.token = said.token.strip()
    if not said.token:
        raise RequestError("The field token is empty.", "missing_field")
    return said


def _lead_to(path: str) -> web.Response:
    return web.Response(status=303, headers={"Location": path})


def local_path(wanted: str | None) -> str:
    """`wanted` if it is a path of this server: a login must not lead to another site."""
    return wanted if wanted and _LOCAL_PATH.fullmatch(wanted) else HOME


def page(wanted: str | None = None, error: str | None = None) -> str:
    alert, title, described = "", "Log in", ""
    if error:
        alert = f'<p role="alert" id="error">{_WORDS.get(error, _OTHER)}</p>'
        title, described = "Error: log in", ' aria-describedby="error" aria-invalid="true"'
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title} - edge-face</title>'
        '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
        f"<style>{_STYLE}</style><main><h1>edge-face</h1>{alert}"
        f'<form method="post" action="{PATH}">'
        '<label for="token">Token</label>'
        '<input id="token" name="token" type="password" autocomplete="current-password" autocapitalize="none" '
        f'spellcheck="false" required autofocus{described}>'
        f'<input type="hidden" name="next" value="{html.escape(local_path(wanted))}">'
        "<button>Log in</button></form>"
        "<p>On the box itself, <code>edge-face token</code> prints one.</p></main></html>"
    )
