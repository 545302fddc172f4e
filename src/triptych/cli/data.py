"""`triptych data`: what is in files of training data; the commands that make such data have modules of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli import options as o
from triptych.cli import pairs

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from triptych.model.tokenizer import TextTokenizer
    from triptych.tools.check import CheckReport, Identify
    from triptych.train.data import PairLimits

app = typer.Typer(no_args_is_help=True, help="Look at training data, and make it.")
app.command()(pairs.pairs)


@app.callback()
def _group() -> None:  # pyright: ignore[reportUnusedFunction]
    """Look at training data, and make it."""


@app.command()
def check(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...",
            help="JSON Lines (.gz, .zst), Parquet, folders of them, or BEIR folders.",
        ),
    ],
    model: o.ModelOption = "small",
    tokens: Annotated[
        bool,
        typer.Option("--tokens/--no-tokens", help="Measure lengths in the model's tokens or in characters."),
    ] = True,
    languages: Annotated[
        bool | None,
        typer.Option(
            "--languages/--no-languages", help="Identify languages; by default if py3langid is installed."
        ),
    ] = None,
    split: Annotated[
        str, typer.Option("--split", help="Judgements of BEIR folders that are read.")
    ] = "train",
    positive_from: Annotated[
        float, typer.Option("--positive-from", help="Least label or score of a positive, in judged pairs.")
    ] = 0.5,
    as_json: o.JsonOption = False,
) -> None:
    """Validate training data, and show counts, lengths, languages, repeats and contradictions.

    Reads everything once. Ends with exit code 2 if a record cannot be used, a passage is both positive and negative
    of a query, or there is no example at all.

    Example: triptych data check my-data.jsonl
    """
    from triptych.cli.failures import USAGE
    from triptych.cli.show import emit, progress, stdout
    from triptych.collections.training import Reading
    from triptych.tools.check import check

    tokenizer, limits = _tokenizer(model) if tokens else (None, None)
    identify = _identifier(languages)
    with progress("reading", None, "examples") as advance:
        seen = 0

        def advanced(_stage: str, done: int, _total: int | None) -> None:
            nonlocal seen
            advance(done - seen)
            seen = done

        report = check(
            files,
            tokenizer=tokenizer,
            limits=limits,
            identify=identify,
            reading=Reading(split=split, positive_from=positive_from),
            progress=advanced,
        )
    if as_json:
        emit(report.to_dict())
    else:
        _show(stdout(), report, files)
    if not report.usable:
        raise typer.Exit(USAGE)


def _tokenizer(model: str) -> tuple[TextTokenizer, PairLimits]:
    """A model's tokenizer and prefixes, without its weights."""
    import json

    from triptych.cli.options import model_name
    from triptych.config import M3Config
    from triptych.model.hub import resolve
    from triptych.model.tokenizer import TextTokenizer
    from triptych.train.data import PairLimits

    folder = resolve(model_name(model))
    tokenizer = TextTokenizer.load(folder)
    file = folder / "config.json"
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    config = M3Config.of(values["triptych"], str(file)) if "triptych" in values else M3Config()
    return tokenizer, PairLimits(query_prefix=config.query_prefix, document_prefix=config.document_prefix)


def _identifier(wanted: bool | None) -> Identify | None:
    from triptych.errors import MissingExtra
    from triptych.tools.check import language_identifier

    if wanted is False:
        return None
    try:
        return language_identifier()
    except MissingExtra:
        if wanted:
            raise
        return None


def _show(console: Console, report: CheckReport, files: list[str]) -> None:
    from rich.text import Text

    text = Text(f"{report.examples:,} examples", style="bold")
    text.append(f" from {', '.join(files)}", style="not bold")
    if report.scored:
        text.append(f"; {report.scored:,} with a teacher's scores", style="not bold")
    console.print(text)
    console.print(_lengths(report))
    for kind, counts in report.languages.items():
        most = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(12))
        more = f", and {len(counts) - 12} more" if len(counts) > 12 else ""
        console.print(Text(f"languages of {kind}: ", style="dim").append(most + more, style="not dim"))
    console.print()
    _show_problems(console, report)


def _lengths(report: CheckReport) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(report.unit)
    columns = ("texts", "mean", "median", "p90", "p99", "max")
    for name in columns:
        table.add_column(name, justify="right")
    names = {"longest": "longest of each"}
    for kind, lengths in report.lengths.items():
        values = lengths.to_dict()
        table.add_row(names.get(kind, kind), *(f"{values[name]:,}" for name in columns))
    return table


def _show_problems(console: Console, report: CheckReport) -> None:
    from rich.text import Text

    from triptych.tools.check import PROBLEMS, SERIOUS

    found = [name for name in PROBLEMS if report.problems[name]]
    for name in found:
        style = "bold red" if name in SERIOUS else "yellow"
        console.print(Text(f"{report.problems[name]:>8,}  {PROBLEMS[name]}", style=style))
        if name != "no negatives":
            for message in report.problems.examples.get(name, []):
                console.print(Text(f"{'':10}{message}", style="dim"), overflow="fold")
    if report.usable:
        console.print(
            Text("usable" + (", with remarks" if found else ": nothing is wrong"), style="bold green")
        )
    else:
        why = "not usable as it is" if report.examples else "not usable: no example at all"
        console.print(Text(why, style="bold red"))
