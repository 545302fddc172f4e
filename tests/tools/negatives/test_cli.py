import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from triptych.cli.app import app

from .made import read_lines, write_corpus, write_training


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mine")
    write_training(folder / "train.jsonl", write_corpus(folder / "corpus.jsonl"))
    return folder


def run(place: Path, folder: Path, *arguments: object) -> Result:
    command = ["mine-negatives", place / "train.jsonl", "--corpus", place / "corpus.jsonl", "--model", folder]
    command += ["--device", "cpu", "--dtype", "float32", *arguments]
    return CliRunner().invoke(app, [str(part) for part in command], env={"COLUMNS": "120", "TERM": "dumb"})


def test_the_command_writes_negatives_and_says_what_it_dropped(place, folder, tmp_path):
    out = tmp_path / "out.jsonl"
    options = ("--ranks", "2:40", "--keep", "3", "--weights", "1,0.5,0", "--margin", "98%,0.01")
    done = run(place, folder, "-o", out, *options)
    assert done.exit_code == 0, done.stderr
    assert "scored too near to the positive" in done.stdout
    assert "30 queries" in done.stdout
    records = read_lines(out)
    assert len(records) == 30
    assert max(len(record["neg"]) for record in records) == 3
    report = json.loads((tmp_path / "out.jsonl.report.json").read_text())
    assert report["candidates"] == report["negatives"] + sum(report["dropped"].values())
    again = run(place, folder, "-o", out, *options, "--json")
    assert json.loads(again.stdout)["candidates"] == report["candidates"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--ranks", "2-200"), "--ranks: got '2-200'"),
        (("--margin", "near"), "margin: got 'near'"),
        (("--weights", "1,2"), "--weights: got '1,2'"),
        (("--routes", "sparse"), "routes: got"),
        (("--query-length", "9999"), "max_length: got 9999"),
        (("--reranker", "nowhere"), "no re-ranker can be read"),
    ],
)
def test_wrong_usage_is_one_line(place, folder, tmp_path, arguments, message):
    done = run(place, folder, "-o", tmp_path / "out.jsonl", *arguments)
    assert done.exit_code in (1, 2)
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
