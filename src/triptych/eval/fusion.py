"""Reciprocal-rank fusion: the baseline for every way of putting rankings together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from triptych.eval.protocols import Ranking

RRF_K = 60
"""The constant of the original publication."""


def reciprocal_ranks(rankings: Sequence[Ranking], ranks: NDArray[np.int64], k: int = RRF_K) -> Ranking:
    """Fuses rankings of one query.

    **Math** ``s(d) = Σ_r 1 / (k + rank_r(d))`` over the rankings that have d (Cormack, Clarke and Büttcher 2009).

    Args:
        rankings: Of the same query.
        ranks: Of all documents; equal sums are ordered by it.
        k: The constant.
    """
    rows = np.unique(np.concatenate([ranking.rows for ranking in rankings]))
    total = np.zeros(len(rows))
    for ranking in rankings:
        total[np.searchsorted(rows, ranking.rows)] += 1 / (k + 1 + np.arange(len(ranking.rows)))
    order = np.lexsort((ranks[rows], -total))
    return Ranking(rows[order], total[order].astype(np.float32))
