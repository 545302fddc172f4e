"""The script that puts development sets into one pool."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from triptych.collections.beir import load_beir

SCRIPTS = Path(__file__).parents[1]


def beir(folder: Path, corpus: dict[str, str], queries: dict[str, str], qrels: list[tuple[str, str]]) -> Path:
    (folder / "qrels").mkdir(parents=True)
    for name, rows in (("corpus", corpus), ("queries", queries)):
        lines = [f'{{"_id": "{id_}", "text": "{text}"}}\n' for id_, text in rows.items()]
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
    lines = ["query-id\tcorpus-id\tscore\n", *(f"{q}\t{d}\t1\n" for q, d in qrels)]
    (folder / "qrels" / "dev.tsv").write_text("".join(lines), encoding="utf-8")
    return folder


@pytest.fixture
def pooled(tmp_path: Path) -> Path:
    one = beir(tmp_path / "one", {"a": "same", "b": "only here"}, {"q": "?"}, [("q", "a")])
    two = beir(
        tmp_path / "two", {"a": "there", "c": "same", "d": "same"}, {"q": "!"}, [("q", "c"), ("q", "d")]
    )
    command = [
        sys.executable,
        SCRIPTS / "pool_beir.py",
        one,
        two,
        "--into",
        tmp_path / "all",
        "--split",
        "dev",
    ]
    subprocess.run(command, check=True, capture_output=True)
    return tmp_path / "all"


def test_equal_texts_are_one_passage_and_ids_keep_the_sets_apart(pooled: Path) -> None:
    found = load_beir(pooled, "dev")
    assert dict(found.corpus) == {"one/a": "same", "one/b": "only here", "two/a": "there"}
    assert dict(found.queries) == {"one/q": "?", "two/q": "!"}
    assert {query: dict(judged) for query, judged in found.qrels.items()} == {
        "one/q": {"one/a": 1},
        "two/q": {"one/a": 1},
    }
