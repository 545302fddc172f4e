"""Hybrid search written out in plain loops and float64: what every engine's answers are compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from triptych.types import HEADS, Encoded, Head


@dataclass(frozen=True)
class Document:
    id: str
    vectors: Encoded
    metadata: Mapping[str, Any]


def scores(query: Encoded, document: Encoded) -> dict[Head, float]:
    """The three scores of one query and one document."""
    assert query.dense is not None
    assert document.dense is not None
    dense = sum(float(a) * float(b) for a, b in zip(query.dense[0], document.dense[0], strict=True))
    weights = dict(zip(document.lexical.indices.tolist(), document.lexical.data.tolist(), strict=True))
    lexical = sum(
        weights.get(t, 0.0) * w
        for t, w in zip(query.lexical.indices.tolist(), query.lexical.data.tolist(), strict=True)
    )
    tokens, others = query.multi[0].astype(np.float64), document.multi[0].astype(np.float64)
    best = [max(float(a @ b) for b in others) for a in tokens] if len(others) else []
    return {"dense": dense, "lexical": lexical, "multi": sum(best) / len(best) if best else 0.0}


def recall(query: Encoded, documents: Sequence[Document], route: Head, k: int) -> list[str]:
    """Ids of the k best by one head, equal ones by id."""
    found = [(-scores(query, d.vectors)[route], d.id) for d in documents if _found(query, d, route)]
    return [name for _, name in sorted(found)[:k]]


def _found(query: Encoded, document: Document, route: Head) -> bool:
    if route == "lexical":
        return scores(query, document.vectors)["lexical"] > 0
    return route == "dense" or (len(query.multi[0]) > 0 and len(document.vectors.multi[0]) > 0)


def search(
    query: Encoded,
    documents: Sequence[Document],
    weights: tuple[float, float, float] | None,
    routes: Sequence[Head] = ("dense", "lexical"),
    candidates: int = 10_000,
    matches: Callable[[Mapping[str, Any]], bool] = lambda metadata: True,
    has_multi: bool = True,
) -> list[tuple[str, float, dict[Head, float]]]:
    """(id, sum, scores) of all candidates, the best first, equal sums by id; without weights by the default sum."""
    kept = [d for d in documents if matches(d.metadata)]
    union = {name for route in routes for name in recall(query, kept, route, candidates)}
    rows = [(d.id, scores(query, d.vectors)) for d in kept if d.id in union]
    own = sum(float(w) ** 2 for w in query.lexical.data) if query.lexical is not None else 0.0

    def total(s: dict[str, float]) -> float:
        if weights is None:
            covered = (s["lexical"] / own if own else 0.0) ** 3
            return s["dense"] + 0.3 * covered + (3 * s["multi"] if has_multi else 0)
        return sum(w * s[h] for w, h in zip(weights, HEADS, strict=True))

    sums = [(name, total(s), s) for name, s in rows]
    return sorted(sums, key=lambda row: (-round(row[1], 5), row[0]))


def paper(
    query: Encoded, documents: Sequence[Document], weights: tuple[float, float, float], candidates: int
) -> list[tuple[str, float]]:
    """The published evaluation's way, see `triptych.index.search`."""
    by_id = {d.id: scores(query, d.vectors) for d in documents}
    dense = recall(query, documents, "dense", candidates)
    if weights[2]:
        rows = [
            (name, sum(w * by_id[name][h] for w, h in zip(weights, HEADS, strict=True))) for name in dense
        ]
    else:
        lexical = recall(query, documents, "lexical", candidates)
        used = (dense if weights[0] else []), (lexical if weights[1] else [])
        rows = [
            (
                name,
                sum(
                    w * by_id[name][h]
                    for w, h, found in zip(weights, HEADS, used, strict=False)
                    if name in found
                ),
            )
            for name in {*used[0], *used[1]}
        ]
    return sorted(rows, key=lambda row: (-round(row[1], 5), row[0]))
