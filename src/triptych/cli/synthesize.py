"""`triptych data synthesize`: questions about long documents from a language model."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triptych.cli import options as o
from triptych.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from triptych.cli.options import Inputs
    from triptych.cli.show import Advance
    from triptych.records import Document
    from triptych.tools.synthesize.round_trip import Finder
    from triptych.tools.synthesize.synthesize import SynthesisReport
    from triptych.types import Progress

OPENAI = "https://api.openai.com/v1"
WORDS, NONE = "bm25", "none"


def synthesize(
    docs: Annotated[
        list[str],
        typer.Argument(metavar="DOCS...", help="Files and folders of documents, read several times."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="FILE", help="JSON Lines to write; .gz or .zst compress.")
    ],
    model: Annotated[str, typer.Option("--model", "-m", help="The language model, as its server calls it.")],
    base_url: Annotated[
        str,
        typer.Option(
            "--base-url",
            envvar="OPENAI_BASE_URL",
            help="Address of any server with OpenAI's /chat/completions.",
        ),
    ] = OPENAI,
    api_key: Annotated[
        str | None,
        typer.Option("--api-key", envvar="OPENAI_API_KEY", help="Its key; better given as OPENAI_API_KEY."),
    ] = None,
    set_: Annotated[
        list[str],
        typer.Option(
            "--set", metavar="KEY=VALUE", help="A field of the requests, such as temperature=0.7; repeatable."
        ),
    ] = [],  # noqa: B006
    max_tokens: Annotated[int, typer.Option("--max-tokens", help="Most tokens of an answer.")] = 200,
    concurrency: Annotated[int, typer.Option("--concurrency", help="Requests on their way at once.")] = 8,
    attempts: Annotated[int, typer.Option("--attempts", help="Most attempts of a request.")] = 6,
    backoff: Annotated[
        float,
        typer.Option("--backoff", help="Seconds of the first wait after a failure, at most; then doubled."),
    ] = 1.0,
    timeout: Annotated[float, typer.Option("--timeout", help="Seconds to wait for an answer.")] = 60.0,
    price_in: Annotated[
        float, typer.Option("--price-in", help="Price of a million tokens of requests.")
    ] = 0.0,
    price_out: Annotated[
        float, typer.Option("--price-out", help="Price of a million tokens of answers.")
    ] = 0.0,
    budget: Annotated[
        float | None, typer.Option("--budget", help="Most that this run may cost, in the prices' currency.")
    ] = None,
    token_budget: Annotated[
        int | None, typer.Option("--token-budget", help="Most tokens that this run may take.")
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(
            "--answers", metavar="FILE", help="Where answers are kept; by default FILE.answers.sqlite."
        ),
    ] = None,
    per_document: Annotated[int, typer.Option("--per-document", help="Most questions of a document.")] = 1,
    min_document: Annotated[
        int,
        typer.Option("--min-document", help="Least size of a document in letters (an ideograph counts 3)."),
    ] = 2000,
    min_passage: Annotated[int, typer.Option("--min-passage", help="Least size of a passage.")] = 300,
    max_passage: Annotated[int, typer.Option("--max-passage", help="Most size of a passage.")] = 2000,
    seed: Annotated[int, typer.Option("--seed", help="Of the draw of passages.")] = 0,
    limit: Annotated[int | None, typer.Option("--limit", help="Take the first documents alone.")] = None,
    lang: Annotated[
        str | None,
        typer.Option(
            "--lang", help="Language of documents that do not say theirs; by default it is identified."
        ),
    ] = None,
    check_language: Annotated[
        bool, typer.Option("--check-language/--no-check-language", help="Check that answers are in it.")
    ] = True,
    prompts: Annotated[
        Path | None,
        typer.Option("--prompts", metavar="FOLDER", help="Own prompts, LANGUAGE.txt; see the docs."),
    ] = None,
    round_trip: Annotated[
        str,
        typer.Option(
            "--round-trip",
            metavar="bm25|none|MODEL",
            help="What has to find a question's document among all: words, or an encoder of yours.",
        ),
    ] = WORDS,
    depth: Annotated[
        int, typer.Option("--depth", help="The document has to be among the first so many.")
    ] = 10,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask nobody; show what would be asked and what it can cost.")
    ] = False,
    format: o.FormatOption = None,
    id_field: o.IdFieldOption = None,
    text_field: o.TextFieldOption = None,
    title_field: o.TitleFieldOption = None,
    device: o.DeviceOption = None,
    as_json: o.JsonOption = False,
) -> None:
    """Ask a language model for questions that one long document answers, and check what it says.

    A passage of each document is drawn, a question about it asked for, and paired with the whole document (the recipe
    of MLDR). Answers are kept as they come: the same command again goes on where it was, and pays nothing twice.

    Example: triptych data synthesize articles.jsonl --out questions.jsonl --model my-model --token-budget 100000
    """
    from triptych.cli.options import Inputs
    from triptych.cli.show import emit, stdout
    from triptych.records import Fields
    from triptych.tools.synthesize.asking import Budget, Patience, Prices
    from triptych.tools.synthesize.client import Endpoint
    from triptych.tools.synthesize.passages import Sampling
    from triptych.tools.synthesize.questions import QuestionLimits
    from triptych.tools.synthesize.synthesize import QuestionRecipe, Synthesis, plan, synthesize

    source = Inputs(docs, format, Fields.of(id_field, text_field, title_field))
    read, count = _reread(source, limit)
    work = Synthesis(
        read,
        Endpoint(base_url, model, api_key or None, timeout, max_tokens, o.parse_pairs(set_, "--set")),
        QuestionRecipe(
            Sampling(min_document, min_passage, max_passage, per_document, seed),
            QuestionLimits(check_language=check_language),
            lang,
            prompts,
            depth,
        ),
        Patience(attempts, backoff, concurrency=concurrency),
    )
    spending = Budget(Prices(price_in, price_out), budget, token_budget)
    kept = answers or out.with_name(f"{out.name}.answers.sqlite")
    planned = plan(work, kept)
    source.note_skipped()
    if dry_run:
        most = planned.budget.in_flight
        cost = spending.prices.of(most)
        if as_json:
            emit({**planned.to_dict(), "most_tokens": most.total, "most_cost": round(cost, 6)})
        else:
            _show_plan(stdout(), planned, most.total, cost)
        return
    work = Synthesis(work.read, work.endpoint, work.recipe, work.patience, _finder(round_trip, device))
    with _steps(planned.unanswered, count) as step:
        report = synthesize(work, out, kept, spending, step)
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


def _finder(name: str, device: str | None) -> Finder | None:
    from triptych.cli.options import model_name
    from triptych.tools.synthesize.round_trip import LexicalFinder

    if name == NONE:
        return None
    if name == WORDS:
        return LexicalFinder()
    from triptych.encode.encoder import Encoder
    from triptych.tools.synthesize.round_trip import EncoderFinder

    return EncoderFinder(Encoder.from_pretrained(model_name(name), device=device))


@contextmanager
def _steps(requests: int, documents: int) -> Generator[Progress]:
    """A progress bar for each step, one after the other."""
    from triptych.cli.show import progress

    totals = {"asking": (requests, "answers")}
    with ExitStack() as stack:
        at: dict[str, int] = {}
        advance: Advance | None = None

        def step(name: str, done: int, _total: int | None) -> None:
            nonlocal advance
            if name not in at or advance is None:
                stack.close()
                at[name] = 0
                advance = stack.enter_context(progress(name, *totals.get(name, (documents, "documents"))))
            advance(done - at[name])
            at[name] = done

        yield step


def _show_plan(console: Console, report: SynthesisReport, tokens: int, cost: float) -> None:
    console.print(
        f"{report.documents:,} documents, {report.passages:,} passages, {report.known:,} answered already; "
        f"{report.unanswered:,} to ask, at most {tokens:,} tokens"
        + (f" and {cost:,.4f} in the prices given" if cost else "")
    )
    for why, count in report.skipped.most_common().items():
        console.print(f"{count:>8,}  {why}", style="yellow")


def _show(console: Console, report: SynthesisReport, out: Path) -> None:
    from rich.text import Text

    text = Text(f"{report.examples:,} questions", style="bold")
    text.append(f" on {report.documents:,} documents, in {out}", style="not bold")
    console.print(text, overflow="fold")
    languages = ", ".join(f"{name} {count:,}" for name, count in report.languages.most_common())
    console.print(Text("languages: ", style="dim").append(languages, style="not dim"))
    console.print(_costs(report))
    outcomes = report.outcomes
    for tally in (report.skipped, outcomes.repeated, outcomes.failed, report.dropped):
        for why, count in tally.most_common().items():
            note = "  (repeated)" if tally is outcomes.repeated else ""
            console.print(Text(f"{count:>8,}  {_meaning(why)}{note}", style="yellow"))
            if why in tally.first:
                console.print(Text(f"{'':10}{tally.first[why]}", style="dim"), overflow="fold")
    if report.unanswered:
        why = "the budget is used up" if report.outcomes.stopped else "the server gave no answer"
        console.print(
            Text(
                f"{report.unanswered:,} passages have no answer: {why}; the same command goes on", "bold red"
            )
        )


def _meaning(why: str) -> str:
    from triptych.tools.synthesize.questions import PROBLEMS

    return PROBLEMS.get(why, why)


def _costs(report: SynthesisReport) -> Table:
    from rich.table import Table

    budget = report.budget
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for name in ("answers", "tokens in", "tokens out", "cost"):
        table.add_column(name, justify="right")
    rows = (
        ("this run", report.outcomes.answered, budget.spent),
        ("lost on the way, at most", "", budget.lost),
        ("known before", report.known, report.before),
    )
    for name, answers, tokens in rows:
        if tokens.total or name == "this run":
            cost = "" if name == "known before" else f"{budget.prices.of(tokens):,.4f}"
            table.add_row(name, str(answers), f"{tokens.input:,}", f"{tokens.output:,}", cost)
    return table
