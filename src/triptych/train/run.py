"""A run: from a recipe to a folder with a trained model.

The folder has ``recipe.yaml`` (all values), ``log.jsonl``, ``checkpoints/``, ``best/`` (the model of the best
evaluation, if there is one) and, at the end, ``final/``; the last two are for `Encoder.from_pretrained`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from triptych.collections.beir import load_beir
from triptych.collections.training import read_held_out
from triptych.errors import InputError
from triptych.io import write_atomically
from triptych.model import hub
from triptych.model.backbone import device_of, hidden_size
from triptych.model.checkpoint import CARD, Checkpoint
from triptych.model.m3 import M3Model
from triptych.model.packed import TOKEN_BUDGET, Packed, Reps
from triptych.notebook import html_table
from triptych.train import checkpoint as checkpoints
from triptych.train import distributed
from triptych.train.card import HEADS_OF_TABLE, Change, changes_of, explanation, model_card
from triptych.train.checkpoint import State
from triptych.train.distributed import Replica, autocast, compile_layers
from triptych.train.loop import Callbacks, Record, train
from triptych.train.optim import Average, make_optimizer, trainable
from triptych.train.plan import RunPlan, make_plan, rows_of
from triptych.train.retromae import RetroMAE, load_mlm_head
from triptych.train.settings import FINE_TUNE, Recipe, dump, overlay, read, steps_of, validate
from triptych.train.start import Projected, export, finish, freeze, prepare
from triptych.train.tasks import Pairs, Runner, Texts, pair_limits
from triptych.train.validate import RunLog, Validation, clearly_worse
from triptych.types import Head, Progress

Stage: TypeAlias = Literal["train", "pretrain"]
_ENCODER = "encoder."


TRAINING = "training"
"""The stage of steps that `Progress` is called with."""


@dataclass(frozen=True, slots=True)
class RunCallbacks:
    """What a run calls while it works; nothing here changes what it computes.

    With many processes the first one alone calls them, but for `should_stop`.

    Attributes:
        progress: Called with the stages `triptych.train.data.READING` and `TRAINING`.
        on_begin: Called before the first step with what the run will do. It costs two trial steps; None: they are not
            made. All processes must have it, or none.
        on_log: Called with every line of the log, those of evaluations too.
        on_eval: Called after every evaluation with the step and nDCG@k by head.
        on_save: Called with the folder of every checkpoint and model that was written.
        on_step: Called after every step with its number.
        should_stop: Asked after every step; True ends the run with a checkpoint.
    """

    progress: Progress = field(default=lambda stage, done, total: None)
    on_begin: Callable[[RunPlan], None] | None = None
    on_log: Callable[[Record], None] = field(default=lambda record: None)
    on_eval: Callable[[int, Mapping[str, float]], None] = field(default=lambda step, metrics: None)
    on_save: Callable[[Path], None] = field(default=lambda folder: None)
    on_step: Callable[[int], None] = field(default=lambda step: None)
    should_stop: Callable[[], bool] = field(default=lambda: False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a run.

    Attributes:
        steps: Steps done.
        total: Steps that there were to do; more than `steps` if it was stopped.
        evaluations: Step to metrics.
        lowered: Step to the heads that ranked the evaluation's queries clearly worse then than before training.
        best_step: Step of the best evaluation, on the same queries.
        model: The folder to load: the best, or the last without evaluation; None: the run was stopped by a signal.
        left_over: By source, rows of an epoch that no batch has.
        primary: Whether this is the first of the processes: the one that should tell the user.
        changes: Each head on the evaluation's queries, before training and at the best step.
        queries: How many these queries are.
    """

    steps: int
    total: int
    evaluations: Mapping[int, Mapping[str, float]]
    lowered: Mapping[int, tuple[str, ...]]
    best_step: int
    model: Path | None
    left_over: Mapping[str, int]
    primary: bool = True
    changes: Sequence[Change] = ()
    queries: int = 0

    def _repr_html_(self) -> str:
        rows = [change.cells for change in self.changes]
        notes = [explanation(self.queries, self.best_step)] if rows else []
        model = "stopped before its end" if self.model is None else self.model.name
        return html_table(HEADS_OF_TABLE, rows, f"{self.steps} of {self.total} steps: {model}", notes)


def run(
    stage: Stage,
    recipe: Recipe,
    output: Path,
    *,
    resume: bool = False,
    callbacks: RunCallbacks | None = None,
    trust_remote_code: bool = False,
) -> Outcome:
    """Trains as a recipe says; under torchrun, together with the other processes.

    Args:
        stage: `train` on pairs, or `pretrain` on raw texts (RetroMAE).
        recipe: All settings.
        output: Folder of the run.
        resume: Continue from its last checkpoint; without one, begin.
        callbacks: See `RunCallbacks`.
        trust_remote_code: Whether Python files of the starting model's folder may run. No recipe can say so.

    Raises:
        InputError: If the folder has a run already and `resume` is not set, or what is resumed differs.
        TriptychError: For all that can be wrong with data, model and settings.
    """
    device = None if recipe.compute.device is None else torch.device(recipe.compute.device)
    with distributed.process_group(device) as own:
        callbacks = callbacks or RunCallbacks()
        return _Run(stage, recipe, output, device_of(own), callbacks, trust_remote_code).go(resume)


def fine_tune(
    data: Any,
    output: str | Path,
    /,
    *,
    model: str | Path = "small",
    evaluation: str | Path | Mapping[str, Any] | None = None,
    resume: bool = False,
    callbacks: RunCallbacks | None = None,
    trust_remote_code: bool = False,
    **settings: Any,
) -> Outcome:
    """Trains a model on queries with relevant passages, with the settings of `triptych train` without a recipe.

    Example:
        >>> outcome = fine_tune("pairs.jsonl", "my-model", evaluation="held-out.jsonl", epochs=2)  # doctest: +SKIP
        >>> encoder = Encoder.from_pretrained(outcome.model)  # doctest: +SKIP

    Args:
        data: File or folder, several of them, or records such as a `datasets.Dataset`; see docs/training-data.md.
        output: Folder of the run.
        model: Where to start: "small", a folder, or a Hub name.
        evaluation: Questions that were held out: a BEIR folder or a file of examples; or settings of the evaluation,
            such as ``{"data": "held-out.jsonl", "patience": 3}``.
        resume: As for `run`.
        callbacks: As for `run`.
        trust_remote_code: As for `run`.
        settings: Of the recipe, such as ``epochs=3`` or ``optimizer={"lr": 1e-5}``; see `Recipe`.

    Raises:
        TriptychError: As `run`.
    """
    paths = [data] if isinstance(data, str | Path) else data
    train = [str(path) for path in paths] if isinstance(paths, list | tuple) else paths
    given: dict[str, Any] = {"model": str(model), "data": {"train": train}}
    if evaluation is not None:
        given["evaluation"] = evaluation if isinstance(evaluation, Mapping) else {"data": str(evaluation)}
    recipe = validate(Recipe, overlay(overlay(FINE_TUNE, given), settings), "fine_tune")
    trust = {"trust_remote_code": trust_remote_code}
    return run("train", recipe, Path(output), resume=resume, callbacks=callbacks, **trust)


class _Run:
    """The parts of a run, made and held together for the time that it takes."""

    def __init__(
        self,
        stage: Stage,
        recipe: Recipe,
        output: Path,
        device: torch.device,
        callbacks: RunCallbacks,
        trust_remote_code: bool,
    ) -> None:
        self.primary = distributed.rank() == 0
        silent = RunCallbacks(should_stop=callbacks.should_stop)
        self.plans = callbacks.on_begin is not None
        self.callbacks = callbacks if self.primary else silent
        self.output, self.recipe, self.log = output, recipe, RunLog(output)
        self.heads: tuple[Head, ...] = recipe.objective.heads if stage == "train" else ()
        self.trusted = trust_remote_code
        start: Checkpoint = prepare(recipe, trust_remote_code=trust_remote_code)
        self.start = start.fingerprint
        self.encoder: M3Model = start.model
        freeze(start.model, recipe, self.heads)
        task = Pairs if stage == "train" else Texts
        self.task: Any = task(recipe, start.model, start.tokenizer, self.callbacks.progress)
        module = self._module(stage)
        self.validation = _validation(recipe, start)
        module.to(device)
        if recipe.compute.compile:
            compile_layers(start.model, device, recipe.compute.sub_batch_tokens)
        replica = Replica(module, recipe.compute.parallel)
        self.runner = Runner(replica, device, partial(autocast, recipe.compute.dtype, device))
        self.optimizer = make_optimizer(module, recipe.optimizer)
        ema = recipe.optimizer.ema
        self.average = None if ema is None else Average(module, ema)
        self.evaluations: dict[int, dict[str, float]] = {}
        self.lowered: dict[int, tuple[str, ...]] = {}
        self.before: dict[str, NDArray[np.float64]] = {}

    def _module(self, stage: Stage) -> nn.Module:
        """What is trained: the model, or the model with what RetroMAE or a teacher's vectors add."""
        backbone: Any = self.encoder.backbone
        if self.recipe.compute.checkpoint_layers:
            # The older name is deprecated where the newer one exists.
            getattr(backbone, "activation_checkpointing_enable", backbone.gradient_checkpointing_enable)()
        if stage == "train" and not self.task.vector_width:
            return self.encoder
        if stage == "train":
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.recipe.seed)
                return Projected(self.encoder, hidden_size(backbone), self.task.vector_width)
        head = load_mlm_head(
            hub.resolve(self.recipe.model),
            hidden_size(backbone),
            backbone.get_input_embeddings().num_embeddings,
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            return RetroMAE(self.encoder, head)

    def go(self, resume: bool) -> Outcome:
        state = self._begin(resume)
        if self.plans and state.step < state.total:
            self._plan(state)
        with self._open_log(state.step) as on_log:
            callbacks = Callbacks(on_log, partial(self._on_eval, on_log), self._on_save, self._on_step)
            train(self.task, self.runner, self.optimizer, self.recipe, state, callbacks, self.average)
        stopped = distributed.any_of(self.callbacks.should_stop())
        model = None
        if state.step == state.total or not stopped:
            self._export(self._weights(), "final", state.step)
            if self.validation is not None and state.best_step == 0:
                self._export(self._start_weights(), "best", 0)
            model = self.output / ("final" if self.validation is None else "best")
        distributed.barrier()
        results = state.step, state.total, self.evaluations, self.lowered, state.best_step
        changes = self._changes(state.best_step) if self.primary else ()
        queries = 0 if self.validation is None else len(self.validation.ids)
        return Outcome(
            *results, model, dict(self.task.data.sampler.left_over), self.primary, changes, queries
        )

    def _plan(self, state: State) -> None:
        every = max(1, round(steps_of(self.recipe.evaluation.every, state.total)))
        done, left = state.step, state.total - state.step
        evaluations = (
            0 if self.validation is None else left // every + (done == 0) + (state.total % every > 0)
        )
        plan = make_plan(self.task, self.runner, self.optimizer, self.recipe, state, evaluations)
        if self.callbacks.on_begin is not None:
            self.callbacks.on_begin(plan)

    def _changes(self, step: int) -> tuple[Change, ...]:
        """Each head at a step beside before training; nothing if that was not evaluated."""
        if self.validation is None or step not in self.evaluations:
            return ()
        return changes_of(self.log.read_each(0), self.log.read_each(step), self.validation.clusters)

    def _begin(self, resume: bool) -> State:
        """A new run's folder, or an old one's last checkpoint."""
        total = self.recipe.steps or ceil(self.recipe.epochs * self.task.data.sampler.steps_per_epoch)
        state = State(
            data=self.task.data.digest, start=self.start, total=total, version=checkpoints.STATE_VERSION
        )
        last = checkpoints.latest(self.output)
        exists = self.log.path.exists()
        distributed.barrier()  # all processes have looked before the first one begins to write
        if not resume and exists:
            raise InputError(f"{self.output}: has a run already; expected --resume, or another --output")
        if resume and last is not None:
            snapshot = checkpoints.load(last)
            checkpoints.check_resume(
                snapshot.state, state, read(last / "recipe.yaml"), self.recipe, self.task.data.old_digest
            )
            average = None if self.average is None else self.average.weights
            checkpoints.put(snapshot, self.runner.replica.module, self.optimizer, average)
            state = replace(snapshot.state, data=state.data, version=state.version)
            self.before = self.log.read_each(0)
        if self.primary:
            self.output.mkdir(parents=True, exist_ok=True)
            checkpoints.clean(self.output)
            if not state.step:  # what a run began with stays as it was written
                write_atomically(self.output / "recipe.yaml", dump(self.recipe).encode())
            self.evaluations.update(self.log.truncate(state.step))
        distributed.barrier()
        return state

    def _open_log(self, step: int) -> AbstractContextManager[Callable[[Record], None]]:
        """What takes the lines of the log; only the first process writes them."""
        if not self.primary:
            return nullcontext(lambda record: None)
        recipe = self.recipe
        return self.log.writing(self.callbacks.on_log, recipe.report_to, recipe.model_dump(mode="json"), step)

    def _on_step(self, state: State) -> bool:
        self.callbacks.progress(TRAINING, state.step, state.total)
        self.callbacks.on_step(state.step)
        return self.callbacks.should_stop()

    def _on_eval(self, on_log: Callable[[Record], None], state: State) -> bool:
        """Evaluates, keeps the best weights, and says whether to stop early."""
        if self.validation is None:
            return False
        settings, each = self.recipe.evaluation, self._evaluate()
        if state.step == 0:
            self.before = each
        values = {
            name: torch.tensor(float(value.mean()), device=self.runner.device) for name, value in each.items()
        }
        metrics = distributed.mean(values)
        lowered = self._worse_heads(each)
        self.evaluations[state.step] = metrics
        on_log({"step": state.step, "evaluation": metrics} | ({"lowered": lowered} if lowered else {}))
        if lowered:
            self.lowered[state.step] = lowered
        if self.primary:
            self.log.write_each(state.step, self.validation.ids, each)
        self.callbacks.on_eval(state.step, metrics)
        value = metrics[settings.metric if settings.metric in metrics else next(iter(metrics))]
        if state.best is None or (value > state.best and not (lowered and settings.keep_heads)):
            state.best, state.best_step, state.stale = value, state.step, 0
            if state.step:  # the start itself is exported only if nothing was better in the end
                self._export(self._weights(), "best", state.step)
        else:
            state.stale += 1
        return settings.patience is not None and state.stale >= settings.patience

    def _worse_heads(self, each: Mapping[str, NDArray[np.float64]]) -> tuple[str, ...]:
        """The heads that rank clearly worse than before training."""
        found: list[str] = []
        for head in self.heads:
            clusters = None if self.validation is None else self.validation.clusters
            worse = head in self.before and clearly_worse(self.before[head], each[head], clusters)
            if distributed.any_of(worse):
                found.append(head)
        return tuple(found)

    def _evaluate(self) -> dict[str, NDArray[np.float64]]:
        runner, validation = self.runner, cast(Validation, self.validation)
        heads: tuple[Head, ...] = self.heads or ("dense",)

        def encode(batch: Packed) -> Reps:
            with runner.autocast():
                return self.encoder(batch, heads)

        with self._use_average(), runner.replica.gathered():
            return validation(
                encode,
                heads,
                self.recipe.objective.score_weights,
                device=runner.device,
                budget=TOKEN_BUDGET[runner.device.type],
            )

    @contextmanager
    def _use_average(self) -> Generator[None]:
        """The moving average in the place of the weights, if there is one."""
        if self.average is None:
            yield
            return
        weights = trainable(self.runner.replica.module)
        saved = {name: parameter.detach().clone() for name, parameter in weights.items()}
        _copy(weights, self.average.weights)
        try:
            yield
        finally:
            _copy(weights, saved)

    def _weights(self) -> dict[str, Tensor]:
        """What would be exported now: the moving average, or the weights."""
        source = trainable(self.runner.replica.module) if self.average is None else self.average.weights
        return {name: checkpoints.whole(tensor) for name, tensor in source.items()}

    def _start_weights(self) -> dict[str, Tensor]:
        start = prepare(self.recipe, trust_remote_code=self.trusted).model
        freeze(start, self.recipe, self.heads)
        return {name: tensor.detach() for name, tensor in trainable(start).items()}

    def _export(self, weights: Mapping[str, Tensor], name: str, step: int) -> None:
        """Writes the model of a step, with its card, beside its old version and puts it in its place."""
        if not self.primary:
            return
        folder, new = self.output / name, self.output / f".{name}.new"
        shutil.rmtree(new, ignore_errors=True)
        own = _of_encoder(weights)
        export(self.recipe, finish(self.recipe, self.heads, own, trust_remote_code=self.trusted), new)
        write_atomically(new / "recipe.yaml", dump(self.recipe).encode())
        changes = self._changes(step)
        note = explanation(len(cast(Validation, self.validation).ids), step) if changes else ""
        card = model_card(self.recipe, self.heads, rows_of(self.task), step, changes, note)
        write_atomically(new / CARD, card.encode())
        shutil.rmtree(folder, ignore_errors=True)
        new.rename(folder)
        self.callbacks.on_save(folder)

    def _on_save(self, state: State) -> None:
        average = None if self.average is None else self.average.weights
        snapshot = checkpoints.take(self.runner.replica.module, self.optimizer, state, average)
        if self.primary:
            place = checkpoints.save(snapshot, self.output, dump(self.recipe), self.recipe.saving.keep)
            self.callbacks.on_save(place)
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
    place = Path(settings.data)
    return Validation(
        read_held_out(place) if place.is_file() else load_beir(place, settings.split),
        start.tokenizer,
        (limits.query_max, limits.query_prefix),
        (limits.passage_max, limits.document_prefix),
        settings.k,
    )
