"""`triptych mine-negatives`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from triptych.cli.command import command

if TYPE_CHECKING:
    from triptych.cli.options import Model
    from triptych.tools.negatives.mine import MiningInputs
    from triptych.tools.negatives.options import MiningOptions
    from triptych.tools.negatives.report import NegativesReport


@command(
    {
        "train": "=TRAIN...",
        "out": "-o FILE",
        "corpus": "-c PATH",
        "ranking": "-s --search",
        "weights": "-w DENSE,LEXICAL,MULTI",
        "ranks": "FIRST:LAST",
        "keep": "-n",
        "margin": "95%|0.05|95%,0.05|none",
        "rerank_margin": "95%|0.05|95%,0.05|none",
        "filters.article": "--no-same-article/--same-article",
        "translation": "--no-translations/--translations",
        "inputs.article": "--article-field NAME...",
        "reranker": "FOLDER",
        "existing": "--keep-existing/--replace",
        "index": "INDEX",
        "vectors": "FOLDER",
    },
    basic="corpus ranking weights ranks keep margin existing reranker model",
)
def mine_negatives(
    inputs: MiningInputs,
    *,
    out: Path,
    options: MiningOptions,
    reranker: str | None = None,
    choice: Model,
    as_json: bool = False,
) -> None:
    """Mine hard negatives for training examples, with scores.

    Searches the corpus with the model, drops passages that may be right answers (too near to the positive's score, of
    the same article, its translations, repeats), and draws negatives from the ranks that are left. The same command
    again completes an interrupted run. Beside the file stands FILE.report.json, which counts what was dropped and why.

    Example: triptych mine-negatives train.jsonl --corpus passages.jsonl --model small --out train-hard.jsonl

    Args:
        inputs: What is mined.
        out: What to write: .jsonl, .jsonl.gz or .jsonl.zst.
        options: Which negatives a query gets.
        reranker: A cross-encoder that reads the candidates, too.
        choice: What searches.
    """
    from triptych.cli.terminal import progress
    from triptych.tools.negatives.mine import mine
    from triptych.tools.rerank import CrossEncoder

    started = time.perf_counter()
    encoder = choice.load()
    device, trusted = choice.loading.device, choice.loading.trust_remote_code
    second = None
    if reranker is not None:
        second = CrossEncoder(reranker, device=device, trust_remote_code=trusted)
    with progress() as draw:
        report = mine(inputs, out, encoder, options, reranker=second, progress=draw)
    _show(report, options, out, time.perf_counter() - started, as_json)


def _show(report: NegativesReport, options: MiningOptions, out: Path, seconds: float, as_json: bool) -> None:
    from rich.table import Table

    from triptych.cli.terminal import emit, stdout
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
