"""`triptych train`, `pretrain`, `merge`, `convert` and `ablate`."""

from __future__ import annotations

import json
import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from triptych.cli.command import command
from triptych.cli.terminal import emit, progress, say, stderr, stdout
from triptych.errors import InputError

if TYPE_CHECKING:
    from triptych.eval.ablate_plan import AblationPlan
    from triptych.model.checkpoint import Layout
    from triptych.train.plan import RunPlan
    from triptych.train.run import Outcome, Stage
    from triptych.train.settings import Recipe


@dataclass(frozen=True)
class Run:
    """A run of training.

    Attributes:
        recipe: A YAML file of settings, or a recipe of the package by its name, such as laptop-unified.
        named: The same as RECIPE.
        data: Training data: file or folder; may be given several times.
        model: Where to start: 'small' (bundled, the default), a folder, or a Hub name.
        output: Folder of the run: log, checkpoints, models.
        evaluation: Held-out questions on which to evaluate during training: a BEIR folder, or a file of examples.
        settings: A setting, such as optimizer.lr=1e-5; repeatable.
        resume: Go on from the last checkpoint in the output folder; without one, begin.
        trust_remote_code: Let Python files of the model's folder run; without this they never do.
    """

    recipe: Path | None = None
    named: Path | None = None
    data: list[str] = field(default_factory=list[str])
    model: str | None = None
    output: Path = Path("run")
    evaluation: str | None = None
    settings: list[str] = field(default_factory=list[str])
    resume: bool = False
    trust_remote_code: bool = False

    def changes(self) -> list[str]:
        """The options as settings."""
        values = {"data.train": self.data or None, "model": self.model, "evaluation.data": self.evaluation}
        given = [f"{name}={json.dumps(value)}" for name, value in values.items() if value is not None]
        return given + self.settings


RUN = {
    "recipe": "=[RECIPE]",
    "named": "--recipe RECIPE",
    "data": "-d PATH",
    "model": "-m",
    "output": "-o",
    "evaluation": "--eval PATH",
    "settings": "--set KEY=VALUE",
}


@command(RUN)
def train(run: Run, *, as_json: bool = False) -> None:
    """Train a model on queries with relevant and irrelevant passages.

    All three representations are trained together, with the integrated score as their teacher. Needs no recipe. On
    several GPUs: torchrun --nproc-per-node 8 -m triptych train …

    Example: triptych train --data pairs.jsonl --model small -o my-model
    """
    _train("train", run, as_json)


@command(RUN)
def pretrain(run: Run, *, as_json: bool = False) -> None:
    """Pre-train an encoder on raw texts (RetroMAE).

    Data: JSON Lines with a field text, or .txt files. The result is a model like any other; train it on pairs next.

    Example: triptych pretrain --data texts.jsonl --model small -o my-encoder
    """
    _train("pretrain", run, as_json)


def _train(stage: Stage, options: Run, as_json: bool) -> None:
    from triptych.train.run import RunCallbacks, run
    from triptych.train.settings import FINE_TUNE, read

    if options.recipe and options.named:
        raise InputError(f"--recipe: got {options.named} beside {options.recipe}; expected one recipe")
    path, output = options.named or options.recipe, options.output
    if path is None and options.resume and (output / "recipe.yaml").is_file():
        path = output / "recipe.yaml"
    values = read(path, options.changes(), FINE_TUNE if path is None and stage == "train" else None)
    console = stderr()

    def log(record: dict[str, Any]) -> None:
        if as_json:
            emit(record)
        else:
            console.print(_line(record), soft_wrap=True)

    def begin(plan: RunPlan) -> None:
        for line in str(plan).splitlines():
            say(line)

    with stop_on_signals() as stop, progress() as draw:
        callbacks = RunCallbacks(progress=draw, on_begin=begin, on_log=log, should_stop=lambda: bool(stop))
        trust = {"trust_remote_code": options.trust_remote_code}
        outcome = run(stage, values, output, resume=options.resume, callbacks=callbacks, **trust)
    if outcome.primary:
        _show(outcome, output, values, as_json)
    if stop and outcome.model is None:
        raise typer.Exit(128 + stop[0])


@contextmanager
def stop_on_signals() -> Generator[list[int]]:
    """SIGTERM and Ctrl-C end the run with a checkpoint; a second Ctrl-C ends it at once."""
    seen: list[int] = []

    def note(number: int, _frame: object) -> None:
        if seen and number == signal.SIGINT:
            raise KeyboardInterrupt
        seen.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _line(record: Mapping[str, Any]) -> str:
    """A line of the log for people."""
    if "evaluation" in record:
        scores = ", ".join(f"{name} {value:.4f}" for name, value in record["evaluation"].items())
        return f"step {record['step']}: {scores}"
    from triptych.train.objective import INTEGRATED
    from triptych.types import HEADS

    parts = [
        f"{name} {record[name]:.3f}" for name in (*HEADS, INTEGRATED, "encoder", "decoder") if name in record
    ]
    left = int(record["remaining"])
    return (
        f"step {record['step']}: loss {record['loss']:.4f} ({', '.join(parts)}) · {record['tokens_per_second']:.0f} "
        f"tokens/s · {left // 60}:{left % 60:02d} left"
    )


def _show(outcome: Outcome, output: Path, recipe: Recipe, as_json: bool) -> None:
    left = sum(outcome.left_over.values())
    model = None if outcome.model is None else str(outcome.model)
    if as_json:
        lowered = {str(step): list(heads) for step, heads in outcome.lowered.items()}
        result = {"model": model, "steps": outcome.steps, "best_step": outcome.best_step, "left_over": left}
        changes = {
            one.name: {"before": one.before, "after": one.after, "p": one.p} for one in outcome.changes
        }
        emit(result | {"lowered": lowered, "changes": changes})
        return
    if outcome.changes:
        stdout().print(_table(outcome, recipe))
    for sentence in _warnings(outcome):
        say(sentence)
    if left:
        say(f"{left} rows per epoch could not be divided by the number of processes")
    if model is None:
        say(f"stopped after step {outcome.steps} of {outcome.total}; go on with: --resume -o {output}")
    else:
        stdout().print(f"Load it with: Encoder.from_pretrained({model!r})", soft_wrap=True)


def _warnings(outcome: Outcome) -> Generator[str]:
    """What a user should know of the heads."""
    if not outcome.evaluations:
        yield "No held-out queries were given (--eval), so that it is not known whether each head got better."
        return
    first, last = outcome.evaluations[min(outcome.evaluations)], max(outcome.evaluations)
    for step in sorted({outcome.best_step, last} & outcome.lowered.keys()):
        changes = ", ".join(
            f"{head} {first[head]:.4f} → {outcome.evaluations[step][head]:.4f}"
            for head in outcome.lowered[step]
        )
        kept = "it was kept nevertheless (evaluation.keep_heads: false)"
        if step != outcome.best_step:
            what = (
                f"the model of step {outcome.best_step}"
                if outcome.best_step
                else "the model that training began with"
            )
            kept = f"kept instead: {what}"
        yield (
            f"After step {step} a head ranks the held-out queries worse than before training ({changes}); {kept}. A "
            "smaller optimizer.lr or more data may help."
        )


def _table(outcome: Outcome, recipe: Recipe) -> Any:
    from rich.table import Table

    from triptych.train.card import HEADS_OF_TABLE, explanation, title

    table = Table(title=title(recipe), caption=explanation(outcome.queries, outcome.best_step))
    for name in HEADS_OF_TABLE:
        table.add_column(name, justify="left" if not name else "right")
    for change in outcome.changes:
        table.add_row(*change.cells)
    return table


@command({"models": "MODEL...", "output": "-o", "weight": "-w"})
def merge(
    models: list[str],
    *,
    output: Path,
    weight: list[float] | None = None,
    layout: Layout = "triptych",
    trust_remote_code: bool = False,
    as_json: bool = False,
) -> None:
    """Merge models of one architecture into their weighted mean.

    Fine-tuned models that started from the same weights can be averaged; mixing the starting model in brings back what
    fine-tuning made it forget.

    Example: triptych merge my-model/best small -w 0.7 -w 0.3 -o merged

    Args:
        models: Two or more: 'small', folders of any layout, Hub names.
        output: Folder of the merged model.
        weight: Of each model, in their order; by default all are equal.
        layout: Layout of the merged model.
        trust_remote_code: Let Python files of the models' folders run; without this they never do.
    """
    from triptych.model import checkpoint as layouts
    from triptych.model import hub
    from triptych.train.start import merge as merge_models

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output: {output} is there and not an empty folder; expected a new name")
    checkpoint = merge_models(models, weight, trust_remote_code=trust_remote_code)
    layouts.save(checkpoint, output, layout, start=hub.resolve(models[0]))
    if as_json:
        emit({"model": str(output), "fingerprint": checkpoint.fingerprint})
    else:
        stdout().print(f"Load it with: Encoder.from_pretrained({str(output)!r})", soft_wrap=True)


@command({"model": "MODEL", "output": "-o"})
def convert(
    model: str,
    *,
    output: Path,
    layout: Literal["triptych", "published", "sentence-transformers", "onnx"] = "triptych",
    part: Literal["dense", "multi", "lexical"] = "dense",
    trust_remote_code: bool = False,
    as_json: bool = False,
) -> None:
    """Write a model in the layout of another program.

    Layouts: triptych (our own), published (as BGE-M3 is: FlagEmbedding, vLLM), sentence-transformers (one part: dense
    for SentenceTransformer, multi for MultiVectorEncoder, lexical for SparseEncoder), onnx (one graph with all heads).

    Example: triptych convert my-model/best --layout sentence-transformers --part multi -o my-late-interaction

    Args:
        model: 'small', a folder of any layout, or a Hub name.
        output: Folder of the converted model; of onnx: the file.
        layout: Layout that is written.
        part: Representation that a sentence-transformers folder gives.
        trust_remote_code: Let Python files of the model's folder run; without this they never do.
    """
    from triptych.encode.encoder import Encoder

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output: {output} is there and not an empty folder; expected a new name")
    encoder = Encoder.from_pretrained(model, device="cpu", dtype=None, trust_remote_code=trust_remote_code)
    if layout == "onnx":
        encoder.export_onnx(output)
    else:
        encoder.save_pretrained(output, layout=layout, part=part)
    if as_json:
        emit({"model": str(output), "layout": layout, "fingerprint": encoder.fingerprint})
    else:
        stdout().print(f"{output}: {model} in the layout {layout}", soft_wrap=True)


@command({"recipe": "RECIPE", "output": "-o FOLDER", "settings": "--set KEY=VALUE", "plan_only": "--plan"})
def ablate(
    recipe: Path,
    *,
    output: Path = Path("ablation"),
    settings: list[str] | None = None,
    plan_only: bool = False,
    trust_remote_code: bool = False,
    as_json: bool = False,
) -> None:
    """Train and evaluate variants of a pipeline, and compare them with it.

    Stages that variants share are trained once. The same command again completes an interrupted study. The folder
    gets ablation.json, ablation.md and ablation.svg.

    Example: triptych ablate ablate-laptop -o runs/ablation

    Args:
        recipe: A YAML file, or the name of a plan of the package: ablate-laptop.
        output: Trained stages, evaluations, and the result.
        settings: A setting, such as seeds=[0,1,2]; repeatable.
        plan_only: Show what would be trained, what is shared, what is done, and end.
        trust_remote_code: Let Python files of a model's folder run; without this they never do.
    """
    from triptych.cli.tables import show
    from triptych.eval.ablate import TABLES, Watcher
    from triptych.eval.ablate import ablate as run
    from triptych.eval.ablate_plan import read_plan
    from triptych.eval.ablate_tables import explanation, table_of

    plan = read_plan(recipe, settings or [])
    if plan_only:
        _show_plan(plan, output)
        return
    with stop_on_signals() as stop, progress() as draw:
        watcher = Watcher(say, draw, lambda: bool(stop))
        study = run(plan, output, watcher, trust_remote_code=trust_remote_code)
    if study is None:
        say(f"stopped; the same command goes on in {output}")
        raise typer.Exit(128 + stop[0])
    if as_json:
        emit(study.to_json())
        return
    for table in study.tables:
        show(table_of(table, study))
    stdout().print(f"{explanation(study)} {output / TABLES}", soft_wrap=True)


def _show_plan(plan: AblationPlan, output: Path) -> None:
    from rich.table import Table

    from triptych.eval.ablate import Digests, finished, folder_of
    from triptych.eval.ablate_plan import trials_of

    digests, users = Digests(), dict[str, list[str]]()
    for trial in trials_of(plan):
        for step, digest in zip(trial.steps, digests.steps(trial), strict=True):
            users.setdefault(folder_of(step, digest), []).append(f"{trial.variant} ({trial.seed})")
    table = Table("stage", "done", "variants (seeds)")
    for name, names in users.items():
        table.add_row(name, "yes" if finished(output / "stages" / name) else "no", ", ".join(names))
    stdout().print(table)
