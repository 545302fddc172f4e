"""Finds documents by words: BM25 of SQLite's full-text index, on disk, for any script.

Which passage of a long document a question is asked about.

The recipe of MLDR (arXiv 2402.03216v4, section 3.1 and appendix): a paragraph is drawn from a long article, and the
question about it is paired with the whole article.
"""

from __future__ import annotations

import re
import sqlite3
import tempfile
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from typing import NamedTuple, Protocol

from triptych.errors import InputError
from triptych.records import Document
from triptych.text import WORD

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


_IDEOGRAPH = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff]")
_SENTENCE_END = re.compile(r"(?<=[.!?؟।])\s+|(?<=[。！？])")
_PARAGRAPH = re.compile(r"\n[ \t]*\n+")
_FURNITURE = re.compile(
    r"©|\ball rights reserved\b|\bcookies?\b.*\b(?:accept|policy)\b|\bprivacy policy\b|\bterms of (?:use|service)\b"
    r"|\b(?:log|sign) in\b.*\b(?:register|sign up)\b|\bISBN\b.*\bISBN\b|\bRetrieved (?:on )?\d",
    re.IGNORECASE | re.DOTALL,
)
_IDEOGRAPH_SIZE = 3  # letters of an alphabet that carry about as much as one ideograph or syllable
_LETTERS = 0.6  # least share of letters among what is not blank
_LIST = 0.6  # most of the lines that may be short ones
_SHORT_LINE = 25
_VARIED = 0.25  # least share of different words


@dataclass(frozen=True, slots=True)
class Sampling:
    """How passages are drawn.

    Sizes are in letters; an ideograph or syllable of Chinese, Japanese or Korean counts as three.

    Attributes:
        min_document: Shorter documents are passed over.
        min_passage: Least size of a passage; neighbouring paragraphs are joined up to it.
        max_passage: Most of it; what is longer is cut at the end of a sentence.
        per_document: Passages of a document, at most.
        seed: Of the draw.

    Raises:
        InputError: For sizes that leave no passage.
    """

    min_document: int = 2000
    min_passage: int = 300
    max_passage: int = 2000
    per_document: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.min_passage <= self.max_passage:
            raise InputError(
                f"passages: got sizes from {self.min_passage} to {self.max_passage}; expected 0 < least ≤ most"
            )
        if self.per_document < 1:
            raise InputError(f"per_document: got {self.per_document}; expected 1 or more")


class Span(NamedTuple):
    """A passage and where it begins in the document's text, in characters."""

    start: int
    text: str


def draw_passages(id_: str, text: str, how: Sampling) -> list[Span]:
    """The passages of a document that questions are asked about, in the order of the draw.

    A function of id, text and `how` alone: the same in every run, whatever was read before.

    Returns:
        At most ``per_document``; none if no part of the document is fit.
    """
    fit = [span for span in _windows(text, how) if why_not(span.text, how) is None]
    return sorted(fit, key=lambda span: _rank_passages(how.seed, id_, span.start))[: how.per_document]


def why_not(passage: str, how: Sampling) -> str | None:
    """Why no question can be asked about a passage, or None if one can."""
    if size(passage) < how.min_passage:
        return "too short"
    solid = [character for character in passage if not character.isspace()]
    # marks (vowel signs of Indic scripts and Thai) are neither letters nor blanks
    if sum(character.isalpha() or _is_mark(character) for character in solid) < _LETTERS * len(solid):
        return "too few letters"
    if _FURNITURE.search(passage):
        return "boilerplate"
    lines = [line for line in passage.splitlines() if line.strip()]
    if len(lines) > 3 and sum(size(line) < _SHORT_LINE for line in lines) > _LIST * len(lines):
        return "a list or menu"
    words = passage.casefold().split()
    if len(words) > 20 and len(set(words)) < _VARIED * len(words):
        return "repeats itself"
    return None


def size(text: str) -> int:
    """How much a text holds, in letters."""
    return len(text) + (_IDEOGRAPH_SIZE - 1) * len(_IDEOGRAPH.findall(text))


def _windows(text: str, how: Sampling) -> Iterator[Span]:
    """The text from beginning to end in passages that do not overlap, each of whole paragraphs where they fit."""
    start = end = 0
    for piece in _pieces(text, how.max_passage):
        if size(text[start : piece[1]]) > how.max_passage and end > start:
            yield _trimmed(text, start, end)
            start = piece[0]
        end = piece[1]
        if size(text[start:end]) >= how.min_passage:
            yield _trimmed(text, start, end)
            start = end
    if end > start:
        yield _trimmed(text, start, end)


def _pieces(text: str, most: int) -> Iterator[tuple[int, int]]:
    """Paragraphs; those over the size in lines, and those in sentences."""
    for paragraph in _split(text, 0, len(text), _PARAGRAPH):
        if size(text[slice(*paragraph)]) <= most:
            yield paragraph
            continue
        for line in _split(text, *paragraph, re.compile(r"\n")):
            if size(text[slice(*line)]) <= most:
                yield line
            else:
                yield from _split(text, *line, _SENTENCE_END)


def _split(text: str, start: int, end: int, at: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    for match in at.finditer(text, start, end):
        if match.end() > start:
            yield start, match.end()
        start = match.end()
    if end > start:
        yield start, end


def _trimmed(text: str, start: int, end: int) -> Span:
    passage = text[start:end]
    return Span(start + len(passage) - len(passage.lstrip()), passage.strip())


def _rank_passages(seed: int, id_: str, start: int) -> bytes:
    return blake2b(f"{seed}\0{id_}\0{start}".encode("utf-8", "surrogatepass"), digest_size=8).digest()


def _is_mark(character: str) -> bool:
    return unicodedata.category(character).startswith("M")
