"""`triptych data`: look at training data, mine pairs, convert published sets; questions are in `synthesize`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from triptych.cli.command import command
from triptych.cli.options import BUNDLED, note_skipped, parse_pairs
from triptych.cli.terminal import emit, progress, stdout
from triptych.errors import MissingExtra

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from triptych.cli.options import Loading
    from triptych.collections.joined import Options
    from triptych.collections.training import Reading
    from triptych.model.tokenizer import TextTokenizer
    from triptych.tools.check import CheckReport, Identify
    from triptych.tools.convert import ConversionReport
    from triptych.tools.pairs.pipeline import MinedPairs
    from triptych.tools.pairs.report import PairCounts
    from triptych.tools.pairs.settings import PairSettings
    from triptych.train.data import PairLimits

_LANGUAGES = 15  # rows of the table


@command(
    {
        "files": "FILE...",
        "tokens": "--tokens/--no-tokens",
        "languages": "--languages/--no-languages",
        "model": "-m",
    },
    env={"model": "TRIPTYCH_MODEL"},
)
def check(
    files: list[str],
    *,
    model: str = BUNDLED,
    tokens: bool = True,
    languages: bool | None = None,
    trust_remote_code: bool = False,
    reading: Reading,
    as_json: bool = False,
) -> None:
    """Validate training data, and show counts, lengths, languages, repeats and contradictions.

    Reads everything once. Ends with exit code 2 if a record cannot be used, a passage is both positive and negative
    of a query, or there is no example at all.

    Example: triptych data check my-data.jsonl

    Args:
        files: JSON Lines (.gz, .zst), Parquet, folders of them, or BEIR folders.
        model: The model whose tokens are counted: 'small' (bundled), a checkpoint folder, or a Hub name.
        tokens: Measure lengths in the model's tokens or in characters.
        languages: Identify languages; by default if py3langid is installed.
        trust_remote_code: Let Python files of the model's folder run; without this they never do.
    """
    from triptych.tools.check import check as run

    tokenizer, limits = _tokenizer(model, trust_remote_code) if tokens else (None, None)
    identify = _identifier(languages)
    with progress() as draw:
        report = run(
            files,
            tokenizer=tokenizer,
            limits=limits,
            identify=identify,
            reading=reading,
            progress=draw,
        )
    if as_json:
        emit(report.to_dict())
    else:
        _show_checked(stdout(), report, files)
    if not report.usable:
        raise typer.Exit(2)


def _tokenizer(model: str, trust_remote_code: bool) -> tuple[TextTokenizer, PairLimits]:
    """A model's tokenizer and prefixes, without its weights."""
    from triptych.config import M3Config
    from triptych.model.hub import resolve
    from triptych.model.tokenizer import TextTokenizer
    from triptych.train.data import PairLimits

    folder = resolve(model)
    tokenizer = TextTokenizer.load(folder, trust_remote_code=trust_remote_code)
    file = folder / "config.json"
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    config = M3Config.of(values["triptych"], str(file)) if "triptych" in values else M3Config()
    return tokenizer, PairLimits(query_prefix=config.query_prefix, document_prefix=config.document_prefix)


def _identifier(wanted: bool | None) -> Identify | None:
    from triptych.tools.check import language_identifier

    if wanted is False:
        return None
    try:
        return language_identifier()
    except MissingExtra:
        if wanted:
            raise
        return None


def _show_checked(console: Console, report: CheckReport, files: list[str]) -> None:
    from rich.text import Text

    from triptych.tools.check import PROBLEMS, SERIOUS

    text = Text(f"{report.examples:,} examples", style="bold")
    text.append(f" from {', '.join(files)}", style="not bold")
    if report.scored:
        text.append(f"; {report.scored:,} with a teacher's scores", style="not bold")
    console.print(text)
    console.print(_lengths(report))
    for kind, counts in report.languages.items():
        show_languages(console, counts, f"languages of {kind}", most=12)
    console.print()
    found = [name for name in PROBLEMS if report.problems[name]]
    for name in found:
        style = "bold red" if name in SERIOUS else "yellow"
        places = [] if name == "no negatives" else report.problems.examples.get(name, [])
        show_count(console, report.problems[name], PROBLEMS[name], *places, style=style)
    if report.usable:
        what = "usable" + (", with remarks" if found else ": nothing is wrong")
        console.print(Text(what, style="bold green"))
    else:
        why = "not usable as it is" if report.examples else "not usable: no example at all"
        console.print(Text(why, style="bold red"))


def _lengths(report: CheckReport) -> Table:
    columns = ("texts", "mean", "median", "p90", "p99", "max")
    table = plain_table(report.unit, *columns)
    names = {"longest": "longest of each"}
    for kind, lengths in report.lengths.items():
        values = lengths.to_dict()
        table.add_row(names.get(kind, kind), *(f"{values[name]:,}" for name in columns))
    return table


def plain_table(first: str, *others: str) -> Table:
    """A table without lines, whose columns but the first are numbers."""
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(first)
    for name in others:
        table.add_column(name, justify="right")
    return table


def show_languages(
    console: Console, counts: Counter[str], what: str = "languages", most: int | None = None
) -> None:
    """How many there are of each language, in one line."""
    from rich.text import Text

    shown = ", ".join(f"{name} {count:,}" for name, count in counts.most_common(most))
    more = "" if most is None or len(counts) <= most else f", and {len(counts) - most} more"
    console.print(Text(f"{what}: ", style="dim").append(shown + more, style="not dim"))


def show_count(console: Console, count: int, what: str, *examples: str, style: str = "yellow") -> None:
    """What was left out or is wrong, how often, and where."""
    from rich.text import Text

    console.print(Text(f"{count:>8,}  {what}", style=style))
    for example in examples:
        console.print(Text(f"{'':10}{example}", style="dim"), overflow="fold")


@command(
    {
        "name": "NAME",
        "paths": "PATH...",
        "out": "-o FILE",
        "titles": "--titles/--no-titles",
        "language": "--lang",
        "topic_fields": "NAMES",
        "license": "--license --licence",
        "subsets": "PATTERN...",
    },
    basic="split negatives max_negatives positive_from titles language as_json",
)
def convert(
    name: str,
    paths: list[str],
    *,
    out: Path,
    options: Options,
    license: str | None = None,
    as_json: bool = False,
) -> None:
    """Convert a labelled data set from local copies of its published files to training examples.

    Each line has query, pos, neg, where known id, lang, pos_ids, neg_ids and answers, and its source: data set, split,
    license. What is left out is counted, with an example.

    Example: triptych data convert miracl miracl-v1.0/ --split dev --lang sw --out miracl-sw.jsonl.gz

    Args:
        name: auto, or beir, cmteb, dpr, dureader-retrieval, dureader-robust, hotpotqa, korquad, longembed, miracl,
            mldr, mmarco, mrtydi, msmarco, multinli, narrativeqa, natural-questions, nli, snli, squad, squad-like,
            t2ranking, training, trec, triviaqa, xnli.
        paths: The files, or the folder with them, as they were published.
        out: JSON Lines to write; .gz or .zst compress.
        license: What 'source' says, instead of what the publisher states.
    """
    from triptych.tools.convert import convert as run

    with progress() as draw:
        report = run(
            name,
            paths,
            out,
            options,
            license=license,
            progress=draw,
        )
    if as_json:
        emit({"out": str(out), **report.to_dict()})
    else:
        _show_converted(stdout(), report, out)


def _show_converted(console: Console, report: ConversionReport, out: Path) -> None:
    from rich.text import Text

    text = Text(f"{report.examples:,} examples", style="bold")
    text.append(f" of {report.dataset}, {report.split}, in {out}", style="not bold")
    console.print(text, overflow="fold")
    console.print(
        f"{report.positives:,} positives, {report.negatives:,} negatives; "
        f"{report.without_negatives:,} examples have no negatives"
    )
    show_languages(console, report.languages)
    console.print(Text("license: ", style="dim").append(report.license or "not stated", style="not dim"))
    for why, count in report.dropped.most_common().items():
        show_count(console, count, why, report.dropped.first[why])


@command(
    {
        "sources": "SOURCE...",
        "out": "-o FOLDER",
        "against": "FILE...",
        "model": "-m",
        "lang": "--language",
        "license": "--license --licence",
        "changes": "--set KEY=VALUE",
        "workers": "-w",
        "plot": "--plot/--no-plot",
        "seed": "",
        **dict.fromkeys(("limits", "thresholds", "consistency", "words", "recurring", "near", "parts")),
    },
    basic="kinds filters against model lang license languages_in_paths changes workers as_json",
)
def pairs(
    sources: list[str],
    *,
    out: Path,
    settings: PairSettings,
    changes: list[str] | None = None,
    model: str | None = None,
    loading: Loading,
    workers: int = 1,
    plot: bool | None = None,
    as_json: bool = False,
) -> None:
    """Mine weak pairs from documents with structure and from translations, filter them, and report on it.

    Titles, headings, descriptions, keywords, questions and links lead to their texts, paragraphs to their neighbours
    and translations. What an interruption left is finished by the same command.

    Example: triptych data pairs manual/ --out pairs --languages-in-paths --against dev/queries.jsonl

    Args:
        sources: Documents and aligned translations: JSON Lines, Markdown, HTML, text, TSV, CSV; folders of them.
        out: Where the pairs go.
        changes: Any other setting, such as near=0.9; repeatable.
        model: Model of the consistency filter; without one it does not run.
        workers: Processes; the result is the same.
        plot: Draw report.svg; by default if matplotlib is there.
    """
    from triptych.tools.pairs.filters import EncoderScorer
    from triptych.tools.pairs.pipeline import mine_pairs
    from triptych.tools.pairs.report import summary
    from triptych.tools.pairs.settings import with_changes

    skipped: list[tuple[Path, str]] = []
    scorer = None
    if model is not None:
        trust = {"trust_remote_code": loading.trust_remote_code}
        scorer = EncoderScorer(loading.place(model), loading.device, **trust)
    with progress() as draw:
        mined = mine_pairs(
            sources,
            out,
            with_changes(settings, parse_pairs(changes or [], "--set")),
            workers=workers,
            scorer=scorer,
            scorer_name=model or "",
            on_skip=lambda path, reason: skipped.append((path, reason)),
            progress=draw,
        )
    note_skipped(skipped)
    picture = _picture(mined, plot)
    if as_json:
        emit({"pairs": str(mined.pairs), **summary(mined.counts)})
    else:
        _show_pairs(stdout(), mined, picture)


def _picture(mined: MinedPairs, wanted: bool | None) -> Path | None:
    """Draws the picture, unless it is not wanted, or matplotlib is missing and it was not asked for."""
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


def _show_pairs(console: Console, mined: MinedPairs, picture: Path | None) -> None:
    from rich.text import Text

    from triptych.tools.pairs.report import examples, language_pairs, rows, summary, total

    counts = mined.counts
    whole = total(counts)
    console.print(
        Text(f"{whole.kept:,} pairs", style="bold").append(f" of {whole.made:,} made", style="not bold")
    )
    texts: Mapping[str, int] = summary(counts)["texts"]
    console.print(", ".join(f"{count:,} {what}" for what, count in texts.items() if count))
    console.print()
    for by in ("source", "kind", "language"):
        console.print(_pair_table(counts, by, rows(counts, by, _LANGUAGES if by == "language" else None)))
        console.print()
    console.print(f"{language_pairs(counts):,} ordered pairs of different languages")
    for name, cell, example in examples(counts):
        head = Text(f"\n{name}", style="yellow")
        head.append(f"  {cell.languages} {cell.source} {cell.kind}", style="dim")
        if example.because:
            head.append(f"  {example.because}", style="dim")
        console.print(head)
        for side in (example.query, example.passage):
            console.print(Text(f"  {' '.join(side.split())}"), overflow="ellipsis", no_wrap=True)
    for path in (mined.pairs, mined.folder / "report.json", picture):
        if path is not None:
            console.print(Text(str(path), style="dim"), overflow="fold")


def _pair_table(counts: PairCounts, by: str, part: Sequence[Any]) -> Table:
    # Two lines for “exact-duplicate”, so that the table fits into 80 columns as a rule.
    table = plain_table(by, "made", "kept", *(name.replace("-", "-\n") for name in counts.filters))
    for row in part:
        dropped = (f"{count:,}" if count else "" for count in row.dropped)
        table.add_row(row.name, f"{row.made:,}", f"{row.kept:,}", *dropped)
    return table
