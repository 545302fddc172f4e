"""Trains what variants need, each stage once: its folder's name is a digest of all that determines its result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from triptych.ablate.plan import Step, Trial
from triptych.data.training import source_files
from triptych.errors import InputError
from triptych.eval.collection import digest_of
from triptych.files import write_json
from triptych.model import hub
from triptych.train.run import Watcher as TrainWatcher
from triptych.train.run import run

MARK = "ablate.json"
"""The file that a finished stage has."""
VERSION = 1
"""Of what a digest covers; another one trains everything anew."""

# What changes neither the result nor, but for rounding, the way to it.
_INDIFFERENT: dict[str, tuple[str, ...]] = {
    "": ("log_every", "tensorboard", "model"),
    "compute": ("prefetch",),
    "data": ("cache",),
}


@dataclass(frozen=True, slots=True)
class Watcher:
    """Who watches.

    Attributes:
        begin: Called with a sentence when a stage or an evaluation begins.
        progress: Called with (what is going on, done, total or None).
        stop: Asked after every training step; True ends the study, which can be resumed.
    """

    begin: Callable[[str], None] = field(default=lambda sentence: None)
    progress: Callable[[str, int, int | None], None] = field(default=lambda stage, done, total: None)
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

    def _step(self, step: Step, before: str) -> str:
        values = step.recipe.model_dump(mode="json")
        for part, names in _INDIFFERENT.items():
            for name in names:
                (values[part] if part else values).pop(name)
        if step.recipe.saving.average == 1:
            values["saving"].pop("every")
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


def train(trial: Trial, digests: Sequence[str], folder: Path, watcher: Watcher) -> Path | None:
    """Trains the stages of a trial that are not there yet.

    A stage that was interrupted goes on from its last checkpoint.

    Args:
        trial: What.
        digests: Of its steps.
        folder: Where the stages' folders are.
        watcher: Who watches.

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
            done = _run(step, model, place, watcher)
            if done is None:
                return None
        model = done
    return model


def folder_of(step: Step, digest: str) -> str:
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


def _run(step: Step, model: Path, place: Path, watcher: Watcher) -> Path | None:
    recipe = step.recipe.model_copy(update={"model": str(model)})
    tell = TrainWatcher(
        progress=lambda done, total: watcher.progress(f"training {step.name}", done, total),
        preparing=lambda done, total: watcher.progress(f"reading for {step.name}", done, total),
        stop=watcher.stop,
    )
    outcome = run(step.command, recipe, place, resume=True, watcher=tell)
    if outcome.model is None:
        return None
    write_json(place / MARK, {"model": outcome.model.name, "steps": outcome.steps, "command": step.command})
    return outcome.model


def _of_folder(folder: Path) -> str:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return digest_of(files, "model " + " ".join(path.relative_to(folder).as_posix() for path in files))
