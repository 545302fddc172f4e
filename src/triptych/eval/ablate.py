"""Runs an ablation study: trains every variant, evaluates it, and puts the results side by side.

Each stage of training is done once: its folder's name is a digest of all that determines its result.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triptych.collections.base import Collection, Wanted, digest_of
from triptych.collections.catalogue import read_collections
from triptych.collections.training import source_files
from triptych.encode.encoder import Encoder
from triptych.errors import InputError
from triptych.eval.ablate_plan import AblationPlan, StageRun, Trial, trials_of
from triptych.eval.ablate_tables import SCHEMA, Study, draw, markdown, tables_of
from triptych.eval.evaluate import evaluate_systems
from triptych.eval.results import Evaluation
from triptych.eval.running import EvalOptions, Tools
from triptych.eval.scan import scoring_on
from triptych.eval.systems import MODES, EncoderSystem
from triptych.io import write_atomically, write_json
from triptych.model import hub
from triptych.train.run import RunCallbacks, run
from triptych.types import Progress

MARK = "ablate.json"
"""The file that a finished stage has."""
VERSION = 2
"""Of what a digest covers; another one trains everything anew."""

# What changes neither the result nor, but for rounding, the way to it.
_INDIFFERENT: dict[str, tuple[str, ...]] = {
    "": ("log_every", "report_to", "model"),
    "compute": ("prefetch",),
    "data": ("cache",),
    "saving": ("every",),
}


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who watches.

    Attributes:
        begin: Called with a sentence when a stage or an evaluation begins.
        progress: See `triptych.types.Progress`.
        stop: Asked after every training step; True ends the study, which can be resumed.
    """

    begin: Callable[[str], None] = field(default=lambda sentence: None)
    progress: Progress = field(default=lambda stage, done, total: None)
    stop: Callable[[], bool] = field(default=lambda: False)


class Digests:
    """Digests of models and files, each taken once."""

    def __init__(self) -> None:
        self._known: dict[Any, str] = {}

    def model(self, name: str) -> str:
        """Of all files of a model's folder."""
        return self._get(("model", name), lambda: _of_folder(hub.resolve(name)))

    def start(self, trial: Trial) -> str:
        """Of the model with which a trial begins."""
        return self.model(trial.model)

    def steps(self, trial: Trial) -> list[str]:
        """Of each step of a trial with all that comes before it."""
        before = self.start(trial)
        found: list[str] = []
        for step in trial.steps:
            before = self._step(step, before)
            found.append(before)
        return found

    def _step(self, step: StageRun, before: str) -> str:
        values = step.recipe.model_dump(mode="json")
        for part, names in _INDIFFERENT.items():
            for name in names:
                (values[part] if part else values).pop(name)
        files = [self._files(source.path, source.split) for source in step.recipe.data.train]
        if step.recipe.evaluation.data is not None:
            files.append(self._files(step.recipe.evaluation.data, step.recipe.evaluation.split))
        facts = json.dumps([VERSION, step.command, before, values, files], sort_keys=True)
        return hashlib.blake2b(facts.encode(), digest_size=12).hexdigest()

    def _files(self, path: str, split: str) -> str:
        return self._get(("data", path, split), lambda: digest_of(source_files(path, split), "data"))

    def _get(self, key: Any, make: Callable[[], str]) -> str:
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]


def train(
    trial: Trial, digests: Sequence[str], folder: Path, watcher: Watcher, *, trust_remote_code: bool = False
) -> Path | None:
    """Trains the stages of a trial that are not there yet.

    A stage that was interrupted goes on from its last checkpoint.

    Args:
        trial: What.
        digests: Of its steps.
        folder: Where the stages' folders are.
        watcher: Who watches.
        trust_remote_code: Whether Python files of a model's folder may run.

    Returns:
        The last stage's model, or None if `watcher.stop` ended it. Without stages the folder where it starts.

    Raises:
        TriptychError: As `triptych.train.run.run`.
    """
    model = hub.resolve(trial.model)
    for step, digest in zip(trial.steps, digests, strict=True):
        place = folder / folder_of(step, digest)
        done = finished(place)
        if done is None:
            if watcher.stop():
                return None
            watcher.begin(f"{trial.variant}, seed {trial.seed}: training {step.name}")
            done = _run(step, model, place, watcher, trust_remote_code)
            if done is None:
                return None
        model = done
    return model


def folder_of(step: StageRun, digest: str) -> str:
    """The name of a stage's folder."""
    return "".join(letter if letter.isalnum() else "-" for letter in step.name) + f"-{digest}"


def finished(place: Path) -> Path | None:
    """The model of a finished stage; None if it is not finished.

    Raises:
        InputError: If its mark cannot be read, or the model is not there.
    """
    mark = place / MARK
    if not mark.is_file():
        return None
    try:
        model = place / json.loads(mark.read_bytes())["model"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{mark}: cannot be read ({error}); remove {place}, and it is trained again"
        ) from error
    if not model.is_dir():
        raise InputError(f"{model}: missing; remove {place}, and it is trained again")
    return model


def _run(step: StageRun, model: Path, place: Path, watcher: Watcher, trust_remote_code: bool) -> Path | None:
    recipe = step.recipe.model_copy(update={"model": str(model)})
    callbacks = RunCallbacks(
        progress=lambda stage, done, total: watcher.progress(f"{step.name}: {stage}", done, total),
        should_stop=watcher.stop,
    )
    trust = {"trust_remote_code": trust_remote_code}
    outcome = run(step.command, recipe, place, resume=True, callbacks=callbacks, **trust)
    if outcome.model is None:
        return None
    write_json(place / MARK, {"model": outcome.model.name, "steps": outcome.steps, "command": step.command})
    return outcome.model


def _of_folder(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_of(files, "model " + " ".join(path.relative_to(folder).as_posix() for path in files))


RESULT, TABLES, PLOT = "ablation.json", "ablation.md", "ablation.svg"


def ablate(
    plan: AblationPlan, folder: Path, watcher: Watcher | None = None, *, trust_remote_code: bool = False
) -> Study | None:
    """Trains and evaluates every variant with every seed, and compares them with the base.

    Stages that several variants share are trained once; what is there from an earlier, interrupted run is used.

    Args:
        plan: What to compare.
        folder: Gets ``stages/``, ``evaluations/``, and the result as JSON, Markdown and SVG.
        watcher: Who watches.
        trust_remote_code: Whether Python files of a model's folder may run.

    Returns:
        The study, or None if `watcher.stop` ended it: the same call goes on.

    Raises:
        TriptychError: For all that can be wrong with data, models and settings; what is done is kept.
    """
    watch, digests = watcher or Watcher(), Digests()
    trials = trials_of(plan)
    keys = [digests.steps(trial) for trial in trials]
    collections = read_sets(plan)
    for part in ("stages", "evaluations"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    results: dict[str, list[Evaluation]] = {}
    files: dict[str, list[str]] = {}
    for trial, steps in zip(trials, keys, strict=True):
        start = steps[-1] if steps else digests.start(trial)
        path = folder / "evaluations" / f"{_key(trial, start, plan, collections)}.json"
        if not path.is_file():
            model = train(trial, steps, folder / "stages", watch, trust_remote_code=trust_remote_code)
            if model is None:
                return None
            watch.begin(f"{trial.variant}, seed {trial.seed}: evaluating")
            _evaluate(trial, model, plan, collections, watch, trust_remote_code).write(path)
        results.setdefault(trial.variant, []).append(Evaluation.read(path))
        files.setdefault(trial.variant, []).append(path.relative_to(folder).as_posix())
    modes, test = plan.evaluation.modes, plan.evaluation.test
    study = Study(
        SCHEMA, list(plan.seeds), tables_of(results, modes, test), _shared(trials, keys), files, test
    )
    draw(study.tables, folder / PLOT)
    write_atomically(folder / TABLES, markdown(study, PLOT).encode())
    write_json(folder / RESULT, study.to_json())
    return study


def read_sets(plan: AblationPlan) -> list[Collection]:
    """The collections of a plan.

    Raises:
        DataError: For what cannot be read.
        InputError: If two sets have the same name, so that one table would mix them.
    """
    found: list[Collection] = []
    for each in plan.evaluation.sets:
        wanted = Wanted(() if each.subset is None else (each.subset,), each.split)
        some = read_collections(each.path, wanted)
        if clash := {one.label for one in some} & {one.label for one in found}:
            raise InputError(
                f"evaluation.sets: {each.path}: got {min(clash)!r} twice; expected different data sets"
            )
        found += some
    return found


def _evaluate(
    trial: Trial,
    model: Path,
    plan: AblationPlan,
    collections: Sequence[Collection],
    watch: Watcher,
    trust_remote_code: bool,
) -> Evaluation:
    """One trained model on all sets, in the modes whose heads its last stage trains."""
    judging = plan.evaluation
    encoder = Encoder.from_pretrained(
        model,
        device=plan.device,
        dtype=plan.dtype,
        trust_remote_code=trust_remote_code,
        **trial.inference,
    )
    heads = set(trial.heads) & set(encoder.heads)
    modes = [mode for mode in judging.modes if set(MODES[mode].heads) <= heads]
    if not modes:
        raise InputError(
            f"{trial.variant}: trains {', '.join(trial.heads)}; expected the heads of one of the modes "
            f"{', '.join(judging.modes)}"
        )
    system = EncoderSystem.of(
        encoder,
        trial.variant,
        modes=modes,
        query_length=judging.query_length,
        document_length=judging.document_length,
    )
    options = EvalOptions(
        candidates=judging.candidates, metrics=judging.metrics, rrf=False, test=judging.test
    )
    tools = Tools(scoring_on(plan.device, plan.dtype), progress=watch.progress)
    return evaluate_systems(collections, [system], options, tools)


def _key(trial: Trial, model: str, plan: AblationPlan, collections: Sequence[Collection]) -> str:
    """A digest of all that determines an evaluation."""
    judging = plan.evaluation.model_dump(mode="json", exclude={"sets"})
    sets = [
        [
            one.label,
            one.split,
            one.corpus.digest,
            dict(one.queries),
            {q: dict(d) for q, d in one.qrels.items()},
        ]
        for one in collections
    ]
    facts = [model, trial.variant, trial.heads, dict(trial.inference), judging, plan.dtype, sets]
    text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _shared(trials: Sequence[Trial], keys: Sequence[Sequence[str]]) -> dict[str, list[str]]:
    """Folder of each stage to the variants that use it."""
    found: dict[str, list[str]] = {}
    for trial, steps in zip(trials, keys, strict=True):
        for step, digest in zip(trial.steps, steps, strict=True):
            users = found.setdefault(folder_of(step, digest), [])
            users += [] if trial.variant in users else [trial.variant]
    return found
