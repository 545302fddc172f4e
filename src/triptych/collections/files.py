"""Large JSON files as a stream: the entries of one array or object, without holding the whole.

Several data sets are published as one JSON value of up to gigabytes. What is decoded at once here is one entry of
the outermost array, or of an array or object one level below.

The files of a data set, told apart by the names that their publishers gave them.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from triptych.errors import DataError
from triptych.io import Source, open_source, read_chunks, read_lines
from triptych.records import COMPRESSED, PARQUET, Place, ending, parse_object, places_of

_GUESS = 1 << 22  # characters of a file that may be read to learn what it is
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER_PART = re.compile(r"[-+0-9.eE]*")
_TOKEN = 16  # characters of a token other than a string, at most, as long as it makes sense


class Entry(NamedTuple):
    """A value with the keys that lead to it, and where it stands (the line on which it begins)."""

    keys: tuple[str | int, ...]
    value: Any
    place: Place


def entries(path: Path) -> Iterator[Entry]:
    """The entries of a file that holds one JSON value.

    Of an array each element, with the keys ``(i,)``. Of an object each member: one that is an array or object
    comes in parts, with the keys ``(name, i)`` or ``(name, key)``, any other as a whole with ``(name,)``.

    Raises:
        DataError: For broken JSON, with the line, or text after the value.
    """
    with open_source(path) as source:
        reader = _Text(source)
        start = reader.next()
        if start == "[":
            yield from _array(reader, ())
        elif start == "{":
            for name in _members(reader):
                opening = reader.next()
                if opening == "[":
                    yield from _array(reader, (name,))
                elif opening == "{":
                    for key in _members(reader):
                        yield reader.entry((name, key))
                else:
                    yield reader.entry((name,))
        else:
            raise reader.error("expected a JSON array or object")
        if rest := reader.next():
            raise reader.error(f"got {rest!r} after the end of the JSON value; expected nothing")


def rows(path: Path, field: str | None = None) -> Iterator[tuple[Place, dict[str, Any]]]:
    """The records of a file: JSON Lines, Parquet, a JSON array, or the array `field` of one JSON object.

    Raises:
        DataError: For what cannot be read, or a record that is not an object.
    """
    if ending(path) in PARQUET:
        for place, raw in places_of(path):
            yield place, cast("dict[str, Any]", raw)
        return
    shape = shape_of(path, field)
    if shape == "lines":
        with open_source(path) as source:
            for line in read_lines(source):
                if line.text.strip():
                    place = Place(source.name, line.number)
                    yield place, parse_object(line.text, place)
        return
    seen = False
    for entry in entries(path):
        if shape == "field" and entry.keys[0] != field:
            continue
        seen = True
        if not isinstance(entry.value, dict):
            raise entry.place.error("expected a JSON object in the list of records")
        yield entry.place, cast("dict[str, Any]", entry.value)
    if not seen and shape == "field":
        raise DataError(f"no list {field!r} in this JSON object", path)


def shape_of(path: Path, field: str | None = None) -> str:
    """How records stand: in an "array", in the "field" of an object, or as "lines" (all else)."""
    with open_source(path) as source:
        reader = _Text(source)
        if reader.next() == "[":
            return "array"
        if field is None:
            return "lines"
        for name in _members(reader):
            if name == field:
                return "field"
            if reader.next() == "[":
                for _ in _array(reader, ()):
                    pass
            else:
                reader.value()
    return "lines"


def first_keys(path: Path) -> frozenset[str]:
    """Names of the members of a file's first record or of its outermost object; none if it is no JSON at all."""
    names: set[str] = set()
    with contextlib.suppress(DataError), open_source(path) as source:
        reader = _Text(source, _GUESS)
        if reader.next() == "[":
            reader.take()
        if reader.next() == "{":
            for name in _members(reader):
                names.add(name)
                reader.value()
    return frozenset(names)


class _Text:
    """The text of a source with a position; what lies before it is forgotten."""

    def __init__(self, source: Source, most: int | None = None) -> None:
        self._name = source.name
        self._chunks = read_chunks(source)
        self._left = most
        self._buffer = ""
        self._at = 0
        self._line = 1
        self._whole = False
        self._decode = json.JSONDecoder(parse_constant=_refuse).raw_decode

    def next(self) -> str:
        """The next character that is not a blank, without taking it; "" at the end."""
        while True:
            match = _SPACE.match(self._buffer, self._at)
            self._move(match.end() if match else self._at)
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def take(self) -> str:
        """The next character that is not a blank."""
        character = self.next()
        self._move(self._at + len(character))
        return character

    def key(self) -> str:
        """A string and the colon behind it."""
        if self.next() != '"':
            raise self.error("broken JSON: expected a name in double quotes")
        name = str(self.value())
        if self.take() != ":":
            raise self.error("broken JSON: expected ':' after a name")
        return name

    def value(self) -> Any:
        """The next value as a whole."""
        self.next()
        while True:
            try:
                found, end = self._decode(self._buffer, self._at)
                # a number at the end of what was read may go on
                if not (isinstance(found, int | float) and self._is_number(end) and self._more()):
                    self._move(end)
                    return found
            except (ValueError, RecursionError) as error:
                if not (self._may_go_on(error) and self._more()):
                    reason = error.msg if isinstance(error, json.JSONDecodeError) else str(error)
                    raise self.error(f"broken JSON: {reason}") from None

    def entry(self, keys: tuple[str | int, ...]) -> Entry:
        """The next value with its keys and its place."""
        self.next()
        place = Place(self._name, self._line)
        return Entry(keys, self.value(), place)

    def error(self, message: str) -> DataError:
        """An error at this place."""
        return DataError(message, self._name, self._line)

    def _is_number(self, start: int) -> bool:
        """Whether all that is waiting from here on can be part of a number."""
        return _NUMBER_PART.fullmatch(self._buffer, start, start + _TOKEN) is not None and (
            len(self._buffer) <= start + _TOKEN
        )

    def _may_go_on(self, error: Exception) -> bool:
        """Whether an error may be due to what was not read yet: it is at the end, or in a string without end."""
        if not isinstance(error, json.JSONDecodeError):
            return False
        return error.msg.startswith("Unterminated string") or error.pos >= len(self._buffer) - _TOKEN

    def _move(self, to: int) -> None:
        self._line += self._buffer.count("\n", self._at, to)
        self._at = to

    def _more(self) -> bool:
        """Reads on: at least as much as is waiting, so that a long value is not decoded over and over."""
        if self._whole or (self._left is not None and self._left <= 0):
            return False
        parts, size, wanted = [self._buffer[self._at :]], 0, len(self._buffer) - self._at
        while size <= wanted:
            chunk = next(self._chunks, None)
            if chunk is None:
                self._whole = True
                break
            parts.append(chunk)
            size += len(chunk)
        self._buffer, self._at = "".join(parts), 0
        if self._left is not None:
            self._left -= size
        return size > 0


def _array(reader: _Text, keys: tuple[str | int, ...]) -> Iterator[Entry]:
    reader.take()
    if reader.next() == "]":
        reader.take()
        return
    i = 0
    while True:
        yield reader.entry((*keys, i))
        i += 1
        if _ends(reader, "]"):
            return


def _members(reader: _Text) -> Iterator[str]:
    """Names of an object's members; the value has to be taken before the next."""
    reader.take()
    if reader.next() == "}":
        reader.take()
        return
    while True:
        yield reader.key()
        if _ends(reader, "}"):
            return


def _ends(reader: _Text, closing: str) -> bool:
    found = reader.take()
    if found == closing:
        return True
    if found != ",":
        came = f"got {found!r}" if found else "the file ends"
        raise reader.error(f"broken JSON: {came}; expected ',' or {closing!r}")
    return False


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


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
            self.all += sorted(_below(root)) if root.is_dir() else [root]
        for file in self.all:
            if file in self.roots and file.name.lower().endswith(_ARCHIVES):
                raise DataError("is an archive; unpack it and give the folder", file)

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

    def of_split(self, what: str, split: str, *patterns: str) -> list[Path]:
        """The files of the first pattern that any file matches, if they are of the split by their names.

        A file whose name has the name of a split between dots, hyphens and underscores is of that split; files
        without any such name count for every split.

        Raises:
            DataError: If no file matches, or all that match are of other splits.
        """
        found = self.some(what, *patterns)
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


def _split_of(file: Path) -> str | None:
    parts = re.split(r"[._-]", plain_name(file).lower())
    return next((_SPLITS[part] for part in parts if part in _SPLITS), None)


def _below(folder: Path) -> list[Path]:
    return [
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def _readable(pattern: str) -> str:
    """A pattern as a person would write it."""
    text = pattern.replace("\\", "").replace(".*", "*").replace("[^/]*", "*").replace(".+", "*")
    return re.sub(r"\(\?:([^()]*)\)\??", r"\1", text)
