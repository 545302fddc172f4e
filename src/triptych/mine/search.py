"""What a search has to give for mining: ranked candidates, and scores of given passages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.types import Encoded, Floats, Head

NOTHING = -1
"""Fills the rows of a query that has fewer candidates than another."""


@dataclass(frozen=True, slots=True)
class Found:
    """The answer for Q queries.

    Attributes:
        rows: int64 ``[Q, K]``, rows of the passages by descending score of the ranking, equal ones by id;
            `NOTHING` after the last.
        scores: float32 ``[Q, K]``, their scores by the judge's weights.
        wanted: For each query the scores, by the judge's weights, of the passages that were asked for.
    """

    rows: NDArray[np.int64]
    scores: Floats
    wanted: Sequence[Floats]


class Searcher(Protocol):
    """Finds candidates among `Passages`."""

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that queries need."""
        ...

    def search(self, queries: Encoded, wanted: Sequence[Sequence[int]], depth: int) -> Found:
        """Ranks the searchable passages.

        Args:
            queries: Q queries with `heads`.
            wanted: For each query the rows of passages to score, found or not.
            depth: K, the last rank.
        """
        ...
