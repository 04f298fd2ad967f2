"""Tickets: what a browser puts into the address of a stream, where a token would be kept in histories and logs."""

from __future__ import annotations

import secrets

from aiohttp import web

from edge_face.clock import Clock
from edge_face.tokens import digest
from edge_face.web import schema
from edge_face.web.replies import reply
from edge_face.web.services import TOKEN, Route
from edge_face.web.spec import Spec

LIFE_S = 60.0
MOST = 100
"""Of one token; the oldest gives way. So nobody can end the tickets of another token."""
PREFIX = "et_"

_NEW = Spec("A ticket for `?token=` of a stream", schema.Ticket, 201)


class Tickets:
    """In memory only: a ticket never outlives the daemon. Opens nothing but streams, whoever asked for it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._tickets: dict[bytes, tuple[str, float]] = {}

    def routes(self) -> list[Route]:
        return [Route("POST", "/api/v1/tickets", self.create, "viewer", _NEW)]

    async def create(self, request: web.Request) -> web.Response:
        return reply(schema.Ticket(self.new(request[TOKEN]), LIFE_S), 201)

    def new(self, token: str) -> str:
        """A ticket that stands for `token`: it ends with it, too."""
        now = self._clock.monotonic()
        self._tickets = {key: made for key, made in self._tickets.items() if now < made[1]}
        own = [key for key, made in self._tickets.items() if made[0] == token]
        if len(own) >= MOST:
            del self._tickets[own[0]]
        ticket = PREFIX + secrets.token_urlsafe(24)
        self._tickets[digest(ticket)] = token, now + LIFE_S
        return ticket

    def token(self, ticket: str) -> str | None:
        """The token that a ticket stands for; None when it is none or too old."""
        token, until = self._tickets.get(digest(ticket), (None, 0.0))
        return token if self._clock.monotonic() < until else None
