"""Open connections: how many there may be, how long one may keep others waiting, and how each ends.

aiohttp has no time-out for a request's head, nor for an answer that nobody reads, and takes any number of connections.
A stream's connection is that of one long request: nothing here ends it while its client takes what is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import socket
import ssl
from collections.abc import Coroutine
from http import HTTPStatus
from typing import Any

from aiohttp import web

from edge_face.clock import Clock
from edge_face.config import is_loopback
from edge_face.web.replies import Refusal, error_reply

_log = logging.getLogger(__name__)
_quiet = logging.getLogger(f"{__name__}.http")
_quiet.setLevel(logging.CRITICAL)

MAX_OPEN = 256
"""On all ports, handshakes included. A descriptor each, of the 1024 that a process has by default."""
MAX_OF_NETWORK = 128
"""Of one address, so that none takes all. Loopback has no such bound: a proxy brings everybody from there."""
MAX_REFUSED = 32
"""Connections above the bound that are told so; more are closed without a word."""
HEAD_S = 10.0
"""A request's head must be there so soon after the connection, or after its first byte where that had a request."""
MAX_HEAD_BYTES = 64 * 1024
IDLE_S = 75.0
"""How long a connection may wait for its next request."""
STALLED_S = 30.0
"""An answer of which the client takes nothing for this long is given up. With `_SEND_BUFFER` it is a least speed, too:
the kernel takes more when a third of its buffer is free, so some 4 KiB a second.
"""
DEAD_S = 30
"""A client whose machine acknowledges nothing for this long is gone (TCP_USER_TIMEOUT)."""
_PROBE_S = 15
"""A silent connection is asked so often whether its client is there."""
_HANDSHAKE_S = 10.0
_GOODBYE_S = 0.3
_LOOK_S = 1.0
_SEND_BUFFER = 256 * 1024
"""What the kernel holds for a client: enough for a picture or two of a stream, as more is only delay."""
_NO_ROOM_S = 0.5

# No access log: it would hold the tokens of addresses. Nor aiohttp's own messages, which quote the client.
_OPTIONS: dict[str, Any] = {
    "access_log": None,
    "logger": _quiet,
    "lingering_time": 5.0,  # for a client that still sends while its answer is there: it would miss it otherwise
}


class Connections:
    """All of all ports. When there are too many, the one gives way that has waited longest for a request."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._open: set[Connection] = set()
        self._refused: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        """That accept, that shake hands, and the one that looks after all."""

    def __len__(self) -> int:
        return len(self._open) + len(self._refused)

    def listen(self, listening: socket.socket, manager: web.Server, tls: ssl.SSLContext | None) -> None:
        """Take connections from a listening socket until `close`."""
        if not self._tasks:
            self._start(self._look())
        self._start(self._accept(listening, manager, tls))

    async def close(self) -> None:
        """Take no more, and end what is shaking hands; what is a connection is left to aiohttp's runner."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, listening: socket.socket, manager: web.Server, tls: ssl.SSLContext | None) -> None:
        loop = asyncio.get_running_loop()
        told = False
        while True:
            try:
                sock, address = await loop.sock_accept(listening)
            except OSError as error:  # most often: no descriptor is left
                if error.errno != errno.ECONNABORTED:
                    if not told:
                        _log.error("no connection can be taken at present: %s", error.strerror)
                    told = True
                    await asyncio.sleep(_NO_ROOM_S)
                continue
            told = False
            connection = Connection(manager, self, network(str(address[0])))
            if self._admit(connection):
                connection.opening = self._start(self._shake_hands(connection, sock, tls))
            else:
                sock.close()
            await asyncio.sleep(0)  # or a flood of connections would have the event loop for itself

    def forget(self, connection: Connection) -> None:
        self._open.discard(connection)
        self._refused.discard(connection)

    def _admit(self, connection: Connection) -> bool:
        """Whether it may come in at all, be it to be refused."""
        if self._make_room(connection.network):
            self._open.add(connection)
        elif len(self._refused) < MAX_REFUSED:
            connection.refused = True
            self._refused.add(connection)
        else:
            return False
        return True

    def _make_room(self, wanted: str) -> bool:
        among = [each for each in self._open if each.network == wanted]
        if is_loopback(wanted) or len(among) < MAX_OF_NETWORK:
            if len(self._open) < MAX_OPEN:
                return True
            among = list(self._open)
        longest = min((each for each in among if each.waiting), key=lambda each: each.since, default=None)
        if longest is None:
            return False
        self.forget(longest)
        longest.cut_off()
        return True

    async def _shake_hands(self, connection: Connection, sock: socket.socket, tls: ssl.SSLContext | None) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                sock,
                ssl=tls,
                ssl_handshake_timeout=_HANDSHAKE_S if tls else None,
                ssl_shutdown_timeout=_GOODBYE_S if tls else None,
            )
        except OSError:  # also ssl.SSLError and TimeoutError: it is no client of ours
            self.forget(connection)
        except BaseException:
            self.forget(connection)
            raise
        finally:
            connection.opening = None

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _look(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            for connection in [*self._open, *self._refused]:
                connection.look()


class Connection(web.RequestHandler):
    """aiohttp's, with an end for whoever keeps it waiting.

    What it answers by itself, to bytes that are no HTTP, is our JSON, and is not logged.
    """

    __slots__ = (
        "_connections",
        "_head_bytes",
        "_head_due",
        "_pending",
        "_pending_since",
        "_wire",
        "network",
        "opening",
        "refused",
        "since",
    )

    def __init__(self, manager: web.Server, connections: Connections, network: str) -> None:
        super().__init__(manager, loop=asyncio.get_running_loop(), keepalive_timeout=IDLE_S, **_OPTIONS)
        self._connections = connections
        self.network = network
        self.refused = False
        self.opening: asyncio.Task[None] | None = None
        """What makes a connection of it, with TLS the handshake, while that goes on."""
        self.since = connections.clock.monotonic()
        """When it began to wait for a request, or for the rest of one's head."""
        self._head_due = True
        self._head_bytes = 0
        self._pending = 0
        self._pending_since = 0.0
        self._wire: asyncio.Transport | None = None

    @property
    def waiting(self) -> bool:
        """Whether no request is being worked on."""
        return self._wire is None or self._awaits_head

    @property
    def _awaits_head(self) -> bool:
        return self._waiter is not None and not self._waiter.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._wire = transport
        self.since = self._connections.clock.monotonic()
        _tune(transport)
        if self.refused:
            self._request_handler = _too_many
        super().connection_made(transport)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._connections.forget(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if not self._awaits_head:
            self._head_due, self._head_bytes = False, 0
            return
        if not self._head_due:  # the first byte of another request
            self._head_due, self.since = True, self._connections.clock.monotonic()
        self._head_bytes += len(data)
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse(Refusal(413, "too_large", f"A request's head is at most {MAX_HEAD_BYTES >> 10} KiB."))

    def look(self) -> None:
        """End it where it keeps us waiting."""
        wire, now = self._wire, self._connections.clock.monotonic()
        if wire is None:
            return  # a handshake has a time-out of its own
        if self._awaits_head:
            if self._head_due and now - self.since > HEAD_S:
                self._refuse(Refusal(408, "request_timeout", "The request took too long to come."))
        else:
            self.since = now
        pending = wire.get_write_buffer_size()
        if not pending or pending != self._pending:
            self._pending, self._pending_since = pending, now
        elif now - self._pending_since > STALLED_S:
            abort(wire)

    def cut_off(self) -> None:
        if self.opening is not None:
            self.opening.cancel()
        abort(self._wire)

    def _refuse(self, error: Refusal) -> None:
        """Whoever said nothing at all hears nothing."""
        if self._head_bytes and self._wire is not None:
            self._wire.write(_raw(error))
        self._head_due = False
        self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002  # quotes the client
    ) -> web.StreamResponse:
        if request.writer.output_size > 0:
            raise ConnectionError("the answer was half sent")
        if status >= 500:
            _log.error("an answer failed: %r", exc)
            error = Refusal(500, "internal", "Something went wrong here; the log says what.")
        else:
            error = Refusal(status, "bad_request", "This is not HTTP as this server understands it.")
        response = error_reply(error)
        response.force_close()
        return response


async def _too_many(_request: web.BaseRequest) -> web.StreamResponse:
    retry = {"Retry-After": "5"}
    response = error_reply(Refusal(503, "too_many_connections", "Too many connections are open already.", retry))
    response.force_close()
    return response


def _raw(error: Refusal) -> bytes:
    """An answer to what is no request yet."""
    response = error_reply(error)
    assert isinstance(response.body, bytes)
    head = (
        f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
        f"Content-Type: application/json; charset=utf-8\r\nContent-Length: {len(response.body)}\r\n"
        "Connection: close\r\nServer: edge-face\r\n\r\n"
    )
    return head.encode() + response.body


def _tune(transport: asyncio.Transport) -> None:
    connection = transport.get_extra_info("socket")
    with contextlib.suppress(OSError):  # gone already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _PROBE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_S * 1000)


def abort(transport: asyncio.Transport | None) -> None:
    """End a connection at once, whether or not it still is one."""
    if transport is not None:
        # asyncio's own mistake: one that was closing, and ended when its buffer was empty, has no loop any more.
        with contextlib.suppress(AttributeError):
            transport.abort()


def network(address: str) -> str:
    """Whom to count: an IPv4 address, or an IPv6 /64, of which every customer has at least one whole."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.is_loopback:
            return str(ip)
        return str(ip.ipv4_mapped or ipaddress.IPv6Network((ip, 64), strict=False))
    return str(ip)
