"""`triptych index --watch` as a process of its own: the index follows its folder, and ends whole."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from triptych import Index

from .conftest import Run

PATIENCE = 120.0


class Watching:
    """A running command, with the lines that it has written so far."""

    def __init__(self, arguments: list[object], environment: dict[str, str], logs: Path) -> None:
        self._out, self._err = logs / "out", logs / "err"
        command = [sys.executable, "-m", "triptych.cli", "index", *map(str, arguments), "--watch", "--json"]
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)

    @property
    def err(self) -> str:
        return self._err.read_text(encoding="utf-8")

    def reports(self) -> list[dict[str, int]]:
        lines = self._out.read_text(encoding="utf-8").split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def wait_for(self, what: Callable[[], bool]) -> None:
        end = time.monotonic() + PATIENCE
        while not what():
            assert self.process.poll() is None, self.err
            assert time.monotonic() < end, f"{self.reports()}\n{self.err}"
            time.sleep(0.05)

    def next_report(self, after: Callable[[], object]) -> dict[str, int]:
        before = len(self.reports())
        after()
        self.wait_for(lambda: len(self.reports()) > before)
        return self.reports()[before]


@contextmanager
def watching(folder: Path, tmp_path: Path, *arguments: object) -> Iterator[Watching]:
    environment = {
        **os.environ,
        "TRIPTYCH_MODEL": str(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    running = Watching([*arguments, "--engine", "exact"], environment, tmp_path)
    try:
        running.wait_for(lambda: "watching for changes" in running.err)
        yield running
    finally:
        if running.process.poll() is None:
            running.process.kill()
        running.process.wait(timeout=PATIENCE)


def texts(index: Path) -> dict[str, str]:
    with Index.open(index) as opened:
        return {document["id"]: document["text"] for document in opened.documents()}


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    place = tmp_path / "notes"
    place.mkdir()
    (place / "a.txt").write_text("hello world", encoding="utf-8")
    (place / "b.txt").write_text("bge m3 is a model", encoding="utf-8")
    return place


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_an_index_follows_its_folder_until_a_signal_ends_it_whole(
    number: signal.Signals, code: int, word: str, folder: Path, notes: Path, tmp_path: Path
) -> None:
    index = notes / "my.index"  # inside of what it watches: its own writing is no change
    with watching(folder, tmp_path, notes, "--into", index) as running:
        assert running.reports()[0]["new"] == 2
        added = running.next_report(lambda: (notes / "c.txt").write_text("defination of bm25"))
        assert (added["new"], added["unchanged"], added["documents"]) == (1, 2, 3)
        changed = running.next_report(lambda: (notes / "a.txt").write_text("another text of the world"))
        assert (changed["replaced"], changed["documents"]) == (1, 3)
        removed = running.next_report((notes / "b.txt").unlink)
        assert (removed["removed"], removed["documents"]) == (1, 2)
        (notes / ".hidden.txt").write_text("hello")
        time.sleep(2.5)
        assert len(running.reports()) == 4, "only what changes the index is reported"
        running.process.send_signal(number)
        assert running.process.wait(timeout=PATIENCE) == code
        assert running.err.splitlines()[-1] == f"triptych: {word}"
        assert "Traceback" not in running.err
    assert texts(index) == {"a.txt": "another text of the world", "c.txt": "defination of bm25"}
    assert (index / "closed.json").is_file(), "closed as after any other run"


def test_what_changes_before_the_watch_begins_is_seen(
    folder: Path, notes: Path, tmp_path: Path, run: Run
) -> None:
    """The first run takes a while; a file that comes in it belongs to it all the same."""
    many = "".join(f'{{"id": "{i}", "text": "hello world"}}\n' for i in range(3000))
    (notes / "many.jsonl").write_text(many, encoding="utf-8")
    environment = {
        **os.environ,
        "TRIPTYCH_MODEL": str(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    index = tmp_path / "x.index"
    arguments = [notes, "--into", index, "--engine", "exact", "--block-tokens", "40"]
    running = Watching(arguments, environment, tmp_path)
    try:
        running.wait_for(lambda: len(list(index.glob("data/*.safetensors"))) > 2)
        assert not running.reports(), "the first run goes on"
        (notes / "a.txt").write_text("late", encoding="utf-8")
        running.wait_for(lambda: "watching for changes" in running.err)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(timeout=PATIENCE) == 130
    finally:
        running.process.kill()
        running.process.wait(timeout=PATIENCE)
    assert texts(index)["a.txt"] == "late"


def test_a_named_file_is_followed_through_replacement_and_broken_lines(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "in"
    place.mkdir()
    source = place / "rows.jsonl"
    source.write_text('{"id": "a", "text": "hello"}\n', encoding="utf-8")
    (place / "other.txt").write_text("not asked for", encoding="utf-8")

    def replace_with(text: str) -> None:
        new = place / "new"
        new.write_text(text, encoding="utf-8")
        new.replace(source)

    with watching(folder, tmp_path, source, "--into", tmp_path / "x.index") as running:
        replace_with('{"id": "a", "text": "hello"}\n{"id": "b"')
        running.wait_for(lambda: "still watching" in running.err)
        assert f"error: {source}:2:" in running.err
        good = running.next_report(
            lambda: replace_with('{"id": "a", "text": "hello"}\n{"id": "b", "text": "world"}\n')
        )
        assert (good["new"], good["documents"]) == (1, 2)
        gone = running.next_report(lambda: replace_with('{"id": "b", "text": "world"}\n'))
        assert (gone["removed"], gone["documents"]) == (1, 1)
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(timeout=PATIENCE) == 130
    assert texts(tmp_path / "x.index") == {"b": "world"}


@pytest.mark.parametrize("inputs", [["-"], []])
def test_what_cannot_be_watched_is_refused(inputs: list[str], run: Run, tmp_path: Path) -> None:
    done = run("index", *inputs, "--into", tmp_path / "x", "--watch", stdin="hello")
    assert done.code == 2
    assert "--watch: got " in done.err
    assert not (tmp_path / "x").exists()
