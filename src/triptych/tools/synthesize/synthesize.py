"""Questions about long documents from a language model, checked: the work of ``triptych data synthesize``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from annotated_types import Ge

from triptych.config import check_types, check_value
from triptych.errors import DataError, InputError
from triptych.io import json_lines
from triptych.records import Document
from triptych.text import Rank, fold, ranker, size
from triptych.tools.synthesize.asking import (
    AnswerStore,
    Budget,
    Outcomes,
    Patience,
    QuestionRequest,
    ask_all,
    key_of,
)
from triptych.tools.synthesize.client import NO_TOKENS, Answer, Endpoint, TokenCount
from triptych.tools.synthesize.passages import Sampling, Span, draw_passages
from triptych.tools.synthesize.questions import QuestionLimits, Style, clean, load_prompt, problem_of, repeats
from triptych.tools.synthesize.round_trip import Finder, Question
from triptych.tools.tally import Tally, shorten
from triptych.types import Progress

UNKNOWN = "und"
"""The language of a document of which nothing is known."""

Reread = Callable[[], Iterator[Document]]
"""Reads the same documents in the same order each time that it is called."""


@dataclass(frozen=True, slots=True)
class QuestionRecipe:
    """How questions are made.

    Attributes:
        sampling: How passages are drawn.
        limits: What a question may be.
        language: Language of documents that do not say theirs; None: it is identified.
        prompts: A folder with own prompts, LANGUAGE.txt; see docs/data-synthetic.md.
        prompt_style: Prompts of the package: with all rules, or with fewer and with examples, for small models.
        depth: A document has to be among the first so many that its question finds.
    """

    sampling: Sampling = field(default_factory=Sampling)
    limits: QuestionLimits = field(default_factory=QuestionLimits)
    language: str | None = None
    prompts: Path | None = None
    prompt_style: Style = "full"
    depth: Annotated[int, Ge(1)] = 10

    def __post_init__(self) -> None:
        check_types(self)
        if self.prompts is not None and not self.prompts.is_dir():
            raise InputError(f"prompts: got {self.prompts}; expected a folder")


class Drawn(NamedTuple):
    """A passage that is asked about, with the request for it."""

    document: Document
    span: Span
    language: str
    prompt: str
    request: QuestionRequest


@dataclass(slots=True)
class SynthesisReport:
    """What was made, what it cost, and what was dropped.

    Attributes:
        documents: How many were read.
        passages: How many were drawn from them.
        examples: How many questions were kept.
        known: Answers that were there before.
        languages: Questions by language.
        skipped: Documents without a passage, by reason.
        dropped: Answers that were not kept, by what is wrong with them (`questions.PROBLEMS`).
        outcomes: Of the requests of this run.
        budget: What they cost.
        before: Tokens of the answers that were there before.
        uncounted: Answers whose tokens the server did not count.
    """

    documents: int = 0
    passages: int = 0
    examples: int = 0
    known: int = 0
    languages: Counter[str] = field(default_factory=Counter[str])
    skipped: Tally[str, str] = field(default_factory=Tally[str, str])
    dropped: Tally[str, str] = field(default_factory=Tally[str, str])
    outcomes: Outcomes = field(default_factory=Outcomes)
    budget: Budget = field(default_factory=Budget)
    before: TokenCount = NO_TOKENS
    uncounted: int = 0

    @property
    def unanswered(self) -> int:
        """Passages without an answer: the server gave none, or the budget was used up."""
        return self.passages - self.known - self.outcomes.answered

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        budget = self.budget
        return {
            "documents": self.documents,
            "passages": self.passages,
            "examples": self.examples,
            "languages": dict(self.languages.most_common()),
            "answers": {"known": self.known, "new": self.outcomes.answered, "missing": self.unanswered},
            "tokens": {
                "input": budget.spent.input,
                "output": budget.spent.output,
                "lost": budget.lost.total,
                "known": self.before.total,
                "uncounted_answers": self.uncounted,
            },
            "cost": round(budget.cost, 6),
            "stopped_by_budget": self.outcomes.stopped,
            "repeated": self.outcomes.repeated.most_common(),
            "failed": self.outcomes.failed.most_common(),
            "passed_over": self.skipped.most_common(),
            "dropped": self.dropped.most_common(),
            "first": {**self.outcomes.failed.first, **self.dropped.first},
        }


@dataclass(frozen=True, slots=True)
class Synthesis:
    """Everything that questions are made with.

    Attributes:
        read: Reads the documents; it is called several times.
        endpoint: Which model is asked, and where.
        recipe: How questions are made.
        patience: With the server.
        finder: Makes the round trip; None: it is left away.
    """

    read: Reread
    endpoint: Endpoint
    recipe: QuestionRecipe = field(default_factory=QuestionRecipe)
    patience: Patience = field(default_factory=Patience)
    finder: Finder | None = None


def synthesize(
    work: Synthesis,
    out: Path | str,
    answers: Path | str,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> SynthesisReport:
    """Asks for what is not answered yet, checks all answers, and writes examples in the documents' order.

    Interrupted or ended by the budget, the same call goes on: every answer is in the file `answers` before the next
    request is made. With the same answers the output is the same, byte for byte.

    Args:
        work: What is done.
        out: JSON Lines to write, whole or not at all: ``query``, ``pos`` (the whole document), ``neg`` (empty), ``id``,
            ``lang``, ``source``.
        answers: The file of answers; it may serve several runs.
        budget: What may be spent in this run.
        progress: Called as the steps go on.

    Raises:
        DataError: For documents that cannot be read, or if no question remains.
        EndpointError: If the server refuses all requests; what was answered is kept.
        StorageError: If a file cannot be written.
        MissingExtra: If httpx or py3langid are needed and not installed.
    """
    out, answers = _paths(work, out, answers)
    report = SynthesisReport(budget=budget or Budget())
    rank = ranker(normalize=False) if work.recipe.limits.check_language or not work.recipe.language else None
    with AnswerStore(answers) as known:
        requests = _unknown(work, rank, known, report)
        report.outcomes = ask_all(requests, work.endpoint, known, report.budget, work.patience, progress)
        if report.outcomes.stopped:  # what was not reached is counted too
            for _ in requests:
                pass
        good = _good(work, rank, known, report, progress)
    kept = _keep_found(work, good, report)
    if not kept:
        report.dropped.add(report.skipped)
        reasons = f": {report.dropped}" if report.dropped.counts else ""
        raise DataError(f"no question of {report.passages} passages remains{reasons}")
    _write(work, rank, kept, out, report, progress)
    return report


def plan(work: Synthesis, answers: Path | str) -> SynthesisReport:
    """What `synthesize` would do, without asking anybody.

    Returns:
        Documents, passages, known answers, and in ``budget.in_flight`` the most that the others can cost.

    Raises:
        DataError: For documents that cannot be read.
    """
    _, answers = _paths(work, Path(), answers)
    report = SynthesisReport()
    rank = None if work.recipe.language else ranker(normalize=False)
    with AnswerStore(answers if answers.exists() else Path(":memory:")) as known:
        for request in _unknown(work, rank, known, report):
            report.budget.in_flight += work.endpoint.upper_bound(request.messages)
    return report


def _paths(work: Synthesis, out: Path | str, answers: Path | str) -> tuple[Path, Path]:
    check_value(work, Synthesis, "synthesize: work")
    check_value(work.read, Callable[[], Iterator[Document]], "synthesize: read")
    check_value(out, Path | str, "synthesize: out")
    check_value(answers, Path | str, "synthesize: answers")
    return Path(out), Path(answers)


def draw(work: Synthesis, document: Document, rank: Rank | None) -> list[Drawn]:
    """The passages of a document with the requests for them: a function of the document and the settings alone."""
    recipe, endpoint = work.recipe, work.endpoint
    spans = draw_passages(document.id, document.text, recipe.sampling)
    drawn: list[Drawn] = []
    for span in spans:
        language = _language(document, span.text, recipe, rank)
        prompt = load_prompt(language, recipe.prompts, recipe.prompt_style)
        messages = prompt.messages(document.title, span.text, language)
        key = key_of(endpoint.model, messages, endpoint.settings)
        drawn.append(
            Drawn(document, span, language, prompt.name, QuestionRequest(key, messages, document.id))
        )
    return drawn


def _unknown(
    work: Synthesis, rank: Rank | None, known: AnswerStore, report: SynthesisReport
) -> Iterator[QuestionRequest]:
    """Requests without an answer; counts what is read on the way."""
    drawn_before: set[bytes] = set()
    for document in work.read():
        report.documents += 1
        if size(document.text) < work.recipe.sampling.min_document:
            report.skipped.drop("shorter than a long document")
            continue
        drawn = draw(work, document, rank)
        if not drawn:
            report.skipped.drop("no passage that is fit")
        for each in drawn:
            if each.request.key in drawn_before:
                report.skipped.drop("a passage that another document has too")
                continue
            drawn_before.add(each.request.key)
            report.passages += 1
            answer = known.get(each.request.key)
            if answer is None:
                yield each.request
            else:
                report.known += 1
                report.before += TokenCount(answer.input_tokens, answer.output_tokens)


def _good(
    work: Synthesis, rank: Rank | None, known: AnswerStore, report: SynthesisReport, progress: Progress | None
) -> dict[bytes, Question]:
    """Questions that pass all checks but the round trip, by the keys of their answers."""
    good: dict[bytes, Question] = {}
    seen: set[str] = set()
    for number, each in _all(work, rank):
        if progress:
            progress("checking", number, None)
        answer = known.get(each.request.key)
        if answer is None or each.request.key in good:
            continue
        report.uncounted += not answer.counted
        question = clean(answer.text)
        problem = problem_of_answer(work, answer, question, each, rank)
        if problem is None and fold(question) in seen:
            problem = "repeated"
        if problem is None:
            seen.add(fold(question))
            good[each.request.key] = Question(question, each.document.id)
        else:
            report.dropped.drop(problem, shorten(answer.text or answer.finish, where=each.document.id))
    return good


def problem_of_answer(
    work: Synthesis, answer: Answer, question: str, each: Drawn, rank: Rank | None
) -> str | None:
    """What is wrong with an answer, or with the question that it holds; None if nothing is."""
    if answer.refused:
        return "refused"
    if answer.finish == "length":
        return "cut off"
    checker = None if each.language == UNKNOWN else rank
    limits = work.recipe.limits
    shown = [turn["content"] for turn in each.request.messages if turn["role"] == "assistant"]
    if repeats(question, shown):
        return "an example"
    return problem_of(question, each.span.text, each.language, limits, checker, each.document.content)


def _keep_found(work: Synthesis, good: dict[bytes, Question], report: SynthesisReport) -> dict[bytes, str]:
    """Those questions that find their documents."""
    if work.finder is None:
        return {key: asked.question for key, asked in good.items()}
    ranks = work.finder.ranks(work.read(), list(good.values()), work.recipe.depth)
    kept: dict[bytes, str] = {}
    for (key, asked), rank in zip(good.items(), ranks, strict=True):
        if rank is None:
            report.dropped.drop("not found", shorten(asked.question, where=asked.document))
        else:
            kept[key] = asked.question
    return kept


def _write(
    work: Synthesis,
    rank: Rank | None,
    kept: dict[bytes, str],
    out: Path,
    report: SynthesisReport,
    progress: Progress | None,
) -> None:
    left = dict(kept)
    with json_lines(out) as write:
        for number, each in _all(work, rank):
            if progress:
                progress("writing", number, None)
            question = left.pop(each.request.key, None)
            if question is not None:
                write(to_example(each, question, work.endpoint.model))
                report.examples += 1
                report.languages[each.language] += 1


def to_example(each: Drawn, question: str, model: str) -> dict[str, Any]:
    """The row that is written for a question."""
    document, span = each.document, each.span
    source = {"dataset": "synthetic", "model": model, "prompt": each.prompt, "document": document.id}
    source |= {"passage": [span.start, span.start + len(span.text)]}
    license = document.metadata.get("license", document.metadata.get("licence"))
    return {
        "query": question,
        "pos": [document.content],
        "neg": [],
        "id": f"{document.id}#{span.start}",
        "lang": each.language,
        "source": source if license is None else {**source, "license": license},
    }


def _all(work: Synthesis, rank: Rank | None) -> Iterator[tuple[int, Drawn]]:
    """All passages, with the number of documents read so far."""
    for number, document in enumerate(work.read(), start=1):
        if size(document.text) >= work.recipe.sampling.min_document:
            for each in draw(work, document, rank):
                yield number, each


def _language(document: Document, passage: str, recipe: QuestionRecipe, rank: Rank | None) -> str:
    said = document.metadata.get("lang", document.metadata.get("language"))
    if isinstance(said, str) and said:
        return said
    if recipe.language:
        return recipe.language
    if rank is None:
        return UNKNOWN
    return rank(passage[:1000])[0][0]
