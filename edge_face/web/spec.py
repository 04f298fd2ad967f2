"""What a route says of itself, how requests are checked against that, and the OpenAPI document made from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from aiohttp import web
from msgspec import Struct

from edge_face import __version__
from edge_face.errors import RequestError
from edge_face.web import sessions
from edge_face.web.forms import BODY_S, FileField, Receiving
from edge_face.web.schema import Error

if TYPE_CHECKING:
    from edge_face.web.services import Route

T = TypeVar("T", bound=Struct)

JSON = "application/json"
MAX_JSON_BYTES = 64 * 1024
_REF = "#/components/schemas/{name}"
_BINARY = {"type": "string", "contentMediaType": "application/octet-stream"}
_SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "Any user; the token is the password."},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "session": {
        "type": "apiKey",
        "in": "cookie",
        "name": sessions.COOKIE,
        "description": "Of `/login`. What changes anything needs an `Origin` of this server, too.",
    },
}
_TOKEN_IN_QUERY = {"token": {"type": "apiKey", "in": "query", "name": "token", "description": "A viewer's."}}


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
    """The JSON object of a body. Raises RequestError, Refusal (408), and aiohttp's error for one that is too large."""
    data = bytearray()
    async with Receiving(BODY_S) as body:
        async for chunk in request.content.iter_chunked(limit):
            body.received(len(chunk))
            data += chunk
            if len(data) > limit:
                raise web.HTTPRequestEntityTooLarge(limit, len(data))
    try:
        return msgspec.json.decode(bytes(data), type=dict[str, Any])
    except msgspec.ValidationError as error:
        raise RequestError(f"In the body: {_words(error)}.", "bad_field") from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise RequestError("The body is not JSON.", "malformed_json") from None


def document(routes: Iterable[Route], title: str = "edge-face") -> dict[str, Any]:
    """OpenAPI 3.1 of the routes that say what they are."""
    known = [route for route in routes if route.spec is not None]
    kinds: list[Any] = [Error]
    for route in known:
        assert route.spec is not None
        kinds += [kind for kind in (route.spec.reply, route.spec.body, *route.spec.others.values()) if kind is not None]
        kinds += [kind for kind in (route.spec.query, route.spec.form) if kind is not None]
    schemas, components = msgspec.json.schema_components(kinds, ref_template=_REF)
    named = {_key(kind): schema for kind, schema in zip(kinds, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in known:
        operation = _Operation(route, named, components)
        paths.setdefault(route.path, {})[route.method.lower()] = operation.build()
    hidden = {_name(kind) for route in known if route.spec for kind in (route.spec.query, route.spec.form) if kind}
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": __version__, "description": "Face recognition for gates and doors."},
        "paths": paths,
        "components": {
            "schemas": {name: schema for name, schema in components.items() if name not in hidden},
            "securitySchemes": _SECURITY | _TOKEN_IN_QUERY,
        },
    }


class _Operation:
    def __init__(self, route: Route, named: Mapping[str, Any], components: Mapping[str, Any]) -> None:
        assert route.spec is not None
        self._route, self._spec = route, route.spec
        self._named, self._components = named, components

    def build(self) -> dict[str, Any]:
        spec, route = self._spec, self._route
        operation: dict[str, Any] = {"summary": spec.summary, "operationId": _operation_id(route)}
        if parameters := [*self._path_parameters(), *self._query_parameters()]:
            operation["parameters"] = parameters
        if (body := self._request_body()) is not None:
            operation["requestBody"] = {"required": True, "content": body}
        operation["responses"] = self._responses()
        schemes = _SECURITY | (_TOKEN_IN_QUERY if route.socket else {})
        operation["security"] = [{name: []} for name in schemes] if route.role else []
        if route.role:
            operation["x-role"] = route.role
        return operation

    def _path_parameters(self) -> list[dict[str, Any]]:
        names = re.findall(r"{(\w+)[^}]*}", self._route.path)
        return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]

    def _query_parameters(self) -> list[dict[str, Any]]:
        if self._spec.query is None:
            return []
        properties = self._components[_name(self._spec.query)]["properties"]
        return [{"name": name, "in": "query", "schema": _without_null(schema)} for name, schema in properties.items()]

    def _request_body(self) -> dict[str, Any] | None:
        spec = self._spec
        content = {} if spec.body is None else {JSON: {"schema": self._named[_key(spec.body)]}}
        if spec.form is None and spec.files is None:
            return content or None
        fields = self._components[_name(spec.form)] if spec.form else {"properties": {}, "required": []}
        properties = {name: _without_null(schema) for name, schema in fields["properties"].items()}
        required = list(fields.get("required", ()))
        if spec.files is not None:
            one = _BINARY
            many = {"type": "array", "items": one, "minItems": 1, "maxItems": spec.files.max_count}
            properties[spec.files.names[0]] = one if spec.files.max_count == 1 else many
            required.append(spec.files.names[0])
        schema = {"type": "object", "properties": properties, "required": required}
        kinds = ["multipart/form-data"] if spec.files else ["multipart/form-data", "application/x-www-form-urlencoded"]
        return content | {kind: {"schema": schema} for kind in kinds}

    def _responses(self) -> dict[str, Any]:
        spec = self._spec
        content: dict[str, Any] = {media: {"schema": _BINARY} for media in spec.media}
        if spec.reply is not None:
            content[JSON] = {"schema": self._named[_key(spec.reply)]}
        done: dict[str, Any] = {"description": HTTPStatus(spec.status).phrase}
        if content:
            done["content"] = content
        responses = {str(spec.status): done}
        for status, kind in spec.others.items():
            responses[str(status)] = {"description": HTTPStatus(status).phrase}
            if kind is not None:
                responses[str(status)]["content"] = {JSON: {"schema": self._named[_key(kind)]}}
        for status in sorted(self._errors()):
            schema = {JSON: {"schema": {"$ref": _REF.format(name="Error")}}}
            responses[str(status)] = {"description": HTTPStatus(status).phrase, "content": schema}
        return responses

    def _errors(self) -> set[int]:
        spec, errors = self._spec, {403, 500, 503, *self._spec.errors}
        if self._route.role:
            errors |= {401, 429}
        if spec.query is not None:
            errors.add(400)
        if spec.body is not None:
            errors |= {400, 408, 413}
        if spec.form is not None or spec.files is not None:
            errors |= {400, 408, 413, 415}
        if spec.files is not None:
            errors.add(422)
        if "{" in self._route.path:
            errors.add(404)
        return errors - {spec.status, *spec.others}


def _operation_id(route: Route) -> str:
    words = re.findall(r"[A-Za-z0-9]+", route.path.removeprefix("/api/v1"))
    return "_".join([route.method.lower(), *words])


def _key(kind: Any) -> str:
    return repr(kind)


def _name(kind: Any) -> str:
    return str(kind.__name__)


def _without_null(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A parameter that is not there is not null."""
    schema = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    options = [each for each in schema.get("anyOf", ()) if each != {"type": "null"}]
    if len(options) == 1:
        del schema["anyOf"]
        return {**schema, **options[0]}
    return schema


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
