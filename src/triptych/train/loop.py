"""The training loop: forward pass, loss, gradient, step, log, evaluation and checkpoint, in this order."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from math import isfinite
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from triptych.errors import TriptychError
from triptych.train import distributed, gradcache
from triptych.train.checkpoint import State
from triptych.train.collate import ahead
from triptych.train.optim import Average, factor, set_lr
from triptych.train.settings import Recipe, steps_of
from triptych.train.tasks import Batch, Runner, Task

Record: TypeAlias = dict[str, Any]
_SETTLED = 10  # steps until a fall of the share of active lexical weights counts
_PATIENCE = 3  # steps without any negative until a run is taken for one that cannot learn


class LexicalCollapse(UserWarning):
    """Many lexical weights became zero; ReLU gives no gradient there, so that they may stay zero."""


class TrainingFault(TriptychError):
    """Training cannot go on: the gradient is not finite, or the loss is always 0."""


class Callbacks(NamedTuple):
    """What the loop calls; all of it runs in every process.

    Attributes:
        on_log: Takes a line of the log.
        on_eval: Evaluates the weights as they are; returns whether training should stop.
        on_save: Writes a checkpoint.
        on_step: Called after every step; returns whether training should stop.
    """

    on_log: Callable[[Record], None]
    on_eval: Callable[[State], bool]
    on_save: Callable[[State], None]
    on_step: Callable[[State], bool]


def train(
    task: Task[Batch],
    runner: Runner,
    optimizer: torch.optim.Optimizer,
    recipe: Recipe,
    state: State,
    callbacks: Callbacks,
    average: Average | None = None,
) -> State:
    """Trains from `state.step` to `state.total`, or until a callback says to stop.

    Everything random in a step comes from a generator that is seeded by (seed, step, process), so that a run that
    is resumed from a checkpoint equals the run that was never interrupted.

    Returns:
        The same `state`, updated.

    Raises:
        TrainingFault: If a gradient is not finite (the weights are those of the step before), or if no query has a
            negative, so that the loss is 0.
    """
    replica, settings, depth = runner.replica, recipe.optimizer, recipe.compute.prefetch
    model, window = replica.module, _Window(state)
    save_every, eval_every = (
        recipe.saving.every,
        max(1, round(steps_of(recipe.evaluation.every, state.total))),
    )
    without_negatives = 0
    model.train()
    with torch.random.fork_rng(devices=[runner.device] if runner.device.type == "cuda" else []):
        if state.step == 0:
            callbacks.on_eval(state)
            window.begin()
        steps = range(state.step, state.total)
        batches = iter(ahead(task.batch, state.step, state.total, depth) if depth else map(task.batch, steps))
        for step in steps:
            with window.waiting():
                batch = next(batches)
            torch.manual_seed(_seed(recipe.seed, step, distributed.rank()))
            lr = set_lr(optimizer, factor(step, state.total, settings))

            losses = forward_backward(task, batch, step, runner)
            norm = replica.clip(settings.clip)
            # Fused AdamW then leaves the weights as they are, so that it need not wait until the norm is known here.
            optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
            optimizer.step()
            if not isfinite(grad_norm := float(norm)):
                raise TrainingFault(
                    f"step {step}: the gradient's norm is {grad_norm}, the loss {float(losses['loss']):.4g}; "
                    "a smaller optimizer.lr or longer warm-up may help"
                )
            optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.update(model, step)

            state.step += 1
            state.tokens += batch.tokens * distributed.size()
            window.add(losses, batch.source)
            if without_negatives == step and "negatives" in losses and step < _PATIENCE:
                without_negatives += not distributed.mean({"negatives": losses["negatives"]})["negatives"]
                _check_negatives(without_negatives, min(_PATIENCE, state.total))
            last = state.step == state.total
            if state.step == 1 or state.step % recipe.log_every == 0 or last:
                record = window.record(lr, grad_norm, task.data.sampler.steps_per_epoch)
                if distributed.rank() == 0:
                    _watch_lexical(record, state)
                callbacks.on_log(record)
            stop = distributed.any_of(callbacks.on_step(state))
            if state.step % eval_every == 0 or last:
                stop = callbacks.on_eval(state) or stop
                window.begin()
            if stop or last or (save_every and state.step % save_every == 0):
                state.seconds = window.seconds
                callbacks.on_save(state)
            if stop:
                break
    return state


def forward_backward(task: Task[Batch], batch: Batch, step: int, runner: Runner) -> dict[str, Tensor]:
    """The losses of a step; adds the gradient of ``loss`` to the weights.

    A process may have more parts than another; all of them make the same number of passes, since a pass exchanges
    weights where these are sharded.
    """
    model, synchronized = runner.replica.call, runner.replica.synchronized
    totals, passes = distributed.agree(task.counts(batch), len(batch.parts))
    parts = [part.to(runner.device) for part in batch.parts]

    def forward(part: Any) -> Any:
        with runner.autocast():
            return task.forward(model, part, totals)

    def loss(outputs: Any) -> dict[str, Tensor]:
        return task.loss(outputs, batch, step)

    if task.additive:
        losses = gradcache.accumulate(lambda part: loss(forward(part)), parts, synchronized, passes)
    else:
        losses = gradcache.backward(forward, parts, loss, synchronized, passes)
    for parameter in task.idle(batch):
        parameter.grad = None
    return losses


def _check_negatives(without: int, patience: int) -> None:
    if without >= patience:
        raise TrainingFault(
            f"in each of the first {without} steps every negative was masked, so that the loss is 0 and nothing is "
            "learned; expected a smaller objective.false_negative_margin, larger batches, or passages that differ"
        )


def _watch_lexical(record: Mapping[str, Any], state: State) -> None:
    """Warns once when the share of active lexical weights falls by a quarter, and whenever it is below 1 %."""
    active = record.get("lexical_active")
    if active is None:
        return
    before = active if state.lexical_active is None else state.lexical_active
    state.lexical_active = before
    lost, fallen = active < 0.01, state.step >= _SETTLED and active < 0.75 * before
    if lost or (fallen and not state.lexical_warned):
        state.lexical_warned = True
        warnings.warn(
            f"step {record['step']}: {active:.2%} of the passages' tokens have a lexical weight "
            f"({before:.2%} at the beginning); a smaller optimizer.lr or optimizer.head_lr, or a larger "
            "weight of the lexical loss (objective.loss_weights), keeps the head alive",
            LexicalCollapse,
            stacklevel=3,
        )


def _seed(*parts: int) -> int:
    """A seed that is another one for every other step and process."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "little") >> 1


class _Window:
    """Means and speed since the last line of the log."""

    def __init__(self, state: State) -> None:
        self._state, self._before, self._start = state, state.seconds, perf_counter()
        self._sums: dict[str | None, dict[str, tuple[Tensor, int]]] = {}
        self.begin()

    def begin(self) -> None:
        """Measures speed from now on, so that evaluations do not count as training."""
        self._mark, self._tokens, self._step = perf_counter(), self._state.tokens, self._state.step
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Generator[None]:
        """Records the time that the next batch is waited for."""
        begin = perf_counter()
        yield
        self._waited += perf_counter() - begin

    def add(self, losses: Mapping[str, Tensor], source: str | None) -> None:
        """Adds the losses of a step, to the sums of all and of its source."""
        for key in {None, source}:
            sums = self._sums.setdefault(key, {})
            for name, value in losses.items():
                total, count = sums.get(name, (torch.zeros_like(value), 0))
                sums[name] = total + value, count + 1

    @property
    def seconds(self) -> float:
        """Time spent on the run in all."""
        return self._before + perf_counter() - self._start

    def _means(self, source: str | None) -> dict[str, float]:
        return distributed.mean({name: total / count for name, (total, count) in self._sums[source].items()})

    def record(self, lr: float, grad_norm: float, steps_per_epoch: int) -> Record:
        """A line of the log, and the beginning of the next window."""
        means = self._means(None)
        # All processes have the same source at a step, and so the same sources in a window.
        sources = {
            name: self._means(name) for name in sorted(name for name in self._sums if name is not None)
        }
        self._sums = {}
        now, state = perf_counter(), self._state
        spent = max(now - self._mark, 1e-9)
        per_step = spent / max(1, state.step - self._step)
        record: Record = {
            "step": state.step,
            "epoch": round(state.step / steps_per_epoch, 4),
            **means,
            **({"sources": sources} if sources else {}),
            "lr": lr,
            "norm": grad_norm,
            "tokens": state.tokens,
            "tokens_per_second": (state.tokens - self._tokens) / spent,
            "waiting": self._waited / spent,
            "seconds": self.seconds,
            "remaining": per_step * (state.total - state.step),
        }
        self.begin()
        return record
