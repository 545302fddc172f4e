"""Documents and slides of office programs: docx and pptx."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from io import BytesIO
from typing import Any

from triptych.errors import DataError, MissingExtra, TooLarge
from triptych.io import open_archive
from triptych.markup import Piece, Plain, assemble, squeeze

MAX_PART = 1 << 26
"""Bytes of one XML part of a package, at most: its tree takes ten times as much."""
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_SEEN = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_CONTENTS = ("toc ", "table of figures", "header", "footer")  # how names of styles begin


def read_docx(data: bytes, name: str) -> Plain:
    """The paragraphs, lists and tables of a document; its headings are those with the styles Heading 1 to 9.

    Text boxes and inserted text count, deleted text, fields of contents, headers and footers do not.

    Raises:
        DataError: For a file that is no such document.
        TooLarge: For one that expands beyond the limits.
        MissingExtra: Without python-docx.
    """
    try:
        from docx import Document as open_docx
    except ImportError:
        raise MissingExtra(f"{name}: reading docx", "files") from None
    file = _open(data, name, open_docx)
    styles = {style.style_id: style.name or "" for style in file.styles}
    return _plain(_docx_pieces(file.element.body, styles), file, name)


def _docx_pieces(body: Any, styles: dict[str, str]) -> Iterator[Piece]:
    for node in body.iter(f"{_W}p", f"{_W}tr"):
        if node.tag == f"{_W}tr":
            cells = (_words(cell) for cell in node.iter(f"{_W}tc"))
            yield Piece("tr", " ".join(words for words in cells if words))
            continue
        above = {parent.tag for parent in node.iterancestors()}
        if above & {f"{_W}tr", _FALLBACK}:
            continue
        style = styles.get(node.style or "", "").lower()
        if style.startswith(_CONTENTS):
            continue
        level = style.removeprefix("heading ")
        kind = f"h{min(int(level), 6)}" if level.isdecimal() else "h1" if style == "title" else ""
        is_item = node.find(f"{_W}pPr/{_W}numPr") is not None or style.startswith("list")
        yield Piece(kind or ("li" if is_item else ""), _words(node))


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
    try:
        from pptx import Presentation as open_pptx
    except ImportError:
        raise MissingExtra(f"{name}: reading pptx", "files") from None
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


def _open(data: bytes, name: str, read: Callable[[BytesIO], Any]) -> Any:
    with open_archive(BytesIO(data), name) as archive:
        for member in archive.infolist():
            if member.filename.endswith((".xml", ".rels")) and member.file_size > MAX_PART:
                limit = f"{MAX_PART >> 20} MiB, the limit"
                raise TooLarge(f"its part {member.filename} has more than {limit}", name)
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
    heading = next((squeeze(piece.text) for piece in read if piece.kind == "h1"), "")
    return assemble(read, title or heading or None, {key: value for key, value in said.items() if value})
