"""`triptych data synthesize`."""

import json
from pathlib import Path

import pytest

from tools.synthesize import server as s
from tools.synthesize.conftest import document, question_about

from .conftest import Run

OPTIONS = ("--model", "tiny", "--min-document", 300, "--min-passage", 100, "--backoff", 0.01)


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    path = tmp_path / "docs.jsonl"
    made = [document(i) for i in range(6)]
    rows = [{"id": each.id, "title": each.title, "text": each.text, "lang": "en"} for each in made]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_data_synthesize_shows_what_was_made_and_what_it_cost(run: Run, docs: Path, tmp_path: Path) -> None:
    out = tmp_path / "q.jsonl"
    model = s.Model(s.answer(question_about), faults=[s.status(500), s.raw(s.completion("NONE"))])
    with s.serving(model):
        env = {"OPENAI_BASE_URL": model.url, "OPENAI_API_KEY": "k"}
        prices = ("--price-in", 2, "--price-out", 10, "--set", "temperature=0.7", "--concurrency", 1)
        done = run("data", "synthesize", docs, "--out", out, *OPTIONS, *prices, env=env)
        assert done.code == 0, done.err
        shown = " ".join(done.out.split())
        for part in (
            "5 questions on 6 documents",
            "languages: en 5",
            "this run 6 600 60 0.0018",
            "1 status 500 (repeated)",
            "1 the model found nothing worth asking",
        ):
            assert part in shown, part
        assert model.headers["authorization"] == "Bearer k"
        assert model.requests[0]["temperature"] == 0.7
        again = run(
            "data", "synthesize", docs, "--out", out, *OPTIONS, "--set", "temperature=0.7", "--json", env=env
        )
    (report,) = again.lines
    assert report["answers"] == {"known": 6, "new": 0, "missing": 0}
    assert (report["examples"], report["dropped"]) == (5, {"nothing to ask": 1})
    assert len(model.requests) == 7
    assert run("data", "check", out, "--no-tokens", "--no-languages").code == 0


def test_data_synthesize_ends_at_its_budget_and_says_so(run: Run, docs: Path, tmp_path: Path) -> None:
    with s.serving(s.Model(s.answer(question_about))) as model:
        arguments = (
            "data",
            "synthesize",
            docs,
            "--out",
            tmp_path / "q.jsonl",
            *OPTIONS,
            "--base-url",
            model.url,
        )
        done = run(*arguments, "--token-budget", 1800)
        assert done.code == 0, done.err
        assert "have no answer: the budget is used up" in " ".join(done.out.split())
        assert len(model.requests) < 6
        assert "6 questions" in run(*arguments).out
        assert len(model.requests) == 6


def test_data_synthesize_with_an_encoder_that_has_to_find_the_document(
    run: Run, docs: Path, folder: Path, tmp_path: Path
) -> None:
    with s.serving(s.Model(s.answer(question_about))) as model:
        arguments = (
            "data",
            "synthesize",
            docs,
            "--out",
            tmp_path / "q.jsonl",
            *OPTIONS,
            "--base-url",
            model.url,
        )
        (report,) = run(*arguments, "--round-trip", folder, "--depth", 6, "--json").lines
        assert report["examples"] == 6
        (report,) = run(*arguments, "--round-trip", "none", "--json").lines
        assert report["examples"] == 6
    assert len(model.requests) == 6


def test_a_dry_run_asks_nobody(run: Run, docs: Path, tmp_path: Path) -> None:
    arguments = (
        "data",
        "synthesize",
        docs,
        "--out",
        tmp_path / "q.jsonl",
        *OPTIONS,
        "--dry-run",
        "--limit",
        4,
    )
    done = run(*arguments, "--base-url", "http://127.0.0.1:9/v1", "--price-in", 1)
    assert done.code == 0, done.err
    assert "4 documents, 4 passages, 0 answered already; 4 to ask, at most" in " ".join(done.out.split())
    (report,) = run(*arguments, "--json").lines
    assert report["answers"]["missing"] == 4
    assert report["most_tokens"] > 1000


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--budget", 1), 2, "a limit in money without prices"),
        (("--base-url", "localhost"), 2, "expected an address such as"),
        (("--base-url", "http://127.0.0.1:9/v1", "--attempts", 1), 1, "127.0.0.1:9/v1: no answer for"),
        (("--limit", 0), 2, "--limit: got 0"),
        (("--set", "temperature"), 2, "expected key=value"),
        (("--per-document", 0), 2, "per_document: got 0"),
    ],
)
def test_data_synthesize_with_wrong_arguments_is_one_clear_line(
    run: Run, docs: Path, tmp_path: Path, arguments: tuple[object, ...], code: int, message: str
) -> None:
    extra = ("--per-document", 3) if "--attempts" in arguments else ()
    done = run("data", "synthesize", docs, "--out", tmp_path / "q.jsonl", *OPTIONS, *extra, *arguments)
    assert (done.code, message in done.err) == (code, True), done.err
    assert done.err.count("\n") == 1


def test_standard_input_cannot_be_read_several_times(run: Run, tmp_path: Path) -> None:
    done = run("data", "synthesize", "-", "--out", tmp_path / "q.jsonl", *OPTIONS, stdin='{"text": "x"}')
    assert done.code == 2
    assert "expected files or folders" in done.err
