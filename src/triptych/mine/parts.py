"""Output that survives being killed: finished blocks of queries in a folder beside it, joined in the end."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import zstandard

from triptych.errors import InputError, StorageError
from triptych.files import replacing, write_atomically, write_json
from triptych.mine.report import Report

ENDINGS = (".jsonl", ".jsonl.gz", ".jsonl.zst")
_FACTS = "facts.json"


class Parts:
    """The blocks of an output file.

    Args:
        out: The file to be written; its ending is one of `ENDINGS`.
        facts: All that determines its content. A folder of other facts is refused, not reused.

    Raises:
        InputError: For another ending, or a file or parts that were made from something else.
        StorageError: If the folder cannot be written.
    """

    def __init__(self, out: Path, facts: Mapping[str, Any]) -> None:
        if not out.name.endswith(ENDINGS):
            raise InputError(f"{out}: expected a name that ends in one of {', '.join(ENDINGS)}")
        self.out, self.report_path = out, out.with_name(out.name + ".report.json")
        self._folder = out.with_name(out.name + ".parts")
        self._facts = json.loads(json.dumps(facts))
        if out.exists():
            if self._finished() is None:
                raise InputError(
                    f"{out}: exists, and was not made from this; remove it, or give another name"
                )
            return
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(error.errno, f"{self._folder}: cannot be made: {error.strerror}") from error
        known = _read(self._folder / _FACTS)
        if known is None:
            write_json(self._folder / _FACTS, self._facts)
        elif known != self._facts:
            raise InputError(
                f"{self._folder}: holds the beginning of another run ({_difference(known, self._facts)}); give its "
                "options again, or remove it"
            )

    def _finished(self) -> Report | None:
        values = _read(self.report_path)
        return None if values is None or values.get("facts") != self._facts else Report.from_json(values)

    def done(self) -> Report | None:
        """The report if the file is whole already."""
        return self._finished() if self.out.exists() else None

    def get(self, number: int) -> Report | None:
        """The counts of a block if it is there."""
        values = _read(self._path(number, ".json"))
        return None if values is None else Report.from_json(values)

    def put(self, number: int, records: Sequence[Mapping[str, Any]], report: Report) -> None:
        """Writes a block; when this returns it is on the disk."""
        lines = [json.dumps(record, ensure_ascii=False, default=str) + "\n" for record in records]
        write_atomically(self._path(number, ".jsonl"), "".join(lines).encode())
        write_json(self._path(number, ".json"), report.to_json())

    def join(self, count: int) -> Report:
        """Writes the file and its report from `count` blocks, and removes the folder."""
        total = Report(facts=self._facts)
        for number in range(count):
            total.add(Report.from_json(json.loads(self._path(number, ".json").read_bytes())))
        # The report first: a file is finished when both are there.
        write_json(self.report_path, total.to_json())
        with replacing(self.out) as temporary, _writer(temporary, self.out.name) as file:
            for number in range(count):
                file.write(self._path(number, ".jsonl").read_bytes())
        shutil.rmtree(self._folder)
        return total

    def _path(self, number: int, ending: str) -> Path:
        return self._folder / f"{number:08d}{ending}"


@contextmanager
def _writer(path: Path, name: str) -> Generator[Any]:
    """A file of a compression by its name, the same bytes every time: no date and no name within."""
    with path.open("wb") as plain:
        if name.endswith(".zst"):
            with zstandard.ZstdCompressor(level=9).stream_writer(plain, closefd=False) as file:
                yield file
        elif name.endswith(".gz"):
            with gzip.GzipFile("", "wb", mtime=0, fileobj=plain) as file:
                yield file
        else:
            yield plain


def _read(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path}: cannot be read ({error}); remove it") from error


def _difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name} was {old.get(name)}, is {new.get(name)}" for name in names[:2])
