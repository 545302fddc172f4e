"""From single scores to rankings, by the protocol of choice.

- "exact": every document of the corpus is ranked by the weighted sum of its exact scores. With `candidates`, modes
  that use token vectors rank only the union of the best documents by dense, lexical, and dense + lexical score.
- "paper": as in arXiv 2402.03216v4, section 4 and appendix C. Dense and lexical retrieval list 1000 documents each.
  Modes without token vectors rank the union of the lists that they use, and a document that is missing from one
  of them has 0 for that score. Modes with token vectors re-rank dense retrieval's first 200 by their exact scores.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from triptych.eval.groups import Survey
from triptych.eval.scan import PLAIN, ListSpec, Scanned, Vectors, Work, rescore, scan, weighted
from triptych.eval.systems import heads_of
from triptych.scores.on_numpy import Best
from triptych.types import HEADS, DefaultWeights, Encoded, Floats, Head, HeadWeights

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


LISTED, RERANKED = 1000, 200
"""Lengths of the paper's lists."""

_POOLS: Mapping[str, HeadWeights] = {
    "pool:dense": HeadWeights(1, 0, 0),
    "pool:lexical": HeadWeights(0, 1, 0),
    "pool:dense+lexical": HeadWeights(1, 0.3, 0),
}
_PAPER: Mapping[str, HeadWeights] = {"dense": HeadWeights(1, 0, 0), "lexical": HeadWeights(0, 1, 0)}


class Ranking(NamedTuple):
    """The best documents of one query: their row numbers, and totals in falling order."""

    rows: NDArray[np.int64]
    totals: Floats

    def without(self, excluded: NDArray[np.int64], k: int) -> Ranking:
        """The first k that are not excluded."""
        kept = ~np.isin(self.rows, excluded) if len(excluded) else slice(None)
        return Ranking(self.rows[kept][:k], self.totals[kept][:k])


class Rankings(Protocol):
    """The rankings of one model, all queries, all modes."""

    def of(self, mode: str, query: int, excluded: NDArray[np.int64]) -> Ranking:
        """The ranking of one query.

        Args:
            mode: Name of one of the model's modes.
            query: Its number.
            excluded: Numbers of documents that are left out, as if the corpus did not have them.
        """
        ...


class Found(NamedTuple):
    """What a protocol found.

    Attributes:
        rankings: Of all queries and modes.
        seconds: Of each mode, all queries together, without encoding.
        bytes: Of each head, all documents together.
        scanned: The lists behind it; None if there are none (an index).
    """

    rankings: Rankings
    seconds: Mapping[str, float]
    bytes: Mapping[Head, int]
    scanned: Scanned | None


class Scope(NamedTuple):
    """What is compared with what.

    Attributes:
        vectors: The documents.
        corpus: Their ids.
        queries: Q queries.
        spare: The most documents that any query leaves out.
    """

    vectors: Vectors
    corpus: Survey
    queries: Encoded
    spare: int


@dataclass(frozen=True, slots=True)
class Pool:
    """Candidates with all their scores.

    Attributes:
        rows: For each query numbers of documents, ascending.
        scores: For each query float32 ``[3, c]``, in the order dense, lexical, multi; 0 for a head that there is not.
        queries: The queries; needed for `DefaultWeights`.
    """

    rows: list[NDArray[np.int64]]
    scores: list[Floats]
    queries: Encoded | None = None

    def ranked(self, query: int, weights: HeadWeights, ranks: NDArray[np.int64]) -> Ranking:
        """All candidates of a query by a weighted sum, equal ones by their rank."""
        asked = None if self.queries is None else self.queries[query]
        return _sort(self.rows[query], self.scores[query], weights, ranks, asked)


def exact(
    scope: Scope,
    modes: Mapping[str, HeadWeights],
    depth: int,
    *,
    candidates: int | None = None,
    work: Work = PLAIN,
) -> Found:
    """Ranks by the exact protocol.

    Args:
        scope: Documents and queries.
        modes: Names and weights.
        depth: Documents a query.
        candidates: See the module's text; None: token vectors are compared with all documents, too.
        work: How scores are computed.
    """
    heads = heads_of(modes)
    late = candidates is not None and "multi" in heads and heads != ("multi",)
    now: tuple[Head, ...] = tuple(head for head in heads if head != "multi") if late else heads
    wanted = {
        name: ListSpec(weights, depth + scope.spare)
        for name, weights in modes.items()
        if not (late and weights.multi)
    }
    if late:
        wanted |= {
            name: ListSpec(weights, cast(int, candidates) + scope.spare)
            for name, weights in _POOLS.items()
            if set(weights.heads) <= set(now)
        }
    scanned = scan(scope.vectors, scope.corpus, scope.queries, wanted, now, work)
    pool, seconds = None, 0.0
    if late:
        began = time.perf_counter()
        pool = pool_of(scanned, scope, work, [name for name in wanted if name in _POOLS])
        seconds = time.perf_counter() - began
    rankings = _Exact(scanned, dict(modes), depth, scope.corpus.ranks, pool)
    return Found(rankings, _seconds(scanned, modes, seconds), scanned.bytes, scanned)


def paper(
    scope: Scope,
    modes: Mapping[str, HeadWeights],
    depth: int,
    *,
    listed: int = LISTED,
    reranked: int = RERANKED,
    work: Work = PLAIN,
) -> Found:
    """Ranks by the paper's protocol, where no weights are given with the paper's; it needs the dense head.

    Args:
        scope: Documents and queries.
        modes: Names and weights.
        depth: Documents a query.
        listed: Length of the lists of dense and lexical retrieval.
        reranked: How many of dense retrieval's list are re-ranked.
        work: How scores are computed.
    """
    modes = {
        name: weights.published if isinstance(weights, DefaultWeights) else weights
        for name, weights in modes.items()
    }
    heads = heads_of(modes)
    now: tuple[Head, ...] = tuple(
        head for head in HEADS if head == "dense" or (head == "lexical" and "lexical" in heads)
    )
    wanted = {name: ListSpec(_PAPER[name], listed + scope.spare) for name in now}
    scanned = scan(scope.vectors, scope.corpus, scope.queries, wanted, now, work)
    pool, seconds = None, 0.0
    if "multi" in heads:
        began = time.perf_counter()
        pool = pool_of(scanned, scope, work, ["dense"], reranked + scope.spare)
        seconds = time.perf_counter() - began
    rankings = _Paper(scanned, dict(modes), (depth, listed, reranked), scope.corpus.ranks, pool)
    return Found(rankings, _seconds(scanned, modes, seconds), scanned.bytes, scanned)


def pool_of(
    scanned: Scanned,
    scope: Scope,
    work: Work = PLAIN,
    names: Sequence[str] | None = None,
    first: int | None = None,
) -> Pool:
    """The union of lists of a pass with all scores; those of token vectors are computed where they are missing.

    Args:
        scanned: The pass.
        scope: What it compared.
        work: How scores are computed.
        names: Of the lists; None: all.
        first: How many of each list; None: all.
    """
    lists = [scanned.lists[name] for name in (scanned.lists if names is None else names)]
    rows, scores = [], []
    for query in range(len(scope.queries)):
        union, place = np.unique(
            np.concatenate([best.rows[query, :first] for best in lists]), return_index=True
        )
        real = union >= 0
        scored = np.zeros((len(HEADS), int(real.sum())), dtype=np.float32)
        every = np.concatenate([best.parts[:, query, :first] for best in lists], axis=1)[:, place[real]]
        for number, head in enumerate(scanned.heads):
            scored[HEADS.index(head)] = every[number]
        rows.append(union[real])
        scores.append(scored)
    if scope.queries.multi is not None and "multi" not in scanned.heads:
        late = rescore(scope.vectors, scope.queries.multi, rows, work)
        for scored, found in zip(scores, late, strict=True):
            scored[HEADS.index("multi")] = found
    return Pool(rows, scores, scope.queries)


@dataclass(frozen=True, slots=True)
class _Exact:
    scanned: Scanned
    modes: dict[str, HeadWeights]
    depth: int
    ranks: NDArray[np.int64]
    pool: Pool | None

    def of(self, mode: str, query: int, excluded: NDArray[np.int64]) -> Ranking:
        if mode in self.scanned.lists:
            found = _ranking_of(self.scanned.lists[mode], query)
        else:
            found = cast(Pool, self.pool).ranked(query, self.modes[mode], self.ranks)
        return found.without(excluded, self.depth)


@dataclass(frozen=True, slots=True)
class _Paper:
    scanned: Scanned
    modes: dict[str, HeadWeights]
    lengths: tuple[int, int, int]
    ranks: NDArray[np.int64]
    pool: Pool | None

    def of(self, mode: str, query: int, excluded: NDArray[np.int64]) -> Ranking:
        weights, (depth, listed, reranked) = self.modes[mode], self.lengths
        if weights.multi:
            dense = _ranking_of(self.scanned.lists["dense"], query).without(excluded, reranked)
            every = cast(Pool, self.pool).ranked(query, weights, self.ranks)
            kept = np.isin(every.rows, dense.rows)
            return Ranking(every.rows[kept][:depth], every.totals[kept][:depth])
        routes = [
            (head, _ranking_of(self.scanned.lists[head], query).without(excluded, listed))
            for head in weights.heads
        ]
        rows = np.unique(np.concatenate([found.rows for _, found in routes]))
        scores = np.zeros((len(HEADS), len(rows)), dtype=np.float32)
        for head, found in routes:
            scores[HEADS.index(head), np.searchsorted(rows, found.rows)] = found.totals
        return _sort(rows, scores, weights, self.ranks).without(excluded, depth)


def _seconds(scanned: Scanned, modes: Mapping[str, HeadWeights], late: float) -> dict[str, float]:
    """What each mode would have taken alone: its heads, and its part of the keeping of lists."""
    share = scanned.seconds["rank"] / max(1, len(scanned.lists))
    taken: dict[str, float] = {}
    for name, weights in modes.items():
        parts = [scanned.seconds[head] for head in weights.heads if head in scanned.heads]
        taken[name] = sum(parts) + share + (late if weights.multi and "multi" not in scanned.heads else 0)
    return taken


def _ranking_of(best: Best, query: int) -> Ranking:
    real = best.rows[query] >= 0
    return Ranking(best.rows[query][real], best.totals[query][real])


def _sort(
    rows: NDArray[np.int64],
    scores: Floats,
    weights: HeadWeights,
    ranks: NDArray[np.int64],
    query: Encoded | None = None,
) -> Ranking:
    total = weighted(dict(zip(HEADS, scores, strict=True)), weights, query)
    rows, total = rows[total > -np.inf], total[total > -np.inf]
    order = np.lexsort((ranks[rows], -total))
    return Ranking(rows[order], total[order])
