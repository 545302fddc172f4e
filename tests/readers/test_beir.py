"""BEIR folders as training examples and as a test collection."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from triptych.collections.base import Wanted
from triptych.collections.beir import is_beir, load_beir
from triptych.collections.catalogue import read_collections
from triptych.collections.examples import Example
from triptych.collections.joined import judgements_of
from triptych.collections.training import Reading, read_examples
from triptych.errors import DataError
from triptych.records import Place
from triptych.tools.convert import convert

CORPUS: list[dict[str, Any]] = [
    {"_id": "d1", "title": "Title", "text": "one"},
    {"_id": "d2", "title": "", "text": "two"},
    {"_id": "d3", "text": "three"},
    {"_id": "d4", "text": "never judged"},
]
QUERIES = [{"_id": "q1", "text": "first"}, {"_id": "q2", "text": "second"}, {"_id": "q3", "text": "other"}]
QRELS = "query-id\tcorpus-id\tscore\nq2\td1\t2\nq1\td3\t1\nq2\td2\t0\nq2\td3\t1\n"


@pytest.fixture
def beir(tmp_path: Path) -> Path:
    lines = {
        name: "".join(json.dumps(r) + "\n" for r in rows) for name, rows in [("c", CORPUS), ("q", QUERIES)]
    }
    (tmp_path / "corpus.jsonl.gz").write_bytes(gzip.compress(lines["c"].encode()))
    (tmp_path / "queries.jsonl").write_text(lines["q"])
    (tmp_path / "qrels").mkdir()
    (tmp_path / "qrels" / "train.tsv").write_text(QRELS)
    return tmp_path


def read(folder: Path, **options: Any) -> list[Example]:
    return [example for _, example in read_examples(folder, Reading(**options))]


def test_judged_documents_become_positives_and_negatives(beir: Path) -> None:
    assert is_beir(beir)
    assert read(beir) == [
        Example("first", ("three",), id="q1"),
        Example("second", ("Title\none", "three"), ("two",), id="q2"),
    ]


def test_the_collection_for_evaluation_has_the_judged_queries_and_the_whole_corpus(beir: Path) -> None:
    collection = load_beir(beir, "train")
    assert collection.queries == {"q1": "first", "q2": "second"}
    assert list(collection.corpus) == ["d1", "d2", "d3", "d4"]
    assert collection.corpus["d1"] == "Title\none"
    assert collection.qrels == {"q2": {"d1": 2, "d2": 0, "d3": 1}, "q1": {"d3": 1}}


def test_qrels_may_be_in_the_columns_of_trec(beir: Path) -> None:
    (beir / "qrels" / "trec.tsv").write_text("q1 0 d3 1\nq2 0 d2 0\n")
    assert [
        (j.query, j.document, j.value, j.place.line) for j in judgements_of([beir / "qrels" / "trec.tsv"])
    ] == [
        ("q1", "d3", 1.0, 1),
        ("q2", "d2", 0.0, 2),
    ]


def test_a_query_without_a_positive_is_passed_over_aloud(beir: Path) -> None:
    (beir / "qrels" / "train.tsv").write_text("q1\td1\t0\nq2\td2\t1\n")
    skipped: list[Place] = []
    assert [example.id for example in read(beir, on_skip=skipped.append)] == ["q2"]
    assert [place.line for place in skipped] == [1]


def test_a_missing_split_is_an_error_that_names_those_that_are_there(beir: Path) -> None:
    with pytest.raises(DataError, match=r"no qrels/test\.tsv; this folder has the splits train"):
        read(beir, split="test")


@pytest.mark.parametrize(
    ("qrels", "message"),
    [
        ("q1\td9\t1\n", r"train\.tsv:1: document 'd9' is not in corpus\.jsonl\.gz"),
        ("q1\td1\t1\nq9\td1\t1\n", r"train\.tsv:2: query 'q9' is not among the queries"),
        ("q1\td1\tmuch\n", r"train\.tsv:1: relevance 'much' is not a number"),
        ("q1\td1\n", r"train\.tsv:1: got 2 columns"),
    ],
)
def test_a_judgement_of_something_unknown_is_refused_with_its_line(
    beir: Path, qrels: str, message: str
) -> None:
    (beir / "qrels" / "train.tsv").write_text(qrels)
    with pytest.raises(DataError, match=message):
        read(beir)
    with pytest.raises(DataError, match=message):
        load_beir(beir, "train")


def test_an_id_that_is_there_twice_is_refused(beir: Path) -> None:
    with (beir / "queries.jsonl").open("a") as file:
        file.write('{"_id": "q1", "text": "again"}\n')
    with pytest.raises(DataError, match=r"queries\.jsonl:4: duplicate id 'q1'"):
        read(beir)
    with pytest.raises(DataError, match=r"queries\.jsonl:4: duplicate id 'q1'"):
        load_beir(beir, "train")


def test_fractions_of_relevance_are_kept_and_are_positives(beir: Path) -> None:
    (beir / "qrels" / "train.tsv").write_text("q1\td1\t0.5\nq1\td2\t0.9\nq1\td3\t0\nq2\td2\t2.0\n")
    assert load_beir(beir, "train").qrels == {"q1": {"d1": 0.5, "d2": 0.9, "d3": 0}, "q2": {"d2": 2}}
    assert read(beir)[0] == Example("first", ("Title\none", "two"), ("three",), id="q1")


def test_every_view_refuses_judgements_that_contradict_each_other(beir: Path, tmp_path: Path) -> None:
    (beir / "qrels" / "train.tsv").write_text("q1\td1\t1\nq1\td1\t1\nq2\td2\t1\n")
    assert len(read(beir)) == len(load_beir(beir, "train").queries) == 2  # the same twice is no contradiction
    (beir / "qrels" / "train.tsv").write_text("q1\td1\t1\nq2\td2\t1\nq1\td1\t0\n")
    views: list[Callable[[], object]] = [
        lambda: read(beir),
        lambda: load_beir(beir, "train"),
        lambda: read_collections(beir, Wanted(split="train")),
        lambda: convert("beir", [beir], tmp_path / "out.jsonl"),
    ]
    for view in views:
        with pytest.raises(
            DataError, match=r"train\.tsv:3: query 'q1', document 'd1' is judged twice, [01] and [01]"
        ):
            view()


@pytest.mark.parametrize(
    "header", ["query-id\tcorpus-id\tscore", "Query_ID\tdoc_id\trel", "qid\t-\tpid\trel"]
)
def test_a_header_of_qrels_is_told_by_the_names_of_ids(beir: Path, header: str) -> None:
    row = "q1\td3\t1" if header.count("\t") == 2 else "q1\t0\td3\t1"
    (beir / "qrels" / "train.tsv").write_text(f"{header}\n{row}\n")
    assert load_beir(beir, "train").qrels == {"q1": {"d3": 1}}
