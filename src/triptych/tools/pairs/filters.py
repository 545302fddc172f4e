"""Filters of single pairs, and the consistency filter: a model must find a query's own passage among others.

Consistency is the method by which E5 cleans weak pairs (arXiv 2212.03533, section 4.1), with a sample of the same
language in place of the whole corpus, so that the cost grows linearly.
"""

from __future__ import annotations

import random
import warnings
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, TypeAlias, cast

import numpy as np
from annotated_types import Ge, Le
from numpy.typing import NDArray

from triptych.config import check_types
from triptych.encode.encoder import Encoder, TruncationWarning
from triptych.errors import InputError
from triptych.text import LanguageCheck, digest, fold, letters, units, word_chars
from triptych.tools.pairs.base import WeakPair
from triptych.tools.pairs.kinds import TRANSLATED
from triptych.tools.pairs.report import PairFilter

Share: TypeAlias = Annotated[float, Ge(0), Le(1)]
_TERMS = frozenset(("term-translation",))


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What the filters let pass. Letters are letters and digits, counted by `triptych.text.letters`.

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

    Raises:
        InputError: For numbers below 0, shares that are not from 0 to 1, or a ratio below 1.
    """

    query_letters: Annotated[int, Ge(0)] = 3
    query_chars: Annotated[int, Ge(0)] = 300
    passage_letters: Annotated[int, Ge(0)] = 50
    sentence_letters: Annotated[int, Ge(0)] = 6
    ratio: Annotated[float, Ge(1)] = 3.0
    letters: Share = 0.6
    digits: Share = 0.4
    overlap: Share = 0.8

    def __post_init__(self) -> None:
        check_types(self)


def long_enough(pair: WeakPair, limits: Thresholds) -> bool:
    """Length filter: neither too short nor, for a query, too long; translations of about the same length."""
    query, passage = letters(pair.query), letters(pair.passage)
    if pair.kind in _TERMS:
        return min(query, passage) >= 1 and max(len(pair.query), len(pair.passage)) <= limits.query_chars
    if pair.kind in TRANSLATED:
        few, many = sorted((query, passage))
        return few >= limits.sentence_letters and (many < 60 or many <= limits.ratio * few)
    if pair.kind != "neighbour" and len(pair.query) > limits.query_chars:
        return False
    return query >= limits.query_letters and passage >= limits.passage_letters


def mostly_words(pair: WeakPair, limits: Thresholds) -> bool:
    """Symbol filter: both sides are made of letters more than of signs and digits."""
    return _is_words(pair.query, limits) and _is_words(pair.passage, limits)


def differs(pair: WeakPair, limits: Thresholds) -> bool:
    """Copy filter: neither the same text twice nor one that holds the other and little else."""
    here, there = units(pair.query), units(pair.passage)
    few, many = sorted((len(here), len(there)))
    if not many:
        return False
    if few < limits.overlap * many:  # cannot overlap enough
        return True
    return sum((Counter(here) & Counter(there)).values()) < limits.overlap * many


def in_its_language(pair: WeakPair, check: LanguageCheck) -> bool:
    """Language filter: neither side is plainly in another language than it is said to be."""
    return check(pair.query, pair.lang) and check(pair.passage, pair.passage_lang)


def line_digest(source: str, lang: str, text: str) -> int:
    """What recurring lines are counted by: the words of the line, within a collection and language."""
    return digest(source, lang, fold(text))


def is_its_own(pair: WeakPair, recurring: Container[int]) -> bool:
    """Boilerplate filter: the query is no line that recurs over many documents; terms recur by nature."""
    return pair.kind in _TERMS or line_digest(pair.source, pair.lang, pair.query) not in recurring


def pair_filters(
    names: Container[str],
    thresholds: Thresholds | None = None,
    *,
    language: LanguageCheck | None = None,
    recurring: Container[int] = (),
    contaminated: Callable[[WeakPair], bool] | None = None,
) -> list[PairFilter]:
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
    tests: dict[str, Callable[[WeakPair], bool] | None] = {
        "length": lambda pair: long_enough(pair, limits),
        "symbols": lambda pair: mostly_words(pair, limits),
        "copy": lambda pair: differs(pair, limits),
        "language": None if check is None else lambda pair: in_its_language(pair, check),
        "boilerplate": lambda pair: is_its_own(pair, recurring),
        "contamination": None if contaminated is None else lambda pair: not contaminated(pair),
    }
    return [PairFilter(name, test) for name, test in tests.items() if test is not None and name in names]


def _is_words(text: str, limits: Thresholds) -> bool:
    alphabetic, digits = sum(map(str.isalpha, text)), sum(map(str.isdigit, text))
    visible = len("".join(text.split()))
    return word_chars(text) >= limits.letters * visible and digits <= limits.digits * (alphabetic + digits)


Scorer: TypeAlias = Callable[[Sequence[str], Sequence[str]], NDArray[np.float32]]
"""Scores of all queries with all passages, ``[Q, P]``, greater is better; such as `EncoderScorer`."""


@dataclass(frozen=True, slots=True)
class Consistency:
    """How much a model must agree.

    Attributes:
        top: The own passage must be among so many best of the sample.
        sample: Passages of the sample, the own one included; the last samples of a language may be smaller.

    Raises:
        InputError: Unless 1 ≤ top < sample.
    """

    top: Annotated[int, Ge(1)] = 3
    sample: int = 256

    def __post_init__(self) -> None:
        check_types(self)
        if self.top >= self.sample:
            raise InputError(f"consistency: got top {self.top} of {self.sample}; expected 1 ≤ top < sample")


def inconsistent(
    pairs: Sequence[WeakPair], scorer: Scorer, how: Consistency, seed: int
) -> Iterator[tuple[int, int]]:
    """The pairs whose passage ranks too low.

    Passages of the same document, and passages with the same words, are no rivals.

    Args:
        pairs: Those of one part; memory is `Consistency.sample` squared.
        scorer: The model.
        how: The limits.
        seed: Draws the samples.

    Yields:
        Number of a pair, and the rank of its passage, from 1.
    """
    for sample in _samples(pairs, how.sample, seed):
        texts = [pairs[number] for number in sample]
        scores = scorer([pair.query for pair in texts], [pair.passage for pair in texts])
        if scores.shape != (len(texts), len(texts)):
            raise InputError(
                f"consistency: the scorer gave shape {scores.shape}; expected {(len(texts), len(texts))}"
            )
        documents = np.array([hash((pair.source, pair.key)) for pair in texts])
        words = np.array([hash(fold(pair.passage)) for pair in texts])
        rivals = (documents[:, None] != documents) & (words[:, None] != words)
        ranks = 1 + ((scores > scores.diagonal()[:, None]) & rivals).sum(axis=1)
        yield from ((number, int(rank)) for number, rank in zip(sample, ranks, strict=True) if rank > how.top)


def _samples(pairs: Sequence[WeakPair], size: int, seed: int) -> Iterator[list[int]]:
    """Random groups of numbers of pairs whose passages have the same language."""
    languages: dict[str, list[int]] = {}
    for number, pair in enumerate(pairs):
        languages.setdefault(pair.passage_lang, []).append(number)
    drawing = random.Random(seed)
    for _, numbers in sorted(languages.items()):
        drawing.shuffle(numbers)
        yield from (numbers[start : start + size] for start in range(0, len(numbers), size))


@dataclass(frozen=True, slots=True)
class EncoderScorer:
    """Scores of a model's dense head; every process that scores loads the model once.

    Attributes:
        model: As for `Encoder.from_pretrained`.
        device: The same.
        max_length: Tokens from which on texts are cut: their beginnings decide.
        trust_remote_code: As for `Encoder.from_pretrained`.
    """

    model: str = "small"
    device: str | None = None
    max_length: int = 256
    trust_remote_code: bool = False

    def __call__(self, queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        """Inner products of all queries with all passages: ``[Q, P]``.

        Raises:
            ModelError: If there is no such model.
        """
        encoder = _encoder(self.model, self.device, self.trust_remote_code)
        length = min(self.max_length, encoder.config.max_length)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TruncationWarning)  # cut on purpose
            query = encoder.encode_query(queries, outputs="dense", max_length=length).dense
            passage = encoder.encode_document(passages, outputs="dense", max_length=length).dense
        return cast("NDArray[np.float32]", query) @ cast("NDArray[np.float32]", passage).T


@cache
def _encoder(model: str, device: str | None, trust_remote_code: bool) -> Encoder:
    return Encoder.from_pretrained(model, device=device, trust_remote_code=trust_remote_code)
