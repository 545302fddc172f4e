"""The study's result: for each data set a table of variants by modes, tested against the base.

The study as a picture: how far each variant is from the base, in every mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.errors import MissingExtra
from triptych.eval.ablate_plan import BASE
from triptych.eval.compare import Test, holm, p_value
from triptych.eval.plots import COLOURS
from triptych.eval.results import Evaluation
from triptych.io import replacing

SCHEMA = "triptych.ablate/1"
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Cell:
    """A variant in one mode.

    Attributes:
        mean: Over seeds, of the metric's mean over the data set's subsets.
        seeds: The same of each seed.
        difference: From the base; None for the base itself, or where the base lacks the mode.
        p: Two-sided, of a paired test over queries (each query's mean over seeds) against the base.
        p_holm: After Holm's correction for all comparisons of the table.
    """

    mean: float
    seeds: list[float]
    difference: float | None = None
    p: float | None = None
    p_holm: float | None = None

    @property
    def significant(self) -> bool:
        """Whether it differs from the base."""
        return self.p_holm is not None and self.p_holm < LEVEL

    @property
    def deviation(self) -> float:
        """Sample standard deviation over seeds; 0 with one seed."""
        return float(np.std(self.seeds, ddof=1)) if len(self.seeds) > 1 else 0.0


@dataclass(frozen=True, slots=True)
class Table:
    """One data set.

    Attributes:
        dataset: Name.
        metric: Name.
        queries: How many.
        modes: Columns.
        rows: Variant to mode to cell; a mode whose heads a variant does not train is missing.
    """

    dataset: str
    metric: str
    queries: int
    modes: list[str]
    rows: dict[str, dict[str, Cell]]


@dataclass(frozen=True, slots=True)
class Study:
    """All of it.

    Attributes:
        schema: `SCHEMA`.
        seeds: With which every variant was trained.
        tables: One for each data set.
        stages: Folder of each stage to the variants that use it.
        evaluations: Variant to the file of each seed's evaluation.
        test: Of significance.
    """

    schema: str
    seeds: list[int]
    tables: list[Table]
    stages: dict[str, list[str]]
    evaluations: dict[str, list[str]]
    test: Test

    def to_json(self) -> dict[str, Any]:
        """A JSON value."""
        return asdict(self)


def tables_of(results: Mapping[str, Sequence[Evaluation]], modes: Sequence[str], test: Test) -> list[Table]:
    """Tables of evaluations.

    Args:
        results: Variant to the evaluation of each seed; the base is among them. Each has one contender.
        modes: Columns.
        test: Of significance.
    """
    return [_table(results, dataset, modes, test) for dataset in results[BASE][0].datasets]


def markdown(study: Study, plot: str | None = None) -> str:
    """The tables as Markdown, values × 100; a star where a variant differs from the base."""
    parts = ["# Ablations\n"]
    for table in study.tables:
        parts.append(f"\n## {table.dataset}\n\n{table.metric} × 100, {table.queries} queries\n\n")
        parts.append("| | " + " | ".join(table.modes) + " |\n|---" + "|---:" * len(table.modes) + "|\n")
        for variant, cells in table.rows.items():
            shown = [cell_text(cells.get(mode), len(study.seeds)) for mode in table.modes]
            parts.append(f"| {variant} | {' | '.join(shown)} |\n")
    test = "Student's paired t-test" if study.test == "t" else "a paired randomisation test"
    parts.append(
        f"\n\\* differs from the base (p < {LEVEL}, {test} over queries, Holm's correction for all comparisons of a "
        f"table). Seeds: {', '.join(map(str, study.seeds))}"
        + ("; ± is the standard deviation over them.\n" if len(study.seeds) > 1 else ".\n")
    )
    if plot is not None:
        parts.append(f"\n![Difference of each variant from the base]({plot})\n")
    return "".join(parts)


def cell_text(cell: Cell | None, seeds: int) -> str:
    """A cell for people."""
    if cell is None:
        return "–"
    spread = f" ± {100 * cell.deviation:.1f}" if min(seeds, len(cell.seeds)) > 1 else ""
    return f"{100 * cell.mean:.1f}{spread}{'*' if cell.significant else ''}"


def _table(
    results: Mapping[str, Sequence[Evaluation]], dataset: str, modes: Sequence[str], test: Test
) -> Table:
    base = {mode: _per_query(results[BASE], dataset, mode) for mode in modes}
    first = results[BASE][0].of(dataset)
    metric = first[0].primary
    rows = {
        variant: {
            mode: cell for mode in modes if (cell := _cell(evaluations, dataset, mode, metric)) is not None
        }
        for variant, evaluations in results.items()
    }
    places = [
        (variant, mode)
        for variant, cells in rows.items()
        for mode in cells
        if variant != BASE and base[mode] is not None
    ]
    values = [_p(results[variant], base[mode], dataset, mode, test) for variant, mode in places]
    for (variant, mode), p, corrected in zip(places, values, holm(values), strict=True):
        cell = rows[variant][mode]
        difference = cell.mean - rows[BASE][mode].mean
        rows[variant][mode] = Cell(cell.mean, cell.seeds, difference, p, corrected)
    return Table(dataset, metric, sum(subset.queries for subset in first), list(modes), rows)


def _cell(evaluations: Sequence[Evaluation], dataset: str, mode: str, metric: str) -> Cell | None:
    names = [_system(evaluation, mode) for evaluation in evaluations]
    if any(name is None for name in names):
        return None
    means = [
        evaluation.averages[dataset][str(name)][metric]
        for evaluation, name in zip(evaluations, names, strict=True)
    ]
    return Cell(float(np.mean(means)), means)


def _p(
    evaluations: Sequence[Evaluation], base: NDArray[np.float64] | None, dataset: str, mode: str, test: Test
) -> float:
    own = _per_query(evaluations, dataset, mode)
    assert own is not None
    assert base is not None
    return p_value(own, base, test)


def _per_query(evaluations: Sequence[Evaluation], dataset: str, mode: str) -> NDArray[np.float64] | None:
    """Each query's mean over seeds, all subsets together; None if a seed lacks the mode."""
    seeds: list[NDArray[np.float64]] = []
    for evaluation in evaluations:
        name = _system(evaluation, mode)
        if name is None:
            return None
        parts = [np.asarray(subset.per_query[name], np.float64) for subset in evaluation.of(dataset)]
        seeds.append(np.concatenate(parts))
    return np.mean(seeds, axis=0)


def _system(evaluation: Evaluation, mode: str) -> str | None:
    return next((name for name, system in evaluation.systems.items() if system.mode == mode), None)


_STYLE: dict[str, Any] = {"svg.hashsalt": "triptych", "svg.fonttype": "none", "font.size": 9}


def draw(tables: Sequence[Table], path: Path) -> None:
    """Writes an SVG: a panel for each data set, a row for each variant, a point for each mode.

    Raises:
        MissingExtra: Without matplotlib.
        StorageError: If the file cannot be written.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtra("the plot of ablations", "eval") from error
    variants = [name for name in tables[0].rows if name != BASE]
    style: Any = _STYLE
    with matplotlib.rc_context(style):
        size = (2.2 + 3.6 * len(tables), 1.4 + 0.45 * max(1, len(variants)))
        figure = Figure(size, layout="constrained")
        panels: Any = figure.subplots(1, len(tables), sharey=True, squeeze=False)[0]
        for axes, table in zip(panels, tables, strict=True):
            _panel(axes, table, variants)
        panels[0].set_yticks(range(len(variants)), variants)
        panels[0].invert_yaxis()
        panels[-1].legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        with replacing(path) as temporary:
            figure.savefig(temporary, format="svg", metadata={"Date": None})


def _panel(axes: Any, table: Table, variants: Sequence[str]) -> None:
    axes.axvline(0, color="#888888", lw=1)
    for number, mode in enumerate(table.modes):
        shift = 0.5 * ((number + 0.5) / len(table.modes) - 0.5)
        cells = [(i, table.rows[name][mode]) for i, name in enumerate(variants) if mode in table.rows[name]]
        cells = [(i, cell) for i, cell in cells if cell.difference is not None]
        axes.errorbar(
            [100 * (cell.difference or 0) for _, cell in cells],
            [i + shift for i, _ in cells],
            xerr=[100 * cell.deviation for _, cell in cells],
            ls="",
            marker="o",
            ms=5,
            elinewidth=1,
            color=COLOURS.get(mode, "#4d4d4d"),
            label=mode,
        )
        for i, cell in cells:  # an open point: it may be chance
            if not cell.significant:
                at = (100 * (cell.difference or 0), i + shift)
                axes.plot(*at, marker="o", ms=2.5, color="white", zorder=5)
    axes.set_title(table.dataset, fontsize=10)
    axes.set_xlabel(f"difference from the base, {table.metric} × 100\n(open: not significant)")
    axes.grid(axis="x", color="#e6e6e6")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
