"""From a system and a group of collections to runs, one for each collection and mode.

The protocol "index" is here, too: search through an index, whose recall may be approximate and its vectors smaller.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.collections.base import Collection, Ranked, Run
from triptych.errors import InputError
from triptych.eval.groups import Group
from triptych.eval.protocols import Found, Ranking, Scope, exact, paper, reciprocal_ranks
from triptych.eval.scan import BLOCK, TokenType, Vectors, Work, encode_queries, numpy_scoring
from triptych.eval.systems import FUSED, Ranker, Scoring, VectorModel, without
from triptych.index.layout import Layout, LayoutOptions, Payload
from triptych.index.search import hybrid_search, make_plan
from triptych.index.store import EngineName, Store, create_store
from triptych.types import HEADS, Encoded, Head, HeadWeights, Progress, Ragged

Method: TypeAlias = Callable[[Scope, Mapping[str, HeadWeights], int, Work], Found]
"""A protocol: from (what is compared, modes, depth, how) to rankings."""


@dataclass(frozen=True, slots=True)
class Options:
    """How to evaluate.

    Attributes:
        protocol: exact: compare with the whole corpus; paper: unite lists of 1000, re-rank dense's 200; index: search
            through an index.
        depth: Documents that a run has for each query; metrics may ask for more, and get it.
        candidates: Modes with token vectors rank only so many candidates of each first stage; None: everything.
        metrics: Names of ir-measures such as nDCG@10,R@100; None: those of the data set.
        rrf: Whether reciprocal-rank fusion is evaluated beside the sums.
        test: Paired test of significance over independent clusters of queries.
        reference: SYSTEM/MODE with which the others are compared; None: the first system's last mode.
        cache: Keep encoded texts here; a later run, or one that was interrupted, reads them.
        tokens: Type of token vectors in the cache: float16 takes half the room.
        block: Documents that are encoded, kept and compared at once.
    """

    protocol: Literal["exact", "paper", "index"] = "exact"
    depth: int = 100
    candidates: int | None = None
    metrics: tuple[str, ...] | None = None
    rrf: bool = True
    test: Literal["t", "randomisation"] = "t"
    reference: str | None = None
    cache: Path | None = None
    tokens: TokenType = "float32"
    block: int = BLOCK

    def checked(self) -> Options:
        """These options.

        Raises:
            InputError: For numbers below 1, or candidates where the protocol has its own.
        """
        for name, number in (("depth", self.depth), ("candidates", self.candidates), ("block", self.block)):
            if number is not None and number < 1:
                raise InputError(f"evaluate: got {name}={number}; expected at least 1")
        if self.candidates is not None and self.protocol != "exact":
            raise InputError(
                f"evaluate: got candidates={self.candidates} with the protocol {self.protocol!r}; expected it with "
                "'exact' (the paper's protocol re-ranks 200, an index its own candidates)"
            )
        return self


@dataclass(frozen=True, slots=True)
class Tools:
    """What comes from the layers above.

    Attributes:
        scoring: How blocks are compared.
        index: The protocol "index"; None: not available.
        progress: See `triptych.types.Progress`.
    """

    scoring: Scoring = numpy_scoring
    index: Method | None = None
    progress: Progress = Work().progress

    def work(self, stage: str) -> Work:
        """For one pass over a corpus."""
        return Work(self.scoring, self.progress, stage)


@dataclass(slots=True)
class Cost:
    """Seconds and bytes of one system on one corpus; None where they were not measured.

    Attributes:
        queries: How many were encoded and ranked.
        documents: How many there are.
        encode_queries: Seconds.
        encode_documents: Seconds for `encoded` documents.
        encoded: Documents that were not in the cache.
        rank: Seconds of each mode.
        bytes: Of each head.
    """

    queries: int = 0
    documents: int = 0
    encode_queries: float | None = None
    encode_documents: float = 0.0
    encoded: int = 0
    rank: Mapping[str, float] = field(default_factory=dict[str, float])
    bytes: Mapping[Head, int] = field(default_factory=dict[Head, int])


class ModelRun(NamedTuple):
    """A vector model's runs on a group.

    Attributes:
        runs: (collection, mode, run); made one after the other, since all of them would be large.
        cost: Seconds and bytes.
    """

    runs: Iterator[tuple[Collection, str, Run]]
    cost: Cost


class _Timed:
    """A vector model with a watch on it."""

    def __init__(self, model: VectorModel, cost: Cost) -> None:
        self._model, self._cost = model, cost

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        began = time.perf_counter()
        encoded = self._model.encode_queries(texts)
        self._cost.encode_queries = time.perf_counter() - began
        return encoded

    def encode_documents(self, texts: Iterable[str], block: int) -> Iterator[Encoded]:
        began = time.perf_counter()
        for part in self._model.encode_documents(texts, block):
            self._cost.encode_documents += time.perf_counter() - began
            self._cost.encoded += len(part)
            yield part
            began = time.perf_counter()


def run_model(
    group: Group, model: VectorModel, modes: Mapping[str, HeadWeights], options: Options, tools: Tools
) -> ModelRun:
    """Encodes a group's texts and ranks them in all modes.

    Args:
        group: Collections over one corpus.
        model: What encodes.
        modes: Names and weights.
        options: How.
        tools: With what.
    """
    cost = Cost(queries=len(group.texts), documents=len(group.survey))
    scope = scope_of(group, model, options, cost)
    depth = options.depth
    work = tools.work(f"{model.name}: {group.label}")
    found = _method(options, tools)(scope, modes, depth, work)
    cost.rank, cost.bytes = found.seconds, found.bytes
    fused = {name: parts for name, parts in FUSED.items() if options.rrf and set(parts) <= set(modes)}

    def ranking(mode: str, place: int, excluded: NDArray[np.int64]) -> Ranking:
        if mode in fused:
            parts = [found.rankings.of(part, place, excluded) for part in fused[mode]]
            both = reciprocal_ranks(parts, group.survey.ranks)
            return Ranking(both.rows[:depth], both.totals[:depth])
        return found.rankings.of(mode, place, excluded)

    def runs() -> Iterator[tuple[Collection, str, Run]]:
        for collection in group.collections:
            for mode in (*modes, *fused):
                run = {
                    query: _named(
                        ranking(mode, group.place(collection, query), group.excluded(collection, query)),
                        group.survey.ids,
                    )
                    for query in collection.queries
                }
                yield collection, mode, run

    return ModelRun(runs(), cost)


def scope_of(group: Group, model: VectorModel, options: Options, cost: Cost) -> Scope:
    """The documents (not encoded yet) and the queries (encoded) of a group."""
    timed: Any = _Timed(model, cost)
    queries = encode_queries(timed, group.texts, options.cache)
    vectors = Vectors.of(
        timed, group.corpus, len(group.survey), options.cache, tokens=options.tokens, block=options.block
    )
    return Scope(vectors, group.survey, queries, group.spare)


def run_ranker(
    group: Group, ranker: Ranker, options: Options, tools: Tools
) -> tuple[Iterator[tuple[Collection, Run]], Cost]:
    """Runs of a system with its own scoring, and what they cost."""
    began = time.perf_counter()
    stage = f"{ranker.name}: {group.label}"
    ranked = ranker.rank(
        group.corpus,
        group.texts,
        group.languages,
        options.depth + group.spare,
        lambda _, done, total: tools.progress(stage, done, total),
    )
    if len(ranked) != len(group.texts):
        raise InputError(f"{ranker.name}: gave {len(ranked)} rankings; expected {len(group.texts)}")
    seconds = time.perf_counter() - began
    cost = Cost(queries=len(group.texts), documents=len(group.survey), rank={"": seconds})

    def runs() -> Iterator[tuple[Collection, Run]]:
        for collection in group.collections:
            yield (
                collection,
                {
                    query: without(
                        ranked[group.place(collection, query)],
                        collection.excluded.get(query, frozenset()),
                        options.depth,
                    )
                    for query in collection.queries
                },
            )

    return runs(), cost


def _method(options: Options, tools: Tools) -> Method:
    if options.protocol == "index":
        if tools.index is None:
            raise InputError("evaluate: got the protocol 'index' without an index; expected Tools(index=…)")
        return tools.index
    chosen = paper if options.protocol == "paper" else partial(exact, candidates=options.candidates)
    return lambda scope, modes, depth, work: chosen(scope, modes, depth, work=work)


def _named(ranking: Ranking, ids: Sequence[str]) -> Ranked:
    return Ranked(tuple(ids[int(row)] for row in ranking.rows), ranking.totals)


_AT_ONCE = 128


@dataclass(frozen=True, slots=True)
class ThroughIndex:
    """Builds an index of a corpus and searches it in all modes; a protocol as `triptych.eval.running` wants it.

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
            store, sizes = self._built(Path(folder) / "index", scope, work)
            try:
                for name, weights in modes.items():
                    began = time.perf_counter()
                    plan = make_plan(
                        store.engine,
                        k,
                        weights,
                        _routes(weights, store.engine.routes),
                        None,
                        candidates=max(self.candidates, k),
                        protocol="exact",
                    )
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

    def _built(self, place: Path, scope: Scope, work: Work) -> tuple[Store, dict[Head, int]]:
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
                    with store.changing() as engine:
                        engine.add(part, [Payload(id=name, text="", metadata={}) for name in names])
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
        rows, width = part.values.shape
        each = {
            "float32": 4 * width,
            "float16": 2 * width,
            "int8": width + 4,
            "binary": (width + 7) // 8,
            "none": 0,
        }
        return rows * each[layout.multi]
    if head == "dense":
        return part.size * (2 if layout.dense == "float16" else 4)  # type: ignore[attr-defined]
    return 8 * int(part.nnz)  # type: ignore[attr-defined]
