"""Which passage of a long document a question is asked about.

The recipe of MLDR (arXiv 2402.03216v4, section 3.1 and appendix): a paragraph is drawn from a long article, and the
question about it is paired with the whole article.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Annotated, NamedTuple

from annotated_types import Ge

from triptych.config import check_types
from triptych.errors import InputError
from triptych.text import size

_SENTENCE_END = re.compile(r"(?<=[.!?؟।])\s+|(?<=[。！？])")
_PARAGRAPH = re.compile(r"\n[ \t]*\n+")
_FURNITURE = re.compile(
    r"©|\ball rights reserved\b|\bcookies?\b.*\b(?:accept|policy)\b|\bprivacy policy\b|\bterms of (?:use|service)\b"
    r"|\b(?:log|sign) in\b.*\b(?:register|sign up)\b|\bISBN\b.*\bISBN\b|\bRetrieved (?:on )?\d",
    re.IGNORECASE | re.DOTALL,
)
_LETTERS = 0.6  # least share of letters among what is not blank
_LIST = 0.6  # most of the lines that may be short ones
_SHORT_LINE = 25
_VARIED = 0.25  # least share of different words


@dataclass(frozen=True, slots=True)
class Sampling:
    """How passages are drawn.

    Sizes are in letters (`triptych.text.size`): Han, kana and Hangul count as three.

    Attributes:
        min_document: Shorter documents are passed over; in letters, of which an ideograph counts 3.
        min_passage: Least size of a passage; neighbouring paragraphs are joined up to it.
        max_passage: Most size of a passage; what is longer is cut at the end of a sentence.
        per_document: Passages of a document, at most.
        seed: Of the draw of passages.

    Raises:
        InputError: For sizes that leave no passage.
    """

    min_document: int = 2000
    min_passage: int = 300
    max_passage: int = 2000
    per_document: Annotated[int, Ge(1)] = 1
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)
        if not 0 < self.min_passage <= self.max_passage:
            raise InputError(
                f"passages: got sizes from {self.min_passage} to {self.max_passage}; expected 0 < least ≤ most"
            )


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
    return sorted(fit, key=lambda span: _draw_key(how.seed, id_, span.start))[: how.per_document]


def why_not(passage: str, how: Sampling) -> str | None:
    """Why no question can be asked about a passage, or None if one can."""
    if size(passage) < how.min_passage:
        return "too short"
    solid = [character for character in passage if not character.isspace()]
    # marks (vowel signs of Indic scripts and Thai) are neither letters nor blanks
    if sum(
        character.isalpha() or unicodedata.category(character).startswith("M") for character in solid
    ) < _LETTERS * len(solid):
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


def _windows(text: str, how: Sampling) -> Iterator[Span]:
    """The text from beginning to end in passages that do not overlap, each of whole paragraphs where they fit."""
    start = end = 0
    for piece in _pieces(text, how.max_passage):
        if size(text[start : piece[1]]) > how.max_passage and end > start:
            yield _trim(text, start, end)
            start = piece[0]
        end = piece[1]
        if size(text[start:end]) >= how.min_passage:
            yield _trim(text, start, end)
            start = end
    if end > start:
        yield _trim(text, start, end)


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


def _trim(text: str, start: int, end: int) -> Span:
    passage = text[start:end]
    return Span(start + len(passage) - len(passage.lstrip()), passage.strip())


def _draw_key(seed: int, id_: str, start: int) -> bytes:
    return blake2b(f"{seed}\0{id_}\0{start}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
