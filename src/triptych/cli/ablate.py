"""`triptych ablate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from triptych.cli import options as o

if TYPE_CHECKING:
    from triptych.eval.ablate_plan import AblationPlan
    from triptych.eval.ablate_tables import Study


def ablate(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE", help="A YAML file; see recipes/ablate-laptop.yaml.")
    ],
    output: Annotated[
        Path,
        typer.Option("--output", "-o", metavar="FOLDER", help="Trained stages, evaluations, and the result."),
    ] = Path("ablation"),
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting, such as seeds=[0,1,2]; repeatable."),
    ] = None,
    plan_only: Annotated[
        bool,
        typer.Option("--plan", help="Show what would be trained, what is shared, what is done, and end."),
    ] = False,
    as_json: o.JsonOption = False,
) -> None:
    """Train and evaluate variants of a pipeline, and compare them with it.

    Stages that variants share are trained once. The same command again completes an interrupted study. The folder
    gets ablation.json, ablation.md and ablation.svg.

    Example: triptych ablate recipes/ablate-laptop.yaml -o runs/ablation
    """
    from triptych.cli.eval import watching
    from triptych.cli.failures import say
    from triptych.cli.show import emit
    from triptych.cli.train import stop_on_signals
    from triptych.eval.ablate import Watcher
    from triptych.eval.ablate import ablate as run
    from triptych.eval.ablate_plan import read_plan

    plan = read_plan(recipe, settings or [])
    if plan_only:
        _show_plan(plan, output)
        return
    with stop_on_signals() as stop, watching() as progress:
        study = run(plan, output, Watcher(say, progress, lambda: bool(stop)))
    if study is None:
        say(f"stopped; the same command goes on in {output}")
        raise typer.Exit(128 + stop[0])
    if as_json:
        emit(study.to_json())
    else:
        _show(study, output)


def _show_plan(plan: AblationPlan, output: Path) -> None:
    from rich.table import Table

    from triptych.cli.show import stdout
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


def _show(study: Study, output: Path) -> None:
    from triptych.cli.eval_tables import show
    from triptych.cli.show import stdout
    from triptych.eval.ablate import TABLES
    from triptych.eval.ablate_tables import explanation, table_of

    for table in study.tables:
        show(table_of(table, study))
    stdout().print(f"{explanation(study)} {output / TABLES}", soft_wrap=True, markup=False)
