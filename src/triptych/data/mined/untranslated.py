"""Text of a manual that was left in English: what a document has in common, word by word, with its English version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from triptych.data.mined.languages import primary
from triptych.data.mined.structured import Block, StructuredDocument
from triptych.data.mined.words import fold

_ORIGINAL = "en"
_LEAST = 2  # words of a heading, keyword or description; one word may be a name
_LEAST_PARAGRAPH = 8  # below that it may be a command, the same in all languages


class Untranslated(NamedTuple):
    """A document without its untranslated parts, and how many blocks and keywords those were."""

    document: StructuredDocument
    blocks: int
    keywords: int


def without_untranslated(documents: Sequence[StructuredDocument]) -> list[Untranslated]:
    """Takes out of each document what is the same in the English one: headings, paragraphs, keywords, description.

    Titles stay, since they may be names; so does whatever is short. Without an English document nothing is done.

    Args:
        documents: One document in its languages.
    """
    english = next((document for document in documents if primary(document.lang) == _ORIGINAL), None)
    if english is None:
        return [Untranslated(document, 0, 0) for document in documents]
    held = {
        fold(text) for text in (*(b.text for b in english.blocks), *english.keywords, english.description)
    }
    return [
        Untranslated(document, 0, 0) if primary(document.lang) == _ORIGINAL else _cleaned(document, held)
        for document in documents
    ]


def _cleaned(document: StructuredDocument, held: set[str]) -> Untranslated:
    def foreign(text: str, least: int) -> bool:
        words = fold(text)
        return words.count(" ") + 1 >= least and words in held

    def is_left(block: Block) -> bool:
        return foreign(block.text, _LEAST_PARAGRAPH if block.level is None else _LEAST)

    blocks = tuple(block for block in document.blocks if not is_left(block))
    keywords = tuple(word for word in document.keywords if not foreign(word, _LEAST))
    description = "" if foreign(document.description, _LEAST) else document.description
    return Untranslated(
        replace(document, blocks=blocks, keywords=keywords, description=description),
        len(document.blocks) - len(blocks),
        len(document.keywords) - len(keywords),
    )
