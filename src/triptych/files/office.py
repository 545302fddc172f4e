"""Documents, slides and sheets of office programs: docx, pptx, odt, xlsx and ods."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, time
from io import BytesIO
from typing import Any
from xml.etree import ElementTree as Xml

from triptych.errors import DataError, TooLarge, require_extra
from triptych.io import open_archive, read_member
from triptych.markup import Piece, Plain, assemble, squeeze

MAX_PART = 1 << 26
"""Bytes of one XML part of a package, at most: its tree takes ten times as much."""
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_SEEN = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_BREAK = f"{_W}lastRenderedPageBreak"
_ODF = {
    "text": "{urn:oasis:names:tc:opendocument:xmlns:text:1.0}",
    "table": "{urn:oasis:names:tc:opendocument:xmlns:table:1.0}",
    "meta": "{urn:oasis:names:tc:opendocument:xmlns:meta:1.0}",
    "dc": "{http://purl.org/dc/elements/1.1/}",
}
_TEXT, _TABLE = _ODF["text"], _ODF["table"]
_UNSEEN = {  # contents, indexes, deleted text, notes of reviewers
    *(f"{_TEXT}{name}" for name in ("table-of-content", "illustration-index", "alphabetical-index")),
    f"{_TEXT}tracked-changes",
    "{urn:oasis:names:tc:opendocument:xmlns:office:1.0}annotation",
}
_CONTENTS = ("toc ", "table of figures", "header", "footer")  # how names of styles begin


def read_docx(data: bytes, name: str) -> Plain:
    """The paragraphs, lists and tables of a document; its headings are those with the styles Heading 1 to 9.

    Text boxes and inserted text count, deleted text, fields of contents, headers and footers do not. Pages are those
    that the program which wrote it last had on its screen, if it noted them.

    Raises:
        DataError: For a file that is no such document.
        TooLarge: For one that expands beyond the limits.
        MissingExtra: Without python-docx.
    """
    with require_extra(f"{name}: reading docx", "files"):
        from docx import Document as open_docx
    file = _open(data, name, open_docx)
    styles = {style.style_id: style.name or "" for style in file.styles}
    return _plain(_docx_pieces(file.element.body, styles), file, name)


def _docx_pieces(body: Any, styles: dict[str, str]) -> Iterator[Piece]:
    page = None if body.find(f".//{_BREAK}") is None else 1
    for node in body.iter(f"{_W}p", f"{_W}tr", _BREAK):
        above = {parent.tag for parent in node.iterancestors()}
        if _FALLBACK in above:
            continue
        if node.tag == _BREAK:
            page = (page or 0) + 1
            continue
        if f"{_W}tr" in above and node.tag == f"{_W}p":
            continue
        begins = None if page is None else page + _breaks_before_text(node)
        if node.tag == f"{_W}tr":
            cells = (_words(cell) for cell in node.iter(f"{_W}tc"))
            yield Piece("tr", " ".join(words for words in cells if words), begins)
            continue
        style = styles.get(node.style or "", "").lower()
        if style.startswith(_CONTENTS):
            continue
        level = style.removeprefix("heading ")
        kind = f"h{min(int(level), 6)}" if level.isdecimal() else "h1" if style == "title" else ""
        is_item = node.find(f"{_W}pPr/{_W}numPr") is not None or style.startswith("list")
        yield Piece(kind or ("li" if is_item else ""), _words(node), begins)


def _breaks_before_text(node: Any) -> int:
    count = 0
    for child in node.iter(f"{_W}t", _BREAK):
        if child.tag == _BREAK:
            count += 1
        elif child.text:
            break
    return count


def _words(node: Any) -> str:
    """The text in a paragraph or cell; that of a text box in it is a paragraph of its own."""
    inner: set[Any] = set()
    if node.tag == f"{_W}p":
        inner = {child for box in node.iter(f"{_W}p") if box is not node for child in box.iter()}
    found: list[str] = []
    for child in node.iter():
        if child in inner:
            continue
        if child.tag == f"{_W}t":
            found.append(child.text or "")
        elif child.tag == f"{_W}p" and found:
            found.append(" ")
        else:
            found.append(_SEEN.get(child.tag, ""))
    return "".join(found).strip()


def read_pptx(data: bytes, name: str) -> Plain:
    """The slides of a presentation as pages, each headed by its title, with tables and notes.

    Raises:
        DataError: For a file that is no such presentation.
        TooLarge: For one that expands beyond the limits.
        MissingExtra: Without python-pptx.
    """
    with require_extra(f"{name}: reading pptx", "files"):
        from pptx import Presentation as open_pptx
    file = _open(data, name, open_pptx)
    return _plain(_pptx_pieces(file), file, name)


def _pptx_pieces(file: Any) -> Iterator[Piece]:
    for number, slide in enumerate(file.slides, 1):
        title = slide.shapes.title
        heading = squeeze(title.text_frame.text) if title is not None else ""
        yield Piece("h1", heading or f"Slide {number}", number)
        for shape in _shapes(slide.shapes):
            if title is not None and shape.shape_id == title.shape_id:
                continue
            if shape.has_text_frame:
                for paragraph in shape.text_frame.paragraphs:
                    yield Piece("li", paragraph.text.replace("\v", "\n"), number)
            elif getattr(shape, "has_table", False) and shape.has_table:
                for row in shape.table.rows:
                    yield Piece("tr", " ".join(squeeze(cell.text) for cell in row.cells), number)
        if slide.has_notes_slide and slide.notes_slide.notes_text_frame is not None:
            yield Piece("", slide.notes_slide.notes_text_frame.text, number)


def _shapes(shapes: Any) -> Iterator[Any]:
    stack = list(shapes)[::-1]
    while stack:
        shape = stack.pop()
        if hasattr(shape, "shapes"):  # a group
            stack.extend(list(shape.shapes)[::-1])
        else:
            yield shape


def read_odt(data: bytes, name: str) -> Plain:
    """The paragraphs, lists and tables of an OpenDocument text, under its headings, on the pages that it notes.

    Raises:
        DataError: For a file that is no such document.
        TooLarge: For one that expands beyond the limits.
    """
    _check_parts(data, name)
    with open_archive(BytesIO(data), name) as archive:
        try:
            content = Xml.fromstring(read_member(archive, "content.xml", name))
            about = Xml.fromstring(read_member(archive, "meta.xml", name))
        except Xml.ParseError as error:
            raise DataError(f"not what its ending says ({error})", name) from error
    said = {
        key: squeeze(about.findtext(f".//{tag}", "", _ODF) or "")
        for key, tag in {
            "author": "{*}initial-creator",
            "created": "{*}creation-date",
            "lang": "{*}language",
        }.items()
    }
    title = squeeze(about.findtext(f".//{_ODF['dc']}title") or "")
    try:
        pieces = list(_odt_pieces(content))
    except (RecursionError, ValueError) as error:
        raise DataError(f"a broken document ({error})", name) from error
    return _assemble(pieces, title, said)


def _odt_pieces(content: Xml.Element) -> Iterator[Piece]:
    page_break = f"{_TEXT}soft-page-break"
    page = None if content.find(f".//{page_break}") is None else 1
    stack: list[tuple[Xml.Element, str]] = [(content, "")]
    while stack:
        node, kind = stack.pop()
        if node.tag in _UNSEEN:
            continue
        if node.tag == page_break:
            page = (page or 0) + 1
        elif node.tag in (f"{_TEXT}h", f"{_TEXT}p", f"{_TABLE}table-row"):
            level = node.get(f"{_TEXT}outline-level", "1")
            kind = "tr" if node.tag == f"{_TABLE}table-row" else kind
            kind = f"h{min(int(level), 6)}" if node.tag == f"{_TEXT}h" else kind
            words = _odt_words(node)
            leading = not node.text and len(node) > 0 and node[0].tag == page_break
            yield Piece(kind, squeeze(words) if kind == "tr" else words, page and page + leading)
            page = page and page + sum(1 for _ in node.iter(page_break))
        else:
            inner = "li" if node.tag == f"{_TEXT}list" else kind
            stack += [(child, inner) for child in reversed(node)]


def _odt_words(node: Xml.Element) -> str:
    """The text of a paragraph or row, without what reviewers noted in it."""
    if node.tag in _UNSEEN:
        return ""
    name = node.tag.removeprefix(_TEXT)
    inner = {"tab": "\t", "line-break": "\n", "s": " " * min(int(node.get(f"{_TEXT}c", "1")), 80)}.get(
        name, ""
    )
    parts = [inner, node.text or ""]
    for child in node:
        parts += [_odt_words(child), child.tail or ""]
    return "".join(parts) + (" " if name == "p" or name == "h" else "")


def read_sheets(data: bytes, name: str) -> Plain:
    """The sheets of a workbook (xlsx, xls, ods), each headed by its name, a row a line.

    Where a sheet's first row names its columns, the rows below say of each cell whose it is: ``name: value``.

    Raises:
        DataError: For a file that is no such workbook.
        TooLarge: For one that expands beyond the limits.
        MissingExtra: Without python-calamine.
    """
    with require_extra(f"{name}: reading sheets", "files"):
        from python_calamine import CalamineError, load_workbook
    if data.startswith(b"PK"):
        _check_parts(data, name)
    try:
        with load_workbook(BytesIO(data)) as book:
            pieces = [piece for sheet in book.sheet_names for piece in _sheet(book, sheet)]
    except CalamineError as error:
        raise DataError(f"not what its ending says ({error})", name) from error
    return assemble(pieces)


def _sheet(book: Any, name: str) -> Iterator[Piece]:
    rows = [[_cell(value) for value in row] for row in book.get_sheet_by_name(name).to_python()]
    filled = [row for row in rows if any(row)]
    if filled:
        yield Piece("h1", name)
    names = filled[0] if filled else []
    is_table = (
        len(filled) > 1 and len({*names}) == len(names) and all(re.search(r"[^\W\d]", each) for each in names)
    )
    for number, row in enumerate(filled):
        cells = zip(names, row, strict=False)
        said = (
            [f"{column}: {value}" for column, value in cells if value]
            if is_table and number
            else filter(None, row)
        )
        yield Piece("tr", (", " if is_table and number else " ").join(said))


def _cell(value: object) -> str:
    """A value as a program of sheets shows it."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.isoformat() if isinstance(value, date | time) else squeeze(str(value))


def _check_parts(data: bytes, name: str) -> None:
    with open_archive(BytesIO(data), name) as archive:
        for member in archive.infolist():
            if member.filename.endswith((".xml", ".rels")) and member.file_size > MAX_PART:
                limit = f"{MAX_PART >> 20} MiB, the limit"
                raise TooLarge(f"its part {member.filename} has more than {limit}", name)


def _open(data: bytes, name: str, read: Callable[[BytesIO], Any]) -> Any:
    _check_parts(data, name)
    try:
        return read(BytesIO(data))
    except Exception as error:  # whatever the library stumbles over in a broken file
        raise DataError(f"not what its ending says ({error})", name) from error


def _plain(pieces: Iterator[Piece], file: Any, name: str) -> Plain:
    core = file.core_properties
    try:
        said: dict[str, Any] = {"author": core.author, "created": core.created, "lang": core.language}
        title = squeeze(core.title)
        read = list(pieces)
    except Exception as error:
        raise DataError(f"a broken document ({error})", name) from error
    if isinstance(said["created"], datetime):
        said["created"] = said["created"].isoformat()
    return _assemble(read, title, said)


def _assemble(pieces: list[Piece], title: str, said: dict[str, Any]) -> Plain:
    heading = next((squeeze(piece.text) for piece in pieces if piece.kind == "h1"), "")
    return assemble(pieces, title or heading or None, {key: value for key, value in said.items() if value})
