"""What stands between the network and the routes: limits, keys, time-outs, cancellation, metrics, the access log."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from typing import Any, TypeAlias

from triptych.serve.errors import reply
from triptych.serve.service import Service
from triptych.serve.settings import LOOPBACK

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

access = logging.getLogger("triptych.access")
"""One line a request: client, method, route, status, seconds. Of texts, queries and ids it has nothing."""

_READ_BY_POST = re.compile(r"/v1/indexes/[^/]+/(search|explain|documents/get)")
OPEN_PATHS = ("/health", "/ready")


class _ClientGone(Exception):
    """The client closed the connection."""


class _Answered(Exception):
    """The request is refused with a status and a message."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Guard:
    """ASGI middleware around all routes.

    Args:
        app: The routes.
        service: Whose settings, keys and metrics count.
    """

    def __init__(self, app: App, service: Service) -> None:
        self._app, self._service = app, service
        self._held = 0  # bytes of bodies
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, answer = time.perf_counter(), _Answer(send, self._service.settings.client_timeout)
        metrics = self._service.metrics
        self._running += 1
        metrics.in_flight.set(self._running)
        body: list[bytes] = []
        try:
            try:
                self._check(scope)
                await self._read(scope, receive, body)
                await self._run(scope, receive, answer, b"".join(body))
            except _Answered as refused:
                await answer.refuse(refused.status, refused.message, refused.headers)
            except TimeoutError:
                await answer.refuse(504, f"this took longer than {self._service.settings.timeout:g} s", {})
            except _ClientGone:
                answer.status = 499
                metrics.cancelled.inc()
            except Exception:
                access.exception("%s %s failed", scope["method"], _route(scope))
                await answer.refuse(500, "the server failed; its log has more", {})
        finally:
            self._held -= sum(map(len, body))
            self._running -= 1
            seconds = time.perf_counter() - started
            route = _route(scope)
            metrics.in_flight.set(self._running)
            metrics.body_bytes.set(self._held)
            metrics.requests.labels(scope["method"], route, answer.status).inc()
            metrics.seconds.labels(route).observe(seconds)
            client = scope["client"][0] if scope.get("client") else "-"
            access.info("%s %s %s %d %.4f", client, scope["method"], route, answer.status, seconds)

    def _check(self, scope: Scope) -> None:
        """Who asks, and whether they may."""
        settings, keys = self._service.settings, self._service.keys
        if self._running > 2 * settings.queue:
            raise _Answered(429, "too many requests wait", retry_after="1")
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if settings.is_local and not _names_loopback(headers.get(b"host", "")):
            # Else a page of another site could reach the server by a name of its own that points here.
            raise _Answered(421, "host: this server listens to this machine alone; expected localhost")
        if scope["path"] in OPEN_PATHS or _is_page(scope) or not keys:
            return
        bearer = headers.get(b"authorization", "")
        key = bearer[7:].strip() if bearer[:7].lower() == "bearer " else headers.get(b"x-api-key")
        right = keys.right_of(key)
        if right is None:
            raise _Answered(
                401, "expected a valid key as 'Authorization: Bearer KEY'", www_authenticate="Bearer"
            )
        scope.setdefault("state", {})["right"] = right
        if right != "write" and _is_write(scope):
            raise _Answered(403, "this key may only read; writing needs another")

    async def _read(self, scope: Scope, receive: Receive, body: list[bytes]) -> None:
        """The whole body; more than is allowed, or too slowly, and the request is refused."""
        settings = self._service.settings
        most, held = int(settings.max_body_mb * 2**20), int(settings.queue_mb * 2**20)
        size, announced = 0, dict(scope["headers"]).get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > most:
            raise _Answered(413, f"body: expected at most {settings.max_body_mb:g} MB", connection="close")
        try:
            async with asyncio.timeout(settings.client_timeout):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientGone
                    chunk = message.get("body", b"")
                    size += len(chunk)
                    if size > most:
                        raise _Answered(
                            413, f"body: expected at most {settings.max_body_mb:g} MB", connection="close"
                        )
                    if self._held + len(chunk) > held:
                        raise _Answered(429, "too much is waiting", retry_after="1", connection="close")
                    body.append(chunk)
                    self._held += len(chunk)
                    if not message.get("more_body"):
                        return
        except TimeoutError:
            raise _Answered(
                408, f"body: took longer than {settings.client_timeout:g} s", connection="close"
            ) from None

    async def _run(self, scope: Scope, receive: Receive, answer: _Answer, body: bytes) -> None:
        """Runs the routes, until they are done, time is up, or the client goes."""
        unread = [{"type": "http.request", "body": body, "more_body": False}]
        gone = asyncio.Event()

        async def replay() -> Message:
            if unread:
                return unread.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        work = asyncio.ensure_future(self._app(scope, replay, answer.send))
        watcher = asyncio.create_task(watch())
        try:
            done, _ = await asyncio.wait(
                {work, watcher}, timeout=self._service.settings.timeout, return_when=asyncio.FIRST_COMPLETED
            )
            if (
                work in done or answer.ended
            ):  # an answer that is read to its end looks like a client that goes
                await work
            elif watcher in done:
                raise _ClientGone
            else:
                raise TimeoutError
        finally:
            for task in (work, watcher):
                task.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await task


class _Answer:
    """The way back: remembers the status, and gives up on a client that does not read."""

    def __init__(self, send: Send, timeout: float) -> None:
        self._send, self._timeout = send, timeout
        self.status, self.ended = 0, False

    async def send(self, message: Message) -> None:
        """See ASGI."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message.get("headers", []), (b"x-content-type-options", b"nosniff")]
        elif not message.get("more_body"):
            self.ended = True
        try:
            async with asyncio.timeout(self._timeout):
                await self._send(message)
        except TimeoutError:
            raise _ClientGone from None

    async def refuse(self, status: int, message: str, headers: dict[str, str]) -> None:
        """Answers with an error, unless an answer has begun."""
        if self.status:
            return
        response = reply(status, message, headers=headers)

        async def nothing() -> Message:
            return {"type": "http.disconnect"}

        with suppress(_ClientGone):
            await response({"type": "http"}, nothing, self.send)


def _route(scope: Scope) -> str:
    """The route's template, which holds no name, id or query."""
    route = scope.get("route")
    return getattr(route, "path", None) or ("page" if _is_page(scope) else "none")


def _is_page(scope: Scope) -> bool:
    """Whether this is a file of the search page, which anyone may read."""
    path: str = scope["path"]
    return scope["method"] in ("GET", "HEAD") and not path.startswith(
        ("/v1", "/v2", "/mcp", "/metrics", "/info")
    )


def _is_write(scope: Scope) -> bool:
    """Whether a request changes documents; some are only read by POST. An id may end like one of their paths."""
    path: str = scope["path"].rstrip("/")
    if not path.startswith("/v1/indexes/") or scope["method"] in ("GET", "HEAD", "OPTIONS"):
        return False
    return scope["method"] != "POST" or _READ_BY_POST.fullmatch(path) is None


def _names_loopback(host: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    return name.strip("[]").lower() in LOOPBACK or host == ""
