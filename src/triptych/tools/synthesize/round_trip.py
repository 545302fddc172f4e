"""The round trip of synthetic questions: whether a search finds the document that a question was written for."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.encode.encoder import Encoder
from triptych.records import Document
from triptych.scores.on_numpy import combine, head_scores
from triptych.text import terms
from triptych.types import Encoded, Floats, HeadWeights, chunked

_TIES = 50  # documents of the same score that are looked at behind the depth


class Question(NamedTuple):
    """A question, and the id of the document that it should find."""

    question: str
    document: str


class Finder(Protocol):
    """Searches documents with questions."""

    def ranks(
        self, documents: Iterable[Document], questions: Sequence[Question], depth: int
    ) -> Sequence[int | None]:
        """The rank (from 1) of each question's document among all, or None if it is beyond `depth`.

        Documents that score the same as the one that is looked for do not count against it.
        """
        ...


class LexicalFinder:
    """BM25 (k1 = 1.2, b = 0.75) over words, and over pairs of characters where words are not separated."""

    def ranks(
        self, documents: Iterable[Document], questions: Sequence[Question], depth: int
    ) -> Sequence[int | None]:
        """See `Finder.ranks`. The index stands in a temporary file."""
        with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(f"{folder}/words")) as base:
            base.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
            base.execute("CREATE VIRTUAL TABLE words USING fts5(text, content='', tokenize='ascii')")
            base.execute("CREATE TABLE ids (id TEXT PRIMARY KEY, number INTEGER) WITHOUT ROWID")
            for number, document in enumerate(documents, start=1):
                text = " ".join(_encode_terms(document.content))
                base.execute("INSERT INTO words (rowid, text) VALUES (?, ?)", (number, text))
                base.execute("INSERT INTO ids VALUES (?, ?)", (document.id, number))
            return [_rank(base, asked, depth) for asked in questions]


def _rank(base: sqlite3.Connection, asked: Question, depth: int) -> int | None:
    words = dict.fromkeys(_encode_terms(asked.question))
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


def _encode_terms(text: str) -> Iterator[str]:
    """The terms of a text as ASCII digests, so that SQLite's own notion of a letter does not interfere."""
    for term in terms(text):
        yield "t" + blake2b(term.encode("utf-8", "surrogatepass"), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class EncoderFinder:
    """A `Finder` with an encoder's scores.

    Documents go through in blocks and only each question's best scores are kept: memory grows with the questions times
    the depth, not with the corpus.

    Attributes:
        encoder: Makes the representations.
        weights: Of the three scores. The default is the paper's for dense and lexical together; token vectors of
            whole long documents are slow to compare.
        block: Documents that are encoded at once.
    """

    encoder: Encoder
    weights: HeadWeights = field(default_factory=lambda: HeadWeights(1.0, 0.3, 0.0))
    block: int = 64

    def ranks(
        self, documents: Iterable[Document], questions: Sequence[Question], depth: int
    ) -> Sequence[int | None]:
        """The rank of each question's document, or None beyond `depth`; equal scores do not count against it."""
        if not questions:
            return []
        heads = self.weights.heads
        asked = self.encoder.encode_query([each.question for each in questions], outputs=heads)
        rows: dict[str, list[int]] = {}
        for row, each in enumerate(questions):
            rows.setdefault(each.document, []).append(row)
        best = np.full((len(questions), depth), -np.inf, dtype=np.float32)
        own = np.full(len(questions), -np.inf, dtype=np.float32)
        for block in chunked(documents, self.block):
            scores = self._scores(asked, [document.content for document in block])
            for column, document in enumerate(block):
                mine = rows.get(document.id, [])
                own[mine] = scores[mine, column]
            best = _largest(np.concatenate([best, scores], axis=1), depth)
        better = (best > own[:, None]).sum(axis=1)
        return [
            int(count) + 1 if np.isfinite(score) and count < depth else None
            for count, score in zip(better, own, strict=True)
        ]

    def _scores(self, asked: Encoded, texts: list[str]) -> Floats:
        encoded = self.encoder.encode_document(texts, outputs=self.weights.heads)
        heads = self.weights.heads
        return combine({head: head_scores(asked, encoded, head) for head in heads}, self.weights)


def _largest(scores: Floats, count: int) -> NDArray[np.float32]:
    """The `count` largest of each row, in any order."""
    return np.partition(scores, scores.shape[1] - count, axis=1)[:, -count:]
