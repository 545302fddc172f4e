"""What counts as one data set, and which content a prepared one belongs to."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from data_train.words import WordTokenizer, text_of
from triptych.collections.training import Reading
from triptych.errors import DataError, InputError
from triptych.train.data import PairLimits, data_sets, open_pairs
from triptych.train.run import Outcome, run
from triptych.train.settings import Recipe, dump, read
from triptych.train.start import prepare
from triptych.train.tasks import Pairs

from .made import tiny_model, write_lines, write_pairs


class Records:
    """Stands for a `datasets.Dataset`: columns, length, and rows by iteration."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    @property
    def column_names(self) -> list[str]:
        return list(self._rows[0])

    def __iter__(self):
        return iter(self._rows)


ROWS = [{"query": f"q{i}", "pos": [f"answer {i}"], "neg": ["other text"]} for i in range(8)]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("model") / "model")


def go(model: Path, out: Path, data: dict[str, Any], **more: Any) -> Outcome:
    values = {
        "model": str(model),
        "data": {"batch_size": 4, "group": 2, "cache": str(out.parent / "cache"), **data},
        "compute": {"device": "cpu", "dtype": "float32"},
        "log_every": 1,
        **more,
    }
    return run("train", Recipe.model_validate(values), out)


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_each_file_of_a_folder_is_a_data_set_but_for_the_shards_of_one(tmp_path):
    for name in ("a.jsonl", "b-00000-of-00002.jsonl", "b-00001-of-00002.jsonl", "deep/c-2020.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}\n")
    found = {name.removeprefix(f"{tmp_path.name}/"): len(files) for name, files in data_sets(tmp_path)}
    assert found == {"a.jsonl": 1, "b.jsonl": 2, "deep/c-2020.jsonl": 1}
    assert data_sets(tmp_path / "a.jsonl") == [("a.jsonl", [tmp_path / "a.jsonl"])]


def test_a_batch_has_rows_of_one_file_of_a_folder(model, tmp_path):
    (tmp_path / "data").mkdir()
    for name in ("a", "b", "c"):
        rows = [{"query": f"{name}{i}", "pos": [f"text {name} {i}"]} for i in range(7)]
        (tmp_path / "data" / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    go(model, tmp_path / "run", {"train": str(tmp_path / "data")})
    log = [line for line in lines(tmp_path / "run") if "loss" in line]
    assert len(log) == 6
    assert {source for line in log for source in line["sources"]} == {f"data/{n}.jsonl" for n in "abc"}
    assert all(len(line["sources"]) == 1 for line in log)


def test_records_in_memory_are_a_source(model, tmp_path):
    outcome = go(model, tmp_path / "run", {"train": Records(ROWS)}, steps=2)
    assert outcome.steps == 2
    recipe = read(tmp_path / "run" / "recipe.yaml")
    assert recipe.data.train[0].path == "(records)"
    with pytest.raises(InputError, match="pass them again"):
        run("train", recipe, tmp_path / "again")


def test_records_have_the_rows_of_a_file_with_the_same_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    tokenizer: Any = WordTokenizer()
    sets = [
        open_pairs(source, tokenizer, PairLimits(8, 8), cache=tmp_path / "cache")
        for source in (tmp_path / "a.jsonl", Records(ROWS))
    ]
    for left, right in zip(*sets, strict=True):
        assert text_of(left.query) == text_of(right.query)
        assert [text_of(text) for text in left.passages] == [text_of(text) for text in right.passages]


def test_a_hugging_face_dataset_is_a_source(tmp_path):
    datasets = pytest.importorskip("datasets")
    tokenizer: Any = WordTokenizer()
    found = open_pairs(datasets.Dataset.from_list(ROWS), tokenizer, PairLimits(8, 8), cache=tmp_path)
    assert len(found) == len(ROWS)
    both = datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)})
    with pytest.raises(DataError, match="one split"):
        open_pairs(both, tokenizer, PairLimits(8, 8), cache=tmp_path)


def test_a_bad_record_is_named_with_its_number(tmp_path):
    tokenizer: Any = WordTokenizer()
    with pytest.raises(DataError, match=r"records:2: field 'query'"):
        open_pairs(Records([ROWS[0], {**ROWS[1], "query": 5}]), tokenizer, PairLimits(8, 8), cache=tmp_path)


def test_a_file_with_other_content_is_prepared_again_whatever_its_size_and_time(tmp_path):
    path, tokenizer = write_pairs(tmp_path / "a.jsonl", 4), WordTokenizer()
    before, old = path.stat(), path.read_text(encoding="utf-8")

    def digest() -> str:
        return open_pairs(
            path, tokenizer, PairLimits(8, 8), cache=tmp_path / "cache", reading=Reading()
        ).digest  # type: ignore[arg-type]

    first = digest()
    path.write_text(old.replace("the ", "eht "), encoding="utf-8")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_size == before.st_size
    assert digest() != first
    path.write_text(old, encoding="utf-8")
    assert digest() == first


def test_a_recipe_leaves_records_out_when_it_is_written():
    recipe = Recipe.model_validate({"data": {"train": Records(ROWS)}})
    assert "answer" not in dump(recipe)


def test_blank_negatives_and_the_least_score_of_a_positive_are_settings(folder: Path, tmp_path: Path) -> None:
    blank = [{"query": f"q{n}", "pos": [f"p{n}"], "neg": ["", f"n{n}"]} for n in range(4)]
    judged = [{"query": "q", "passage": f"p{n}", "score": float(n)} for n in range(5)]
    recipe = ["freeze=[backbone]", f"model={folder}", f"data.cache={tmp_path / 'cache'}"]

    def open_(name: str, *changes: str) -> Pairs:
        chosen = read(None, [*recipe, f"data.train={tmp_path / name}", *changes])
        start = prepare(chosen)
        return Pairs(chosen, start.model, start.tokenizer)

    write_lines(tmp_path / "blank.jsonl", blank)
    write_lines(tmp_path / "judged.jsonl", judged)
    with pytest.raises(DataError, match=r"blank\.jsonl:1: .*neg"):
        open_("blank.jsonl")
    (part,) = open_("blank.jsonl", "data.blank_negatives=drop").data.datasets.parts
    assert [len(part[row].passages) for row in range(4)] == [2] * 4  # type: ignore[index]
    for least, positives in ((0.5, 4), (3, 2)):
        (part,) = open_("judged.jsonl", f"data.positive_from={least}").data.datasets.parts
        assert part[0].positives == positives  # type: ignore[union-attr]
