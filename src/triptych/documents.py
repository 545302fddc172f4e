"""Reads people's files, folders and standard input as a stream of documents or queries.

JSON Lines, TSV and CSV are read line by line and never held whole; so is plain text with one document a line.
A file of any other kind is one document (a mailbox: one a message). All may be compressed by gzip, Zstandard, xz or
bzip2, or lie in a zip archive, which counts as a folder.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeAlias, TypeGuard, cast, get_args
from zipfile import ZipFile, ZipInfo

from triptych.errors import DataError, InputError, MissingExtra, TooLarge
from triptych.files.code import LANGUAGES
from triptych.files.listing import OnSkip, SkipReason, SourceFile, list_files
from triptych.io import (
    BOM,
    STDIN,
    Line,
    Source,
    open_archive,
    open_member,
    open_source,
    printable,
    read_bytes,
    read_lines,
    read_text,
    unpack,
)
from triptych.markup import Plain, plain_html, plain_markdown, plain_text
from triptych.records import (
    COMPRESSED,
    PARQUET,
    QUERY_FIELDS,
    Document,
    Fields,
    Place,
    Query,
    Uniqueness,
    csv_rows,
    ending,
    first_of,
    parquet_rows,
    parse_cell,
    parse_object,
    table_records,
    to_document,
    tsv_rows,
)

Format: TypeAlias = Literal[
    "jsonl",
    "tsv",
    "csv",
    "parquet",
    "text",
    "lines",
    "markdown",
    "html",
    "json",
    "rst",
    "ipynb",
    "pdf",
    "docx",
    "pptx",
    "odt",
    "sheets",
    "epub",
    "mail",
    "code",
]
FORMATS: tuple[Format, ...] = get_args(Format)
RECORDS: tuple[Format, ...] = ("jsonl", "tsv", "csv", "parquet", "lines")
"""Formats with a document a line or row."""
WHOLE: tuple[Format, ...] = tuple(name for name in FORMATS if name not in (*RECORDS, "json"))
"""Formats of files that are one document, but for a mailbox."""

_ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".tsv": "tsv",
    ".csv": "csv",
    **dict.fromkeys(PARQUET, "parquet"),
    ".txt": "text",
    ".text": "text",
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".json": "json",
    ".rst": "rst",
    ".ipynb": "ipynb",
    ".pdf": "pdf",
    ".docx": "docx",
    ".pptx": "pptx",
    ".odt": "odt",
    ".xlsx": "sheets",
    ".xlsm": "sheets",
    ".xls": "sheets",
    ".ods": "sheets",
    ".epub": "epub",
    ".eml": "mail",
    ".mbox": "mail",
    **dict.fromkeys(LANGUAGES, "code"),
}
_ARCHIVE = ".zip"


def read_documents(
    sources: Path | str | SourceFile | Iterable[Path | str | SourceFile],
    *,
    format: Format | None = None,
    fields: Fields | None = None,
    on_skip: OnSkip | None = None,
    on_error: Callable[[DataError], None] | None = None,
) -> Iterator[Document]:
    """Reads documents, one after the other, from files, folders and standard input.

    Folders are read recursively in the order of their names; files and folders whose name begins with a dot
    are passed over, and links to folders are not followed. An id that a record does not bring is made of where it
    stands: the path relative to the folder that was given (of a file that was given itself its name), and after it
    ``:line`` or ``#number`` where a file has several documents. So the same folder gives the same ids, however it is
    written. Where two such paths are the same, the names of the folders given come before them. A file without text
    gives no document.

    A document that is a whole file has in its metadata ``path`` (that relative path), ``name``, ``ending``, ``size``
    in bytes and ``modified`` (ISO 8601 in UTC), and ``lang``, ``author``, ``created`` and more where the file says so.

    Args:
        sources: Paths; ``-`` is standard input. Files of `list_documents` too.
        format: The format of everything that is read. By default the ending of a file decides, before that of a
            compression: .jsonl .ndjson .tsv .csv .parquet .pq .txt .text .md .markdown .html .htm .xhtml .json
            .rst .ipynb .pdf .docx .pptx .epub .eml .mbox and those of source code. A .json file is an array of
            records, or else one document. Standard input and pipes have no ending: there a first byte ``{`` (after
            blanks) means ``jsonl``, and anything else ``lines``, one document for each line of plain text that is not
            blank.
        fields: Names of the fields in JSON Lines and in the header of a table. A table's other cells become numbers
            and booleans where `triptych.records.parse_cell` says so.
        on_skip: Called with each file of a folder that gives no document, and why. Such a file named in `sources` is
            read, or an error; without text it counts too.
        on_error: Called with what is wrong with a file of a folder (text that is not UTF-8, a broken line, a broken
            PDF); reading goes on with the next file. None: it is raised.

    Yields:
        Documents with different ids.

    Raises:
        DataError: For a file that cannot be read or is not what it should be, with the file and the line.
        MissingExtra: For a named file whose kind needs an extra that is not installed.
        InputError: For an unknown format.
    """
    if format is not None and format not in FORMATS:
        raise InputError(f"read_documents: got format {format!r}; expected one of {', '.join(FORMATS)}")
    hooks = _Hooks(format, fields or Fields(), on_skip, on_error)
    given = [sources] if isinstance(sources, str | Path | SourceFile) else list(sources)
    return _unique(_read_all(given, hooks))


def list_documents(
    sources: Path | str | Iterable[Path | str], *, format: Format | None = None, on_skip: OnSkip | None = None
) -> list[SourceFile]:
    """The files that `read_documents` would read of some sources, with the keys of their ids.

    Raises:
        DataError: For a folder that cannot be read.
    """
    given = [sources] if isinstance(sources, str | Path) else sources

    def is_known(path: Path) -> bool:
        return format is not None or format_of(path) is not None or path.suffix.lower() == _ARCHIVE

    return list_files(given, is_known, on_skip)


def read_queries(
    source: Path | str, *, format: Format | None = None, fields: Fields | None = None
) -> Iterator[Query]:
    """Reads queries from a file or standard input.

    Plain text (.txt, or no JSON on standard input) has one query a line; TSV and CSV have id and text, or a
    header; JSON Lines are as for documents, and the text may also be called ``query`` or ``question``.

    Args:
        source: A path; ``-`` is standard input.
        format: "jsonl", "tsv", "csv", "parquet" or "lines"; by default as for `read_documents`.
        fields: Names of the fields in JSON Lines and in the header of a table.

    Yields:
        Queries with different ids; a plain line's id is ``path:line``.

    Raises:
        DataError: As for `read_documents`, and for an empty query.
        InputError: For an unknown format, or one that holds no queries.
    """
    if format is not None and format not in RECORDS:
        raise InputError(f"read_queries: got format {format!r}; expected one of {', '.join(RECORDS)}")
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
    usual = format_of(source)
    chosen = format or ("lines" if usual == "text" else usual)
    if chosen is not None and chosen not in RECORDS:
        raise DataError(f"{chosen} holds no queries; expected plain lines, TSV, CSV or JSON Lines", source)
    [file] = list_files([source], lambda _: True)
    for document in _unique(_read_file(file, _Hooks(chosen, fields))):
        if not document.text.strip():
            raise DataError(f"query {document.id!r} is empty; expected text", source)
        yield Query(document.id, document.text, document.metadata)


def format_of(path: Path | str) -> Format | None:
    """The format that the ending of a file name stands for, or None."""
    return _ENDINGS.get(ending(Path(path)))


@dataclass(frozen=True, slots=True)
class _Hooks:
    """How files are read."""

    format: Format | None
    fields: Fields
    on_skip: OnSkip | None = None
    on_error: Callable[[DataError], None] | None = None

    def skip(self, path: Path, reason: SkipReason) -> None:
        if self.on_skip:
            self.on_skip(path, reason)


Found: TypeAlias = Iterator[tuple[Place, Document]]


def _unique(documents: Found) -> Iterator[Document]:
    seen = Uniqueness()
    for place, document in documents:
        seen.check(document.id, place)
        yield document


def _read_all(sources: Sequence[Path | str | SourceFile], how: _Hooks) -> Found:
    paths = [source for source in sources if not isinstance(source, SourceFile)]
    files = [source for source in sources if isinstance(source, SourceFile)]
    for file in files + list_documents(paths, format=how.format, on_skip=how.on_skip):
        yield from _guard(file, how, partial(_read_file, file, how))


def _guard(file: SourceFile, how: _Hooks, read: Callable[[], Found]) -> Found:
    """The documents of a file; what is wrong with one that was not named does not end the reading."""
    is_empty = True
    try:
        for found in read():
            is_empty = False
            yield found
    except MissingExtra:
        if file.is_named:
            raise
        how.skip(file.path, "extra missing")
    except DataError as error:
        if file.is_named or how.on_error is None:
            raise
        how.on_error(error)
        how.skip(file.path, "too large" if isinstance(error, TooLarge) else "unreadable")
    else:
        if is_empty:
            how.skip(file.path, "no text")


def _read_file(file: SourceFile, how: _Hooks) -> Found:
    if file.path.suffix.lower() == _ARCHIVE and file.path.is_file():
        yield from _read_archive(file, how)
        return
    about: dict[str, Any] = {}
    if file.path.is_file():
        status = file.path.stat()
        about = _about(file.key, status.st_size, datetime.fromtimestamp(int(status.st_mtime), UTC))
    with open_source(file.path) as source:
        chosen = how.format or format_of(file.path) or _guess(file.path, source)
        yield from _Reader(source, file.key, how, about).read(chosen)


def _read_archive(file: SourceFile, how: _Hooks) -> Found:
    """The documents of the files in a zip archive, which is passed over as little as a folder is."""
    name = printable(file.path)
    with open_archive(file.path, name) as archive:
        for member in sorted(archive.infolist(), key=lambda member: member.filename):
            parts = [part for part in PurePosixPath(member.filename).parts if part not in ("/", "..")]
            inner = SourceFile(Path(name, *parts), "/".join((file.key, *parts)))
            if member.is_dir() or not parts:
                continue
            if any(part.startswith(".") or part == "__MACOSX" for part in parts):
                how.skip(inner.path, "hidden")
                continue
            chosen = how.format or format_of(inner.path)
            if chosen is None:
                how.skip(inner.path, "unknown kind")
                continue
            yield from _guard(inner, how, partial(_read_member, archive, member, inner, chosen, how))


def _read_member(archive: ZipFile, member: ZipInfo, file: SourceFile, format: Format, how: _Hooks) -> Found:
    name = printable(file.path)
    try:
        modified = datetime(*member.date_time, tzinfo=UTC)
    except ValueError:  # a month 0, as some programs write
        modified = None
    with open_member(archive, member, name) as raw:
        about = _about(file.key, member.file_size, modified)
        yield from _Reader(unpack(raw, name), file.key, how, about).read(format)


def _about(key: str, size: int, modified: datetime | None) -> dict[str, Any]:
    """What is known of a file from outside."""
    about = {"path": key, "name": key.rsplit("/", 1)[-1], "ending": ending(Path(key)), "size": size}
    return about if modified is None else {**about, "modified": modified.strftime("%Y-%m-%dT%H:%M:%SZ")}


def _guess(path: Path, source: Source) -> Format:
    if path.is_file():
        known = " ".join((*_ENDINGS, _ARCHIVE))
        packed = " ".join(COMPRESSED)
        message = f"unknown ending; expected one of {known} (or one of {packed} after it), or a format"
        raise DataError(message, path)
    return "jsonl" if source.head.removeprefix(BOM).lstrip().startswith(b"{") else "lines"


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads one open file.

    Attributes:
        source: The file.
        key: What ids are made of.
        how: How it is read.
        about: Metadata of a document that is the whole file.
    """

    source: Source
    key: str
    how: _Hooks
    about: Mapping[str, Any]

    def read(self, format: Format) -> Found:
        """The documents with their places."""
        if format == "jsonl":
            return self._json_lines(read_lines(self.source))
        if format in ("tsv", "csv"):
            return self._table(is_csv=format == "csv")
        if format == "parquet":
            return self._parquet()
        if format == "lines":
            return self._plain_lines()
        if format == "json":
            return self._json()
        # A message begins with a header, a mailbox with this line.
        is_mailbox = format == "mail" and self.source.head.startswith(b"From ")
        return self._mailbox() if is_mailbox else self._whole(format)

    def _place(self, line: int | None = None, record: int | None = None) -> Place:
        return Place(self.source.name, line, record, self.key)

    def _json_lines(self, lines: Iterable[Line]) -> Found:
        for line in lines:
            if line.text.strip():
                place = self._place(line.number)
                yield place, to_document(parse_object(line.text, place), self.how.fields, place)

    def _table(self, *, is_csv: bool) -> Found:
        lines = read_lines(self.source)
        rows = csv_rows(lines, self.how.fields, self.source.name) if is_csv else tsv_rows(lines)
        for number, record in table_records(rows, self.how.fields, self.source.name):
            place = self._place(number)
            document = to_document(record, self.how.fields, place)
            metadata = {column: parse_cell(cell) for column, cell in document.metadata.items()}
            yield place, replace(document, metadata=metadata)

    def _parquet(self) -> Found:
        # A file by itself is not read into memory.
        path = Path(self.source.name)
        content = path if path.is_file() else read_bytes(self.source)
        for record, row in parquet_rows(content, self.source.name):
            place = self._place(record=record)
            yield place, to_document(row, self.how.fields, place)

    def _plain_lines(self) -> Found:
        for line in read_lines(self.source):
            if line.text.strip():
                place = self._place(line.number)
                yield place, Document(place.id, line.text.strip())

    def _json(self) -> Found:
        """An array of records, JSON Lines under another name, one record, or a document without structure."""
        from triptych.files.notes import parse_json

        text = read_text(self.source)
        lines = (Line(number, line) for number, line in enumerate(text.split("\n"), 1))
        if _is_json_lines(text):
            yield from self._json_lines(lines)
            return
        value = parse_json(text, self.source.name) if text.strip() else None
        if self._is_record(value):
            yield self._place(), to_document(value, self.how.fields, self._place())
        elif isinstance(value, list) and value and self._is_record(cast("list[Any]", value)[0]):
            for number, record in enumerate(cast("list[Any]", value), 1):
                place = self._place(record=number)
                # Written and parsed again, a record has the checks of a line.
                yield place, to_document(parse_object(json.dumps(record), place), self.how.fields, place)
        else:
            yield from self._document(plain_text(text))

    def _is_record(self, value: Any) -> TypeGuard[dict[str, Any]]:
        if not isinstance(value, dict):
            return False
        record = cast("dict[str, Any]", value)
        name = first_of(record, self.how.fields.text)
        return name is not None and isinstance(record[name], str)

    def _mailbox(self) -> Found:
        from triptych.files.mail import read_mailbox

        for number, plain in read_mailbox(self.source):
            yield from self._document(plain, number)

    def _whole(self, format: Format) -> Found:
        if format in _TEXTS:
            yield from self._document(_TEXTS[format](read_text(self.source)))
        elif format == "code":
            from triptych.files.code import read_code

            yield from self._document(read_code(read_text(self.source), ending(Path(self.key))))
        elif format in ("rst", "ipynb"):
            from triptych.files.notes import read_notebook, read_rst

            read = read_rst if format == "rst" else read_notebook
            yield from self._document(read(read_text(self.source), self.source.name))
        else:
            yield from self._document(_binary_reader(format)(read_bytes(self.source), self.source.name))

    def _document(self, plain: Plain, record: int | None = None) -> Found:
        for page in plain.metadata.get("scanned_pages", ()):
            self.how.skip(Path(f"{self.source.name} page {page}"), "page without text (scanned?)")
        if plain.text:
            place = self._place(record=record)
            metadata = {**plain.metadata, **self.about}
            yield place, Document(place.id, plain.text, plain.title, metadata, plain.sections)


_TEXTS: dict[Format, Callable[[str], Plain]] = {
    "text": plain_text,
    "markdown": plain_markdown,
    "html": plain_html,
}


def _binary_reader(format: Format) -> Callable[[bytes, str], Plain]:
    """The reader of a format, imported when it is needed."""
    if format == "pdf":
        from triptych.files.pdf import read_pdf as read
    elif format == "docx":
        from triptych.files.office import read_docx as read
    elif format == "pptx":
        from triptych.files.office import read_pptx as read
    elif format == "odt":
        from triptych.files.office import read_odt as read
    elif format == "sheets":
        from triptych.files.office import read_sheets as read
    elif format == "epub":
        from triptych.files.book import read_epub as read
    else:
        from triptych.files.mail import read_mail as read
    return read


def _is_json_lines(text: str) -> bool:
    """Whether a first line is an object by itself and another one follows it."""
    first, _, rest = text.strip().partition("\n")
    if not rest.lstrip().startswith("{") or not first.startswith("{"):
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True
