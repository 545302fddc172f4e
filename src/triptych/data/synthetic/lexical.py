"""Finds documents by words: BM25 of SQLite's full-text index, on disk, for any script."""

from __future__ import annotations

import re
import sqlite3
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from hashlib import blake2b
from typing import NamedTuple, Protocol

from triptych.data.records import Document
from triptych.data.synthetic.words import WORD

_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+"
)
_MARKS = re.compile(r"[\u0300-\u036f\u064b-\u0652]")
_TIES = 50  # documents of the same score that are looked at behind the depth


class Asked(NamedTuple):
    """A question, and the id of the document that it should find."""

    question: str
    document: str


class Finder(Protocol):
    """Searches documents with questions."""

    def ranks(
        self, documents: Iterable[Document], questions: Sequence[Asked], depth: int
    ) -> Sequence[int | None]:
        """The rank (from 1) of each question's document among all, or None if it is beyond `depth`.

        Documents that score the same as the one that is looked for do not count against it.
        """
        ...


class LexicalFinder:
    """BM25 (k1 = 1.2, b = 0.75) over words, and over pairs of characters where words are not separated."""

    def ranks(
        self, documents: Iterable[Document], questions: Sequence[Asked], depth: int
    ) -> Sequence[int | None]:
        """See `Finder.ranks`. The index stands in a temporary file."""
        with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(f"{folder}/words")) as base:
            base.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
            base.execute("CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='ascii')")
            base.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID")
            for number, document in enumerate(documents, start=1):
                text = " ".join(coded(document.content))
                base.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (number, text))
                base.execute("INSERT INTO ids VALUES (?, ?)", (document.id, number))
            return [_rank(base, asked, depth) for asked in questions]


def _rank(base: sqlite3.Connection, asked: Asked, depth: int) -> int | None:
    words = dict.fromkeys(coded(asked.question))
    wanted = base.execute("SELECT number FROM ids WHERE id = ?", (asked.document,)).fetchone()
    if not words or wanted is None:
        return None
    query = " OR ".join(f'"{word}"' for word in words)
    found: list[tuple[int, float]] = base.execute(
        "SELECT rowid, bm25(words) FROM words WHERE words MATCH ? ORDER BY 2, 1", (query,)
    ).fetchmany(depth + _TIES)
    own = next((score for number, score in found if number == wanted[0]), None)
    if own is None:
        return None
    rank = 1 + sum(score < own for _, score in found)
    return rank if rank <= depth else None


def coded(text: str) -> Iterator[str]:
    """The tokens of a text as ASCII: digests, so that no tokenizer's notion of a letter gets in the way."""
    for token in tokens_of(text):
        yield "t" + blake2b(token.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


def tokens_of(text: str) -> Iterator[str]:
    """Words in small letters without accents; runs of Chinese, Japanese, Thai and their like as pairs of characters."""
    apart = unicodedata.normalize("NFD", text.casefold())
    folded = unicodedata.normalize("NFC", _MARKS.sub("", apart))
    at = 0
    for match in _UNSPACED.finditer(folded):
        yield from WORD.findall(folded, at, match.start())
        run = match[0]
        yield from (run[i : i + 2] for i in range(max(1, len(run) - 1)))
        at = match.end()
    yield from WORD.findall(folded, at)
