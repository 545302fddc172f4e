"""What the golden tests share: a fixed model and inputs, and golden files that can be renewed.

The tests hold what users see: help, the form of reports, files on the disk, exact outputs. They know the command line,
the names that ``import triptych`` offers, and files; no module within the package, so that modules can move.

Where help, a report or an output was changed on purpose, write the golden texts anew and look at the difference:

    pytest tests/golden --renew
    git diff tests/golden

The fixtures in ``files`` are another thing: an older build wrote them, and newer ones have to read them. They stay as
they are; see `make_files` for the day on which a format is changed on purpose.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Done, Run, run

__all__ = ["run"]

HERE = Path(__file__).parent
FILES, INPUTS = HERE / "files", HERE / "inputs"
Golden = Callable[..., None]
Command = Callable[..., Done]
EXACT = ("--device", "cpu", "--dtype", "float32")
"""Arithmetic whose results are the same everywhere, but for the last digits."""


NUMBER = re.compile(r"-?\d+\.\d+(?:e[-+]?\d+)?")


def numbers(text: str) -> list[float]:
    return [float(number) for number in NUMBER.findall(text)]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew", action="store_true", help="tests/golden: write the golden texts anew")


@pytest.fixture(scope="session")
def folder() -> Path:
    """The model of all golden tests, here in the place of the one that other tests make. Read only."""
    return FILES / "model"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Golden:
    """Compares a text with a golden file, given by its path in this folder; with --renew, writes it.

    With `within`, decimal numbers may differ by so much, since their last digits depend on the processor.
    """
    renew = request.config.getoption("--renew", default=False)

    def compare(name: str, text: str, *, within: float = 0.0) -> None:
        path = HERE / name
        if renew:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        assert path.is_file(), f"{path} is not there; see --renew in {__file__}"
        expected = path.read_bytes().decode()
        if within:
            assert numbers(text) == pytest.approx(numbers(expected), abs=within)
            text, expected = NUMBER.sub("#", text), NUMBER.sub("#", expected)
        assert text == expected, f"differs from {path}; see --renew in {__file__}"

    return compare


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of the model and the inputs, in which commands run, so that no path is a machine's."""
    shutil.copytree(INPUTS, tmp_path, dirs_exist_ok=True)
    shutil.copytree(FILES / "model", tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPTYCH_CACHE", "cache")
    return tmp_path


@pytest.fixture
def triptych(run: Run, here: Path) -> Command:
    """Runs a command in `here`; anything but success is a failure of the test."""

    def succeed(*arguments: object, **options: Any) -> Done:
        done = run(*arguments, **options)
        assert done.code == 0, done.err
        return done

    return succeed


def read_lines(path: Path) -> list[Any]:
    """The values of a file of JSON Lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
