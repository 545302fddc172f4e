"""Checkpoints of a run: all that a resumed run needs to go on as if nothing had happened.

A checkpoint is a folder ``checkpoints/step-N`` with the weights that are trained, the optimizer's state and, if
there is one, the moving average (safetensors), the loop's numbers (JSON), the recipe, and a digest of each of these
files. What is sampled at random is a function of the seed and the step, so no generator's state is needed. The folder
appears whole or not at all; the file ``checkpoints/latest`` names the last one.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from triptych.config import from_mapping
from triptych.errors import DataError, InputError, StorageError
from triptych.io import sync_folder, verify_digests, write_atomically, write_digests
from triptych.train.optim import trainable
from triptych.train.settings import Recipe

_LATEST = "latest"
STATE_VERSION = 2


@dataclass(slots=True)
class State:
    """Where a run stands.

    Attributes:
        step: Steps done.
        tokens: Tokens seen, of all processes.
        seconds: Time spent.
        best: The best value of the metric so far; None: not evaluated yet.
        best_step: When that was.
        stale: Evaluations since then.
        data: Digest of the data and how it is drawn; a resumed run must have the same.
        start: Fingerprint of the model that the run started from.
        total: Steps that the run has in all.
        lexical_active: Share of active lexical weights in the first line of the log.
        lexical_warned: Whether its fall was warned of.
        version: Of the form of `data`.
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best: float | None = None
    best_step: int = 0
    stale: int = 0
    data: str = ""
    start: str = ""
    total: int = 0
    lexical_active: float | None = None
    lexical_warned: bool = False
    version: int = 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a checkpoint holds, on the processor.

    Attributes:
        weights: Name to weight, of those that are trained.
        moments: The optimizer's state: ``kind/name``.
        average: Name to moving average; empty: there is none.
        state: See `State`.
    """

    weights: Mapping[str, Tensor]
    moments: Mapping[str, Tensor]
    state: State
    average: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])


def take(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    state: State,
    average: Mapping[str, Tensor] | None = None,
) -> Snapshot:
    """Brings everything to the processor; with many processes all of them must call it."""
    names = {id(parameter): name for name, parameter in trainable(model).items()}
    moments: dict[str, Tensor] = {}
    for parameter, values in optimizer.state.items():
        for kind, value in values.items():
            moments[f"{kind}/{names[id(parameter)]}"] = whole(torch.as_tensor(value))
    return Snapshot(
        weights={name: whole(parameter) for name, parameter in trainable(model).items()},
        moments=moments,
        state=state,
        average={name: whole(tensor) for name, tensor in (average or {}).items()},
    )


def put(
    snapshot: Snapshot,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor] | None = None,
) -> None:
    """Sets a model, its optimizer and moving average to what a snapshot holds.

    Raises:
        InputError: If the snapshot is of another model, or other parts of it were trained.
        DataError: If a part of the optimizer's state is missing.
    """
    parameters = trainable(model)
    assign(parameters, snapshot.weights)
    assign(average or {}, snapshot.average)
    kinds: dict[str, set[str]] = {}
    for key in snapshot.moments:
        kind, _, name = key.partition("/")
        kinds.setdefault(name, set()).add(kind)
    complete = set[str]().union(*kinds.values())
    # A head that had no loss so far has no state at all.
    if broken := [name for name in parameters if kinds.get(name, complete) != complete]:
        raise DataError(
            f"checkpoint: the optimizer's state of {broken[0]} is incomplete; expected {sorted(complete)}"
        )
    for name, parameter in parameters.items():
        own = sorted(kinds.get(name, ()))  # the same order in all processes, which exchange shares here
        optimizer.state[parameter] = {
            kind: _like(snapshot.moments[f"{kind}/{name}"], parameter, step=kind == "step") for kind in own
        }


@torch.no_grad()
def assign(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    """Copies values into tensors of the same names and shapes.

    Raises:
        InputError: If names or shapes differ.
    """
    shapes = {name: tuple(tensor.shape) for name, tensor in targets.items()}
    given = {name: tuple(tensor.shape) for name, tensor in values.items()}
    if shapes != given:
        odd = sorted(name for name in shapes.keys() | given.keys() if shapes.get(name) != given.get(name))
        raise InputError(f"checkpoint: does not fit the model; they differ in {odd[:5]}")
    for name, tensor in targets.items():
        tensor.copy_(_like(values[name], tensor))


def whole(tensor: Tensor) -> Tensor:
    """A tensor on the processor; one that is shared between processes is put together."""
    full: Any = tensor.detach()
    if hasattr(full, "full_tensor"):
        full = full.full_tensor()
    return cast(Tensor, full.cpu().clone().contiguous())


def _like(value: Tensor, target: Tensor, *, step: bool = False) -> Tensor:
    """The value where and how the target is: on its device, in its shares."""
    if step:  # the count of the optimizer's steps, where fused AdamW wants it
        return value.to(target.device)
    if hasattr(target, "placements"):
        from torch.distributed.tensor import distribute_tensor

        shared: Any = target
        return distribute_tensor(value.to(target.device), shared.device_mesh, shared.placements)
    return value.to(target.device, target.dtype)


def save(snapshot: Snapshot, run: Path, recipe: str, keep: int) -> Path:
    """Writes a checkpoint of a run, makes it the latest and removes old ones.

    Args:
        snapshot: What to write.
        run: The run's folder.
        recipe: The resolved recipe (YAML).
        keep: How many checkpoints stay.

    Raises:
        StorageError: If writing fails; older checkpoints are untouched then.
    """
    folder = run / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{snapshot.state.step:08d}"
    temporary = Path(tempfile.mkdtemp(dir=folder, prefix=".new-"))
    try:
        for name in ("weights", "moments", "average"):
            if tensors := dict(getattr(snapshot, name)):
                save_file(tensors, temporary / f"{name}.safetensors")
                sync(temporary / f"{name}.safetensors")
        write_atomically(temporary / "state.json", json.dumps(asdict(snapshot.state), indent=2).encode())
        write_atomically(temporary / "recipe.yaml", recipe.encode())
        write_digests(temporary, sorted(temporary.iterdir()))
        sync_folder(temporary)
        if final.exists():
            shutil.rmtree(final)
        temporary.chmod(0o755)
        temporary.rename(final)
        sync_folder(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StorageError(getattr(error, "errno", None), f"{final}: cannot be written: {error}") from error
    write_atomically(folder / _LATEST, final.name.encode())
    for old in steps(run)[:-keep]:
        shutil.rmtree(old)
    return final


def steps(run: Path) -> list[Path]:
    """The folders of a run's checkpoints, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def latest(run: Path) -> Path | None:
    """The folder of a run's last checkpoint; None: it has none."""
    pointer = run / "checkpoints" / _LATEST
    if not pointer.is_file():
        return None
    folder = pointer.parent / pointer.read_text(encoding="utf-8").strip()
    if not folder.is_dir():
        raise DataError(f"names {folder.name}, which is not there; expected a checkpoint beside it", pointer)
    return folder


def load(folder: Path) -> Snapshot:
    """Reads a checkpoint.

    Raises:
        DataError: If a file is missing, broken, or not what was written.
    """
    for path, problem in verify_digests(folder).items():  # releases before wrote no digests
        raise DataError(problem, path)
    try:
        values = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        found = {
            name: load_file(folder / f"{name}.safetensors")
            for name in ("weights", "moments", "average")
            if (folder / f"{name}.safetensors").is_file() or name != "average"
        }
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"cannot be read as a checkpoint: {error}", folder) from error
    state = from_mapping(State, values, str(folder / "state.json"))
    return Snapshot(found["weights"], found["moments"], state, found.get("average", {}))


def clean(run: Path) -> None:
    """Removes what an interrupted `save` left."""
    for unfinished in (run / "checkpoints").glob(".new-*"):
        shutil.rmtree(unfinished, ignore_errors=True)


def sync(path: Path) -> None:
    """Forces a file to the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


MAY_CHANGE = (
    "model",
    "steps",
    "epochs",
    "data.cache",
    "compute.device",
    "compute.sub_batch_tokens",
    "compute.checkpoint_layers",
    "compute.compile",
    "compute.parallel",
    "compute.prefetch",
    "evaluation.every",
    "evaluation.patience",
    "saving",
    "log_every",
    "report_to",
)
"""Settings that may differ in a resumed run: where and how it computes, what it writes. The starting model and the
training data may have moved, as long as their content is the same; the number of steps may be given in another way."""


def check_resume(found: State, expected: State, old: Recipe, new: Recipe, old_digest: str) -> None:
    """Refuses to resume a run that would become another one.

    Args:
        found: Of the checkpoint.
        expected: What it would be now.
        old: The recipe of the checkpoint.
        new: That of now.
        old_digest: The digest of the data as releases before wrote it.

    Raises:
        InputError: Says what differs.
    """
    data = expected.data if found.version == expected.version else old_digest
    for what, before, now in (
        ("the training data, its sampling or the number of processes", found.data, data),
        ("the model to start from", found.start, expected.start),
        ("the number of steps", found.total, expected.total),
        *((key, before, now) for key, before, now in _differences(old, new)),
    ):
        if before != now:
            raise InputError(
                f"--resume: {what} changed since the checkpoint ({before!r}, now {now!r}); expected the same, or a "
                "new --output"
            )


def _differences(old: Recipe, new: Recipe) -> Iterator[tuple[str, Any, Any]]:
    before, now = (_flat(recipe.model_dump(mode="json")) for recipe in (old, new))
    for key in sorted(before.keys() | now.keys()):
        if not any(key == name or key.startswith(f"{name}.") for name in MAY_CHANGE):
            yield key, before.get(key), now.get(key)


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested mappings as one with dots in its keys; a source's path does not count, its content does."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        key = f"{above}{name}"
        if isinstance(value, Mapping):
            flat |= _flat(cast("Mapping[str, Any]", value), f"{key}.")
        elif key == "data.train":
            flat[key] = [{k: v for k, v in source.items() if k != "path"} for source in value]
        else:
            flat[key] = value
    return flat
