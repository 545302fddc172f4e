"""The whole evaluation: data and systems in, results out."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.collections.base import Collection, Run, Wanted
from triptych.collections.catalogue import read_collections
from triptych.errors import DataError, InputError
from triptych.eval.groups import CorpusGroup, grouped
from triptych.eval.metrics import answer_recall, check_metrics, depth_of, is_answer_recall, measure, passages
from triptych.eval.results import (
    SCHEMA,
    Evaluation,
    ModeFacts,
    Subset,
    SystemFacts,
    Tuned,
    averages,
    versions,
)
from triptych.eval.running import Cost, EvalOptions, Tools, is_vector_model, run_system
from triptych.eval.scan import scoring_on
from triptych.eval.significance import clusters_of, differences
from triptych.eval.systems import EncoderSystem, RunFile, System
from triptych.types import HeadWeights, Progress

if TYPE_CHECKING:
    from triptych.encode.encoder import Encoder

Values: TypeAlias = dict[str, NDArray[np.float64]]
"""Metric to the value of each query, in the order of the collection's queries."""

Keep: TypeAlias = Callable[[Collection, str, Run, Values], None]
"""Called with (collection, system, run, its metrics) for every run, so that they can be written to files."""

PLAIN = EvalOptions()
TOOLS = Tools()


def evaluate(
    model: str | Path | Encoder | None,
    data: str | Path | Collection | Sequence[str | Path | Collection],
    *,
    modes: Sequence[str] | None = None,
    weights: Mapping[str, Any] | None = None,
    baselines: Sequence[str] = (),
    runs: Sequence[str | Path] = (),
    split: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Evaluation:
    """Evaluates a model on retrieval data sets, in every mode.

    Args:
        model: An encoder, or what `Encoder.from_pretrained` takes; None: baselines and runs alone.
        data: One or several of ``[NAME:]PATH[:SUBSET,…]`` and ``mteb:TASK`` (docs/evaluation-data.md), or collections.
        modes: Some of dense, lexical, multi, dense+lexical, all; None: all that the model's heads allow.
        weights: Weights of a mode other than the defaults: ``{"all": (0.15, 0.5, 0.35)}``.
        baselines: Such as ``bm25``.
        runs: ``[NAME=]FILE``: runs of other systems in TREC's format.
        split: None: the usual one of each data set.
        progress: See `triptych.types.Progress`.
        **options: Of `triptych.eval.running.EvalOptions`, such as ``protocol="paper"``, ``metrics=("nDCG@10",)``,
            ``candidates=200``, ``cache=Path("vectors")``.

    Returns:
        Metrics of every system and query, tests of significance; ``str()`` of it shows the tables.

    Raises:
        DataError: For data that cannot be read or evaluated.
        InputError: For a wrong argument.
        ModelError: For a model that cannot be loaded.

    Example:
        >>> import triptych
        >>> result = triptych.evaluate("small", "beir:my-set")  # doctest: +SKIP
        >>> result.averages["my-set"]["small/all"]["nDCG@10"]  # doctest: +SKIP
        0.71
    """
    given = [data] if isinstance(data, str | Path | Collection) else list(data)
    collections: list[Collection] = []
    for one in given:
        collections += [one] if isinstance(one, Collection) else read_collections(one, Wanted((), split))
    unknown = [name for name in options if name not in EvalOptions.__dataclass_fields__]
    if unknown:
        known = ", ".join(EvalOptions.__dataclass_fields__)
        raise InputError(f"evaluate: got the option {unknown[0]!r}; expected some of {known}")
    systems: list[System] = []
    scoring = TOOLS.scoring
    if model is not None:
        from triptych.encode.encoder import Encoder

        encoder = model if isinstance(model, Encoder) else Encoder.from_pretrained(model)
        triples = {mode: HeadWeights.of(value) for mode, value in (weights or {}).items()}
        systems.append(EncoderSystem.of(encoder, modes=modes, weights=triples))
        described = encoder.describe()
        scoring = scoring_on(described["device"], described["dtype"])
    if baselines:
        from triptych.eval.baselines import open_baseline

        systems += [open_baseline(name) for name in baselines]
    systems += [RunFile.read(source) for source in runs]
    tools = Tools(scoring, progress=progress or TOOLS.progress)
    return evaluate_systems(collections, systems, EvalOptions(**options), tools)


@dataclass(slots=True)
class _Ledger:
    """What is known so far.

    Attributes:
        contenders: By system.
        systems: By system and mode.
        costs: By system, one for each corpus.
        values: (label of the collection, system and mode) to metric to the values of its queries.
        notes: By label of the collection.
        tuned: Weights chosen on development sets.
    """

    contenders: dict[str, SystemFacts] = field(default_factory=dict[str, SystemFacts])
    systems: dict[str, ModeFacts] = field(default_factory=dict[str, ModeFacts])
    costs: dict[str, list[Cost]] = field(default_factory=dict[str, list[Cost]])
    values: dict[tuple[str, str], Values] = field(default_factory=dict[tuple[str, str], Values])
    notes: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    tuned: list[Tuned] = field(default_factory=list[Tuned])


def evaluate_systems(
    collections: Sequence[Collection],
    systems: Sequence[System],
    options: EvalOptions = PLAIN,
    tools: Tools = TOOLS,
    *,
    development: Sequence[Collection] = (),
    keep: Keep | None = None,
) -> Evaluation:
    """Evaluates systems on collections.

    Collections with the same corpus are evaluated together: its documents are encoded once, and a query text that
    several of them have is compared once.

    Args:
        collections: What is reported.
        systems: Names must differ.
        options: How.
        tools: With what: scoring, index, progress.
        development: Collections for choosing weights; none of their queries may be in `collections`.
        keep: Called with every run.

    Raises:
        DataError: For collections that cannot be evaluated, see `triptych.eval.groups`.
        InputError: For options or systems that do not go together.
    """
    began = time.perf_counter()
    metrics = {metric for one in collections for metric in _metrics(one, options)}
    options = replace(options.checked(), depth=max(options.depth, depth_of(sorted(metrics))))
    _check_systems(systems, options)
    shared = 0
    if development:
        from triptych.eval.tuning import drop_reported

        development, shared = drop_reported(development, collections)
    groups = grouped(collections, tools.progress)
    ledger = _Ledger()
    with ExitStack() as stack:
        working = options
        if options.cache is None and (options.candidates or development or options.protocol == "paper"):
            # Documents are gone through more than once.
            temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="triptych-eval-"))
            working = replace(options, cache=Path(temporary))
        prepared = grouped(development) if development else []
        modes: dict[str, dict[str, HeadWeights]] = {}
        for system in systems:
            if is_vector_model(system):
                modes[system.name] = dict(system.modes)
                if development:
                    from triptych.eval.tuning import tuned_modes

                    tuned, report = tuned_modes(prepared, system, working, tools, shared)
                    modes[system.name] |= tuned
                    ledger.tuned += report
        for group in groups:
            judge = _Judge(group, working, ledger, keep)
            for system in systems:
                _run(group, system, modes.get(system.name, {}), working, tools, ledger, judge)
            judge.finish()
    _check_runs(systems, ledger)
    _charge(ledger)
    pairs = [(group, number) for group in groups for number in range(len(group.collections))]
    clusters = clusters_of([group.collections[number] for group, number in pairs])
    subsets = [
        _subset(group, number, own, options, ledger)
        for (group, number), own in zip(pairs, clusters, strict=True)
    ]
    place = {(one.name, one.subset, one.split): number for number, one in enumerate(collections)}
    subsets.sort(key=lambda one: place[one.dataset, one.subset, one.split])
    reference = options.reference or _reference(systems)
    settings: dict[str, Any] = asdict(options) | {"reference": reference}
    del settings["cache"]
    return Evaluation(
        SCHEMA,
        datetime.now(UTC).isoformat(timespec="seconds"),
        versions(),
        settings,
        ledger.contenders,
        ledger.systems,
        subsets,
        averages(subsets),
        differences(subsets, reference, options.test) if len(ledger.systems) > 1 else [],
        ledger.tuned,
        time.perf_counter() - began,
    )


class _Judge:
    """Measures runs as they come; those that need the passages' texts wait for one reading of the corpus."""

    def __init__(self, group: CorpusGroup, options: EvalOptions, ledger: _Ledger, keep: Keep | None) -> None:
        self._group, self._options, self._ledger, self._keep = group, options, ledger, keep
        self._waiting: list[tuple[Collection, str, Run]] = []

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


def _run(
    group: CorpusGroup,
    system: System,
    modes: Mapping[str, HeadWeights],
    options: EvalOptions,
    tools: Tools,
    ledger: _Ledger,
    judge: _Judge,
) -> None:
    def note(collection: Collection, text: str) -> None:
        ledger.notes.setdefault(collection.label, []).append(f"{collection.label}: {text}")

    ledger.contenders[system.name] = SystemFacts(system.fingerprint, dict(system.facts))
    runs, cost = run_system(group, system, modes, options, tools, note)
    ledger.costs.setdefault(system.name, []).extend([] if cost is None else [cost])
    for collection, mode, run in runs:
        name = f"{system.name}/{mode}" if mode else system.name
        weights = modes.get(mode)
        triple = None if weights is None else (float(weights[0]), float(weights[1]), float(weights[2]))
        ledger.systems[name] = ModeFacts(system.name, mode, triple)
        judge.take(collection, name, run)


def _check_runs(systems: Sequence[System], ledger: _Ledger) -> None:
    for system in systems:
        if isinstance(system, RunFile) and not any(name == system.name for _, name in ledger.values):
            raise DataError(
                "has none of the evaluated queries; expected a run whose query ids are those of the data set",
                system.path,
            )


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
            seconds_per_query=sum(rank) / queries if rank and len(rank) == len(costs) else None,
            bytes_per_document=size / documents if size else None,
        )


def _subset(
    group: CorpusGroup, number: int, clusters: list[str], options: EvalOptions, ledger: _Ledger
) -> Subset:
    collection, notes = group.collections[number], group.notes[number]
    names = _metrics(collection, options)
    primary = names[0]
    values = {
        system: ledger.values[collection.label, system]
        for system in ledger.systems
        if (collection.label, system) in ledger.values
    }
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
        notes + ledger.notes.get(collection.label, []),
        clusters,
    )


def _longest(group: CorpusGroup, documents: Sequence[str]) -> int:
    rows = [group.survey.row_of[name] for name in documents if name in group.survey.row_of]
    return int(group.survey.characters[rows].max()) if rows else -1


def _metrics(collection: Collection, options: EvalOptions) -> tuple[str, ...]:
    return check_metrics(options.metrics or collection.metrics, f"{collection.label}: metrics")


def _check_systems(systems: Sequence[System], options: EvalOptions) -> None:
    names = [system.name for system in systems]
    if not names or len(set(names)) < len(names):
        raise InputError(f"evaluate: got the systems {names}; expected one or more, of different names")
    for system in systems:
        if (
            options.protocol == "paper"
            and is_vector_model(system)
            and not any(weights.dense for weights in system.modes.values())
        ):
            raise InputError(
                f"evaluate: got the protocol 'paper' with {system.name}, which has no dense vectors; expected them, "
                "since dense retrieval makes the list that is re-ranked"
            )


def _reference(systems: Sequence[System]) -> str:
    first = systems[0]
    return f"{first.name}/{list(first.modes)[-1]}" if is_vector_model(first) else first.name
