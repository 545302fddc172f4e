"""`triptych compare`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from triptych.cli import options as o
from triptych.cli.eval import Test
from triptych.errors import InputError


def compare(
    results: Annotated[
        list[Path] | None,
        typer.Argument(metavar="RESULT", help="Files that `triptych eval --json` wrote."),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="[NAME=]FILE",
            help="A run of another system (TREC format) on the data sets of --data; repeatable.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="DATASET", help="Data set of --run; repeatable."),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Split of --data; by default the usual one.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="Such as R@100; by default the first of each data set.")
    ] = None,
    systems: Annotated[
        list[str] | None,
        typer.Option(
            "--systems", metavar="PATTERN", help="Only these, such as '*/all' or 'bm25*'; repeatable."
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", help="Column with which the others are compared; by default the first file's."
        ),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published/--no-published", help="Show figures of the M3 paper beside ours.")
    ] = True,
    test: Annotated[
        Test, typer.Option("--test", help="Paired test over independent clusters of queries.")
    ] = Test.t,
    as_json: o.JsonOption = False,
) -> None:
    """Put results side by side, with the published figures of BGE-M3 and its peers where the data set is the same.

    The best of our systems is bold; * marks a significant difference from the reference (p < 0.05, paired over clusters
    of queries that share a question or passage, Holm's correction), where results have the same queries and corpus.

    Example: triptych compare before.json after.json --systems '*/all'
    """
    from triptych.cli.eval import read_sets
    from triptych.cli.eval_tables import show
    from triptych.cli.show import emit
    from triptych.eval.compare import Choice
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
        metrics = None if metric is None else (metric,)
        read["runs"] = evaluate_systems(
            read_sets(data or [], split),
            [RunFile.read(source) for source in run],
            EvalOptions(metrics=metrics, depth=1000),
        )
    choice = Choice(metric, tuple(systems or ()), reference, published, test.value)
    for comparison in run_comparison(read, choice):
        if as_json:
            emit(asdict(comparison))
        else:
            show(comparison_table(comparison))
