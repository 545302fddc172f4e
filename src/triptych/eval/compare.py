"""Several results side by side, with published figures where the data set is the same (`published.json`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InputError
from triptych.eval.results import Evaluation, Subset
from triptych.eval.significance import Test, clusters_in, p_value
from triptych.scores.paired import LEVEL, holm


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one publication for one system on one data set, in per cent.

    Attributes:
        mean: Of all subsets, as it is printed; None if it is not.
        subsets: By name; empty if only the mean is printed.
    """

    mean: float | None
    subsets: Mapping[str, float]

    def over(self, subsets: Sequence[str], complete: bool) -> float | None:
        """The mean of some subsets.

        Args:
            subsets: Names.
            complete: Whether they are all that the publication has, so that the printed mean is theirs.
        """
        if subsets and all(name in self.subsets for name in subsets):
            return sum(self.subsets[name] for name in subsets) / len(subsets)
        return self.mean if complete else None


@dataclass(frozen=True, slots=True)
class PublishedTable:
    """A table of a publication.

    Attributes:
        source: Publication and number of the table.
        dataset: Name as in `Collection.name`.
        split: Name.
        metric: Name.
        systems: By name.
    """

    source: str
    dataset: str
    split: str
    metric: str
    systems: Mapping[str, Figures]

    @property
    def subsets(self) -> frozenset[str]:
        """All that some system has a figure for."""
        return frozenset(name for figures in self.systems.values() for name in figures.subsets)

    def covers(self, subsets: Sequence[str]) -> bool:
        """Whether these are its subsets; a data set without subsets has none here."""
        return frozenset(subsets) == self.subsets or (not self.subsets and len(subsets) == 1)


@cache
def tables() -> tuple[PublishedTable, ...]:
    """All tables."""
    content = json.loads(resources.files("triptych.eval").joinpath("published.json").read_text("utf-8"))
    return tuple(
        PublishedTable(
            f"{content['source']}, table {table['table']}",
            table["dataset"],
            table["split"],
            table["metric"],
            {name: Figures(one["mean"], one["subsets"]) for name, one in table["systems"].items()},
        )
        for table in content["tables"]
    )


def published_table(dataset: str, split: str, metric: str) -> PublishedTable | None:
    """The table for a data set and metric, if there is one."""
    return next(
        (one for one in tables() if (one.dataset, one.split, one.metric) == (dataset, split, metric)), None
    )


MEAN = "mean"


@dataclass(frozen=True, slots=True)
class Column:
    """A system's values.

    Attributes:
        name: Of the system, with the file's name in front if several have it.
        values: Of the rows, in per cent; None where there is none.
        significant: For each row whether the system differs from the reference (paired over clusters of queries,
            p < 0.05 after Holm's correction for the columns of the row); False where per-query scores are missing.
        source: "" for a result of ours, otherwise where the figures are printed.
    """

    name: str
    values: list[float | None]
    significant: list[bool]
    source: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One data set.

    Attributes:
        dataset: Name.
        split: Name.
        metric: Name.
        rows: "mean" and the subsets that all results have.
        reference: Name of the column with which the others are compared; "" if there is none.
        columns: Systems.
        notes: What a reader should know, such as subsets that not all results have.
    """

    dataset: str
    split: str
    metric: str
    rows: list[str]
    reference: str
    columns: list[Column]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Choice:
    """What to compare.

    Attributes:
        metric: A metric such as R@100; None: the primary one of each data set.
        systems: Only systems of these names or patterns, such as '*/all' or 'bm25*'; by default all.
        reference: Column with which the others are compared; None: the first result's reference.
        figures: Show figures of the M3 paper beside ours.
        test: Paired test of significance.
    """

    metric: str | None = None
    systems: tuple[str, ...] = ()
    reference: str | None = None
    figures: bool = True
    test: Test = "t"


def compare(results: Mapping[str, Evaluation], choice: Choice | None = None) -> list[Comparison]:
    """Puts results side by side, one table for each data set.

    Args:
        results: By a short name such as the file's.
        choice: What to show.

    Raises:
        InputError: If no system or no data set is left, or the reference is not there.
    """
    choice = choice or Choice()
    sets = dict.fromkeys((one.dataset, one.split) for result in results.values() for one in result.subsets)
    found = [_compare(results, dataset, split, choice) for dataset, split in sets]
    kept = [one for one in found if one is not None]
    if not kept:
        raise InputError("compare: got no system or metric that the results have; expected one that is there")
    if choice.reference is not None and not any(one.reference == choice.reference for one in kept):
        names = dict.fromkeys(column.name for one in kept for column in one.columns if not column.source)
        raise InputError(
            f"compare: got the reference {choice.reference!r}; expected one of {', '.join(names)}"
        )
    return kept


def _compare(
    results: Mapping[str, Evaluation], dataset: str, split: str, choice: Choice
) -> Comparison | None:
    having = {
        label: {one.subset: one for one in result.subsets if (one.dataset, one.split) == (dataset, split)}
        for label, result in results.items()
    }
    having = {label: subsets for label, subsets in having.items() if subsets}
    metric = choice.metric or next(iter(next(iter(having.values())).values())).primary
    shared = [
        name for name in next(iter(having.values())) if all(name in subsets for subsets in having.values())
    ]
    members = _members(having, shared, metric, choice)
    if not shared or not members:
        return None
    reference = _reference(results, having, members, choice)
    rows = [MEAN, *shared] if len(shared) > 1 else list(shared)
    stars = _stars(members, shared, reference, metric, choice.test)
    columns: list[Column] = []
    for name, subsets in members.items():
        values = [100 * subset.metrics[system][metric] for subset, system in subsets]
        shown: list[float | None] = [*([fmean(values)] if len(shared) > 1 else []), *values]
        columns.append(Column(name, shown, [stars.get((row, name), False) for row in rows]))
    columns += _published_columns(dataset, split, metric, shared) if choice.figures else []
    return Comparison(
        dataset, split, metric, [row or "all" for row in rows], reference, columns, _notes(having, shared)
    )


Members = dict[str, list[tuple[Subset, str]]]


def _members(
    having: Mapping[str, Mapping[str, Subset]], shared: Sequence[str], metric: str, choice: Choice
) -> Members:
    """The columns' names, and for each shared subset where its values are."""
    found: Members = {}
    names = [
        system
        for subsets in having.values()
        for system in dict.fromkeys(s for one in subsets.values() for s in one.metrics)
    ]
    for label, subsets in having.items():
        for system in next(iter(subsets.values())).metrics:
            chosen = not choice.systems or any(fnmatchcase(system, pattern) for pattern in choice.systems)
            places = [(subsets[name], system) for name in shared]
            if chosen and all(metric in one.metrics.get(system, {}) for one, _ in places):
                found[f"{label}: {system}" if names.count(system) > 1 else system] = places
    return found


def _reference(
    results: Mapping[str, Evaluation],
    having: Mapping[str, Mapping[str, Subset]],
    members: Members,
    choice: Choice,
) -> str:
    if choice.reference is not None:
        return choice.reference if choice.reference in members else ""
    label = next(iter(having))
    name = str(results[label].options.get("reference", ""))
    return next((one for one in (name, f"{label}: {name}") if one in members), "")


def _stars(
    members: Members, shared: Sequence[str], reference: str, metric: str, test: Test
) -> dict[tuple[str, str], bool]:
    """(row, column) of all significant differences from the reference column."""
    found: dict[tuple[str, str], bool] = {}
    if reference not in members:
        return found
    rows = [(name, [number]) for number, name in enumerate(shared)]
    if len(shared) > 1:
        rows.insert(0, (MEAN, list(range(len(shared)))))
    for row, numbers in rows:
        tested: dict[str, float] = {}
        for name in members:
            own, other = ([members[one][n] for n in numbers] for one in (name, reference))
            pair = _pair(own, other, metric)
            if name != reference and pair is not None:
                tested[name] = p_value(*pair, test, clusters_in([subset for subset, _ in own]))
        for name, p in zip(tested, holm(list(tested.values())), strict=True):
            found[row, name] = p < LEVEL
    return found


def _pair(
    a: Sequence[tuple[Subset, str]], b: Sequence[tuple[Subset, str]], metric: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """Per-query scores in the same order; None if they are of other queries, another corpus, or not there."""
    left: list[float] = []
    right: list[float] = []
    for (one, first), (other, second) in zip(a, b, strict=True):
        same = one.corpus == other.corpus and set(one.ids) == set(other.ids)
        if not same or {one.primary, other.primary} != {metric}:
            return None
        place = {query: number for number, query in enumerate(other.ids)}
        left += one.per_query[first]
        right += [other.per_query[second][place[query]] for query in one.ids]
    return np.asarray(left), np.asarray(right)


def _published_columns(dataset: str, split: str, metric: str, shared: Sequence[str]) -> list[Column]:
    table = published_table(dataset, split, metric)
    if table is None:
        return []
    columns: list[Column] = []
    for name, figures in table.systems.items():
        values = [figures.subsets.get(subset) for subset in shared]
        mean = figures.over(shared, table.covers(shared))
        shown = [mean, *values] if len(shared) > 1 else [values[0] if values[0] is not None else mean]
        if any(value is not None for value in shown):
            columns.append(Column(name, shown, [False] * len(shown), table.source))
    return columns


def _notes(having: Mapping[str, Mapping[str, Subset]], shared: Sequence[str]) -> list[str]:
    notes = [
        f"{label}: {len(subsets) - len(shared)} subsets that not all results have are left out"
        for label, subsets in having.items()
        if len(subsets) > len(shared)
    ]
    corpora = {tuple(subsets[name].corpus for name in shared) for subsets in having.values()}
    if len(corpora) > 1:
        notes.append("the results were made on different corpora: their numbers are not comparable")
    return notes
