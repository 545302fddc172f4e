"""Compares training runs that differ in one thing: tables and a picture, as `triptych ablate` makes them.

    python scripts/training_ablation.py RUNS --base from-blend --into benchmarks/results/ablation.json \
        --page docs/history/training-ablation.md

Takes each run's last evaluation on the development pool (a query's set is what stands before the first "/" of its id)
of all runs in the folder RUNS that have as many steps as the base. ``NAME-seedN`` is NAME with another seed: each
query's figure is averaged over the seeds that both a run and the base have, and tested against the base, paired over
queries, with Holm's correction for all comparisons of a table.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from triptych.eval.ablate_plan import BASE
from triptych.eval.ablate_tables import SCHEMA, Cell, Study, Table, draw, markdown
from triptych.eval.compare import holm, p_value
from triptych.io import write_atomically, write_json

HEADS = ("dense", "lexical", "multi", "integrated")
METRIC = "nDCG@10"
Values = NDArray[np.float64]
Evaluated = Mapping[str, Any]


def main() -> None:
    """Writes the tables as JSON, the page and its picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--base", required=True)
    parser.add_argument("--into", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    arguments = parser.parse_args()
    runs = evaluated(arguments.runs, arguments.base)
    queries = runs[arguments.base][0]["queries"]
    tables = [table(runs, arguments.base, name, rows) for name, rows in sets_of(queries).items()]
    study = Study(SCHEMA, sorted(runs[arguments.base]), tables, {}, {}, "t")
    write_json(arguments.into, study.to_json())
    picture = arguments.page.with_suffix(".svg")
    draw(tables, picture)
    write_atomically(arguments.page, markdown(study, picture.name).encode())


def evaluated(folder: Path, base: str) -> dict[str, dict[int, Evaluated]]:
    """By name of the run and seed, the last evaluation of the runs that have as many steps as the base."""
    found: dict[str, dict[int, Evaluated]] = defaultdict(dict)
    recipes = {path.parent: _recipe(path) for path in sorted(folder.glob("*/recipe.yaml"))}
    steps = recipes[folder / base]["steps"]
    for run, recipe in recipes.items():
        files = list((run / "evaluations").glob("*.json"))
        last = max(files, key=lambda path: int(path.stem), default=None)
        if recipe["steps"] == steps and last is not None and int(last.stem) == steps:
            name = re.sub(r"-seed\d+$", "", run.name)
            found[name][recipe["seed"]] = json.loads(last.read_text(encoding="utf-8"))
    if len({tuple(one["queries"]) for seeds in found.values() for one in seeds.values()}) != 1:
        raise ValueError(f"{folder}: the runs were evaluated on different queries; expected the same")
    return {base: found.pop(base), **found}


def _recipe(path: Path) -> Mapping[str, Any]:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def sets_of(queries: Sequence[str]) -> dict[str, list[int]]:
    """The rows of each development set's queries, and of all."""
    rows: dict[str, list[int]] = {"all": list(range(len(queries)))}
    for row, query in enumerate(queries):
        rows.setdefault(query.split("/", 1)[0], []).append(row)
    return rows


def table(runs: Mapping[str, Mapping[int, Evaluated]], base: str, name: str, rows: Sequence[int]) -> Table:
    """One development set: every run against the base."""
    cells: dict[str, dict[str, Cell]] = {}
    tested: list[tuple[str, str, float, float]] = []
    for run, seeds in runs.items():
        shared = sorted(set(seeds) & set(runs[base]))
        cells[BASE if run == base else run] = own = {}
        for head in (head for head in HEADS if head in seeds[shared[0]]):
            values = [_values(seeds[seed], head, rows) for seed in shared]
            means = [float(each.mean()) for each in values]
            own[head] = Cell(float(np.mean(means)), means)
            if run != base:
                others = np.mean([_values(runs[base][seed], head, rows) for seed in shared], axis=0)
                mine = np.mean(values, axis=0)
                tested.append((run, head, float((mine - others).mean()), p_value(mine, others)))
    for (run, head, difference, p), corrected in zip(
        tested, holm([each[-1] for each in tested]), strict=True
    ):
        cell = cells[run][head]
        cells[run][head] = Cell(cell.mean, cell.seeds, difference, p, corrected)
    return Table(name, METRIC, len(rows), list(HEADS), cells)


def _values(evaluation: Evaluated, head: str, rows: Sequence[int]) -> Values:
    return np.array(evaluation[head])[list(rows)]


if __name__ == "__main__":
    main()
