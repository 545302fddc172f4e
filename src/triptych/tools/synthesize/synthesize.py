"""Questions about long documents from a language model, checked: the work of ``triptych data synthesize``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from triptych.errors import DataError, InputError
from triptych.io import json_lines
from triptych.records import Document
from triptych.tools.synthesize.asking import Patience, Request, Tally, ask_all, load_prompt
from triptych.tools.synthesize.client import NO_TOKENS, Answer, Answers, Budget, Endpoint, Tokens, key_of
from triptych.tools.synthesize.passages import Asked, Finder, Sampling, Span, draw_passages, size
from triptych.tools.synthesize.questions import (
    Limits,
    Ranks,
    cleaned,
    language_ranks,
    normal,
    problem_of,
)

UNKNOWN = "und"
"""The language of a document of which nothing is known."""

Progress = Callable[[str, int], None]
"""Called with the name of a step and how much of it is done: "asking" in requests, "checking" in documents, …"""
Reread = Callable[[], Iterator[Document]]
"""Reads the same documents in the same order each time that it is called."""

_SHOWN = 160


@dataclass(frozen=True, slots=True)
class Recipe:
    """How questions are made.

    Attributes:
        sampling: How passages are drawn.
        limits: What a question may be.
        language: Of all documents, where they do not say; None: it is identified.
        prompts: A folder with own prompts; see `triptych.tools.synthesize.asking`.
        depth: A document has to be among the first so many that its question finds.
    """

    sampling: Sampling = field(default_factory=Sampling)
    limits: Limits = field(default_factory=Limits)
    language: str | None = None
    prompts: Path | None = None
    depth: int = 10

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise InputError(f"depth: got {self.depth}; expected 1 or more")


class Drawn(NamedTuple):
    """A passage that is asked about, with the request for it."""

    document: Document
    span: Span
    language: str
    prompt: str
    request: Request


@dataclass(slots=True)
class Report:
    """What was made, what it cost, and what was dropped.

    Attributes:
        documents: How many were read.
        passages: How many were drawn from them.
        examples: How many questions were kept.
        known: Answers that were there before.
        languages: Questions by language.
        passed_over: Documents without a passage, by reason.
        dropped: Answers that were not kept, by what is wrong with them (`questions.PROBLEMS`).
        first: By such a reason, the first example.
        tally: What became of the requests of this run.
        budget: What they cost.
        before: Tokens of the answers that were there before.
        uncounted: Answers whose tokens the server did not count.
    """

    documents: int = 0
    passages: int = 0
    examples: int = 0
    known: int = 0
    languages: Counter[str] = field(default_factory=Counter[str])
    passed_over: Counter[str] = field(default_factory=Counter[str])
    dropped: Counter[str] = field(default_factory=Counter[str])
    first: dict[str, str] = field(default_factory=dict[str, str])
    tally: Tally = field(default_factory=Tally)
    budget: Budget = field(default_factory=Budget)
    before: Tokens = NO_TOKENS
    uncounted: int = 0

    @property
    def unanswered(self) -> int:
        """Passages without an answer: the server gave none, or the budget was used up."""
        return self.passages - self.known - self.tally.answered

    def drop(self, why: str, about: str, text: str) -> None:
        """Counts an answer that is not kept."""
        self.dropped[why] += 1
        shown = " ".join(text.split())
        self.first.setdefault(why, f"{about}: {shown[:_SHOWN]}" + ("…" if len(shown) > _SHOWN else ""))

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        budget = self.budget
        return {
            "documents": self.documents,
            "passages": self.passages,
            "examples": self.examples,
            "languages": dict(self.languages.most_common()),
            "answers": {"known": self.known, "new": self.tally.answered, "missing": self.unanswered},
            "tokens": {
                "input": budget.spent.input,
                "output": budget.spent.output,
                "lost": budget.lost.total,
                "known": self.before.total,
                "uncounted_answers": self.uncounted,
            },
            "cost": round(budget.cost, 6),
            "stopped_by_budget": self.tally.stopped,
            "repeated": dict(self.tally.repeated.most_common()),
            "failed": dict(self.tally.failed.most_common()),
            "passed_over": dict(self.passed_over.most_common()),
            "dropped": dict(self.dropped.most_common()),
            "first": {**self.tally.first, **self.first},
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
    recipe: Recipe = field(default_factory=Recipe)
    patience: Patience = field(default_factory=Patience)
    finder: Finder | None = None


def synthesize(
    work: Synthesis, out: Path, answers: Path, budget: Budget | None = None, progress: Progress | None = None
) -> Report:
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
    report = Report(budget=budget or Budget())
    ranks = language_ranks() if work.recipe.limits.check_language or not work.recipe.language else None
    tell = progress or _quiet
    with Answers(answers) as known:
        requests = _unknown(work, ranks, known, report)
        report.tally = ask_all(
            requests, work.endpoint, known, report.budget, work.patience, lambda done, _: tell("asking", done)
        )
        if report.tally.stopped:  # what was not reached is counted too
            for _ in requests:
                pass
        good = _good(work, ranks, known, report, tell)
    kept = _found(work, good, report)
    if not kept:
        reasons = "; ".join(
            f"{count} × {why}" for why, count in (report.dropped + report.passed_over).most_common()
        )
        raise DataError(
            f"no question of {report.passages} passages remains{': ' if reasons else ''}{reasons}"
        )
    _write(work, ranks, kept, out, report, tell)
    return report


def plan(work: Synthesis, answers: Path) -> Report:
    """What `synthesize` would do, without asking anybody.

    Returns:
        Documents, passages, known answers, and in ``budget.on_way`` the most that the others can cost.

    Raises:
        DataError: For documents that cannot be read.
    """
    report = Report()
    ranks = None if work.recipe.language else language_ranks()
    with Answers(answers if answers.exists() else Path(":memory:")) as known:
        for request in _unknown(work, ranks, known, report):
            report.budget.on_way = report.budget.on_way.plus(work.endpoint.most(request.messages))
    return report


def draw(work: Synthesis, document: Document, ranks: Ranks | None) -> list[Drawn]:
    """The passages of a document with the requests for them: a function of the document and the settings alone."""
    recipe, endpoint = work.recipe, work.endpoint
    spans = draw_passages(document.id, document.text, recipe.sampling)
    drawn: list[Drawn] = []
    for span in spans:
        language = _language(document, span.text, recipe, ranks)
        prompt = load_prompt(language, recipe.prompts)
        messages = prompt.messages(document.title, span.text, language)
        key = key_of(endpoint.model, messages, endpoint.settings)
        drawn.append(Drawn(document, span, language, prompt.name, Request(key, messages, document.id)))
    return drawn


def _quiet(step: str, done: int) -> None:
    """No progress."""


def _unknown(work: Synthesis, ranks: Ranks | None, known: Answers, report: Report) -> Iterator[Request]:
    """Requests without an answer; counts what is read on the way."""
    drawn_before: set[bytes] = set()
    for document in work.read():
        report.documents += 1
        if size(document.text) < work.recipe.sampling.min_document:
            report.passed_over["shorter than a long document"] += 1
            continue
        drawn = draw(work, document, ranks)
        if not drawn:
            report.passed_over["no passage that is fit"] += 1
        for each in drawn:
            if each.request.key in drawn_before:
                report.passed_over["a passage that another document has too"] += 1
                continue
            drawn_before.add(each.request.key)
            report.passages += 1
            answer = known.get(each.request.key)
            if answer is None:
                yield each.request
            else:
                report.known += 1
                report.before = report.before.plus(Tokens(answer.input_tokens, answer.output_tokens))


def _good(
    work: Synthesis, ranks: Ranks | None, known: Answers, report: Report, tell: Progress
) -> dict[bytes, Asked]:
    """Questions that pass all checks but the round trip, by the keys of their answers."""
    good: dict[bytes, Asked] = {}
    seen: set[str] = set()
    for number, each in _all(work, ranks):
        tell("checking", number)
        answer = known.get(each.request.key)
        if answer is None or each.request.key in good:
            continue
        report.uncounted += not answer.counted
        question = cleaned(answer.text)
        problem = _problem(answer, question, each, work, ranks)
        if problem is None and normal(question) in seen:
            problem = "repeated"
        if problem is None:
            seen.add(normal(question))
            good[each.request.key] = Asked(question, each.document.id)
        else:
            report.drop(problem, each.document.id, answer.text or answer.finish)
    return good


def _problem(answer: Answer, question: str, each: Drawn, work: Synthesis, ranks: Ranks | None) -> str | None:
    if answer.refused:
        return "refused"
    if answer.finish == "length":
        return "cut off"
    checker = None if each.language == UNKNOWN else ranks
    return problem_of(question, each.span.text, each.language, work.recipe.limits, checker)


def _found(work: Synthesis, good: dict[bytes, Asked], report: Report) -> dict[bytes, str]:
    """Those questions that find their documents."""
    if work.finder is None:
        return {key: asked.question for key, asked in good.items()}
    ranks = work.finder.ranks(work.read(), list(good.values()), work.recipe.depth)
    kept: dict[bytes, str] = {}
    for (key, asked), rank in zip(good.items(), ranks, strict=True):
        if rank is None:
            report.drop("not found", asked.document, asked.question)
        else:
            kept[key] = asked.question
    return kept


def _write(
    work: Synthesis, ranks: Ranks | None, kept: dict[bytes, str], out: Path, report: Report, tell: Progress
) -> None:
    left = dict(kept)
    with json_lines(out) as write:
        for number, each in _all(work, ranks):
            tell("writing", number)
            question = left.pop(each.request.key, None)
            if question is not None:
                write(_example(each, question, work.endpoint.model))
                report.examples += 1
                report.languages[each.language] += 1


def _example(each: Drawn, question: str, model: str) -> dict[str, Any]:
    document, span = each.document, each.span
    source = {"dataset": "synthetic", "model": model, "prompt": each.prompt, "document": document.id}
    source |= {"passage": [span.start, span.start + len(span.text)]}
    licence = document.metadata.get("licence", document.metadata.get("license"))
    return {
        "query": question,
        "pos": [document.content],
        "neg": [],
        "id": f"{document.id}#{span.start}",
        "lang": each.language,
        "source": source if licence is None else {**source, "licence": licence},
    }


def _all(work: Synthesis, ranks: Ranks | None) -> Iterator[tuple[int, Drawn]]:
    """All passages, with the number of documents read so far."""
    for number, document in enumerate(work.read(), start=1):
        if size(document.text) >= work.recipe.sampling.min_document:
            for each in draw(work, document, ranks):
                yield number, each


def _language(document: Document, passage: str, recipe: Recipe, ranks: Ranks | None) -> str:
    said = document.metadata.get("lang", document.metadata.get("language"))
    if isinstance(said, str) and said:
        return said
    if recipe.language:
        return recipe.language
    if ranks is None:
        return UNKNOWN
    found = ranks(passage)
    return max(found, key=lambda name: found[name])
