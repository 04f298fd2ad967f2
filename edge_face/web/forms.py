"""Forms read field by field within limits, and the bound on how many are read at once."""

from __future__ import annotations

import asyncio
import io
import os
import urllib.parse
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import BinaryIO

from aiohttp import BodyPartReader, ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from edge_face.errors import RequestError
from edge_face.web.replies import Refusal
from edge_face.zips import MAX_ZIP_BYTES

MAX_IMAGE_BYTES = 20 * 1024 * 1024
MAX_IMAGES = 10
MAX_IMAGES_BYTES = 40 * 1024 * 1024
"""Of all photos of one request: several requests are held in memory at once, on boards that have little."""
MAX_URLENCODED_BYTES = 8 * 1024 * 1024
"""Python takes such a form apart in one piece, which would hold up a decision. Larger frames come as multipart."""
MAX_TEXT_BYTES = 16 * 1024
MAX_FIELDS = 50
BODY_S = 60.0
BODY_GRACE_S = 20.0
LEAST_BYTES_PER_S = 1024
"""A body that comes more slowly after `BODY_GRACE_S` is given up: it holds a place that others wait for."""
WAIT_S = 60.0
"""How long a request may wait for its turn."""
ZIP_BODY_S = 600.0
_OVERHEAD = 256 * 1024
"""Boundaries, part headers and short fields on top of the files."""
_CHUNK = 256 * 1024


CHECK: web.RequestKey[Callable[[], Awaitable[None]]] = web.RequestKey("check")
"""Of a request that was let in: asks again whether it may be here."""


async def check_again(request: web.Request) -> None:
    """Before what a request asks for is done: its body, or the work on it, may have taken minutes. Raises Refusal (401)
    where its token was revoked meanwhile.
    """
    if (check := request.get(CHECK)) is not None:
        await check()


@dataclass(frozen=True, eq=False, slots=True)
class Upload:
    """`filename` is what the client calls it; nothing is ever stored under it."""

    filename: str | None
    data: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """The fields that were asked for."""

    texts: dict[str, str] = field(default_factory=dict)
    files: list[Upload] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FileField:
    """Which field holds files, how many of how many bytes each, and how long a body may take."""

    names: tuple[str, ...]
    max_bytes: int = MAX_IMAGE_BYTES
    max_count: int = 1
    body_s: float = BODY_S

    @property
    def max_total(self) -> int:
        return min(self.max_count * self.max_bytes, max(self.max_bytes, MAX_IMAGES_BYTES))


IMAGE = FileField(("image",))
IMAGES = FileField(("image",), max_count=MAX_IMAGES)
ZIP = FileField(("zip",), MAX_ZIP_BYTES, body_s=ZIP_BODY_S)


class Receiving:
    """A body while it comes: it may take `most_s`, and less while it comes slowly.

    Ends in Refusal (408) when it takes longer, in RequestError when it breaks off or cannot be unpacked.
    """

    def __init__(self, most_s: float) -> None:
        self._begin = asyncio.get_running_loop().time()
        self._end = self._begin + most_s
        self._received = 0
        self._timeout = asyncio.timeout_at(self._due)

    async def __aenter__(self) -> Receiving:
        await self._timeout.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, trace)
        except TimeoutError:
            raise Refusal(408, "request_timeout", "The request's body took too long.") from None
        if isinstance(error, ClientPayloadError | web.RequestPayloadError | ConnectionError):
            raise RequestError("The request's body is damaged, or ended early.", "malformed_body") from None

    def received(self, count: int) -> None:
        self._received += count
        self._timeout.reschedule(self._due)

    @property
    def _due(self) -> float:
        return min(self._end, self._begin + BODY_GRACE_S + self._received / LEAST_BYTES_PER_S)


@asynccontextmanager
async def memory_file() -> AsyncIterator[BinaryIO]:
    """For an upload that is large: a file in memory alone. The kernel grows it without moving it, and takes it back
    without holding up the event loop (228 MiB of `bytes`: 14 ms on a fast machine).
    """
    file = os.fdopen(os.memfd_create("upload"), "w+b")
    try:
        yield file
    finally:
        await asyncio.to_thread(file.close)


async def read_form(request: web.Request, files: FileField | None = None, into: BinaryIO | None = None) -> Form:
    """The form of a request, as multipart or urlencoded. Other fields are skipped.

    `into`: where the bytes of the one file go, instead of into its `data`.

    Raises RequestError (malformed, a field that is missing or there twice), Refusal (401, 408, 413, 415).
    """
    limit = _OVERHEAD + (files.max_total if files else 0)
    if request.content_length is not None and request.content_length > limit:
        raise _too_large("The request", limit)
    try:
        async with Receiving(files.body_s if files else BODY_S) as body:
            if request.content_type == "multipart/form-data":
                form = await _read_multipart(request, files, limit, body, into)
            elif request.content_type == "application/x-www-form-urlencoded":
                form = await _read_urlencoded(request, files, limit, body, into)
            elif not request.body_exists:
                form = Form()
            else:
                raise Refusal(415, "unsupported_media_type", "Send a form: multipart/form-data or urlencoded.")
    except (ValueError, LookupError, AssertionError, RuntimeError, HttpProcessingError):
        # aiohttp raises many things for forms that lack a boundary or have broken part headers.
        raise RequestError("The form is malformed.", "malformed_form") from None
    if files and not form.files:
        raise RequestError(f"The field {files.names[0]} is missing.", "missing_field")
    await check_again(request)
    return form


async def _read_multipart(
    request: web.Request, files: FileField | None, limit: int, body: Receiving, into: BinaryIO | None
) -> Form:
    form = Form()
    count = read = 0
    reader = await request.multipart()
    while (part := await reader.next()) is not None:
        count += 1
        if not isinstance(part, BodyPartReader) or part.name is None or count > MAX_FIELDS:
            raise ValueError
        is_file = files is not None and part.name in files.names
        data = into if into and is_file else io.BytesIO()  # which gives its bytes away without copying them
        size = await _read_part(part, files.max_bytes if files and is_file else MAX_TEXT_BYTES, body, data)
        read += size
        if read > limit:
            raise _too_large("The request", limit)
        if is_file:
            if size or part.filename:  # a browser sends an empty part for a file that nobody chose
                _add_file(form, files, Upload(part.filename, _bytes_of(data)))
        elif not part.filename:
            _add_text(form, part.name, _bytes_of(data).decode(part.get_charset("utf-8")))
    return form


async def _read_part(part: BodyPartReader, limit: int, body: Receiving, into: BinaryIO) -> int:
    size = 0
    while chunk := await part.read_chunk(_CHUNK):
        body.received(len(chunk))
        size += len(chunk)
        if size > limit:
            raise _too_large(f"The field {part.name}", limit)
        into.write(chunk)
    return size


def _bytes_of(data: BinaryIO) -> bytes:
    return data.getvalue() if isinstance(data, io.BytesIO) else b""


async def _read_urlencoded(
    request: web.Request, files: FileField | None, limit: int, body: Receiving, into: BinaryIO | None
) -> Form:
    limit = min(2 * limit, MAX_URLENCODED_BYTES)  # base64 takes 4 bytes for 3, and percent signs more
    data = bytearray()
    async for chunk in request.content.iter_chunked(_CHUNK):
        body.received(len(chunk))
        data += chunk
        if len(data) > limit:
            raise _too_large("The request", limit)
    form = Form()
    text = data.decode("ascii")
    pairs = await asyncio.to_thread(
        urllib.parse.parse_qsl, text, True, True, errors="strict", max_num_fields=MAX_FIELDS
    )
    for name, value in pairs:
        if files is not None and name in files.names:
            sent = value.encode()
            if into:
                into.write(sent)
            _add_file(form, files, Upload(None, b"" if into else sent))
        elif len(value) > MAX_TEXT_BYTES:
            raise _too_large(f"The field {name}", MAX_TEXT_BYTES)
        else:
            _add_text(form, name, value)
    return form


def _add_text(form: Form, name: str, value: str) -> None:
    if name in form.texts:
        raise RequestError(f"The field {name} is there twice.", "bad_field")
    form.texts[name] = value


def _add_file(form: Form, files: FileField | None, upload: Upload) -> None:
    assert files is not None
    if len(form.files) >= files.max_count:
        raise RequestError(f"The field {files.names[0]} is there more than {files.max_count} times.", "too_many_files")
    form.files.append(upload)


def _too_large(what: str, limit: int) -> Refusal:
    size = f"{limit >> 20} MiB" if limit >= 1 << 20 else f"{limit >> 10} KiB"
    return Refusal(413, "too_large", f"{what} is larger than {size}.")


class Slots:
    """How many requests of a kind are worked on at once, and how many more may wait a while. The rest hear 429 at once.

    A slot is taken before the body is read, so that waiting requests hold no memory.
    """

    def __init__(self, at_once: int, waiting: int = 0) -> None:
        self._free = asyncio.Semaphore(at_once)
        self._room = at_once + waiting

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[None]:
        """Raises Refusal (429)."""
        if not self._room:
            raise _busy()
        self._room -= 1
        try:
            try:
                async with asyncio.timeout(WAIT_S):
                    await self._free.acquire()
            except TimeoutError:
                raise _busy() from None
            try:
                yield
            finally:
                self._free.release()
        finally:
            self._room += 1


def _busy() -> Refusal:
    message = "Too many requests of this kind are being worked on; try again."
    return Refusal(429, "busy", message, {"Retry-After": "2"})
