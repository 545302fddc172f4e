"""PDF files: the text of their pages, under the headings of their bookmarks."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from triptych.errors import DataError, TooLarge, require_extra
from triptych.io import MAX_TEXT
from triptych.markup import Plain, squeeze
from triptych.records import Section

MAX_PAGES = 20_000
"""Pages of a file, at most."""
_HYPHEN = re.compile("[\ufffe\x02][ \t]*\n?")  # what the library gives for a hyphen that only breaks a line
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f\ufffe\uffff\ud800-\udfff]")
_DIGITS = re.compile(r"\d+")
_FEW = 4  # pages, below which nothing is taken for a running header
_DATE = re.compile(r"D:(\d{4})(\d\d)?(\d\d)?(?:(\d\d)(\d\d)(\d\d)?)?")


class _Bookmark(NamedTuple):
    level: int
    title: str
    page: int


def read_pdf(data: bytes, name: str) -> Plain:
    """The text of a PDF file: pages apart by an empty line, without the lines that head and foot all of them.

    A section begins with each page and with each bookmark that is found on its page. The metadata's ``scanned_pages``
    are the numbers of those that have pictures and no text.

    Raises:
        DataError: For a file that is broken or needs a password.
        TooLarge: For more than `MAX_PAGES` pages or `MAX_TEXT` characters.
        MissingExtra: Without pypdfium2.
    """
    with require_extra(f"{name}: reading PDF", "files"):
        import pypdfium2 as pdfium
    try:
        file = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        reason = "needs a password" if "password" in str(error) else f"no PDF that can be read ({error})"
        raise DataError(reason, name) from error
    try:
        if len(file) > MAX_PAGES:
            raise TooLarge(f"{len(file)} pages; expected at most {MAX_PAGES}", name)
        scanned: list[int] = []
        pages = _without_running_lines(list(_pages(file, name, scanned)))
        bookmarks = list(_bookmarks(file))
        metadata: dict[str, str] = file.get_metadata_dict()
    except pdfium.PdfiumError as error:
        raise DataError(f"a broken PDF ({error})", name) from error
    finally:
        file.close()
    author, created = _clean(metadata["Author"]), _date(metadata["CreationDate"])
    said = {"author": author, "created": created, "scanned_pages": scanned}
    text, sections = _join(pages, bookmarks)
    entries = {"pages": len(pages), **{key: value for key, value in said.items() if value}}
    return Plain(text, _clean(metadata["Title"]) or None, sections, entries)


def _pages(file: Any, name: str, scanned: list[int]) -> Iterator[str]:
    from pypdfium2.raw import FPDF_PAGEOBJ_IMAGE

    size = 0
    for number, page in enumerate(file, 1):
        words = page.get_textpage()
        text: str = words.get_text_bounded()
        words.close()
        if not text.strip() and any(page.get_objects([FPDF_PAGEOBJ_IMAGE])):
            scanned.append(number)
        page.close()
        text = _HYPHEN.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))
        lines = (squeeze(line) for line in _CONTROL.sub("", text).split("\n"))
        yield "\n".join(line for line in lines if line)
        size += len(text)
        if size > MAX_TEXT:
            raise TooLarge(f"a text of more than {MAX_TEXT >> 20} million characters, the limit", name)


def _without_running_lines(pages: Sequence[str]) -> list[str]:
    """The pages after the first without first and last lines that, numbers aside, stand on more than half of them."""
    lines = [page.split("\n") for page in pages]
    for place in (0, -1):
        ends = Counter(_DIGITS.sub("#", page[place]) for page in lines if page)
        common = {end for end, count in ends.items() if count > max(_FEW, len(pages)) / 2}
        for page in lines[1:]:
            if page and _DIGITS.sub("#", page[place]) in common:
                del page[place]
    return ["\n".join(page) for page in lines]


def _bookmarks(file: Any) -> Iterator[_Bookmark]:
    for mark in file.get_toc():
        target = mark.get_dest()
        page = None if target is None else target.get_index()
        title = _clean(mark.get_title() or "")
        if page is not None and title:
            yield _Bookmark(int(mark.level), title, int(page))


def _join(pages: Sequence[str], bookmarks: Sequence[_Bookmark]) -> tuple[str, tuple[Section, ...]]:
    marks: dict[int, list[_Bookmark]] = {}
    for mark in bookmarks:
        marks.setdefault(mark.page, []).append(mark)
    parts: list[str] = []
    sections: list[Section] = []
    path: list[_Bookmark] = []
    size = 0
    for number, page in enumerate(pages):
        places = list(_places(page, marks.get(number, ())))
        if page and not (places and places[0][0] == 0):
            sections.append(Section(size, tuple(mark.title for mark in path), number + 1))
        for at, mark in places:
            path = [*(above for above in path if above.level < mark.level), mark]
            if not page:
                continue
            if sections and sections[-1].start == size + at:
                sections.pop()
            sections.append(Section(size + at, tuple(above.title for above in path), number + 1))
        if page:
            parts.append(page)
            size += len(page) + 2
    return "\n\n".join(parts), tuple(sections)


def _places(page: str, marks: Sequence[_Bookmark]) -> Iterator[tuple[int, _Bookmark]]:
    """Where on its page each bookmark's words stand; one whose words are not found begins where the last one did."""
    at = 0
    for mark in marks:
        words = r"\s+".join(map(re.escape, mark.title.split()))
        found = re.compile(rf"^(?:[\w.]+\s+)?{words}", re.IGNORECASE | re.MULTILINE).search(page, at)
        at = at if found is None else found.start()
        yield at, mark


def _clean(value: str) -> str:
    return squeeze(_CONTROL.sub("", value))


def _date(value: str) -> str:
    """A date of PDF as in ISO 8601, as far as it is said; ``""`` for anything else."""
    match = _DATE.match(value)
    if match is None:
        return ""
    year, month, day, *clock = match.groups()
    date = "-".join(part for part in (year, month, day) if part)
    return f"{date}T{':'.join(part or '00' for part in clock)}" if day and clock[0] else date
