"""The OpenAPI document, made from what the routes say of themselves."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec

from edge_face import __version__
from edge_face.web import sessions
from edge_face.web.schema import Error
from edge_face.web.services import Route
from edge_face.web.spec import JSON

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
