"""Records of people's files, each with its place: JSON Lines, Parquet, and rows of TSV and CSV.

TSV here is what retrieval collections use: a tab always separates, a quote is a character like any other.
CSV is RFC 4180: a cell in double quotes may hold separators, line breaks and doubled quotes. Python's csv
module is not used because it refuses cells over a limit that is global to the process.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, cast

from triptych.errors import DataError, NoDocument, require_extra
from triptych.io import MAX_LINE, STDIN, Line, open_source, read_lines

_IDS = ("id", "_id")
DOCUMENT_IDS = (
    *_IDS,
    *(
        "docid",
        "doc_id",
        "doc-id",
        "docno",
        "document_id",
        "corpus-id",
        "corpus_id",
        "pid",
        "passage_id",
        "psg_id",
    ),
)
"""Names of the field with a document's id, in order of preference."""
QUERY_IDS = (*_IDS, "qid", "query_id", "query-id", "queryid", "question_id", "topic_id")
"""The same for queries."""
TEXTS = ("text", "contents", "content", "body", "passage", "document", "page_content")
"""Names of the field with a document's text, in order of preference."""


@dataclass(frozen=True, slots=True)
class Section:
    """Where a part of a document begins, and under what it stands.

    Attributes:
        start: Offset of its first character in the document's text.
        headings: The headings over it, the outermost first.
        page: Number of the page or slide, from 1; None if the format has none.
    """

    start: int
    headings: tuple[str, ...] = ()
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a collection.

    Attributes:
        id: Unique in what was read together.
        text: The text without its title; that of a Markdown or HTML file has all that is seen, headings too.
        title: Its title, or None.
        metadata: All other fields of the record.
        sections: Its structure, in order; empty if the format has none.
    """

    id: str
    text: str
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    sections: tuple[Section, ...] = ()

    @property
    def content(self) -> str:
        """Title and text, joined by a line break; the title is left out where the text begins with it."""
        if not self.title or self.text.startswith(self.title):
            return self.text
        return f"{self.title}\n{self.text}" if self.text else self.title


@dataclass(frozen=True, slots=True)
class Query:
    """One query; `metadata` holds all other fields of its record."""

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the fields of a record, in order of preference; the first that a record has is taken.

    The defaults are those of documents; `QUERY_FIELDS` are those of queries. A name that no field has as it is counts
    in other letter case too.

    Attributes:
        id: Name of the id's field or column; of several names the first that a record has.
        text: Name of the text's field.
        title: Name of the title's field.
    """

    id: tuple[str, ...] = DOCUMENT_IDS
    text: tuple[str, ...] = TEXTS
    title: tuple[str, ...] = ("title",)

    @classmethod
    def of(cls, id_field: str | None, text_field: str | None, title_field: str | None = None) -> Fields:
        """The default names but for those given."""
        default = cls()
        return cls(
            (id_field,) if id_field is not None else default.id,
            (text_field,) if text_field is not None else default.text,
            (title_field,) if title_field is not None else default.title,
        )

    @property
    def names(self) -> frozenset[str]:
        """All names that mean something."""
        return frozenset((*self.id, *self.text, *self.title))


QUERY_FIELDS = Fields(QUERY_IDS, ("text", "query", "question", *TEXTS[1:]), ())


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands: a file and, where there is one, a line or the number of the record, from 1.

    Attributes:
        name: The file's path as it was given, for messages.
        line: Number of the line.
        record: Number of the record where lines say nothing.
        key: What ids are made of; `name` if None.
    """

    name: str
    line: int | None = None
    record: int | None = None
    key: str | None = None

    @property
    def id(self) -> str:
        """The id of a record that brings none: the key, key:line, or key#record."""
        key = self.key or self.name
        if self.record is not None:
            return f"{key}#{self.record}"
        return key if self.line is None else f"{key}:{self.line}"

    def error(self, message: str) -> DataError:
        """A `DataError` that names the place."""
        record = "" if self.record is None else f"record {self.record}: "
        return DataError(record + message, self.name, self.line)


def parse_object(line: str, place: Place) -> dict[str, Any]:
    """One line of JSON Lines as a mapping.

    Raises:
        DataError: For broken JSON, a value that is not an object, NaN or Infinity (not JSON, though Python
            reads them), and half a surrogate pair, which no UTF-8 text can hold.
    """
    try:
        value: Any = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        several = "; is this one JSON value over several lines?" if line.strip() in ("[", "{", "[{") else ""
        raise place.error(f"broken JSON: {error.msg} at column {error.colno}{several}") from None
    except RecursionError:
        raise place.error("JSON nested too deeply") from None
    except ValueError as error:
        reason = str(error)
        if "integer string conversion" in reason:  # a limit of Python against slow conversions
            reason = (
                f"{_long_number(line)} has more digits than the {sys.get_int_max_str_digits()} that are read"
            )
        raise place.error(f"broken JSON: {reason}") from None
    if not isinstance(value, dict):
        kind = _kind(value)
        raise place.error(
            f"got {kind}; expected one JSON object a line, such as " + '{"id": "1", "text": "…"}'
        )
    if "\\u" in line:  # only an escape can bring half a pair
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise place.error(
                "an escape \\ud800-\\udfff without its partner; expected whole characters"
            ) from None
    return cast(dict[str, Any], value)


def _long_number(line: str) -> str:
    """The field in front of the longest number of a line."""
    number = max(re.finditer(r"\d+", line), key=lambda match: len(match[0]))
    names = re.findall(r'"((?:[^"\\]|\\.)*)"\s*:', line[: number.start()])
    return f"a whole number of field {names[-1]!r}" if names else "a whole number"


def to_document(record: Mapping[str, Any], fields: Fields, place: Place) -> Document:
    """Makes a document of a record; every field that is neither id, text nor title becomes metadata.

    A field ``metadata`` that is an object (as in BEIR) is not kept as such: its entries join the others.

    Raises:
        DataError: For a missing text, a value of the wrong type, an empty id, or an entry of ``metadata``
            that contradicts a field of the same name.
    """
    id_name = first_of(record, fields.id)
    text_name = first_of(record, fields.text)
    title_name = first_of(record, fields.title)
    if text_name is None:
        wanted = " or ".join(repr(name) for name in fields.text)
        what = f"no field {wanted}; the record has {', '.join(map(repr, record)) or 'no fields'}"
        raise NoDocument(what, place.name, place.line)
    text = record[text_name]
    if not isinstance(text, str):
        raise place.error(f"field {text_name!r} is {_kind(text)}; expected a string")
    title = None if title_name is None else record[title_name]
    if title is not None and not isinstance(title, str):
        raise place.error(f"field {title_name!r} is {_kind(title)}; expected a string or null")
    used = {id_name, text_name, title_name}
    rest = {name: value for name, value in record.items() if name not in used}
    return Document(_id(record, id_name, place), text, title or None, _flatten(rest, place))


class Uniqueness:
    """Refuses an id that came before; keeps 16 bytes of each (some 100 with the overhead), not the id."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def check(self, id_: str, place: Place) -> None:
        """Remembers an id.

        Raises:
            DataError: If it was there already.
        """
        digest = blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in self._seen:
            raise place.error(f"duplicate id {id_!r}; expected each id once in all that is read together")
        self._seen.add(digest)


def first_of(record: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The first of some names that a record has, as it is or else in other letter case."""
    found = next((name for name in names if name in record), None)
    if found is None and not all(map(str.islower, record)):
        folded = {name.strip().casefold(): name for name in reversed(list(record))}
        found = next((folded[name] for name in names if name in folded), None)
    return found


def _id(record: Mapping[str, Any], name: str | None, place: Place) -> str:
    value = None if name is None else record[name]
    if value is None:
        return place.id
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise place.error(f"field {name!r} is {_kind(value)}; expected a string or a whole number")
    if value == "":
        raise place.error(f"field {name!r} is empty; expected an id, or no such field for a made one")
    return str(value)


def _flatten(rest: dict[str, Any], place: Place) -> dict[str, Any]:
    inner = rest.get("metadata")
    if not isinstance(inner, dict):
        return rest
    entries = cast(dict[str, Any], inner)
    del rest["metadata"]
    for name, value in entries.items():
        if name in rest and rest[name] != value:
            raise place.error(f"field {name!r} and the entry {name!r} of 'metadata' contradict each other")
    return {**rest, **entries}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "true or false", str: "a string", list: "an array", dict: "an object"}
    return kinds.get(type(value), f"the number {value!r:.40}")


_CELL = {
    separator: re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|([^"\n{separator}][^\n{separator}]*|))({separator}|\Z)')
    for separator in (",", ";", "\t")
}


_COLUMN = re.compile(r"[^\W\d]+(?:[ _.-][^\W\d]+){0,3}")
# Words in which people name columns; the names of fields that mean something are found before.
# fmt: off
_COLUMN_WORDS = frozenset((
    "abstract", "answer", "author", "body", "category", "chunk", "column", "comment", "content", "contents",
    "data", "date", "description", "doc", "docid", "docno", "document", "documents", "field", "id",
    "identifier", "idx", "index", "key", "keyword", "label", "lang", "language", "line", "link", "message",
    "name", "no", "nr", "num", "number", "page", "paragraph", "passage", "passages", "pid", "qid", "query",
    "question", "sentence", "source", "subject", "summary", "text", "texts", "title", "topic", "type", "uid",
    "url", "uuid", "value", "year",
))
# fmt: on
_INTEGER = re.compile(r"-?(?:0|[1-9]\d{0,17})")
_DECIMAL = re.compile(r"-?(?:0|[1-9]\d{0,14})\.\d{1,15}(?:[eE][+-]?\d{1,2})?")
_BOOLEANS = {"true": True, "false": False}


def parse_cell(cell: str) -> str | int | float | bool:
    """A table's cell as a value that filters can compare.

    Whole numbers of at most 18 digits, decimal numbers with digits on both sides of a point, and ``true`` and
    ``false`` (in any letter case) become what they say. All else stays text: ids such as 007, +49, 1e5, dates, 1,000.

    Example:
        >>> [parse_cell(cell) for cell in ("2020", "-1.50", "TRUE", "007", "1e5", "2020-01-31", "")]
        [2020, -1.5, True, '007', '1e5', '2020-01-31', '']
    """
    if _INTEGER.fullmatch(cell):
        return int(cell) if cell != "-0" else cell
    if _DECIMAL.fullmatch(cell):
        return float(cell)
    return _BOOLEANS.get(cell.lower(), cell)


class Row(NamedTuple):
    """The cells of a row, and the number of the line on which it begins."""

    line: int
    cells: list[str]


def tsv_rows(lines: Iterable[Line]) -> Iterator[Row]:
    """Rows of a TSV file; blank lines are passed over."""
    for line in lines:
        if line.text.strip():
            yield Row(line.number, line.text.split("\t"))


def csv_rows(lines: Iterable[Line], fields: Fields, name: str) -> Iterator[Row]:
    """Rows of a CSV file; blank lines between rows are passed over.

    The separator is a comma, unless the first row names a text column when it is cut at semicolons (as some
    spreadsheets write) or tabs.

    Raises:
        DataError: For a quote that is not closed, or stands where none can.
    """
    separator: str | None = None
    for number, record in _whole_records(lines, name):
        if separator is None:
            separator = _separator(record, fields)
        yield Row(number, _cells(record, separator, Place(name, number)))


def table_records(rows: Iterable[Row], fields: Fields, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Names the cells of rows.

    The first row is a header if one of its cells is a name of `fields`, in any letter case. Without a header, one
    column is the text, and two are id and text.

    Raises:
        DataError: For a header without a text column or with a name twice, a first row that looks like a header of
            other names, a row of another length, or more than two columns without a header.
    """
    stream = iter(rows)
    first = next(stream, None)
    if first is None:
        return
    place = Place(name, first.line)
    header = _header(first.cells, fields, place)
    if header is None:
        second = next(stream, None)
        implied = ", ".join(_default_names(fields, len(first.cells)))
        if _is_like_a_header(first.cells, None if second is None else second.cells):
            raise NoDocument(
                f"the first row {first.cells!r} looks like a header, but has none of the names "
                f"{', '.join(fields.text)}; if it is one, name the column of the text (and of the id); "
                f"if it is data, put a first line {implied} before it",
                place.name,
                place.line,
            )
        header = _default_names(fields, len(first.cells))
        stream = chain([first] if second is None else [first, second], stream)
    for line, cells in stream:
        if len(cells) != len(header):
            expected = f"{len(header)} ({', '.join(header)})"
            raise Place(name, line).error(f"got {len(cells)} columns; expected {expected}")
        yield line, dict(zip(header, cells, strict=True))


def _header(cells: Sequence[str], fields: Fields, place: Place) -> list[str] | None:
    """The columns' names, if the first row has them."""
    names = [cell.strip() for cell in cells]
    folded = [name.casefold() for name in names]
    known = {name.casefold() for name in fields.names}
    if known.isdisjoint(folded):
        if len(cells) > 2:
            expected = f"a header with a column {' or '.join(fields.text)}, or the columns (id,) text"
            raise place.error(f"got {len(cells)} columns without a header; expected {expected}")
        return None
    if fields.text and {name.casefold() for name in fields.text}.isdisjoint(folded):
        raise place.error(f"header {names!r} has no text column; expected {' or '.join(fields.text)}")
    if len(set(folded)) < len(folded):
        raise place.error(f"header {names!r} has a name twice; expected different names")
    return names


def _default_names(fields: Fields, columns: int) -> list[str]:
    """The names of a table's columns without a header."""
    return [fields.id[0] if fields.id else "id", fields.text[0]][-columns:]


def _is_like_a_header(first: Sequence[str], second: Sequence[str] | None) -> bool:
    """Whether a first row without known names is rather names than data.

    All its cells are short words without digits, and either one is a word that columns are called by, or the row
    below has numbers as ids.
    """
    cells = [cell.strip().casefold() for cell in first]
    if not all(_COLUMN.fullmatch(cell) for cell in cells):
        return False
    words = {word for cell in cells for word in (cell, *re.split(r"[\s_.-]+", cell))}
    if not words.isdisjoint(_COLUMN_WORDS):
        return True
    return len(cells) == 2 and second is not None and any(map(str.isdigit, second[0]))


def _whole_records(lines: Iterable[Line], name: str) -> Iterator[tuple[int, str]]:
    """Joins lines until the quotes are even, as they are at every end of a row."""
    parts: list[str] = []
    start, size, quotes = 0, 0, 0
    for line in lines:
        if not parts:
            if not line.text.strip():
                continue
            start = line.number
        parts.append(line.text)
        size += len(line.text)
        quotes += line.text.count('"')
        if quotes % 2 == 0:
            yield start, "\n".join(parts)
            parts, size, quotes = [], 0, 0
        elif size > MAX_LINE:
            raise Place(name, start).error(
                f"a row of more than {MAX_LINE >> 20} MiB; is a quote never closed?"
            )
    if parts:
        raise Place(name, start).error("a quote in this row is never closed")


def _separator(record: str, fields: Fields) -> str:
    for separator in (",", ";", "\t"):
        cells = {cell.strip('" ').casefold() for cell in record.split(separator)}
        if len(cells) > 1 and not cells.isdisjoint(name.casefold() for name in fields.text):
            return separator
    return ","


def _cells(record: str, separator: str, place: Place) -> list[str]:
    if '"' not in record:
        return record.split(separator)
    cells: list[str] = []
    at = 0
    while True:
        match = _CELL[separator].match(record, at)
        if match is None:
            column = len(cells) + 1
            raise place.error(f'misplaced quote in column {column}; expected "…" around the cell, "" inside')
        quoted = match.group(1)
        cells.append(match.group(2) if quoted is None else quoted.replace('""', '"'))
        if not match.group(3):
            return cells
        at = match.end()


JSONL = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")
COMPRESSED = (".gz", ".zst", ".zstd", ".xz", ".bz2")
_ROWS = 256  # of a Parquet file held at once


def ending(path: Path) -> str:
    """The ending of a file name in lower case, without a compression's."""
    name = path.name.lower()
    for compression in COMPRESSED:
        name = name.removesuffix(compression)
    return Path(name).suffix


def files_of(path: Path, endings: tuple[str, ...]) -> list[Path]:
    """The file itself, or the files of a folder with one of the endings, in the order of their names.

    Files and folders whose name begins with a dot are passed over.

    Raises:
        DataError: If there is no such path, or the folder has no such file.
    """
    if str(path) == STDIN or path.is_file():
        return [path]
    if not path.exists():
        raise DataError("no such file or folder", path)
    if not path.is_dir():  # a pipe
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if ending(file) in endings
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not found:
        raise DataError(
            f"no file in this folder ends in one of {' '.join(endings)} (or .gz, .zst after it)", path
        )
    return found


def places_of(path: Path) -> Iterator[tuple[Place, str | dict[str, Any]]]:
    """The raw records of a file: lines of JSON still to be parsed, or rows of Parquet.

    A Parquet file is told by its ending; everything else is taken for JSON Lines. Blank lines are passed over.

    Raises:
        DataError: For a file that cannot be read as what it should be.
    """
    if ending(path) in PARQUET:
        name = path.as_posix()
        yield from ((Place(name, number), row) for number, row in parquet_rows(path, name))
        return
    with open_source(path) as source:
        for line in read_lines(source):
            if line.text.strip():
                yield Place(source.name, line.number), line.text


def parse_raw(raw: str | dict[str, Any], place: Place) -> dict[str, Any]:
    """A raw record as a mapping.

    Raises:
        DataError: For a line that is not one JSON object.
    """
    return parse_object(raw, place) if isinstance(raw, str) else raw


def parquet_rows(content: Path | bytes, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Numbers, from 1, and rows of a Parquet file, without columns of vectors (`triptych.columns`).

    Args:
        content: The file, or its bytes.
        name: For messages.

    Raises:
        DataError: For a file that cannot be read.
    """
    with require_extra(f"{name}: reading Parquet", "files"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    from triptych.columns import vector_columns

    number = 0
    try:
        source: Any = pa.BufferReader(content) if isinstance(content, bytes) else content
        with pq.ParquetFile(source, memory_map=True) as file:
            skip = vector_columns(file.schema_arrow)
            columns = [name for name in file.schema_arrow.names if name not in skip] if skip else None
            for batch in file.iter_batches(batch_size=_ROWS, columns=columns):
                for row in cast("list[dict[str, Any]]", batch.to_pylist()):
                    number += 1
                    yield number, row
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"not a Parquet file that can be read: {error}", name) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", name) from error
