"""`/openapi.json`, and `/docs`: the same as one page, which needs nothing from elsewhere and no script."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from aiohttp import web

from edge_face.web.openapi import document
from edge_face.web.replies import reply
from edge_face.web.services import Route
from edge_face.web.spec import JSON, Spec

_OPENAPI = Spec("This API as OpenAPI 3.1", dict[str, Any])
_DOCS = Spec("This API as a page", media=("text/html",))

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1c1e21;
  background: #fff }
h2 { font: 600 1.05rem ui-monospace, monospace; margin: 2rem 0 .25rem; border-top: 1px solid #8884; padding-top: 1rem }
h2 b { display: inline-block; min-width: 4.5rem }
code, td:first-child, pre { font-family: ui-monospace, monospace; font-size: .9rem }
table { border-collapse: collapse; margin: .5rem 0 } td { padding: .15rem 1rem .15rem 0; vertical-align: top }
pre { background: #8881; padding: .75rem; overflow-x: auto } p { margin: .25rem 0 } a { color: inherit }
@media (prefers-color-scheme: dark) { body { color: #e4e6eb; background: #18191a } }
"""
_POLICY = {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    "Referrer-Policy": "no-referrer",
}


class ApiDocs:
    """Of `routes` and its own."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._own = [
            Route("GET", "/openapi.json", self.openapi, "viewer", _OPENAPI),
            Route("GET", "/docs", self.docs, "viewer", _DOCS),
        ]
        self._document = document([*routes, *self._own])
        self._page = "".join(page(self._document))

    def routes(self) -> list[Route]:
        return self._own

    async def openapi(self, _request: web.Request) -> web.Response:
        return reply(self._document)

    async def docs(self, _request: web.Request) -> web.Response:
        return web.Response(text=self._page, content_type="text/html", headers=_POLICY)


def page(api: Mapping[str, Any]) -> Iterator[str]:
    title = f"{api['info']['title']} {api['info']['version']}"
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    yield '<meta name="viewport" content="width=device-width"><link rel="icon" href="data:,">'
    yield f"<style>{_STYLE}</style><h1>{html.escape(title)}</h1>"
    yield f"<p>{html.escape(api['info']['description'])} For programs: <a href=openapi.json>openapi.json</a>.</p>"
    for path, methods in api["paths"].items():
        for method, operation in methods.items():
            yield from _operation(path, method, operation)
    yield "<h1>Schemas</h1>"
    for name, schema in api["components"]["schemas"].items():
        yield f'<h2 id="{html.escape(name)}">{html.escape(name)}</h2>'
        yield from _fields(schema)


def _operation(path: str, method: str, operation: Mapping[str, Any]) -> Iterator[str]:
    role = operation.get("x-role")
    yield f"<h2><b>{method.upper()}</b>{html.escape(path)}</h2><p>{html.escape(operation['summary'])}. "
    yield f"Needs {'an admin' if role == 'admin' else 'a viewer'}'s token.</p>" if role else "Open to all.</p>"
    if parameters := operation.get("parameters"):
        yield "<table>"
        for each in parameters:
            yield _row(each["name"], each["schema"], required=each.get("required", False))
        yield "</table>"
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        yield f"<p>Send <code>{html.escape(kind)}</code>:</p>"
        yield from _fields(content["schema"])
    yield "<table>"
    for status, answer in operation["responses"].items():
        kinds = (_kind(each["schema"]) if media == JSON else media for media, each in answer.get("content", {}).items())
        yield f"<tr><td>{status}</td><td>{html.escape(answer['description'])}</td><td>{', '.join(kinds)}</td></tr>"
    yield "</table>"


def _fields(schema: Mapping[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        yield f"<p>{_kind(schema)}</p>"
        return
    if "properties" not in schema:
        yield f"<pre>{html.escape(json.dumps(schema, indent=1))}</pre>"
        return
    yield "<table>"
    for name, each in schema["properties"].items():
        yield _row(name, each, required=name in schema.get("required", ()))
    yield "</table>"


def _row(name: str, schema: Mapping[str, Any], *, required: bool) -> str:
    about = html.escape(str(schema.get("description", "")))
    need = "" if required else "optional"
    return f"<tr><td>{html.escape(name)}</td><td>{_kind(schema)}</td><td>{need}</td><td>{about}</td></tr>"


def _kind(schema: Mapping[str, Any]) -> str:
    """A schema in a word or two, with links to the named ones."""
    if "$ref" in schema:
        name = html.escape(str(schema["$ref"]).rpartition("/")[2])
        return f'<a href="#{name}">{name}</a>'
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if "enum" in schema:
        return html.escape(" | ".join(str(each) for each in schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if "contentMediaType" in schema:
        return "file"
    return html.escape(str(schema.get("type", "anything")))
