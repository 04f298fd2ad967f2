"""Webhooks: each event as a JSON POST, signed where there is a secret."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import struct
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from aiohttp.typedefs import LooseHeaders

from edge_face import __version__, signatures
from edge_face.clock import Clock
from edge_face.errors import EdgeFaceError
from edge_face.events import Event, State, uuid7
from edge_face.publish import Pictures, Refused, RetryLater, SwitchedOff
from edge_face.queries import headers_of
from edge_face.settings import Webhook

LONGEST_RETRY_AFTER_S = 300.0
RETRY_STATUS = frozenset({408, 425, 429})
"""Client errors that say "not now" and not "never"."""
MAX_BODY = 64 * 1024
"""Bytes. An event is a few hundred; receivers may rely on it."""
MAX_PICTURE = 40 * 1024
"""Bytes, which in base64 leave room for the event."""
PICTURE_S = 0.5


class WebhookSink:
    """Posts to one address. What may be secret in it (user, password, path, query) is never logged."""

    healthy = True
    """Nobody knows before the next event; the delivery loop counts what fails."""

    def __init__(self, hook_id: str, hook: Webhook, clock: Clock, pictures: Pictures | None = None) -> None:
        """`hook` is one that config.py has accepted; without `pictures` there are none in its events."""
        self.name = f"webhook:{hook_id}"
        self.history = hook.late == "send"
        self._hook = hook
        self._clock = clock
        self._keys = [signatures.signing_key(secret) for secret in (hook.secret, hook.old_secret) if secret]
        self._headers = headers_of(hook.headers)
        self._pictures = pictures if hook.snapshot else None
        self._pictured: tuple[str, str | None] = ("", None)
        """The last event and its picture, which is the same in each attempt."""
        self._where = server_of(hook.url)
        self._session: aiohttp.ClientSession | None = None

    def wants(self, event: Event) -> bool:
        hook = self._hook
        return event.status in hook.events and (not hook.cameras or event.camera in hook.cameras)

    async def deliver(self, payload: Mapping[str, Any], deadline: float | None, late: bool) -> None:
        if self._pictures:
            payload = {**payload, "snapshot": None if late else await self._picture(self._pictures, payload)}
        limit = self._hook.timeout
        if deadline is not None:
            limit = min(limit, deadline - self._clock.monotonic())
            if limit <= 0:
                raise RetryLater("the event expired before the attempt")
        status, retry_after = await self._post(str(payload["id"]), payload, limit)
        if 200 <= status < 300:
            return
        answer = f"{self._where} answered {status}"
        if status == 410:
            raise SwitchedOff(answer)
        if status in RETRY_STATUS or status >= 500:
            raise RetryLater(answer, _seconds(retry_after))
        raise Refused(f"{answer}, a redirection, which is not followed" if status < 400 else answer)

    async def _picture(self, pictures: Pictures, payload: Mapping[str, Any]) -> str | None:
        """In base64; None where there is none in time. A door does not wait for a picture of who stands before it."""
        if self._pictured[0] != payload["id"]:
            self._pictured = payload["id"], None
            try:
                async with asyncio.timeout(PICTURE_S):
                    picture = await pictures.picture(payload["camera"], small=True)
            except (TimeoutError, EdgeFaceError):
                return None
            if len(picture.jpeg) <= MAX_PICTURE:
                self._pictured = payload["id"], base64.b64encode(picture.jpeg).decode("ascii")
        return self._pictured[1]

    async def probe(self) -> str:
        """Post `{"type": "test"}`. Returns a sentence; raises EdgeFaceError when the receiver does not take it."""
        try:
            status, _ = await self._post(uuid7(self._clock.wall()), {"type": "test"}, self._hook.timeout)
        except RetryLater as error:
            raise EdgeFaceError(str(error), "webhook") from error
        if not 200 <= status < 300:
            raise EdgeFaceError(f"{self._where} answered {status}", "webhook")
        return f"{self._where} answered {status}"

    async def _post(self, event_id: str, payload: Mapping[str, Any], limit_s: float) -> tuple[int, str]:
        """One request. Returns its status and Retry-After; raises RetryLater when there was no answer."""
        body = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
        if len(body) > MAX_BODY:
            raise Refused(f"{len(body)} bytes are more than the {MAX_BODY} that a webhook may have")
        headers = {"User-Agent": f"edge-face/{__version__}", **self._headers}
        headers |= {"Content-Type": "application/json"}
        headers |= signatures.headers(self._keys, event_id, int(self._clock.wall()), body)
        try:
            async with asyncio.timeout(limit_s):
                return await self._request(body, headers)
        except TimeoutError:
            raise RetryLater(f"{self._where} did not answer in time") from None
        except aiohttp.ClientConnectorCertificateError as error:
            raise RetryLater(f"the certificate of {self._where} is not trusted") from error
        except (aiohttp.ClientConnectorError, aiohttp.ClientSSLError) as error:
            # Not str(error): some of aiohttp's texts hold the whole address.
            reason = error.os_error.strerror or "no connection"
            raise RetryLater(f"{self._where} cannot be reached: {reason}") from error
        except (aiohttp.ClientError, OSError) as error:
            raise RetryLater(f"{self._where}: {type(error).__name__}") from error

    async def _request(self, body: bytes, headers: LooseHeaders) -> tuple[int, str]:
        async with self._open().post(self._hook.url, data=body, headers=headers, allow_redirects=False) as response:
            return response.status, response.headers.get("Retry-After", "")

    def _open(self) -> aiohttp.ClientSession:
        """Made inside the running loop, at the first need."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=_socket),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session

    def state(self, change: State) -> None:
        """Webhooks are about events only."""

    async def run(self) -> None:
        """Connections are made when they are needed."""

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None


async def probe(hook_id: str, hook: Webhook, clock: Clock) -> str:
    """Try a configured webhook, for `edge-face check`. Raises EdgeFaceError."""
    sink = WebhookSink(hook_id, hook, clock)
    try:
        return await sink.probe()
    finally:
        await sink.close()


def server_of(url: str) -> str:
    """Scheme, host and port only: receivers hide keys in the path as well as in the query."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f"{parts.scheme}://{host}{f':{parts.port}' if parts.port else ''}"


def _seconds(retry_after: str) -> float | None:
    """Retry-After in seconds, bounded; None for a date or nonsense, which the usual back-off replaces."""
    text = retry_after.strip()
    return min(float(text), LONGEST_RETRY_AFTER_S) if text.isascii() and text.isdigit() else None


def _socket(address: tuple[Any, ...]) -> socket.socket:
    """A socket that forgets what it has not sent yet when it is closed.

    Otherwise the kernel would go on sending a given-up request for minutes, and an event that expired while the network
    was away would arrive after all.
    """
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return made
