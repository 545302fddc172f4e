"""The result of an ablation study: a table of variants by modes for each data set, and its picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import special

from triptych.errors import require_extra
from triptych.eval.ablate_plan import BASE
from triptych.eval.plots import COLORS
from triptych.eval.results import Evaluation
from triptych.eval.significance import Test, clusters_in, randomisation
from triptych.eval.tables import Table, TableCell, TableRow
from triptych.eval.tables import markdown as to_markdown
from triptych.io import replacing
from triptych.scores.paired import LEVEL, Values, cluster_means, holm

SCHEMA = "triptych.ablate/1"


@dataclass(frozen=True, slots=True)
class VariantCell:
    """A variant in one mode.

    Attributes:
        mean: Over seeds, of the metric's mean over the data set's subsets.
        seeds: The same of each seed.
        difference: From the base; None for the base itself, or where the base lacks the mode.
        p: Two-sided, against the base, with queries and seeds as samples (`seeds_and_queries`); None if no variant
            has more than one seed: then nothing is known of the chance in training.
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
class VariantTable:
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
    rows: dict[str, dict[str, VariantCell]]


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
    tables: list[VariantTable]
    stages: dict[str, list[str]]
    evaluations: dict[str, list[str]]
    test: Test

    def to_json(self) -> dict[str, Any]:
        """A JSON value."""
        return asdict(self)


def tables_of(
    results: Mapping[str, Sequence[Evaluation]], modes: Sequence[str], test: Test
) -> list[VariantTable]:
    """Tables of evaluations.

    Args:
        results: Variant to the evaluation of each seed; the base is among them. Each has one contender.
        modes: Columns.
        test: Of significance.
    """
    return [_table(results, dataset, modes, test) for dataset in results[BASE][0].datasets]


def table_of(table: VariantTable, study: Study) -> Table:
    """A table for people: values × 100, a star where a variant differs from the base."""
    rows = [
        TableRow(variant, [_cell(cells.get(mode), len(study.seeds)) for mode in table.modes])
        for variant, cells in table.rows.items()
    ]
    title = f"{table.dataset}: {table.metric} × 100, {table.queries} queries"
    return Table(title, list(table.modes), rows)


def explanation(study: Study) -> str:
    """What the stars mean."""
    seeds = f"Seeds: {', '.join(map(str, study.seeds))}"
    if len(study.seeds) == 1:
        return (
            f"{seeds}. With one seed nothing is known of the chance in training, so no difference is marked."
        )
    return (
        f"* differs from the base (p < {LEVEL}, two-sided, with the variance over seeds and over independent clusters "
        f"of queries, Holm's correction for all comparisons of a table). {seeds}; ±: standard deviation over them."
    )


def markdown(study: Study, plot: str | None = None) -> str:
    """The tables as Markdown."""
    parts = ["# Ablations\n", *(to_markdown(table_of(table, study)) for table in study.tables)]
    parts.append(explanation(study).replace("*", "\\*") + "\n")
    if plot is not None:
        parts.append(f"![Difference of each variant from the base]({plot})\n")
    return "\n".join(parts)


def _cell(cell: VariantCell | None, seeds: int) -> TableCell:
    if cell is None:
        return TableCell("–")
    spread = f" ± {100 * cell.deviation:.1f}" if min(seeds, len(cell.seeds)) > 1 else ""
    return TableCell(f"{100 * cell.mean:.1f}{spread}", star=cell.significant)


def seeds_and_queries(
    runs: Mapping[str, Values], base: str, clusters: Sequence[str], test: Test = "t"
) -> dict[str, float | None]:
    """Tests each variant against the base, with queries and training runs as samples.

    **Math** The difference is the mean over clusters of queries of the mean over seeds. Its variance is the sum of
    ``s²_C / C``, of the clusters' differences, and of ``s²_S (1/S_v + 1/S_b)``, where s²_S is the variance of a
    run's mean over seeds, pooled over all variants; the degrees of freedom are Welch's and Satterthwaite's.

    Args:
        runs: Name to float64 ``[S, Q]``: each run's value of each query.
        base: The name with which the others are compared.
        clusters: Of the Q queries.
        test: "randomisation": p is at least that of the randomisation test over clusters.

    Returns:
        Name to two-sided p-value; None if no name has more than one seed.
    """
    means = {name: np.stack([cluster_means(run, clusters) for run in each]) for name, each in runs.items()}
    freedom = sum(len(each) - 1 for each in means.values())
    if not freedom:
        return {name: None for name in runs if name != base}
    spread = sum(float(each.mean(1).var() * len(each)) for each in means.values()) / freedom
    found: dict[str, float | None] = {}
    for name, each in means.items():
        if name == base:
            continue
        difference = each.mean(0) - means[base].mean(0)
        count = len(difference)
        over_queries = float(difference.var(ddof=1)) / count if count > 1 else 0.0
        over_seeds = spread * (1 / len(each) + 1 / len(means[base]))
        if not difference.any() or count < 2:
            found[name] = 1.0
        else:
            p = welch(float(difference.mean()), [(over_queries, count - 1), (over_seeds, freedom)])
            if test == "randomisation":
                p = max(p, randomisation(difference, np.zeros(count)))
            found[name] = p
    return found


def welch(difference: float, variances: Sequence[tuple[float, int]]) -> float:
    """Two-sided p-value of a difference whose variance is a sum of (variance, degrees of freedom).

    **Math** Student's t with ``(Σ v)² / Σ (v² / f)`` degrees of freedom (Welch 1947, Satterthwaite 1946).
    """
    whole = sum(variance for variance, _ in variances)
    if not whole:
        return 0.0
    degrees = whole**2 / sum(variance**2 / freedom for variance, freedom in variances)
    return float(2 * special.stdtr(degrees, -abs(difference) / whole**0.5))


def correct(
    rows: dict[str, dict[str, VariantCell]], p_values: Mapping[tuple[str, str], float | None]
) -> None:
    """Writes differences, p-values and Holm's correction for all of them into a table's cells.

    Args:
        rows: Variant to mode to cell; the base's row is `BASE`.
        p_values: (variant, mode) to p-value.
    """
    known = {place: p for place, p in p_values.items() if p is not None}
    corrected = dict(zip(known, holm(list(known.values())), strict=True))
    for (variant, mode), p in p_values.items():
        cell = rows[variant][mode]
        difference = cell.mean - rows[BASE][mode].mean
        rows[variant][mode] = VariantCell(
            cell.mean, cell.seeds, difference, p, corrected.get((variant, mode))
        )


def _table(
    results: Mapping[str, Sequence[Evaluation]], dataset: str, modes: Sequence[str], test: Test
) -> VariantTable:
    first = results[BASE][0].of(dataset)
    metric = first[0].primary
    clusters = clusters_in(first)
    rows: dict[str, dict[str, VariantCell]] = {variant: {} for variant in results}
    p_values: dict[tuple[str, str], float | None] = {}
    for mode in modes:
        runs: dict[str, Values] = {}
        for variant, evaluations in results.items():
            names = [_system(evaluation, mode) for evaluation in evaluations]
            if any(name is None for name in names):
                continue
            pairs = [(evaluation, str(name)) for evaluation, name in zip(evaluations, names, strict=True)]
            means = [evaluation.averages[dataset][name][metric] for evaluation, name in pairs]
            rows[variant][mode] = VariantCell(float(np.mean(means)), means)
            runs[variant] = np.stack(
                [
                    np.concatenate(
                        [np.asarray(one.per_query[name], np.float64) for one in evaluation.of(dataset)]
                    )
                    for evaluation, name in pairs
                ]
            )
        if BASE in runs:
            found = seeds_and_queries(runs, BASE, clusters, test)
            p_values |= {(variant, mode): p for variant, p in found.items()}
    correct(rows, p_values)
    return VariantTable(dataset, metric, sum(subset.queries for subset in first), list(modes), rows)


def _system(evaluation: Evaluation, mode: str) -> str | None:
    return next((name for name, system in evaluation.systems.items() if system.mode == mode), None)


_STYLE: dict[str, Any] = {"svg.hashsalt": "triptych", "svg.fonttype": "none", "font.size": 9}


def draw(tables: Sequence[VariantTable], path: Path) -> None:
    """Writes an SVG: a panel for each data set, a row for each variant, a point for each mode.

    Raises:
        MissingExtra: Without matplotlib.
        StorageError: If the file cannot be written.
    """
    with require_extra("the plot of ablations", "eval"):
        import matplotlib
        from matplotlib.figure import Figure
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


def _panel(axes: Any, table: VariantTable, variants: Sequence[str]) -> None:
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
            color=COLORS.get(mode, "#4d4d4d"),
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
