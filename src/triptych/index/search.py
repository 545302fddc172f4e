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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from itertools import islice
from typing import Any, Literal, TypeAlias, TypedDict, cast

import numpy as np

from triptych.errors import InputError, show
from triptych.index.documents import LARGEST, Payload, check_choice, check_integer, check_options
from triptych.index.engine import Candidates, Engine
from triptych.index.filters import Filter, Part, Present, field_name, field_path, field_paths
from triptych.index.groups import group_hits
from triptych.scores.on_numpy import combine, lexical_squares, top_k
from triptych.types import HEADS, DefaultWeights, Encoded, Floats, Head, HeadWeights, Hit, check_heads

Protocol: TypeAlias = Literal["exact", "paper"]

LexicalQueries: TypeAlias = Literal["model", "idf"]

CANDIDATES = 200
"""Documents that each route recalls, if nothing else is said."""

_GROUP_SIZE = 3
_QUERIES_AT_ONCE = 64
_SAMPLE = 1000
"""Documents that are looked at for the names of fields."""
_SHOWN = 10
"""Fields that a warning names."""


class SearchOptions(TypedDict, total=False):
    """How to search.

    Attributes:
        weights: Weights of the scores dense, lexical, multi in their sum; default those that were set for the index,
            or else the default sum of the heads that it has, dense + 0.3·coverage³ + 3·multi.
        candidates: How many documents each route recalls; default 200, and never fewer than k. More finds more.
        routes: Heads that recall documents, of dense,lexical,multi; default dense and lexical.
        filter: Conditions on the metadata, see `triptych.index.filters`; default none.
        protocol: exact (default): all scores of every recalled document; paper: as in the published evaluation, a
            score that a route did not give is 0.
        offset: Leave out this many of the best hits, or groups of them: the next page is offset=k.
        min_score: Only hits whose weighted sum is at least this.
        group_by: Name of a field of the metadata, such as parent: of the documents with the same value there the best
            is a hit, and has the next ones beside it. A document without the field stands alone.
        group_size: Hits of a group at most, with the first; default 3.
        lexical_queries: model (default), or idf: a search by lexical vectors alone, with a query's tokens weighted by
            their rarity among the documents, which needs no encoder; see `triptych.index.query_weights`.
    """

    weights: HeadWeights | Sequence[float] | Mapping[str, float] | None
    candidates: int
    routes: Sequence[Head] | None
    filter: Mapping[str, Any] | Filter | None
    protocol: Protocol
    offset: int
    min_score: float | None
    group_by: str | None
    group_size: int
    lexical_queries: LexicalQueries


@dataclass(frozen=True, slots=True)
class Plan:
    """How to search; `make_plan` checks it against an engine.

    Attributes:
        k: Hits per query.
        weights: Of the three scores.
        candidates: How many documents each route recalls, at least k.
        routes: By which heads documents are recalled.
        heads: Whose scores a hit has.
        where: Only documents that fulfil this.
        protocol: See the module's text.
        offset: Hits, or groups, that are left out before them.
        min_score: Least sum of a hit.
        group_by: Path of the field whose values make groups; None: there are none.
        group_size: Hits per group.
    """

    k: int
    weights: HeadWeights
    candidates: int
    routes: tuple[Head, ...]
    heads: tuple[Head, ...]
    where: Filter | None = None
    protocol: Protocol = "exact"
    offset: int = 0
    min_score: float = -np.inf
    group_by: tuple[str, ...] | None = None
    group_size: int = 1

    @property
    def wanted(self) -> int:
        """Hits, or groups, with those that are left out."""
        return self.offset + self.k


def make_plan(engine: Engine, k: int, options: SearchOptions | None = None) -> Plan:
    """A plan with the index's defaults filled in.

    Args:
        engine: The engine that will search.
        k: Hits per query.
        options: See `SearchOptions`; weights by default are the usual ones of the heads that the index has, routes
            dense and lexical, as far as it has them, else multi. `candidates` is raised to what k and `offset` need.

    Raises:
        InputError: For an unknown option, a number out of its range, a head that the index lacks, an unknown protocol
            or a filter that is none.
    """
    options = options or {}
    check_options(options, SearchOptions, "search")
    heads: tuple[Head, ...] = engine.layout.heads
    k = check_integer(k, "search: got k")
    offset = check_integer(options.get("offset", 0), "search: got offset", 0)
    candidates = max(
        k + offset, check_integer(options.get("candidates", CANDIDATES), "search: got candidates")
    )
    protocol = options.get("protocol", "exact")
    check_choice(protocol, Protocol, "search", "protocol")
    weights, given = options.get("weights"), options.get("routes")
    check_choice(options.get("lexical_queries", "model"), LexicalQueries, "search", "lexical_queries")
    what = "the index"
    if options.get("lexical_queries") == "idf":
        if "lexical" not in heads:
            raise InputError(
                f"search: got lexical_queries='idf', but the index has no lexical vectors, only {', '.join(heads)}; "
                "expected 'model'"
            )
        heads = ("lexical",)
        what = "a search with lexical_queries='idf'"
        weights = HeadWeights(0, 1, 0) if weights is None else weights
    if weights is None:
        usual = HeadWeights.default(heads)
        weights = usual.published if protocol == "paper" else usual
    chosen = HeadWeights.of(weights)
    if lacking := [head for head in chosen.heads if head not in heads]:
        raise InputError(
            f"search: got weights {tuple(chosen)}, but {what} has no {' and no '.join(lacking)} vectors; "
            f"expected weight 0 there ({what} has {', '.join(heads)})"
        )
    if given is None:
        given = tuple(head for head in ("dense", "lexical") if head in heads) or heads
    routes: tuple[Head, ...] = check_heads(given, "search: routes")
    for route in routes:
        if route not in engine.routes or route not in heads:
            why = (
                f"{what} has no such vectors"
                if route not in heads
                else "token vectors of so few bits only re-rank here"
            )
            possible = [head for head in engine.routes if head in heads]
            raise InputError(
                f"search: got the route {route!r}, but {why}; expected some of {', '.join(possible)}"
            )
    if protocol == "paper":
        wanted: tuple[Head, ...] = ("dense",) if chosen.multi else chosen.heads
        routes = tuple([head for head in wanted if head in engine.routes])
        if not routes:
            raise InputError(
                "search: got protocol='paper' with a multi-vector weight, which re-ranks the dense list; the index has "
                "no dense vectors. Expected protocol='exact'"
            )
    least, field = options.get("min_score"), options.get("group_by")
    if least is not None and not _is_finite(least):
        raise InputError(f"search: got min_score={show(least)}; expected a finite number or None")
    return Plan(
        k,
        chosen,
        candidates,
        routes,
        heads,
        Filter.of(options.get("filter")),
        protocol,
        offset,
        -np.inf if least is None else float(least),
        None if field is None else field_path(field, "search: got group_by"),
        check_integer(options.get("group_size", _GROUP_SIZE), "search: got group_size"),
    )


def _is_finite(value: object) -> bool:
    return (
        isinstance(value, int | float | np.number)
        and not isinstance(value, bool)
        and bool(np.isfinite(value))
    )


def hybrid_search(engine: Engine, queries: Encoded, plan: Plan) -> list[list[Hit]]:
    """Searches for each of Q queries.

    Equal scores are ordered by id, so that the answer is determined, and the hits for k are the first of those
    for k + 1.

    Args:
        engine: Where.
        queries: Q queries with all heads of the plan.
        plan: How; made by `make_plan`.

    Returns:
        For each query up to ``plan.k`` hits, the best first.
    """
    hits: list[list[Hit]] = []
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        some = queries[start : start + _QUERIES_AT_ONCE]
        if plan.group_by is None:
            found = _search_some(engine, some, replace(plan, k=plan.wanted))
            hits += [[hit for hit in each if hit.score >= plan.min_score] for each in found]
        else:
            found = _search_some(engine, some, replace(plan, k=LARGEST))
            hits += [_group(engine, some[i], plan, each) for i, each in enumerate(found)]
    return [each[plan.offset : plan.wanted] for each in hits]


def _group(engine: Engine, query: Encoded, plan: Plan, found: Sequence[Hit]) -> list[Hit]:
    """Groups all candidates of one query."""

    def search(condition: Part) -> list[Hit]:
        conditions = (condition,) if plan.where is None else (plan.where, condition)
        return _search_some(engine, query, replace(plan, k=LARGEST, where=Filter(conditions)))[0]

    return group_hits(
        found,
        search,
        cast("tuple[str, ...]", plan.group_by),
        wanted=plan.wanted,
        size=plan.group_size,
        candidates=plan.candidates,
        min_score=plan.min_score,
    )


def _search_some(engine: Engine, queries: Encoded, plan: Plan) -> list[list[Hit]]:
    lists = {route: engine.recall(queries, route, plan.candidates, plan.where) for route in plan.routes}
    unions = [_union([lists[route][i] for route in plan.routes]) for i in range(len(queries))]
    scores = engine.score(queries, unions, plan.heads)
    if plan.protocol == "paper" and not plan.weights.multi:
        scores = [
            _only_listed(scores[i], unions[i], {r: lists[r][i] for r in plan.routes})
            for i in range(len(unions))
        ]
    covered = isinstance(plan.weights, DefaultWeights) and plan.weights.lexical
    own = lexical_squares(queries) if covered else np.zeros(len(queries), np.float32)
    totals = [combine(found, plan.weights, own[i : i + 1]) for i, found in enumerate(scores)]
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


def check_fields(engine: Engine, paths: Iterable[tuple[str, ...]], *, refuse: bool) -> None:
    """Looks for a misspelt field.

    Args:
        engine: Where.
        paths: Fields of a filter.
        refuse: Whether one that no document has is an error, if one that is written much like it is there; for a
            filter that no document fulfils.

    Raises:
        InputError: See `refuse`.
        FilterWarning: As a warning, for another field that no document has.
    """
    known: list[str] | None = None
    for path in paths:
        if engine.count(Filter((Present(path),))):
            continue
        if known is None:
            known = known_fields(engine)
        name = field_name(path)
        if name in known:
            continue
        near = get_close_matches(name, known, n=1)
        shown = ", ".join(map(repr, known[:_SHOWN])) or "none"
        more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
        advice = f"did you mean {near[0]!r}?" if near else f"fields are {shown}{more}"
        message = f"filter: no document has the field {name!r}; {advice}"
        if near and refuse:
            raise InputError(message)
        if engine.count():
            warnings.warn(message, FilterWarning, stacklevel=2)


def known_fields(engine: Engine) -> list[str]:
    """The fields of the metadata of some documents, as filters name them: the most frequent first, then by name."""
    keys = [engine.key(name) for name in islice(engine.ids(), _SAMPLE)]
    found = Counter(
        path for payload in engine.fetch(keys) if payload for path in field_paths(payload["metadata"])
    )
    return sorted(found, key=lambda path: (-found[path], path))
