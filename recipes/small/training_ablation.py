"""Compares training runs that differ in one thing: tables and a picture, as `triptych ablate` makes them.

    python recipes/small/training_ablation.py RUNS --base from-blend --into benchmarks/results/ablation.json \
        --page docs/history/training-ablation.md
    python recipes/small/training_ablation.py benchmarks/results/ablation.json --page docs/history/training-ablation.md

Takes each run's last evaluation on the development pool (a query's set is what stands before the first "/" of its id)
of all runs in the folder RUNS that have as many steps as the base. ``NAME-seedN`` is NAME with another seed. Each run
is compared with the base, with the variance over seeds and queries and Holm's correction for all comparisons of a
table. The second form makes the page again from a file of the first, also from one of an older version, whose p-values
are over queries alone: the variance over queries follows from them.
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
from pydantic import TypeAdapter
from scipy import special

from triptych.eval.ablate_plan import BASE
from triptych.eval.ablate_tables import (
    SCHEMA,
    Study,
    VariantCell,
    VariantTable,
    correct,
    draw,
    markdown,
    seeds_and_queries,
    welch,
)
from triptych.io import write_atomically, write_json

HEADS = ("dense", "lexical", "multi", "integrated")
METRIC = "nDCG@10"
NOTE = """
Questions on the same passage count as independent here: which those are was not kept with the runs. A star is therefore
still a little too easy to get.
"""
Evaluated = Mapping[str, Any]


def main() -> None:
    """Writes the tables as JSON, the page and its picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("runs", type=Path)
    parser.add_argument("--base")
    parser.add_argument("--into", type=Path)
    parser.add_argument("--page", type=Path, required=True)
    arguments = parser.parse_args()
    if arguments.runs.is_file():
        study = TypeAdapter(Study).validate_json(arguments.runs.read_bytes())
        for one in study.tables:
            with_seeds(one)
    else:
        runs = evaluated(arguments.runs, arguments.base)
        queries = runs[arguments.base][0]["queries"]
        tables = [table(runs, arguments.base, name, rows) for name, rows in sets_of(queries).items()]
        study = Study(SCHEMA, sorted(runs[arguments.base]), tables, {}, {}, "t")
        write_json(arguments.into, study.to_json())
    picture = arguments.page.with_suffix(".svg")
    draw(study.tables, picture)
    write_atomically(arguments.page, (markdown(study, picture.name) + NOTE).encode())


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


def table(
    runs: Mapping[str, Mapping[int, Evaluated]], base: str, name: str, rows: Sequence[int]
) -> VariantTable:
    """One development set: every run against the base."""
    names = {run: BASE if run == base else run for run in runs}
    cells: dict[str, dict[str, VariantCell]] = {own: {} for own in names.values()}
    queries = [runs[base][0]["queries"][row] for row in rows]
    p_values: dict[tuple[str, str], float | None] = {}
    for head in HEADS:
        values = {
            names[run]: np.stack([np.array(seeds[seed][head])[list(rows)] for seed in sorted(seeds)])
            for run, seeds in runs.items()
            if all(head in one for one in seeds.values())
        }
        for own, each in values.items():
            cells[own][head] = VariantCell(float(each.mean()), each.mean(1).tolist())
        if BASE in values:
            found = seeds_and_queries(values, BASE, queries)
            p_values |= {(own, head): p for own, p in found.items()}
    correct(cells, p_values)
    return VariantTable(name, METRIC, len(rows), list(HEADS), cells)


def with_seeds(one: VariantTable) -> None:
    """Replaces p-values over queries alone by those with the variance over seeds."""
    p_values: dict[tuple[str, str], float | None] = {}
    for head in one.modes:
        column = {run: cells[head] for run, cells in one.rows.items() if head in cells}
        freedom = sum(len(cell.seeds) - 1 for cell in column.values())
        spread = sum(float(np.var(cell.seeds)) * len(cell.seeds) for cell in column.values()) / freedom
        for run, cell in column.items():
            if cell.p is None or cell.difference is None:
                continue
            t = -float(special.stdtrit(one.queries - 1, max(cell.p, 1e-300) / 2))
            over_queries = (cell.difference / t) ** 2 if t else 0.0
            over_seeds = spread * (1 / len(cell.seeds) + 1 / len(column[BASE].seeds))
            parts = [(over_queries, one.queries - 1), (over_seeds, freedom)]
            p_values[run, head] = welch(cell.difference, parts) if t else 1.0
    correct(one.rows, p_values)


if __name__ == "__main__":
    main()
