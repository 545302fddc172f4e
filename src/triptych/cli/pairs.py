"""`triptych data pairs`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli import options as o
from triptych.errors import MissingExtra

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from triptych.tools.pairs.pipeline import MinedPairs
    from triptych.tools.pairs.report import PairCounts
    from triptych.tools.pairs.settings import Settings
    from triptych.types import Progress

_LANGUAGES = 15  # rows of the table


def pairs(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="Documents and aligned translations: JSON Lines, Markdown, HTML, text, TSV, CSV; folders of them.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where the pairs go.")],
    kinds: Annotated[
        str | None,
        typer.Option("--kinds", help="Kinds of pairs, such as title-body,neighbour; by default all."),
    ] = None,
    filters: Annotated[
        str | None, typer.Option("--filters", help="Filters that run, such as length,copy; by default all.")
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            "--against",
            metavar="FILE",
            help="Evaluation file or folder whose text no pair may hold; repeatable.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="Model of the consistency filter; without one it does not run."),
    ] = None,
    device: o.DeviceOption = None,
    source: Annotated[
        str | None, typer.Option("--source", help="Name of the collection; by default of the folder or file.")
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(
            "--language", help="Language of documents that do not say theirs; by default identified."
        ),
    ] = None,
    license: Annotated[
        str | None, typer.Option("--license", help="License of texts that do not say theirs.")
    ] = None,
    licence: Annotated[str | None, typer.Option("--licence", hidden=True)] = None,
    languages_in_paths: Annotated[
        bool,
        typer.Option("--languages-in-paths", help="guide/de/pot.md and guide/fr/pot.md are translations."),
    ] = False,
    seed: Annotated[
        int, typer.Option("--seed", help="Draws what is taken where there is more than wanted.")
    ] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting, such as near=0.9; repeatable."),
    ] = None,
    workers: Annotated[int, typer.Option("--workers", "-w", help="Processes; the result is the same.")] = 1,
    plot: Annotated[
        bool | None,
        typer.Option("--plot/--no-plot", help="Draw report.svg; by default if matplotlib is there."),
    ] = None,
    as_json: o.JsonOption = False,
) -> None:
    """Mine weak pairs from documents with structure and from translations, filter them, and report on it.

    Titles, headings, descriptions, keywords, questions and links lead to their texts, paragraphs to their neighbours
    and translations. What an interruption left is finished by the same command.

    Example: triptych data pairs manual/ --out pairs --languages-in-paths --against dev/queries.jsonl
    """
    from triptych.cli.failures import say
    from triptych.cli.show import emit, stdout
    from triptych.io import printable
    from triptych.text import is_utf8
    from triptych.tools.pairs.base import Limits
    from triptych.tools.pairs.kinds import KINDS
    from triptych.tools.pairs.pipeline import mine_pairs
    from triptych.tools.pairs.reading import Origin
    from triptych.tools.pairs.report import FILTERS, summary
    from triptych.tools.pairs.settings import Settings, with_changes

    how = Settings(
        kinds=_names(kinds, KINDS),
        filters=_names(filters, FILTERS),
        limits=Limits(seed=seed),
        origin=Origin(source or "", language or "", license or licence or "", languages_in_paths),
        against=tuple(against or ()),
    )
    how = with_changes(how, o.parse_pairs(settings or [], "--set"))
    skipped: list[Path] = []
    scorer = _scorer(model, device)
    with _drawn() as progress:
        mined = mine_pairs(
            sources,
            out,
            how,
            workers=workers,
            scorer=scorer,
            scorer_name=model or "",
            on_skip=skipped.append,
            progress=progress,
        )
    named = [path for path in skipped if is_utf8(path) and path.is_file()]
    for what, paths in (
        ("files whose ending is not known", named),
        ("files whose name is not UTF-8, pipes or devices", [path for path in skipped if path not in named]),
    ):
        if paths:
            say(f"skipped {len(paths)} {what} ({', '.join(printable(path.name) for path in paths[:3])})")
    picture = _picture(mined, plot)
    if as_json:
        emit({"pairs": str(mined.pairs), **summary(mined.counts)})
    else:
        _show(stdout(), mined, picture, how)


def _names(value: str | None, all_: Sequence[str]) -> tuple[str, ...]:
    return tuple(all_) if value is None else tuple(part.strip() for part in value.split(",") if part.strip())


def _scorer(model: str | None, device: str | None) -> Any:
    if model is None:
        return None
    from triptych.cli.options import model_name
    from triptych.tools.pairs.filters import EncoderScorer

    return EncoderScorer(model_name(model), device)


@contextmanager
def _drawn() -> Generator[Progress]:
    """One progress bar a stage."""
    from triptych.cli.show import progress

    with ExitStack() as stack:
        bars: dict[str, Callable[[int], None]] = {}

        def moved(stage: str, _done: int, total: int | None) -> None:
            if stage not in bars:
                stack.close()
                bars[stage] = stack.enter_context(progress(stage, total, "parts"))
            bars[stage](1)

        yield moved


def _picture(mined: MinedPairs, wanted: bool | None) -> Path | None:
    """Draws the picture, unless it is not wanted, or nobody asked and matplotlib is not there."""
    from triptych.tools.pairs.report import draw

    path = mined.folder / "report.svg"
    if wanted is False:
        return None
    try:
        draw(mined.counts, path)
    except MissingExtra:
        if wanted:
            raise
        return None
    return path


def _show(console: Console, mined: MinedPairs, picture: Path | None, how: Settings) -> None:
    from rich.text import Text

    from triptych.tools.pairs.report import language_pairs, rows, total

    counts = mined.counts
    whole = total(counts)
    console.print(
        Text(f"{whole.kept:,} pairs", style="bold").append(f" of {whole.made:,} made", style="not bold")
    )
    _show_texts(console, counts)
    for by in ("source", "kind", "language"):
        console.print(_table(counts, by, rows(counts, by, _LANGUAGES if by == "language" else None)))
        console.print()
    console.print(f"{language_pairs(counts):,} ordered pairs of different languages")
    _show_examples(console, counts)
    for path in (mined.pairs, mined.folder / "report.json", picture):
        if path is not None:
            console.print(Text(str(path), style="dim"), overflow="fold")


def _show_texts(console: Console, counts: PairCounts) -> None:
    from triptych.tools.pairs.report import summary

    texts: dict[str, int] = summary(counts)["texts"]
    console.print(", ".join(f"{count:,} {what}" for what, count in texts.items() if count))
    console.print()


def _table(counts: PairCounts, by: str, part: Sequence[Any]) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(by)
    for name in ("made", "kept", *counts.filters):
        # Two lines for “exact-duplicate”, so that the table fits into 80 columns as a rule.
        table.add_column(name.replace("-", "-\n"), justify="right", no_wrap=name in ("made", "kept"))
    for row in part:
        table.add_row(
            row.name,
            f"{row.made:,}",
            f"{row.kept:,}",
            *(f"{count:,}" if count else "" for count in row.dropped),
        )
    return table


def _show_examples(console: Console, counts: PairCounts) -> None:
    from rich.text import Text

    from triptych.tools.pairs.report import examples

    for name, cell, example in examples(counts):
        head = Text(f"\n{name}", style="yellow").append(
            f"  {cell.languages} {cell.source} {cell.kind}", style="dim"
        )
        if example.because:
            head.append(f"  {example.because}", style="dim")
        console.print(head)
        for side in (example.query, example.passage):
            console.print(Text(f"  {' '.join(side.split())}"), overflow="ellipsis", no_wrap=True)
