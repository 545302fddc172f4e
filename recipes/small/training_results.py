"""Keeps what training runs left behind as one small file, and draws it.

    python recipes/small/training_results.py gather RUNS --into FILE
    python recipes/small/training_results.py draw FILE --into docs/history/experiments.svg --curves stage2 once final

`gather` takes of every run in a folder: its settings, its log, and the mean of each development set at every
evaluation (a query's set is what stands before the first "/" of its id). Runs that differ in one thing are compared by
recipes/small/training_ablation.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import yaml
from matplotlib.figure import Figure
from numpy.typing import NDArray

from training_ablation import HEADS, METRIC, sets_of
from triptych.eval.plots import COLORS
from triptych.io import replacing, write_json

LOGGED = ("step", "loss", "dense", "lexical", "multi", "lr", "tokens_per_second", "seconds")
Values = NDArray[np.float64]


def main() -> None:
    """Runs one of the two commands."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("command", choices=("gather", "draw"))
    parser.add_argument("source", type=Path)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument(
        "--curves", nargs="*", default=[], help="draw: runs that follow each other; all by default"
    )
    arguments = parser.parse_args()
    if arguments.command == "gather":
        gather(arguments.source, arguments.into)
    else:
        draw(json.loads(arguments.source.read_text(encoding="utf-8")), arguments.curves, arguments.into)


def gather(runs: Path, into: Path) -> None:
    """Writes the file."""
    folders = [path.parent for path in sorted(runs.glob("*/log.jsonl"))]
    write_json(
        into,
        {
            "metric": METRIC,
            "runs": {folder.name: _run(folder) for folder in folders},
            "mining": {
                path.parent.name + "/" + path.name.split(".")[0]: _counts(path) for path in _reports(runs)
            },
        },
    )


def _run(folder: Path) -> dict[str, Any]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    steps = sorted((folder / "evaluations").glob("*.json"), key=lambda path: int(path.stem))
    return {
        "model": recipe["model"],
        "settings": {key: recipe[key] for key in ("objective", "optimizer", "steps", "seed", "settings")},
        "group": recipe["data"]["group"],
        "log": [_rounded({k: line[k] for k in LOGGED if k in line}) for line in lines if "loss" in line],
        "sets": {path.stem: _means(_read(path)) for path in steps},
    }


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _means(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    sets = sets_of(evaluation["queries"])
    return {
        name: _rounded(
            {"queries": len(rows)} | {head: float(values[rows].mean()) for head, values in _heads(evaluation)}
        )
        for name, rows in sets.items()
    }


def _heads(evaluation: Mapping[str, Any]) -> list[tuple[str, Values]]:
    return [(head, np.array(evaluation[head])) for head in HEADS if head in evaluation]


def _reports(runs: Path) -> list[Path]:
    return sorted(runs.glob("*/*.report.json"))


def _counts(path: Path) -> dict[str, Any]:
    return {key: value for key, value in _read(path).items() if key != "samples"}


def _rounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: float(f"{v:.4g}") if isinstance(v, float) else v for k, v in values.items()}


def draw(results: Mapping[str, Any], curves: Sequence[str], into: Path) -> None:
    """Writes an SVG: the losses above, below each development set over the steps of runs that follow each other."""
    runs = {name: results["runs"][name] for name in curves or results["runs"]}
    sets = sorted({each for run in runs.values() for sets in run["sets"].values() for each in sets} - {"all"})
    with matplotlib.rc_context({"svg.hashsalt": "triptych", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure((11, 6.2), layout="constrained")
        grid: Any = figure.add_gridspec(2, len(sets))
        _losses(figure.add_subplot(grid[0, :]), runs)
        for column, name in enumerate(sets):
            _scores(figure.add_subplot(grid[1, column]), runs, name)
        figure.axes[1].set_ylabel("nDCG@10")
        figure.axes[-1].legend(frameon=False)
        with replacing(into) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _losses(axes: Any, runs: Mapping[str, Any]) -> None:
    for name, begin in _begins(axes, runs):
        axes.annotate(
            name, (begin, 1), xycoords=("data", "axes fraction"), fontsize=8, va="bottom", color="#666666"
        )
        log = runs[name]["log"]
        for head in HEADS[:3]:
            points = [(begin + line["step"], line[head]) for line in log if head in line]
            if points:
                axes.plot(*zip(*points, strict=True), ".-", ms=3, lw=0.8, color=COLORS[head])
    axes.set_yscale("symlog", linthresh=0.1)
    axes.set_ylabel("InfoNCE of a batch")
    axes.set_xlabel("step")


def _scores(axes: Any, runs: Mapping[str, Any], name: str) -> None:
    for run, begin in _begins(axes, runs):
        for head in HEADS:
            sets = runs[run]["sets"].items()
            points = [
                (begin + int(step), found[name][head]) for step, found in sets if head in found.get(name, {})
            ]
            label = head if run == list(runs)[-1] else None
            if points:
                colour = COLORS["all" if head == "integrated" else head]
                axes.plot(*zip(*points, strict=True), "o-", ms=3, lw=1.2, color=colour, label=label)
    axes.set_title(name)


def _begins(axes: Any, runs: Mapping[str, Any]) -> list[tuple[str, int]]:
    """Where each run begins on the axis, which gets a line there."""
    begins: list[tuple[str, int]] = []
    begin = 0
    for name, run in runs.items():
        axes.axvline(begin, color="#bbbbbb", lw=0.8, ls=":")
        begins.append((name, begin))
        begin += run["settings"]["steps"]
    return begins


if __name__ == "__main__":
    main()
