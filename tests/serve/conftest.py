"""Servers on loopback for the tests: the real thing, with uvicorn, in a thread."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn

from triptych import Encoder
from triptych.index.index import Index
from triptych.serve.app import configure
from triptych.serve.service import Service
from triptych.serve.settings import ServeSettings

DOCUMENTS: list[dict[str, Any]] = [
    {"id": "a", "text": "bge m3 is a model of text", "metadata": {"lang": "en", "year": 2024}},
    {"id": "b", "text": "defination of bm25", "metadata": {"lang": "de", "year": 2020}},
    {"id": "c", "text": "hello world", "metadata": {"lang": "fr", "year": 2022}},
    {"id": "d/é", "text": "a retrieval model of the world", "metadata": {"lang": "fr", "year": 2019}},
]


class Running:
    """A server that runs, and its service."""

    def __init__(self, service: Service, server: uvicorn.Server, port: int) -> None:
        self.service, self.server, self.port = service, server, port
        self.url = f"http://127.0.0.1:{port}"

    def metric(self, name: str) -> float:
        """The value of a metric without labels."""
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return float(next(line.split()[1] for line in lines if line.startswith(f"{name} ")))


@contextmanager
def serving(
    models: Mapping[str, list[Encoder]], indexes: Mapping[str, Index], **settings: Any
) -> Generator[Running]:
    """Runs a server in a thread; it is stopped as by SIGTERM."""
    service = Service(models, indexes, ServeSettings(**settings))
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    server = uvicorn.Server(configure(service))
    thread = threading.Thread(target=lambda: server.run(sockets=[sock]), daemon=True)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        yield Running(service, server, sock.getsockname()[1])
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server does not stop"
        sock.close()


def make_index(place: Path, encoder: Encoder) -> Index:
    """An index of `DOCUMENTS`."""
    index = Index.create(place, encoder, engine="exact")
    index.add(
        [d["id"] for d in DOCUMENTS], [d["text"] for d in DOCUMENTS], [d["metadata"] for d in DOCUMENTS]
    )
    return index


@pytest.fixture(scope="package")
def shared_server(encoder: Encoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server with the tiny model and an index that no test changes."""
    index = make_index(tmp_path_factory.mktemp("serve") / "my.index", encoder)
    with serving({"tiny": [encoder]}, {"my.index": index}) as running:
        yield running


@pytest.fixture
def start(encoder: Encoder, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Starts a server of the tiny model with settings of its own and an index that the test may change."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Running:
            index = make_index(tmp_path / f"{len(list(tmp_path.iterdir()))}.index", encoder)
            return stack.enter_context(serving({"tiny": [encoder]}, {"my.index": index}, **settings))

        yield make
