"""Documents cut into passages: at headings, paragraphs and sentences, measured in the model's tokens."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.config import check_value
from triptych.errors import InputError
from triptych.records import Document, Section
from triptych.types import Spans, check_int

PassageKind: TypeAlias = Literal["split", "late", "none"]

_SECTION, _BLOCK, _LINE, _SENTENCE, _BLANK, _TOKEN = range(6)
"""Places where a text may be cut, the best first."""

# A line break before a small letter is where an editor wrapped the line.
_PLACES = (
    (_BLOCK, re.compile(r"\n[ \t]*\n\s*")),
    (_LINE, re.compile(r"\n+(?![ \t]*[a-zà-öø-ÿа-яёα-ω])")),
    (_SENTENCE, re.compile(r"[.!?…؟।][\"'”’»)\]]*\s+|[。！？｡][」』”’）]*")),
    (_BLANK, re.compile(r"\s+")),
)


@dataclass(frozen=True)
class PassageOptions:
    """How documents are cut.

    Attributes:
        passages: split: at headings, paragraphs and sentences; late: likewise, but each passage's vectors come from a
            pass over the whole document (late chunking); none: documents stay whole.
        passage_tokens: Most tokens of a passage.
        passage_overlap: Most tokens that a passage repeats of the one before it, where a section had to be cut; by
            default an eighth of its own.
    """

    passages: PassageKind = "split"
    passage_tokens: int = 256
    passage_overlap: int | None = None

    def __post_init__(self) -> None:
        check_value(self.passages, PassageKind, "passages")
        tokens = check_int(self.passage_tokens, "passage_tokens", 8)
        overlap = self.passage_overlap
        if overlap is not None and check_int(overlap, "passage_overlap", 0) > tokens // 2:
            raise InputError(
                f"passage_overlap: got {overlap} for passages of {tokens} tokens; expected at most half"
            )

    @property
    def overlap(self) -> int:
        """Tokens that a passage may repeat."""
        return self.passage_tokens // 8 if self.passage_overlap is None else self.passage_overlap


@dataclass(frozen=True, slots=True)
class Passage:
    """A part of a document.

    Attributes:
        start: Its first character in the document's text.
        end: The character after its last.
        headings: The headings over it, the outermost first.
        page: The page on which it begins, or None.
    """

    start: int
    end: int
    headings: tuple[str, ...] = ()
    page: int | None = None


def split(document: Document, spans: Spans, options: PassageOptions) -> list[Passage]:
    """Cuts a document into passages of at most `options.passage_tokens` tokens, in order.

    A passage ends at the best place within its last three quarters: before a heading, else between paragraphs, lines,
    sentences, words, tokens. So short sections stay together, and a long one is cut.

    Args:
        document: Text and sections.
        spans: The tokens of its text.
        options: Sizes.

    Returns:
        At least one passage; together they have all of the text but blanks between them.
    """
    text, most, overlap = document.text, options.passage_tokens, options.overlap
    if len(spans) <= most:
        return [_passage(document, 0, len(text))]
    starts, places = _places(text, spans, document.sections)
    found: list[Passage] = []
    begin = 0
    while begin < len(spans):
        end = len(spans)
        if end - begin > most:
            first = begin + max(overlap + 1, most // 4)
            window = places[first : begin + most + 1]
            end = first + int(np.flatnonzero(window == window.min())[-1])
        stop = len(text) if end == len(spans) else int(starts[end])
        found.append(_passage(document, int(starts[begin]), stop))
        again = _next_begin(places, end, overlap)
        begin = again if again == end or starts[again] > found[-1].start else end
    return [passage for passage in found if passage.start < passage.end] or found[:1]


def content_of(document: Document, passage: Passage) -> str:
    """What is encoded and kept of a passage: its text, under the document's title and the passage's headings."""
    text = document.text[passage.start : passage.end]
    headings = [document.title or "", *passage.headings]
    names = [name for name, before in zip(headings, ["", *headings], strict=False) if name and name != before]
    line = " › ".join(names)
    return text if not line or text.startswith((line, names[-1])) else f"{line}\n{text}"


def metadata_of(document: Document, passage: Passage, number: int, count: int) -> dict[str, Any]:
    """Where a passage stands, for filters and for people.

    Args:
        document: The whole.
        passage: The part.
        number: The passage's number in the document, from 1.
        count: How many the document has.
    """
    facts: dict[str, Any] = {
        "parent": document.id,
        "passage": number,
        "passages": count,
        "start": passage.start,
        "end": passage.end,
    }
    if passage.headings:
        facts["heading"] = " › ".join(passage.headings)
    if passage.page is not None:
        facts["page"] = passage.page
    return facts


def _passage(document: Document, start: int, end: int) -> Passage:
    """The passage without blanks at its ends."""
    piece = document.text[start:end]
    end = start + len(piece.rstrip())
    start = min(end, start + len(piece) - len(piece.lstrip()))
    place = bisect_right([section.start for section in document.sections], start) - 1
    if place < 0:
        return Passage(start, end)
    section = document.sections[place]
    return Passage(start, end, section.headings, section.page)


def _places(
    text: str, spans: Spans, sections: Sequence[Section]
) -> tuple[NDArray[np.int64], NDArray[np.int8]]:
    """Where each token's first character stands that is no blank, and how good a cut before it is."""
    starts = spans[:, 0].copy()
    for t, (start, end) in enumerate(spans.tolist()):
        while start < end and text[start].isspace():
            start += 1
        starts[t] = start
    np.maximum.accumulate(starts, out=starts)
    places = np.full(len(starts), _TOKEN, dtype=np.int8)
    for kind, pattern in reversed(_PLACES):
        ends = [match.end() for match in pattern.finditer(text)]
        _mark(places, starts, ends, kind)
    _mark(places, starts, [section.start for section in sections], _SECTION)
    # Of several tokens of one character only before the first.
    places[1:][starts[1:] == starts[:-1]] = _TOKEN
    return starts, places


def _mark(places: NDArray[np.int8], starts: NDArray[np.int64], ends: Sequence[int], kind: int) -> None:
    tokens = np.searchsorted(starts, np.asarray(ends, dtype=np.int64))
    places[tokens[tokens < len(places)]] = kind


def _next_begin(places: NDArray[np.int8], end: int, overlap: int) -> int:
    """Where the passage after a cut begins: some tokens before the cut, at a sentence or at least a word."""
    if end >= len(places) or not overlap or places[end] == _SECTION:
        return end
    window = places[end - overlap : end]
    for worst in (_SENTENCE, _BLANK):
        if len(good := np.flatnonzero(window <= worst)):
            return end - overlap + int(good[0])
    return end
