"""Everything that decides a training run, as one value that can be written and read back as YAML.

The order of precedence: defaults < the YAML file < ``--set key=value``. An unknown key is an error that names the
nearest known one, and every number has a range. The resulting values are written beside every checkpoint.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from triptych.config import hint
from triptych.errors import DataError, InputError
from triptych.train.data import is_records
from triptych.train.objective import INTEGRATED, OBJECTIVES, Objective
from triptych.train.retromae import Masking
from triptych.train.sampling import FINETUNE_TABLE, PRETRAIN_TABLE, BatchTable
from triptych.types import Head

TABLES: Mapping[str, BatchTable] = {"pretrain": PRETRAIN_TABLE, "finetune": FINETUNE_TABLE}
"""The paper's batch sizes by length, of its second and third stage."""
RECIPES = Path(__file__).parents[1] / "recipes"
"""The recipes of the package; each is known by its name without the ending."""

_BOUNDS = (32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)


FINE_TUNE: Mapping[str, Any] = {
    "freeze": ["words"],
    "data": {"group": 4, "batch_size": 16},
    "objective": {"temperature": 0.05, "loss_weights": [1, 1, 1]},
    "optimizer": {"lr": 2e-5},
}
"""What `triptych train` and `fine_tune` change of the defaults if there is no recipe: sizes for a laptop, and losses
for a model whose heads are trained already. The paper's temperature and its small weight of the lexical loss are for
new heads and much data: on a few hundred pairs they thin the lexical weights out and lower that head."""


class Settings(BaseModel):
    """A part of a recipe: frozen, and without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _known(kind: type[Any], base: Any, given: Any) -> Any:
    """A dataclass from a mapping of some of its fields over a base value; wrong keys and types are errors."""
    if isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise InputError(f"got {given!r}; expected keys among {', '.join(f.name for f in fields(kind))}")
    values = cast("Mapping[str, Any]", given)
    names = [field.name for field in fields(kind)]
    for key in values:
        if key not in names:
            raise InputError(f"unknown key {key!r}; {hint(key, names)}")
    return TypeAdapter(kind).validate_python({**asdict(base), **values})


def _objective(given: Any) -> Any:
    if isinstance(given, str):
        given = {"name": given}
    if not isinstance(given, Mapping):
        return given
    values = dict(cast("Mapping[str, Any]", given))
    name = values.pop("name", "unified")
    if name not in OBJECTIVES:
        raise InputError(f"name: got {name!r}; expected one of {', '.join(OBJECTIVES)}")
    return _known(Objective, OBJECTIVES[name], values)


def _source(given: Any) -> Any:
    if is_records(given):
        return {"path": "(records)", "records": given}
    return {"path": given} if isinstance(given, str) else given


def _sources(given: Any) -> Any:
    several = given if isinstance(given, list | tuple) else [given]
    return [_source(each) for each in cast("Sequence[Any]", several)]


def _share_or_steps(value: float | None) -> float | None:
    if value is not None and value > 1 and value != round(value):
        raise ValueError(f"got {value}; expected a share of all steps (up to 1.0) or a whole number of steps")
    return value


Share = Annotated[int | float, AfterValidator(_share_or_steps)]
"""A fraction up to 1.0 of all steps, or a whole number of steps; 1 is one step, 1.0 all of them."""


def steps_of(value: float, total: int) -> float:
    """Steps of a `Share` in a run of `total` steps; not rounded."""
    return value * total if isinstance(value, float) and value <= 1 else float(value)


class SourceSettings(Settings):
    """A file or folder of training data.

    Attributes:
        path: File or folder; relative to the folder in which the command runs. Each file of a folder is a data set of
            its own, but for BEIR folders and shards (``name-00000-of-00004.parquet``).
        weight: Multiplies its share of an epoch.
        split: Which judgements of a BEIR folder.
        records: Instead of a path, from Python: records such as a `datasets.Dataset`, which needs no file.
        heads: Which of the objective's heads learn from it; None: all. A query and a passage in two languages share
            few words, so that such pairs teach the lexical head little but names and numbers.
        bidirectional: Whether its passages must also find their queries, which suits translations; None: as the
            objective says.
    """

    path: str
    weight: float = Field(default=1.0, ge=0, le=1e6)
    split: str = "train"
    records: Any = Field(default=None, exclude=True, repr=False)
    heads: tuple[Head, ...] | None = Field(default=None, min_length=1)
    bidirectional: bool | None = None


class DataSettings(Settings):
    """What is trained on.

    Attributes:
        train: The sources.
        query_length: Maximum tokens of a query; None: 512, or what the model reads if that is less.
        passage_length: Maximum tokens of a passage or raw text; None: what the model reads.
        group: G, passages per query: its positive and G − 1 negatives.
        fill: What fills a row up that has fewer negatives (see `triptych.train.collate.Collator`).
        batch_size: Rows of a batch of each process, whatever the length.
        batch_tokens: Instead: maximum tokens of a batch's passages.
        table: Instead: rows by length: `finetune` or `pretrain` (the paper's), or {tokens: rows}.
        bounds: Bounds of the length buckets, for `batch_size` and `batch_tokens`.
        temperature: ≥ 1: evens the sources out.
        by_language: Draw from each language of a source as from a source of its own.
        mixed: Let batches mix the sources.
        lines: Every line of a .txt file is a text.
        prompts: Put a row's `prompt` before its query, in the place of the model's prefix. The published script
            ignores it, and so does encoding unless the same prefix is given there.
        positive_from: The least label or score of a positive, where passages are judged one by one.
        blank_negatives: What a blank negative is (``"neg": [""]``): an `error`, or nothing (`drop`).
        cache: Folder for prepared data sets.
    """

    train: Annotated[tuple[SourceSettings, ...], BeforeValidator(_sources)] = ()
    query_length: int | None = Field(default=None, ge=4)
    passage_length: int | None = Field(default=None, ge=4)
    group: int = Field(default=8, ge=1, le=10_000)
    fill: Literal["random", "repeat"] = "random"
    batch_size: int | None = Field(default=None, ge=1, le=1_000_000)
    batch_tokens: int | None = Field(default=None, ge=1)
    table: Literal["finetune", "pretrain"] | dict[int, int] | None = None
    bounds: tuple[int, ...] = _BOUNDS
    temperature: float = Field(default=1.0, ge=1, le=100)
    by_language: bool = False
    mixed: bool = False
    lines: bool = False
    prompts: bool = False
    positive_from: float = 0.5
    blank_negatives: Literal["error", "drop"] = "error"
    cache: str | None = None

    def batches(self, longest: int) -> BatchTable:
        """The batch sizes for texts of at most `longest` tokens."""
        given = [name for name in ("batch_size", "batch_tokens", "table") if getattr(self, name) is not None]
        if len(given) > 1:
            raise InputError(f"data: got {' and '.join(given)}; expected one of them")
        if isinstance(self.table, str):
            return TABLES[self.table].up_to(longest)
        if self.table is not None:
            rows = sorted(self.table.items())
            return BatchTable(tuple(bound for bound, _ in rows), tuple(size for _, size in rows))
        bounds = (*(bound for bound in self.bounds if bound < longest), longest)
        if self.batch_tokens is not None:
            return BatchTable.of_budget(self.batch_tokens, bounds, self.group)
        return BatchTable(bounds, (self.batch_size or 16,) * len(bounds))


_Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """How weights move.

    Attributes:
        lr: Largest learning rate.
        head_lr: That of the lexical and multi-vector heads; None: the same.
        weight_decay: Of matrices; biases and normalizations have none.
        betas: AdamW's.
        eps: AdamW's.
        warmup: Steps of rising learning rate; a fraction up to 1.0: a share of all steps.
        schedule: What follows: `linear` or `cosine` to `floor`, `constant`, or `wsd`: constant, then linear over
            the last fifth.
        floor: Share of `lr` at the end.
        clip: Largest norm of the gradient; None: any.
        ema: Decay of an exponential moving average of the weights, which is then what is evaluated and exported.
    """

    lr: float = Field(default=1e-5, gt=0, le=100)
    head_lr: float | None = Field(default=None, gt=0, le=100)
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    betas: tuple[_Beta, _Beta] = (0.9, 0.999)
    eps: float = Field(default=1e-8, ge=1e-16, le=1)
    warmup: Annotated[Share, Field(ge=0)] = 0.1
    schedule: Literal["linear", "cosine", "constant", "wsd"] = "linear"
    floor: float = Field(default=0.0, ge=0, le=1)
    clip: float | None = Field(default=1.0, gt=0)
    ema: float | None = Field(default=None, gt=0, lt=1)


class ComputeSettings(Settings):
    """How it is computed; none of it changes what is computed, but for rounding.

    Attributes:
        device: cpu, cuda, cuda:N, mps; None: a GPU if there is one.
        dtype: Arithmetic of the backbone; the weights and the losses are float32 in any case. auto: bfloat16
            where the device computes in it, otherwise float32.
        sub_batch_tokens: Encode so many tokens at a time (GradCache); None: the whole batch at once.
        checkpoint_layers: Compute each layer again in the backward pass instead of keeping its activations.
        compile: Use torch.compile, on a GPU: the layers, once for all lengths. A minute at the start.
        parallel: With many processes, `ddp`: each holds all weights; `fsdp`: they share the optimizer's state and
            the gradients.
        prefetch: Batches that are made ahead.
    """

    device: str | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    sub_batch_tokens: int | None = Field(default=None, ge=1)
    checkpoint_layers: bool = False
    compile: bool = False
    parallel: Literal["ddp", "fsdp"] = "ddp"
    prefetch: int = Field(default=2, ge=0)


class EvaluationSettings(Settings):
    """Evaluation during training: nDCG of each head on questions that were held out.

    Attributes:
        data: BEIR folder, or a file of training examples that are not trained on: their passages together are then
            what is searched. None: no evaluation.
        split: The judgements of a BEIR folder.
        every: Steps between evaluations; a fraction up to 1.0: a share of all steps. It also runs at the beginning and
            the end.
        metric: What decides which step is the best.
        keep_heads: A step at which a head ranks the queries clearly worse than before training (one-sided paired
            t-test, p < 0.05) is never the best.
        k: Depth of nDCG@k.
        patience: Stop after so many evaluations without a new best; None: never.
    """

    data: str | None = None
    split: str = "dev"
    every: Annotated[Share, Field(gt=0)] = 0.25
    metric: Literal["dense", "lexical", "multi", "integrated"] = "integrated"
    keep_heads: bool = True
    k: int = Field(default=10, ge=1)
    patience: int | None = Field(default=None, ge=1)


class SavingSettings(Settings):
    """Checkpoints.

    Attributes:
        every: Steps between checkpoints; None: only at the end and when asked to stop.
        keep: How many of the last are kept.
    """

    every: int | None = Field(default=None, ge=1)
    keep: int = Field(default=2, ge=1)


class LoraSettings(Settings):
    """Train small additions to the backbone's matrices instead of the matrices (arXiv 2106.09685; needs peft).

    Attributes:
        rank: Of the additions.
        alpha: Their scale is alpha / rank.
        dropout: On their input.
        targets: Names of the linear layers; None: all of the backbone.
    """

    rank: int = Field(default=16, ge=1, le=4096)
    alpha: float = Field(default=32.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] | None = None


Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]
Frozen = Literal["backbone", "words", "positions", "lexical", "multi"]


class Recipe(Settings):
    """A training run.

    Attributes:
        model: Where it starts: a bundled name, a folder, or a Hub name.
        new_heads: The model is a plain encoder; give it new, random heads.
        settings: Fields of `M3Config` to change, such as max_length.
        extend_positions: Give the backbone room for so many tokens before training.
        freeze: Parts that stay as they are: the whole backbone, its word vectors, its positions, a head.
        epochs: How often the data is seen; may be a fraction.
        steps: Instead: number of steps.
        seed: Of everything that is drawn.
        log_every: Steps between lines of the log; the first step has one of its own.
        report_to: Where its figures go too: tensorboard, wandb, mlflow, trackio.
    """

    model: str = "small"
    new_heads: bool = False
    settings: dict[str, Any] = Field(default_factory=dict)
    extend_positions: int | None = Field(default=None, ge=1)
    freeze: tuple[Frozen, ...] = ()
    data: DataSettings = DataSettings()
    objective: Annotated[Objective, BeforeValidator(_objective)] = Objective()
    masking: Annotated[Masking, BeforeValidator(lambda given: _known(Masking, Masking(), given))] = Masking()
    optimizer: OptimizerSettings = OptimizerSettings()
    compute: ComputeSettings = ComputeSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    saving: SavingSettings = SavingSettings()
    lora: LoraSettings | None = None
    epochs: float = Field(default=1.0, gt=0, le=1e6)
    steps: int | None = Field(default=None, ge=1)
    seed: int = Field(default=0, ge=0)
    log_every: int = Field(default=10, ge=1)
    report_to: tuple[Tracker, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _with_new_names(cls, values: Any) -> Any:
        return normalize(cast("Mapping[str, Any]", values)) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        metric, heads = self.evaluation.metric, self.objective.heads
        if metric != INTEGRATED and metric not in heads:
            raise ValueError(
                f"evaluation.metric: got {metric!r}; expected one of the trained heads {', '.join(heads)}"
            )
        for source in self.data.train:
            for name in ("heads", "bidirectional"):
                if self.data.mixed and getattr(source, name) is not None:
                    raise ValueError(
                        f"data.train: {name} of a source needs batches of one source; expected data.mixed false"
                    )
            if source.bidirectional and not self.objective.in_batch:
                raise ValueError(
                    f"data.train: {source.path}: bidirectional needs in_batch; expected objective.in_batch true"
                )
            if unknown := sorted(set(source.heads or ()) - set(heads)):
                raise ValueError(
                    f"data.train: {source.path}: heads {unknown} are not trained; expected some of {list(heads)}"
                )
        return self


def normalize(values: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe's keys and values in today's spelling; those of the release before are accepted.

    The short form ``objective: NAME`` becomes a mapping, so that parts of it can be laid over.

    Raises:
        InputError: For a setting that was removed, with what to use instead.
    """
    result = dict(values)
    if (old := result.pop("optimisation", None)) is not None:
        result["optimizer"] = overlay(old, result.get("optimizer") or {}) if isinstance(old, Mapping) else old
    if result.pop("tensorboard", False):
        result.setdefault("report_to", ["tensorboard"])
    objective = result.get("objective")
    if isinstance(objective, str):
        result["objective"] = {"name": objective}
    elif isinstance(objective, Mapping):
        changed = dict(cast("Mapping[str, Any]", objective))
        if "distil_from" in changed:
            changed["distill_from"] = changed.pop("distil_from")
        if changed.get("reranker") == "published":
            changed["reranker"] = "ranked"
        result["objective"] = changed
    if isinstance(saving := result.get("saving"), Mapping):
        changed = dict(cast("Mapping[str, Any]", saving))
        for key, neutral in (("average", 1), ("merge_start", 0)):
            if changed.pop(key, neutral) != neutral:
                raise InputError(f"saving.{key}: was removed; merge models with: triptych merge")
        result["saving"] = changed
    if (
        isinstance(data := result.get("data"), Mapping)
        and cast("Mapping[str, Any]", data).get("table") == "probe"
    ):
        raise InputError("data.table: probe: was removed; give batch_size, batch_tokens or a table")
    return result


_Value = TypeVar("_Value")


def dump(recipe: Recipe) -> str:
    """A recipe with all its values as YAML; `read` gives it back."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def read(path: Path | None, changes: Sequence[str] = (), base: Mapping[str, Any] | None = None) -> Recipe:
    """Reads a recipe.

    Args:
        path: YAML file, or the name of a recipe of the package; None: none.
        changes: ``key=value`` with dots between the parts of the key; the value is YAML.
        base: Values that count less than the file's.

    Raises:
        DataError: If the file cannot be read as YAML (with the line).
        InputError: For an unknown key or a value that does not fit.
    """
    values = settings_of(path, changes, base)
    where = (
        " and ".join([*([str(path)] if path is not None else []), *(["--set"] if changes else [])])
        or "recipe"
    )
    return validate(Recipe, values, where)


def settings_of(
    path: Path | None, changes: Sequence[str] = (), base: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The values of a file and of changes to it, not yet checked; arguments and errors as for `read`."""
    values = overlay(normalize(base or {}), normalize(read_mapping(path)) if path is not None else {})
    for change in changes:
        values = overlay(values, normalize(_change(change)))
    return values


def validate(kind: type[_Value], values: Mapping[str, Any], where: str) -> _Value:
    """Builds a settings class; all that is wrong is said at once.

    Raises:
        InputError: See above.
    """
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        problems = [_problem(dict(each), kind) for each in error.errors()]
        raise InputError(f"{where}: {'; '.join(problems)}") from None


def find_recipe(path: Path) -> Path:
    """A recipe's file: itself, or the one of this name that comes with the package.

    Raises:
        InputError: If a bare word names neither; the names of the package's recipes are listed.
    """
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path
    bundled = RECIPES / f"{path}.yaml"
    if not bundled.is_file():
        names = sorted(each.stem for each in RECIPES.glob("*.yaml"))
        raise InputError(
            f"recipe: got {str(path)!r}, which is no file; {hint(str(path), names)}; the package has {', '.join(names)}"
        )
    return bundled


def read_mapping(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file, or of a recipe of the package by its name.

    ``$TRIPTYCH`` in a recipe of the package is the package's folder.

    Raises:
        DataError: If it cannot be read as that (with the line).
        InputError: If it is a word that names no recipe.
    """
    path = find_recipe(path)
    try:
        text = path.read_text(encoding="utf-8")
        if path.parent == RECIPES:
            text = text.replace("$TRIPTYCH", RECIPES.parent.as_posix())
        read_values: Any = yaml.safe_load(text)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", path) from error
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8: {error}", path) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = None if mark is None else int(mark.line) + 1
        raise DataError(f"broken YAML: {getattr(error, 'problem', error)}", path, line) from None
    if read_values is None:
        return {}
    if not isinstance(read_values, dict):
        raise DataError(f"got {type(read_values).__name__}; expected keys and values", path)
    return cast("dict[str, Any]", read_values)


def _change(text: str) -> dict[str, Any]:
    key, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"\w+(\.\w+)*", key):
        raise InputError(f"--set: got {text!r}; expected key=value, such as optimizer.lr=1e-5")
    try:
        nested: Any = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"--set {key}: got {value!r}, which is not YAML: {error}") from None
    for part in reversed(key.split(".")):
        nested = {part: nested}
    return cast("dict[str, Any]", nested)


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of both; mappings are merged, anything else of `above` replaces that of `below`."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            value = overlay(cast("Mapping[str, Any]", old), cast("Mapping[str, Any]", value))
        result[key] = value
    return result


def _problem(error: Mapping[str, Any], kind: Any) -> str:
    place = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        parent = _walk(kind, place[:-1])
        return f"unknown key {'.'.join(place)!r}; {hint(place[-1], list(parent))}"
    message = str(error["msg"]).removeprefix("Value error, ")
    text = f"{'.'.join(place) or 'recipe'}: {message[:1].lower()}{message[1:]}"
    return text if error["type"] == "value_error" else f"{text}, got {error['input']!r:.80}"


def _walk(kind: Any, path: Sequence[str]) -> Mapping[str, Any]:
    """The fields of the settings class that a path of keys leads to."""
    names: Mapping[str, Any] = kind.model_fields
    for part in path:
        below = _settings_in(names[part].annotation) if part in names else None
        names = names if below is None else below.model_fields
    return names


def _settings_in(annotation: Any) -> type[Settings] | None:
    if isinstance(annotation, type) and issubclass(annotation, Settings):
        return annotation
    inner = [_settings_in(each) for each in getattr(annotation, "__args__", ())]
    return next((each for each in inner if each is not None), None)
