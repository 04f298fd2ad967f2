"""Clients that send a running daemon whatever there is, from a seed: the same seed sends the same again."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import os
import random
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any
from urllib.parse import urlencode

import aiohttp

from tests.support.daemon import Daemon
from tests.support.processes import children, usage
from tests.support.rawsocket import BINARY, CLOSE, CONTINUED, PING, PONG, TEXT, RawSocket, frame
from tests.support.uploads import mutated, samples

UPLOADS = (
    ("POST", "/register", ("image",)),
    ("POST", "/unregister", ("name",)),
    ("POST", "/register-faces", ("zip",)),
    ("POST", "/match", ("image", "file", "frame")),
    ("POST", "/recognize_faces", ("file",)),
    ("POST", "/process-frame/", ("frame",)),
    ("POST", "/create-student", ()),
    ("POST", "/api/v1/people", ("image",)),
    ("POST", "/api/v1/people/batch", ("zip",)),
    ("POST", "/api/v1/people/eileen/faces", ("image",)),
    ("PATCH", "/api/v1/people/eileen", ()),
    ("POST", "/api/v1/recognize", ("image",)),
    ("POST", "/api/v1/cameras/front/enroll", ("image",)),
)
"""Method, path, and the fields that hold files; without any: the body is JSON."""
_WORDS = (
    "",
    "x",
    "Zoë",
    "a" * 300,
    "../../etc/passwd",
    "\0",
    "\ud800",
    "true",
    "-1",
    "9" * 30,
    "1e999",
    "名前",
    "'; --",
)
_TYPES = (
    "multipart/form-data; boundary=b",
    "multipart/form-data",
    "multipart/form-data; boundary=" + "b" * 200,
    "multipart/mixed; boundary=b",
    "application/x-www-form-urlencoded",
    "application/json",
    "application/json; charset=utf-99",
    "text/plain",
    "x",
)
CALM_S = 2.0
PAUSE_S = 0.02
"""Of each client: this is no test of how much the machine can do."""
LEAST_TURNS = 15
"""Of each client in each round, however busy the machine is."""
_NICE = 10
_CUT_AT = 300_000
"""Larger samples are for other tests."""


@dataclass
class Rate:
    """Frames judged while there was one kind of weather."""

    frames: int = 0
    seconds: float = 0.0

    @property
    def fps(self) -> float:
        return self.frames / self.seconds


@dataclass
class Findings:
    answers: Counter[str] = field(default_factory=Counter)
    """Status, or what a WebSocket did, and how often."""
    problems: list[str] = field(default_factory=list)
    parent_mib: float = 0.0
    photos_mib: float = 0.0
    """PSS, the most that was seen."""
    fuzzed: Rate = field(default_factory=Rate)
    calm: Rate = field(default_factory=Rate)
    longest_pause_s: float = 0.0
    """In which the camera's counter stood still, as far as a client sees."""


@cache
def pictures() -> tuple[bytes, ...]:
    return tuple(sample.data for sample in samples() if len(sample.data) < _CUT_AT)


class Fuzz:
    def __init__(self, daemon: Daemon, seed: int) -> None:
        self._daemon = daemon
        self.found = Findings()
        pictures()  # takes seconds, in which nobody would look at the camera
        assert daemon.process is not None
        self._parent = daemon.process.pid
        self._cameras = set(children(self._parent))
        clients = (self._uploads, self._uploads, self._damaged_http, self._pictures, self._frames, self._viewer)
        self._clients = [
            (client, f"{seed} {number}", random.Random(f"{seed} {number}")) for number, client in enumerate(clients)
        ]

    async def run(self, seconds: float, rounds: int) -> Findings:
        """All clients at once for so long in each round, and a calm before it, which says what the machine can do now.

        They have little of the processor while another program needs it: they stand for clients elsewhere.
        """

        def work() -> None:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # this thread alone
            asyncio.run(self._rounds(seconds, rounds))

        await asyncio.to_thread(work)
        return self.found

    async def _rounds(self, seconds: float, rounds: int) -> None:
        async with aiohttp.ClientSession(headers=self._daemon.auth) as self._session:
            for _ in range(rounds):
                await self._watched(self.found.calm, asyncio.sleep(CALM_S))
                await self._watched(self.found.fuzzed, self._all(seconds))

    async def _all(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        await asyncio.gather(*(self._repeat(*client, end) for client in self._clients))

    async def _watched(self, rate: Rate, work: Coroutine[Any, Any, None]) -> None:
        watching = asyncio.create_task(self._watch(rate))
        await work
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching

    async def _repeat(
        self, client: Callable[[random.Random], Awaitable[None]], seed: str, chance: random.Random, end: float
    ) -> None:
        turns = 0
        while (turns < LEAST_TURNS or time.monotonic() < end) and not self.found.problems:
            turns += 1
            try:
                async with asyncio.timeout(60):
                    await client(chance)
            except Exception as error:
                self.found.problems.append(f"{client.__name__}, seed {seed}: {error!r}")
            await asyncio.sleep(PAUSE_S)

    async def _watch(self, rate: Rate) -> None:
        """The camera's counter, and memory, again and again."""
        at, frames = time.monotonic(), await self._judged()
        changed = at
        while True:
            await asyncio.sleep(0.2)
            now, counted = time.monotonic(), await self._judged()
            rate.frames, rate.seconds = rate.frames + counted - frames, rate.seconds + now - at
            if counted > frames:
                self.found.longest_pause_s = max(self.found.longest_pause_s, now - changed)
                changed = now
            at, frames = now, counted
            for pid in {self._parent, *children(self._parent)} - self._cameras:
                pss_mib = used.pss_mib if (used := usage(pid)) else 0.0
                if pid == self._parent:
                    self.found.parent_mib = max(self.found.parent_mib, pss_mib)
                else:
                    self.found.photos_mib = max(self.found.photos_mib, pss_mib)

    async def _judged(self) -> int:
        async with self._session.get(f"{self._daemon.url}/api/v1/status") as answer:
            (camera,) = (await answer.json())["cameras"]
        assert camera["restarts"] == 0
        return int(camera["frames"])

    async def _uploads(self, chance: random.Random) -> None:
        method, path, files = chance.choice(UPLOADS)
        kind, body = _body(chance, files)
        async with self._session.request(
            method, self._daemon.url + path, data=body, headers={"Content-Type": kind}
        ) as answer:
            self._judge(answer.status, await answer.read(), f"{method} {path}")

    def _judge(self, status: int, body: bytes, what: str) -> None:
        """No reply but those that are documented; 503 is not one of them while nothing is amiss."""
        self.found.answers[str(status)] += 1
        said = json.loads(body)
        assert status < 500, f"{what}: {status} {body[:300]!r}"
        assert status < 400 or (said["error"] and said["message"]), what

    async def _damaged_http(self, chance: random.Random) -> None:
        """What is no proper HTTP: damaged heads, chunks and lengths that lie, halves."""
        method, path, files = chance.choice(UPLOADS)
        kind, body = _body(chance, files)
        fields = [f"{method} {path} HTTP/1.1", "Host: localhost", f"X-API-Key: {self._daemon.token}"]
        fields += [f"Content-Type: {kind}"]
        way = chance.randrange(5)
        if way == 0:
            fields += ["Transfer-Encoding: chunked"]
            body = b"%x\r\n" % chance.choice((0, 1, len(body), len(body) * 2, 1 << 70)) + body + b"\r\n0\r\n\r\n"
        elif way == 1:
            fields += ["Expect: 100-continue", f"Content-Length: {len(body)}"]
        elif way == 2:
            fields += [f"Content-Encoding: {chance.choice(('gzip', 'deflate', 'br', 'x'))}"]
            fields += [f"Content-Length: {len(body)}"]
        else:
            fields += [f"Content-Length: {chance.choice((0, 1, len(body), len(body) + 7, -1, 1 << 70))}"]
        head = "\r\n".join(fields).encode("utf-8", "surrogateescape") + b"\r\n\r\n"
        if way == 4:
            head = mutated(head, chance)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._daemon.port)
        heard = bytearray()
        with contextlib.suppress(ConnectionError, TimeoutError):
            writer.write(head + body)
            writer.write_eof()
            async with asyncio.timeout(3):
                while piece := await reader.read(1 << 16):
                    heard += piece
        writer.transport.abort()
        statuses = [int(part[:3]) for part in bytes(heard).split(b"HTTP/1.1 ")[1:]]
        assert all(status < 500 for status in statuses), f"{head!r}: {bytes(heard)!r}"
        self.found.answers.update(f"damaged {status}" for status in statuses)

    async def _pictures(self, chance: random.Random) -> None:
        """One connection of `/ws`: each picture is answered, whatever it is, in how many pieces ever it comes."""
        socket = await RawSocket.open(self._daemon.port, "/ws", self._daemon.token)
        for _ in range(chance.randrange(1, 20)):
            text = chance.random() < 0.3
            data = _picture(chance)
            if text:
                data = chance.choice((base64.b64encode(data), chance.choice(_WORDS).encode("utf-8", "replace")))
            await socket.send(_in_pieces(chance, data, TEXT if text else BINARY))
            opcode, answer = await socket.answer()
            assert opcode == TEXT, f"/ws ended with {answer!r} after {data[:100]!r}"
            said = json.loads(answer)
            assert set(said) == {"message", "student_data"}
            assert said["message"]
            self.found.answers["picture answered"] += 1
        socket.end()

    async def _frames(self, chance: random.Random) -> None:
        """One thing that no client may send to a WebSocket: it ends, and another one is served."""
        path = chance.choice(("/ws", "/ws/face-stream"))
        socket = await RawSocket.open(self._daemon.port, path, self._daemon.token)
        wrong = chance.choice(
            (
                frame(b"\xff\xfe\xfd", TEXT),
                frame(b"x", CONTINUED),
                frame(b"x", BINARY, last=False) + frame(b"x", BINARY),
                frame(b"x", chance.choice((3, 7, 11, 15))),
                frame(b"x", BINARY, reserved=chance.randrange(1, 8)),
                frame(b"x" * 126, PING),
                frame(b"x", PING, last=False),
                frame(b"x", CLOSE),
                frame(b"\x00\x00", CLOSE),
                frame(b"\x03\xe8\xff", CLOSE),
                frame(b"x", BINARY, says=chance.choice((29 << 20, 1 << 40, (1 << 63) + 5))),
                frame(b"x" * 70_000, BINARY, says=1 << 33),
                chance.randbytes(chance.randrange(14, 5000)),
                mutated(frame(_picture(chance), BINARY), chance),
            )
        )
        if chance.random() < 0.02:
            wrong = frame(bytes(29 << 20), BINARY)
        with contextlib.suppress(ConnectionError):  # it may be told while it still sends
            await socket.send(wrong)
        with contextlib.suppress(TimeoutError):  # some are no mistake yet, but the beginning of something long
            async with asyncio.timeout(0.5):
                while (await socket.receive())[0] != CLOSE:
                    pass
                self.found.answers["broken frame ended"] += 1
        socket.end()

    async def _viewer(self, chance: random.Random) -> None:
        """A viewer that speaks is shown out with 1008, or 1007 where it is no text; one that pings is not."""
        socket = await RawSocket.open(self._daemon.port, "/ws/face-stream", self._daemon.token)
        for _ in range(chance.randrange(3)):
            await socket.send(frame(chance.randbytes(chance.randrange(126)), chance.choice((PING, PONG))))
        data = chance.choice((b"", b"hello", b'{"type": "face_event"}', chance.randbytes(500)))
        await socket.send(_in_pieces(chance, data, chance.choice((TEXT, BINARY))))
        while True:
            opcode, said = await socket.answer()
            if opcode == CLOSE:
                break
            assert json.loads(said)["type"] == "face_event"
        assert int.from_bytes(said[:2], "big") in (1007, 1008), said
        self.found.answers["viewer shown out"] += 1
        socket.end()


def _picture(chance: random.Random) -> bytes:
    data = chance.choice(pictures())
    way = chance.randrange(6)
    if way == 0:
        return data
    if way == 1:
        return data[: chance.randrange(len(data) + 1)]
    if way == 2:
        return chance.randbytes(chance.randrange(5000))
    return mutated(data, chance)


def _zip(chance: random.Random) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for number in range(chance.randrange(4)):
            archive.writestr(f"{chance.choice(('Zoë', 'a/b', '../x', 'x' * 200))}{number}.jpg", _picture(chance))
    return mutated(out.getvalue(), chance) if chance.random() < 0.6 else out.getvalue()


def _body(chance: random.Random, files: Sequence[str]) -> tuple[str, bytes]:
    """Content type and body: mostly a proper form with a strange file, sometimes nothing of the kind."""
    kind = chance.choice(_TYPES) if chance.random() < 0.2 else ""
    if not files:
        value: Any = chance.choice((None, 1, -1e300, [], {}, "x", *_WORDS))
        body = json.dumps({"name": chance.choice(_WORDS), chance.choice(_JSON_KEYS): value}).encode()
        deep = b"[" * 5000 if chance.random() < 0.05 else b""
        return kind or "application/json", deep + (mutated(body, chance) if chance.random() < 0.4 else body)
    data = _zip(chance) if files == ("zip",) else _picture(chance)
    if files == ("frame",) and chance.random() < 0.4:
        data = base64.b64encode(data)
        data = b"data:image/jpeg;base64," + data if chance.random() < 0.5 else data
    texts = [(chance.choice(("name", "external_id", "force", "x")), chance.choice(_WORDS)) for _ in range(2)]
    texts += [("name", f"p{chance.randrange(5)}")] if chance.random() < 0.7 else []
    if chance.random() < 0.1:
        fields = [*texts, (files[0], data[:2000])]
        return kind or "application/x-www-form-urlencoded", urlencode(fields, errors="replace").encode()
    parts = [
        f'Content-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode("utf-8", "replace")
        for name, value in texts
    ]
    name = chance.choice(files)
    parts.append(
        f'Content-Disposition: form-data; name="{name}"; filename="{chance.choice(_NAMES)}"\r\n\r\n'.encode() + data
    )
    body = b"".join(b"--b\r\n" + part + b"\r\n" for part in parts) + b"--b--\r\n"
    return kind or _TYPES[0], mutated(body, chance) if chance.random() < 0.2 else body


_JSON_KEYS = ("id", "name", "group", "valid_from", "valid_until", "blocked", "external_id", "x", "force")
_NAMES = ("a.jpg", "", "../a", "a\\b", "Zoë.jpg", "a" * 300)


def _in_pieces(chance: random.Random, data: bytes, opcode: int) -> bytes:
    """As a message of one frame or of several, with control frames between them."""
    if chance.random() < 0.5 or not data:
        return frame(data, opcode)
    cuts = sorted(chance.randrange(len(data) + 1) for _ in range(chance.randrange(1, 6)))
    pieces = [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    sent = bytearray()
    for number, piece in enumerate(pieces):
        sent += frame(piece, CONTINUED if number else opcode, last=number == len(pieces) - 1)
        if number < len(pieces) - 1 and chance.random() < 0.5:
            sent += frame(b"still there", PING)
    return bytes(sent)
