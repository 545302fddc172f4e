"""`triptych mine-negatives`."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli import options as o
from triptych.errors import InputError

if TYPE_CHECKING:
    from triptych.tools.negatives.options import MiningOptions
    from triptych.tools.negatives.report import NegativesReport
    from triptych.types import Progress


class Ranking(StrEnum):
    """Scores by which candidates are ranked."""

    hybrid = "hybrid"
    dense = "dense"
    lexical = "lexical"
    multi = "multi"


class Engine(StrEnum):
    """Ways to search."""

    exact = "exact"
    index = "index"  # pyright: ignore[reportAssignmentType]


class Choice(StrEnum):
    """Ways to choose among what the filters leave."""

    sample = "sample"
    top = "top"


def mine_negatives(
    train: Annotated[
        list[str],
        typer.Argument(
            metavar="TRAIN...", help="Training examples: JSON Lines, Parquet, folders, BEIR folders."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option("--out", "-o", metavar="FILE", help="What to write: .jsonl, .jsonl.gz or .jsonl.zst."),
    ],
    corpus: Annotated[
        list[str] | None,
        typer.Option(
            "--corpus",
            "-c",
            metavar="PATH",
            help="Passages to search: files, folders, or a BEIR folder; repeatable. By default the examples' own.",
        ),
    ] = None,
    search: Annotated[
        Ranking, typer.Option("--search", "-s", help="The score that ranks: one head's, or the weighted sum.")
    ] = Ranking.hybrid,
    weights: o.WeightsOption = None,
    routes: Annotated[
        str | None,
        typer.Option(
            "--routes", help="Heads that recall candidates; by default the head itself, or dense,lexical."
        ),
    ] = None,
    candidates: Annotated[
        int, typer.Option("--candidates", help="Documents that each route recalls, at least the last rank.")
    ] = 200,
    ranks: Annotated[
        str, typer.Option("--ranks", metavar="FIRST:LAST", help="Ranks that are mined; positives count.")
    ] = "2:200",
    keep: Annotated[int, typer.Option("--keep", "-n", help="Maximum negatives per query.")] = 15,
    choose: Annotated[
        Choice, typer.Option("--choose", help="Draw from what the filters leave, or take the best ranked.")
    ] = Choice.sample,
    margin: Annotated[
        str,
        typer.Option(
            "--margin",
            metavar="LIMIT",
            help="A negative's score is at most this share of the positive's (95%), or this much below it (0.05), or "
            "both (95%,0.05); none: no limit.",
        ),
    ] = "95%",
    same_article: Annotated[
        bool, typer.Option("--same-article/--no-same-article", help="Allow passages of a positive's article.")
    ] = False,
    translations: Annotated[
        bool,
        typer.Option(
            "--translations/--no-translations", help="Allow a positive's article in other languages."
        ),
    ] = False,
    article_field: Annotated[
        list[str] | None,
        typer.Option(
            "--article-field", metavar="NAME", help="Field with the article; by default article or key."
        ),
    ] = None,
    reranker: Annotated[
        str | None,
        typer.Option("--reranker", metavar="FOLDER", help="A cross-encoder that reads the candidates, too."),
    ] = None,
    rerank_margin: Annotated[
        str, typer.Option("--rerank-margin", metavar="LIMIT", help="The margin for the re-ranker's scores.")
    ] = "95%",
    existing: Annotated[
        bool,
        typer.Option(
            "--keep-existing/--replace", help="Keep the negatives that examples bring, or replace them."
        ),
    ] = False,
    engine: Annotated[
        Engine,
        typer.Option("--engine", help="Compare with everything in memory, or search through an index."),
    ] = Engine.exact,
    index: Annotated[
        str | None,
        typer.Option(
            "--index", metavar="INDEX", help="For --engine index: the index; made of --corpus if new."
        ),
    ] = None,
    vectors: Annotated[
        Path | None,
        typer.Option("--vectors", metavar="FOLDER", help="Keep the passages' vectors here for the next run."),
    ] = None,
    query_length: Annotated[
        int | None, typer.Option("--query-length", help="Most tokens of a query.")
    ] = None,
    passage_length: Annotated[
        int | None, typer.Option("--passage-length", help="Most tokens of a passage.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the drawing.")] = 0,
    block: Annotated[
        int, typer.Option("--block", help="Queries that are searched and written at once.")
    ] = 512,
    split: Annotated[
        str, typer.Option("--split", help="Judgements of BEIR folders that are read.")
    ] = "train",
    positive_from: Annotated[
        float, typer.Option("--positive-from", help="Least label or score of a positive, in judged pairs.")
    ] = 0.5,
    model: o.ModelOption = "small",
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = o.Dtype.auto,
    as_json: o.JsonOption = False,
) -> None:
    """Mine hard negatives for training examples, with scores.

    Searches the corpus with the model, drops passages that may be right answers (too near to the positive's score, of
    the same article, its translations, repeats), and draws negatives from the ranks that are left. The same command
    again completes an interrupted run. Beside the file stands FILE.report.json, which counts what was dropped and why.

    Example: triptych mine-negatives train.jsonl --corpus passages.jsonl --model small --out train-hard.jsonl
    """
    from triptych.cli.options import model_name
    from triptych.encode.encoder import Encoder
    from triptych.tools.negatives import mine as negatives
    from triptych.tools.negatives import options as m
    from triptych.tools.negatives.passages import ARTICLE
    from triptych.tools.rerank import CrossEncoder

    options = m.MiningOptions(
        search=m.SearchOptions(
            ranking=search.value,
            weights=o.parse_weights(weights),
            routes=o.parse_heads(routes, "--routes"),
            candidates=candidates,
            query_length=query_length,
            passage_length=passage_length,
        ),
        filters=m.FilterOptions(
            margin=m.Margin.parse(margin),
            article=not same_article,
            translation=not translations,
            rerank_margin=m.Margin.parse(rerank_margin),
        ),
        ranks=_ranks(ranks),
        keep=keep,
        choose=choose.value,
        existing=existing,
        seed=seed,
        block=block,
    )
    inputs = negatives.MiningInputs(
        train=train,
        corpus=corpus,
        index=index,
        engine=engine.value,
        vectors=vectors,
        article=tuple(article_field or ARTICLE),
        split=split,
        positive_from=positive_from,
    )
    started = time.perf_counter()
    encoder = Encoder.from_pretrained(model_name(model), device=device, dtype=dtype.value)
    second = None if reranker is None else CrossEncoder(reranker, device=device)
    with _stages() as tell:
        report = negatives.mine(inputs, out, encoder, options, reranker=second, progress=tell)
    _show(report, options, out, time.perf_counter() - started, as_json)


def _ranks(text: str) -> tuple[int, int]:
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal()):
        raise InputError(f"--ranks: got {text!r}; expected FIRST:LAST, such as 2:200")
    return int(first), int(last)


@contextmanager
def _stages() -> Generator[Progress]:
    """A progress bar for each stage, one after the other."""
    from contextlib import ExitStack

    from triptych.cli.show import progress

    units = {"reading": "examples", "mining": "queries"}
    with ExitStack() as stack:
        current: list[Any] = ["", 0, None]

        def tell(stage: str, done: int, total: int | None) -> None:
            if stage != current[0]:
                stack.close()
                bar: Callable[[int], None] = stack.enter_context(
                    progress(stage, total, units.get(stage, "passages"))
                )
                current[:] = [stage, 0, bar]
            current[2](done - current[1])
            current[1] = done

        yield tell


def _show(report: NegativesReport, options: MiningOptions, out: Path, seconds: float, as_json: bool) -> None:
    from rich.table import Table

    from triptych.cli.show import emit, stdout
    from triptych.tools.negatives.report import REASONS

    if as_json:
        emit({"file": str(out), **report.to_json(), "seconds": round(seconds, 3)})
        return
    console = stdout()
    table = Table(title="What became of the candidates")
    table.add_column("")
    table.add_column("passages", justify="right")
    table.add_row("kept as negatives", f"{report.negatives:,}")
    for reason, meaning in REASONS.items():
        if report.dropped[reason]:
            table.add_row(meaning, f"{report.dropped[reason]:,}")
    console.print(table)
    means = [(name, report.mean(name)) for name in ("positive", "negative", "rank")]
    shown = ", ".join(f"{name} {value:.4g}" for name, value in means if value is not None)
    console.print(
        f"{out}: {report.queries} queries; {report.full} with {options.keep} negatives, {report.short} with fewer, "
        f"{report.empty} without; means: {shown}; {seconds:.1f} s",
        soft_wrap=True,
    )
