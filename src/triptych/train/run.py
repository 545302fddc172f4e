"""A run: from a recipe to a folder with a trained model.

The folder has ``recipe.yaml`` (all values), ``log.jsonl``, ``checkpoints/``, ``best/`` (the model of the best
evaluation, if there is one) and, at the end, ``final/``; the last two are for `Encoder.from_pretrained`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from triptych.collections.beir import load_beir
from triptych.errors import InputError
from triptych.io import write_atomically
from triptych.model.checkpoint import Checkpoint
from triptych.model.m3 import M3Model
from triptych.model.packed import Packed, Reps
from triptych.train import checkpoint as checkpoints
from triptych.train import distributed
from triptych.train.checkpoint import State
from triptych.train.distributed import EVALUATION_TOKENS, Replica, autocast, best_device, compile_layers
from triptych.train.loop import Hooks, Record, train
from triptych.train.optim import Average, merged, optimizer, trained
from triptych.train.probe import probed
from triptych.train.retromae import RetroMAE
from triptych.train.settings import Recipe, dump
from triptych.train.start import export, finished, freeze, prepare
from triptych.train.tasks import Pairs, Progress, Runner, Texts, pair_limits
from triptych.train.validate import RunLog, Validation
from triptych.types import Head

Stage: TypeAlias = Literal["train", "pretrain"]
_ENCODER = "encoder."


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who watches a run; nothing here changes what it computes.

    Attributes:
        progress: Steps done and in all.
        preparing: Rows of the data read so far.
        report: Every line of the log.
        stop: Asked after every step; True ends the run with a checkpoint.
    """

    progress: Progress = field(default=lambda done, total: None)
    preparing: Progress = field(default=lambda done, total: None)
    report: Callable[[Record], None] = field(default=lambda record: None)
    stop: Callable[[], bool] = field(default=lambda: False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run.

    Attributes:
        steps: Steps done.
        total: Steps that there were to do; more than `steps` if it was stopped.
        evaluations: Step to metrics.
        best_step: Step of the best evaluation.
        model: The folder to load: the best, or the last without evaluation; None: the run was stopped by a signal.
        left_over: By source, rows of an epoch that no batch has.
    """

    steps: int
    total: int
    evaluations: Mapping[int, Mapping[str, float]]
    best_step: int
    model: Path | None
    left_over: Mapping[str, int]


def run(
    stage: Stage, recipe: Recipe, output: Path, *, resume: bool = False, watcher: Watcher | None = None
) -> Outcome:
    """Trains as a recipe says; under torchrun, together with the other processes.

    Args:
        stage: `train` on pairs, or `pretrain` on raw texts (RetroMAE).
        recipe: All settings.
        output: Folder of the run.
        resume: Go on from its last checkpoint; without one, begin.
        watcher: See `Watcher`.

    Raises:
        InputError: If the folder has a run already and `resume` is not set, or what is resumed differs.
        TriptychError: For all that can be wrong with data, model and settings.
    """
    wanted = None if recipe.compute.device is None else torch.device(recipe.compute.device)
    with distributed.joined(wanted) as device:
        device = device or best_device()
        before = output / "recipe.yaml" if resume and (output / "recipe.yaml").is_file() else None
        one = _Run(stage, recipe, output, device, watcher or Watcher(), before)
        return one.go(resume)


class _Run:
    """The parts of a run, made and held together for the time that it takes."""

    def __init__(
        self,
        stage: Stage,
        recipe: Recipe,
        output: Path,
        device: torch.device,
        watcher: Watcher,
        before: Path | None,
    ) -> None:
        self.output, self.watcher, self.log = output, watcher, RunLog(output)
        self.first = distributed.rank() == 0
        self.heads: tuple[Head, ...] = recipe.objective.heads if stage == "train" else ()
        start: Checkpoint = prepare(recipe)
        self.start = start.fingerprint
        self.encoder: M3Model = start.model
        freeze(start.model, recipe, self.heads)
        module = self._module(stage, recipe)
        if stage == "train":
            recipe = probed(recipe, start.model, device, before)
        self.recipe = recipe
        task = Pairs if stage == "train" else Texts
        self.task: Any = task(recipe, start.model, start.tokenizer, watcher.preparing)
        self.validation = _validation(recipe, start)
        module.to(device)
        if recipe.compute.compile:
            compile_layers(start.model, device, recipe.compute.sub_batch_tokens)
        replica = Replica(module, recipe.compute.parallel)
        self.runner = Runner(replica, device, partial(autocast, recipe.compute.dtype, device))
        self.optimiser = optimizer(module, recipe.optimisation)
        ema = recipe.optimisation.ema
        self.average = None if ema is None else Average(module, ema)
        self.evaluations: dict[int, dict[str, float]] = {}

    def _module(self, stage: Stage, recipe: Recipe) -> nn.Module:
        """What is trained: the model, or the model with what RetroMAE adds."""
        if recipe.compute.checkpoint_layers:
            backbone: Any = self.encoder.backbone
            # The older name is deprecated where the newer one exists.
            getattr(backbone, "activation_checkpointing_enable", backbone.gradient_checkpointing_enable)()
        if stage == "train":
            return self.encoder
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            return RetroMAE(self.encoder)

    def go(self, resume: bool) -> Outcome:
        state = self._begin(resume)
        with self._logs(state.step) as log:
            hooks = Hooks(
                log=log,
                evaluate=None if self.validation is None else self._evaluate,
                best=self._keep_best,
                save=self._save,
                stop=self.watcher.stop,
                progress=self.watcher.progress,
            )
            train(self.task, self.runner, self.optimiser, self.recipe, state, hooks, self.average)
        asked = distributed.any_of(self.watcher.stop(), self.runner.device)
        model = None
        if state.step == state.total or not asked:
            self._export(self._final_weights(), "final")
            if self.validation is not None and state.best_step == 0:
                self._export(self._start_weights(), "best")
            model = self.output / ("final" if self.validation is None else "best")
        distributed.barrier()
        return Outcome(state.step, state.total, self.evaluations, state.best_step, model, self.task.left_over)

    def _begin(self, resume: bool) -> State:
        """A new run's folder, or an old one's last checkpoint."""
        total = self.recipe.steps or ceil(self.recipe.epochs * self.task.steps_per_epoch)
        state = State(data=self.task.digest, start=self.start, total=total)
        last = checkpoints.latest(self.output)
        there = self.log.path.exists()
        distributed.barrier()  # everybody has looked before the first process begins to write
        if not resume and there:
            raise InputError(f"{self.output}: has a run already; expected --resume, or another --output")
        if resume and last is not None:
            snapshot = checkpoints.load(last)
            checkpoints.same_run(snapshot.state, state)
            average = None if self.average is None else self.average.weights
            checkpoints.put(snapshot, self.runner.replica.module, self.optimiser, average)
            state = snapshot.state
        if self.first:
            self.output.mkdir(parents=True, exist_ok=True)
            checkpoints.clean(self.output)
            write_atomically(self.output / "recipe.yaml", dump(self.recipe).encode())
            self.evaluations.update(self.log.shorten(state.step))
        distributed.barrier()
        return state

    def _logs(self, step: int) -> AbstractContextManager[Callable[[Record], None]]:
        """What takes the lines of the log; only the first process writes them."""
        if not self.first:
            return nullcontext(lambda record: None)
        return self.log.writing(self.watcher.report, step, tensorboard=self.recipe.tensorboard)

    def _evaluate(self, step: int) -> Mapping[str, float]:
        runner, validation = self.runner, cast(Validation, self.validation)
        heads: tuple[Head, ...] = self.heads or ("dense",)

        def encode(batch: Packed) -> Reps:
            with runner.autocast():
                return self.encoder(batch, heads)

        with self._averaged(), runner.replica.gathered():
            each = validation(
                encode,
                heads,
                self.recipe.objective.score_weights,
                device=runner.device,
                budget=EVALUATION_TOKENS[runner.device.type],
            )
        found = {name: float(values.mean()) for name, values in each.items()}
        if distributed.size() > 1:
            found = distributed.mean(
                {name: torch.tensor(value, device=runner.device) for name, value in found.items()}
            )
        self.evaluations[step] = found
        if self.first:
            self.log.keep_each(step, validation.ids, each)
        return found

    @contextmanager
    def _averaged(self) -> Generator[None]:
        """The moving average in the place of the weights, if there is one."""
        if self.average is None:
            yield
            return
        weights = trained(self.runner.replica.module)
        kept = {name: parameter.detach().clone() for name, parameter in weights.items()}
        _copy(weights, self.average.weights)
        try:
            yield
        finally:
            _copy(weights, kept)

    def _weights(self) -> dict[str, Tensor]:
        """What would be exported now: the moving average, or the weights."""
        source = trained(self.runner.replica.module) if self.average is None else self.average.weights
        return {name: checkpoints.whole(tensor) for name, tensor in source.items()}

    def _final_weights(self) -> dict[str, Tensor]:
        """The last weights, averaged and mixed with the start if the recipe says so."""
        saving, weights = self.recipe.saving, self._weights()
        if saving.average > 1 and self.first:
            snapshots = [
                checkpoints.load(folder) for folder in checkpoints.steps(self.output)[-saving.average :]
            ]
            weights = merged([snapshot.average or snapshot.weights for snapshot in snapshots])
        if saving.merge_start and self.first:
            both = [self._start_weights(), _of_encoder(weights)]
            weights = merged(both, [saving.merge_start, 1 - saving.merge_start])
        return weights

    def _start_weights(self) -> dict[str, Tensor]:
        begin = prepare(self.recipe).model
        freeze(begin, self.recipe, self.heads)
        return {name: tensor.detach() for name, tensor in trained(begin).items()}

    def _keep_best(self, step: int) -> None:
        """The start itself is exported only if nothing was better in the end."""
        if step:
            self._export(self._weights(), "best")

    def _export(self, weights: Mapping[str, Tensor], name: str) -> None:
        """Writes a model beside its old version and puts it in its place."""
        if not self.first:
            return
        folder, new = self.output / name, self.output / f".{name}.new"
        shutil.rmtree(new, ignore_errors=True)
        export(self.recipe, finished(self.recipe, self.heads, _of_encoder(weights)), new)
        write_atomically(new / "recipe.yaml", dump(self.recipe).encode())
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)

    def _save(self, state: State) -> None:
        average = None if self.average is None else self.average.weights
        snapshot = checkpoints.take(self.runner.replica.module, self.optimiser, state, average)
        if self.first:
            checkpoints.save(snapshot, self.output, dump(self.recipe), self.recipe.saving.keep)
        distributed.barrier()


def _of_encoder(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's own weights under their own names, whatever it was trained inside of."""
    inside = {name.removeprefix(_ENCODER): w for name, w in weights.items() if name.startswith(_ENCODER)}
    return inside or dict(weights)


@torch.no_grad()
def _copy(targets: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, tensor in targets.items():
        tensor.copy_(values[name])


def _validation(recipe: Recipe, start: Checkpoint) -> Validation | None:
    settings = recipe.evaluation
    if settings.data is None:
        return None
    limits = pair_limits(recipe, start.model)
    return Validation(
        load_beir(settings.data, settings.split),
        start.tokenizer,
        (limits.query_max, limits.query_prefix),
        (limits.passage_max, limits.document_prefix),
        settings.k,
    )
