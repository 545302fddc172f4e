"""Ranking quality of a matrix of scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


def ndcg(
    scores: NDArray[Any], gains: Sequence[Mapping[int, int | float]], k: int = 10
) -> NDArray[np.float64]:
    """Normalised discounted cumulative gain of each query, over all documents.

    **Math** ``nDCG@k = Σ_{r ≤ k} g_r / log2(r + 1)``, divided by that of the best order; g is the relevance, as
    trec_eval's ``ndcg_cut`` has it. Equal scores rank by column.

    Args:
        scores: ``[Q, N]``.
        gains: For each query, column to relevance; what is missing, or not above 0, is not relevant.
        k: Depth ≥ 1.

    Returns:
        float64 ``[Q]`` in [0, 1]; 0 for a query without a relevant document.
    """
    k = min(k, scores.shape[1])
    order = _top(scores, k)
    discount = 1 / np.log2(np.arange(2, k + 2))
    found = np.zeros(len(scores))
    for row, known in enumerate(gains):
        got = np.array([max(0.0, known.get(int(column), 0.0)) for column in order[row]])
        ideal = np.sort([value for value in known.values() if value > 0])[::-1][:k]
        if len(ideal):
            found[row] = (got * discount).sum() / (ideal * discount[: len(ideal)]).sum()
    return found


def _top(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Columns of the k largest of each row, as a stable sort of the whole row would have them."""
    if not k:
        return np.zeros((len(scores), 0), dtype=np.int64)
    least = -np.partition(-scores, k - 1, axis=1)[:, k - 1]
    order = np.empty((len(scores), k), dtype=np.int64)
    for row, limit in enumerate(least):
        there = np.flatnonzero(scores[row] >= limit)
        order[row] = there[np.argsort(-scores[row, there], kind="stable")[:k]]
    return order
