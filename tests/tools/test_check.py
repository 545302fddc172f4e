"""What `triptych data check` finds."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_train.words import WordTokenizer
from triptych.collections.training import Reading
from triptych.errors import DataError, MissingExtra
from triptych.text import ranker
from triptych.tools.check import PROBLEMS, Lengths, check, language_identifier
from triptych.train.data import PairLimits

GOOD = {"query": "q one", "pos": ["p"], "neg": ["n"]}


def write(path: Path, rows: list[dict[str, Any] | str]) -> Path:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("{", "broken"),
        ({"query": "q"}, "broken"),
        ({"query": "x", "passage": "p", "label": 0}, "no positive"),
        ({"query": "x", "pos": ["p"]}, "no negatives"),
        ({"query": "x", "pos": ["p"], "neg": ["n", "p"]}, "positive also negative"),
        ({"query": "x", "pos": ["x"], "neg": ["n"]}, "query is positive"),
        ({"query": "x", "pos": ["p"], "neg": ["n", "n"]}, "repeated passage"),
        ({"query": "x", "pos": ["p", "p"], "neg": ["n"]}, "repeated passage"),
        ({"query": "q one", "pos": ["other"], "neg": ["n"]}, "repeated query"),
        (GOOD, "repeated example"),
    ],
)
def test_every_problem_is_counted_under_its_name_with_its_place(
    tmp_path: Path, row: dict[str, Any] | str, problem: str
) -> None:
    report = check(write(tmp_path / "a.jsonl", [GOOD, row]))
    assert report.problems.counts == Counter({problem: 1})
    assert "a.jsonl:2" in report.problems.examples[problem][0]
    assert report.usable == (problem not in ("broken", "positive also negative"))
    assert report.to_dict()["problems"] == {name: int(name == problem) for name in PROBLEMS}


def test_counts_and_lengths_in_tokens_are_those_of_the_texts(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [
        {"query": "a b", "pos": ["c d e"], "neg": [], "pos_scores": [1], "neg_scores": []},
        {"query": "a b c", "pos": ["c", "d " * 50], "neg": ["e f"]},
    ]
    report = check(
        write(tmp_path / "a.jsonl", rows), tokenizer=WordTokenizer(), limits=PairLimits(query_prefix="x ")
    )
    assert (report.examples, report.scored, report.unit) == (2, 1, "tokens")
    assert {kind: sorted(lengths.counts.elements()) for kind, lengths in report.lengths.items()} == {
        "query": [5, 6],
        "positive": [3, 5, 52],
        "negative": [4],
        "longest": [5, 52],
    }
    plain = check(tmp_path / "a.jsonl")
    assert plain.unit == "characters"
    assert sorted(plain.lengths["query"].counts.elements()) == [3, 5]


@given(st.lists(st.integers(1, 50), min_size=1), st.floats(0, 1))
def test_a_quantile_is_the_least_length_that_enough_texts_do_not_exceed(
    lengths: list[int], share: float
) -> None:
    wanted = min(n for n in lengths if sum(other <= n for other in lengths) >= share * len(lengths))
    assert Lengths(Counter(lengths)).quantile(share) == wanted


def test_lengths_of_no_texts_are_zero() -> None:
    assert Lengths().to_dict() == {"texts": 0, "mean": 0.0, "median": 0, "p90": 0, "p99": 0, "max": 0}


def test_languages_of_queries_and_positives_are_counted(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = [
        {
            "query": "Wie hoch ist der höchste Berg der Alpen?",
            "pos": ["The highest mountain of the Alps is high."],
        },
        {"query": "日本で一番高い山は何ですか", "pos": ["富士山は日本で一番高い山です。"]},
    ]
    report = check(write(tmp_path / "a.jsonl", rows), identify=language_identifier())
    assert report.languages == {"query": Counter(de=1, ja=1), "positive": Counter(en=1, ja=1)}


def test_identifying_languages_without_the_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ranker.cache_clear()
    monkeypatch.setitem(sys.modules, "py3langid.langid", None)
    with pytest.raises(MissingExtra, match=r"triptych\[tools\]"):
        language_identifier()


def test_only_the_first_places_of_a_problem_are_kept(tmp_path: Path) -> None:
    rows: list[dict[str, Any] | str] = ["{x"] * 20
    report = check(write(tmp_path / "a.jsonl", rows))
    assert report.problems["broken"] == 20
    assert len(report.problems.examples["broken"]) == 5
    assert not report.usable


def test_a_missing_file_is_an_error_and_not_a_finding(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        check(tmp_path / "none.jsonl")


def test_progress_tells_how_many_examples_were_read(tmp_path: Path) -> None:
    seen: list[int] = []
    check(write(tmp_path / "a.jsonl", [GOOD] * 100), progress=lambda _stage, done, _total: seen.append(done))
    assert seen == [64, 100]


@pytest.mark.parametrize(
    ("rows", "usable"),
    [
        ([{"query": "q", "pos": ["p"], "neg": []}], False),
        ([{"query": "q", "pos": ["p"]}, {"query": "r", "pos": ["p"]}], False),
        ([{"query": "q", "pos": ["p"]}, {"query": "r", "pos": ["s"]}], True),
        ([{"query": "q", "pos": ["p", "s"]}], True),
        ([{"query": "q", "pos": ["p"], "neg": ["n"]}], True),
    ],
)
def test_data_whose_loss_can_only_be_0_are_not_usable(
    rows: list[dict[str, Any]], usable: bool, tmp_path: Path
) -> None:
    report = check(write(tmp_path / "a.jsonl", rows))
    assert report.usable == usable
    assert report.problems["nothing to compare"] == (not usable)


@pytest.mark.parametrize(
    ("row", "hint"),
    [
        ({"sentence1": "q", "sentence2": "p", "score": 1.2}, True),
        ({"query": "q", "docs": ["p", "s"], "labels": [0, 3]}, True),
        ({"sentence1": "q", "sentence2": "p", "score": 0.9}, False),
        ({"query": "q", "positive": "p", "negative": "n", "label": 3.5}, False),
        ({"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [9.0], "neg_scores": [2.0]}, False),
    ],
)
def test_labels_on_a_scale_above_1_are_a_remark(row: dict[str, Any], hint: bool, tmp_path: Path) -> None:
    report = check(write(tmp_path / "a.jsonl", [row, GOOD]))
    assert report.problems["graded labels"] == hint
    if hint:
        assert "from 0.5 on a passage counts as positive" in report.problems.first["graded labels"]
    above = Reading(positive_from=2.5)
    assert check(tmp_path / "a.jsonl", reading=above).problems["graded labels"] == 0


def test_a_text_that_training_does_not_read_is_a_remark(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "7", "context": "the passage"}, {**GOOD, "source": "x", "id": "1"}]
    report = check(write(tmp_path / "a.jsonl", rows))
    assert report.problems["unread fields"] == 1
    assert report.usable
