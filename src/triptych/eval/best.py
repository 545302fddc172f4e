"""The best documents of many queries, kept while blocks of scores go by."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triptych.types import Floats

_GONE = -np.inf


class Best:
    """For each of Q queries the k documents with the highest total so far, equal ones by their rank.

    New entries wait until there are as many as are kept, and are sorted in together: a block costs little more
    than one comparison for each score.

    Args:
        queries: Q.
        k: Documents a query.
        parts: Number of single scores that are kept with each document.

    Attributes:
        rows: int64 ``[Q, k]``, numbers of documents, the best first; -1 where there are fewer than k.
        totals: float32 ``[Q, k]``, descending; -inf where there are fewer.
        parts: float32 ``[P, Q, k]``, the single scores.
    """

    def __init__(self, queries: int, k: int, parts: int) -> None:
        self.rows = np.full((queries, k), -1, dtype=np.int64)
        self.totals: Floats = np.full((queries, k), _GONE, dtype=np.float32)
        self.parts: Floats = np.zeros((parts, queries, k), dtype=np.float32)
        self._ranks = np.full((queries, k), np.iinfo(np.int64).max)
        self._waiting: list[
            tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Floats, Floats]
        ] = []
        self._many = 0

    def add(
        self,
        first: int,
        rows: NDArray[np.int64],
        ranks: NDArray[np.int64],
        totals: Floats,
        parts: Floats,
    ) -> None:
        """Takes the scores of some queries and documents.

        Args:
            first: Number of the first of these queries; the others follow it.
            rows: ``[n]``, numbers of the documents, all new.
            ranks: ``[n]``, their ranks among equals.
            totals: ``[q, n]``; -inf: not to be listed.
            parts: ``[P, q, n]``.
        """
        k = self.rows.shape[1]
        last = first + len(totals)
        bar = self.totals[first:last, -1:]
        chosen = (totals >= bar) & (totals > _GONE)
        if totals.shape[1] > k and np.count_nonzero(chosen) > 2 * k * len(totals):
            place = totals.shape[1] - k
            chosen &= totals >= np.partition(totals, place, axis=1)[:, place, None]
        query, column = np.nonzero(chosen)
        if not len(query):
            return
        entry = (query + first, rows[column], ranks[column], totals[query, column], parts[:, query, column])
        self._waiting.append(entry)
        self._many += len(query)
        if self._many >= self.rows.size:
            self.settle()

    def settle(self) -> None:
        """Sorts in what waits; after it, the attributes hold."""
        if not self._waiting:
            return
        k = self.rows.shape[1]
        kept = np.nonzero(self.rows >= 0)
        old = (kept[0], self.rows[kept], self._ranks[kept], self.totals[kept], self.parts[:, *kept])
        query, rows, ranks, totals, parts = (
            np.concatenate(part, axis=-1) for part in zip(old, *self._waiting, strict=True)
        )
        self._waiting, self._many = [], 0
        order = np.lexsort((ranks, -totals, query))
        query = query[order]
        place = np.arange(len(query)) - np.searchsorted(query, query)
        inside = place < k
        order, at = order[inside], (query[inside], place[inside])
        self.rows[at], self.totals[at], self._ranks[at] = rows[order], totals[order], ranks[order]
        self.parts[:, *at] = parts[:, order]
