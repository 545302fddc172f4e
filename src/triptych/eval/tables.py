"""Results as tables: built once here, drawn by the terminal, by Markdown and by the report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from triptych.eval.significance import TOGETHER
from triptych.notebook import html_table
from triptych.scores.paired import LEVEL

if TYPE_CHECKING:
    from triptych.eval.compare import Comparison
    from triptych.eval.results import Evaluation, Subset

MANY = 40
"""Subsets, above which pairs of languages are averaged by the query's."""


@dataclass(frozen=True, slots=True)
class TableCell:
    """A cell.

    Attributes:
        text: Its text.
        best: Whether it is the best of its column.
        star: Whether it differs significantly from the reference.
    """

    text: str
    best: bool = False
    star: bool = False


@dataclass(frozen=True, slots=True)
class TableRow:
    """A line: its name, its cells, and whether it is a published figure."""

    name: str
    cells: list[TableCell]
    published: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        title: Above it.
        heads: Of the columns beside the names; their number is that of each row's cells.
        rows: In order.
        notes: Below it.
    """

    title: str
    heads: list[str]
    rows: list[TableRow]
    notes: list[str] = field(default_factory=list[str])

    def _repr_html_(self) -> str:
        rows = [[row.name, *(cell.text + "*" * cell.star for cell in row.cells)] for row in self.rows]
        return html_table(["", *self.heads], rows, self.title, self.notes)


def tables_of(result: Evaluation) -> Iterator[Table]:
    """For each data set its first metric by subset and the averages of all metrics; then the tuned weights."""
    for dataset in result.datasets:
        yield dataset_table(result, dataset)
        yield metrics_table(result, dataset)
    if result.tuned:
        yield tuned_table(result)


def dataset_table(result: Evaluation, dataset: str) -> Table:
    """The primary metric: the mean of all subsets first, then each subset."""
    subsets, averages = result.of(dataset), result.averages[dataset]
    metric = subsets[0].primary
    columns = _columns(subsets) if len(subsets) > 1 else {}
    values = {
        system: [
            averages[system].get(metric),
            *(fmean(one.metrics[system][metric] for one in members) for members in columns.values()),
        ]
        for system in averages
    }
    # Subsets that are averaged have no test of their own.
    names = [TOGETHER, *(members[0].subset if len(members) == 1 else "" for members in columns.values())]
    reference = str(result.options.get("reference", ""))
    starred = {
        (one.subset, one.a if one.b == reference else one.b)
        for one in result.significance
        if one.dataset == dataset and one.p_holm < LEVEL and reference in (one.a, one.b)
    }
    stars = {system: [(name, system) in starred for name in names] for system in averages}
    notes: list[str] = []
    if starred:
        test = "t-test" if result.options.get("test") == "t" else "randomisation test"
        many = next(
            (d.clusters for d in result.significance if (d.dataset, d.subset) == (dataset, TOGETHER)), None
        )
        units = "queries" if many is None else f"{many:,} independent clusters of queries"
        notes = [f"* differs from {reference} (p < {LEVEL}, paired {test} over {units}, Holm's correction)"]
    title = f"{dataset}, {metric} × 100, {size(subsets)}"
    return Table(title, ["mean" if columns else "all", *columns], _percents(values, stars), notes)


def metrics_table(result: Evaluation, dataset: str) -> Table:
    """All metrics, means over the subsets."""
    metrics = list(result.metrics(dataset))
    values = {
        system: [found.get(metric) for metric in metrics]
        for system, found in result.averages[dataset].items()
    }
    return Table(
        f"{dataset}, all metrics × 100, mean of {len(result.of(dataset))}", metrics, _percents(values)
    )


def tuned_table(result: Evaluation) -> Table:
    """Weights that were chosen on development sets, and nDCG@10 there."""
    rows: list[TableRow] = []
    for one in result.tuned:
        scores = [f"{100 * value:.1f}" for value in (one.ndcg, one.fixed_ndcg)]
        texts = [
            *(f"{weight:g}" for weight in one.weights),
            *scores,
            f"{one.queries:,}",
            ", ".join(one.development),
        ]
        rows.append(TableRow(one.system, [TableCell(text) for text in texts]))
    heads = ["dense", "lexical", "multi", "tuned", "fixed", "queries", "on"]
    return Table("weights chosen on development sets (nDCG@10 × 100 there)", heads, rows)


def costs_table(result: Evaluation) -> Table:
    """Weights, times and sizes of every system."""

    def number(value: float | None, factor: float) -> str:
        return "–" if value is None else f"{value * factor:.3g}"

    rows: list[TableRow] = []
    for name, one in result.systems.items():
        encode = result.contenders[one.contender].encode_seconds_per_query
        weights = ", ".join(f"{weight:g}" for weight in one.weights) if one.weights else "–"
        numbers = [
            number(one.seconds_per_query, 1000),
            number(encode, 1000),
            number(one.bytes_per_document, 1 / 1024),
        ]
        rows.append(TableRow(name, [TableCell(text) for text in (weights, *numbers)]))
    return Table(
        "systems", ["dense, lexical, multi", "ms per query: rank", "encode", "KiB per document"], rows
    )


def tests_table(result: Evaluation, dataset: str) -> Table:
    """The tests over all queries of a data set, pair by pair."""
    rows: list[TableRow] = []
    for one in result.significance:
        if (one.dataset, one.subset) == (dataset, TOGETHER):
            numbers = [f"{100 * one.difference:+.1f}", f"{one.p:.2g}", f"{one.p_holm:.2g}"]
            cells = [TableCell(text) for text in numbers]
            cells[-1] = TableCell(numbers[-1], best=one.p_holm < LEVEL)
            rows.append(TableRow(f"{one.a} − {one.b}", cells))
    return Table("differences over all queries", ["difference × 100", "p", "p, corrected"], rows)


def comparison_table(one: Comparison) -> Table:
    """Systems of several results, and published figures, by subset."""
    ours = [column for column in one.columns if not column.source]
    theirs = [column for column in one.columns if column.source]
    values = {
        column.name: [None if value is None else value / 100 for value in column.values] for column in ours
    }
    rows = _percents(values, {column.name: column.significant for column in ours})
    for column in theirs:
        cells = [TableCell("–" if value is None else f"{value:.1f}") for value in column.values]
        rows.append(TableRow(column.name, cells, published=True))
    reference = f"; * differs from {one.reference}" if one.reference else ""
    sources = [f"published figures: {source}" for source in dict.fromkeys(column.source for column in theirs)]
    title = f"{one.dataset}, {one.split}, {one.metric} × 100{reference}"
    return Table(title, one.rows, rows, [*sources, *one.notes])


def markdown(table: Table, level: int = 2) -> str:
    """The table as Markdown under a heading of this level."""
    lines = [
        f"{'#' * level} {table.title}",
        "",
        _line(["", *table.heads]),
        "|---" + "|---:" * len(table.heads) + "|",
    ]
    for row in table.rows:
        cells = [("**" + c.text + "**" if c.best else c.text) + ("\\*" if c.star else "") for c in row.cells]
        lines.append(_line([row.name, *cells]))
    for note in table.notes:
        lines += ["", note.replace("*", "\\*")]
    return "\n".join(lines) + "\n"


def size(subsets: Sequence[Subset]) -> str:
    """Splits, and numbers of subsets, queries and documents."""
    queries = sum(subset.queries for subset in subsets)
    documents = sum({subset.corpus: subset.documents for subset in subsets}.values())
    splits = ", ".join(dict.fromkeys(subset.split for subset in subsets))
    many = f"{len(subsets)} subsets, " if len(subsets) > 1 else ""
    return f"{splits} ({many}{queries:,} queries, {documents:,} documents)"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _columns(subsets: Sequence[Subset]) -> dict[str, list[Subset]]:
    """Subsets by name; if there are many pairs of languages, by the language of the query."""
    found: dict[str, list[Subset]] = {}
    for subset in subsets:
        first, pair, _ = subset.subset.partition("-")
        averaged = len(subsets) > MANY and pair
        found.setdefault(f"{first}→" if averaged else subset.subset or subset.dataset, []).append(subset)
    return found


def _percents(
    values: Mapping[str, Sequence[float | None]], stars: Mapping[str, Sequence[bool]] | None = None
) -> list[TableRow]:
    """Shares in per cent; the best of each column is marked, as far as the digits show."""
    shares = {
        name: ["–" if value is None else f"{100 * value:.1f}" for value in row]
        for name, row in values.items()
    }
    highest = [
        f"{100 * max((value for value in column if value is not None), default=0):.1f}"
        for column in zip(*values.values(), strict=True)
    ]
    return [
        TableRow(
            name,
            [
                TableCell(text, len(values) > 1 and text == highest[i], bool(stars and stars[name][i]))
                for i, text in enumerate(texts)
            ],
        )
        for name, texts in shares.items()
    ]
