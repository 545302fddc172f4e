"""Long documents with queries: a heading, an index entry, the title, or one of these from a translation.

There is no language model here that could ask a question on a passage: the queries are what the books' own authors
wrote to find a place by, and ``kind`` says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from corpus import tokens
from corpus.chunks import can_ask
from corpus.languages import weight
from corpus.pairs import groups, recurring
from triptych.text import digest, fold
from triptych.tools.pairs.base import StructuredDocument

SHORTEST = 1500
"""Tokens from which on a document is long."""
QUERIES, CROSS = 3, 2
"""Most queries of a document in its own language and in others."""


@dataclass(frozen=True, slots=True)
class Long:
    """A long document with its queries.

    Attributes:
        document: The document.
        text: What of it the model can read.
        length: Tokens of that.
        queries: Text, language and kind of each.
    """

    document: StructuredDocument
    text: str
    length: int
    queries: tuple[tuple[str, str, str], ...]

    @property
    def id(self) -> str:
        """Source, key and language."""
        return f"{self.document.source}/{self.document.key}/{self.document.lang}"

    @property
    def article(self) -> str:
        """What its translations share."""
        return f"{self.document.source}/{self.document.key}"

    def rows(self) -> Iterator[dict[str, Any]]:
        """Lines of training data."""
        for number, (query, lang, kind) in enumerate(self.queries):
            row: dict[str, Any] = {"query": query, "pos": [self.text], "neg": [], "lang": lang}
            if lang != self.document.lang:
                row["pos_lang"] = self.document.lang
            yield row | {
                "kind": kind,
                "source": self.document.source,
                "id": f"{self.id}#{number}",
                "pos_id": [self.id],
                "article": self.article,
            }


def whole(document: StructuredDocument) -> str:
    """Title and all blocks, a line each."""
    lines = [block.text for block in document.blocks]
    return "\n".join([document.title, *lines] if document.title else lines)


def long_documents(documents: Sequence[StructuredDocument], seed: int = 0) -> list[Long]:
    """The long ones among some documents, each with queries if there are any."""
    common = recurring(documents)
    found: list[Long] = []
    for group in groups(documents):
        for document in group:
            text = whole(document)
            if weight(text, document.lang) < 3 * SHORTEST:
                continue
            text, length = tokens.fitting(text)
            if length >= SHORTEST:
                queries = tuple(_queries(document, group, common, seed, fold(text)))
                found.append(Long(document, text, length, queries))
    return found


def _queries(
    document: StructuredDocument,
    group: Iterable[StructuredDocument],
    common: frozenset[int],
    seed: int,
    text: str,
) -> Iterator[tuple[str, str, str]]:
    own = [(query, document.lang, kind) for query, kind in _topics(document, common) if fold(query) in text]
    own += [
        (keyword, document.lang, "long-keyword")
        for keyword in document.keywords
        if can_ask(keyword, document.lang)
    ]
    names = {block.number for block in document.blocks if block.level is not None}
    others = [
        (query, other.lang, f"{kind}-cross")
        for other in group
        if other.lang != document.lang and other.aligned
        for query, kind in _topics(other, common, names)
    ]
    for queries, most in ((own, QUERIES), (others, CROSS)):
        unique = dict.fromkeys(queries)
        yield from sorted(unique, key=lambda query: digest(str(seed), document.lang, *query))[:most]


def _topics(
    document: StructuredDocument, common: frozenset[int], numbers: set[int] | None = None
) -> Iterator[tuple[str, str]]:
    recurs = digest(document.source, document.lang, fold(document.title)) in common
    if can_ask(document.title, document.lang) and not recurs:
        yield document.title, "long-title"
    for block in document.blocks:
        if block.level is None or not can_ask(block.text, document.lang):
            continue
        if numbers is not None and block.number not in numbers:
            continue
        if (
            digest(document.source, document.lang, fold(block.text)) not in common
            and document.source != "man"
        ):
            yield block.text, "long-heading"
