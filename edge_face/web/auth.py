"""Who may ask: credentials, roles, origins, and the delay after wrong ones."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from aiohttp import web

from edge_face.clock import Clock
from edge_face.config import is_loopback
from edge_face.errors import StoreError
from edge_face.tokens import Role, digest
from edge_face.web import sessions
from edge_face.web.connections import network
from edge_face.web.forms import CHECK
from edge_face.web.replies import Refusal
from edge_face.web.services import TOKEN, RoleOf, Route
from edge_face.web.sessions import Sessions
from edge_face.web.tickets import Tickets

CACHE_S = 1.0
"""A good token is believed this long without asking the store, so a revoked one ends within it."""
_CACHED = 64
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="edge-face", Basic realm="edge-face", charset="UTF-8"'}
_QUIET_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="edge-face"'}
"""For pages: at the word Basic, browsers would ask for a password in a window of their own."""
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Credential:
    """A token, or the id of a session, and how it came: browsers send `basic` and `cookie` by themselves, and a `query`
    may be kept in histories and logs.
    """

    token: str
    by: Literal["bearer", "key", "basic", "query", "cookie"]


class Guard:
    """Lets a request pass or raises Refusal."""

    def __init__(self, role_of: RoleOf, host: str, clock: Clock) -> None:
        """`host` is the address that the server listens on."""
        self._role_of = role_of
        self._local_only = is_loopback(host)
        self._clock = clock
        self._good: dict[bytes, tuple[Role, float]] = {}
        self._delays = Delays(clock)
        self._logins = Logins(clock)
        self.tickets = Tickets(clock)
        self.sessions = Sessions(clock)

    async def admit(self, request: web.Request, route: Route | None) -> None:
        """`route` is None where there is nothing: only those who may ask at all are told so."""
        self._check_host(request)
        if route is not None and route.role is None:
            if request.method not in _SAFE and not same_origin(request):  # it would log somebody in as somebody else
                raise _foreign_origin()
            return
        socket = route is not None and route.socket
        credential = _credential(request, query=socket)
        if credential is None:
            raise Refusal(401, "unauthorized", "This needs a token; `edge-face token` prints it.", _CHALLENGE)
        # A ticket is what it was made with, a token or a session; it may only be used as one of a viewer's.
        ticket = self.tickets.token(credential.token) if credential.by == "query" else None
        request[TOKEN] = ticket or credential.token
        if credential.by == "cookie" or ticket:
            role = await self._role(request[TOKEN])
        else:
            role = await self._shown(credential.token, request, _CHALLENGE)
        if role is None:
            # At once: its browser goes on sending it, and nobody can guess one.
            self.sessions.end(request[TOKEN])
            message = "The session is over, or its token was revoked; log in again."
            raise Refusal(401, "unauthorized", message, _QUIET_CHALLENGE)
        if ticket:
            role = "viewer"
        if credential.by == "query" and role != "viewer":
            message = "An admin token is not taken from the address, where it is seen; use a viewer token or a ticket."
            raise Refusal(401, "unauthorized", message, _CHALLENGE)
        written_by_browser = credential.by in ("basic", "cookie") and request.method not in _SAFE
        if socket or written_by_browser:
            # Only browsers have cookies, and they name the origin of each write. Programs use Basic as well.
            named = written_by_browser and credential.by == "cookie"
            if not same_origin(request, named=named):
                raise _foreign_origin()
        if route is not None and route.role == "admin" and role != "admin":
            raise Refusal(403, "forbidden", "This needs an admin token; yours is a viewer's.")
        request[CHECK] = lambda: self._check(request)

    async def log_in(self, token: str, request: web.Request) -> tuple[str, Role]:
        """The id of a new session, and what it allows. Raises Refusal: for a wrong token after a delay (401,
        429), for one that logs in too often (429).
        """
        role = await self._shown(token, request, _QUIET_CHALLENGE)
        self._logins.count(token)
        return self.sessions.new(token), role

    async def _check(self, request: web.Request) -> None:
        """Raises Refusal where its token is not good any more."""
        if not await self.still_valid(request):
            raise Refusal(401, "unauthorized", "The token was revoked meanwhile.", _QUIET_CHALLENGE)

    async def still_valid(self, request: web.Request) -> bool:
        """Whether the token or session that opened a stream is still good. In doubt, as the store is busy, it is."""
        try:
            return await self._role(request[TOKEN]) is not None
        except StoreError:
            return True

    async def _shown(self, token: str, request: web.Request, challenge: Mapping[str, str]) -> Role:
        role = None if token.startswith(sessions.PREFIX) else await self._role(token)
        if role is None:
            await self._delays.wait(request.remote or "")
            raise Refusal(401, "unauthorized", "This token is not valid.", challenge)
        return role

    async def _role(self, shown: str) -> Role | None:
        """Of a token, or of the one that a session was opened with."""
        token = self.sessions.token(shown) if shown.startswith(sessions.PREFIX) else shown
        if token is None or not token.isascii():
            return None
        key = hashlib.sha256(token.encode("ascii")).digest()
        role, until = self._good.get(key, (None, 0.0))
        if role is not None and self._clock.monotonic() < until:
            return role
        asked_at = self._clock.monotonic()
        role = await self._role_of(token)
        self._good.pop(key, None)
        if role is not None:
            while len(self._good) >= _CACHED:
                del self._good[next(iter(self._good))]
            self._good[key] = role, asked_at + CACHE_S
        return role

    def _check_host(self, request: web.Request) -> None:
        """A site whose name was made to point at 127.0.0.1 (DNS rebinding) gives itself away by that name."""
        if self._local_only and not all(_is_local(host) for host in request.headers.getall("Host", ())):
            raise Refusal(403, "foreign_host", "This server answers on this machine only, as localhost or 127.0.0.1.")


class Logins:
    """How often each token has logged in. A login is a row of the audit, written to the disk: a viewer who went on with
    it would hold up events, and in the end push all else out of the audit.
    """

    MOST, SPAN_S = 20, 60.0

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at: dict[bytes, deque[float]] = {}

    def count(self, token: str) -> None:
        """One more of that token. Raises Refusal (429)."""
        now = self._clock.monotonic()
        self._at = {key: at for key, at in self._at.items() if now - at[-1] < self.SPAN_S}
        at = self._at.setdefault(digest(token), deque(maxlen=self.MOST))
        if len(at) == self.MOST and now - at[0] < self.SPAN_S:
            retry = {"Retry-After": str(math.ceil(self.SPAN_S - (now - at[0])))}
            raise Refusal(429, "too_many_logins", "This token has logged in too often; use the session.", retry)
        at.append(now)


class Delays:
    """Answers to wrong credentials wait, longer each time, per address. Right ones never come here."""

    FIRST_S, LONGEST_S = 0.5, 8.0
    FORGET_S = 60.0
    ADDRESSES = 1000
    WAITING = 20
    """Of one address at once; more are refused at once, so that waiting costs an attacker and not this machine."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failures: dict[str, tuple[int, float]] = {}
        self._waiting: dict[str, int] = {}

    async def wait(self, address: str) -> None:
        """Count one more failure of this address and wait for it. Raises Refusal (429)."""
        source = network(address)
        delay_s = self._next(source)
        waiting = self._waiting.get(source, 0)
        if waiting >= self.WAITING:
            retry = {"Retry-After": str(round(self.LONGEST_S))}
            raise Refusal(429, "too_many_attempts", "Too many wrong tokens came from this address; wait.", retry)
        self._waiting[source] = waiting + 1
        try:
            await asyncio.sleep(delay_s)
        finally:
            self._waiting[source] -= 1
            if not self._waiting[source]:
                del self._waiting[source]

    def _next(self, source: str) -> float:
        now = self._clock.monotonic()
        count, last = self._failures.pop(source, (0, now))
        if now - last > self.FORGET_S:
            count = 0
        while len(self._failures) >= self.ADDRESSES:
            del self._failures[next(iter(self._failures))]  # the one that has been quiet for longest
        self._failures[source] = count + 1, now
        return min(self.LONGEST_S, self.FIRST_S * float(1 << min(count, 10)))


def _credential(request: web.Request, *, query: bool) -> Credential | None:
    """The first that is there; None: the caller did not try."""
    scheme, _, rest = request.headers.get("Authorization", "").strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer" and rest:
        return Credential(rest, "bearer")
    if scheme.lower() == "basic" and rest:
        password = _password(rest)
        if password != "":
            return Credential(password or "malformed", "basic")
    if key := request.headers.get("X-API-Key", "").strip():
        return Credential(key, "key")
    if query and (token := request.query.get("token", "").strip()):
        return Credential(token, "query")
    if (session := request.cookies.get(sessions.COOKIE, "")).startswith(sessions.PREFIX):
        return Credential(session, "cookie")
    return None


def _password(encoded: str) -> str | None:
    """The password of `user:password` in base64; None: it is no such thing."""
    try:
        text = base64.b64decode(encoded, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        return None
    _, colon, password = text.partition(":")
    return password if colon else None


def same_origin(request: web.Request, *, named: bool = False) -> bool:
    """Whether the page that asks came from this server. Programs that are no browser send no Origin; `named`: it has to
    be there.
    """
    origins = request.headers.getall("Origin", ())
    if not origins:
        return not named
    try:
        origin = urlsplit(origins[0])
        own = urlsplit(f"{origin.scheme}://{request.headers.get('Host', '')}")
        same = _place(origin) == _place(own)
    except ValueError:
        return False
    # Not the scheme where this server speaks plain HTTP: a proxy before it may add the TLS.
    schemes = ("https",) if request.secure else ("http", "https")
    return len(origins) == 1 and same and origin.scheme in schemes and bool(origin.hostname)


def _foreign_origin() -> Refusal:
    return Refusal(403, "foreign_origin", "A page of another site may not do this.")


def _place(url: SplitResult) -> tuple[str | None, int | None]:
    return url.hostname, url.port or {"http": 80, "https": 443}.get(url.scheme)


def _is_local(host: str) -> bool:
    try:
        url = urlsplit(f"//{host}")
        _ = url.port  # raises for one that is no number
    except ValueError:
        return False
    return url.netloc == host and "@" not in host and is_loopback(url.hostname or "")
