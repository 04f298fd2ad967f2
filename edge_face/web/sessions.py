"""Sessions of the login page: what a browser's cookie holds instead of a token."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from aiohttp import web

from edge_face.clock import Clock
from edge_face.tokens import digest

COOKIE = "edge-face-session"
PREFIX = "es_"
LIFE_S = 12 * 3600.0
"""From the login on, however much it is used."""
IDLE_S = 3600.0
"""Without any request. A stream that is watched counts as use."""
MOST = 16
"""Of one token; the one that was idle for longest gives way. So nobody can end the sessions of another token."""


@dataclass(slots=True)
class _Session:
    token: str
    ends_at: float
    used_at: float

    def is_over(self, now: float) -> bool:
        return now >= self.ends_at or now - self.used_at >= IDLE_S


class Sessions:
    """In memory only: a restart ends them all. As many as there are tokens, times `MOST`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._sessions: dict[bytes, _Session] = {}
        """By the hash of their ids, the one that was idle for longest first."""

    def new(self, token: str) -> str:
        """The id of a new session, which ends with `token`, too."""
        now = self._clock.monotonic()
        self._sessions = {key: each for key, each in self._sessions.items() if not each.is_over(now)}
        own = [key for key, each in self._sessions.items() if each.token == token]
        if len(own) >= MOST:
            del self._sessions[own[0]]
        session = PREFIX + secrets.token_urlsafe(32)
        self._sessions[digest(session)] = _Session(token, now + LIFE_S, now)
        return session

    def token(self, session: str) -> str | None:
        """The token that it was opened with; None: it is over, or never was. To ask is to use it."""
        now = self._clock.monotonic()
        key = digest(session)
        found = self._sessions.pop(key, None)
        if found is None or found.is_over(now):
            return None
        found.used_at = now
        self._sessions[key] = found
        return found.token

    def end(self, session: str) -> None:
        self._sessions.pop(digest(session), None)


def set_cookie(response: web.Response, session: str, *, secure: bool) -> None:
    """Kept by the browser until it is closed; no script can read it, and no other site's request carries it."""
    response.set_cookie(COOKIE, session, path="/", httponly=True, samesite="Strict", secure=secure)


def clear_cookie(response: web.Response, *, secure: bool) -> None:
    response.del_cookie(COOKIE, path="/", httponly=True, samesite="Strict", secure=secure)
