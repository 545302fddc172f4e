"""What a resumed run may have otherwise, and what makes it another run."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from triptych.errors import DataError, InputError
from triptych.train import checkpoint
from triptych.train.checkpoint import MAY_CHANGE, Snapshot, State, latest
from triptych.train.run import TRAINING, RunCallbacks, run
from triptych.train.settings import Recipe, read

from .made import tiny_model, write_beir, write_lines, write_pairs

CHANGES = {
    "model": None,
    "steps": None,
    "epochs": None,
    "data.cache": "data.cache=other",
    "compute.device": "compute.device=null",
    "compute.sub_batch_tokens": "compute.sub_batch_tokens=200",
    "compute.checkpoint_layers": "compute.checkpoint_layers=true",
    "compute.compile": "compute.compile=true",
    "compute.parallel": "compute.parallel=fsdp",
    "compute.prefetch": "compute.prefetch=0",
    "evaluation.every": "evaluation.every=2",
    "evaluation.patience": "evaluation.patience=9",
    "saving": "saving={every: 1, keep: 1}",
    "log_every": "log_every=2",
    "report_to": None,
}
REFUSED = [
    "optimizer.lr=2e-3",
    "optimizer.schedule=cosine",
    "optimizer.weight_decay=0.1",
    "optimizer.clip=null",
    "objective.temperature=0.05",
    "objective.loss_weights=[1, 1, 1]",
    "objective.heads=[dense, lexical]",
    "data.batch_size=4",
    "data.group=2",
    "data.fill=repeat",
    "data.query_length=8",
    "freeze=[words]",
    "seed=3",
    "steps=5",
    "compute.dtype=bfloat16",
    "evaluation.metric=dense",
    "evaluation.k=5",
    "lora={rank: 2}",
]


@pytest.fixture
def place(tmp_path) -> Path:
    tiny_model(tmp_path / "model")
    write_pairs(tmp_path / "pairs.jsonl", 12)
    write_beir(tmp_path / "dev")
    return tmp_path


def go(place: Path, *more: str, stop_at: int | None = None, resume: bool = False) -> int:
    done: list[int] = []
    callbacks = RunCallbacks(
        progress=lambda stage, step, total: done.append(step) if stage == TRAINING else None,
        should_stop=lambda: stop_at is not None and done[-1:] == [stop_at],
    )
    settings = [
        f"model={place / 'model'}",
        f"data={{train: {place / 'pairs.jsonl'}, batch_size: 6, group: 3, cache: {place / 'cache'}}}",
        "compute={device: cpu, dtype: float32}",
        f"evaluation={{data: {place / 'dev'}, every: 100}}",
        "optimizer.lr=1e-3",
        "steps=4",
        *more,
    ]
    outcome = run("train", read(None, settings), place / "run", resume=resume, callbacks=callbacks)
    return outcome.steps


def test_the_list_of_what_may_change_names_settings():
    known = Recipe().model_dump()
    for key in MAY_CHANGE:
        value = known
        for name in key.split("."):
            value = value[name]
    assert set(MAY_CHANGE) == CHANGES.keys()


def test_what_may_change_may_change_and_the_runs_recipe_stays(place):
    go(place, stop_at=2)
    before = (place / "run" / "recipe.yaml").read_bytes()
    more = [
        change.replace("=other", f"={place / 'other'}") for change in CHANGES.values() if change is not None
    ]
    more.remove("compute.sub_batch_tokens=200")  # does not go with compile and dropout
    assert go(place, *more, resume=True) == 4
    assert (place / "run" / "recipe.yaml").read_bytes() == before


def test_model_and_data_may_have_moved(place):
    go(place, stop_at=2)
    (place / "model").rename(place / "moved")
    (place / "pairs.jsonl").rename(place / "moved.jsonl")
    assert go(place, f"model={place / 'moved'}", f"data.train={place / 'moved.jsonl'}", resume=True) == 4


def test_what_makes_another_run_is_refused_and_leaves_the_run_alone(place):
    go(place, stop_at=2)
    files = {path: path.read_bytes() for path in (place / "run").rglob("*") if path.is_file()}
    for change in REFUSED:
        with pytest.raises(InputError, match="--resume: "):
            go(place, change, resume=True)
    assert {path: path.read_bytes() for path in (place / "run").rglob("*") if path.is_file()} == files


def test_data_of_other_words_and_equal_lengths_is_refused(place):
    rows = [json.loads(line) for line in (place / "pairs.jsonl").read_text().splitlines()]
    go(place, stop_at=2)
    write_lines(place / "pairs.jsonl", [{**row, "neg": list(reversed(row["neg"]))} for row in rows])
    with pytest.raises(InputError, match="the training data"):
        go(place, resume=True)


def test_a_checkpoint_without_the_optimizers_state_is_refused(place):
    go(place, stop_at=2)
    folder = latest(place / "run")
    assert folder is not None
    (folder / "moments.safetensors").unlink()
    with pytest.raises(DataError, match=r"moments\.safetensors"):
        go(place, resume=True)
    (folder / "digests.json").unlink()  # a checkpoint of the release before
    with pytest.raises(DataError, match=r"moments\.safetensors"):
        go(place, resume=True)


def test_a_checkpoint_with_a_changed_byte_is_refused_and_the_file_named(place):
    go(place, stop_at=2)
    folder = latest(place / "run")
    assert folder is not None
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-3] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    with pytest.raises(DataError, match=r"weights\.safetensors: is damaged or was changed"):
        go(place, resume=True)


def test_an_incomplete_state_of_the_optimizer_is_refused(place):
    from safetensors.torch import save_file

    go(place, stop_at=2)
    folder = latest(place / "run")
    assert folder is not None
    moments = load_file(folder / "moments.safetensors")
    moments.pop(next(name for name in moments if name.startswith("exp_avg_sq/")))
    save_file(moments, folder / "moments.safetensors")
    (folder / "digests.json").unlink()
    with pytest.raises(DataError, match="is incomplete"):
        go(place, resume=True)


def test_an_optimizers_state_is_shared_out_in_the_same_order_in_all_processes(monkeypatch):
    """With FSDP each part of it is an exchange; in the order of a set one process gave what another did not take."""
    model = torch.nn.Linear(2, 1)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}
    kinds = [f"moment {i}" for i in range(10)]
    moments = {f"{kind}/{name}": weight for name, weight in weights.items() for kind in kinds}
    order: list[float] = []

    def watched(value, target, **options):
        order.append(float(value.flatten()[0]))
        return value

    monkeypatch.setattr(checkpoint, "_like", watched)
    numbered = {key: torch.full_like(moments[key], i) for i, key in enumerate(sorted(moments))}
    optimizer = torch.optim.AdamW(model.parameters())
    checkpoint.put(Snapshot(weights, numbered, State()), model, optimizer)
    places = {key: i for i, key in enumerate(sorted(moments))}
    assert order[len(weights) :] == [places[f"{kind}/{name}"] for name in weights for kind in kinds]
