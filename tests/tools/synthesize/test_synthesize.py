"""Documents in, checked questions out: what is written, what is counted, and what is never paid twice."""

import json
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from triptych.collections.training import read_examples
from triptych.errors import DataError, EndpointError, InputError
from triptych.records import Document
from triptych.tools.synthesize.asking import Budget, Patience
from triptych.tools.synthesize.passages import Sampling
from triptych.tools.synthesize.questions import QuestionLimits
from triptych.tools.synthesize.round_trip import LexicalFinder
from triptych.tools.synthesize.synthesize import (
    QuestionRecipe,
    Synthesis,
    SynthesisReport,
    plan,
    synthesize,
)

from . import server as s
from .conftest import document, endpoint, question_about

SAMPLING = Sampling(min_document=300, min_passage=100, max_passage=400)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def work(model: s.Model, documents: Sequence[Document], patience: Patience, **recipe: Any) -> Synthesis:
    made = QuestionRecipe(**{"sampling": SAMPLING, **recipe})
    return Synthesis(lambda: iter(documents), endpoint(model), made, patience, LexicalFinder())


def good() -> s.Model:
    return s.Model(s.answer(question_about))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_a_question_is_paired_with_the_whole_document(
    documents: list[Document], hasty: Patience, out: Path, answers: Path
) -> None:
    with s.serving(good()) as model:
        report = synthesize(work(model, documents, hasty), out, answers)
    rows = lines(out)
    assert [row["source"]["document"] for row in rows] == [each.id for each in documents]
    for row, each in zip(rows, documents, strict=True):
        assert row["pos"] == [each.content]
        start, end = row["source"]["passage"]
        asked = next(body for body in model.requests if each.text[start:end] in s.passage_of(body))
        assert row["query"] == question_about(s.passage_of(asked))
        assert (row["neg"], row["lang"], row["id"]) == ([], "en", f"{each.id}#{start}")
        assert (row["source"]["model"], row["source"]["prompt"]) == ("tiny", "en")
        assert each.title in s.passage_of(asked)
    assert len(list(read_examples(out))) == 12
    assert (report.documents, report.passages, report.examples, report.unanswered) == (12, 12, 12, 0)
    assert report.languages == {"en": 12}


def test_the_output_is_the_same_whatever_the_order_of_the_answers(
    documents: list[Document], out: Path, tmp_path: Path
) -> None:
    found = []
    for concurrency in (1, 6):
        with s.serving(good()) as model:
            patience = Patience(base=0.001, concurrency=concurrency)
            synthesize(work(model, documents, patience), out, tmp_path / f"{concurrency}.sqlite")
        found.append(out.read_bytes())
    assert found[0] == found[1]


def test_a_second_run_pays_nothing(
    documents: list[Document], hasty: Patience, out: Path, answers: Path
) -> None:
    with s.serving(good()) as model:
        first = synthesize(work(model, documents, hasty), out, answers)
        before, again = out.read_bytes(), synthesize(work(model, documents, hasty), out, answers)
    assert len(model.requests) == 12
    assert out.read_bytes() == before
    assert (again.known, again.outcomes.answered, again.budget.spent.total) == (12, 0, 0)
    assert again.before == first.budget.spent


def test_more_questions_of_a_document_ask_only_for_the_new_ones(
    documents: list[Document], hasty: Patience, out: Path, answers: Path
) -> None:
    with s.serving(good()) as model:
        synthesize(work(model, documents, hasty), out, answers)
        more = Sampling(300, 100, 400, per_document=3)
        report = synthesize(work(model, documents, hasty, sampling=more), out, answers)
    assert (report.known, report.outcomes.answered, report.examples) == (12, 24, 36)
    assert len({row["query"] for row in lines(out)}) == 36


def test_a_passage_that_two_documents_have_is_paid_once(hasty: Patience, out: Path, answers: Path) -> None:
    one = document(0)
    twins = [one, Document("twin", one.text, one.title, one.metadata)]
    with s.serving(good()) as model:
        everything = Sampling(300, 100, 400, per_document=9)
        report = synthesize(work(model, twins, hasty, sampling=everything), out, answers)
    assert len(model.requests) == report.passages == 3
    assert report.skipped.counts == {"a passage that another document has too": 3}


def test_the_budget_ends_a_run_and_the_next_goes_on(
    documents: list[Document], hasty: Patience, out: Path, answers: Path
) -> None:
    with s.serving(good()) as model:
        first = synthesize(work(model, documents, hasty), out, answers, Budget(tokens=2200))
        assert first.outcomes.stopped
        assert 0 < first.examples < 12
        assert first.passages == 12
        assert first.unanswered == 12 - first.outcomes.answered
        assert first.budget.spent.total <= 2200
        second = synthesize(work(model, documents, hasty), out, answers)
    assert len(model.requests) == 12
    assert (second.known, second.examples) == (first.outcomes.answered, 12)


def test_what_is_interrupted_by_a_dead_server_goes_on(
    documents: list[Document], hasty: Patience, out: Path, answers: Path
) -> None:
    with s.serving(good()) as model:
        ok = s.answer(question_about)
        model.faults = [ok, ok, ok, *[s.status(500)] * 1000]
        with pytest.raises(EndpointError):
            synthesize(work(model, documents, hasty), out, answers)
        assert not out.exists()
        model.faults.clear()
        report = synthesize(work(model, documents, hasty), out, answers)
    assert (report.known, report.outcomes.answered, report.examples) == (3, 9, 12)
    assert Counter(model.answered).most_common(1)[0][1] == 1


CHILD = """
import sys
from pathlib import Path
from triptych.cli.app import app
app(sys.argv[1:])
"""


def test_a_process_that_is_killed_in_the_middle_pays_nothing_twice(
    documents: list[Document], out: Path, answers: Path, tmp_path: Path
) -> None:
    source = tmp_path / "docs.jsonl"
    rows = [{"id": each.id, "title": each.title, "text": each.text, "lang": "en"} for each in documents]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    held, go_on = threading.Event(), threading.Event()

    def hold(handler: s.Handler, body: dict[str, Any]) -> None:
        held.set()
        go_on.wait(30)
        handler.close_connection = True

    ok = s.answer(question_about)
    arguments = [
        "data",
        "synthesize",
        str(source),
        "--out",
        str(out),
        "--model",
        "tiny",
        "--answers",
        str(answers),
    ]
    arguments += ["--min-document", "300", "--min-passage", "100", "--concurrency", "1", "--backoff", "0.01"]
    with s.serving(s.Model(ok, faults=[ok] * 5 + [hold])) as model:
        command = [sys.executable, "-c", CHILD, *arguments, "--base-url", model.url]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        assert held.wait(60)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        go_on.set()
        paid = list(model.answered)
        assert len(paid) == 5
        assert not out.exists()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "12 questions on 12 documents" in " ".join(done.stdout.split())
    assert Counter(model.answered) == Counter(dict.fromkeys(model.answered, 1))
    assert len(model.answered) == 12
    assert len(lines(out)) == 12
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def bad(cases: dict[int, str], **options: Any) -> Callable[[s.Handler, dict[str, Any]], None]:
    """Answers that are wrong for some documents, by the town's number."""
    by_title = {document(i).title: text for i, text in cases.items()}

    def make(asked: str) -> str:
        return next((text for title, text in by_title.items() if str(title) in asked), question_about(asked))

    return s.answer(make, **options)


def test_every_answer_that_is_dropped_is_counted_with_an_example(
    documents: list[Document], hasty: Patience, out: Path, answers: Path
) -> None:
    cases = {
        0: "",
        1: "NONE",
        2: "I'm sorry, but I cannot help with that.",
        3: "Who was it? When was it?",
        4: "The weavers of Erice.",
        5: "What does this passage say about the weavers of Faro?",
        6: "Wann zerstörte ein Feuer das Werkzeug der Weber von Gouda?",
        7: "Which sea fish must the coopers of cieszyn give away?",
        8: "When did the coopers from bled move their guild to a place near arvika?",
        9: "Did a fire destroy the tools of the coopers of Bled?",
        10: "Why did the coopers of Cieszyn move to London?",
    }
    with s.serving(s.Model(bad(cases))) as model:
        report = synthesize(work(model, documents, hasty, depth=2), out, answers)
    assert report.dropped.counts == {
        "empty": 1,
        "nothing to ask": 1,
        "refused": 1,
        "not one question": 1,
        "not a question": 1,
        "refers to the text": 1,
        "other language": 1,
        "yes or no": 1,
        "invented": 1,
        "not found": 1,
    }
    assert report.dropped.first["not found"] == f"d7: {cases[7]}"
    assert report.dropped.first["refused"] == f"d2: {cases[2]}"
    assert report.examples + report.dropped.counts.total() == report.passages == 12


def test_answers_that_were_cut_off_or_filtered_are_counted(
    documents: list[Document], hasty: Patience, out: Path, answers: Path
) -> None:
    model = good()
    model.faults = [
        s.raw(s.completion("Which fish did the", finish="length")),
        s.status(400, "filtered", code="content_filter"),
        s.raw(s.completion(question_about(documents[2].content), usage=None)),
    ]
    with s.serving(model):
        report = synthesize(work(model, documents, hasty), out, answers)
    assert report.dropped.counts == {"cut off": 1, "refused": 1}
    assert report.uncounted == 1


def test_a_question_that_was_asked_about_another_document_is_dropped(
    documents: list[Document], hasty: Patience, out: Path, answers: Path
) -> None:
    same = "Which fish did the weavers from Arvika owe to their bishop?"
    with s.serving(s.Model(bad({0: same, 8: same.replace("the", "THE")}))) as model:
        report = synthesize(work(model, documents, hasty), out, answers)
    assert report.dropped.counts == {"repeated": 1}


def test_short_and_unfit_documents_are_passed_over_and_count_as_rivals(
    documents: list[Document], hasty: Patience, out: Path, answers: Path
) -> None:
    short = Document("short", "A short one.", None, {"lang": "en"})
    numbers = Document("numbers", "1 2 3 4 5 6 7 8\n" * 60, None, {"lang": "en"})
    with s.serving(good()) as model:
        report = synthesize(work(model, [short, numbers, *documents], hasty), out, answers)
    assert report.skipped.counts == {"shorter than a long document": 1, "no passage that is fit": 1}
    assert (report.documents, report.examples) == (14, 12)


def test_the_language_is_what_the_document_says_then_the_recipe_then_identified(
    hasty: Patience, out: Path, answers: Path
) -> None:
    german = (
        "Die Weber von Arvika hatten ihr Zunfthaus am Fluss und zahlten dem Bischof jeden Winter ein Fass Heringe für "
        "das Recht, die Brücke zu benutzen, bis im Jahr 1512 ein Brand in einer Bäckerei vierzig Häuser zerstörte. "
    )
    documents = [Document("said", german * 3, "A", {"lang": "nl"}), Document("found", german * 3 + "x", "B")]
    model = s.Model(s.answer(lambda asked: "Wann brannte das Zunfthaus der Weber in Arvika?"))
    with s.serving(model):
        prompts = []
        for recipe in ({}, {"language": "fr"}):
            found = work(model, documents, hasty, limits=QuestionLimits(check_language=False), **recipe)
            synthesize(found, out, answers.with_name(f"{len(prompts)}.sqlite"))
            prompts.append([body["messages"][0]["content"].split()[0] for body in model.requests])
            model.requests.clear()
    assert prompts == [["Je", "Du"], ["Je", "Tu"]]


def test_when_nothing_remains_it_is_an_error_that_says_why(hasty: Patience, out: Path, answers: Path) -> None:
    with (
        s.serving(s.Model(s.answer(lambda _: "NONE"))) as model,
        pytest.raises(DataError, match="1 × nothing to ask"),
    ):
        synthesize(work(model, [document(0)], hasty), out, answers)
    assert not out.exists()


def test_the_plan_asks_nobody_and_bounds_the_cost(
    documents: list[Document], hasty: Patience, out: Path, answers: Path
) -> None:
    with s.serving(good()) as model:
        planned: SynthesisReport = plan(work(model, documents, hasty), answers)
        assert model.requests == []
        assert not answers.exists()
        report = synthesize(
            work(model, documents, hasty), out, answers, Budget(tokens=planned.budget.in_flight.total)
        )
    assert planned.passages == planned.unanswered == 12
    assert not report.outcomes.stopped
    assert report.budget.spent.total <= planned.budget.in_flight.total


def test_progress_is_told_step_by_step(
    documents: list[Document], hasty: Patience, out: Path, answers: Path
) -> None:
    seen: list[tuple[str, int, int | None]] = []
    with s.serving(good()) as model:
        synthesize(work(model, documents, hasty), out, answers, progress=lambda *step: seen.append(step))
    assert seen == [(step, i, None) for step in ("asking", "checking", "writing") for i in range(1, 13)]


def test_a_license_is_carried_over(hasty: Patience, out: Path, answers: Path) -> None:
    with s.serving(good()) as model:
        synthesize(work(model, [document(0, license="CC BY 4.0")], hasty), out, answers)
    assert lines(out)[0]["source"]["license"] == "CC BY 4.0"


def test_a_depth_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(InputError, match="depth: got 0"):
        QuestionRecipe(depth=0)
