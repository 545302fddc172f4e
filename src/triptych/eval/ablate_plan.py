"""What to compare: a pipeline of training stages, named variants of it, and what they are judged on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from triptych.config import M3Config, hint
from triptych.errors import InputError
from triptych.eval.systems import MODES
from triptych.train.settings import (
    Recipe,
    Settings,
    normalize,
    overlay,
    read_mapping,
    settings_of,
    validate,
)
from triptych.types import HEADS, Head

BASE = "base"
"""The name of the pipeline as it stands."""


class Stage(Settings):
    """A stage of the pipeline.

    Attributes:
        name: By which variants call it.
        command: `pretrain` on raw texts or `train` on pairs.
        recipe: A recipe's file; None: the defaults.
        settings: Values that count more than the recipe's.
    """

    name: str = Field(min_length=1)
    command: Literal["pretrain", "train"] = "train"
    recipe: str | None = None
    settings: dict[str, Any] = Field(default_factory=dict)


class Variant(Settings):
    """One thing that is done differently.

    Attributes:
        name: For tables.
        without: Names of stages that are left out.
        settings: Name of a stage to values that count more than the pipeline's.
        inference: Fields of `M3Config` with which the trained model is loaded, such as ``pooling: mcls``.
        model: Another model to start from; None: the plan's.
    """

    name: str = Field(min_length=1)
    without: tuple[str, ...] = ()
    settings: dict[str, dict[str, Any]] = Field(default_factory=dict)
    inference: dict[str, Any] = Field(default_factory=dict)
    model: str | None = None


def _sets(given: Any) -> Any:
    several = given if isinstance(given, list | tuple) else [given]
    return [{"path": each} if isinstance(each, str) else each for each in several]  # pyright: ignore[reportUnknownVariableType]


class Set(Settings):
    """A data set to evaluate on.

    Attributes:
        path: Folder, or NAME:PATH as `triptych eval` takes it.
        split: None: the reader's default.
        subset: None: all.
    """

    path: str
    split: str | None = None
    subset: str | None = None


class Judging(Settings):
    """How variants are judged.

    Attributes:
        sets: Data sets.
        modes: Columns of the tables.
        candidates: Modes with token vectors rank only so many candidates of each first stage; None: everything.
        metrics: The first decides; None: each set's own.
        query_length: Most tokens of a query; None: what the model reads.
        document_length: The same of a document.
        test: Of significance, against the base.
    """

    sets: Annotated[tuple[Set, ...], BeforeValidator(_sets)] = ()
    modes: tuple[str, ...] = ("dense", "lexical", "multi", "all")
    candidates: int | None = Field(default=None, ge=1)
    metrics: tuple[str, ...] | None = None
    query_length: int | None = Field(default=None, ge=4)
    document_length: int | None = Field(default=None, ge=4)
    test: Literal["t", "randomisation"] = "t"


class AblationPlan(Settings):
    """An ablation study.

    Attributes:
        model: Where the first stage starts.
        seeds: Every variant is trained once with each.
        stages: The pipeline, in order; none: the model is evaluated as it is.
        variants: What is compared with it.
        evaluation: How.
        device: cpu, cuda, cuda:N, mps; None: a GPU if there is one.
        dtype: Arithmetic of the evaluated models.
    """

    model: str = "small"
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    stages: tuple[Stage, ...] = ()
    variants: tuple[Variant, ...] = ()
    evaluation: Judging = Judging()
    device: str | None = None
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"


@dataclass(frozen=True, slots=True)
class StageRun:
    """A stage as it is run: its recipe's model stands for what comes before it."""

    name: str
    command: Literal["pretrain", "train"]
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Trial:
    """A variant with one seed.

    Attributes:
        variant: Its name.
        seed: Of all its stages.
        model: Where its first stage starts.
        steps: Its stages.
        inference: See `Variant`.
    """

    variant: str
    seed: int
    model: str
    steps: tuple[StageRun, ...]
    inference: Mapping[str, Any]

    @property
    def heads(self) -> tuple[Head, ...]:
        """The heads that its last stage on pairs trains; without such a stage all of them."""
        trained = [step.recipe.objective.heads for step in self.steps if step.command == "train"]
        return trained[-1] if trained else HEADS


def read_plan(path: Path, changes: Sequence[str] = ()) -> AblationPlan:
    """Reads a plan from YAML.

    Args:
        path: The file.
        changes: ``key=value`` with dots between the parts of the key; the value is YAML.

    Raises:
        DataError: If the file cannot be read as YAML (with the line).
        InputError: For an unknown key, or a value that does not fit.
    """
    values = settings_of(path, changes)
    plan = validate(AblationPlan, values, f"{path} and --set" if changes else str(path))
    _check(plan, str(path))
    return plan


def trials_of(plan: AblationPlan) -> list[Trial]:
    """Every variant with every seed, the base first; all recipes are read and checked.

    Raises:
        DataError: If a recipe cannot be read.
        InputError: For settings that do not fit, with the variant and the stage.
    """
    variants = (Variant(name=BASE), *plan.variants)
    return [_trial(plan, variant, seed) for variant in variants for seed in plan.seeds]


def _trial(plan: AblationPlan, variant: Variant, seed: int) -> Trial:
    steps: list[StageRun] = []
    for stage in plan.stages:
        if stage.name in variant.without:
            continue
        values = normalize(read_mapping(Path(stage.recipe))) if stage.recipe is not None else {}
        for above in (stage.settings, variant.settings.get(stage.name, {})):
            values = overlay(values, normalize(above))
        compute = {} if plan.device is None else {"device": plan.device}
        values = overlay({"compute": compute}, values) | {"seed": seed}
        recipe = validate(Recipe, values, f"{variant.name}: {stage.name}")
        steps.append(StageRun(stage.name, stage.command, recipe))
    return Trial(variant.name, seed, variant.model or plan.model, tuple(steps), variant.inference)


def _check(plan: AblationPlan, where: str) -> None:
    """What the types do not say."""
    stages = [stage.name for stage in plan.stages]
    names = [BASE, *(variant.name for variant in plan.variants)]
    every: dict[str, list[Any]] = {"stages": stages, "variants": names, "seeds": list(plan.seeds)}
    for what, given in every.items():
        twice = [each for each in given if given.count(each) > 1]
        if twice:
            raise InputError(f"{where}: {what}: got {twice[0]!r} twice; expected different ones")
    if not plan.evaluation.sets:
        raise InputError(f"{where}: evaluation.sets: got none; expected one or more data sets")
    for mode in plan.evaluation.modes:
        if mode not in MODES:
            raise InputError(f"{where}: evaluation.modes: got {mode!r}; {hint(mode, list(MODES))}")
    for variant in plan.variants:
        for name in (*variant.without, *variant.settings):
            if name not in stages:
                raise InputError(
                    f"{where}: variant {variant.name!r}: no stage {name!r}; {hint(name, stages)}"
                )
        fields = list(M3Config.__dataclass_fields__)
        for name in variant.inference:
            if name not in fields:
                raise InputError(
                    f"{where}: variant {variant.name!r}: inference: unknown key {name!r}; {hint(name, fields)}"
                )
