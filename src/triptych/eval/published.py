"""Figures that others have published, to stand beside ours; `published.json` has them with their source."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Figures:
    """What one publication gives for one system on one data set, in per cent.

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


def published(dataset: str, split: str, metric: str) -> PublishedTable | None:
    """The table for a data set and metric, if there is one."""
    return next(
        (one for one in tables() if (one.dataset, one.split, one.metric) == (dataset, split, metric)), None
    )
