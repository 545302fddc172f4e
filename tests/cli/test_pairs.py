"""`triptych data pairs`: files, tables, JSON, settings, and what is wrong with an order."""

import json
from pathlib import Path

import pytest

from triptych.collections.training import read_examples

from .conftest import Run

TEXT = {
    "en": "The water is heated in the lower part of the pot and rises through the ground coffee.",
    "de": "Das Wasser wird im unteren Teil der Kanne erhitzt und steigt durch das Kaffeepulver nach oben.",
}


@pytest.fixture
def manual(tmp_path: Path) -> Path:
    for lang, text in TEXT.items():
        folder = tmp_path / "manual" / lang
        folder.mkdir(parents=True)
        (folder / "pot.md").write_text(
            f"# The {lang} pot\n\n{text}\n\n## Why {lang}?\n\n{text} Yes.\n", "utf-8"
        )
        (folder / "picture.png").write_bytes(b"\x89PNG")
    return tmp_path / "manual"


def test_pairs_are_written_for_training_and_shown(run: Run, manual: Path, tmp_path: Path) -> None:
    done = run("data", "pairs", manual, "--out", tmp_path / "out", "--languages-in-paths", "--workers", 1)
    assert done.code == 0, done.err
    for part in (
        "pairs of",
        "source",
        "kind",
        "language",
        "question-answer",
        "ordered pairs of different languages",
    ):
        assert part in done.out
    assert "skipped 2 files: unknown kind (picture.png, picture.png)" in done.err
    examples = [example for _, example in read_examples(tmp_path / "out" / "pairs")]
    assert {"Why de?", "Why en?"} <= {example.query for example in examples}
    assert {example.language for example in examples} == {"de", "en"}
    assert (tmp_path / "out" / "report.svg").read_text().startswith("<?xml")
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert settings["origin"]["languages_in_paths"] is True


def test_json_is_one_object_and_a_second_call_shows_the_same(run: Run, manual: Path, tmp_path: Path) -> None:
    order = (
        "data",
        "pairs",
        manual,
        "--out",
        tmp_path / "out",
        "--json",
        "--no-plot",
        "--kinds",
        "title-body",
    )
    first, second = run(*order, "--language", "en"), run(*order, "--language", "en")
    assert first.code == 0, first.err
    assert first.lines == second.lines
    (summary,) = first.lines
    assert summary["made"] == 2
    assert summary["dropped"] == {"language": 1}
    assert summary["texts"]["documents"] == 2
    assert not (tmp_path / "out" / "report.svg").exists()


def test_evaluation_files_and_a_model_drop_pairs(
    run: Run, manual: Path, folder: Path, tmp_path: Path
) -> None:
    held = tmp_path / "queries.jsonl"
    held.write_text(json.dumps({"_id": "1", "query": TEXT["en"]}) + "\n")
    order = ("data", "pairs", manual, "--out", tmp_path / "out", "--json", "--no-plot", "--against", held)
    done = run(
        *order, "--model", folder, "--device", "cpu", "--set", "consistency.top=1", "--set", "near=0.95"
    )
    assert done.code == 0, done.err
    (summary,) = done.lines
    assert summary["dropped"]["contamination"] > 0
    assert summary["kept"] == summary["made"] - sum(summary["dropped"].values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--kinds", "titles"), "got 'titles'; expected some of title-body"),
        (("--filters", "short"), "got 'short'; expected some of length"),
        (("--set", "limits.passage=3"), "unknown key 'limits.passage'; did you mean 'limits.passage_chars'?"),
        (("--set", "near=high"), "near is 'high'; expected a value such as 0.8"),
        (("--set", "kinds=x"), "unknown key 'kinds'"),
        (("--workers", "0"), "workers: got 0"),
        (("--against", "none.jsonl"), "none.jsonl"),
    ],
)
def test_an_order_that_means_nothing_is_an_error(
    options: tuple[str, str], message: str, run: Run, manual: Path, tmp_path: Path
) -> None:
    done = run("data", "pairs", manual, "--out", tmp_path / "out", *options)
    assert done.code == 2
    assert message in done.err
    assert len(done.err.splitlines()) == 1
