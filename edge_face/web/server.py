"""Listening: addresses, ports, TLS, and an end that waits for nobody."""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import logging
import socket
import ssl
from typing import Any

from aiohttp import web

from edge_face import settings
from edge_face.errors import EdgeFaceError
from edge_face.web.app import STREAM, build_app, build_legacy_app
from edge_face.web.connections import Connections
from edge_face.web.services import Services
from edge_face.web.tls import Tls

_log = logging.getLogger(__name__)

STOP_S = 0.3
"""Requests in flight get this long when the server stops, and as long again to notice that they are cancelled."""


class Server:
    """Start, then `port` and `legacy_port` are the real ones; stop ends within a second."""

    def __init__(self, config: settings.Config, services: Services) -> None:
        self._api = config.api
        self._legacy = config.stream.legacy_port
        self._tls: Tls | None = None
        self._app = build_app(dataclasses.replace(services, status=lambda: self._status(services)), config)
        self.connections = Connections(services.clock)
        self._listeners: list[_Listener] = []
        self.port = 0
        self.legacy_port: int | None = None

    @property
    def url(self) -> str:
        host = "127.0.0.1" if self._api.host in ("", "0.0.0.0") else self._api.host  # noqa: S104  # a comparison
        scheme = "https" if self._api.cert else "http"
        return f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"

    def viewers_want_frames(self) -> bool:
        return self._app[STREAM].viewers_want_frames()

    async def start(self) -> None:
        """Raises EdgeFaceError in plain words: port in use, address not ours, certificate unusable."""
        if self._api.cert:
            self._tls = Tls(self._api.cert, self._api.key)
            self._tls.start()
        try:
            self.port = await self._listen(self._app, self._api.port, "[api] port")
            if self._legacy:
                legacy = build_legacy_app(self._app)
                self.legacy_port = await self._listen(legacy, self._legacy, "[stream] legacy_port")
        except BaseException:
            await self.stop()
            raise
        _log.info("listening on %s", self.url)

    async def stop(self) -> None:
        await self.connections.close()
        listeners, self._listeners = self._listeners, []
        closing = [listener.close() for listener in listeners]
        if self._tls:
            closing.append(self._tls.close())
        results = await asyncio.gather(*closing, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                _log.error("the web server did not stop cleanly: %r", result)

    def _status(self, services: Services) -> dict[str, Any]:
        status = services.status()
        return status | {"tls": self._tls.payload()} if self._tls else status

    async def _listen(self, app: web.Application, port: int, key: str) -> int:
        sockets = await _bind(self._api.host, port, key)
        listener = _Listener(app, sockets, self._tls.context if self._tls else None, self.connections)
        self._listeners.append(listener)
        await listener.open()
        return int(sockets[0].getsockname()[1])


class _Listener:
    """One application on its sockets."""

    def __init__(
        self, app: web.Application, sockets: list[socket.socket], tls: ssl.SSLContext | None, connections: Connections
    ) -> None:
        self._runner = web.AppRunner(app, shutdown_timeout=STOP_S)
        self._sockets = sockets
        self._tls = tls
        self._connections = connections

    async def open(self) -> None:
        await self._runner.setup()
        manager = self._runner.server
        assert manager is not None
        for sock in self._sockets:
            self._connections.listen(sock, manager, self._tls)

    async def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        await self._runner.cleanup()


async def _bind(host: str, port: int, key: str) -> list[socket.socket]:
    """A socket for each address of `host`, all on one port."""
    try:
        found = await asyncio.get_running_loop().getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise EdgeFaceError(f"[api] host: {host} is not known here ({error.strerror}).", "listen") from error
    sockets: list[socket.socket] = []
    failure: OSError | None = None
    for family, kind, protocol, _, address in dict.fromkeys(found):
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            free = sockets[0].getsockname()[1] if sockets else port
            sock.bind((address[0], free, *address[2:]))
            sock.listen(128)
            sock.setblocking(False)
        except OSError as error:
            sock.close()
            # localhost often has an IPv6 address on a machine without IPv6; one of the two is enough.
            failure = failure if error.errno == errno.EADDRNOTAVAIL and failure else error
            if error.errno != errno.EADDRNOTAVAIL:
                break
        else:
            sockets.append(sock)
    if failure is not None and (not sockets or failure.errno != errno.EADDRNOTAVAIL):
        for sock in sockets:
            sock.close()
        raise EdgeFaceError(_why(failure, host, port, key), "listen") from failure
    return sockets


def _why(error: OSError, host: str, port: int, key: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} on {host} is in use by another program; set {key}."
    if error.errno == errno.EACCES:
        return f"Port {port} needs rights that this program has not (ports below 1024 do); set {key}."
    if error.errno == errno.EADDRNOTAVAIL:
        return f"{host} is not an address of this machine; set [api] host."
    return f"Port {port} on {host} cannot be used: {error.strerror}."
