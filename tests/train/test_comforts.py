"""What a run says before and after: its plan, the callbacks, the test of each head, the model card."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy import stats

from triptych import Encoder
from triptych.collections.training import read_held_out
from triptych.errors import DataError, InputError
from triptych.train.card import Change, changes_of
from triptych.train.plan import RunPlan, clock
from triptych.train.run import RunCallbacks, fine_tune
from triptych.train.validate import clearly_worse

from .made import tiny_model, write_lines, write_pairs

COMPUTE: dict[str, Any] = {
    "compute": {"device": "cpu"},
    "optimizer": {"lr": 1e-4},
    "data": {"batch_size": 8},
    "steps": 8,
    "saving": {"every": 4},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comforts")
    tiny_model(folder / "model")
    write_pairs(folder / "pairs.jsonl")
    write_lines(
        folder / "held.jsonl",
        [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()][:25],
    )
    return folder


class Seen:
    """Callbacks that remember."""

    def __init__(self) -> None:
        self.plans: list[RunPlan] = []
        self.lines: list[Mapping[str, Any]] = []
        self.evaluations: dict[int, Mapping[str, float]] = {}
        self.steps: list[int] = []
        self.saved: list[Path] = []

    def callbacks(self, *, plan: bool = True) -> RunCallbacks:
        return RunCallbacks(
            on_begin=self.plans.append if plan else None,
            on_log=self.lines.append,
            on_eval=self.evaluations.__setitem__,
            on_save=self.saved.append,
            on_step=self.steps.append,
        )


@pytest.fixture(scope="module")
def trained(place: Path) -> tuple[Any, Seen, Path]:
    seen = Seen()
    evaluation = {"data": str(place / "held.jsonl"), "metric": "dense", "keep_heads": False}
    arguments: dict[str, Any] = {"model": place / "model", "evaluation": evaluation}
    outcome = fine_tune(
        place / "pairs.jsonl", place / "run", **arguments, callbacks=seen.callbacks(), **COMPUTE
    )
    return outcome, seen, place / "run"


def test_training_from_python_calls_its_callbacks_as_it_goes(trained: tuple[Any, Seen, Path]) -> None:
    outcome, seen, run = trained
    assert seen.steps == list(range(1, outcome.total + 1)) == list(range(1, 9))
    assert seen.evaluations == outcome.evaluations
    assert seen.lines[1]["step"] == 1
    assert seen.lines[1]["loss"] > 0
    names = {path.relative_to(run).as_posix() for path in seen.saved}
    assert {"checkpoints/step-00000004", "checkpoints/step-00000008", "final", "best"} <= names
    assert Encoder.from_pretrained(outcome.model).heads == ("dense", "lexical", "multi")


def test_the_plan_says_what_the_run_then_does(trained: tuple[Any, Seen, Path]) -> None:
    outcome, seen, _ = trained
    [plan] = seen.plans
    assert plan.rows == {"pairs.jsonl": 40}
    assert (plan.steps, plan.epochs, plan.evaluations) == (8, 1.6, len(outcome.evaluations))
    assert plan.batch == 8
    assert 0 < plan.trained < plan.parameters == sum(p.numel() for p in _model(trained).parameters())
    spent = seen.lines[-2]["seconds"]
    assert 0 < plan.seconds < 100 * spent
    assert plan.memory > 2**20
    text = str(plan)
    for part in ("40 examples (pairs.jsonl 40)", "8 steps of 8 examples", "on cpu", "evaluations", "GiB"):
        assert part in text


def _model(trained: tuple[Any, Seen, Path]) -> torch.nn.Module:
    return Encoder.from_pretrained(trained[0].model, device="cpu").release_model()


def test_planning_changes_nothing_of_the_run(
    trained: tuple[Any, Seen, Path], place: Path, tmp_path: Path
) -> None:
    seen = Seen()
    evaluation = {"data": str(place / "held.jsonl"), "metric": "dense", "keep_heads": False}
    arguments: dict[str, Any] = {"model": place / "model", "evaluation": evaluation}
    fine_tune(
        place / "pairs.jsonl", tmp_path / "run", **arguments, callbacks=seen.callbacks(plan=False), **COMPUTE
    )
    assert not seen.plans
    for name in ("final/model.safetensors", "best/README.md", "final/README.md"):
        assert (tmp_path / "run" / name).read_bytes() == (trained[2] / name).read_bytes()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "a second"), (40, "40 seconds"), (600, "10 minutes"), (3 * 3600 + 300, "3 hours 5 minutes")],
)
def test_a_time_is_said_in_words(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_each_head_is_compared_with_before_by_a_paired_test(trained: tuple[Any, Seen, Path]) -> None:
    outcome, _, run = trained
    assert [change.name for change in outcome.changes] == ["dense", "lexical", "multi", "integrated"]
    each = {
        step: json.loads((run / "evaluations" / f"{step}.json").read_bytes())
        for step in (0, outcome.best_step)
    }
    clusters: dict[Any, list[float]] = {}
    held = read_held_out(run.parent / "held.jsonl")
    for query, before, after in zip(
        each[0]["queries"], each[0]["dense"], each[outcome.best_step]["dense"], strict=True
    ):
        clusters.setdefault(frozenset(held.qrels[query]), []).append(after - before)
    differences = [float(np.mean(values)) for values in clusters.values()]
    own = float(stats.ttest_1samp(differences, 0).pvalue)
    dense = outcome.changes[0]
    assert dense.before == pytest.approx(np.mean(each[0]["dense"]))
    assert dense.after == pytest.approx(np.mean(each[outcome.best_step]["dense"]))
    assert outcome.best_step
    assert own - 1e-12 <= dense.p <= min(1, 4 * own) + 1e-12  # Holm's correction for four


def test_queries_with_one_answer_count_once() -> None:
    before = np.zeros(24)
    after = np.repeat([0.3, 0.1, -0.2, 0.2, 0.1, 0.15, 0.2, 0.1], 3)
    clusters = np.repeat(np.arange(8), 3).tolist()
    [alone] = changes_of({"dense": before}, {"dense": after, "new": after}, list(range(24)))
    [together] = changes_of({"dense": before}, {"dense": after}, clusters)
    assert alone.p < 0.01 < together.p
    assert together.p == pytest.approx(stats.ttest_1samp(after[::3], 0).pvalue)
    assert clearly_worse(after, before)
    assert not clearly_worse(after, before, clusters)  # eight are too few


def test_a_significant_change_has_a_star() -> None:
    assert Change("dense", 0.5, 0.6, 0.01).cells == ("dense", "0.5000", "0.6000", "+0.1000*", "0.01")
    assert Change("dense", 0.5, 0.4, 0.3).cells[3] == "-0.1000"


def test_the_card_has_the_data_the_settings_and_the_figures_and_no_path(
    trained: tuple[Any, Seen, Path],
) -> None:
    outcome, _, run = trained
    card = (run / "best" / "README.md").read_text(encoding="utf-8")
    facts = yaml.safe_load(card.split("---\n")[1])
    assert facts["library_name"] == "triptych"
    assert "base_model" not in facts  # a folder is none that others can find
    for part in (
        "pairs.jsonl | 40",
        "nDCG@10 on held.jsonl",
        f"| steps | {outcome.best_step} |",
        "| 0.0001, linear",
    ):
        assert part in card
    for change in outcome.changes:
        assert f"| {change.before:.4f} | {change.after:.4f} |" in card
    assert str(run.parent) not in card


def test_a_model_of_the_hub_is_named_as_the_base(trained: tuple[Any, Seen, Path]) -> None:
    from triptych.train.card import model_card
    from triptych.train.settings import Recipe

    card = model_card(Recipe(model="BAAI/bge-m3"), ("dense",), {"a|b*.jsonl": 3}, 7)
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == "BAAI/bge-m3"
    assert "| a\\|b\\*.jsonl | 3 |" in card


def test_held_out_examples_are_searched_among_all_their_passages(tmp_path: Path) -> None:
    rows = [
        {"query": "q", "pos": ["a"], "neg": ["b"]},
        {"query": "q", "pos": ["c"]},
        {"query": "r", "pos": ["b"]},
    ]
    write_lines(tmp_path / "held.jsonl", rows)
    found = read_held_out(tmp_path / "held.jsonl")
    assert found.corpus == {"a": "a", "b": "b", "c": "c"}
    assert found.qrels == {"q": {"a": 1, "c": 1}, "r": {"b": 1}}
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(DataError, match="no example in it"):
        read_held_out(tmp_path / "empty.jsonl")


def test_a_wrong_setting_is_named(place: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean 'epochs'"):
        fine_tune(place / "pairs.jsonl", tmp_path, epoch=2)
