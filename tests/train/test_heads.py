"""No head is harmed unseen: masked answers, idle heads, and the choice of the best step."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from data_train.words import WordTokenizer
from triptych import Encoder
from triptych.errors import InputError
from triptych.train import gradcache, loop
from triptych.train.checkpoint import State
from triptych.train.collate import Collator, PairBatch
from triptych.train.data import Datasets, PairLimits, open_pairs
from triptych.train.objective import OBJECTIVES, Answers, Candidates, losses
from triptych.train.run import Outcome, run
from triptych.train.settings import Recipe, read
from triptych.train.start import prepare
from triptych.train.tasks import pair_limits
from triptych.train.validate import clearly_worse

from .made import reps, tiny_model, write_beir, write_lines, write_pairs

ROWS = [
    {"query": "a", "pos": ["one", "two"]},
    {"query": "b", "pos": ["three"]},
    {"query": "a", "pos": ["four"]},
    {"query": "c", "pos": ["two"]},
]


def test_a_query_knows_the_positives_of_all_rows_with_its_words(tmp_path):
    write_lines(tmp_path / "a.jsonl", ROWS)
    tokenizer: Any = WordTokenizer()
    data = open_pairs(tmp_path / "a.jsonl", tokenizer, PairLimits(8, 8), cache=tmp_path / "cache")
    assert data.answers(0) == data.answers(2)
    assert [len(data.answers(row)) for row in range(4)] == [3, 1, 3, 1]
    assert data.answers(3) < data.answers(0)


@pytest.mark.parametrize("bidirectional", [False, True])
def test_labelled_positives_of_other_rows_are_no_negatives(tmp_path, bidirectional):
    write_lines(tmp_path / "a.jsonl", ROWS)
    tokenizer: Any = WordTokenizer()
    data = open_pairs(tmp_path / "a.jsonl", tokenizer, PairLimits(8, 8), cache=tmp_path / "cache")
    collate = Collator(Datasets([data]), group=1)
    batch = PairBatch.of(collate([0, 1, 2, 3], 0), keyed=True)
    queries, passages = reps([3] * 4, 0), reps([4] * 4, 1)
    objective = Recipe.model_validate(
        {"objective": {"name": "dense", "bidirectional": bidirectional}}
    ).objective
    found = losses(objective, Candidates.of(queries, passages, 1, keys=batch.keys, answers=batch.answers))
    scores = queries.dense.detach().double() @ passages.dense.detach().double().T / 0.02  # type: ignore[union-attr]
    # "two" answers the first and the third query; of each other's rows these are answers too.
    masked = torch.tensor([[0, 0, 1, 1], [0, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]], dtype=torch.bool)
    if int(batch.keys[0]) == int(batch.keys[3]):  # type: ignore[index]
        masked[3, 0] = True

    def mean(logits: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        return -logits.masked_fill(hidden, -torch.inf).log_softmax(1).diagonal().mean()

    expected = mean(scores, masked)
    if bidirectional:
        expected = (expected + mean(scores.T, masked.T)) / 2
    assert found["loss"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert found["negatives"].item() == pytest.approx(((~masked).sum().item() - 4) / 4)


def test_answers_that_are_unknown_are_the_positives_themselves():
    sides = reps([3] * 2, 0), reps([4] * 2, 1)
    keys = torch.tensor([5, 5])
    answers = Answers(torch.tensor([5, 5]), torch.tensor([0, 1]))
    bare = losses(OBJECTIVES["dense"], Candidates.of(*sides, 1, keys=keys))
    known = losses(OBJECTIVES["dense"], Candidates.of(*sides, 1, keys=keys, answers=answers))
    assert bare["loss"].item() == known["loss"].item() == 0


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    tiny_model(folder / "model")
    write_pairs(folder / "pairs.jsonl")
    write_beir(folder / "dev")
    return folder


def go(place: Path, out: Path, *more: str) -> Outcome:
    start = [
        f"model={place / 'model'}",
        f"data={{train: {place / 'pairs.jsonl'}, batch_size: 8, group: 3, cache: {place / 'cache'}}}",
        "compute={device: cpu, dtype: float32}",
        "optimizer={lr: 1e-3, warmup: 0}",
        "log_every=1",
        "steps=6",
        *more,
    ]
    return run("train", read(None, start), out)


def test_a_head_that_a_source_says_nothing_of_moves_neither_by_momentum_nor_by_decay(
    place, tmp_path, monkeypatch
):
    other = write_pairs(tmp_path / "other.jsonl", 40)
    sources = f"data.train=[{{path: {place / 'pairs.jsonl'}}}, {{path: {other}, heads: [dense, multi]}}]"
    moved: dict[str, list[bool]] = {"pairs.jsonl": [], "other.jsonl": []}
    plain = loop.forward_backward

    def watch(task: Any, batch: Any, step: int, runner: Any) -> Any:
        weight = runner.replica.module.lexical_head.weight
        if seen:
            source, before = seen.pop()
            moved[source].append(not torch.equal(before, weight.detach()))
        seen.append((batch.source, weight.detach().clone()))
        return plain(task, batch, step, runner)

    seen: list[tuple[str, torch.Tensor]] = []
    monkeypatch.setattr(loop, "forward_backward", watch)
    go(place, tmp_path / "a", sources, "steps=10", "optimizer.weight_decay=0.1")
    assert all(moved["pairs.jsonl"])
    assert moved["other.jsonl"]
    assert not any(moved["other.jsonl"])


def test_the_passages_of_a_source_look_for_their_queries_where_it_says_so(place, tmp_path, monkeypatch):
    other = write_pairs(tmp_path / "other.jsonl", 40)
    sources = f"data.train=[{{path: {place / 'pairs.jsonl'}, bidirectional: true}}, {{path: {other}}}]"
    losses_of: dict[str, list[float]] = {}
    plain = loop.forward_backward

    def watch(task: Any, batch: Any, step: int, runner: Any) -> Any:
        found = plain(task, batch, step, runner)
        losses_of.setdefault(batch.source, []).append(float(found["loss"]))
        return found

    monkeypatch.setattr(loop, "forward_backward", watch)
    still = ["objective=dense", "optimizer={lr: 1e-30, warmup: 0}", "steps=10"]
    go(place, tmp_path / "own", sources, *still)
    own = dict(losses_of)
    whole: dict[bool, dict[str, list[float]]] = {}
    for both in (True, False):
        losses_of.clear()
        go(
            place,
            tmp_path / str(both),
            sources.replace(", bidirectional: true", ""),
            *still,
            f"objective.bidirectional={str(both).lower()}",
        )
        whole[both] = dict(losses_of)
    assert own["pairs.jsonl"] == pytest.approx(whole[True]["pairs.jsonl"])
    assert own["other.jsonl"] == pytest.approx(whole[False]["other.jsonl"])
    assert own["pairs.jsonl"] != pytest.approx(whole[False]["pairs.jsonl"])


@pytest.mark.parametrize(
    "wrong",
    [
        "data={mixed: true, train: [{path: a, bidirectional: true}]}",
        "data={mixed: true, train: [{path: a, heads: [dense]}]}",
    ],
)
def test_what_a_source_has_of_its_own_needs_batches_of_one_source(wrong):
    with pytest.raises(InputError, match="needs batches of one source"):
        read(None, [wrong])


def test_a_source_of_both_directions_needs_in_batch_negatives():
    with pytest.raises(InputError, match="bidirectional needs in_batch"):
        read(
            None, ["objective={name: dense, in_batch: false}", "data.train=[{path: a, bidirectional: true}]"]
        )


def test_a_fall_is_clear_where_chance_does_not_explain_it():
    noise = np.random.default_rng(0).normal(size=200) * 0.1
    before = np.full(200, 0.5)
    assert clearly_worse(before, before - 0.05 + noise)
    assert not clearly_worse(before, before + noise - noise.mean())
    assert not clearly_worse(before, before + 0.05)
    assert not clearly_worse(before[:5], before[:5] - 0.2)


@pytest.mark.parametrize("keep", [True, False])
def test_a_step_that_lowers_a_head_is_not_the_best_and_says_so(place, tmp_path, monkeypatch, keep):
    from triptych.train import run as runs

    # The integrated score rises from evaluation to evaluation, the lexical head falls at the last one.
    integrated = iter([0.5, 0.6, 0.7])
    lexical = iter([0.5, 0.5, 0.3])

    def evaluate(self: Any) -> dict[str, Any]:
        queries = len(self.validation.ids)
        names = {"dense": 0.5, "lexical": next(lexical), "multi": 0.5, "integrated": next(integrated)}
        return {name: np.full(queries, value) for name, value in names.items()}

    monkeypatch.setattr(runs._Run, "_evaluate", evaluate)
    evaluation = f"evaluation={{data: {place / 'dev'}, every: 3, keep_heads: {str(keep).lower()}}}"
    outcome = go(place, tmp_path / "a", evaluation)
    assert dict(outcome.lowered) == {6: ("lexical",)}
    assert outcome.best_step == (3 if keep else 6)
    log = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert [line.get("lowered") for line in log if "evaluation" in line] == [None, None, ["lexical"]]
    best, final = (load_file(tmp_path / "a" / name / "model.safetensors") for name in ("best", "final"))
    assert all(torch.equal(best[name], final[name]) for name in best) is not keep


def test_a_line_of_the_log_has_the_means_of_its_window_by_head_and_source(place, tmp_path):
    other = write_pairs(tmp_path / "other.jsonl", 24)
    sources = f"data.train=[{place / 'pairs.jsonl'}, {other}]"
    for name, every in (("each", 1), ("window", 4)):
        go(place, tmp_path / name, sources, f"log_every={every}", "steps=8")
    each, window = (
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()]
        for name in ("each", "window")
    )
    assert [line["step"] for line in window] == [1, 4, 8]  # the first loss is shown at once
    for start, line in zip((0, 1, 4), window, strict=True):
        steps = each[start : line["step"]]
        for key in ("loss", "dense", "lexical", "multi", "integrated", "lexical_distilled", "lexical_active"):
            assert line[key] == pytest.approx(np.mean([step[key] for step in steps]), rel=1e-5)
        for source, values in line["sources"].items():
            own = [step for step in steps if source in step["sources"]]
            assert values["loss"] == pytest.approx(np.mean([step["loss"] for step in own]), rel=1e-5)
            assert values["lexical"] == pytest.approx(np.mean([step["lexical"] for step in own]), rel=1e-5)
        assert sum(len([s for s in steps if source in s["sources"]]) for source in line["sources"]) == len(
            steps
        )


def test_a_strong_fall_of_active_lexical_weights_is_warned_of_once():
    state = State()
    shares = [(5, 0.72), (9, 0.5), (10, 0.6), (15, 0.53), (20, 0.5)]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step, share in shares:
            state.step = step
            loop._watch_lexical({"step": step, "lexical_active": share}, state)
    assert [str(each.message).split(" of the")[0] for each in caught] == ["step 15: 53.00%"]
    assert issubclass(caught[0].category, loop.LexicalCollapse)


@pytest.mark.parametrize(
    ("lowered", "best", "words"),
    [
        ({}, 9, None),
        ({9: ("lexical",)}, 0, "(lexical 0.8000 → 0.7000); kept instead: the model that training began with"),
        ({9: ("lexical",)}, 4, "kept instead: the model of step 4"),
        ({9: ("lexical",)}, 9, "it was kept nevertheless"),
    ],
)
def test_a_run_that_lowers_a_head_says_so_and_which_model_it_keeps(lowered, best, words):
    from triptych.cli.train import _warnings

    evaluations = {step: {"lexical": value} for step, value in ((0, 0.8), (4, 0.85), (9, 0.7))}
    outcome = Outcome(9, 9, evaluations, lowered, best, None, {})
    said = list(_warnings(outcome))
    assert len(said) == (words is not None)
    assert words is None or words in said[0]


@pytest.mark.parametrize("budget", [None, 8])
def test_a_querys_own_prompt_has_no_lexical_weight_in_training_as_in_encoding(
    folder: Path, tmp_path: Path, budget: int | None
) -> None:
    write_lines(
        tmp_path / "a.jsonl",
        [
            {"query": "hello world", "prompt": "a model of text: ", "pos": ["defination of bm25"]},
            {"query": "hello world and more", "prompt": "search ", "pos": ["a model"]},
            {"query": "hello", "pos": ["a model of text: hello"]},
        ],
    )
    recipe = read(None, [f"model={folder}", "data.prompts=true", f"data.train={tmp_path / 'a.jsonl'}"])
    recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={"cache": str(tmp_path / "c")})})
    start = prepare(recipe)
    limits = pair_limits(recipe, start.model)
    data = open_pairs(tmp_path / "a.jsonl", start.tokenizer, limits, cache=tmp_path / "c")
    batch = PairBatch.of(Collator(Datasets([data]), group=1)([0, 1, 2], 0))
    parts = gradcache.split(batch.joint(), budget)
    encoder = Encoder(start, device="cpu", dtype="float32")
    found: dict[int, dict[int, float]] = {}
    with torch.no_grad():
        for part in parts:
            given = start.model(part.batch, ("lexical",))
            for place, text in enumerate(part.texts):
                own = slice(int(given.offsets[place]), int(given.offsets[place + 1]))
                weights = zip(given.ids[own].tolist(), given.lexical[own].tolist(), strict=True)
                found[text] = {token: weight for token, weight in weights if weight > 0}
    prompts = ("a model of text: ", "search ", encoder.config.query_prefix)
    texts = ("hello world", "hello world and more", "hello")
    for number, (text, prompt) in enumerate(zip(texts, prompts, strict=True)):
        expected = encoder.encode([text], outputs="lexical", prefix=prompt).lexical
        assert expected is not None
        assert set(found[number]) == set(expected.indices.tolist())
    # A passage that begins with the same words keeps them: there they are text.
    assert len(found[5]) > len(found[2])
