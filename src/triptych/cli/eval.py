"""`triptych eval`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli import options as o
from triptych.errors import InputError

if TYPE_CHECKING:
    from triptych.collections.base import Collection
    from triptych.eval.results import Evaluation
    from triptych.eval.systems import System
    from triptych.types import HeadWeights, Progress


class Protocol(StrEnum):
    """How rankings are made."""

    exact = "exact"
    paper = "paper"
    through_index = "index"


class Test(StrEnum):
    """Of significance."""

    t = "t"
    randomisation = "randomisation"


class TokenType(StrEnum):
    """Of token vectors in the cache."""

    float32 = "float32"
    float16 = "float16"


class Engine(StrEnum):
    """Of the index."""

    edge = "edge"
    exact = "exact"


def evaluate(
    datasets: Annotated[
        list[str],
        typer.Argument(
            metavar="DATASET",
            help="A BEIR folder, or NAME:PATH[:SUBSET] for data sets in their published layout.",
        ),
    ],
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help="A model: 'small' (bundled), a checkpoint folder, or a Hub name; repeatable, and 'none' for "
            "baselines alone. By default $TRIPTYCH_MODEL or 'small'.",
        ),
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            "--baseline", "-b", help="What to compare with; repeatable. See docs/evaluation-data.md."
        ),
    ] = None,
    run: Annotated[
        list[str] | None,
        typer.Option(
            "--run",
            metavar="[NAME=]FILE",
            help="A run of another system (TREC format) to compare; repeatable.",
        ),
    ] = None,
    modes: Annotated[
        str | None,
        typer.Option(
            "--modes",
            help="Some of dense,lexical,multi,dense+lexical,all; by default all that the heads allow.",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            "-w",
            metavar="MODE=D,L,M",
            help="Weights of a sum, such as all=0.15,0.5,0.35 (by default 1,0.3,1); repeatable.",
        ),
    ] = None,
    tune: Annotated[
        list[str] | None,
        typer.Option(
            "--tune",
            metavar="DATASET",
            help="Choose weights on this development set, too, and report them beside the fixed ones; repeatable.",
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option("--split", help="Split to evaluate; by default each data set's usual one.")
    ] = None,
    keep_identical_ids: Annotated[
        bool,
        typer.Option(
            "--keep-identical-ids",
            help="Rank documents whose id is the query's; by default BEIR folders leave them out, as BEIR does.",
        ),
    ] = False,
    tune_split: Annotated[str, typer.Option("--tune-split", help="Split of the sets of --tune.")] = "dev",
    protocol: Annotated[
        Protocol,
        typer.Option(
            "--protocol",
            help="exact: compare with the whole corpus; paper: unite lists of 1000, re-rank dense's 200; index: "
            "search through an index.",
        ),
    ] = Protocol.exact,
    multi_candidates: Annotated[
        int | None,
        typer.Option(
            "--multi-candidates",
            metavar="N",
            help="Let modes with token vectors rank only the best N documents of each first stage, not all: for "
            "processors. By default all.",
        ),
    ] = None,
    engine: Annotated[Engine, typer.Option("--engine", help="Of the protocol 'index'.")] = Engine.edge,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics", help="Names of ir-measures such as nDCG@10,R@100; by default the data set's."
        ),
    ] = None,
    depth: Annotated[int, typer.Option("--depth", help="Documents per query in a run.")] = 100,
    test: Annotated[
        Test, typer.Option("--test", help="Paired test over independent clusters of queries.")
    ] = Test.t,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            help="SYSTEM/MODE that others are tested against; by default the model's last mode.",
        ),
    ] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the results to this file.")] = None,
    runs: Annotated[
        Path | None,
        typer.Option("--runs", metavar="FOLDER", help="Write runs (TREC) and each query's metrics here."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write a report with plots to this file.")
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="FOLDER",
            help="Keep encoded texts here; a later run, or one that was interrupted, reads them.",
        ),
    ] = None,
    cache_tokens: Annotated[
        TokenType,
        typer.Option(
            "--cache-tokens", help="Type of token vectors in the cache: float16 takes half the room."
        ),
    ] = TokenType.float32,
    query_length: Annotated[
        int | None,
        typer.Option("--query-length", help="Maximum tokens of a query; by default the model's."),
    ] = None,
    document_length: Annotated[
        int | None, typer.Option("--document-length", help="Maximum tokens of a document; the same default.")
    ] = None,
    block: Annotated[int, typer.Option("--block", help="Documents encoded and compared at once.")] = 1024,
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = o.Dtype.auto,
) -> None:
    """Evaluate models and baselines on retrieval data sets, in every mode, from one encoding pass.

    Shows a table for each data set: modes by language, the best in bold; * marks a significant difference from the
    reference (p < 0.05, paired over clusters of queries that share a question or passage, Holm's correction).

    Example: triptych eval my-set/ --model small --baseline bm25 --cache vectors/ --json out.json --html out.html
    """
    from triptych.eval.baselines import open_baseline
    from triptych.eval.evaluate import evaluate_systems
    from triptych.eval.results import RunFolder
    from triptych.eval.running import EvalOptions, Tools
    from triptych.eval.scan import scoring_on
    from triptych.eval.systems import RunFile
    from triptych.eval.through_index import ThroughIndex

    for path in (json, html):
        if path is not None and not path.resolve().parent.is_dir():
            raise InputError(f"{path}: no such folder; expected one that exists")
    collections = read_sets(datasets, split, keep_identical_ids)
    development = read_sets(tune or [], tune_split, keep_identical_ids)
    folder = RunFolder(runs) if runs is not None else None
    if folder is not None:
        folder.accept(collections)
    options = EvalOptions(
        protocol.value,
        depth,
        multi_candidates,
        None if metrics is None else tuple(part.strip() for part in metrics.split(",")),
        test=test.value,
        reference=reference,
        cache=cache,
        tokens=cache_tokens.value,
        block=block,
    ).checked()
    systems = _models(
        _model_names(model),
        _modes(modes, weights),
        (device, dtype.value),
        {"query_length": query_length, "document_length": document_length},
    )
    systems += [open_baseline(name, device) for name in baseline or []]
    systems += [RunFile.read(source) for source in run or []]
    with watching() as progress:
        result = evaluate_systems(
            collections,
            systems,
            options,
            Tools(scoring_on(device, dtype.value), ThroughIndex(engine.value), progress),
            development=development,
            keep=folder.keep if folder else None,
        )
    if json is not None:
        result.write(json)
    if html is not None:
        from triptych.eval.report import write_report

        write_report(result, html)
    _show(result)


def read_sets(
    datasets: Sequence[str], split: str | None, keep_identical_ids: bool = False
) -> list[Collection]:
    """The collections of all data sets given."""
    from triptych.cli.failures import say
    from triptych.collections.base import Wanted
    from triptych.collections.catalogue import read_collections

    found: list[Collection] = []
    for dataset in datasets:
        found += read_collections(dataset, Wanted((), split, say, False if keep_identical_ids else None))
    return found


def _model_names(given: Sequence[str] | None) -> list[str]:
    names = list(given) if given else [o.default_model()]
    return [] if names == ["none"] else names


def _modes(
    modes: str | None, weights: Sequence[str] | None
) -> tuple[tuple[str, ...] | None, dict[str, HeadWeights]]:
    chosen = None if modes is None else tuple(part.strip() for part in modes.split(","))
    others: dict[str, HeadWeights] = {}
    for pair in weights or []:
        mode, equals, value = pair.partition("=")
        read = o.parse_weights(value) if equals else None
        if read is None:
            raise InputError(f"--weights: got {pair!r}; expected MODE=D,L,M, such as all=1,0.3,1")
        others[mode] = read
    return chosen, others


def _models(
    names: Sequence[str],
    modes: tuple[tuple[str, ...] | None, dict[str, HeadWeights]],
    place: tuple[str | None, Any],
    lengths: dict[str, Any],
) -> list[System]:
    from triptych.encode.encoder import Encoder
    from triptych.eval.systems import EncoderSystem

    found: list[System] = []
    for name in names:
        encoder = Encoder.from_pretrained(name, device=place[0], dtype=place[1])
        found.append(EncoderSystem.of(encoder, modes=modes[0], weights=modes[1], **lengths))
    return found


@contextmanager
def watching() -> Generator[Progress]:
    """A progress bar for each stage, if standard error is a terminal."""
    from triptych.cli.show import stderr

    console = stderr()
    if not console.is_terminal:
        yield lambda stage, done, total: None
        return
    from rich import progress as bars

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=20),
        bars.MofNCompleteColumn(),
        bars.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with bars.Progress(*columns, console=console, transient=True) as bar:
        tasks: dict[str, bars.TaskID] = {}

        def watch(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)

        yield watch


def _show(result: Evaluation) -> None:
    from triptych.cli.eval_tables import show
    from triptych.cli.failures import say
    from triptych.eval.tables import tables_of

    for note in (note for subset in result.subsets for note in subset.notes):
        say(note)
    for table in tables_of(result):
        show(table)
