"""Every setting has a range, and a combination that cannot train is an error that says what to do."""

import json
from pathlib import Path

import pytest

from triptych.errors import InputError
from triptych.train.loop import TrainingFault
from triptych.train.run import run
from triptych.train.settings import read, steps_of

from .made import tiny_model, write_lines, write_pairs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("objective.temperature=1e-9", "temperature 1e-09; expected 0.001 to 100"),
        ("objective.teacher_temperature=1e-5", "teacher_temperature"),
        ("objective.reranker_temperature=1e6", "reranker_temperature"),
        ("objective.integrated_weight=-1", "integrated_weight -1.0; expected 0 to 1000"),
        ("objective.distill_from=-1", "distill_from -1; expected a step ≥ 0"),
        ("objective.loss_weights=[1, -1, 1]", "loss_weights"),
        ("objective.score_weights=[1, 1e9, 1]", "score_weights"),
        (
            "objective={heads: [dense, lexical], score_weights: [0, 0, 1]}",
            "expected a weight above 0 for one of them",
        ),
        (
            "objective={heads: [dense, lexical], loss_weights: [1, 0, 1], score_weights: [1, 0, 1]}",
            "leave it out of heads",
        ),
        ("objective={heads: [dense], loss_weights: [0, 1, 1]}", "dense has no loss of a weight above 0"),
        ("objective.false_negative_relative=true", "without false_negative_margin"),
        ("objective.false_negative_margin=1e9", "expected −100 to 100"),
        ("objective={heads: [lexical], dense_widths: [4]}", "dense_widths without dense"),
        ("objective={heads: [dense], in_batch: false, bidirectional: true}", "bidirectional needs in_batch"),
        ("data.group=0", "data.group"),
        ("data.temperature=0.5", "data.temperature"),
        ("data.train=[{path: a, weight: -1}]", "weight"),
        ("optimizer.betas=[0.9, 1.0]", "optimizer.betas.1"),
        ("optimizer.lr=1e9", "optimizer.lr"),
        ("optimizer.weight_decay=5", "optimizer.weight_decay"),
        ("optimizer.warmup=2.5", "expected a share of all steps"),
        ("evaluation.every=1.5", "expected a share of all steps"),
        ("evaluation.every=0", "evaluation.every"),
        ("evaluation.metric=lexical", None),
        ("saving.average=3", "triptych merge"),
        ("data.table=probe", "was removed"),
    ],
)
def test_a_value_out_of_range_is_refused_when_the_recipe_is_read(change, message):
    more = ["objective=dense"] if message is None else []
    with pytest.raises(InputError) as error:
        read(None, [*more, change])
    assert (message or "expected one of the trained heads dense") in str(error.value)


def test_a_whole_number_is_steps_and_a_fraction_up_to_1_a_share_of_them():
    assert [steps_of(value, 40) for value in (1, 7, 7.0, 0.25, 1.0)] == [1, 7, 7, 10, 40]
    assert steps_of(read(None, ["evaluation.every=1.0"]).evaluation.every, 40) == 40
    assert steps_of(read(None, ["evaluation.every=1"]).evaluation.every, 40) == 1


def test_the_keys_of_the_release_before_are_read():
    recipe = read(
        None, ["optimisation.lr=3e-4", "objective.distil_from=5", "saving={average: 1, merge_start: 0.0}"]
    )
    assert (recipe.optimizer.lr, recipe.objective.distill_from) == (3e-4, 5)
    assert read(None, ["optimisation.lr=1e-4", "optimizer.lr=2e-4"]).optimizer.lr == 2e-4
    assert read(None, ["objective={reranker: published}"]).objective.reranker == "ranked"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("limits")
    tiny_model(folder / "model")
    write_pairs(folder / "pairs.jsonl")
    write_lines(folder / "bare.jsonl", [{"query": f"hello {i}", "pos": [f"world {i}"]} for i in range(6)])
    write_lines(folder / "one.jsonl", [{"query": "hello", "pos": ["world"]}])
    write_lines(folder / "same.jsonl", [{"query": f"hello {i}", "pos": ["world"]} for i in range(6)])
    return folder


def go(place: Path, out: Path, data: str, *more: str) -> None:
    start = [f"model={place / 'model'}", f"data.train={place / data}", f"data.cache={place / 'cache'}"]
    run("train", read(None, [*start, "compute.device=cpu", "steps=5", *more]), out)


@pytest.mark.parametrize(
    ("data", "more", "message"),
    [
        ("bare.jsonl", ["data.batch_size=1"], "no step has a negative"),
        ("one.jsonl", ["data.batch_size=16"], "no step has a negative"),
        ("bare.jsonl", ["objective.in_batch=false"], "objective.in_batch is false"),
        ("pairs.jsonl", ["data={batch_size: 1, group: 1}"], "no step has a negative"),
        ("pairs.jsonl", ["objective.reranker=ranked"], "no row of the data has pos_scores"),
        ("pairs.jsonl", ["objective.dense_widths=[64]"], "expected numbers below 32"),
        ("pairs.jsonl", ["objective.multi_widths=[8, 16]"], "expected numbers below 16"),
    ],
)
def test_what_cannot_train_is_refused_before_the_first_step(place, tmp_path, data, more, message):
    with pytest.raises(InputError, match=message):
        go(place, tmp_path / "a", data, *more)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("data", "more"),
    [("pairs.jsonl", ["objective.false_negative_margin=100"]), ("same.jsonl", ["data.group=1"])],
)
def test_a_loss_that_is_always_0_ends_the_run_at_once(place, tmp_path, data, more):
    with pytest.raises(TrainingFault, match="first 3 steps every negative was masked"):
        go(place, tmp_path / "a", data, *more)


def test_the_log_has_the_number_of_negatives(place, tmp_path):
    go(place, tmp_path / "a", "bare.jsonl", "data.batch_size=3", "log_every=1")
    log = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert {line["negatives"] for line in log} == {2.0}
