"""The command line in this process: fast, and with what it wrote to each stream."""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from triptych.cli.app import app

DOCUMENTS: list[dict[str, Any]] = [
    {"id": "a", "text": "bge m3 is a model of text", "lang": "en", "year": 2024},
    {"id": "b", "text": "defination of bm25", "lang": "de", "year": 2020},
    {"id": "c", "title": "hello", "text": "hello world", "lang": "fr", "year": 2022},
    {"id": "d", "text": "a retrieval model of the world", "lang": "fr", "year": 2019},
]


@dataclass(frozen=True)
class Done:
    """What a command left: exit code and the two streams."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[Any]:
        """Standard output as JSON Lines: every line has to be one object."""
        return [json.loads(line) for line in self.out.splitlines()]


Run = Callable[..., Done]


@pytest.fixture(scope="session")
def run(folder: Path) -> Run:
    """Runs a command with the tiny model as the default one."""

    def invoke(*arguments: object, stdin: str | bytes = "", env: Mapping[str, str] | None = None) -> Done:
        variables = {"TRIPTYCH_MODEL": str(folder), "COLUMNS": "80", "TERM": "dumb"} | dict(env or {})
        result = CliRunner().invoke(app, [str(part) for part in arguments], input=stdin, env=variables)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Done(result.exit_code, result.stdout, result.stderr)

    return invoke


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four documents as JSON Lines. Read only."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps(document) + "\n" for document in DOCUMENTS), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def made(run: Run, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of the corpus, closed. Copy it to change it."""
    place = tmp_path_factory.mktemp("made") / "my.index"
    done = run("index", corpus, "--into", place, "--engine", "exact", "--dtype", "float32")
    assert done.code == 0, done.err
    return place


@pytest.fixture
def exact_index(run: Run, corpus: Path, tmp_path: Path) -> Path:
    """An index of the corpus, closed, whose scores are those of the encoder."""
    place = tmp_path / "exact.index"
    done = run(
        "index", corpus, "--into", place, "--engine", "exact", "--dtype", "float32", "--multi", "float32"
    )
    assert done.code == 0, done.err
    return place


@pytest.fixture
def index(made: Path, tmp_path: Path) -> Path:
    """A copy of that index that the test may change."""
    return Path(shutil.copytree(made, tmp_path / "my.index"))
