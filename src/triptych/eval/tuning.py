"""Weights of the sum, chosen on a development split: never on what is reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from triptych.eval.protocols import Pool
from triptych.types import HEADS, Floats, Head, HeadWeights

_RATIOS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_FINER = (0.8, 0.9, 1.0, 1.1, 1.25)
_K = 10


@dataclass(frozen=True, slots=True)
class Development:
    """Candidates of development queries, in arrays of equal width.

    Attributes:
        scores: float32 ``[3, Q, C]``: dense, lexical, multi.
        gains: float32 ``[Q, C]``, the relevance of each candidate; -1 where there is none.
        ideal: float64 ``[Q]``, the DCG@10 of the best order of all judged documents.
    """

    scores: Floats
    gains: Floats
    ideal: NDArray[np.float64]

    @classmethod
    def of(
        cls,
        pool: Pool,
        places: Sequence[tuple[int, Mapping[int, int], NDArray[np.int64]]],
        ranks: NDArray[np.int64],
    ) -> Development:
        """Takes candidates and judgements.

        Args:
            pool: Candidates of distinct queries.
            places: For each judged query its number in the pool, {row: relevance} (rows that the corpus lacks are
                negative numbers), and the rows that are left out.
            ranks: Of all documents; equal sums are ordered by it.
        """
        width = max((len(pool.rows[number]) for number, _, _ in places), default=0)
        scores = np.zeros((len(HEADS), len(places), width), dtype=np.float32)
        gains = np.full((len(places), width), -1, dtype=np.float32)
        ideal = np.zeros(len(places))
        for i, (number, judged, excluded) in enumerate(places):
            order = np.argsort(ranks[pool.rows[number]])
            rows = pool.rows[number][order]
            scores[:, i, : len(rows)] = pool.scores[number][:, order]
            known = np.asarray([max(0, judged.get(int(row), 0)) for row in rows], dtype=np.float32)
            gains[i, : len(rows)] = np.where(np.isin(rows, excluded), -1, known)
            best = sorted((value for value in judged.values() if value > 0), reverse=True)[:_K]
            ideal[i] = (np.asarray(best) / np.log2(np.arange(2, len(best) + 2))).sum()
        return cls(scores, gains, ideal)

    @classmethod
    def join(cls, parts: Sequence[Development]) -> Development:
        """All queries of several parts."""
        width = max(part.gains.shape[1] for part in parts)
        scores = [np.pad(p.scores, ((0, 0), (0, 0), (0, width - p.gains.shape[1]))) for p in parts]
        gains = [np.pad(p.gains, ((0, 0), (0, width - p.gains.shape[1])), constant_values=-1) for p in parts]
        return cls(
            np.concatenate(scores, axis=1), np.concatenate(gains), np.concatenate([p.ideal for p in parts])
        )

    def ndcg(self, weights: HeadWeights) -> float:
        """The mean nDCG@10 of the candidates by a weighted sum."""
        total = np.tensordot(np.asarray(weights, np.float32), self.scores, 1)
        total[self.gains < 0] = -np.inf
        k = min(_K, total.shape[1])
        order = np.argsort(-total, axis=1, kind="stable")[:, :k]
        gains = np.take_along_axis(self.gains, order, 1).clip(0)
        found = (gains / np.log2(np.arange(2, k + 2))).sum(axis=1)
        return float(np.mean(np.divide(found, self.ideal, out=np.zeros_like(found), where=self.ideal > 0)))


def tune(development: Development, heads: Sequence[Head]) -> tuple[HeadWeights, float]:
    """The weights with the best mean nDCG@10, and that mean.

    Only ratios matter, so one weight is 1: a coarse grid of ratios first (each head alone included), then finer
    steps around the best. Of equal ones the first counts.

    Args:
        development: Candidates and judgements.
        heads: The heads that may have a weight.
    """
    best, value = HeadWeights(), -1.0
    for candidate in _grid(heads):
        found = development.ndcg(candidate)
        if found > value + 1e-12:
            best, value = candidate, found
    for candidate in list(_around(best)):
        found = development.ndcg(candidate)
        if found > value + 1e-12:
            best, value = candidate, found
    unit = best.dense or max(best)
    return HeadWeights(*(float(f"{weight / unit:.4g}") for weight in best)), value


def _grid(heads: Sequence[Head]) -> Iterator[HeadWeights]:
    none = (0.0,)
    denses = (1.0, 0.0) if "dense" in heads else none
    lexicals, multis = (_RATIOS if head in heads else none for head in ("lexical", "multi"))
    for dense, lexical, multi in product(denses, lexicals, multis):
        if dense or lexical or multi:
            yield HeadWeights(dense, lexical, multi)


def _around(weights: HeadWeights) -> Iterator[HeadWeights]:
    for lexical in _FINER:
        for multi in _FINER:
            yield HeadWeights(weights.dense, weights.lexical * lexical, weights.multi * multi)
