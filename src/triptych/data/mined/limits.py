"""How much is taken of a document, and which part of it where there is more."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from triptych.data.mined.structured import StructuredDocument, Translations
from triptych.errors import InputError

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken of a document.

    Attributes:
        passage_chars: Bodies and sections end with the block that reaches so many characters.
        document_chars: The same for whole documents beside their translations.
        neighbours: Most pairs of neighbouring paragraphs of a document.
        keywords: Most keywords of a document.
        links: Most link texts that lead to a document.
        language_pairs: Most ordered pairs of languages for each text that has translations.
        seed: What is left out depends on it and on the document, on nothing else.

    Raises:
        InputError: For a limit below 1.
    """

    passage_chars: int = 3000
    document_chars: int = 30_000
    neighbours: int = 4
    keywords: int = 8
    links: int = 8
    language_pairs: int = 4
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("passage_chars", "document_chars", "neighbours", "keywords", "links", "language_pairs"):
            if getattr(self, name) < 1:
                raise InputError(f"Limits: got {name} {getattr(self, name)}; expected at least 1")


def drawn(
    items: Sequence[_T], most: int, limits: Limits, owner: StructuredDocument | Translations, what: str
) -> Sequence[_T]:
    """At most so many of the items, in their order; the choice is a function of the seed and the document."""
    if len(items) <= most:
        return items
    lang = (
        owner.lang
        if isinstance(owner, StructuredDocument) and what in ("keyword", "link", "neighbour")
        else ""
    )
    drawing = random.Random("\0".join((str(limits.seed), owner.source, owner.key, lang, what)))
    return [items[number] for number in sorted(drawing.sample(range(len(items)), most))]


def language_pairs(
    count: int, limits: Limits, owner: StructuredDocument | Translations, what: str
) -> list[tuple[int, int]]:
    """Ordered pairs of different numbers below `count`: all, or as many as `limits` wants."""
    total = count * (count - 1)
    numbers = drawn(range(total), limits.language_pairs, limits, owner, what)
    return [(n // (count - 1), n % (count - 1) + (n % (count - 1) >= n // (count - 1))) for n in numbers]
