"""Results of an evaluation as tables for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from triptych.eval.compare import TOGETHER
from triptych.eval.results import Evaluation, Subset

SIGNIFICANT = 0.05
_CELL = 6
_MANY = 40  # subsets, above which pairs of languages are averaged by the query's


class Row(NamedTuple):
    """One line of numbers: a name, and the value of each system or subset; None: there is none."""

    name: str
    values: list[float | None]
    stars: list[bool]


def tables(result: Evaluation, width: int) -> Iterator[RenderableType]:
    """One table for each data set and its first metric, one for the averages of all metrics, one of tuned weights."""
    for dataset in result.datasets:
        yield dataset_table(result, dataset, width)
        yield metrics_table(result, dataset)
    if result.tuned:
        yield tuned_table(result)


def dataset_table(result: Evaluation, dataset: str, width: int) -> RenderableType:
    """The primary metric, in per cent: the mean of all subsets first, then each."""
    subsets = joined(result.of(dataset))
    metric = next(iter(subsets.values()))[0].primary
    systems = list(result.averages[dataset])
    reference = str(result.options.get("reference", ""))
    stars = significant(result, dataset, reference)
    rows: list[Row] = []
    for system in systems:
        values: list[float | None] = [result.averages[dataset][system].get(metric)]
        values += [_mean([one.metrics[system][metric] for one in members]) for members in subsets.values()]
        rows.append(Row(system, values, [(name, system) in stars for name in (TOGETHER, *_names(subsets))]))
    heads = ["mean", *subsets] if len(subsets) > 1 else ["all"]
    if len(subsets) == 1:
        rows = [Row(row.name, row.values[:1], row.stars[:1]) for row in rows]
    title = f"{dataset}, {metric} × 100, {result.of(dataset)[0].split} ({_size(result.of(dataset))})"
    needed = max(map(len, systems)) + sum(max(_CELL, len(head) + 2) for head in heads)
    return _wide(title, heads, rows) if needed <= width else _tall(title, heads, rows)


def metrics_table(result: Evaluation, dataset: str) -> RenderableType:
    """All metrics, means over the subsets."""
    metrics = result.metrics(dataset)
    averages = result.averages[dataset]
    rows = [
        Row(system, [found.get(metric) for metric in metrics], [False] * len(metrics))
        for system, found in averages.items()
    ]
    return _wide(f"{dataset}, all metrics × 100, mean of {len(result.of(dataset))}", list(metrics), rows)


def tuned_table(result: Evaluation) -> RenderableType:
    """Weights that were chosen on development sets, and nDCG@10 there."""
    title = "weights chosen on development sets (nDCG@10 × 100 there)"
    table = Table(box=None, padding=(0, 2, 0, 0))
    for head in ("system", "dense", "lexical", "multi", "tuned", "fixed", "queries", "on"):
        table.add_column(head, justify="left" if head in ("system", "on") else "right")
    for one in result.tuned:
        weights = [f"{weight:g}" for weight in one.weights]
        scores = [f"{100 * value:.1f}" for value in (one.ndcg, one.fixed_ndcg)]
        table.add_row(one.system, *weights, *scores, str(one.queries), ", ".join(one.development))
    return Group(Text(title, style="bold"), table)


def joined(subsets: Sequence[Subset]) -> dict[str, list[Subset]]:
    """Subsets by name; if there are many pairs of languages, by the language of the query."""
    if len(subsets) <= _MANY:
        return {subset.subset or subset.dataset: [subset] for subset in subsets}
    found: dict[str, list[Subset]] = {}
    for subset in subsets:
        first, pair, _ = subset.subset.partition("-")
        found.setdefault(f"{first}→" if pair else subset.subset, []).append(subset)
    return found


def significant(result: Evaluation, dataset: str, reference: str) -> set[tuple[str, str]]:
    """(subset, system) of all significant differences from the reference."""
    found: set[tuple[str, str]] = set()
    for one in result.significance:
        if one.dataset == dataset and one.p_holm < SIGNIFICANT and reference in (one.a, one.b):
            found.add((one.subset, one.a if one.b == reference else one.b))
    return found


def _names(subsets: Mapping[str, Sequence[Subset]]) -> list[str]:
    """The subsets' own names, where they stand alone; several together have no test."""
    return [members[0].subset if len(members) == 1 else "" for members in subsets.values()]


def _size(subsets: Sequence[Subset]) -> str:
    queries = sum(subset.queries for subset in subsets)
    documents = sum({subset.corpus: subset.documents for subset in subsets}.values())
    return f"{queries:,} queries, {documents:,} documents"


def _wide(title: str, heads: Sequence[str], rows: Sequence[Row]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("")
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    best = [max((row.values[i] or 0 for row in rows), default=0) for i in range(len(heads))]
    for row in rows:
        cells = [cell(row.values[i], row.stars[i], best[i]) for i in range(len(heads))]
        table.add_row(row.name, *cells)
    return Group(Text(title, style="bold"), table)


def _tall(title: str, heads: Sequence[str], rows: Sequence[Row]) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for row in rows:
        table.add_column(heading(row.name), justify="right", overflow="fold")
    for i, head in enumerate(heads):
        best = max((row.values[i] or 0 for row in rows), default=0)
        cells = [cell(row.values[i], row.stars[i], best) for row in rows]
        table.add_row(head, *cells, end_section=i == 0)
    return Group(Text(title, style="bold"), table)


def heading(name: str) -> str:
    """The name of a system on several short lines."""
    return name.replace(": ", ":\n").replace("/", "/\n").replace("+", "+\n").replace(" ", "\n")


def cell(value: float | None, star: bool, best: float) -> Text:
    """A share of 1 in per cent; bold if it is the best, as far as is shown."""
    if value is None:
        return Text("–", style="dim")
    shown = f"{100 * value:.1f}"
    text = Text(shown, style="bold" if shown == f"{100 * best:.1f}" else "")
    return text.append("*" if star else " ", style="dim")


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
