"""`triptych compare`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triptych.cli import options as o
from triptych.cli.eval import Test
from triptych.errors import InputError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from triptych.eval.compare import Column, Comparison


def compare(
    results: Annotated[
        list[Path], typer.Argument(metavar="RESULT", help="Files that `triptych eval --json` wrote.")
    ],
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
    test: Annotated[Test, typer.Option("--test", help="Paired test of significance.")] = Test.t,
    as_json: o.JsonOption = False,
) -> None:
    """Put results side by side, with the published figures of BGE-M3 and its peers where the data set is the same.

    The best of our systems is bold; * marks a significant difference from the reference (p < 0.05, paired, after
    Holm's correction), where the results have the same queries and corpus.

    Example: triptych compare before.json after.json --systems '*/all'
    """
    from triptych.cli.show import emit, stdout
    from triptych.eval.compare import Choice
    from triptych.eval.compare import compare as run
    from triptych.eval.results import Evaluation

    if len(set(results)) < len(results):
        raise InputError(f"compare: got {', '.join(map(str, results))}; expected each file once")
    labels = [path.stem for path in results]
    names = labels if len(set(labels)) == len(labels) else [str(path) for path in results]
    read = {name: Evaluation.read(path) for name, path in zip(names, results, strict=True)}
    choice = Choice(metric, tuple(systems or ()), reference, published, test.value)
    console = stdout()
    for comparison in run(read, choice):
        if as_json:
            emit(asdict(comparison))
            continue
        for part in _drawn(comparison, console.width):
            console.print(part)
        console.print()


def _drawn(comparison: Comparison, width: int) -> Iterator[RenderableType]:
    """Tables of as many columns as there is room for."""
    from rich.text import Text

    title = f"{comparison.dataset}, {comparison.split}, {comparison.metric} × 100"
    reference = f"; * differs from {comparison.reference}" if comparison.reference else ""
    yield Text(title + reference, style="bold")
    best = [
        max((c.values[row] or 0 for c in comparison.columns if not c.source), default=0)
        for row in range(len(comparison.rows))
    ]
    room = width - max(map(len, comparison.rows)) - 2
    ours = [column for column in comparison.columns if not column.source]
    theirs = [column for column in comparison.columns if column.source]
    for columns in (ours, theirs):
        for part in _parts(columns, room):
            yield _table(comparison.rows, part, best)
    for source in dict.fromkeys(column.source for column in theirs):
        yield Text(f"published figures: {source}", style="dim")
    for note in comparison.notes:
        yield Text(note, style="dim")


def _parts(columns: list[Column], room: int) -> Iterator[list[Column]]:
    from triptych.cli.eval_tables import heading

    part: list[Column] = []
    used = 0
    for column in columns:
        needed = max(6, max(map(len, heading(column.name).split()))) + 2
        if part and used + needed > room:
            yield part
            part, used = [], 0
        part.append(column)
        used += needed
    if part:
        yield part


def _table(rows: list[str], columns: list[Column], best: list[float]) -> RenderableType:
    from rich.table import Table

    from triptych.cli.eval_tables import cell, heading

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(heading(column.name), justify="right", style="dim" if column.source else "")
    for row, name in enumerate(rows):
        shown = [
            cell(
                None if (value := c.values[row]) is None else value / 100, c.significant[row], best[row] / 100
            )
            for c in columns
        ]
        table.add_row(name, *shown)
    return table
