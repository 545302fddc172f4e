"""Distillation from a teacher's vectors: the loss, the data, and runs that are cut into parts and interrupted."""

import json
import math
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import distributed as dist

from checkpoints import make
from data_train.words import WordTokenizer, ids_of
from processes import spawn
from triptych import Encoder
from triptych.collections.examples import Example, parse_record
from triptych.errors import DataError, InputError
from triptych.model import checkpoint as layouts
from triptych.records import Place
from triptych.train import gradcache
from triptych.train.collate import Collator, PairBatch
from triptych.train.data import Datasets, PairLimits, open_pairs
from triptych.train.distributed import Replica
from triptych.train.losses import vector_distance
from triptych.train.objective import Objective
from triptych.train.run import RunCallbacks, run
from triptych.train.settings import Recipe
from triptych.train.start import Projected
from triptych.train.tasks import encode, pair_losses

from .made import tiny_model, tokens, write_lines, write_pairs

WIDTH = 5
GROUP = 2


def vector(text: str) -> list[float]:
    draw = random.Random(text)
    return [draw.gauss(0, 1) for _ in range(WIDTH)]


def taught(path: Path) -> Path:
    """`write_pairs` with a vector of each text; every third row has none."""
    rows = [json.loads(line) for line in write_pairs(path).read_text(encoding="utf-8").splitlines()]
    for number, row in enumerate(rows):
        if number % 3:
            own = {name: [vector(text) for text in row[name]] for name in ("pos", "neg")}
            row["teacher_vectors"] = {"query": vector(row["query"]), **own}
    write_lines(path, rows)
    return path


def recipe(folder: Path, steps: int = 12, **compute: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "model": str(tiny_model(folder / "model", dropout=0.0)),
            "data": {
                "train": [{"path": str(taught(folder / "pairs.jsonl"))}],
                "batch_size": 8,
                "group": GROUP,
                "cache": str(folder / "cache"),
            },
            "objective": {"name": "unified", "vector_weight": 2.0},
            "optimizer": {"lr": 1e-2},
            "compute": {"device": "cpu", "dtype": "float32", **compute},
            "steps": steps,
            "log_every": 1,
        }
    )


def test_the_distance_is_one_minus_the_cosine():
    draw = np.random.default_rng(0)
    left, right = draw.normal(size=(2, 6, 4))
    right[2] = np.nan

    def cosine(a: Any, b: Any) -> float:
        lengths = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b))
        return sum(x * y for x, y in zip(a, b, strict=True)) / lengths

    expected = [0 if i == 2 else 1 - cosine(left[i], right[i]) for i in range(6)]
    projected = torch.tensor(left, requires_grad=True)
    found = vector_distance(projected, torch.tensor(right))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float32))
    found.sum().backward()
    assert projected.grad is not None
    assert projected.grad.isfinite().all()
    assert not projected.grad[2].any()


RECORD = {"query": "q", "pos": ["p", "r"], "neg": ["", "n"]}
GOOD = {"query": [1, 0], "pos": [[0, 1], [1, 1]], "neg": [[0.5, 0], [2, 2]]}


def test_a_record_has_the_vectors_of_its_query_and_passages_in_order():
    found = parse_record(RECORD | {"teacher_vectors": GOOD}, Place("a"), blank_negatives=False)
    assert isinstance(found, Example)
    assert found.neg == ("n",)
    assert found.teacher_vectors == ((1, 0), (0, 1), (1, 1), (2, 2))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"pos": [[0, 1]]}, "pos is"),
        ({"query": None}, "expected lists of numbers"),
        ({"neg": [[1, 2], [1]]}, "of one width"),
        ({"neg": [[0, 0], [0, 0]]}, "zero vector"),
        ({"query": [1, float("nan")]}, "not finite"),
        ({"query": ["x", "y"]}, "expected lists of numbers"),
        ({"query": []}, "of one width"),
    ],
)
def test_vectors_that_do_not_fit_are_an_error_with_the_place(change, said):
    record = {"query": "q", "pos": ["p", "r"], "neg": ["m", "n"], "teacher_vectors": GOOD | change}
    with pytest.raises(DataError, match=said) as caught:
        parse_record(record, Place("a.jsonl", 3))
    assert "a.jsonl" in str(caught.value)


def test_the_vectors_of_a_batch_belong_to_its_texts(tmp_path):
    taught(tmp_path / "a.jsonl")
    tokenizer: Any = WordTokenizer()
    data = open_pairs(tmp_path / "a.jsonl", tokenizer, PairLimits(64, 64, vectors=True), cache=tmp_path / "c")
    assert data.vector_width == WIDTH
    texts: dict[bytes, str] = {}
    for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        for text in (row["query"], *row["pos"], *row["neg"]):
            texts[np.asarray(ids_of(text), dtype=np.int32).tobytes()] = text
    ids = Collator(Datasets([data]), group=4)(range(12), 3)
    assert ids.teacher_vectors is not None
    assert len(ids.teacher_vectors) == len(ids.queries) + len(ids.passages)
    for place, (text, found) in enumerate(
        zip([*ids.queries, *ids.passages], ids.teacher_vectors, strict=True)
    ):
        row = place if place < 12 else (place - 12) // ids.group
        if row % 3:
            np.testing.assert_allclose(found, vector(texts[text.tobytes()]), rtol=1e-6)
        else:
            assert np.isnan(found).all()


def test_without_the_weight_the_vectors_change_nothing(tmp_path):
    taught(tmp_path / "a.jsonl")
    tokenizer: Any = WordTokenizer()
    data = open_pairs(tmp_path / "a.jsonl", tokenizer, PairLimits(64, 64), cache=tmp_path / "c")
    assert Collator(Datasets([data]), group=2)(range(6), 0).teacher_vectors is None


def test_training_brings_the_vectors_nearer_and_throws_the_map_away(tmp_path):
    run("train", recipe(tmp_path, steps=60), tmp_path / "run")
    distances = log(tmp_path / "run", "vectors")
    assert len(distances) == 60
    assert np.mean(distances[-10:]) < 0.8 * np.mean(distances[:10])
    names = load_file(tmp_path / "run/final/model.safetensors")
    assert not [name for name in names if "map" in name]
    assert Encoder.from_pretrained(tmp_path / "run/final").encode(["a b"]).dense is not None


def log(folder: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line[name] for line in lines if name in line]


def test_sub_batches_give_the_same_loss_and_gradient(tmp_path):
    for name, budget in (("whole", None), ("parts", 24)):
        run("train", recipe(tmp_path, steps=2, sub_batch_tokens=budget), tmp_path / name)
    for name in ("vectors", "loss", "norm"):
        assert log(tmp_path / "parts", name)[0] == pytest.approx(log(tmp_path / "whole", name)[0], rel=1e-4)


def test_a_resumed_run_equals_one_that_was_not_interrupted(tmp_path):
    plan = recipe(tmp_path)
    run("train", plan, tmp_path / "whole")
    steps = iter(range(100))
    outcome = run(
        "train", plan, tmp_path / "cut", callbacks=RunCallbacks(should_stop=lambda: next(steps) >= 4)
    )
    assert outcome.steps < 12
    run("train", plan, tmp_path / "cut", resume=True)
    whole, cut = (load_file(tmp_path / name / "final/model.safetensors") for name in ("whole", "cut"))
    assert all(torch.equal(whole[key], cut[key]) for key in whole)


@pytest.mark.parametrize(
    ("objective", "said"),
    [
        ({"heads": ["multi"], "vector_weight": 1.0}, "without dense"),
        ({"vector_weight": -1.0}, "expected 0 to"),
    ],
)
def test_settings_that_do_not_fit_are_refused(objective, said):
    with pytest.raises(InputError, match=said):
        Objective(**objective)


def test_a_weight_without_vectors_in_the_data_is_an_error(tmp_path):
    plan = recipe(tmp_path)
    write_pairs(tmp_path / "pairs.jsonl")
    with pytest.raises(InputError, match="teacher_vectors"):
        run("train", plan, tmp_path / "run")


TEXTS = ([3, 4], [5, 6, 4, 7]), ([6, 2], [8, 4, 5, 9])


def batch_of(sides: tuple[list[int], list[int]], seed: int) -> PairBatch:
    draw = torch.Generator().manual_seed(seed)
    vectors = torch.randn(len(sides[0]) + len(sides[1]), WIDTH, generator=draw)
    vectors[1] = torch.nan
    queries, passages = tokens(sides[0], seed), tokens(sides[1], seed + 7)
    return PairBatch(queries, passages, GROUP, teacher_vectors=vectors)


def gradient(folder: Path, batch: PairBatch) -> tuple[float, torch.Tensor]:
    """The distance and the gradient of the map, of this process's batch with those of the others."""
    torch.manual_seed(0)
    model = layouts.load(folder).model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    model.lexical_head, model.multi_head = None, None
    replica = Replica(Projected(model, 32, WIDTH), "ddp")
    objective = Objective(heads=("dense",), vector_weight=1.5, drop_duplicates=False)
    (part,) = gradcache.split(batch.joint(), None)
    reps = encode(replica.call, part, objective.heads)
    found = pair_losses(objective, reps, batch, 0)
    found["loss"].backward()
    weight: Any = replica.module.get_parameter("map.weight")
    return float(found["vectors"]), weight.grad.clone()


def in_process(rank: int, port: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    dist.init_process_group("gloo", rank=rank, world_size=2)
    torch.save(gradient(Path(folder, "model"), batch_of(TEXTS[rank], rank)), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_gradient_of_the_joint_batch(tmp_path):
    make("xlm-roberta", tmp_path / "model")
    spawn(in_process, str(tmp_path))
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    one, other = (batch_of(TEXTS[rank], rank) for rank in range(2))
    assert one.teacher_vectors is not None
    assert other.teacher_vectors is not None
    vectors = [
        *one.teacher_vectors[:2],
        *other.teacher_vectors[:2],
        *one.teacher_vectors[2:],
        *other.teacher_vectors[2:],
    ]

    def both(name: str) -> Any:
        sides = [getattr(each, name) for each in (one, other)]
        texts = [
            side.ids[a:b].tolist()
            for side in sides
            for a, b in zip(side.offsets[:-1], side.offsets[1:], strict=True)
        ]
        return type(sides[0]).of(texts)

    joint = PairBatch(both("queries"), both("passages"), GROUP, teacher_vectors=torch.stack(vectors))
    distance, expected = gradient(tmp_path / "model", joint)
    assert np.mean([each[0] for each in found]) == pytest.approx(distance, rel=1e-5)
    for _, got in found:
        torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-6)
