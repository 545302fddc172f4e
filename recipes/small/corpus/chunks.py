"""Documents as passages of some 256 tokens, each under the heading that it can be found by."""

from __future__ import annotations

from dataclasses import dataclass

from corpus.languages import weight
from triptych.text import fold
from triptych.tools.pairs.base import StructuredDocument
from triptych.tools.pairs.kinds import is_question

LEAST, MOST = 220, 900
"""Comparable letters of a passage: below the first it takes the next section in, above the second it ends."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document.

    Attributes:
        id: Source, key, language and number.
        text: The document's title, then the text; the heading itself is left out, since it is a query.
        lang: Its language.
        article: What its translations and the document's other passages share.
        source: The collection.
        heading: What stands above it, or "".
        name: Number and kind of the heading: the same in translations. ``(-1, "")`` for the beginning.
        blocks: Numbers of the blocks that it is made of: the same in translations.
    """

    id: str
    text: str
    lang: str
    article: str
    source: str
    heading: str
    name: tuple[int, str]
    blocks: tuple[int, ...] = ()


def chunks(document: StructuredDocument) -> list[Chunk]:
    """Cuts a document at its headings, and where a section is long at the end of a paragraph."""
    found: list[Chunk] = []
    lines: list[str] = []
    numbers: list[int] = []
    heading, name, length, title = "", (-1, ""), 0.0, document.title
    article = f"{document.source}/{document.key}"
    with_title = [title] if title and document.source != "ddtp" else []

    def close() -> None:
        text = "\n".join([*with_title, *lines])
        if lines and length >= 60:
            identity = f"{article}/{document.lang}/{len(found)}"
            found.append(
                Chunk(identity, text, document.lang, article, document.source, heading, name, (*numbers,))
            )

    for block in document.blocks:
        size = weight(block.text, document.lang)
        if block.level is not None and (length >= LEAST or not lines):
            close()
            lines, numbers, length = [], [], 0.0
            heading = "" if fold(block.text) == fold(title) else block.text
            name = (block.number, block.kind)
            continue
        if length + size > MOST and length >= LEAST:
            close()
            lines, numbers, length, heading, name = [], [], 0.0, "", (-2, "")
        lines.append(cut(block.text, MOST * 2, document.lang))
        numbers.append(block.number)
        length += size
    close()
    return found


def cut(text: str, most: float, language: str) -> str:
    """A text of at most so many comparable letters, ended after a sentence or a word where there is one."""
    total = weight(text, language)
    if total <= most:
        return text
    part = text[: int(len(text) * most / total)]
    end = max(part.rfind(mark) for mark in (". ", "。", "! ", "? ", "। ", "؟ "))
    end = end if end > len(part) // 2 else part.rfind(" ") - 1
    return part[: end + 1] if end > 0 else part


def can_ask(text: str, language: str) -> bool:
    """Whether a heading or an index entry says enough to be searched for."""
    if "\\" in text or text.endswith(":"):
        return False
    return 9 <= weight(text, language) <= 160 and (
        is_question(text) or sum(map(str.isalpha, text)) > 0.6 * len(text)
    )
