"""The files of a data set, told apart by the names that their publishers gave them, and the records in them.

JSON files of up to gigabytes are read as a stream, by ijson: one record is decoded at once.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Generator, Iterator, Sequence
from itertools import accumulate, zip_longest
from pathlib import Path
from typing import Any, cast

from triptych.errors import DataError, require_extra
from triptych.io import BOM, Source, open_source
from triptych.records import COMPRESSED, PARQUET, Place, ending, parse_raw, places_of

_GUESS = 1 << 22  # bytes of a file that may be read to learn what it is
_LINES = (".jsonl", ".ndjson")
_DEPTH = 900  # of nested JSON, about as much as Python's own parser takes
_ESCAPE = re.compile(rb"\\.", re.DOTALL)
_STRING = re.compile(rb'"[^"]*"')
_NO_MARKS = bytes(set(range(256)) - set(b'"[]{}'))


def rows(path: Path, field: str | None = None) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The records of a file: JSON Lines, Parquet, a JSON array, or the array `field` of one JSON object.

    Raises:
        DataError: For what cannot be read, or a record that is not an object.
        MissingExtra: For a JSON array or object without ijson.
    """
    prefix = None if ending(path) in (*PARQUET, *_LINES) else _prefix(path, field)
    if prefix is None:
        for place, raw in places_of(path):
            yield place, parse_raw(raw, place)
        return
    for number, (_, value) in enumerate(_entries(path, prefix), start=1):
        place = Place(path.as_posix(), record=number)
        if not isinstance(value, dict):
            raise place.error("expected a JSON object in the list of records")
        yield place, cast("dict[str, Any]", value)


def columns(path: Path, names: Sequence[str]) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Rows of one object of columns: ``{"query": {"0": …}, "passages": {"0": …}}``, with the same keys in each.

    Args:
        path: The file, which is walked once for each column.
        names: Of the columns that are wanted.

    Raises:
        DataError: For broken JSON, or columns of different rows.
    """
    streams = [_entries(path, name, members=True) for name in names]
    for number, cells in enumerate(zip_longest(*streams, fillvalue=(None, None)), start=1):
        place = Place(path.as_posix(), record=number)
        keys = [key for key, _ in cells]
        if len(set(keys)) != 1:
            raise place.error(
                f"the columns {', '.join(names)} have the rows {keys}; expected the same in each"
            )
        yield place, {name: value for name, (_, value) in zip(names, cells, strict=True)}


def first_keys(path: Path) -> frozenset[str]:
    """Names of the members of a file's first record or of its outermost object; none if it is no JSON at all."""
    names: set[str] = set()
    with contextlib.suppress(DataError), _json(path, _GUESS) as (ijson, stream):
        for prefix, event, value in ijson.parse(stream, multiple_values=True):
            if prefix in ("", "item") and event == "map_key":
                names.add(value)
            elif prefix in ("", "item") and event == "end_map":
                break
    return frozenset(names)


def _prefix(path: Path, field: str | None) -> str | None:
    """Where records stand, as ijson names it; None: they are lines."""
    with open_source(path) as source:
        start = source.head.removeprefix(BOM).lstrip()[:1]
    if start == b"[":
        return "item"
    if field is None or start != b"{":
        return None
    with contextlib.suppress(DataError), _json(path) as (ijson, stream):
        for prefix, event, value in ijson.parse(stream, multiple_values=True):
            if prefix == "" and event == "map_key" and value == field:
                return f"{field}.item"
            if prefix == "" and event == "end_map":
                break
    return None


def _entries(path: Path, prefix: str, *, members: bool = False) -> Generator[tuple[str, Any]]:
    """The values at a prefix or, with `members`, name and value of each member of the object there."""
    with _json(path) as (ijson, stream):
        if members:
            yield from ijson.kvitems(stream, prefix, use_float=True)
        else:
            for value in ijson.items(stream, prefix, use_float=True):
                yield "", value


@contextlib.contextmanager
def _json(path: Path, limit: int | None = None) -> Generator[tuple[Any, Any]]:
    """Ijson and the bytes of a file, with its errors as ours."""
    with require_extra(f"{path}: reading a JSON array or object", "tools"):
        import ijson
    with open_source(path) as source:
        try:
            yield ijson, _Bytes(source, limit)
        except (ijson.JSONError, OverflowError, ValueError) as error:
            if isinstance(error, DataError):
                raise
            reason = " ".join(str(error).split())
            if "integer string conversion" in reason:
                reason = "a whole number of too many digits"
            raise DataError(f"broken JSON: {reason}", path) from error


class _Bytes:
    """What ijson reads: a source without its byte order mark, up to a limit, and nested no deeper than `_DEPTH`.

    ijson's time grows with the square of the depth.
    """

    def __init__(self, source: Source, limit: int | None) -> None:
        self._source = source
        self._left = limit
        self._depth = 0
        self._in_string = False
        self._escape = b""
        if source.head.startswith(BOM):
            source.stream.read(len(BOM))

    def read(self, size: int) -> bytes:
        """At most `size` bytes."""
        data = self._source.stream.read(size if self._left is None else min(size, self._left))
        if self._left is not None:
            self._left -= len(data)
        self._check_depth(data)
        return data

    def _check_depth(self, data: bytes) -> None:
        plain = _ESCAPE.sub(b"", self._escape + data)
        self._escape = b"\\" if plain.endswith(b"\\") else b""
        marks = (b'"' if self._in_string else b"") + plain.translate(None, delete=_NO_MARKS)
        marks, quote, _ = _STRING.sub(b"", marks).partition(b'"')
        self._in_string = bool(quote)
        opened = marks.count(b"[") + marks.count(b"{")
        deepest = self._depth + opened
        if deepest > _DEPTH:
            deepest = max(accumulate((1 if mark in b"[{" else -1 for mark in marks), initial=self._depth))
        if deepest > _DEPTH:
            raise DataError(f"JSON nested more than {_DEPTH} deep", self._source.name)
        self._depth += 2 * opened - len(marks)


_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z")


_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "devel", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("test", "eval"), "test"),
}


class Files:
    """All files below some paths.

    Args:
        paths: Files and folders; folders are read recursively, and what begins with a dot is passed over.

    Raises:
        DataError: For a path that is not there, or an archive, which has to be unpacked first.
    """

    def __init__(self, paths: Sequence[Path | str]) -> None:
        self.roots = [Path(path) for path in paths]
        self.all: list[Path] = []
        for root in self.roots:
            if not root.exists():
                raise DataError("no such file or folder", root)
            if root.is_file() and root.name.lower().endswith(_ARCHIVES):
                raise DataError("is an archive; unpack it and give the folder", root)
            self.all += sorted(_below(root), key=_natural) if root.is_dir() else [root]

    def matching(self, pattern: str) -> list[Path]:
        """Files whose name, without a compression's ending, is matched whole by a regular expression."""
        return [file for file in self.all if re.fullmatch(pattern, plain_name(file), re.IGNORECASE)]

    def some(self, what: str, *patterns: str) -> list[Path]:
        """The files of the first pattern that any file matches.

        Raises:
            DataError: If none does.
        """
        for pattern in patterns:
            if found := self.matching(pattern):
                return found
        raise DataError(
            f"no {what} among {self._names()}; expected a file named like {' or '.join(map(_readable, patterns))}",
            self.roots[0] if self.roots else None,
        )

    def one(self, what: str, *patterns: str) -> Path:
        """The only file of the first pattern that any file matches.

        Raises:
            DataError: If there is none, or more than one.
        """
        found = self.some(what, *patterns)
        if len(found) > 1:
            names = ", ".join(str(file) for file in found[:4])
            raise DataError(f"several files can be the {what}: {names}; give the one that is meant")
        return found[0]

    def of_split(self, what: str, split: str | None, *patterns: str) -> list[Path]:
        """The files of the first pattern that any file matches, if they are of the split by their names.

        A file whose name has the name of a split between dots, hyphens and underscores is of that split; files
        without any such name count for every split, and all files do where no split is asked for.

        Raises:
            DataError: If no file matches, or all that match are of other splits.
        """
        found = self.some(what, *patterns)
        if split is None:
            return found
        named = {file: _split_of(file) for file in found}
        wanted = [file for file, of in named.items() if of is None or of == _SPLITS.get(split, split)]
        if not wanted:
            there = ", ".join(sorted({str(of) for of in named.values()}))
            raise DataError(f"no {what} of the split {split!r}; there are {there}", self.roots[0])
        exact = [file for file in wanted if named[file] is not None]
        return exact or wanted

    def _names(self) -> str:
        names = [file.name for file in self.all[:8]]
        return ", ".join(names) + (", …" if len(self.all) > 8 else "") if names else "no files at all"


def plain_name(file: Path) -> str:
    """A file's name without the ending of a compression."""
    name = file.name
    for end in COMPRESSED:
        if name.lower().endswith(end):
            return name[: -len(end)]
    return name


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts numbers in names by value."""
    return [
        (int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.as_posix())
    ]


def _split_of(file: Path) -> str | None:
    parts = re.split(r"[._-]", plain_name(file).lower())
    return next((_SPLITS[part] for part in parts if part in _SPLITS), None)


def _below(folder: Path) -> list[Path]:
    try:
        return [
            file
            for file in folder.rglob("*")
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
        ]
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", error.filename or folder) from error


def _readable(pattern: str) -> str:
    """A pattern as a person would write it."""
    text = pattern.replace("\\", "").replace(".*", "*").replace("[^/]*", "*").replace(".+", "*")
    return re.sub(r"\(\?:([^()]*)\)\??", r"\1", text)
