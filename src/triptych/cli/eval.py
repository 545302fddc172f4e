"""`triptych eval`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli import options as o
from triptych.errors import InputError

if TYPE_CHECKING:
    from triptych.collections.base import Collection
    from triptych.eval.contenders import Contender
    from triptych.eval.results import Evaluation
    from triptych.eval.running import Tools
    from triptych.types import HeadWeights


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
    depth: Annotated[int, typer.Option("--depth", help="Documents a query in a run.")] = 100,
    test: Annotated[Test, typer.Option("--test", help="Paired test of significance.")] = Test.t,
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference", help="System that others are tested against; by default the model's last mode."
        ),
    ] = None,
    compression: Annotated[
        bool | None,
        typer.Option(
            "--compression/--no-compression",
            help="Also try token vectors of fewer bits, dimensions and tokens; by default if there is --html.",
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
        typer.Option("--query-length", help="Most tokens a query; by default what the model reads."),
    ] = None,
    document_length: Annotated[
        int | None, typer.Option("--document-length", help="Most tokens a document; the same default.")
    ] = None,
    block: Annotated[int, typer.Option("--block", help="Documents encoded and compared at once.")] = 1024,
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = o.Dtype.auto,
) -> None:
    """Evaluate models and baselines on retrieval data sets, in every mode, from one encoding pass.

    Shows a table for each data set: modes by language, the best in bold; * marks a significant difference from the
    reference (p < 0.05, paired, after Holm's correction).

    Example: triptych eval my-set/ --model small --baseline bm25 --cache vectors/ --json out.json --html out.html
    """
    from triptych.eval.baselines import open_baseline
    from triptych.eval.evaluate import evaluate as run
    from triptych.eval.results import RunFolder
    from triptych.eval.running import Options

    for path in (json, html):
        if path is not None and not path.resolve().parent.is_dir():
            raise InputError(f"{path}: no such folder; expected one that exists")
    collections = _collections(datasets, split)
    development = _collections(tune or [], tune_split)
    folder = RunFolder(runs) if runs is not None else None
    if folder is not None:
        folder.accept(collections)
    options = Options(
        protocol.value,
        depth,
        multi_candidates,
        None if metrics is None else tuple(part.strip() for part in metrics.split(",")),
        test=test.value,
        reference=reference,
        compression=html is not None if compression is None else compression,
        cache=cache,
        tokens=cache_tokens.value,
        block=block,
    ).checked()
    contenders = _models(
        _model_names(model),
        _modes(modes, weights),
        (device, dtype.value),
        {"query_length": query_length, "document_length": document_length},
    )
    contenders += [open_baseline(name, device) for name in baseline or []]
    with watching() as watch:
        result = run(
            collections,
            contenders,
            options,
            _tools((device, dtype.value), engine.value, watch),
            development=development,
            keep=folder.keep if folder else None,
        )
    if json is not None:
        result.write(json)
    if html is not None:
        from triptych.eval.report import write_report

        write_report(result, html)
    _show(result)


def _collections(datasets: Sequence[str], split: str | None) -> list[Collection]:
    from triptych.cli.failures import say
    from triptych.collections.base import Wanted
    from triptych.collections.catalogue import read_collections

    found: list[Collection] = []
    for dataset in datasets:
        found += read_collections(dataset, Wanted((), split, say))
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
) -> list[Contender]:
    from triptych.encode.encoder import Encoder
    from triptych.eval.ours import Ours

    found: list[Contender] = []
    for name in names:
        encoder = Encoder.from_pretrained(name, device=place[0], dtype=place[1])
        found.append(Ours.of(encoder, modes=modes[0], weights=modes[1], **lengths))
    return found


def _tools(
    place: tuple[str | None, Any], engine: Any, watch: Callable[[str, int, int | None], None]
) -> Tools:
    """On a GPU the comparison runs there, too."""
    import torch

    from triptych.eval.running import ThroughIndex, Tools
    from triptych.eval.scan import numpy_scoring
    from triptych.model.backbone import device_of, dtype_of
    from triptych.scores.on_torch import device_scoring

    device = device_of(place[0])
    dtype = dtype_of(place[1], device)
    # Of the types of 16 bits, float16 has the finer steps, and vectors of length 1 never leave its range.
    dtype = dtype if dtype == torch.float32 else torch.float16
    scoring = numpy_scoring if device.type == "cpu" else device_scoring(device, dtype)
    return Tools(scoring, ThroughIndex(engine), watch)


@contextmanager
def watching() -> Generator[Callable[[str, int, int | None], None]]:
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
    from triptych.cli.eval_tables import tables
    from triptych.cli.failures import say
    from triptych.cli.show import stdout

    for note in (note for subset in result.subsets for note in subset.notes):
        say(note)
    console = stdout()
    for table in tables(result, console.width):
        console.print(table)
        console.print()
