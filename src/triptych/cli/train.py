"""`triptych train` and `triptych pretrain`.

`triptych merge`.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli import options as o

if TYPE_CHECKING:
    from triptych.train.run import Outcome, RunCallbacks, Stage
    from triptych.train.settings import EvaluationSettings

RecipeArgument = Annotated[
    Path | None, typer.Argument(metavar="[RECIPE]", help="A YAML file of settings; see the folder recipes.")
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data", "-d", metavar="PATH", help="Training data: file or folder; may be given several times."
    ),
]
StartOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        help="Where to start: 'small' (bundled, the default), a folder, or a Hub name.",
    ),
]
OutputOption = Annotated[
    Path, typer.Option("--output", "-o", help="Folder of the run: log, checkpoints, models.")
]
EvalOption = Annotated[
    str | None,
    typer.Option("--eval", metavar="FOLDER", help="A BEIR folder on which to evaluate during training."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="A setting, such as optimizer.lr=1e-5; repeatable.",
    ),
]
ResumeOption = Annotated[
    bool,
    typer.Option("--resume", help="Go on from the last checkpoint in the output folder; without one, begin."),
]

QUICK: Mapping[str, Any] = {
    "freeze": ["words"],
    "data": {"group": 4, "batch_size": 16},
    "objective": {"temperature": 0.05, "loss_weights": [1, 1, 1]},
    "optimizer": {"lr": 2e-5},
}
"""What `triptych train` changes of the defaults if it gets no recipe: sizes for a laptop, and losses for a model whose
heads are trained already. The paper's temperature and its small weight of the lexical loss are for new heads and much
data: on a few hundred pairs they thin the lexical weights out and lower that head."""


def train(
    recipe: RecipeArgument = None,
    data: DataOption = None,
    model: StartOption = None,
    output: OutputOption = Path("run"),
    evaluation: EvalOption = None,
    settings: SetOption = None,
    resume: ResumeOption = False,
    as_json: o.JsonOption = False,
) -> None:
    """Train a model on queries with relevant and irrelevant passages.

    All three representations are trained together, with the integrated score as their teacher. Needs no recipe. On
    several GPUs: torchrun --nproc-per-node 8 -m triptych train …

    Example: triptych train --data pairs.jsonl --model small -o my-model
    """
    shortcuts = {"data": data, "model": model, "evaluation": evaluation}
    _run("train", recipe, output, shortcuts, settings or [], resume, as_json)


def pretrain(
    recipe: RecipeArgument = None,
    data: DataOption = None,
    model: StartOption = None,
    output: OutputOption = Path("run"),
    evaluation: EvalOption = None,
    settings: SetOption = None,
    resume: ResumeOption = False,
    as_json: o.JsonOption = False,
) -> None:
    """Pre-train an encoder on raw texts (RetroMAE).

    Data: JSON Lines with a field text, or .txt files. The result is a model like any other; train it on pairs next.

    Example: triptych pretrain --data texts.jsonl --model small -o my-encoder
    """
    shortcuts = {"data": data, "model": model, "evaluation": evaluation}
    _run("pretrain", recipe, output, shortcuts, settings or [], resume, as_json)


def _run(
    stage: Stage,
    path: Path | None,
    output: Path,
    shortcuts: Mapping[str, Any],
    settings: list[str],
    resume: bool,
    as_json: bool,
) -> None:
    from triptych.train.run import run
    from triptych.train.settings import read

    if path is None and resume and (output / "recipe.yaml").is_file():
        path = output / "recipe.yaml"
    values = read(path, _changes(shortcuts) + settings, QUICK if path is None and stage == "train" else None)
    with stop_on_signals() as stop, _callbacks(stop, as_json) as callbacks:
        outcome = run(stage, values, output, resume=resume, callbacks=callbacks)
    if outcome.primary:
        _show(outcome, output, values.evaluation, as_json)
    if stop and outcome.model is None:
        raise typer.Exit(128 + stop[0])


def _changes(shortcuts: Mapping[str, Any]) -> list[str]:
    """The options as settings."""
    import json

    found: list[str] = []
    if shortcuts["data"]:
        found.append("data.train=" + json.dumps(list(shortcuts["data"])))
    if shortcuts["model"] is not None:
        found.append("model=" + json.dumps(shortcuts["model"]))
    if shortcuts["evaluation"] is not None:
        found.append("evaluation.data=" + json.dumps(shortcuts["evaluation"]))
    return found


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


@contextmanager
def _callbacks(stop: list[int], as_json: bool) -> Generator[RunCallbacks]:
    """Progress on standard error; the log's lines there too, or with --json on standard output."""
    from triptych.cli.show import emit, progress, stderr
    from triptych.train.run import TRAINING, RunCallbacks

    console = stderr()
    if int(os.environ.get("RANK", "0")):  # of the processes of torchrun the first one alone prints
        yield RunCallbacks(should_stop=lambda: bool(stop))
        return
    with progress("training", None, "steps") as advance:
        seen = 0

        def show(stage: str, done: int, _total: int | None) -> None:
            nonlocal seen
            if stage == TRAINING:
                advance(done - seen)
                seen = done

        def on_log(record: dict[str, Any]) -> None:
            if as_json:
                emit(record)
            else:
                console.print(_line(record), soft_wrap=True)

        yield RunCallbacks(progress=show, on_log=on_log, should_stop=lambda: bool(stop))


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


def _show(outcome: Outcome, output: Path, evaluation: EvaluationSettings, as_json: bool) -> None:
    from triptych.cli.show import emit, stderr, stdout

    left = sum(outcome.left_over.values())
    model = None if outcome.model is None else str(outcome.model)
    if as_json:
        lowered = {str(step): list(heads) for step, heads in outcome.lowered.items()}
        result = {"model": model, "steps": outcome.steps, "best_step": outcome.best_step, "left_over": left}
        emit(result | {"lowered": lowered})
        return
    if outcome.evaluations:
        stdout().print(_table(outcome, evaluation))
    for sentence in _warnings(outcome, evaluation):
        stderr().print(sentence, soft_wrap=True)
    if left:
        stderr().print(f"{left} rows per epoch could not be divided by the number of processes")
    if model is None:
        stderr().print(
            f"Stopped after step {outcome.steps} of {outcome.total}; go on with: --resume -o {output}"
        )
    else:
        stdout().print(f"Load it with: Encoder.from_pretrained({model!r})", soft_wrap=True)


def _warnings(outcome: Outcome, evaluation: EvaluationSettings) -> Generator[str]:
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


def _table(outcome: Outcome, evaluation: EvaluationSettings) -> Any:
    from rich.table import Table

    first, best = outcome.evaluations[min(outcome.evaluations)], outcome.evaluations[outcome.best_step]
    title = f"nDCG@{evaluation.k} on {evaluation.data} ({evaluation.split})"
    caption = f"Step {outcome.best_step} was chosen on these queries: the gain on others may be smaller."
    table = Table(title=title, caption=caption)
    for name in ("", "before", "after", "change"):
        table.add_column(name, justify="left" if not name else "right")
    for name, after in best.items():
        table.add_row(name, f"{first[name]:.4f}", f"{after:.4f}", f"{after - first[name]:+.4f}")
    return table


class Layouts(StrEnum):
    """Layouts of a checkpoint folder."""

    triptych = "triptych"
    published = "published"
    sentence_transformers = "sentence-transformers"


def merge(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL...", help="Two or more: 'small', folders of any layout, Hub names."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder of the merged model.")],
    weights: Annotated[
        list[float] | None,
        typer.Option("--weight", "-w", help="Of each model, in their order; by default all are equal."),
    ] = None,
    layout: Annotated[
        Layouts, typer.Option("--layout", help="Layout of the merged model.")
    ] = Layouts.triptych,
    as_json: o.JsonOption = False,
) -> None:
    """Merge models of one architecture into their weighted mean.

    Fine-tuned models that started from the same weights can be averaged; mixing the starting model in brings back what
    fine-tuning made it forget.

    Example: triptych merge my-model/best small -w 0.7 -w 0.3 -o merged
    """
    from triptych.errors import InputError
    from triptych.model import checkpoint as layouts
    from triptych.model import hub
    from triptych.train.start import merge as merged

    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output: {output} is there and not an empty folder; expected a new name")
    checkpoint = merged(models, weights)
    layouts.save(checkpoint, output, layout.value, start=hub.resolve(models[0]))
    if as_json:
        from triptych.cli.show import emit

        emit({"model": str(output), "fingerprint": checkpoint.fingerprint})
        return
    from triptych.cli.show import stdout

    stdout().print(f"Load it with: Encoder.from_pretrained({str(output)!r})", soft_wrap=True)
