"""Parts of a document that can stand as a passage or a query: its body, its sections, its questions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from triptych.text import fold
from triptych.tools.pairs.base import Block, StructuredDocument

_QUESTION_MARKS = ("?", "？", "؟", "⸮", "՞", "\u037e")
_NUMBERING = re.compile(
    r"(?:\w+ (?:\d+|[A-Z])\.|[A-Z]\.(?:\d+\.?)+|\d+(?:\.\d+)+\.?|\d+[.)]|[IVX]+\.)(?=\s)[\s\u200e\u200f]*"
)


def is_question(text: str) -> bool:
    """Whether a heading is a question: by its mark at the end, in any script (Greek has its own)."""
    stripped = text.rstrip(" \u00a0»\"”'’)")
    greek = stripped.endswith(";") and any("\u0370" <= char <= "\u03ff" for char in stripped)
    return stripped.endswith(_QUESTION_MARKS) or greek


def body(document: StructuredDocument, chars: int) -> str:
    """The text from its beginning to the end of the block that reaches `chars` characters.

    Headings that repeat the title are left out, and there is no body without a paragraph.
    """
    return joined(document.blocks, chars, without=document.title)


def sections(document: StructuredDocument, chars: int) -> Iterator[tuple[str, str]]:
    """Every heading with the text up to the next heading of its level or above."""
    for number, block in enumerate(document.blocks):
        level = block.level
        if level is not None and block.text.strip():
            rest = until(document.blocks[number + 1 :], partial(_ends, level))
            yield block.text, joined(rest, chars, without=block.text)


def _ends(level: int, block: Block) -> bool:
    """Whether a block ends the section of a heading of that level."""
    return block.level is not None and block.level <= level


def until(blocks: Sequence[Block], stop: Callable[[Block], bool]) -> Sequence[Block]:
    """The blocks before the first at which to stop."""
    for number, block in enumerate(blocks):
        if stop(block):
            return blocks[:number]
    return blocks


def joined(blocks: Sequence[Block], chars: int, title: str = "", *, without: str = "") -> str:
    """Blocks as lines up to a number of characters, without headings that head nothing; "" without a paragraph.

    Args:
        blocks: In order.
        chars: The limit.
        title: Stands before them, if they do not begin with it.
        without: A query: headings that repeat it would give it away and are left out.
    """
    query = fold(without)
    lines: list[str] = []
    text_lines, length = 0, 0
    for block in blocks:
        text = block.text.strip()
        if text and not (block.level is not None and query and fold(text) == query):
            lines.append(text)
            length += len(text) + 1
            text_lines = len(lines) if block.level is None else text_lines
        if length >= chars:
            break
    if not text_lines:
        return ""
    whole = lines[:text_lines]
    if title and fold(whole[0]) != fold(title):
        whole.insert(0, title)
    return _cut("\n".join(whole), chars)


def _cut(text: str, chars: int) -> str:
    """A text that is more than half as long again as wanted ends after a sentence or, without one, a word."""
    if len(text) <= chars * 3 // 2:
        return text
    end = max(text.rfind(mark, chars // 2, chars) for mark in (". ", "。", "! ", "? ", "।", "؟ ", "\n"))
    if end < 0:
        end = text.rfind(" ", chars // 2, chars)
    return text[: end + 1 if end > 0 else chars].rstrip()


def unnumbered(text: str) -> str:
    """A heading without “12.3.” or “Chapter 4.” and without a colon at its end, unless nothing else is left."""
    return without_match(_NUMBERING, text).rstrip(":： ") or text


def without_match(pattern: re.Pattern[str], text: str) -> str:
    """A text without what the pattern finds at its beginning, unless nothing else is left."""
    match = pattern.match(text)
    return (text[match.end() :].strip() if match else "") or text
