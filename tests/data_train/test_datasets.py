"""Data sets on disk: read once, measured as in training, any row at once, never half written."""

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triptych.collections.training import Reading, read_examples
from triptych.errors import DataError, InputError, StorageError
from triptych.model.tokenizer import TextTokenizer
from triptych.train.data import (
    READING,
    Datasets,
    PairDataset,
    PairLimits,
    PairRow,
    default_cache,
    open_pairs,
    open_texts,
)
from triptych.train.rows import INFO_FILE, ROWS_FILE

from .words import Words, WordTokenizer, ids_of, text_of

ROWS: list[dict[str, Any]] = [
    {"query": "a b", "pos": ["one two three"], "neg": ["x", "four five six seven"], "lang": "de"},
    {"query": "a b c d e f", "pos": ["one", "two"], "prompt": "find this: ", "lang": "en"},
    {"query": "long " * 30, "pos": ["p " * 99], "neg": [], "id": "third"},
]


def write(path: Path, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write(tmp_path / "a.jsonl")


def opened(file: Path, tokenizer: WordTokenizer | None = None, **options: Any) -> PairDataset:
    limits = options.pop(
        "limits", PairLimits(query_max=12, passage_max=20, query_prefix="query: ", prompts=True)
    )
    return open_pairs(file, tokenizer or WordTokenizer(), limits, cache=file.parent / "cache", **options)


def plain(row: PairRow) -> tuple[str, list[str]]:
    """The texts of a row as words."""
    return text_of(row.query), [text_of(passage) for passage in row.passages]


def test_teacher_scores_stand_beside_the_passages_and_may_be_missing(tmp_path: Path) -> None:
    scored = {"query": "q", "pos": ["a", "b"], "neg": ["c"], "pos_scores": [3, 2.5], "neg_scores": [-1]}
    bare = {"query": "q", "pos": ["a"]}
    data = opened(write(tmp_path / "a.jsonl", [bare, scored, bare, scored]))
    found = [row.scores for row in (data[i] for i in range(4))]
    assert [None if each is None else each.tolist() for each in found] == [
        None,
        [3, 2.5, -1],
        None,
        [3, 2.5, -1],
    ]


def test_rows_are_the_examples_of_the_file_in_their_order(file: Path) -> None:
    data = opened(file)
    for i, (_, example) in enumerate(read_examples(file)):
        query, passages = plain(data[i])
        prompt = "query: " if example.prompt is None else example.prompt
        assert query == " ".join((prompt + example.query).split()[:10])
        assert passages == [" ".join(text.split()[:18]) for text in example.passages]
        assert data[i].positives == len(example.pos)
        assert (data.id(i), data.languages()[i]) == (example.id, example.language)
    assert (data.name, data.max_negatives, data.scored, data.skipped) == ("a.jsonl", 2, False, 0)
    with pytest.raises(IndexError):
        data[3]


def test_lengths_count_prefix_prompt_special_tokens_and_limits(file: Path) -> None:
    data = opened(file)
    # 4 words + 2; "find this:" and 6 words + 2 (no prefix); the query cut to 12, the passage to 20
    assert data.lengths.tolist() == [6, 10, 20]
    assert data.truncated == 2


@given(
    st.lists(
        st.builds(
            lambda q, p, n: {"query": q, "pos": p, "neg": n},
            st.text("ab ", min_size=1, max_size=30).filter(str.strip),
            st.lists(st.text("xy ", min_size=1, max_size=60).filter(str.strip), min_size=1, max_size=3),
            st.lists(st.text("xy ", min_size=1, max_size=60).filter(str.strip), max_size=3),
        ),
        min_size=1,
        max_size=100,
    )
)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_lengths_are_those_of_the_slow_definition(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    data = opened(write(tmp_path / "x.jsonl", rows), limits=PairLimits(9, 15, "find ", "the "))
    wanted = [
        max(
            min(9, len(f"find {row['query']}".split()) + 2),
            *(min(15, len(f"the {text}".split()) + 2) for text in row["pos"] + row["neg"]),
        )
        for row in rows
    ]
    assert data.lengths.tolist() == wanted


def test_a_second_opening_reads_and_tokenises_nothing(file: Path) -> None:
    first, second = WordTokenizer(), WordTokenizer()
    before = opened(file, first)
    after = opened(file, second)
    assert first.seen > 0
    assert second.seen == 0
    assert [plain(after[i]) for i in range(3)] == [plain(before[i]) for i in range(3)]


@pytest.mark.parametrize("change", ["file", "tokenizer", "limits", "reading"])
def test_whatever_the_lengths_depend_on_makes_the_data_set_anew(file: Path, change: str) -> None:
    opened(file)
    again = WordTokenizer("other" if change == "tokenizer" else "words")
    options: dict[str, Any] = {}
    if change == "file":
        write(file, ROWS[:2])
        os.utime(file, ns=(1, 1))
    if change == "limits":
        options["limits"] = PairLimits(query_max=13, passage_max=20, query_prefix="query: ")
    if change == "reading":
        options["reading"] = Reading(positive_from=0.7)
    data = opened(file, again, **options)
    assert again.seen > 0
    assert len(data) == (2 if change == "file" else 3)


@pytest.mark.parametrize("broken", [ROWS_FILE, INFO_FILE])
def test_a_cache_that_is_broken_is_made_anew(file: Path, broken: str) -> None:
    opened(file)
    (found,) = (file.parent / "cache" / "data").glob(f"*/{broken}")
    found.write_bytes(found.read_bytes()[:-20])
    assert len(opened(file)) == 3


def test_what_was_interrupted_leaves_no_data_set_behind(file: Path) -> None:
    class Interrupted(Exception):
        pass

    def stop(_stage: str, _done: int, _total: int | None) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        opened(file, progress=stop)
    assert list((file.parent / "cache" / "data").iterdir()) == []
    assert len(opened(file)) == 3


def test_progress_tells_how_many_examples_were_read(file: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    opened(write(file, ROWS * 40), progress=lambda *call: seen.append(call))
    assert seen == [(READING, 64, None), (READING, 120, None)]


def test_two_processes_may_open_a_new_data_set_at_once(file: Path) -> None:
    write(file, ROWS * 400)
    code = (
        "import sys; from pathlib import Path; from data_train.words import WordTokenizer;"
        "from triptych.train.data import *;"
        "d = open_pairs(Path(sys.argv[1]), WordTokenizer(), PairLimits(), cache=Path(sys.argv[2]));"
        "print(len(d), d.id(1199))"
    )
    tests = Path(__file__).parents[1]
    command = [sys.executable, "-c", code, str(file), str(file.parent / "cache")]
    workers = [subprocess.Popen(command, cwd=tests, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [worker.communicate()[0] for worker in workers] == ["1200 third\n"] * 3
    assert len(list((file.parent / "cache" / "data").iterdir())) == 1


def test_a_large_file_is_never_held_in_memory(tmp_path: Path) -> None:
    row = {"query": "q", "pos": ["word " * 2000], "neg": ["other " * 2000] * 3}
    file = write(tmp_path / "large.jsonl", [row])
    line = file.read_bytes()
    with file.open("ab") as stream:
        for _ in range(2000):  # about 88 MB
            stream.write(line)

    class Cheap(WordTokenizer):
        def encode(self, texts: Sequence[str], **_options: Any) -> Any:
            return Words([np.arange(2000) for _ in texts], 0)

    tracemalloc.start()
    data = opened(file, Cheap())
    passages = data[1500].passages
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (len(data), [len(passage) for passage in passages]) == (2001, [2000] * 4)
    assert (passages[3] == np.arange(2000)).all()
    assert peak < 40e6


def test_a_file_without_examples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no training example"):
        opened(write(tmp_path / "a.jsonl", []))
    pair = {"query": "q", "passage": "p", "label": 0}
    with pytest.raises(DataError, match="1 queries have no positive"):
        opened(write(tmp_path / "b.jsonl", [pair]))


def test_a_cache_that_cannot_be_written_is_a_storage_error(file: Path) -> None:
    (file.parent / "cache").write_text("a file where a folder should be")
    with pytest.raises(StorageError, match="cannot be written"):
        opened(file)


def test_the_cache_stands_where_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    monkeypatch.delenv("TRIPTYCH_CACHE", raising=False)
    assert default_cache() == Path("/x/triptych")
    monkeypatch.setenv("TRIPTYCH_CACHE", "/y")
    assert default_cache() == Path("/y")


def test_raw_texts_are_cut_into_pieces_that_together_are_the_text(tmp_path: Path) -> None:
    texts = ["one two six", "w1 w2 w3 w4 w5 w6 w7 w8 w9 w10 w11", " "]
    file = write(tmp_path / "a.jsonl", [{"text": text, "lang": "en"} for text in texts])
    data = open_texts(file, WordTokenizer(), 7, cache=tmp_path / "cache")
    assert data.texts == 2
    assert data.lengths.tolist() == [5, 6, 6, 5]
    assert data[0].tolist() == ids_of(texts[0])
    assert data[0].dtype == np.int32
    pieces = [data[i].tolist() for i in (1, 2, 3)]
    assert all(piece[0] == 0 and piece[-1] == 2 for piece in pieces)
    assert [0, *(token for piece in pieces for token in piece[1:-1]), 2] == ids_of(texts[1])
    assert data.languages() == ["en"] * 4


def test_raw_texts_without_room_or_without_text_are_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"text": " "}])
    with pytest.raises(InputError, match="max_length 2"):
        open_texts(file, WordTokenizer(), 2, cache=tmp_path / "cache")
    with pytest.raises(DataError, match="no text in it"):
        open_texts(file, WordTokenizer(), 9, cache=tmp_path / "cache")


def test_joined_data_sets_have_rows_that_run_through_all(tmp_path: Path) -> None:
    parts = [opened(write(tmp_path / f"{name}.jsonl", rows)) for name, rows in [("a", ROWS), ("b", ROWS[:1])]]
    both = Datasets(parts)
    assert len(both) == 4
    wanted = [parts[0][0], parts[0][1], parts[0][2], parts[1][0]]
    assert [plain(both[i]) for i in range(4)] == [plain(row) for row in wanted]
    assert [both.part_of(i) for i in range(4)] == [0, 0, 0, 1]
    assert both.lengths.tolist() == [6, 10, 20, 6]
    with pytest.raises(IndexError):
        both[4]
    with pytest.raises(InputError, match="no data set"):
        Datasets[PairRow]([])


def test_sources_can_be_cut_by_language_and_weighted(tmp_path: Path) -> None:
    parts = [opened(write(tmp_path / f"{name}.jsonl", rows)) for name, rows in [("a", ROWS), ("b", ROWS[:1])]]
    both = Datasets(parts)
    whole = both.sources(weights=[1, 2])
    assert [(s.name, s.rows.tolist(), s.weight) for s in whole] == [
        ("a.jsonl", [0, 1, 2], 1),
        ("b.jsonl", [3], 2),
    ]
    cut = both.sources(by_language=True)
    assert {s.name: (s.rows.tolist(), s.lengths.tolist()) for s in cut} == {
        "a.jsonl:?": ([2], [20]),
        "a.jsonl:de": ([0], [6]),
        "a.jsonl:en": ([1], [10]),
        "b.jsonl:de": ([3], [6]),
    }
    with pytest.raises(InputError, match="got 1 numbers; expected 2"):
        both.sources(weights=[1])


def test_rows_are_what_the_models_own_tokenizer_makes(file: Path, folder: Path) -> None:
    tokenizer = TextTokenizer.load(folder)
    limits = PairLimits(query_max=16, passage_max=24, query_prefix="query: ", document_prefix="passage: ")
    data = open_pairs(file, tokenizer, limits, cache=file.parent / "cache")
    for row, (_, example) in zip(range(len(data)), read_examples(file), strict=True):
        queries = tokenizer.encode([limits.query(example)], max_length=16).ids
        passages = tokenizer.encode(list(example.passages), prefix="passage: ", max_length=24).ids
        assert data[row].query.tolist() == queries[0].tolist()
        assert [each.tolist() for each in data[row].passages] == [each.tolist() for each in passages]
        assert data.lengths[row] == max(map(len, [*queries, *passages]))
    raw = write(file.parent / "raw.jsonl", [{"text": "bge m3 is a model of text " * 9}])
    texts = open_texts(raw, tokenizer, 20, cache=file.parent / "cache")
    whole = tokenizer.encode(["bge m3 is a model of text " * 9], max_length=9999).ids[0]
    assert len(texts) > 1
    assert np.concatenate([texts[i][1:-1] for i in range(len(texts))]).tolist() == whole[1:-1].tolist()
