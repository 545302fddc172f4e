from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from fakes import FakeEncoder

from triptych.index.index import Index
from triptych.index.store import EngineName

ENGINES = ("exact", "edge", "server")


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> EngineName:
    return request.param


@pytest.fixture
def place(tmp_path: Path, engine: EngineName) -> str:
    """A place for an index of the engine; the server is stood in for by its client's local mode."""
    return f"local:{tmp_path / 'server'}" if engine == "server" else str(tmp_path / "an.index")


@pytest.fixture
def new_index(tmp_path: Path) -> Iterator[Callable[..., Index]]:
    """Makes indexes (engine, encoder, options) and closes them."""
    made: list[Index] = []

    def make(engine: EngineName, encoder: FakeEncoder, **options: object) -> Index:
        place = tmp_path / f"{engine}{len(made)}"
        where = f"local:{place}" if engine == "server" else str(place)
        made.append(Index.create(where, encoder, engine=engine, **options))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for index in made:
        index.close()
