"""A pair is contaminated if it holds text of an evaluation set, and only then."""

import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.errors import DataError, InputError
from triptych.text import ngrams, ngrams_of_sizes, unit_hashes
from triptych.tools.pairs.base import WeakPair
from triptych.tools.pairs.duplicates import (
    Contamination,
    EvaluationText,
    is_written,
    read_evaluation,
    write_evaluation,
)

QUESTION = "who painted the ceiling of the chapel in rome"
PASSAGE = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


def check(folder: Path, texts: Iterable[str | EvaluationText], words: int = 13) -> Contamination:
    made = [text if isinstance(text, EvaluationText) else EvaluationText(text, True) for text in texts]
    write_evaluation(folder, made, words)
    assert is_written(folder)
    return Contamination(folder)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (QUESTION, True),
        (f"They asked: «{QUESTION.upper()}?» And then.", True),
        (QUESTION.replace("rome", "paris"), False),
        (PASSAGE, True),
        ("before " + " ".join(PASSAGE.split()[1:14]) + " after", True),
        ("before " + " ".join(PASSAGE.split()[1:13]) + " after", False),
        ("moka pot", True),
        ("a moka pot", False),
        ("米开朗基罗在罗马画了西斯廷教堂的天花板", True),
        ("据说米开朗基罗在罗马画了西斯廷教堂的天花板和墙壁", True),
        ("据说米开朗基罗在巴黎画了西斯廷教堂的天花板和墙壁", False),
        ("", False),
        ("...", False),
    ],
)
def test_long_texts_are_found_by_their_words_in_a_row_and_short_ones_whole(
    text: str, found: bool, tmp_path: Path
) -> None:
    held = ["Moka pot!", QUESTION, PASSAGE, "米开朗基罗在罗马画了西斯廷教堂的天花板", "", "?"]
    assert check(tmp_path, held).has(text) is found


def test_either_side_of_a_pair_counts(tmp_path: Path) -> None:
    contaminated = check(tmp_path, [QUESTION])
    for query, passage, found in ((QUESTION, "x", True), ("x", QUESTION, True), ("x", "y", False)):
        assert contaminated(WeakPair(query, passage, "k", "s", "k", "en", "en")) is found


def test_short_texts_that_are_no_queries_do_not_count(tmp_path: Path) -> None:
    contaminated = check(tmp_path, [EvaluationText("moka pot", False), EvaluationText(QUESTION, False)])
    assert not contaminated.has("moka pot")
    assert contaminated.has(QUESTION)


def test_no_evaluation_text_contaminates_nothing(tmp_path: Path) -> None:
    assert not check(tmp_path, []).has(QUESTION)


def test_fewer_words_in_a_row_find_more(tmp_path: Path) -> None:
    some = " ".join(PASSAGE.split()[:6])
    assert check(tmp_path, [PASSAGE], words=6).has(some)
    with pytest.raises(InputError, match="got 4 words in a row; expected at least 5"):
        write_evaluation(tmp_path, [], 4)


WORDS = st.lists(st.sampled_from("abc"), max_size=12)


@given(st.lists(WORDS, max_size=3), WORDS)
def test_what_is_found_is_what_a_search_for_lists_of_words_finds(
    tmp_path_factory: pytest.TempPathFactory, held: list[list[str]], text: list[str]
) -> None:
    def within(few: list[str], many: list[str]) -> bool:
        return any(many[i : i + len(few)] == few for i in range(len(many) - len(few) + 1))

    def found(whole: list[str]) -> bool:
        size = min(6, len(whole))
        if size < 5:
            return bool(whole) and whole == text
        return any(within(whole[i : i + size], text) for i in range(len(whole) - size + 1))

    contaminated = check(tmp_path_factory.mktemp("e"), map(" ".join, held), words=6)
    assert contaminated.has(" ".join(text)) == any(map(found, held))


@given(WORDS, st.sets(st.integers(1, 6)))
def test_ngrams_of_several_sizes_are_those_of_each(words: list[str], sizes: set[int]) -> None:
    hashes = unit_hashes(words)
    found = ngrams_of_sizes(hashes, sizes)
    assert {size: grams.tolist() for size, grams in found.items()} == {
        size: ngrams(hashes, size).tolist() for size in sizes
    }


def test_evaluation_files_of_all_kinds_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "d1", "title": "T", "text": "body"}) + "\n")
    (folder / "queries.jsonl").write_text(json.dumps({"_id": "q1", "text": "asked"}) + "\n")
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\n")
    record = {
        "id": "1",
        "lang": "en",
        "query": "q",
        "pos": ["p"],
        "nested": {"questions": [{"x": "deep"}]},
        "n": 3,
    }
    (tmp_path / "a.jsonl").write_text(json.dumps(record) + "\n")
    (tmp_path / "b.tsv").write_text("id-7\tplain query\n\n")
    read = list(read_evaluation([folder, tmp_path / "a.jsonl", tmp_path / "b.tsv"]))
    assert read == [
        EvaluationText("T", False),
        EvaluationText("body", False),
        EvaluationText("asked", False),
        EvaluationText("q", True),
        EvaluationText("p", False),
        EvaluationText("deep", True),
        EvaluationText("id-7", True),
        EvaluationText("plain query", True),
    ]
    with pytest.raises(DataError, match="no such file"):
        list(read_evaluation([tmp_path / "none.jsonl"]))
