"""The consistency filter: a model must find a query's own passage among a sample of others.

The method of weak pairs as E5 cleans them (arXiv 2212.03533, section 4.1), with a sample of the same language in
place of the whole corpus, so that the cost grows linearly.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.data.mined.pairs import Pair
from triptych.data.mined.words import fold
from triptych.errors import InputError


class Scorer(Protocol):
    """A model that says how well queries and passages fit; `triptych.mine.consistency.EncoderScorer` is one."""

    def __call__(self, queries: Sequence[str], passages: Sequence[str]) -> NDArray[np.float32]:
        """Scores of all queries with all passages: ``[Q, P]``, greater is better."""
        ...


@dataclass(frozen=True, slots=True)
class Consistency:
    """How much a model must agree.

    Attributes:
        top: The own passage must be among so many best of the sample.
        sample: Passages of the sample, the own one included; the last samples of a language may be smaller.

    Raises:
        InputError: Unless 1 ≤ top < sample.
    """

    top: int = 3
    sample: int = 256

    def __post_init__(self) -> None:
        if not 1 <= self.top < self.sample:
            raise InputError(f"consistency: got top {self.top} of {self.sample}; expected 1 ≤ top < sample")


def inconsistent(
    pairs: Sequence[Pair], scorer: Scorer, how: Consistency, seed: int
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


def _samples(pairs: Sequence[Pair], size: int, seed: int) -> Iterator[list[int]]:
    """Random groups of numbers of pairs whose passages have the same language."""
    languages: dict[str, list[int]] = {}
    for number, pair in enumerate(pairs):
        languages.setdefault(pair.passage_lang, []).append(number)
    drawing = random.Random(seed)
    for _, numbers in sorted(languages.items()):
        drawing.shuffle(numbers)
        yield from (numbers[start : start + size] for start in range(0, len(numbers), size))
