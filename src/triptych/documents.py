"""Reads people's files, folders and standard input as a stream of documents or queries.

JSON Lines, TSV and CSV are read line by line and never held whole; so is plain text with one document a line.
A text, Markdown or HTML file is one document. All may be compressed by gzip or Zstandard.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from triptych.errors import DataError, InputError
from triptych.io import BOM, STDIN, Source, open_source, printable, read_lines, read_text
from triptych.markup import Plain, plain_html, plain_markdown
from triptych.records import (
    QUERY_FIELDS,
    Document,
    Fields,
    Place,
    Query,
    Uniqueness,
    csv_rows,
    parse_object,
    table_records,
    to_document,
    tsv_rows,
    typed,
)
from triptych.text import is_utf8

Format: TypeAlias = Literal["jsonl", "tsv", "csv", "text", "lines", "markdown", "html"]
FORMATS: tuple[Format, ...] = get_args(Format)

_ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".tsv": "tsv",
    ".csv": "csv",
    ".txt": "text",
    ".text": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
}
_COMPRESSED = (".gz", ".zst", ".zstd")


def read_documents(
    sources: Path | str | Iterable[Path | str],
    *,
    format: Format | None = None,
    fields: Fields | None = None,
    on_skip: Callable[[Path], None] | None = None,
    on_error: Callable[[DataError], None] | None = None,
) -> Iterator[Document]:
    """Reads documents, one after the other, from files, folders and standard input.

    Folders are read recursively in the order of their names; files and folders whose name begins with a dot
    are passed over in silence, and links to folders are not followed. An id that a record does not bring is
    made of where it stands, ``path:line`` or ``path`` with the path as it was given, so that the same command
    gives the same ids. A file without text gives no document.

    Args:
        sources: Paths; ``-`` is standard input.
        format: The format of everything that is read. By default the ending of a file decides, before ``.gz``
            or ``.zst``: .jsonl .ndjson .tsv .csv .txt .text .md .markdown .html .htm .xhtml. Standard input
            and pipes have none: there a first byte ``{`` (after blanks) means ``jsonl``, and anything else
            ``lines``, one document for each line of plain text that is not blank.
        fields: Names of the fields in JSON Lines and in the header of a table. A table's other cells become numbers
            and booleans where `triptych.records.typed` says so.
        on_skip: Called with each file of a folder whose ending is not known, that is no regular file (a pipe, a
            device), or whose name is not UTF-8. Such a file named in `sources` is read, or an error.
        on_error: Called with what is wrong with a file of a folder (text that is not UTF-8, a broken line); reading
            goes on with the next file. None: it is raised.

    Yields:
        Documents with different ids.

    Raises:
        DataError: For a file that cannot be read or is not what it should be, with the file and the line.
        InputError: For an unknown format.
    """
    if format is not None and format not in FORMATS:
        raise InputError(f"read_documents: got format {format!r}; expected one of {', '.join(FORMATS)}")
    paths = [sources] if isinstance(sources, str | Path) else list(sources)
    return _unique(_read_all(paths, format, fields or Fields(), (on_skip, on_error)))


def read_queries(
    source: Path | str, *, format: Format | None = None, fields: Fields | None = None
) -> Iterator[Query]:
    """Reads queries from a file or standard input.

    Plain text (.txt, or no JSON on standard input) has one query a line; TSV and CSV have id and text, or a
    header; JSON Lines are as for documents, and the text may also be called ``query`` or ``question``.

    Args:
        source: A path; ``-`` is standard input.
        format: "jsonl", "tsv", "csv" or "lines"; by default as for `read_documents`.
        fields: Names of the fields in JSON Lines and in the header of a table.

    Yields:
        Queries with different ids; a plain line's id is ``path:line``.

    Raises:
        DataError: As for `read_documents`, and for an empty query.
        InputError: For an unknown format, or one that holds no queries.
    """
    allowed = ("jsonl", "tsv", "csv", "lines")
    if format is not None and format not in allowed:
        raise InputError(f"read_queries: got format {format!r}; expected one of {', '.join(allowed)}")
    given, default = fields or Fields(), Fields()
    names = Fields(
        QUERY_FIELDS.id if given.id == default.id else given.id,
        QUERY_FIELDS.text if given.text == default.text else given.text,
        title=(),
    )
    return _queries(source, format, names)


def _queries(source: Path | str, format: Format | None, fields: Fields) -> Iterator[Query]:
    if str(source) != STDIN and Path(source).is_dir():
        raise DataError("is a folder; expected a file of queries", source)
    ending = format_of(source)
    chosen = format or ("lines" if ending == "text" else ending)
    if chosen in ("markdown", "html"):
        raise DataError(f"{chosen} holds no queries; expected plain lines, TSV, CSV or JSON Lines", source)
    for document in _unique(_read_file(Path(source), chosen, fields)):
        if not document.text.strip():
            raise DataError(f"query {document.id!r} is empty; expected text", source)
        yield Query(document.id, document.text, document.metadata)


def format_of(path: Path | str) -> Format | None:
    """The format that the ending of a file name stands for, or None."""
    name = Path(path).name.lower()
    for ending in _COMPRESSED:
        name = name.removesuffix(ending)
    return _ENDINGS.get(Path(name).suffix)


def _unique(documents: Iterator[tuple[Place, Document]]) -> Iterator[Document]:
    seen = Uniqueness()
    for place, document in documents:
        seen.check(document.id, place)
        yield document


def _read_all(
    paths: Sequence[Path | str],
    format: Format | None,
    fields: Fields,
    hooks: tuple[Callable[[Path], None] | None, Callable[[DataError], None] | None],
) -> Iterator[tuple[Place, Document]]:
    on_skip, on_error = hooks
    for path in map(Path, paths):
        if str(path) == STDIN or not path.is_dir():
            yield from _read_file(path, format, fields)
            continue
        for file in walk(path, on_skip):
            if not format and not format_of(file):
                if on_skip:
                    on_skip(file)
                continue
            try:
                yield from _read_file(file, format, fields)
            except DataError as error:
                if on_error is None:
                    raise
                on_error(error)


def walk(folder: Path, on_skip: Callable[[Path], None] | None = None) -> Iterator[Path]:
    """All files of a folder and its folders, in the order of their names, but for those that begin with a dot.

    Args:
        folder: Where to begin.
        on_skip: Called with what is no regular file (a pipe, a device, a dead link), or has a name that is not UTF-8
            and so can be no id.

    Raises:
        DataError: For a folder that cannot be read.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"cannot be read: {error.strerror or error}", printable(error.filename)) from error

    for place, folders, files in os.walk(folder, onerror=fail):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            if name.startswith("."):
                continue
            if path.is_file() and is_utf8(path.relative_to(folder)):
                yield path
            elif on_skip:
                on_skip(path)


def _read_file(path: Path, format: Format | None, fields: Fields) -> Iterator[tuple[Place, Document]]:
    with open_source(path) as source:
        chosen = format or format_of(path) or _guess(path, source)
        yield from _read(source, chosen, fields)


def _guess(path: Path, source: Source) -> Format:
    if path.is_file():
        known = " ".join(_ENDINGS)
        raise DataError(f"unknown ending; expected one of {known} (or .gz, .zst after it), or a format", path)
    return "jsonl" if source.head.removeprefix(BOM).lstrip().startswith(b"{") else "lines"


def _read(source: Source, format: Format, fields: Fields) -> Iterator[tuple[Place, Document]]:
    if format == "jsonl":
        return _read_jsonl(source, fields)
    if format in ("tsv", "csv"):
        return _read_table(source, format == "csv", fields)
    if format == "lines":
        return _read_plain_lines(source)
    return _read_whole(source, format)


def _read_jsonl(source: Source, fields: Fields) -> Iterator[tuple[Place, Document]]:
    for line in read_lines(source):
        if line.text.strip():
            place = Place(source.name, line.number)
            yield place, to_document(parse_object(line.text, place), fields, place)


def _read_table(source: Source, is_csv: bool, fields: Fields) -> Iterator[tuple[Place, Document]]:
    lines = read_lines(source)
    rows = csv_rows(lines, fields, source.name) if is_csv else tsv_rows(lines)
    for number, record in table_records(rows, fields, source.name):
        place = Place(source.name, number)
        document = to_document(record, fields, place)
        metadata = {column: typed(cell) for column, cell in document.metadata.items()}
        yield place, replace(document, metadata=metadata)


def _read_plain_lines(source: Source) -> Iterator[tuple[Place, Document]]:
    for line in read_lines(source):
        if line.text.strip():
            place = Place(source.name, line.number)
            yield place, Document(place.id, line.text.strip())


def _read_whole(source: Source, format: Format) -> Iterator[tuple[Place, Document]]:
    text = read_text(source)
    if format == "text":
        plain = Plain(text.strip(), None)
    else:
        plain = plain_markdown(text) if format == "markdown" else plain_html(text)
    if plain.text:
        place = Place(source.name)
        yield place, Document(place.id, plain.text, plain.title)
