"""`triptych serve` and `triptych mcp`."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

from triptych.cli.command import command
from triptych.cli.terminal import say
from triptych.errors import InputError, MissingExtra

if TYPE_CHECKING:
    from triptych.cli.options import Loading
    from triptych.encode.encoder import Encoder
    from triptych.index.index import Index
    from triptych.serve.settings import ServeSettings

_T = TypeVar("_T")


@command(
    {
        "places": "INDEX",
        "model": "-m",
        "devices": "--devices DEVICE,DEVICE",
        "loading.device": None,
        "cors": "ORIGIN...",
        "join": "--join/--no-join",
    },
    basic="places model devices host port keys read_only",
)
def serve(
    places: list[str] | None = None,
    *,
    model: list[str] | None = None,
    devices: tuple[str, ...] = (),
    settings: ServeSettings,
    loading: Loading,
    quiet: bool = False,
) -> None:
    """Serve indexes and their models over HTTP, with a search page.

    Speaks its own form and those of OpenAI, text-embeddings-inference, Cohere, Jina and vLLM; /docs describes them.
    After SIGHUP it serves what the names stand for then (triptych switch).

    Example: triptych serve my.index --port 8080

    Args:
        places: Folders or Qdrant addresses of indexes; each is served under the last part of its name, or under NAME if
            it is given as NAME=PLACE.
        model: Models to serve: 'small', a checkpoint folder, or a Hub name; repeatable. The indexes' own are loaded
            from where they were, unless they are among these.
        devices: Devices to compute on, each with its copy of the models; by default a GPU if there is one.
        quiet: Write no access log on standard error.
    """
    import logging
    import sys
    from importlib.util import find_spec

    if missing := [
        name
        for name in ("fastapi", "uvicorn", "orjson", "prometheus_client", "mcp", "pyarrow")
        if not find_spec(name)
    ]:
        raise MissingExtra(f"triptych serve (without {missing[0]})", "serve")
    from triptych.cli.options import default_model
    from triptych.serve.app import run
    from triptych.serve.reload import Reloader
    from triptych.serve.service import Service

    if settings.new_indexes is not None:
        places = [*(places or []), *_indexes_in(settings.new_indexes)]
        model = model or ([] if places else [default_model()])  # new indexes need one
    if not places and not model:
        raise InputError("serve: got nothing to serve; expected indexes, or --model")
    names = _names(places or [])
    indexes = _open(names)
    service = _in_own_thread(
        lambda: Service(_load(indexes, model or [], devices, loading), indexes, settings)
    )
    del indexes  # one that the service no longer has is to close itself
    service.reload = Reloader(
        service,
        names,
        lambda source: _in_own_thread(lambda: _copies(source, devices, loading)),
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    for logger, level in (("access", logging.ERROR if quiet else logging.INFO), ("serve", logging.INFO)):
        logging.getLogger(f"triptych.{logger}").setLevel(level)
        logging.getLogger(f"triptych.{logger}").addHandler(handler)
    scheme = "https" if settings.certificate else "http"
    say(f"serving {', '.join(names) or 'embeddings'} on {scheme}://{settings.host}:{settings.port}")
    run(service)


@command({"places": "INDEX", "model": "-m"})
def mcp(
    places: list[str],
    *,
    allow_writes: bool = False,
    model: list[str] | None = None,
    loading: Loading,
) -> None:
    """Give agents the search of indexes, by the Model Context Protocol over standard input and output.

    The tools are search and fetch, with --allow-writes also add. A server of triptych serve has them under /mcp.

    Example: triptych mcp my.index

    Args:
        places: Folders or Qdrant addresses of indexes.
        allow_writes: Let agents add documents.
        model: Load the model of an index from here instead of from where it was: a checkpoint folder or a Hub name.
    """
    import asyncio

    from triptych.serve.mcp import mcp_server
    from triptych.serve.service import Service

    indexes = _open(_names(places))
    service = _in_own_thread(lambda: Service(_load(indexes, model or [], (), loading), indexes))

    async def run() -> None:
        await service.start()
        try:
            await mcp_server(service, may_write=(lambda _: True) if allow_writes else None).run_stdio_async()
        finally:
            await service.close()

    asyncio.run(run())


def _indexes_in(folder: Path) -> list[str]:
    from triptych.index.storage import MANIFEST

    return [str(path.parent) for path in sorted(folder.glob(f"[!.]*/{MANIFEST}"))]


def _names(places: list[str]) -> dict[str, str]:
    """Places by the names before them (NAME=PLACE), or the last part of their own."""
    found: dict[str, str] = {}
    for given in places:
        name, equals, place = given.partition("=")
        if not equals or "/" in name or os.path.lexists(given):
            path = given.partition("?")[0] if "://" in given else given
            name, place = path.rstrip("/").rpartition("/")[2], given
        if name in found:
            raise InputError(f"serve: got two indexes with the name {name!r}; expected different names")
        found[name] = place
    return found


def _open(places: dict[str, str]) -> dict[str, Index]:
    """Open indexes by name."""
    from triptych.index.index import Index

    return {name: Index.open(place) for name, place in places.items()}


def _load(
    indexes: dict[str, Index], names: list[str], devices: tuple[str, ...], loading: Loading
) -> dict[str, list[Encoder]]:
    """Models by name, once per device: those of the indexes, and the others that are wanted."""
    models: dict[str, list[Encoder]] = {}

    for name in names:
        models[name] = _copies(name, devices, loading)
    for index in indexes.values():
        facts = index.info()["model"]
        if facts["fingerprint"] not in [encoders[0].fingerprint for encoders in models.values()]:
            models[facts["source"]] = _copies(facts["source"], devices, loading)
    return models


def _copies(source: str, devices: tuple[str, ...], loading: Loading) -> list[Encoder]:
    return [replace(loading, device=device).encoder(source) for device in devices or (None,)]


def _in_own_thread(work: Callable[[], _T]) -> _T:
    """Calls a function in a thread that ends with it.

    OpenMP keeps helpers for each living thread that has computed. If they are more than the cores, they sleep between
    any two products: if the main thread had loaded the model, the one that computes would be a sixth slower.
    """
    result: Future[_T] = Future()

    def run() -> None:
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    thread = Thread(target=run, daemon=True)  # an interrupted download ends with the program
    thread.start()
    thread.join()
    return result.result()
