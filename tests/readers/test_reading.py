"""Training examples from people's files: every form, and what is refused with file and line."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triptych.collections.examples import Example
from triptych.collections.training import Reading, read_examples, read_texts, source_files
from triptych.errors import DataError, InputError
from triptych.records import Place

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(lambda text: bool(text.strip()))
SCORE = st.floats(allow_nan=False, allow_infinity=False)


def write(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def read(path: Path, **options: Any) -> list[Example]:
    return [example for _, example in read_examples(path, Reading(**options))]


@st.composite
def examples(draw: st.DrawFn) -> Example:
    pos = tuple(draw(st.lists(TEXT, min_size=1, max_size=3)))
    neg = tuple(draw(st.lists(TEXT, max_size=3)))
    scored = draw(st.booleans())
    return Example(
        draw(TEXT),
        pos,
        neg,
        tuple(draw(SCORE) for _ in pos) if scored else None,
        tuple(draw(SCORE) for _ in neg) if scored else None,
        draw(st.none() | TEXT),
        draw(st.none() | TEXT),
        draw(st.none() | st.sampled_from(["de", "en"])),
    )


def record_of(example: Example) -> dict[str, Any]:
    fields = {name: getattr(example, name) for name in Example.__slots__ if name != "language"}
    values = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
    return values | {"lang": example.language}


@given(st.lists(examples(), max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
def test_examples_come_back_from_jsonl_gzip_zstandard_and_parquet(
    tmp_path: Path, wanted: list[Example]
) -> None:
    records = [record_of(example) for example in wanted]
    plain = write(tmp_path / "a.jsonl", records)
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(plain.read_bytes()))
    (tmp_path / "a.jsonl.zst").write_bytes(zstandard.compress(plain.read_bytes()))
    files = [plain, tmp_path / "a.jsonl.gz", tmp_path / "a.jsonl.zst"]
    if records:
        pq.write_table(pa.Table.from_pylist(records), tmp_path / "a.parquet")
        files.append(tmp_path / "a.parquet")
    for file in files:
        assert read(file) == wanted


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"query": "q", "pos": ["p"]}, Example("q", ("p",))),
        (
            {"query": "q", "pos": ["p"], "neg": [], "pos_scores": [2]},
            Example("q", ("p",), (), (2.0,), ()),
        ),
        ({"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": None}, Example("q", ("p",), ("n",))),
        ({"query": "q", "pos": ["p"], "id": 7, "type": "x"}, Example("q", ("p",), id="7")),
        ({"anchor": "q", "positive": "p"}, Example("q", ("p",))),
        ({"question": "q", "answer": "p"}, Example("q", ("p",))),
        ({"anchor": "q", "positive": "p", "negative": "n"}, Example("q", ("p",), ("n",))),
        (
            {"anchor": "q", "positive": "p", "negative_10": "c", "negative_2": "b", "negative_1": "a"},
            Example("q", ("p",), ("a", "b", "c")),
        ),
        ({"query": "q", "positive": "p", "negative": ["a", "b"]}, Example("q", ("p",), ("a", "b"))),
        (
            {"query": "q", "positive": "p", "negative": "n", "label": 1.5},
            Example("q", ("p",), ("n",), (1.5,), (0.0,)),
        ),
        (
            {"query": "q", "positive": "p", "negative_1": "a", "negative_2": "b", "label": [3, 2, 1]},
            Example("q", ("p",), ("a", "b"), (3.0,), (2.0, 1.0)),
        ),
        ({"query": "q", "docs": ["a", "b", "c"], "labels": [0, 1, 0]}, Example("q", ("b",), ("a", "c"))),
        (
            {"query": "q", "docs": ["a", "b"], "scores": [0.9, 0.1]},
            Example("q", ("a",), ("b",), (0.9,), (0.1,)),
        ),
    ],
)
def test_every_known_form_gives_its_example(tmp_path: Path, record: dict[str, Any], wanted: Example) -> None:
    assert read(write(tmp_path / "a.jsonl", [record])) == [wanted]


def test_judged_pairs_of_the_same_query_in_a_row_are_joined(tmp_path: Path) -> None:
    pairs = [("q", "a", 1), ("q", "b", 0), ("r", "a", 0), ("q", "c", 1)]
    records = [{"sentence1": q, "sentence2": p, "label": label} for q, p, label in pairs]
    skipped: list[Place] = []
    found = list(read_examples(write(tmp_path / "a.jsonl", records), Reading(on_skip=skipped.append)))
    assert [example for _, example in found] == [Example("q", ("a",), ("b",)), Example("q", ("c",))]
    assert [place.line for place, _ in found] == [1, 4]
    assert [place.line for place in skipped] == [3]


def test_scores_of_judged_pairs_are_kept_and_the_threshold_counts(tmp_path: Path) -> None:
    records = [{"query": "q", "passage": p, "score": score} for p, score in [("a", 4.5), ("b", 2.0)]]
    path = write(tmp_path / "a.jsonl", records)
    assert read(path, positive_from=3.0) == [Example("q", ("a",), ("b",), (4.5,), (2.0,))]
    assert read(path) == [Example("q", ("a", "b"), (), (4.5, 2.0), ())]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"pos": ["p"]}, "no query; the record has 'pos'"),
        ({"query": "q"}, "no passage; the record has 'query'"),
        ({"query": "q", "pos": "p"}, "field 'pos' is 'p'; expected a list of strings"),
        ({"query": "q", "pos": []}, "no positive"),
        ({"query": " ", "pos": ["p"]}, "the query is blank"),
        ({"query": 3, "pos": ["p"]}, "field 'query' is 3; expected a string"),
        ({"query": "q", "pos": ["p", ""]}, r"pos\[1\] is blank"),
        ({"query": "q", "pos": ["p"], "neg": ["\n"]}, r"neg\[0\] is blank"),
        ({"query": "q", "pos": ["p"], "neg": [None]}, "field 'neg'"),
        ({"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1]}, "pos_scores without neg_scores"),
        (
            {"query": "q", "pos": ["p"], "neg": ["n"], "pos_scores": [1], "neg_scores": [1, 2]},
            "neg_scores has 2 numbers; expected 1",
        ),
        (
            {"query": "q", "pos": ["p"], "neg": [], "pos_scores": ["x"], "neg_scores": []},
            "'pos_scores' is 'x'",
        ),
        ({"query": "q", "pos": ["p"], "negatives": "n"}, "field 'negatives' is 'n'; expected a list"),
        ({"query": "q", "positive_passages": [{"docid": "1"}]}, "field 'positive_passages' holds"),
        ({"query": "q", "pos": ["p"], "id": True}, "field 'id' is True"),
        ({"query": "q", "positive": "p", "label": "yes"}, "field 'label' is 'yes'"),
        ({"query": "q", "positive": "p", "negative": "n", "label": [1, 2, 3]}, "3 numbers; expected 2"),
        ({"query": "q", "positive": "p", "negative_1": "n", "negative_2": "m", "label": 1}, "one number"),
        ({"query": "q", "docs": ["a"]}, "'docs' without labels"),
        ({"query": "q", "docs": ["a"], "labels": [1, 0]}, "expected a list of 1 numbers"),
    ],
)
def test_a_bad_record_is_refused_with_file_and_line(
    tmp_path: Path, record: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "a.jsonl", [{"query": "q", "pos": ["p"]}, record])
    with pytest.raises(DataError, match=message) as caught:
        read(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert caught.value.line == 2


def test_reading_goes_on_after_broken_records_where_somebody_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    lines = [
        '{"query": "q", "pos": ["p"]}',
        "{",
        '{"query": "", "pos": ["p"]}',
        '{"query": "r", "pos": ["p"]}',
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    errors: list[DataError] = []
    assert [example.query for example in read(path, on_error=errors.append)] == ["q", "r"]
    assert [error.line for error in errors] == [2, 3]


def test_a_file_that_breaks_off_is_one_error_and_the_next_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"query": "q", "pos": ["p"]}\n\xff\xfe\n')
    write(tmp_path / "b.jsonl", [{"query": "r", "pos": ["p"]}])
    errors: list[DataError] = []
    assert [example.query for example in read(tmp_path, on_error=errors.append)] == ["q", "r"]
    assert len(errors) == 1
    with pytest.raises(DataError, match="not UTF-8"):
        read(tmp_path)


def test_a_broken_parquet_file_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1 this is none")
    with pytest.raises(DataError, match=r"a\.parquet: not a Parquet file"):
        read(tmp_path / "a.parquet")


def test_an_error_in_a_parquet_file_names_the_row(tmp_path: Path) -> None:
    pq.write_table(pa.table({"query": ["q"] * 300, "positive": ["p"] * 299 + [""]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet:300: pos\[0\] is blank"):
        read(tmp_path / "a.parquet")


def test_a_missing_path_and_a_folder_without_data_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "nothing.jsonl")
    (tmp_path / "readme.md").write_text("x")
    with pytest.raises(DataError, match="no file in this folder"):
        read(tmp_path)


def test_a_folder_is_read_in_the_order_of_names_without_hidden_files(tmp_path: Path) -> None:
    for name in ("b/2.jsonl", "a.jsonl", ".hidden/x.jsonl", "b/.x.jsonl"):
        write(tmp_path / name, [{"query": name, "pos": ["p"]}])
    assert [example.query for example in read(tmp_path)] == ["a.jsonl", "b/2.jsonl"]


def test_raw_texts_come_from_lines_whole_files_and_records(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n", encoding="utf-8")
    write(tmp_path / "b.jsonl", [{"text": "body", "title": "Title", "lang": "de"}, {"text": " "}])
    pq.write_table(pa.table({"text": ["from parquet"]}), tmp_path / "c.parquet")
    assert [raw.text for raw in read_texts(tmp_path, lines=True)] == [
        "one",
        "two",
        "Title\nbody",
        "from parquet",
    ]
    assert [raw.language for raw in read_texts(tmp_path)] == [None, "de", None]
    assert next(read_texts(tmp_path / "a.txt")).text.split() == ["one", "two"]


def test_a_raw_record_without_text_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"query": "q"}])
    with pytest.raises(DataError, match=r"a\.jsonl:1: no field 'text'"):
        list(read_texts(path))


def test_standard_input_is_no_source_of_a_data_set() -> None:
    with pytest.raises(DataError, match="standard input"):
        source_files("-")


@pytest.mark.parametrize("values", [{"pos": ()}, {"pos": ("p",), "pos_scores": (1.0,)}])
def test_an_example_made_by_hand_is_checked_too(values: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        Example("q", **values)


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        ({"anchor": "q", "positive": "p", "negatives": ["n", "m"]}, Example("q", ("p",), ("n", "m"))),
        ({"query": "q", "positives": ["p", "r"], "hard_negatives": ["n"]}, Example("q", ("p", "r"), ("n",))),
        ({"query": "q", "positive": "p", "hard_negative_1": "n"}, Example("q", ("p",), ("n",))),
        ({"query": "q", "answer": "7", "passage": "It is 7."}, Example("q", ("It is 7.",))),
        ({"question": "q", "answer": "7", "context": "It is 7."}, Example("q", ("It is 7.",))),
        (
            {"question": "q", "answer": "7", "contexts": ["It is 7.", "So."], "ground_truth": "7"},
            Example("q", ("It is 7.", "So.")),
        ),
        ({"question": "q", "answer": "a long answer"}, Example("q", ("a long answer",))),
        (
            {"query": "q", "pos": ["p"], "prompt": "Find: ", "type": "x"},
            Example("q", ("p",), prompt="Find: "),
        ),
        # Tevatron
        (
            {
                "query_id": 3,
                "query": "q",
                "positive_passages": [{"docid": "1", "title": "T", "text": "p"}],
                "negative_passages": [{"docid": "2", "title": "", "text": "n"}],
            },
            Example("q", ("T\np",), ("n",), id="3"),
        ),
        # Cohere
        ({"query": "q", "relevant_passages": ["p"], "hard_negatives": ["n"]}, Example("q", ("p",), ("n",))),
        # DPR
        (
            {"question": "q", "answers": ["7"], "positive_ctxs": [{"text": "p"}], "hard_negative_ctxs": []},
            Example("q", ("p",)),
        ),
        # ms-swift
        (
            {
                "messages": [{"role": "user", "content": "q"}],
                "positive_messages": [[{"role": "user", "content": "p"}]],
                "negative_messages": [[{"role": "user", "content": "n"}], [{"role": "user", "content": "m"}]],
            },
            Example("q", ("p",), ("n", "m")),
        ),
        ({"query": "q", "pos": ["p"], "qid": "7"}, Example("q", ("p",), id="7")),
    ],
)
def test_the_forms_of_other_tools_are_read(tmp_path: Path, record: dict[str, Any], wanted: Example) -> None:
    assert read(write(tmp_path / "a.jsonl", [record])) == [wanted]


def test_the_file_of_llama_index_is_read(tmp_path: Path) -> None:
    whole = {
        "queries": {"a": "first", "b": "second"},
        "corpus": {"x": "one", "y": "two"},
        "relevant_docs": {"a": ["x"], "b": ["x", "y"]},
        "mode": "text",
    }
    path = tmp_path / "a.json"
    path.write_text(json.dumps(whole, indent=2))
    assert read(path) == [Example("first", ("one",), id="a"), Example("second", ("one", "two"), id="b")]
    path.write_text(json.dumps({**whole, "corpus": {"x": "one"}}))
    with pytest.raises(DataError, match=r"a\.json: record 2: query 'b' or one of its documents is not there"):
        read(path)


def test_blank_negatives_are_refused_or_left_out_with_their_scores(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"query": "q", "pos": ["p"], "neg": [""]},
        {"query": "r", "pos": ["p"], "neg": ["n", " ", "m"], "pos_scores": [1], "neg_scores": [2, 3, 4]},
    ]
    path = write(tmp_path / "a.jsonl", rows)
    with pytest.raises(DataError, match=r"neg\[0\] is blank"):
        read(path)
    assert read(path, blank_negatives="drop") == [
        Example("q", ("p",)),
        Example("r", ("p",), ("n", "m"), (1.0,), (2.0, 4.0)),
    ]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_array_is_read_and_an_object_over_several_lines_is_named(
    tmp_path: Path, indent: int | None
) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps([{"query": "q", "pos": ["p"]}, {"query": "r", "pos": ["p"]}], indent=indent))
    assert [example.query for example in read(path)] == ["q", "r"]
    path.write_text(json.dumps({"query": "q", "pos": ["p"]}, indent=2))
    errors: list[DataError] = []
    assert read(path, on_error=errors.append) == []
    assert [str(error).split("; ")[0] for error in errors] == [f"{path}: one JSON object over several lines"]


def test_tables_with_a_header_are_training_data(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('query,positive,negative,lang\nq,"p, p",n,de\n')
    assert read(path) == [Example("q", ("p, p",), ("n",), language="de")]
    path = tmp_path / "a.tsv"
    path.write_text("query\tpassage\tlabel\nq\tp\t1\nq\tn\t0\n")
    assert read(path) == [Example("q", ("p",), ("n",))]
    path.write_text("what is it\tit is this\tno\n")
    with pytest.raises(
        DataError, match=r"a\.tsv:1: got 3 columns without a header; expected a header with a column query"
    ):
        read(path)
