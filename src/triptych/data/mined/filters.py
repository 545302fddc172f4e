"""Filters that look at one pair alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass

from triptych.data.mined.kinds import TRANSLATED
from triptych.data.mined.languages import LanguageCheck
from triptych.data.mined.pairs import Pair
from triptych.data.mined.tally import Filter
from triptych.data.mined.words import digest, fold, units, weight, word_chars

PAIR_FILTERS = ("length", "symbols", "copy", "language", "boilerplate", "contamination")
"""Filters that look at one pair, in the order in which they run: the cheap ones first."""
_TERMS = frozenset(("term-translation",))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the filters let pass. Letters are letters and digits, weighed by `words.weight`.

    Attributes:
        query_letters: Fewest letters of a query.
        query_chars: Most characters of a query whose kind is not a translation or a neighbour.
        passage_letters: Fewest letters of a passage whose kind is not a translation.
        sentence_letters: Fewest letters of each side of a translation, terms aside.
        ratio: How many times as many letters one side of a translation may have, from 60 letters on.
        letters: Least share of letters and marks among the characters that are no blanks, on each side.
        digits: Greatest share of digits among letters and digits, on each side.
        overlap: From which share of common words on two sides are copies of each other: words that both have,
            over the words of the longer side.
    """

    query_letters: int = 3
    query_chars: int = 300
    passage_letters: int = 50
    sentence_letters: int = 6
    ratio: float = 3.0
    letters: float = 0.6
    digits: float = 0.4
    overlap: float = 0.8


def long_enough(pair: Pair, limits: Thresholds) -> bool:
    """Length filter: neither too short nor, for a query, too long; translations of about the same length."""
    query, passage = weight(pair.query), weight(pair.passage)
    if pair.kind in _TERMS:
        return min(query, passage) >= 1 and max(len(pair.query), len(pair.passage)) <= limits.query_chars
    if pair.kind in TRANSLATED:
        few, many = sorted((query, passage))
        return few >= limits.sentence_letters and (many < 60 or many <= limits.ratio * few)
    if pair.kind != "neighbour" and len(pair.query) > limits.query_chars:
        return False
    return query >= limits.query_letters and passage >= limits.passage_letters


def mostly_words(pair: Pair, limits: Thresholds) -> bool:
    """Symbol filter: both sides are made of letters more than of signs and digits."""
    return _is_words(pair.query, limits) and _is_words(pair.passage, limits)


def differs(pair: Pair, limits: Thresholds) -> bool:
    """Copy filter: neither the same text twice nor one that holds the other and little else."""
    here, there = units(pair.query), units(pair.passage)
    few, many = sorted((len(here), len(there)))
    if not many:
        return False
    if few < limits.overlap * many:  # cannot overlap enough
        return True
    return sum((Counter(here) & Counter(there)).values()) < limits.overlap * many


def in_its_language(pair: Pair, check: LanguageCheck) -> bool:
    """Language filter: neither side is plainly in another language than it is said to be."""
    return check(pair.query, pair.lang) and check(pair.passage, pair.passage_lang)


def line_digest(source: str, lang: str, text: str) -> int:
    """What recurring lines are counted by: the words of the line, within a collection and language."""
    return digest(source, lang, fold(text))


def is_its_own(pair: Pair, recurring: Container[int]) -> bool:
    """Boilerplate filter: the query is no line that recurs over many documents; terms recur by nature."""
    return pair.kind in _TERMS or line_digest(pair.source, pair.lang, pair.query) not in recurring


def pair_filters(
    names: Container[str],
    thresholds: Thresholds | None = None,
    *,
    language: LanguageCheck | None = None,
    recurring: Container[int] = (),
    contaminated: Callable[[Pair], bool] | None = None,
) -> list[Filter]:
    """The filters of the given names, in the order of `PAIR_FILTERS`.

    Args:
        names: Which of `PAIR_FILTERS`; others are passed over.
        thresholds: What they let pass.
        language: The check for ``language``; by default a new one with py3langid.
        recurring: For ``boilerplate``: `line_digest` of recurring lines.
        contaminated: For ``contamination``: whether a pair holds text of an evaluation set.

    Raises:
        MissingExtra: If ``language`` needs py3langid and it is not installed.
    """
    limits = thresholds or Thresholds()
    check = (language or LanguageCheck()) if "language" in names else None
    tests: dict[str, Callable[[Pair], bool] | None] = {
        "length": lambda pair: long_enough(pair, limits),
        "symbols": lambda pair: mostly_words(pair, limits),
        "copy": lambda pair: differs(pair, limits),
        "language": None if check is None else lambda pair: in_its_language(pair, check),
        "boilerplate": lambda pair: is_its_own(pair, recurring),
        "contamination": None if contaminated is None else lambda pair: not contaminated(pair),
    }
    return [Filter(name, test) for name, test in tests.items() if test is not None and name in names]


def _is_words(text: str, limits: Thresholds) -> bool:
    letters = sum(map(str.isalpha, text))
    digits = sum(map(str.isdigit, text))
    seen = len("".join(text.split()))
    return word_chars(text) >= limits.letters * seen and digits <= limits.digits * (letters + digits)
