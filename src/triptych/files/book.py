"""E-books in EPUB."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from io import BytesIO
from urllib.parse import unquote
from xml.etree import ElementTree as Xml
from zipfile import ZipFile

from triptych.errors import DataError, TooLarge
from triptych.io import MAX_TEXT, open_archive, read_member
from triptych.markup import Piece, Plain, assemble, page_pieces, squeeze

_CONTAINER = "META-INF/container.xml"
_DC = "{http://purl.org/dc/elements/1.1/}"
_SAID = {"author": "creator", "created": "date", "lang": "language"}


def read_epub(data: bytes, name: str) -> Plain:
    """The chapters of a book in their order; its table of contents and other navigation are left out.

    Raises:
        DataError: For a file that is no such book.
        TooLarge: For one that expands beyond the limits.
    """
    with open_archive(BytesIO(data), name) as archive:
        root = _xml(archive, _CONTAINER, name).find(".//{*}rootfile")
        place = "" if root is None else root.get("full-path", "")
        package = _xml(archive, place, name)
        pieces = list(_pieces(archive, package, posixpath.dirname(place), name))
    said = {key: squeeze(package.findtext(f".//{_DC}{tag}") or "") for key, tag in _SAID.items()}
    title = squeeze(package.findtext(f".//{_DC}title") or "")
    return assemble(pieces, title or None, {key: value for key, value in said.items() if value})


def _pieces(archive: ZipFile, package: Xml.Element, folder: str, name: str) -> Iterator[Piece]:
    items = {item.get("id"): item for item in package.iterfind(".//{*}manifest/{*}item")}
    size = 0
    for entry in package.iterfind(".//{*}spine/{*}itemref"):
        item = items.get(entry.get("idref"))
        if item is None or "html" not in item.get("media-type", ""):
            continue
        if "nav" in item.get("properties", "").split():
            continue
        member = posixpath.normpath(posixpath.join(folder, unquote(item.get("href", ""))))
        page = read_member(archive, member, name)
        size += len(page)
        if size > MAX_TEXT:
            raise TooLarge(f"chapters of more than {MAX_TEXT >> 20} MiB, the limit", name)
        yield from page_pieces(page.decode("utf-8", "replace"))


def _xml(archive: ZipFile, member: str, name: str) -> Xml.Element:
    try:
        return Xml.fromstring(read_member(archive, member, name))
    except Xml.ParseError as error:
        raise DataError(f"its part {member} is no XML that can be read ({error})", name) from error
