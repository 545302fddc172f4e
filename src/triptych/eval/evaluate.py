"""The whole evaluation: collections and contenders in, results out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from typing_extensions import TypeIs

from triptych.collections.base import Collection, Run
from triptych.errors import InputError
from triptych.eval.compare import differences
from triptych.eval.contenders import Contender, VectorModel
from triptych.eval.groups import Group, grouped
from triptych.eval.metrics import answer_recall, check_metrics, depth_of, is_answer_recall, measure, passages
from triptych.eval.results import (
    SCHEMA,
    Compressed,
    Entrant,
    Evaluation,
    Subset,
    System,
    Tuned,
    averages,
    versions,
)
from triptych.eval.running import Cost, Options, Tools, run_model, run_ranker
from triptych.eval.tuning import apart, compressed, tuned_modes
from triptych.types import HeadWeights

Values: TypeAlias = dict[str, NDArray[np.float64]]
"""Metric to the value of each query, in the order of the collection's queries."""

Keep: TypeAlias = Callable[[Collection, str, Run, Values], None]
"""Called with (collection, system, run, its metrics) for every run, so that they can be written to files."""

PLAIN = Options()
TOOLS = Tools()


@dataclass(slots=True)
class _Ledger:
    """What is known so far.

    Attributes:
        contenders: By name.
        systems: By name.
        costs: By contender, one for each corpus.
        values: (number of the collection, system) to metric to the values of its queries.
    """

    contenders: dict[str, Entrant] = field(default_factory=dict[str, Entrant])
    systems: dict[str, System] = field(default_factory=dict[str, System])
    costs: dict[str, list[Cost]] = field(default_factory=dict[str, list[Cost]])
    values: dict[tuple[str, str], Values] = field(default_factory=dict[tuple[str, str], Values])
    tuned: list[Tuned] = field(default_factory=list[Tuned])
    compressed: list[Compressed] = field(default_factory=list[Compressed])


def evaluate(
    collections: Sequence[Collection],
    contenders: Sequence[Contender],
    options: Options = PLAIN,
    tools: Tools = TOOLS,
    *,
    development: Sequence[Collection] = (),
    keep: Keep | None = None,
) -> Evaluation:
    """Evaluates contenders on collections.

    Collections with the same corpus are evaluated together: its documents are encoded once, and a query text that
    several of them have is compared once.

    Args:
        collections: What is reported.
        contenders: Who takes part; names must differ.
        options: How.
        tools: With what: scoring, index, progress.
        development: Collections for choosing weights; None of their queries may be in `collections`.
        keep: Gets every run.

    Raises:
        DataError: For collections that cannot be evaluated, see `triptych.eval.groups`.
        InputError: For options or contenders that do not go together.
    """
    began = time.perf_counter()
    metrics = {metric for one in collections for metric in _metrics(one, options)}
    options = replace(options.checked(), depth=max(options.depth, depth_of(sorted(metrics))))
    _check_contenders(contenders, options)
    development, shared = apart(development, collections)
    groups = grouped(collections, lambda done, total: tools.watch("reading", done, total))
    ledger = _Ledger()
    with ExitStack() as stack:
        if options.cache is None and _needs_passes(options, bool(development)):
            temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="triptych-eval-"))
            working = replace(options, cache=Path(temporary))
        else:
            working = options
        prepared = grouped(development) if development else []
        modes = _modes(contenders, (prepared, shared), working, tools, ledger)
        for group in groups:
            judge = _Judge(group, working, ledger, keep)
            for contender in contenders:
                _run(group, contender, modes, working, tools, judge)
            judge.finish()
    _charge(ledger)
    subsets = [
        _subset(group, collection, notes, options, ledger)
        for group in groups
        for collection, notes in zip(group.collections, group.notes, strict=True)
    ]
    subsets = _in_order(subsets, collections)
    reference = options.reference or _reference(contenders)
    return Evaluation(
        SCHEMA,
        datetime.now(UTC).isoformat(timespec="seconds"),
        versions(),
        _told(options, reference),
        ledger.contenders,
        ledger.systems,
        subsets,
        averages(subsets),
        differences(subsets, reference, options.test) if len(ledger.systems) > 1 else [],
        ledger.tuned,
        ledger.compressed,
        time.perf_counter() - began,
    )


def is_vector_model(contender: Contender) -> TypeIs[VectorModel]:
    """Whether the contender gives vectors; otherwise it ranks by itself."""
    return hasattr(contender, "encode_documents")


class _Judge:
    """Measures runs as they come; those that need the passages' texts wait for one reading of the corpus."""

    def __init__(self, group: Group, options: Options, ledger: _Ledger, keep: Keep | None) -> None:
        self._group, self._options, self._ledger, self._keep = group, options, ledger, keep
        self._waiting: list[tuple[Collection, str, Run]] = []

    @property
    def ledger(self) -> _Ledger:
        return self._ledger

    def take(self, collection: Collection, system: str, run: Run) -> None:
        every = _metrics(collection, self._options)
        names = [name for name in every if is_answer_recall(name) is None]
        found = measure(run, collection.qrels, list(collection.queries), names)
        self._ledger.values[collection.label, system] = found
        if len(names) < len(every):
            self._waiting.append((collection, system, run))
        elif self._keep is not None:
            self._keep(collection, system, run, found)

    def finish(self) -> None:
        if not self._waiting:
            return
        ids = {name for _, _, run in self._waiting for ranked in run.values() for name in ranked.documents}
        texts = passages(self._group.corpus, ids)
        for collection, system, run in self._waiting:
            known = {name: is_answer_recall(name) for name in _metrics(collection, self._options)}
            wanted = {name: k for name, k in known.items() if k is not None}
            queries, cutoffs = list(collection.queries), list(wanted.values())
            found = answer_recall(run, collection.answers or {}, queries, texts, cutoffs)
            values = self._ledger.values[collection.label, system]
            values |= {name: found[k] for name, k in wanted.items()}
            if self._keep is not None:
                self._keep(collection, system, run, values)
        self._waiting = []


def _run(
    group: Group,
    contender: Contender,
    modes: Mapping[str, Mapping[str, HeadWeights]],
    options: Options,
    tools: Tools,
    judge: _Judge,
) -> None:
    ledger = judge.ledger
    ledger.contenders[contender.name] = Entrant(contender.fingerprint, dict(contender.facts))
    if not is_vector_model(contender):
        runs, cost = run_ranker(group, contender, options, tools)
        ledger.costs.setdefault(contender.name, []).append(cost)
        ledger.systems[contender.name] = System(contender.name, "", None)
        for collection, run in runs:
            judge.take(collection, contender.name, run)
        return
    made = run_model(group, contender, modes[contender.name], options, tools)
    ledger.costs.setdefault(contender.name, []).append(made.cost)
    for collection, mode, run in made.runs:
        system = f"{contender.name}/{mode}"
        weights = modes[contender.name].get(mode)
        ledger.systems[system] = System(contender.name, mode, _triple(weights))
        judge.take(collection, system, run)
    if options.compression:
        ledger.compressed += compressed(group, contender, made, tools)


def _triple(weights: HeadWeights | None) -> tuple[float, float, float] | None:
    return None if weights is None else (float(weights.dense), float(weights.lexical), float(weights.multi))


def _modes(
    contenders: Sequence[Contender],
    development: tuple[Sequence[Group], int],
    options: Options,
    tools: Tools,
    ledger: _Ledger,
) -> dict[str, dict[str, HeadWeights]]:
    """The modes of each model, with those whose weights are chosen on the development collections.

    Of these come the groups, and how many queries were left out of them.
    """
    modes: dict[str, dict[str, HeadWeights]] = {}
    for contender in contenders:
        if is_vector_model(contender):
            further, told = tuned_modes(development[0], contender, options, tools, development[1])
            modes[contender.name] = {**contender.modes, **further}
            ledger.tuned += told
    return modes


def _charge(ledger: _Ledger) -> None:
    """Writes into each system what it took, by query and document, over all corpora."""
    for name, entrant in ledger.contenders.items():
        costs = ledger.costs[name]
        asked = sum(cost.queries for cost in costs if cost.encode_queries is not None)
        encoded = sum(cost.encoded for cost in costs)
        ledger.contenders[name] = replace(
            entrant,
            encode_seconds_per_query=sum(c.encode_queries or 0 for c in costs) / asked if asked else None,
            encode_seconds_per_document=sum(c.encode_documents for c in costs) / encoded if encoded else None,
        )
    for name, system in ledger.systems.items():
        costs = ledger.costs[system.contender]
        queries, documents = (sum(getattr(c, what) for c in costs) for what in ("queries", "documents"))
        rank = [cost.rank[system.mode] for cost in costs if system.mode in cost.rank]
        heads = HeadWeights(*system.weights).heads if system.weights else ()
        size = sum(cost.bytes.get(head, 0) for cost in costs for head in heads)
        ledger.systems[name] = replace(
            system,
            seconds_per_query=sum(rank) / queries if len(rank) == len(costs) else None,
            bytes_per_document=size / documents if size else None,
        )


def _subset(
    group: Group, collection: Collection, notes: list[str], options: Options, ledger: _Ledger
) -> Subset:
    primary = _metrics(collection, options)[0]
    values = {
        system: ledger.values[collection.label, system]
        for system in ledger.systems
        if (collection.label, system) in ledger.values
    }
    names = _metrics(collection, options)
    relevant = {
        query: [name for name, value in collection.qrels.get(query, {}).items() if value > 0]
        for query in collection.queries
    }
    return Subset(
        collection.name,
        collection.subset,
        collection.split,
        collection.corpus.digest,
        len(group.survey),
        len(collection.queries),
        sum(map(len, relevant.values())),
        {system: {name: float(found[name].mean()) for name in names} for system, found in values.items()},
        primary,
        list(collection.queries),
        {system: found[primary].tolist() for system, found in values.items()},
        [_longest(group, names) for names in relevant.values()],
        notes,
    )


def _longest(group: Group, documents: Sequence[str]) -> int:
    rows = [group.survey.row_of[name] for name in documents if name in group.survey.row_of]
    return int(group.survey.characters[rows].max()) if rows else -1


def _in_order(subsets: Sequence[Subset], collections: Sequence[Collection]) -> list[Subset]:
    place = {(one.name, one.subset, one.split): number for number, one in enumerate(collections)}
    return sorted(subsets, key=lambda one: place[one.dataset, one.subset, one.split])


def _metrics(collection: Collection, options: Options) -> tuple[str, ...]:
    return check_metrics(options.metrics or collection.metrics, f"{collection.label}: metrics")


def _check_contenders(contenders: Sequence[Contender], options: Options) -> None:
    names = [contender.name for contender in contenders]
    if not names or len(set(names)) < len(names):
        raise InputError(f"evaluate: got the contenders {names}; expected one or more, of different names")
    lacking = [
        contender.name
        for contender in contenders
        if options.protocol == "paper"
        and is_vector_model(contender)
        and not any(weights.dense for weights in contender.modes.values())
    ]
    if lacking:
        raise InputError(
            f"evaluate: got the protocol 'paper' with {lacking[0]}, which has no dense vectors; expected them, since "
            "dense retrieval makes the list that is re-ranked"
        )


def _reference(contenders: Sequence[Contender]) -> str:
    first = contenders[0]
    return f"{first.name}/{list(first.modes)[-1]}" if is_vector_model(first) else first.name


def _needs_passes(options: Options, tuning: bool) -> bool:
    """Whether documents are gone through more than once, so that they have to be kept somewhere."""
    return bool(options.candidates or options.compression or tuning or options.protocol == "paper")


def _told(options: Options, reference: str) -> dict[str, Any]:
    told = asdict(options) | {"reference": reference}
    del told["cache"]
    return told
