"""`triptych data convert`: labelled data sets from their published files."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triptych.cli import options as o

if TYPE_CHECKING:
    from rich.console import Console

    from triptych.tools.convert import ConversionReport


class Negatives(StrEnum):
    """Kinds of negatives."""

    given = "given"
    all = "all"
    none = "none"


def convert(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="auto, or beir, cmteb, dpr, dureader-retrieval, dureader-robust, hotpotqa, korquad, longembed, "
            "miracl, mldr, mmarco, mrtydi, msmarco, multinli, narrativeqa, natural-questions, nli, snli, squad, "
            "squad-like, t2ranking, training, trec, triviaqa, xnli.",
        ),
    ],
    paths: Annotated[
        list[str],
        typer.Argument(metavar="PATH...", help="The files, or the folder with them, as they were published."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="JSON Lines to write; .gz or .zst compress.")
    ],
    split: Annotated[
        str, typer.Option("--split", help="Part of the data set, as its files name it.")
    ] = "train",
    negatives: Annotated[
        Negatives,
        typer.Option(
            "--negatives",
            help="given: what the publisher offers as such; all: also other paragraphs of the article and random "
            "passages; none.",
        ),
    ] = Negatives.given,
    max_negatives: Annotated[
        int | None, typer.Option("--max-negatives", help="Most negatives of a query; by default all.")
    ] = None,
    positive_from: Annotated[
        float | None,
        typer.Option("--positive-from", help="Least grade of a positive; by default what the makers use."),
    ] = None,
    titles: Annotated[
        bool, typer.Option("--titles/--no-titles", help="Begin a passage with its title, where it has one.")
    ] = True,
    lang: Annotated[
        str | None,
        typer.Option("--lang", help="Read this language alone; or what 'lang' says where the files do not."),
    ] = None,
    topic_fields: Annotated[
        str,
        typer.Option("--topic-fields", metavar="NAMES", help="Fields of TREC topics that make the query."),
    ] = "title",
    license: Annotated[
        str | None,
        typer.Option("--license", help="What 'source' says, instead of what the publisher states."),
    ] = None,
    licence: Annotated[
        str | None, typer.Option("--licence", hidden=True, help="Old name of --license.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of --max-negatives.")] = 0,
    as_json: o.JsonOption = False,
) -> None:
    """Convert a labelled data set from local copies of its published files to training examples.

    Each line has query, pos, neg, where known id, lang, pos_ids, neg_ids and answers, and its source: data set, split,
    license. What is left out is counted, with an example.

    Example: triptych data convert miracl miracl-v1.0/ --split dev --lang sw --out miracl-sw.jsonl.gz
    """
    from triptych.cli.show import emit, progress, stdout
    from triptych.collections.joined import Options
    from triptych.tools.convert import convert

    options = Options(
        split=split,
        positive_from=positive_from,
        negatives=negatives.value,
        max_negatives=max_negatives,
        titles=titles,
        language=lang,
        topic_fields=tuple(part.strip() for part in topic_fields.split(",") if part.strip()),
        seed=seed,
    )
    with progress("converting", None, "examples") as advance:
        seen = 0

        def advanced(_stage: str, done: int, _total: int | None) -> None:
            nonlocal seen
            advance(done - seen)
            seen = done

        report = convert(name, paths, out, options, license=license or licence, progress=advanced)
    if as_json:
        emit({"out": str(out), **report.to_dict()})
    else:
        _show(stdout(), report, out)


def _show(console: Console, report: ConversionReport, out: Path) -> None:
    from rich.text import Text

    text = Text(f"{report.examples:,} examples", style="bold")
    text.append(f" of {report.dataset}, {report.split}, in {out}", style="not bold")
    console.print(text, overflow="fold")
    console.print(
        f"{report.positives:,} positives, {report.negatives:,} negatives; "
        f"{report.without_negatives:,} examples have no negatives"
    )
    languages = ", ".join(f"{name} {count:,}" for name, count in report.languages.most_common())
    console.print(Text("languages: ", style="dim").append(languages, style="not dim"))
    console.print(Text("license: ", style="dim").append(report.license or "not stated", style="not dim"))
    for why, count in report.dropped.most_common().items():
        console.print(Text(f"{count:>8,}  {why}", style="yellow"))
        console.print(Text(f"{'':10}{report.dropped.first[why]}", style="dim"), overflow="fold")
