"""Hybrid search over an engine: recall by routes, union, exact scores of the union, weighted sum.

**Math** ``s = w_dense·s_dense + w_lex·s_lex + w_mul·s_mul`` (arXiv 2402.03216v4, section 3.2).

Two protocols:

- "exact": every document that any route recalled gets all its exact scores.
- "paper": as in the published evaluation. Without a multi-vector weight the candidates are the union of the
  lists of dense and lexical retrieval, and a document that is missing from one list gets 0 for that score. With
  one, the dense list alone is re-ranked by the exact scores.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, cast, get_args

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InputError
from triptych.index.engine import Candidates, Engine
from triptych.index.filters import Filter
from triptych.scores.on_numpy import combine
from triptych.types import HEADS, Encoded, Floats, Head, HeadWeights, Hit, check_heads

Protocol: TypeAlias = Literal["exact", "paper"]

_QUERIES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """How to search; `Plan.of` checks it against an engine.

    Attributes:
        k: Hits a query.
        weights: Of the three scores.
        candidates: How many documents each route recalls.
        routes: By which heads documents are recalled.
        where: Only documents that fulfil this.
        protocol: See the module's text.
    """

    k: int
    weights: HeadWeights
    candidates: int
    routes: tuple[Head, ...]
    where: Filter | None
    protocol: Protocol

    def checked(self, engine: Engine) -> Plan:
        """This plan, if the engine can carry it out.

        Raises:
            InputError: For numbers below 1, more hits than candidates, a head that the index lacks, or an
                unknown protocol.
        """
        heads = engine.layout.heads
        for name, number in (("k", self.k), ("candidates", self.candidates)):
            if not isinstance(number, int | np.integer) or isinstance(number, bool) or number < 1:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise InputError(f"search: got {name}={number!r}; expected an integer ≥ 1")
        if self.k > self.candidates:
            raise InputError(
                f"search: got k={self.k} with candidates={self.candidates}; expected candidates ≥ k: each route "
                "recalls only so many documents"
            )
        if self.protocol not in get_args(Protocol):
            raise InputError(f"search: got protocol={self.protocol!r}; expected 'exact' or 'paper'")
        lacking = [head for head in self.weights.heads if head not in heads]
        if lacking:
            raise InputError(
                f"search: got weights {tuple(self.weights)}, but the index has no {' and no '.join(lacking)} vectors; "
                f"expected weight 0 there (the index has {', '.join(heads)})"
            )
        for route in self.routes:
            if route not in engine.routes:
                why = (
                    "the index has no such vectors" if route not in heads else "binary ones only re-rank here"
                )
                raise InputError(
                    f"search: got the route {route!r}, but {why}; expected some of {', '.join(engine.routes)}"
                )
        return self


def make_plan(
    engine: Engine,
    k: int,
    weights: HeadWeights | Sequence[float] | Mapping[str, float] | None,
    routes: Sequence[Head] | None,
    where: Filter | None,
    *,
    candidates: int,
    protocol: Protocol,
) -> Plan:
    """A plan with the index's defaults filled in, checked.

    Args:
        engine: The engine that will search.
        k: Hits a query.
        weights: None: the default weights of the heads that the index has.
        routes: None: dense and lexical, as far as the index has them.
        where: Filter.
        candidates: Documents a route.
        protocol: See the module's text.

    Raises:
        InputError: See `Plan.checked`.
    """
    heads = engine.layout.heads
    if weights is None:
        default = HeadWeights()._asdict()
        chosen = HeadWeights.of({head: default[head] for head in heads})
    else:
        chosen = HeadWeights.of(weights)
    if routes is None:
        routes = tuple(head for head in ("dense", "lexical") if head in heads)
    return Plan(k, chosen, candidates, check_heads(routes, "search: routes"), where, protocol).checked(engine)


def hybrid_search(engine: Engine, queries: Encoded, plan: Plan) -> list[list[Hit]]:
    """Searches for each of Q queries.

    Equal scores are ordered by id, so that the answer is determined, and the hits for k are the first of those
    for k + 1.

    Args:
        engine: Where.
        queries: Q queries with all heads of the index.
        plan: How; made by `make_plan`.

    Returns:
        For each query up to ``plan.k`` hits, the best first.
    """
    hits: list[list[Hit]] = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        hits += _search_some(engine, queries[start : start + _QUERIES_AT_ONCE], plan)
    return hits


def _search_some(engine: Engine, queries: Encoded, plan: Plan) -> list[list[Hit]]:
    routes = _paper_routes(plan, engine) if plan.protocol == "paper" else plan.routes
    lists = {route: engine.recall(queries, route, plan.candidates, plan.where) for route in routes}
    unions = [_union([lists[route][i] for route in routes]) for i in range(len(queries))]
    scores = engine.score(queries, unions, engine.layout.heads)
    if plan.protocol == "paper" and not plan.weights.multi:
        scores = [
            _only_listed(scores[i], unions[i], {r: lists[r][i] for r in routes}) for i in range(len(unions))
        ]
    totals = [combine(found, plan.weights) for found in scores]
    return _hits(engine, unions, scores, totals, plan.k)


def _paper_routes(plan: Plan, engine: Engine) -> tuple[Head, ...]:
    if plan.weights.multi:
        return ("dense",)
    return tuple(head for head in plan.weights.heads if head in engine.routes)


def _union(lists: Sequence[Candidates]) -> list[str]:
    """All keys once, ordered so that the union does not depend on the engine's order of equal scores."""
    return sorted({key for found in lists for key in found.keys})


def _only_listed(
    scores: Mapping[Head, Floats], union: Sequence[str], lists: Mapping[Head, Candidates]
) -> dict[Head, Floats]:
    """Scores with 0 for every document that is not in the score's own list."""
    result: dict[Head, Floats] = {}
    for head, values in scores.items():
        listed = set(lists[head].keys) if head in lists else set[str]()
        result[head] = values * np.asarray([key in listed for key in union], dtype=np.float32)
    return result


def _hits(
    engine: Engine,
    unions: Sequence[Sequence[str]],
    scores: Sequence[Mapping[Head, Floats]],
    totals: Sequence[Floats],
    k: int,
) -> list[list[Hit]]:
    """The k best of each union; payloads are fetched only for them, and for those equal to the k-th."""
    best = [_best_rows(total, k) for total in totals]
    wanted = list(dict.fromkeys(unions[i][int(row)] for i, rows in enumerate(best) for row in rows))
    payloads = dict(zip(wanted, engine.fetch(wanted), strict=True))
    answers: list[list[Hit]] = []
    for i, rows in enumerate(best):
        hits: list[Hit] = []
        for row in map(int, rows):
            payload = payloads[unions[i][row]]
            if payload is None:  # deleted by somebody else since it was recalled
                continue
            single: dict[Head, float] = {
                head: float(scores[i][head][row]) for head in HEADS if head in scores[i]
            }
            hits.append(
                Hit(payload["id"], float(totals[i][row]), single, payload["text"], payload["metadata"])
            )
        answers.append(sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k])
    return answers


def _best_rows(total: Floats, k: int) -> NDArray[np.int64]:
    if len(total) <= k:
        return np.arange(len(total))
    bar = np.partition(total, len(total) - k)[len(total) - k]
    return cast(NDArray[np.int64], np.flatnonzero(total >= bar))
