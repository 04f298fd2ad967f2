"""TLS: the certificate and its key, and their renewal while connections are open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from pathlib import Path
from typing import Any

from edge_face.errors import EdgeFaceError

_log = logging.getLogger(__name__)

POLL_S = 1.0
"""How often the two files are looked at. A change is read when they have been still for as long."""

_Look = tuple[tuple[int, ...] | None, ...]


class Tls:
    """The pair in use. Connections that are open keep the certificate that they began with."""

    def __init__(self, cert: str, key: str) -> None:
        """Raises EdgeFaceError for a pair that cannot be used."""
        self._cert, self._key = Path(cert), Path(key)
        self._read = self._look()
        """How the files looked when they were last read."""
        self._newest = self.context = self._load()
        self.problem: str | None = None
        """Why the files' newest pair is not in use."""
        # The listening context stays, and each handshake begins with a step to the newest one, also where the client
        # names no server. So a pair is taken whole or not at all; load_cert_chain() in place may fail half-way.
        self.context.sni_callback = self._use_newest
        self._watching: asyncio.Task[None] | None = None

    def payload(self) -> dict[str, Any]:
        """For the status."""
        return {"state": "refused" if self.problem else "ok", "problem": self.problem}

    def start(self) -> None:
        """From now on take over what is renewed."""
        self._watching = asyncio.create_task(self._watch(), name="certificate")

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching

    async def _watch(self) -> None:
        before = self._read
        while True:
            await asyncio.sleep(POLL_S)
            now = await asyncio.to_thread(self._look)
            still, before = now == before, now
            if still and now != self._read:  # the two are not replaced at one moment
                self._read = now
                await self._renew()

    async def _renew(self) -> None:
        try:
            self._newest = await asyncio.to_thread(self._load)
        except EdgeFaceError as error:
            self.problem = error.message
            _log.error("the renewed certificate is not used, the one before stays: %s", error.message)
        else:
            self.problem = None
            _log.info("the renewed certificate is in use")

    def _use_newest(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        connection.context = self._newest

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            # The empty password: otherwise OpenSSL would ask for one on the terminal.
            context.load_cert_chain(self._cert, self._key, password="")
        except (OSError, ValueError) as error:
            raise EdgeFaceError(f"[api] cert, key: they cannot be used together: {error}.", "tls") from error
        return context

    def _look(self) -> _Look:
        return _look(self._cert), _look(self._key)


def _look(file: Path) -> tuple[int, ...] | None:
    """Differs when the file, or where a link leads, was changed or replaced; None: it cannot be reached."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
