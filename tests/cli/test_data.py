"""`triptych data check`: the table, JSON, and exit codes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from .conftest import Run

GOOD = {"query": "what is bge m3", "pos": ["bge m3 is a model"], "neg": ["bm25 is a formula"]}


def write(path: Path, rows: Sequence[dict[str, Any] | str]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_data_check_shows_counts_lengths_and_languages(run: Run, tmp_path: Path) -> None:
    done = run("data", "check", write(tmp_path / "a.jsonl", [GOOD, GOOD]))
    assert done.code == 0
    for part in ("2 examples", "tokens", "longest of each", "languages of query", "usable, with remarks"):
        assert part in done.out
    assert "1  examples that are equal to one before" in done.out
    assert done.err == ""


def test_data_check_json_is_one_object(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [GOOD, "{"])
    done = run("data", "check", path, "--json", "--no-tokens", "--no-languages")
    assert done.code == 2
    (report,) = done.lines
    assert (report["examples"], report["usable"], report["unit"]) == (1, False, "characters")
    assert report["problems"]["broken"] == 1
    assert report["places"]["broken"][0].startswith(f"{path}:2: broken JSON")
    assert report["languages"] == {}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"query": "q", "pos": "p"}, "expected a list of strings"),
        ({"query": "q", "pos": ["p"], "neg": ["p"]}, "both positive and negative"),
    ],
)
def test_data_check_of_unusable_data_names_the_line_and_ends_with_2(
    run: Run, tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    done = run("data", "check", write(tmp_path / "a.jsonl", [GOOD, row]), "--no-tokens")
    assert done.code == 2
    shown = " ".join(done.out.split())
    assert message in shown
    assert "a.jsonl:2" in done.out.replace("\n", "").replace(" ", "")
    assert "not usable" in shown


def test_data_check_reads_parquet_and_several_files(run: Run, tmp_path: Path) -> None:
    pq.write_table(
        pa.table({"anchor": ["q"], "positive": ["p"], "negative_1": ["n"]}), tmp_path / "b.parquet"
    )
    path = write(tmp_path / "a.jsonl", [GOOD])
    done = run("data", "check", path, tmp_path / "b.parquet", "--no-tokens", "--json")
    assert done.code == 0
    assert done.lines[0]["examples"] == 2


def test_data_check_of_a_missing_file_or_split_is_one_clear_line(run: Run, tmp_path: Path) -> None:
    done = run("data", "check", tmp_path / "none.jsonl", "--no-tokens")
    assert done.code == 2
    assert done.err.startswith("triptych: error: ")
    assert "no such file" in done.err
    write(tmp_path / "corpus.jsonl", [{"_id": "d", "text": "t"}])
    write(tmp_path / "queries.jsonl", [{"_id": "q", "text": "t"}])
    done = run("data", "check", tmp_path, "--no-tokens", "--split", "dev")
    assert done.code == 2
    assert "no qrels/dev.tsv" in " ".join((done.out + done.err).split())


def test_data_check_takes_its_threshold_from_the_option(run: Run, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"query": q, "passage": f"p{q}", "score": 2.0} for q in "ab"])
    options = ("--no-tokens", "--no-languages", "--json")
    assert run("data", "check", path, *options).code == 0
    done = run("data", "check", path, "--positive-from", "3", *options)
    assert (done.code, done.lines[0]["problems"]["no positive"]) == (2, 2)
