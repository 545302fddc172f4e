"""Weights of the sum, chosen on a development split: never on what is reported."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.collections.base import Collection
from triptych.errors import InputError
from triptych.eval.groups import CorpusGroup
from triptych.eval.protocols import Pool, exact, pool_of
from triptych.eval.results import Tuned
from triptych.eval.running import Cost, EvalOptions, Tools, scope_of
from triptych.eval.systems import TUNED, VectorModel
from triptych.scores.on_numpy import ndcg
from triptych.types import HEADS, Floats, Head, HeadWeights

TUNABLE = ("dense+lexical", "all")
"""The modes whose weights can be chosen."""

_RATIOS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0)
_FINER = (0.8, 0.9, 1.0, 1.1, 1.25)
_DEPTH = 200

Judged: TypeAlias = tuple[int, Mapping[int, int], NDArray[np.int64]]
"""A judged query: its number in the pool, {row: relevance} (negative rows for documents that the corpus lacks), and
the rows that it leaves out."""


@dataclass(frozen=True, slots=True)
class Development:
    """Candidates of development queries with their scores and judgements.

    Attributes:
        scores: float32 ``[3, Q, C]``: dense, lexical, multi; NaN in columns without a candidate.
        gains: For each query {column: relevance}; negative columns for documents that are no candidates.
    """

    scores: Floats
    gains: list[dict[int, float]]

    @classmethod
    def of(cls, pool: Pool, queries: Sequence[Judged], ranks: NDArray[np.int64]) -> Development:
        """Takes candidates and judgements.

        Args:
            pool: Candidates of distinct queries.
            queries: The judged queries.
            ranks: Of all documents; equal sums are ordered by it.
        """
        width = max([10, *(len(pool.rows[number]) for number, _, _ in queries)])  # 10: depth of the metric
        scores = np.full((len(HEADS), len(queries), width), np.nan, dtype=np.float32)
        gains: list[dict[int, float]] = []
        for i, (number, judged, excluded) in enumerate(queries):
            rows = pool.rows[number]
            order = np.argsort(ranks[rows])
            order = order[~np.isin(rows[order], excluded)]
            scores[:, i, : len(order)] = pool.scores[number][:, order]
            column = {int(row): place for place, row in enumerate(rows[order])}
            gains.append(
                {column.get(row, -1 - number): value for number, (row, value) in enumerate(judged.items())}
            )
        return cls(scores, gains)

    @classmethod
    def concat(cls, parts: Sequence[Development]) -> Development:
        """All queries of several parts."""
        width = max(part.scores.shape[2] for part in parts)
        padded = [
            np.pad(p.scores, ((0, 0), (0, 0), (0, width - p.scores.shape[2])), constant_values=np.nan)
            for p in parts
        ]
        return cls(np.concatenate(padded, axis=1), [gains for part in parts for gains in part.gains])

    def ndcg(self, weights: HeadWeights) -> float:
        """The mean nDCG@10 of the candidates by a weighted sum."""
        total = np.tensordot(np.asarray(weights, np.float32), self.scores, 1)
        return float(ndcg(np.nan_to_num(total, nan=-np.inf), self.gains).mean())


def tune(development: Development, heads: Sequence[Head]) -> tuple[HeadWeights, float]:
    """The weights with the best mean nDCG@10, and that mean.

    Only ratios matter, so one weight is 1: a coarse grid of ratios first (each head alone included), then finer
    steps around the best. The first of equal ones is taken.

    Args:
        development: Candidates and judgements.
        heads: The heads that may have a weight.
    """
    best, value = HeadWeights(), -1.0
    for finer in (False, True):
        for candidate in list(_around(best) if finer else _grid(heads)):
            found = development.ndcg(candidate)
            if found > value + 1e-12:
                best, value = candidate, found
    unit = best.dense or max(best)
    return HeadWeights(*(float(f"{weight / unit:.4g}") for weight in best)), value


def _grid(heads: Sequence[Head]) -> Iterator[HeadWeights]:
    denses = (1.0, 0.0) if "dense" in heads else (0.0,)
    lexicals, multis = (_RATIOS if head in heads else (0.0,) for head in ("lexical", "multi"))
    for dense, lexical, multi in product(denses, lexicals, multis):
        if dense or lexical or multi:
            yield HeadWeights(dense, lexical, multi)


def _around(weights: HeadWeights) -> Iterator[HeadWeights]:
    for lexical, multi in product(_FINER, _FINER):
        yield HeadWeights(weights.dense, weights.lexical * lexical, weights.multi * multi)


def tuned_modes(
    development: Sequence[CorpusGroup],
    model: VectorModel,
    options: EvalOptions,
    tools: Tools,
    left_out: int = 0,
) -> tuple[dict[str, HeadWeights], list[Tuned]]:
    """Chooses the weights of the sums on development collections.

    Args:
        development: Collections that are not reported.
        model: The model.
        options: How.
        tools: With what.
        left_out: How many queries were left out of them; reported with the result.

    Returns:
        Further modes with their weights, and how they were chosen.
    """
    wanted = [name for name in TUNABLE if name in model.modes]
    if not wanted or not development:
        return {}, []
    parts: list[Development] = []
    for group in development:
        scope = scope_of(group, model, options, Cost())
        work = tools.work(f"{model.name}: tuning on {group.label}")
        found = exact(scope, model.modes, _DEPTH, candidates=options.candidates, work=work)
        assert found.scanned is not None  # the exact protocol has lists
        parts.append(
            Development.of(pool_of(found.scanned, scope, work), _judged_queries(group), group.survey.ranks)
        )
    whole = Development.concat(parts)
    labels = [collection.label for group in development for collection in group.collections]
    modes: dict[str, HeadWeights] = {}
    report: list[Tuned] = []
    for name in wanted:
        fixed = model.modes[name]
        weights, value = tune(whole, fixed.heads)
        modes[name + TUNED] = weights
        system, queries = f"{model.name}/{name}{TUNED}", len(whole.gains)
        triple = (weights.dense, weights.lexical, weights.multi)
        report.append(Tuned(system, triple, labels, queries, value, whole.ndcg(fixed), left_out))
    return modes, report


def _judged_queries(group: CorpusGroup) -> list[Judged]:
    judged: list[Judged] = []
    for collection in group.collections:
        for query in collection.queries:
            rows = {
                group.survey.row_of.get(name, -1 - number): value
                for number, (name, value) in enumerate(collection.qrels.get(query, {}).items())
            }
            judged.append((group.place(collection, query), rows, group.excluded(collection, query)))
    return judged


def drop_reported(
    development: Sequence[Collection], reported: Sequence[Collection]
) -> tuple[list[Collection], int]:
    """The development collections without queries that are reported, and how many those were.

    Raises:
        InputError: If one is itself reported, or none of its queries is left.
    """
    texts = {text for one in reported for text in one.queries.values()}
    names = {(one.name, one.subset, one.split) for one in reported}
    kept: list[Collection] = []
    for one in development:
        left = {query: text for query, text in one.queries.items() if text not in texts}
        if (one.name, one.subset, one.split) in names or not left:
            raise InputError(
                f"tuning on {one.label} ({one.split}): its queries are reported, too; expected weights to be chosen on "
                "other queries than those that are reported"
            )
        qrels = {query: judged for query, judged in one.qrels.items() if query in left}
        kept.append(replace(one, queries=left, qrels=qrels))
    return kept, sum(len(one.queries) for one in development) - sum(len(one.queries) for one in kept)
