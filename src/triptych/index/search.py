"""Hybrid search over an engine: recall by routes, union, exact scores of the union, weighted sum.

**Math** ``s = w_dense·s_dense + w_lex·s_lex + w_mul·s_mul`` (arXiv 2402.03216v4, section 3.2).

Two protocols:

- "exact": every document that any route recalled gets all its exact scores.
- "paper": as in the published evaluation. Without a multi-vector weight the candidates are the union of the
  lists of dense and lexical retrieval, and a document that is missing from one list gets 0 for that score. With
  one, the dense list alone is re-ranked by the exact scores.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from typing import Any, Literal, TypeAlias, TypedDict, cast

import numpy as np

from triptych.errors import InputError
from triptych.index.documents import Payload, check_choice, check_integer
from triptych.index.engine import Candidates, Engine
from triptych.index.filters import Filter, Present, field_name, field_paths
from triptych.scores.on_numpy import combine, top_k
from triptych.types import HEADS, Encoded, Floats, Head, HeadWeights, Hit, check_heads

Protocol: TypeAlias = Literal["exact", "paper"]

CANDIDATES = 200
"""Documents that each route recalls, if nothing else is said."""

_QUERIES_AT_ONCE = 64
_SAMPLE = 1000
"""Documents that are looked at for the names of fields."""
_SHOWN = 10
"""Fields that a warning names."""


class SearchOptions(TypedDict, total=False):
    """How to search.

    Attributes:
        weights: Weights of the scores dense, lexical, multi in their sum; default (1, 0.3, 1) for the heads that the
            index has.
        candidates: How many documents each route recalls; default 200, and never fewer than k. More finds more.
        routes: Heads that recall documents, of dense,lexical,multi; default dense and lexical.
        filter: Conditions on the metadata, see `triptych.index.filters`; default none.
        protocol: exact (default): all scores of every recalled document; paper: as in the published evaluation, a
            score that a route did not give is 0.
    """

    weights: HeadWeights | Sequence[float] | Mapping[str, float] | None
    candidates: int
    routes: Sequence[Head] | None
    filter: Mapping[str, Any] | Filter | None
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Plan:
    """How to search; `make_plan` checks it against an engine.

    Attributes:
        k: Hits per query.
        weights: Of the three scores.
        candidates: How many documents each route recalls, at least k.
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


def make_plan(
    engine: Engine,
    k: int,
    weights: HeadWeights | Sequence[float] | Mapping[str, float] | None,
    routes: Sequence[Head] | None,
    where: Filter | None,
    *,
    candidates: int = CANDIDATES,
    protocol: Protocol = "exact",
) -> Plan:
    """A plan with the index's defaults filled in.

    Args:
        engine: The engine that will search.
        k: Hits per query.
        weights: None: the default weights of the heads that the index has.
        routes: None: dense and lexical, as far as the index has them, else multi.
        where: Filter.
        candidates: Documents per route; raised to k.
        protocol: See the module's text.

    Raises:
        InputError: For numbers below 1, a head that the index lacks, or an unknown protocol.
    """
    heads = engine.layout.heads
    k = check_integer(k, "search: got k")
    candidates = max(k, check_integer(candidates, "search: got candidates"))
    check_choice(protocol, Protocol, "search", "protocol")
    if weights is None:
        default = HeadWeights()._asdict()
        weights = {head: default[head] for head in heads}
    chosen = HeadWeights.of(weights)
    if lacking := [head for head in chosen.heads if head not in heads]:
        raise InputError(
            f"search: got weights {tuple(chosen)}, but the index has no {' and no '.join(lacking)} vectors; "
            f"expected weight 0 there (the index has {', '.join(heads)})"
        )
    if routes is None:
        routes = tuple(head for head in ("dense", "lexical") if head in heads) or heads
    routes = check_heads(routes, "search: routes")
    for route in routes:
        if route not in engine.routes:
            why = "the index has no such vectors" if route not in heads else "binary ones only re-rank here"
            raise InputError(
                f"search: got the route {route!r}, but {why}; expected some of {', '.join(engine.routes)}"
            )
    if protocol == "paper":
        wanted = ("dense",) if chosen.multi else chosen.heads
        routes = tuple(head for head in wanted if head in engine.routes)
        if not routes:
            raise InputError(
                "search: got protocol='paper' with a multi-vector weight, which re-ranks the dense list; the index has "
                "no dense vectors. Expected protocol='exact'"
            )
    return Plan(k, chosen, candidates, routes, where, protocol)


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
    lists = {route: engine.recall(queries, route, plan.candidates, plan.where) for route in plan.routes}
    unions = [_union([lists[route][i] for route in plan.routes]) for i in range(len(queries))]
    scores = engine.score(queries, unions, engine.layout.heads)
    if plan.protocol == "paper" and not plan.weights.multi:
        scores = [
            _only_listed(scores[i], unions[i], {r: lists[r][i] for r in plan.routes})
            for i in range(len(unions))
        ]
    totals = [combine(found, plan.weights) for found in scores]
    return _hits(engine, unions, scores, totals, plan.k)


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
    payloads: dict[str, Payload | None] = {}
    while True:
        best = [top_k(total, k, with_ties=True) for total in totals]
        wanted = {unions[i][int(row)] for i, rows in enumerate(best) for row in rows}
        new = [key for key in wanted if key not in payloads]
        payloads |= dict(zip(new, engine.fetch(new), strict=True))
        gone = [
            (i, row) for i, rows in enumerate(best) for row in rows if payloads[unions[i][int(row)]] is None
        ]
        if not gone:
            break
        for i, row in gone:  # deleted since it was recalled
            totals[i][row] = -np.inf
    answers: list[list[Hit]] = []
    for i, rows in enumerate(best):
        hits: list[Hit] = []
        for row in map(int, rows):
            payload = cast(Payload, payloads[unions[i][row]])
            single: dict[Head, float] = {
                head: float(scores[i][head][row]) for head in HEADS if head in scores[i]
            }
            hits.append(
                Hit(payload["id"], float(totals[i][row]), single, payload["text"], payload["metadata"])
            )
        answers.append(sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k])
    return answers


class FilterWarning(UserWarning):
    """A filter asks for a field that no document has."""


def check_fields(engine: Engine, where: Filter) -> None:
    """Looks for a misspelt field; for a filter that no document fulfils.

    Raises:
        InputError: If no document has a field of the filter, and one that is written much like it is there.
        FilterWarning: As a warning, if none is written like it.
    """
    known: list[str] | None = None
    for path in where.paths:
        if engine.count(Filter((Present(path),))):
            continue
        if known is None:
            known = known_fields(engine)
        name = field_name(path)
        if name not in known and (near := get_close_matches(name, known, n=1)):
            raise InputError(f"filter: no document has the field {name!r}; did you mean {near[0]!r}?")
        if name not in known and engine.count():
            shown = ", ".join(map(repr, known[:_SHOWN])) or "none"
            more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
            warnings.warn(
                f"filter: no document has the field {name!r}; fields are {shown}{more}",
                FilterWarning,
                stacklevel=2,
            )


def known_fields(engine: Engine) -> list[str]:
    """The fields of the metadata of some documents, as filters name them, the most frequent first."""
    keys = [engine.key(name) for name in islice(engine.ids(), _SAMPLE)]
    found = Counter(
        path for payload in engine.fetch(keys) if payload for path in field_paths(payload["metadata"])
    )
    return [path for path, _ in found.most_common()]
