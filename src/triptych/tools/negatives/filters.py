"""Which of a query's candidates may be negatives; what is dropped, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triptych.tools.negatives.options import Filters, Options
from triptych.tools.negatives.passages import UNKNOWN, Passages
from triptych.tools.negatives.search import NOTHING
from triptych.types import Floats

REASONS: dict[str, str] = {
    "rank": "ranked before the first rank that is mined",
    "positive": "the text of a positive",
    "query": "the text of the query",
    "existing": "a negative that the example has already",
    "article": "from an article of a positive",
    "translation": "from a positive's article in another language",
    "duplicate": "the text of a better candidate",
    "margin": "scored too near to the positive",
    "reranker": "scored too near to the positive by the re-ranker",
    "left over": "more than are kept",
}
"""Why a candidate is dropped: the first that holds, in this order."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What is known of a query.

    Attributes:
        positives: Groups of its positives.
        query: Groups of its own text.
        existing: Groups of the negatives that it has and keeps.
        origins: (article, language) of its positives, as far as known.
        reference: The positive's score to which candidates are compared.
    """

    positives: frozenset[int]
    query: frozenset[int]
    existing: frozenset[int]
    origins: frozenset[tuple[int, int]]
    reference: float


def sieve(
    rows: NDArray[np.int64], scores: Floats, passages: Passages, asked: Asked, options: Options
) -> NDArray[np.str_]:
    """Says for each candidate why it is dropped; "" for those that are left.

    Args:
        rows: int64 ``[K]``, candidates by rank from 1; `NOTHING` after the last.
        scores: float32 ``[K]``, their scores by the judge.
        passages: What the rows are.
        asked: The query.
        options: What is dropped.

    Returns:
        Strings ``[K]``, keys of `REASONS` or "".
    """
    rows = rows[rows != NOTHING]
    group = passages.group[rows]
    reasons = np.full(len(rows), "", dtype="<U12")

    def drop(name: str, where: NDArray[np.bool_]) -> None:
        reasons[where & (reasons == "")] = name

    drop("rank", np.arange(1, len(rows) + 1) < options.ranks[0])
    drop("positive", _among(group, asked.positives))
    drop("query", _among(group, asked.query))
    drop("existing", _among(group, asked.existing))
    same, translated = _related(passages.article[rows], passages.language[rows], asked.origins)
    if options.filters.article:
        drop("article", same)
    if options.filters.translation:
        drop("translation", translated)
    left = np.flatnonzero(reasons == "")
    repeated = np.ones(len(left), dtype=bool)
    repeated[np.unique(group[left], return_index=True)[1]] = False
    reasons[left[repeated]] = "duplicate"
    drop("margin", scores[: len(rows)] > options.filters.margin.limit(asked.reference))
    return reasons


def reference_of(scores: Sequence[float] | Floats, filters: Filters) -> float:
    """The score of the positive that counts."""
    return float(max(scores) if filters.reference == "best" else min(scores))


def drawn(left: NDArray[np.int64], options: Options, number: int) -> NDArray[np.int64]:
    """The candidates in the order in which they are taken: by rank, or as the seed and the query's number draw."""
    if options.choose == "top":
        return left
    return np.random.default_rng([options.seed, number]).permutation(left)


def _among(group: NDArray[np.int64], wanted: frozenset[int]) -> NDArray[np.bool_]:
    return np.isin(group, np.fromiter(wanted, np.int64, len(wanted)))


def _related(
    article: NDArray[np.int64], language: NDArray[np.int64], origins: frozenset[tuple[int, int]]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which candidates are of a positive's article: in its own or an unknown language, or in another one."""
    related = (article != UNKNOWN) & _among(article, frozenset(number for number, _ in origins))
    same = np.zeros(len(article), dtype=bool)
    for number, spoken in origins:
        here = article == number
        same |= here if spoken == UNKNOWN else here & ((language == spoken) | (language == UNKNOWN))
    return related & same, related & ~same
