"""What a route says of itself, and how requests are checked against that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from edge_face.errors import RequestError
from edge_face.web.forms import BODY_S, FileField, Receiving, check_again

T = TypeVar("T", bound=Struct)

JSON = "application/json"
MAX_JSON_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Spec:
    """`reply` is the type of the JSON on success; `media` are other types of content that may come instead."""

    summary: str
    reply: Any = None
    status: int = 200
    query: type[Struct] | None = None
    form: type[Struct] | None = None
    files: FileField | None = None
    body: type[Struct] | None = None
    """As JSON; with `form` either will do."""
    media: tuple[str, ...] = ()
    others: Mapping[int, Any] = field(default_factory=dict)
    """Replies of other statuses that are no errors, and their types; None: without a body."""
    errors: tuple[int, ...] = ()
    """Beyond what every route may answer: 401, 403, 405, 503 and so on are added where they belong."""


def query_of(request: web.Request, kind: type[T]) -> T:
    """The query as `kind`; parameters that it does not know are ignored. Raises RequestError."""
    return _converted(dict(request.query), kind, ("query", "bad_query"), strict=False)


def texts_of(texts: Mapping[str, str], kind: type[T]) -> T:
    """A form's text fields as `kind`. Raises RequestError (`missing_field`, `bad_field`)."""
    values: dict[str, Any] = dict(texts)
    for each in msgspec.structs.fields(kind):
        if each.required and each.name not in values:
            raise RequestError(f"The field {each.name} is missing.", "missing_field")
        if each.name in values and getattr(each.type, "__origin__", each.type) is bool:  # may be Annotated
            values[each.name] = _flag(values[each.name], each.name)
    return _converted(values, kind, ("form", "bad_field"), strict=False)


async def body_of(request: web.Request, kind: type[T], limit: int = MAX_JSON_BYTES) -> T:
    """The JSON body as `kind`; fields that it does not know are ignored. Raises as `object_of`."""
    return convert_body(await object_of(request, limit), kind)


def convert_body(body: Mapping[str, Any], kind: type[T]) -> T:
    return _converted(body, kind, ("body", "bad_field"), strict=True)


def _converted(values: Mapping[str, Any], kind: type[T], where: tuple[str, str], *, strict: bool) -> T:
    """`where`: the place in words, and the error's code."""
    place, code = where
    try:
        return msgspec.convert(values, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise RequestError(f"In the {place}: {_words(error)}.", code) from None
    except UnicodeEncodeError:  # half a surrogate pair, for which Python has a character and Unicode has none
        raise RequestError(f"In the {place}: a text is not Unicode.", code) from None


async def object_of(request: web.Request, limit: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """The JSON object of a body. Raises RequestError, Refusal (401, 408), and aiohttp's error for too large a one."""
    data = bytearray()
    async with Receiving(BODY_S) as body:
        async for chunk in request.content.iter_chunked(limit):
            body.received(len(chunk))
            data += chunk
            if len(data) > limit:
                raise web.HTTPRequestEntityTooLarge(limit, len(data))
    await check_again(request)
    try:
        return msgspec.json.decode(bytes(data), type=dict[str, Any])
    except msgspec.ValidationError as error:
        raise RequestError(f"In the body: {_words(error)}.", "bad_field") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RequestError("The body is not JSON.", "malformed_json") from None


def _flag(text: str, name: str) -> bool:
    value = text.strip().lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("", "0", "false", "no", "off"):
        return False
    raise RequestError(f"The field {name} is yes or no.", "bad_field")


def _words(error: msgspec.ValidationError) -> str:
    """`Expected `int` <= 1000 - at `$.limit`` as `limit: expected `int` <= 1000`."""
    text, _, place = str(error).partition(" - at `$")
    field = place.strip("`.")
    text = text[:1].lower() + text[1:]
    return f"{field}: {text}" if field else text
