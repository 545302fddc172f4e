"""`triptych data synthesize`: questions about long documents from a language model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from triptych.cli.command import command
from triptych.cli.terminal import emit, progress, stdout
from triptych.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from triptych.cli.options import Form, Inputs, Loading
    from triptych.records import Document
    from triptych.tools.synthesize.asking import Budget, Patience
    from triptych.tools.synthesize.client import Endpoint
    from triptych.tools.synthesize.round_trip import Finder
    from triptych.tools.synthesize.synthesize import QuestionRecipe, SynthesisReport

WORDS, NONE = "bm25", "none"


@command(
    {
        "docs": "DOCS...",
        "out": "-o FILE",
        "endpoint.model": "-m",
        "parameters": "--set KEY=VALUE",
        "patience.base": "--backoff",
        "patience.cap": None,
        "patience.max_asked": None,
        **dict.fromkeys(("spent", "lost", "in_flight")),
        "prices.input": "--price-in",
        "prices.output": "--price-out",
        "budget.money": "--budget",
        "budget.tokens": "--token-budget",
        "answers": "FILE",
        "limits": None,
        "check_language": "--check-language/--no-check-language",
        "recipe.language": "--lang",
        "prompts": "FOLDER",
        "round_trip": "bm25|none|MODEL",
    },
    basic="base_url api_key budget.money budget.tokens per_document limit round_trip dry_run",
    env={"base_url": "OPENAI_BASE_URL", "api_key": "OPENAI_API_KEY"},
    defaults={"base_url": "https://api.openai.com/v1"},
)
def synthesize(
    docs: list[str],
    *,
    out: Path,
    endpoint: Endpoint,
    patience: Patience,
    budget: Budget,
    answers: Path | None = None,
    recipe: QuestionRecipe,
    limit: int | None = None,
    round_trip: str = WORDS,
    dry_run: bool = False,
    form: Form,
    loading: Loading,
    as_json: bool = False,
) -> None:
    """Ask a language model for questions that one long document answers, and check what it says.

    A passage of each document is drawn, a question about it asked for, and paired with the whole document (the recipe
    of MLDR). Answers are kept as they come: the same command again goes on where it was, and pays nothing twice.

    Example: triptych data synthesize articles.jsonl --out questions.jsonl --model my-model --token-budget 100000

    Args:
        docs: Files and folders of documents, read several times.
        out: JSON Lines to write; .gz or .zst compress.
        answers: Where answers are kept; by default FILE.answers.sqlite.
        limit: Take the first documents alone.
        round_trip: What has to find a question's document among all: words, or an encoder of yours.
        dry_run: Send no request; show what would be asked and what it can cost.
    """
    from triptych.cli.options import Inputs
    from triptych.tools.synthesize.synthesize import Synthesis, plan, synthesize

    source = Inputs(docs, form)
    read, count = _reread(source, limit)
    work = Synthesis(read, endpoint, recipe, patience)
    kept = answers or out.with_name(f"{out.name}.answers.sqlite")
    planned = plan(work, kept)
    source.note_skipped()
    if dry_run:
        most = planned.budget.in_flight
        cost = budget.prices.of(most)
        if as_json:
            emit({**planned.to_dict(), "most_tokens": most.total, "most_cost": round(cost, 6)})
        else:
            _show_plan(stdout(), planned, most.total, cost)
        return
    work = replace(work, finder=_finder(round_trip, loading))
    with progress() as draw:
        totals = {"asking": planned.unanswered}
        report = synthesize(
            work, out, kept, budget, lambda stage, done, _: draw(stage, done, totals.get(stage, count))
        )
    if as_json:
        emit({"out": str(out), "answers_file": str(kept), **report.to_dict()})
    else:
        _show(stdout(), report, out)


def _reread(source: Inputs, limit: int | None) -> tuple[Callable[[], Iterator[Document]], int]:
    """Reads the documents again and again, and how many there are."""
    if limit is not None and limit < 1:
        raise InputError(f"--limit: got {limit}; expected 1 or more")
    count = source.count()
    if count is None:
        raise InputError(
            "synthesize: standard input and pipes cannot be read twice; expected files or folders"
        )
    return lambda: islice(source.read(), limit), min(count, limit or count)


def _finder(name: str, loading: Loading) -> Finder | None:
    from triptych.tools.synthesize.round_trip import EncoderFinder, LexicalFinder

    if name == NONE:
        return None
    return LexicalFinder() if name == WORDS else EncoderFinder(loading.encoder(name))


def _show_plan(console: Console, report: SynthesisReport, tokens: int, cost: float) -> None:
    from triptych.cli.data import show_count

    console.print(
        f"{report.documents:,} documents, {report.passages:,} passages, {report.known:,} answered already; "
        f"{report.unanswered:,} to ask, at most {tokens:,} tokens"
        + (f" and {cost:,.4f} in the prices given" if cost else "")
    )
    for why, count in report.skipped.most_common().items():
        show_count(console, count, why)


def _show(console: Console, report: SynthesisReport, out: Path) -> None:
    from rich.text import Text

    from triptych.cli.data import plain_table, show_count, show_languages
    from triptych.tools.synthesize.questions import PROBLEMS

    text = Text(f"{report.examples:,} questions", style="bold")
    text.append(f" on {report.documents:,} documents, in {out}", style="not bold")
    console.print(text, overflow="fold")
    show_languages(console, report.languages)
    budget, outcomes = report.budget, report.outcomes
    table = plain_table("", "answers", "tokens in", "tokens out", "cost")
    for name, answers, tokens in (
        ("this run", outcomes.answered, budget.spent),
        ("lost on the way, at most", "", budget.lost),
        ("known before", report.known, report.before),
    ):
        if tokens.total or name == "this run":
            cost = "" if name == "known before" else f"{budget.prices.of(tokens):,.4f}"
            table.add_row(name, str(answers), f"{tokens.input:,}", f"{tokens.output:,}", cost)
    console.print(table)
    for tally in (report.skipped, outcomes.repeated, outcomes.failed, report.dropped):
        for why, count in tally.most_common().items():
            note = "  (repeated)" if tally is outcomes.repeated else ""
            examples = [tally.first[why]] if why in tally.first else []
            show_count(console, count, PROBLEMS.get(why, why) + note, *examples)
    if report.unanswered:
        why = "the budget is used up" if outcomes.stopped else "the server gave no answer"
        left = f"{report.unanswered:,} passages have no answer: {why}; the same command goes on"
        console.print(Text(left, "bold red"))
