"""`triptych eval` and `triptych compare`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from triptych.cli.command import command
from triptych.cli.options import default_model
from triptych.cli.terminal import emit, progress, say
from triptych.errors import InputError

if TYPE_CHECKING:
    from triptych.cli.options import Loading
    from triptych.collections.base import Collection
    from triptych.eval.compare import Choice
    from triptych.eval.running import EvalOptions
    from triptych.eval.systems import System
    from triptych.types import HeadWeights


@command(
    {
        "datasets": "DATASET",
        "model": "-m",
        "baseline": "-b",
        "weights": "-w MODE=D,L,M",
        "tune": "DATASET",
        "save_weights": "INDEX",
        "candidates": "--multi-candidates",
        "rrf": None,
        "run": "[NAME=]FILE",
        "runs": "FOLDER",
        "cache": "FOLDER",
        "options.tokens": "--cache-tokens",
    },
    basic="model baseline modes weights tune split protocol metrics json html cache",
)
def evaluate(
    datasets: list[str],
    *,
    model: list[str] | None = None,
    baseline: list[str] | None = None,
    run: list[str] | None = None,
    modes: tuple[str, ...] | None = None,
    weights: list[str] | None = None,
    tune: list[str] | None = None,
    save_weights: str | None = None,
    split: str | None = None,
    keep_identical_ids: bool = False,
    tune_split: str = "dev",
    options: EvalOptions,
    engine: Literal["edge", "exact"] = "edge",
    json: Path | None = None,
    runs: Path | None = None,
    html: Path | None = None,
    query_length: int | None = None,
    document_length: int | None = None,
    loading: Loading,
) -> None:
    """Evaluate models and baselines on retrieval data sets, in every mode, from one encoding pass.

    Shows a table for each data set: modes by language, the best in bold; * marks a significant difference from the
    reference (p < 0.05, paired over clusters of queries that share a question or passage, Holm's correction).

    Example: triptych eval my-set/ --model small --baseline bm25 --cache vectors/ --json out.json --html out.html

    Args:
        datasets: A BEIR folder, or NAME:PATH[:SUBSET] for data sets in their published layout.
        model: A model: 'small' (bundled), a checkpoint folder, or a Hub name; repeatable, and 'none' for baselines
            alone. By default $TRIPTYCH_MODEL or 'small'.
        baseline: What to compare with; repeatable. See docs/evaluation-data.md.
        run: A run of another system (TREC format) to compare; repeatable.
        modes: Some of dense,lexical,multi,dense+lexical,all; by default all that the heads allow.
        weights: Weights of a sum, such as all=1,0.3,1 (the paper's); repeatable.
        tune: Choose weights on this development set, too, and report them beside the fixed ones; repeatable.
        save_weights: Keep the weights that --tune chose in this index of the same model; its searches use them then.
        split: Split to evaluate; by default each data set's usual one.
        keep_identical_ids: Rank documents whose id is the query's; by default BEIR folders leave them out, as BEIR
            does.
        tune_split: Split of the sets of --tune.
        engine: Of the protocol 'index'.
        json: Write the results to this file.
        runs: Write runs (TREC) and each query's metrics here.
        html: Write a report with plots to this file.
        query_length: Maximum tokens per query; by default what the model reads.
        document_length: Maximum tokens per document; the same default.
    """
    from triptych.cli.tables import show
    from triptych.eval.baselines import open_baseline
    from triptych.eval.evaluate import evaluate_systems
    from triptych.eval.report import write_report
    from triptych.eval.results import RunFolder
    from triptych.eval.running import Tools
    from triptych.eval.scan import scoring_on
    from triptych.eval.systems import RunFile
    from triptych.eval.tables import tables_of
    from triptych.eval.through_index import ThroughIndex

    for path in (json, html):
        if path is not None and not path.resolve().parent.is_dir():
            raise InputError(f"{path}: no such folder; expected one that exists")
    collections = _collections(datasets, split, keep_identical_ids)
    development = _collections(tune or [], tune_split, keep_identical_ids)
    folder = RunFolder(runs) if runs is not None else None
    if folder is not None:
        folder.accept(collections)
    chosen = options.checked()
    lengths = {"query_length": query_length, "document_length": document_length}
    systems = _models(model or [default_model()], modes, _weights(weights or []), loading, lengths)
    tuned = None if save_weights is None else _mode_to_save(save_weights, systems, bool(tune))
    trust = {"trust_remote_code": loading.trust_remote_code}
    systems += [open_baseline(name, loading.device, **trust) for name in baseline or []]
    systems += [RunFile.read(source) for source in run or []]
    with progress() as draw:
        result = evaluate_systems(
            collections,
            systems,
            chosen,
            Tools(scoring_on(loading.device, loading.dtype), ThroughIndex(engine), draw),
            development=development,
            keep=folder.keep if folder else None,
        )
    if save_weights is not None:
        (kept,) = [one.weights for one in result.tuned if one.system == tuned]
        _keep_weights(save_weights, kept)
    if json is not None:
        result.write(json)
    if html is not None:
        write_report(result, html)
    for note in (note for subset in result.subsets for note in subset.notes):
        say(note)
    for table in tables_of(result):
        show(table)


def _mode_to_save(place: str, systems: Sequence[System], tuned: bool) -> str:
    """The tuned mode whose weights an index can use; said before hours of evaluation.

    Raises:
        InputError: If there will be no such weights.
        IndexForeign: If the index has vectors of another model.
    """
    from triptych.eval.systems import TUNED, EncoderSystem
    from triptych.eval.tuning import TUNABLE
    from triptych.index.index import Index
    from triptych.types import HEADS

    models = [system for system in systems if isinstance(system, EncoderSystem)]
    if len(models) != 1 or not tuned:
        raise InputError(
            f"--save-weights: got {len(models)} models and {'some' if tuned else 'no'} --tune; expected one model, and "
            "a data set to tune its weights on"
        )
    with Index.open(place, models[0].encoder) as index:
        mode = "all" if index.heads == HEADS else "+".join(index.heads)
    if mode not in models[0].modes or mode not in TUNABLE:
        raise InputError(
            f"--save-weights: got {place}, which holds {mode}; expected one of dense, lexical and perhaps multi, and "
            f"that mode among --modes ({', '.join(models[0].modes)})"
        )
    return f"{models[0].name}/{mode}{TUNED}"


def _keep_weights(place: str, weights: tuple[float, float, float]) -> None:
    from triptych.index.index import Index

    with Index.open(place) as index:
        index.set_weights(weights)
    say(f"{place}: searches use the weights {','.join(f'{weight:g}' for weight in weights)} now")


def _collections(
    datasets: Sequence[str], split: str | None, keep_identical_ids: bool = False
) -> list[Collection]:
    from triptych.collections.base import Wanted
    from triptych.collections.catalogue import read_collections

    found: list[Collection] = []
    for dataset in datasets:
        found += read_collections(dataset, Wanted((), split, say, False if keep_identical_ids else None))
    return found


def _weights(values: Sequence[str]) -> dict[str, HeadWeights]:
    from triptych.types import HeadWeights

    found: dict[str, HeadWeights] = {}
    for pair in values:
        mode, equals, value = pair.partition("=")
        if not equals:
            raise InputError(f"--weights: got {pair!r}; expected MODE=D,L,M, such as all=1,0.3,1")
        found[mode] = HeadWeights.parse(value)
    return found


def _models(
    names: Sequence[str],
    modes: tuple[str, ...] | None,
    weights: dict[str, HeadWeights],
    loading: Loading,
    lengths: dict[str, Any],
) -> list[System]:
    from triptych.eval.systems import EncoderSystem

    found: list[System] = []
    for name in () if list(names) == ["none"] else names:
        encoder = loading.load(name)
        found.append(EncoderSystem.of(encoder, modes=modes, weights=weights, **lengths))
    return found


@command(
    {
        "results": "RESULT",
        "run": "[NAME=]FILE",
        "data": "DATASET",
        "systems": "PATTERN...",
        "figures": "--published/--no-published",
    }
)
def compare(
    results: list[Path] | None = None,
    *,
    run: list[str] | None = None,
    data: list[str] | None = None,
    split: str | None = None,
    choice: Choice,
    as_json: bool = False,
) -> None:
    """Put results side by side, with the published figures of BGE-M3 and its peers where the data set is the same.

    The best of our systems is bold; * marks a significant difference from the reference (p < 0.05, paired over clusters
    of queries that share a question or passage, Holm's correction), where results have the same queries and corpus.

    Example: triptych compare before.json after.json --systems '*/all'

    Args:
        results: Files that `triptych eval --json` wrote.
        run: A run of another system (TREC format) on the data sets of --data; repeatable.
        data: Data set of --run; repeatable.
        split: Split of --data; by default the usual one.
    """
    from triptych.cli.tables import show
    from triptych.eval.compare import compare as run_comparison
    from triptych.eval.evaluate import evaluate_systems
    from triptych.eval.results import Evaluation
    from triptych.eval.running import EvalOptions
    from triptych.eval.systems import RunFile
    from triptych.eval.tables import comparison_table

    paths = results or []
    if len(set(paths)) < len(paths):
        raise InputError(f"compare: got {', '.join(map(str, paths))}; expected each file once")
    if bool(run) != bool(data) or not (paths or run):
        raise InputError("compare: expected RESULT files, or --run FILE with --data DATASET, or both")
    labels = [path.stem for path in paths]
    names = labels if len(set(labels)) == len(labels) else [str(path) for path in paths]
    read = {name: Evaluation.read(path) for name, path in zip(names, paths, strict=True)}
    if run:
        systems = [RunFile.read(source) for source in run]
        metrics = None if choice.metric is None else (choice.metric,)
        read["runs"] = evaluate_systems(
            _collections(data or [], split), systems, EvalOptions(metrics=metrics, depth=1000)
        )
    for comparison in run_comparison(read, choice):
        if as_json:
            emit(asdict(comparison))
        else:
            show(comparison_table(comparison))
