"""The protocol "index": search through an index, whose recall may be approximate and its vectors smaller."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from triptych.eval.protocols import Found, Ranking, Scope
from triptych.eval.scan import Work
from triptych.index.layout import Layout, LayoutOptions, Payload
from triptych.index.search import SearchOptions, hybrid_search, make_plan
from triptych.index.store import EngineName, Store, create_store
from triptych.scores.tokens import pooled_lengths
from triptych.types import HEADS, Head, HeadWeights, Ragged

_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class ThroughIndex:
    """Builds an index of a corpus and searches it in all modes; a protocol for `triptych.eval.running`.

    Attributes:
        engine: "edge" (Qdrant within the process) or "exact".
        options: What the index stores and how.
        candidates: Documents that each route recalls, if a ranking is not longer.
    """

    engine: EngineName = "edge"
    options: LayoutOptions | None = None
    candidates: int = 200

    def __call__(self, scope: Scope, modes: Mapping[str, HeadWeights], depth: int, work: Work) -> Found:
        """Ranks by search; a query's seconds are those of searches in batches, as `Index.search` does them."""
        k = depth + scope.spare
        rankings: dict[str, list[Ranking]] = {}
        seconds: dict[str, float] = {}
        with tempfile.TemporaryDirectory(prefix="triptych-eval-") as folder:
            store, sizes = self._build(Path(folder) / "index", scope, work)
            try:
                for name, weights in modes.items():
                    began = time.perf_counter()
                    routes = _routes(weights, store.engine.routes)
                    options: SearchOptions = {
                        "weights": weights,
                        "routes": routes,
                        "candidates": self.candidates,
                    }
                    plan = make_plan(store.engine, k, options)
                    hits = hybrid_search(store.engine, scope.queries, plan)
                    seconds[name] = time.perf_counter() - began
                    rankings[name] = [
                        Ranking(
                            np.asarray([scope.corpus.row_of[hit.id] for hit in found], dtype=np.int64),
                            np.asarray([hit.score for hit in found], dtype=np.float32),
                        )
                        for found in hits
                    ]
            finally:
                store.close()
        return Found(_Searched(rankings, depth), seconds, sizes, None)

    def _build(self, place: Path, scope: Scope, work: Work) -> tuple[Store, dict[Head, int]]:
        widths: dict[Head, int] = {
            head: _width(getattr(scope.queries, head))
            for head in HEADS
            if getattr(scope.queries, head) is not None
        }
        layout = Layout.of(widths, self.options)
        store = create_store(str(place), self.engine, layout, ("", scope.vectors.model.fingerprint))
        sizes: dict[Head, int] = dict.fromkeys(widths, 0)
        try:
            for start, block in scope.vectors.blocks(work=work):
                for first in range(0, len(block), _AT_ONCE):
                    part = block[first : first + _AT_ONCE]
                    names = scope.corpus.ids[start + first : start + first + len(part)]
                    store.add(part, [Payload(id=name, text="", metadata={}) for name in names])
                    for head in widths:
                        sizes[head] += _bytes(layout, head, getattr(part, head))
        except BaseException:
            store.close()
            raise
        return store, sizes


@dataclass(frozen=True, slots=True)
class _Searched:
    rankings: dict[str, list[Ranking]]
    depth: int

    def of(self, mode: str, query: int, excluded: NDArray[np.int64]) -> Ranking:
        return self.rankings[mode][query].without(excluded, self.depth)


def _routes(weights: HeadWeights, possible: tuple[Head, ...]) -> tuple[Head, ...]:
    """By what documents are recalled: dense and lexical as far as they count, both for token vectors alone."""
    first: tuple[Head, ...] = ("dense", "lexical")
    used = tuple(head for head in first if getattr(weights, head))
    return tuple(head for head in used or first if head in possible)


def _width(part: object) -> int:
    return part.width if isinstance(part, Ragged) else int(part.shape[1])  # type: ignore[attr-defined]


def _bytes(layout: Layout, head: Head, part: object) -> int:
    """What the index keeps of a block in this head, without its own structures."""
    if isinstance(part, Ragged):
        pooled = int(pooled_lengths(part.lengths, layout.pool_tokens).sum())
        return pooled * layout.tokens.bytes_per_token
    if head == "dense":
        return part.size * (2 if layout.dense == "float16" else 4)  # type: ignore[attr-defined]
    return 8 * int(part.nnz)  # type: ignore[attr-defined]
