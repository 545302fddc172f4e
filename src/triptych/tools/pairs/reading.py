"""Reads documents with structure and aligned translations from people's files and folders."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple, cast
from urllib.parse import unquote, urlsplit

from triptych.collections.training import source_paths
from triptych.config import check_types
from triptych.documents import Format, format_of
from triptych.errors import DataError
from triptych.files.listing import OnSkip, walk
from triptych.io import STDIN, Source, open_source, printable, read_lines, read_text
from triptych.records import (
    COMPRESSED,
    Fields,
    Place,
    csv_rows,
    parse_object,
    table_records,
    to_document,
    tsv_rows,
)
from triptych.text import is_code, is_path_code, is_utf8
from triptych.tools.pairs.base import Link, Minable, StructuredDocument, Translations, parse
from triptych.tools.pairs.outline import Outline, html_outline, markdown_outline, text_outline

_FORMATS: tuple[Format, ...] = ("jsonl", "tsv", "csv", "text", "markdown", "html")
_SECTION_HEADINGS = ("heading", "title", "name")
_SECTION_TEXTS = ("text", "content", "contents", "body", "paragraphs")
_DESCRIPTIONS = ("description", "summary", "abstract")


class MinedFile(NamedTuple):
    """A file to be read, and the folder (or itself) under which it was given."""

    path: Path
    root: Path


@dataclass(frozen=True, slots=True)
class Origin:
    """What is said of all documents that do not say it themselves.

    Attributes:
        source: Name of the collection; by default the name of the folder or file that was given.
        lang: Language of documents that do not say theirs; by default the path, the file, or the text itself tells.
        license: License of texts that do not say theirs.
        languages_in_paths: A folder or a next-to-last ending that is a language code says the language and is
            left out of the key: ``guide/de/pot.md`` and ``guide/fr/pot.md``, or ``pot.de.md``, are translations.
    """

    source: str = ""
    lang: str = ""
    license: str = ""
    languages_in_paths: bool = False

    def __post_init__(self) -> None:
        check_types(self)


def mined_files(sources: Path | str | Iterable[Path | str], on_skip: OnSkip | None = None) -> list[MinedFile]:
    """All files under the given paths, in the order of their names.

    Args:
        sources: Files and folders.
        on_skip: Called with each file of a folder that is passed over, and why; such a file named in `sources` is an
            error instead.

    Raises:
        DataError: For a path that is not there, an unknown ending, or standard input, which cannot be read anew
            when a run resumes.
    """
    given = source_paths(sources)
    found: list[MinedFile] = []
    for root in given:
        if str(root) == STDIN:
            raise DataError("standard input cannot be read twice; expected a file or folder", STDIN)
        if not is_utf8(root):
            message = "the name is not UTF-8; expected one that can stand in records"
            raise DataError(message, printable(root))
        if root.is_dir():
            for path in walk(root, on_skip):
                if _is_minable(path):
                    found.append(MinedFile(path, root))
                elif on_skip:
                    on_skip(path, "unknown kind")
        elif not root.exists():
            raise DataError("no such file or folder", root)
        elif not root.is_file():
            raise DataError(
                "is a pipe or device, which cannot be read twice; expected a file or folder", root
            )
        elif not _is_minable(root):
            raise DataError(
                "unknown ending; expected .jsonl .tsv .csv .md .html .txt (or .gz, .zst after it)", root
            )
        else:
            found.append(MinedFile(root, root))
    if not found:
        raise DataError("no file to read in it", given[0] if given else None)
    return found


def _is_minable(path: Path | str) -> bool:
    return format_of(path) in _FORMATS


def read_minable(file: MinedFile, origin: Origin | None = None) -> Iterator[Minable]:
    """Reads a file's documents and translations.

    A Markdown, HTML or text file is one document, its key the path below the root without ending. A line of
    JSON Lines is what `triptych.tools.pairs.base.parse` knows; or a document with ``title`` and
    ``sections`` (``[{"heading", "text" or "paragraphs", "sections"}, …]``) or ``text``, with ``id``, ``lang``,
    ``keywords`` and ``description`` if it has them; or ``{"translation": {language: sentence}}``. A table whose
    columns are all named by languages holds aligned sentences, any other table documents.

    Raises:
        DataError: For what cannot be read, with the file and the line.
    """
    how = origin or Origin()
    format = format_of(file.path)
    with open_source(file.path) as source:
        if format == "jsonl":
            for line in read_lines(source):
                if line.text.strip():
                    place = Place(source.name, line.number)
                    yield _of_record(parse_object(line.text, place), place, file, how)
        elif format in ("tsv", "csv"):
            yield from _table(source, format == "csv", file, how)
        else:
            outlines = {"markdown": markdown_outline, "html": html_outline}
            yield _of_file(outlines.get(format or "", text_outline)(read_text(source)), file, how)


def _of_file(outline: Outline, file: MinedFile, how: Origin) -> StructuredDocument:
    key, lang = _key(file, how)
    return StructuredDocument(
        source=_source(file, how),
        key=key,
        lang=lang or outline.lang or how.lang,
        title=outline.title,
        blocks=outline.blocks,
        keywords=outline.keywords,
        description=outline.description,
        links=tuple(_inner_links(outline.links, key, how)),
        license=how.license,
        aligned=False,
    )


def _of_record(record: Mapping[str, Any], place: Place, file: MinedFile, how: Origin) -> Minable:
    defaults = {"source": _source(file, how), "lang": how.lang, "license": how.license}
    if "blocks" in record or "translations" in record:
        return parse(defaults | dict(record), place)
    if "translation" in record:
        named = {"key": str(record.get("id", place.line or 0)), "kind": "sentence"}
        return parse(defaults | named | dict(record) | {"translations": record["translation"]}, place)
    return parse(defaults | _record_of_text(dict(record), place), place)


def _record_of_text(record: dict[str, Any], place: Place) -> dict[str, Any]:
    """A record with ``sections`` or ``text`` as one with blocks."""
    keywords = record.get("keywords")
    named: dict[str, Any] = {
        "key": str(record.get("key") or record.get("id") or record.get("_id") or place.line or 0),
        "title": record.get("title") or "",
        "description": next((record[name] for name in _DESCRIPTIONS if record.get(name)), ""),
        "keywords": keywords.split(",") if isinstance(keywords, str) else keywords,
        "links": record.get("links"),
        "aligned": False,
    }
    named |= {name: record[name] for name in ("source", "license", "licence") if record.get(name)}
    lang = record.get("lang") or record.get("language")
    if lang:
        named["lang"] = lang
    if "sections" in record:
        texts = [("", text) for text in _paragraphs(record, place)]
        texts += _section_texts(record["sections"], 1, place)
        return named | {"blocks": [[n, kind, text] for n, (kind, text) in enumerate(texts)]}
    document = to_document(record, Fields(), place)
    return named | {"blocks": [list(block) for block in text_outline(document.text).blocks]}


def _section_texts(sections: Any, level: int, place: Place) -> Iterator[tuple[str, str]]:
    if not isinstance(sections, list):
        raise place.error(f"field 'sections' is {sections!r:.40}; expected a list")
    for section in cast("list[Any]", sections):
        if not isinstance(section, dict):
            raise place.error(f"field 'sections' has {section!r:.40}; expected objects with heading and text")
        fields = cast("dict[str, Any]", section)
        heading = next((fields[name] for name in _SECTION_HEADINGS if fields.get(name)), "")
        if not isinstance(heading, str):
            raise place.error(f"a section's heading is {heading!r:.40}; expected a string")
        if heading:
            yield f"h{min(level, 6)}", heading
        yield from (("", text) for text in _paragraphs(fields, place))
        yield from _section_texts(fields.get("sections") or [], level + 1, place)


def _paragraphs(fields: Mapping[str, Any], place: Place) -> list[str]:
    value = next((fields[name] for name in _SECTION_TEXTS if fields.get(name)), [])
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in cast("list[Any]", texts)):
        raise place.error(f"a section's text is {value!r:.40}; expected a string or a list of strings")
    return [block.text for text in cast("list[str]", texts) for block in text_outline(text).blocks]


def _table(source: Source, is_csv: bool, file: MinedFile, how: Origin) -> Iterator[Minable]:
    lines = read_lines(source)
    rows = csv_rows(lines, Fields(), source.name) if is_csv else tsv_rows(lines)
    first = next(rows, None)
    if first is None:
        return
    languages = first[1]
    if len(languages) < 2 or not all(map(is_code, languages)):
        for number, record in table_records(chain([first], rows), Fields(), source.name):
            yield _of_record(record, Place(source.name, number), file, how)
        return
    for number, cells in rows:
        if len(cells) != len(languages):
            raise DataError(
                f"got {len(cells)} columns; expected {len(languages)}, as in the header", source.name, number
            )
        texts = {lang: (cell,) for lang, cell in zip(languages, cells, strict=True) if cell.strip()}
        yield Translations(_source(file, how), str(number), "sentence", texts, how.license)


def _source(file: MinedFile, how: Origin) -> str:
    return how.source or _bare(file.root.resolve().name) or "files"


def _bare(name: str) -> str:
    """A file name without its endings for compression and format."""
    for ending in COMPRESSED:
        name = name.removesuffix(ending)
    return name.rsplit(".", 1)[0] if _is_minable(name) else name


def _key(file: MinedFile, how: Origin) -> tuple[str, str]:
    """The key of a file, and the language that its path names."""
    relative = file.path.name if file.path == file.root else file.path.relative_to(file.root).as_posix()
    return _split_language(
        posixpath.join(posixpath.dirname(relative), _bare(posixpath.basename(relative))), how
    )


def _split_language(path: str, how: Origin) -> tuple[str, str]:
    if not how.languages_in_paths:
        return path, ""
    stem, dot, ending = path.rpartition(".")
    if dot and is_path_code(ending):
        return stem, ending
    parts: Sequence[str] = path.split("/")
    place = next((n for n, part in enumerate(parts[:-1]) if is_path_code(part)), None)
    if place is None:
        return path, ""
    return "/".join((*parts[:place], *parts[place + 1 :])), parts[place]


def _inner_links(links: Iterable[Link], key: str, how: Origin) -> Iterator[Link]:
    """Links to other files under the same root, by key; those to elsewhere or into the same file are left out."""
    for text, address in links:
        try:
            parts = urlsplit(address)
        except ValueError:  # no address at all
            continue
        path = unquote(parts.path)
        if parts.scheme or parts.netloc or not path or path.startswith("/"):
            continue
        joined = posixpath.normpath(posixpath.join(posixpath.dirname(key), path))
        folder, name = posixpath.split(joined)
        target, _ = _split_language(posixpath.join(folder, _bare(name)), how)
        if target != key:
            yield Link(text, target)
