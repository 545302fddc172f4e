"""The training loop: nothing of a run's course is hidden elsewhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from hashlib import blake2b
from math import isfinite
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch

from triptych.errors import TriptychError
from triptych.train import distributed
from triptych.train.checkpoint import State
from triptych.train.collate import ahead
from triptych.train.optim import Average, factor, set_rate
from triptych.train.settings import Recipe
from triptych.train.tasks import Batch, Progress, Runner, Task

Record: TypeAlias = dict[str, Any]
_Item = TypeVar("_Item")
# Of the passages' tokens: below this share of active ones the lexical head is nearly lost.
_FEW = 0.01


class LexicalCollapse(UserWarning):
    """Nearly all lexical weights are 0, from where no gradient leads back."""


class TrainingFault(TriptychError):
    """Training cannot go on: a loss or a gradient is not a number."""


class Hooks(NamedTuple):
    """What the loop calls; all of it runs in every process.

    Attributes:
        log: Takes a line of the log.
        evaluate: Gives the metrics of the weights as they are after so many steps; None: no evaluation.
        best: Keeps the weights, after so many steps, as the best so far.
        save: Writes a checkpoint.
        stop: Whether somebody asked to stop.
        progress: Takes steps done and steps in all.
    """

    log: Callable[[Record], None]
    evaluate: Callable[[int], Mapping[str, float]] | None
    best: Callable[[int], None]
    save: Callable[[State], None]
    stop: Callable[[], bool]
    progress: Progress


def train(
    task: Task[Batch],
    runner: Runner,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
    state: State,
    hooks: Hooks,
    average: Average | None = None,
) -> State:
    """Trains from `state.step` to `state.total`, or until asked to stop, or until it gets no better.

    Everything random in a step comes from a generator that is seeded by (seed, step, process), so that a run that
    goes on from a checkpoint is the run that was never interrupted.

    Returns:
        The same `state`, moved on.

    Raises:
        TrainingFault: If a gradient is not finite; the weights are those of the step before.
    """
    replica, window = runner.replica, _Window(state)
    replica.module.train()
    with torch.random.fork_rng(devices=[runner.device] if runner.device.type == "cuda" else []):
        if state.step == 0:
            _evaluate(state, recipe, hooks)
            window.begin()
        for step, batch in window.timed(_batches(task, state, recipe.compute.prefetch)):
            torch.manual_seed(_seed(recipe.seed, step, distributed.rank()))
            rate = set_rate(optimiser, factor(step, state.total, recipe.optimisation))
            losses = task.backward(batch, step, runner)
            norm = replica.clip(recipe.optimisation.clip)
            if not isfinite(norm):
                raise TrainingFault(
                    f"step {step}: the gradient's norm is {norm}, the loss {float(losses['loss']):.4g}; "
                    "a smaller optimisation.lr or longer warm-up may help"
                )
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
            if average is not None:
                average.update(replica.module, step)
            state.step += 1
            state.tokens += task.tokens(batch) * distributed.size()
            last = state.step == state.total
            if state.step % recipe.log_every == 0 or last:
                means = distributed.mean(losses)
                _watch(means, step)
                hooks.log(window.record(means, rate, norm, task.steps_per_epoch))
            hooks.progress(state.step, state.total)
            stopped = distributed.any_of(hooks.stop(), runner.device)
            if _due(recipe.evaluation.every, state) or last:
                stopped = _evaluate(state, recipe, hooks) or stopped
                window.begin()
            if stopped or last or (recipe.saving.every and state.step % recipe.saving.every == 0):
                state.seconds = window.seconds
                hooks.save(state)
            if stopped:
                break
    return state


def _evaluate(state: State, recipe: Recipe, hooks: Hooks) -> bool:
    """Evaluates, keeps what is best, and says whether it is time to stop."""
    if hooks.evaluate is None:
        return False
    found = dict(hooks.evaluate(state.step))
    metric = recipe.evaluation.metric if recipe.evaluation.metric in found else next(iter(found))
    hooks.log({"step": state.step, "evaluation": found})
    if state.best is None or found[metric] > state.best:
        state.best, state.best_step, state.stale = found[metric], state.step, 0
        hooks.best(state.step)
    else:
        state.stale += 1
    patience = recipe.evaluation.patience
    return patience is not None and state.stale >= patience


def _due(every: float, state: State) -> bool:
    steps = max(1, round(every * state.total)) if every < 1 else round(every)
    return state.step % steps == 0


def _watch(means: Mapping[str, float], step: int) -> None:
    if means.get("lexical_active", 1.0) < _FEW:
        warnings.warn(
            f"step {step}: only {means['lexical_active']:.2%} of the passages' tokens have a lexical weight; a smaller "
            "optimisation.head_lr, or a larger weight of the lexical loss, keeps the head alive",
            LexicalCollapse,
            stacklevel=3,
        )


def _batches(task: Task[Batch], state: State, depth: int) -> Iterator[tuple[int, Batch]]:
    """The steps that are left, each with its batch, made up to `depth` steps ahead in another thread."""
    left = range(state.step, state.total)
    made = ahead(task.batch, state.step, state.total, depth) if depth else map(task.batch, left)
    return zip(left, made, strict=True)


def _seed(*parts: int) -> int:
    """A seed that is another one for every other step and process."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


class _Window:
    """Speed since the last line of the log."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._before = state.seconds
        self._start = perf_counter()
        self.begin()

    def begin(self) -> None:
        """Counts from now on, so that evaluations do not count as training."""
        self._mark, self._tokens, self._step = perf_counter(), self._state.tokens, self._state.step
        self._waited = 0.0

    def timed(self, items: Iterable[_Item]) -> Iterator[_Item]:
        """The same items; notes how long they were waited for."""
        stream = iter(items)
        while True:
            begin = perf_counter()
            try:
                item = next(stream)
            except StopIteration:
                return
            self._waited += perf_counter() - begin
            yield item

    @property
    def seconds(self) -> float:
        """Time spent on the run in all."""
        return self._before + perf_counter() - self._start

    def record(self, means: Mapping[str, float], rate: float, norm: float, per_epoch: int) -> Record:
        """A line of the log, and the beginning of the next window."""
        now, state = perf_counter(), self._state
        spent = max(now - self._mark, 1e-9)
        per_step = spent / max(1, state.step - self._step)
        record: Record = {
            "step": state.step,
            "epoch": round(state.step / per_epoch, 4),
            **means,
            "lr": rate,
            "norm": norm,
            "tokens": state.tokens,
            "tokens_per_second": (state.tokens - self._tokens) / spent,
            "waiting": self._waited / spent,
            "seconds": self.seconds,
            "remaining": per_step * (state.total - state.step),
        }
        self.begin()
        return record
