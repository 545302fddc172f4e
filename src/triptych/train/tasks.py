"""What can be trained, as the loop sees it, and what all tasks share.

A task makes the batch of a step, and adds the gradient of its losses to the weights. Everything that it draws is a
function of the seed and the step.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from triptych.data.joined import Datasets
from triptych.data.sampling import Sampler
from triptych.errors import InputError
from triptych.model.m3 import M3Model
from triptych.train import distributed
from triptych.train.parallel import Replica
from triptych.train.settings import Recipe

Progress: TypeAlias = Callable[[int, int | None], None]
Batch = TypeVar("Batch")


class Runner(NamedTuple):
    """What computes, and how.

    Attributes:
        replica: The module that is trained.
        device: Where it is.
        autocast: Gives the context of a forward pass.
    """

    replica: Replica
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]


class Task(Protocol[Batch]):
    """What the loop needs.

    Attributes:
        steps_per_epoch: Of the data.
        digest: Changes with the data and how it is drawn.
        left_over: By source, rows of an epoch that no batch has.
    """

    steps_per_epoch: int
    digest: str
    left_over: dict[str, int]

    def batch(self, step: int) -> Batch:
        """The batch of a step, on the processor; may be called from another thread."""
        ...

    def backward(self, batch: Batch, step: int, runner: Runner) -> dict[str, Tensor]:
        """Adds the gradient of the losses to the weights; gives the losses, and what else is worth a log."""
        ...

    def tokens(self, batch: Batch) -> int:
        """Tokens of a batch, in this process."""
        ...


def within(length: int, model: M3Model, where: str) -> None:
    """Refuses a length that the model cannot read."""
    if length > model.config.max_length:
        raise InputError(
            f"{where}: got {length}; the model reads {model.config.max_length} tokens (extend_positions changes that)"
        )


def cache(recipe: Recipe) -> Path | None:
    """Folder for prepared data sets, if the recipe names one."""
    return None if recipe.data.cache is None else Path(recipe.data.cache)


def opened(recipe: Recipe, open_: Callable[[Any], Any]) -> list[Any]:
    """All sources; with many processes the first one prepares what is not prepared yet."""
    if not recipe.data.train:
        raise InputError("data.train: got no source; expected a file or folder, such as --data pairs.jsonl")
    if distributed.rank() > 0:
        distributed.barrier()
    found = [open_(source) for source in recipe.data.train]
    if distributed.rank() == 0:
        distributed.barrier()
    return found


def sampler(recipe: Recipe, datasets: Datasets[Any], longest: int) -> Sampler:
    """What draws the rows of each step; `longest` is the most tokens of a row."""
    data = recipe.data
    return Sampler(
        datasets.sources(by_language=data.by_language, weights=[source.weight for source in data.train]),
        data.batches(longest),
        temperature=data.temperature,
        seed=recipe.seed,
        world_size=distributed.size(),
        mixed=data.mixed,
    )


def digest(recipe: Recipe, lengths: Any, names: Sequence[str]) -> str:
    """Of all that decides which rows a step has."""
    settings = recipe.data.model_dump(mode="json", exclude={"cache"})
    facts = f"{settings}|{recipe.seed}|{distributed.size()}|{list(names)}"
    return hashlib.blake2b(facts.encode() + lengths.tobytes(), digest_size=16).hexdigest()
