"""Every error of a server as one JSON object, which the clients of all forms can read."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from triptych.errors import (
    IndexCorrupt,
    IndexExists,
    IndexFault,
    IndexForeign,
    InputError,
    StorageError,
    TriptychError,
)
from triptych.serve.batching import Overloaded, RequestTooLarge
from triptych.serve.service import NotFound, Refused

log = logging.getLogger("triptych.serve")
_HIDDEN = {500: "the index or model failed", 503: "the index does not answer at present"}
"""Statuses whose errors tell of the server's inside: the log has them."""
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
}


def reply(
    status: int, message: str, *, field: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """An error: OpenAI's shape with the ``message`` that Cohere's clients look for and TEI's ``error_type``."""
    kind = _KINDS.get(status, "server_error" if status >= 500 else _KINDS[400])
    error: dict[str, Any] = {"message": message, "type": kind, "param": field, "code": status}
    content = {"error": error, "message": message, "error_type": "Validation" if status < 500 else "Backend"}
    return Response(orjson.dumps(content), status, headers, "application/json")


def install(app: FastAPI) -> None:
    """Makes answers of everything that the routes may raise."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(TriptychError, _ours)


def status_of(error: TriptychError) -> int:
    """The HTTP status of an error."""
    kinds: tuple[tuple[type[TriptychError], int], ...] = (
        (Overloaded, 429),
        (RequestTooLarge, 413),
        (NotFound, 404),
        (Refused, 403),
        (IndexExists, 409),
        (InputError, 422),
        (StorageError, 507),
        (IndexCorrupt, 500),
        (IndexForeign, 500),
        (IndexFault, 503),  # such as one on a server that does not answer
    )
    return next((status for kind, status in kinds if isinstance(error, kind)), 500)


async def _ours(_: Request, error: Exception) -> Response:
    assert isinstance(error, TriptychError)
    status = status_of(error)
    headers = {"retry-after": str(error.retry_after)} if isinstance(error, Overloaded) else None
    field = str(error).partition(":")[0] if isinstance(error, InputError) else None
    message = _HIDDEN.get(status, str(error))
    if status in _HIDDEN:
        headers = {"retry-after": "1"} if status == 503 else None
        log.error("%s: %s", type(error).__name__, error)
    return reply(status, message, field=field, headers=headers)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return reply(error.status_code, str(error.detail), headers=error.headers)


async def _invalid(_: Request, error: Exception) -> Response:
    """Names each field and what was expected; never what came, which may be a text."""
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if any(each["type"] == "json_invalid" for each in found):
        return reply(
            400, f"body: is no JSON: {found[0].get('ctx', {}).get('error', 'cannot be read')}", field="body"
        )
    problems = {
        ".".join(str(part) for part in each["loc"] if part != "body") or "body": each["msg"] for each in found
    }
    shown = "; ".join(f"{field}: {message}" for field, message in list(problems.items())[:5])
    return reply(422, shown, field=next(iter(problems)))
