"""The server: routes, what runs at its start and end, and the search page."""

from __future__ import annotations

import asyncio
import math
import signal
import sys
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
from fastapi.staticfiles import StaticFiles
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import Scope

from triptych import __version__
from triptych.serve import errors
from triptych.serve.connection import connection_type
from triptych.serve.docs import docs_page
from triptych.serve.forms import cohere, openai, own, rerank, tei, vllm
from triptych.serve.guard import Guard
from triptych.serve.mcp import mcp_server, writes_over_http
from triptych.serve.service import Service

_SWITCH = 0.0005  # seconds; Python's own are 0.005
PAGE = Path(__file__).parent / "page"
"""The search page's files; they are served as they are."""
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # asked for again each time, by its ETag
}


class PageFiles(StaticFiles):
    """The search page, which loads nothing from elsewhere and runs nothing but its own files."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """See Starlette."""
        response = await super().get_response(path, scope)
        response.headers.update(_PAGE_HEADERS)
        return response


def create_app(service: Service) -> FastAPI:
    """The ASGI application of a service, which it starts and closes."""
    agents = mcp_server(service, may_write=writes_over_http(service))
    agent_routes = agents.streamable_http_app(
        stateless_http=True, json_response=True, host=service.settings.host
    ).routes

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        await service.start()
        _reload_on_sighup(service)
        async with agents.session_manager.run():
            yield
        await service.close()

    app = FastAPI(
        title="Triptych",
        version=__version__,
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # FastAPI's own pages load their scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    errors.install(app)
    app.add_middleware(Guard, service=service)
    if service.settings.cors:
        app.add_middleware(
            CORSMiddleware, allow_origins=service.settings.cors, allow_methods=["*"], allow_headers=["*"]
        )
    _add_health(app, service)
    for form in (own, rerank, openai, tei, cohere, vllm):
        app.include_router(form.router)
    app.router.routes.extend(agent_routes)

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:  # pyright: ignore[reportUnusedFunction]
        return HTMLResponse(docs_page(app.openapi()), headers=_PAGE_HEADERS)

    app.mount("/", PageFiles(directory=PAGE, html=True), "page")
    return app


def _reload_on_sighup(service: Service) -> None:
    if service.reload is None or threading.current_thread() is not threading.main_thread():
        return
    loop, reload = asyncio.get_running_loop(), service.reload
    running: set[asyncio.Future[None]] = set()

    def begin() -> None:
        task = asyncio.ensure_future(reload())
        running.add(task)  # the loop itself holds tasks weakly
        task.add_done_callback(running.discard)

    loop.add_signal_handler(signal.SIGHUP, begin)


def _add_health(app: FastAPI, service: Service) -> None:
    @app.get("/health", tags=["operation"])
    async def health() -> dict[str, str]:  # pyright: ignore[reportUnusedFunction]
        """Whether the process runs."""
        return {"status": "ok", "server": "triptych", "version": __version__}

    @app.get("/ready", tags=["operation"], responses={503: {"description": "It starts or stops."}})
    async def ready() -> Response:  # pyright: ignore[reportUnusedFunction]
        """Whether it takes requests."""
        return JSONResponse({"ready": service.ready}, 200 if service.ready else 503)

    @app.get("/metrics", tags=["operation"])
    async def metrics() -> Response:  # pyright: ignore[reportUnusedFunction]
        """Numbers for Prometheus."""
        return Response(service.metrics.render(), media_type="text/plain; version=0.0.4")


def configure(service: Service, **options: Any) -> uvicorn.Config:
    """Uvicorn's configuration for a service."""
    settings = service.settings
    tls: dict[str, Any] = {}
    if settings.certificate is not None and settings.private_key is not None:
        tls = {"ssl_certfile": str(settings.certificate), "ssl_keyfile": str(settings.private_key)}
    return uvicorn.Config(
        create_app(service),
        host=settings.host,
        port=settings.port,
        http=connection_type(settings.client_timeout),
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        backlog=2048,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=math.ceil(settings.grace),
        **tls,
        **options,
    )


def run(service: Service) -> None:
    """Serves until SIGINT or SIGTERM, then finishes what was accepted."""
    # After each of torch's calls a thread that computes waits so long for the interpreter, if the event loop is busy.
    sys.setswitchinterval(_SWITCH)
    uvicorn.Server(configure(service)).run()
