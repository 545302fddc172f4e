"""Searching in plain loops, beside which the fast code is held."""

import reference
from triptych.tools.negatives.options import Scoring
from triptych.types import Encoded, Head, HeadWeights


def score(queries: Encoded, q: int, documents: Encoded, d: int, head: Head) -> float:
    """One score of one pair, in float64."""
    if head == "dense":
        return reference.dense_score(queries.dense[q], documents.dense[d])
    if head == "multi":
        return reference.maxsim_score(queries.multi[q], documents.multi[d])
    sides = [
        dict(enumerate(side.lexical[[row]].toarray()[0])) for side, row in ((queries, q), (documents, d))
    ]
    return reference.lexical_score(*({t: float(w) for t, w in side.items() if w} for side in sides))


def summed(queries: Encoded, q: int, documents: Encoded, d: int, weights: HeadWeights) -> float:
    """The weighted sum."""
    return sum(getattr(weights, head) * score(queries, q, documents, d, head) for head in weights.heads)


def ranking(queries: Encoded, q: int, documents: Encoded, searchable: int, scoring: Scoring) -> list[int]:
    """All candidates, the best first, equal ones by row."""
    union: set[int] = set()
    for route in scoring.routes:
        single = {d: score(queries, q, documents, d, route) for d in range(searchable)}
        best = sorted(single, key=lambda d: (-single[d], d))[: scoring.candidates]
        union |= {d for d in best if route != "lexical" or single[d] > 0}
    total = {d: summed(queries, q, documents, d, scoring.weights) for d in union}
    return sorted(union, key=lambda d: (-total[d], d))
