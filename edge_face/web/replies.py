"""JSON answers, and the one table that turns an error into a status."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from aiohttp import web

from edge_face.errors import (
    CaptureError,
    ConflictError,
    EdgeFaceError,
    ImageError,
    ModelError,
    NotFoundError,
    RequestError,
    StoreError,
    WorkerError,
)

_log = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[EdgeFaceError], int], ...] = (
    (ImageError, 422),
    (RequestError, 400),
    (NotFoundError, 404),
    (ConflictError, 409),
    (StoreError, 503),
    (WorkerError, 503),
    (ModelError, 503),
    (CaptureError, 503),
)
_STATUS_OF_CODE = {"too_large": 413, "unsupported_format": 415}

_WORDS: Mapping[int, tuple[str, str]] = {
    404: ("not_found", "There is nothing at this address."),
    413: ("too_large", "The request is too large."),
}


class Refusal(EdgeFaceError):
    """A request that HTTP itself, and no other part, refuses: who asks, how much, how often."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message, code)
        self.status = status
        self.headers = dict(headers or {})


def reply(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """`body` as JSON; numbers that JSON lacks (NaN) become null."""
    return web.Response(
        body=msgspec.json.encode(body), status=status, headers=headers, content_type="application/json", charset="utf-8"
    )


def refusal(error: Refusal | EdgeFaceError | web.HTTPException, request: web.Request) -> Refusal:
    """Any error raised on purpose as what is sent for it."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, web.HTTPException):
        return _of_http(error, request)
    if isinstance(error, StoreError):
        # The text names a path and may reach people without a token.
        _log.error("%s", error.message)
        reason = error.reason or "the log says why"
        return Refusal(503, error.code, f"The database cannot be used at present: {reason}.", {"Retry-After": "5"})
    status = _STATUS_OF_CODE.get(error.code) if isinstance(error, ImageError) else None
    if status is None:
        status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if status >= 500:
        _log.error("%s: %s", error.code, error.message)
    headers = {"Retry-After": "5"} if status == 503 else None
    return Refusal(status, error.code, error.message, headers)


def _of_http(error: web.HTTPException, request: web.Request) -> Refusal:
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        message = f"{request.method} does not work at this address; {allowed} does."
        return Refusal(405, "method_not_allowed", message, {"Allow": allowed})
    phrase = HTTPStatus(error.status).phrase
    code, message = _WORDS.get(error.status, (phrase.lower().replace(" ", "_"), f"{phrase}."))
    return Refusal(error.status, code, message)


def error_reply(error: Refusal, *, drop_in: bool = False) -> web.Response:
    """`{"error": code, "message": sentence}`; the drop-in routes' clients look for `success` as well."""
    body: dict[str, Any] = {"success": False} if drop_in else {}
    return reply(body | {"error": error.code, "message": error.message}, error.status, error.headers)
