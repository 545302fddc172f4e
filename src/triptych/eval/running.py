"""From a system and a group of collections to runs, one for each collection and mode."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from typing_extensions import TypeIs

from triptych.collections.base import Collection, Ranked, Run
from triptych.errors import DataError, InputError
from triptych.eval.groups import CorpusGroup
from triptych.eval.protocols import Found, Scope, exact, paper, reciprocal_ranks
from triptych.eval.scan import BLOCK, TokenType, Vectors, Work, encode_queries, numpy_scoring
from triptych.eval.systems import FUSED, Ranker, RunFile, Scoring, System, VectorModel, without
from triptych.types import Encoded, Head, HeadWeights, Progress

Method: TypeAlias = Callable[[Scope, Mapping[str, HeadWeights], int, Work], Found]
"""A protocol: from (what is compared, modes, depth, how) to rankings."""


@dataclass(frozen=True, slots=True)
class EvalOptions:
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

    def checked(self) -> EvalOptions:
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
        index: The protocol "index"; None: `triptych.eval.through_index.ThroughIndex` as it is by default.
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


Runs: TypeAlias = Iterator[tuple[Collection, str, Run]]
"""(collection, mode, run); made one after the other, since all of them would be large."""


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


def run_system(
    group: CorpusGroup,
    system: System,
    modes: Mapping[str, HeadWeights],
    options: EvalOptions,
    tools: Tools,
    note: Callable[[Collection, str], None] = lambda collection, text: None,
) -> tuple[Runs, Cost | None]:
    """The runs of a system on all collections of a group, and their cost; None for a run file.

    Args:
        group: Collections over one corpus.
        system: The system.
        modes: Names and weights of a model's modes.
        options: How.
        tools: With what.
        note: Called with what a reader of the result should know.
    """
    if isinstance(system, RunFile):
        return _split_run(group, system, options, note), None
    if is_vector_model(system):
        return _model_runs(group, system, modes, options, tools)
    return _ranker_runs(group, system, options, tools)


def is_vector_model(system: System) -> TypeIs[VectorModel]:
    """Whether the system encodes; otherwise it ranks by itself."""
    return hasattr(system, "encode_documents")


def _model_runs(
    group: CorpusGroup,
    model: VectorModel,
    modes: Mapping[str, HeadWeights],
    options: EvalOptions,
    tools: Tools,
) -> tuple[Runs, Cost]:
    """Encodes a group's texts and ranks them in all modes."""
    cost = Cost(queries=len(group.texts), documents=len(group.survey))
    scope = scope_of(group, model, options, cost)
    depth, ids = options.depth, group.survey.ids
    work = tools.work(f"{model.name}: {group.label}")
    found = _method(options, tools)(scope, modes, depth, work)
    cost.rank, cost.bytes = found.seconds, found.bytes
    fused = {name: parts for name, parts in FUSED.items() if options.rrf and set(parts) <= set(modes)}

    def ranked(mode: str, collection: Collection, query: str) -> Ranked:
        place, excluded = group.place(collection, query), group.excluded(collection, query)
        lists = [found.rankings.of(part, place, excluded) for part in fused.get(mode, (mode,))]
        ranking = lists[0] if mode in modes else reciprocal_ranks(lists, group.survey.ranks)
        return Ranked(tuple(ids[int(row)] for row in ranking.rows[:depth]), ranking.totals[:depth])

    return (
        (collection, mode, {query: ranked(mode, collection, query) for query in collection.queries})
        for collection in group.collections
        for mode in (*modes, *fused)
    ), cost


def _ranker_runs(group: CorpusGroup, ranker: Ranker, options: EvalOptions, tools: Tools) -> tuple[Runs, Cost]:
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
        raise InputError(f"{ranker.name}: returned {len(ranked)} rankings; expected {len(group.texts)}")
    seconds = time.perf_counter() - began
    cost = Cost(queries=len(group.texts), documents=len(group.survey), rank={"": seconds})
    return (
        (
            collection,
            "",
            {
                query: without(ranked[group.place(collection, query)], collection, query, options.depth)
                for query in collection.queries
            },
        )
        for collection in group.collections
    ), cost


def _split_run(
    group: CorpusGroup, system: RunFile, options: EvalOptions, note: Callable[[Collection, str], None]
) -> Runs:
    """The part of a run file that is of each collection, if it has any of its queries."""
    for collection in group.collections:
        run = {
            query: without(system.run[query], collection, query, options.depth)
            for query in collection.queries
            if query in system.run
        }
        documents = {name for query in run for name in system.run[query].documents}
        strangers = [name for name in documents if name not in group.survey.row_of]
        if documents and len(strangers) == len(documents):
            raise DataError(
                f"none of the {len(documents)} documents that it lists for {collection.label} is in the corpus, for "
                f"example {min(strangers)!r}; expected a run on this corpus (which has {group.survey.ids[0]!r})",
                system.path,
            )
        many = len(collection.queries)
        if run and len(run) < many:
            note(
                collection,
                f"{system.name} ranks nothing for {many - len(run)} of {many} queries, which count 0",
            )
        if strangers:
            note(
                collection,
                f"{len(strangers)} of {len(documents)} documents of {system.name} are not in the corpus",
            )
        if run:
            yield collection, "", run


def scope_of(group: CorpusGroup, model: VectorModel, options: EvalOptions, cost: Cost) -> Scope:
    """The documents (not encoded yet) and the queries (encoded) of a group."""
    timed: Any = _Timed(model, cost)
    queries = encode_queries(timed, group.texts, options.cache)
    vectors = Vectors.of(
        timed, group.corpus, len(group.survey), options.cache, tokens=options.tokens, block=options.block
    )
    return Scope(vectors, group.survey, queries, group.spare)


def _method(options: EvalOptions, tools: Tools) -> Method:
    if options.protocol == "index":
        from triptych.eval.through_index import ThroughIndex

        return tools.index or ThroughIndex()
    chosen = paper if options.protocol == "paper" else partial(exact, candidates=options.candidates)
    return lambda scope, modes, depth, work: chosen(scope, modes, depth, work=work)
