"""What a run will do, and what it will need, measured by passes that change nothing."""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import torch

from triptych.train import distributed
from triptych.train.checkpoint import State
from triptych.train.loop import forward_backward
from triptych.train.optim import trainable
from triptych.train.settings import Recipe
from triptych.train.tasks import Runner

_STEPS = 10_000  # most that are looked at for a long one and a usual one
_MOMENTS = 8  # bytes that AdamW keeps of a weight


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run before its first step.

    Attributes:
        rows: By source, rows of the data.
        steps: Steps to do, without those that were done before.
        epochs: How often they see the data.
        batch: Rows of a step on average, of all processes.
        parameters: Of the model.
        trained: Of these, how many are trained.
        evaluations: How often the held-out queries are ranked.
        processes: How many train together.
        device: Of the first of them.
        seconds: Measured time of the steps, without evaluations.
        memory: Bytes at the peak: of the GPU, or of the process.
    """

    rows: Mapping[str, int]
    steps: int
    epochs: float
    batch: float
    parameters: int
    trained: int
    evaluations: int
    processes: int
    device: str
    seconds: float
    memory: int

    def __str__(self) -> str:
        sources = ", ".join(f"{name} {count:,}" for name, count in self.rows.items())
        several = f" on {self.processes} processes" if self.processes > 1 else ""
        ranked = f", and {self.evaluations} evaluations" if self.evaluations else ""
        return (
            f"{sum(self.rows.values()):,} examples ({sources})\n"
            f"{self.steps:,} steps of {self.batch:.0f} examples on average: {self.epochs:.2g} epochs\n"
            f"{self.trained:,} of {self.parameters:,} parameters are trained{several}, on {self.device}\n"
            f"about {clock(self.seconds)} for the steps{ranked}; about {self.memory / 2**30:.1f} GiB of memory"
        )


def rows_of(task: Any) -> dict[str, int]:
    """By source, rows of a task's data."""
    found: dict[str, int] = {}
    for part in task.data.datasets.parts:
        found[part.name] = found.get(part.name, 0) + len(part)
    return found


def clock(seconds: float) -> str:
    """A time in words: seconds, minutes, or hours with minutes."""
    if seconds < 90:
        return "a second" if seconds < 1.5 else f"{round(seconds)} seconds"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 90 else f"{minutes // 60} hours {minutes % 60} minutes"


def make_plan(
    task: Any,
    runner: Runner,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    state: State,
    evaluations: int,
) -> RunPlan:
    """Plans the rest of a run: tries its longest step for the memory and a usual one for the time.

    The weights stay as they are, and the gradients of the trials are dropped. All processes must call this.

    Args:
        task: Of the run.
        runner: Of the run.
        optimizer: Whose gradients are cleared.
        recipe: Of the run.
        state: Where it stands.
        evaluations: How many there will be.
    """
    sampler, lengths = task.data.sampler, task.data.datasets.lengths
    end = min(state.total, state.step + min(sampler.steps_per_epoch, _STEPS))
    steps = [sampler.step(number).rows for number in range(state.step, end)]
    tokens = np.array([int(lengths[rows].sum()) for rows in steps])
    order = np.argsort(tokens, kind="stable")
    longest, usual = (int(order[place]) for place in (-1, len(order) // 2))
    model = runner.replica.module
    model.train()
    spent = 0.0
    with torch.random.fork_rng(devices=[runner.device] if runner.device.type == "cuda" else []):
        for number in (longest, usual):
            batch = task.batch(state.step + number)
            spent = _time_call(lambda batch=batch: forward_backward(task, batch, state.step, runner), runner)
            optimizer.zero_grad(set_to_none=True)
    weights = [parameter.numel() for parameter in model.parameters()]
    trained = sum(parameter.numel() for parameter in trainable(model).values())
    world = distributed.size()
    share = world if recipe.compute.parallel == "fsdp" else 1
    left = state.total - state.step
    return RunPlan(
        rows=rows_of(task),
        steps=left,
        epochs=left / sampler.steps_per_epoch,
        batch=float(np.mean([len(rows) for rows in steps])),
        parameters=sum(weights) * share,
        trained=trained * share,
        evaluations=evaluations,
        processes=world,
        device=str(runner.device),
        seconds=spent / max(1, int(tokens[usual])) * float(tokens.mean()) * left,
        memory=_peak(runner.device) + _MOMENTS * trained,
    )


def _time_call(call: Any, runner: Runner) -> float:
    def wait() -> None:
        if runner.device.type == "cuda":
            torch.cuda.synchronize(runner.device)

    wait()
    start = perf_counter()
    call()
    wait()
    return perf_counter() - start


def _peak(device: torch.device) -> int:
    """The most bytes that were in use so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
