"""What a run of pair mining made, dropped and kept: counts, tables, examples and a chart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from triptych.errors import require_extra
from triptych.io import replacing
from triptych.tools.pairs.base import WeakPair
from triptych.tools.tally import Tally

PAIR_FILTERS = ("length", "symbols", "copy", "language", "boilerplate", "contamination")
"""Filters that look at one pair, in the order in which they run: the cheap ones first."""
FILTERS = (*PAIR_FILTERS, "exact-duplicate", "near-duplicate", "consistency")
"""All filters of pairs, in the order in which they run."""
BY = {"source": "source", "kind": "kind", "language": "languages"}
"""What the counts can be grouped by, and the field of a cell that holds it."""
OTHERS = "others"
_EXAMPLE_CHARS = 160


class PairCell(NamedTuple):
    """What counts are grouped by: languages (``de`` or ``de>en``), source and kind."""

    languages: str
    source: str
    kind: str

    @classmethod
    def of(cls, pair: WeakPair) -> PairCell:
        """The cell of a pair."""
        return cls(pair.languages, pair.source, pair.kind)


class PairFilter(NamedTuple):
    """A named test that a pair must pass; pairs that it drops are counted under its name."""

    name: str
    keeps: Callable[[WeakPair], bool]


class DroppedPair(NamedTuple):
    """An example of what a filter dropped; `because` says more where there is more to say."""

    query: str
    passage: str
    because: str = ""


@dataclass(slots=True)
class PairCounts:
    """How many pairs were made, dropped by each filter, and kept; made = kept + all dropped, in every cell.

    Attributes:
        made: Pairs of each cell.
        kept: Those that passed all filters.
        dropped: (filter, cell) to pairs, with the first of them, its texts cut.
        texts: Documents, blocks and records by what became of them: ``(what, languages, source)``.
    """

    made: Counter[PairCell] = field(default_factory=Counter[PairCell])
    kept: Counter[PairCell] = field(default_factory=Counter[PairCell])
    dropped: Tally[tuple[str, PairCell], DroppedPair] = field(
        default_factory=Tally[tuple[str, PairCell], DroppedPair]
    )
    texts: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])

    def drop(self, name: str, pair: WeakPair, because: str = "") -> None:
        """Counts a pair that the filter `name` dropped."""
        self.dropped.drop(
            (name, PairCell.of(pair)), DroppedPair(*map(_cut, (pair.query, pair.passage, because)))
        )

    def filter(self, pairs: Iterable[WeakPair], filters: Iterable[PairFilter]) -> Iterator[WeakPair]:
        """The pairs that pass all filters; a pair is counted for the first filter that drops it.

        Pairs are counted as made but not yet as kept: other filters may follow.
        """
        steps = tuple(filters)
        for pair in pairs:
            self.made[PairCell.of(pair)] += 1
            name = next((name for name, keeps in steps if not keeps(pair)), None)
            if name is None:
                yield pair
            else:
                self.drop(name, pair)

    def keep(self, pairs: Iterable[WeakPair]) -> Iterator[WeakPair]:
        """The same pairs, each counted as kept."""
        for pair in pairs:
            self.kept[PairCell.of(pair)] += 1
            yield pair

    def add(self, later: PairCounts) -> None:
        """Adds the counts of a later part."""
        self.made += later.made
        self.kept += later.kept
        self.texts += later.texts
        self.dropped.add(later.dropped)

    def dropped_by(self, name: str) -> Counter[PairCell]:
        """The pairs that a filter dropped, by cell."""
        return Counter({cell: count for (by, cell), count in self.dropped.counts.items() if by == name})

    @property
    def filters(self) -> list[str]:
        """The filters that dropped something, in the order in which they run."""
        names = {name for name, _ in self.dropped.counts}
        return [name for name in FILTERS if name in names]

    def to_dict(self) -> dict[str, Any]:
        """The counts as JSON; `from_dict` reads it."""
        dropped: dict[PairCell, dict[str, int]] = {}
        for (name, cell), count in sorted(self.dropped.counts.items()):
            dropped.setdefault(cell, {})[name] = count
        return {
            "cells": [
                {
                    **cell._asdict(),
                    "made": self.made[cell],
                    "kept": self.kept[cell],
                    "dropped": dropped.get(cell, {}),
                }
                for cell in sorted({*self.made, *self.kept, *dropped})
            ],
            "examples": [
                {"filter": name, **cell._asdict(), **example._asdict()}
                for (name, cell), example in sorted(self.dropped.first.items())
            ],
            "texts": [[*key, count] for key, count in sorted(self.texts.items())],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> PairCounts:
        """The inverse of `to_dict`."""
        counts = cls()
        for row in values["cells"]:
            cell = PairCell(row["languages"], row["source"], row["kind"])
            counts.made += Counter({cell: row["made"]})
            counts.kept += Counter({cell: row["kept"]})
            for name, count in row["dropped"].items():
                counts.dropped.drop((name, cell), count=count)
        for row in values["examples"]:
            example = DroppedPair(row["query"], row["passage"], row["because"])
            cell = PairCell(row["languages"], row["source"], row["kind"])
            counts.dropped.examples[row["filter"], cell] = [example]
        for what, languages, source, count in values["texts"]:
            counts.texts[what, languages, source] = count
        return counts


def _cut(text: str) -> str:
    return text if len(text) <= _EXAMPLE_CHARS else text[: _EXAMPLE_CHARS - 1] + "…"


class CountRow(NamedTuple):
    """Counts of the pairs of a source, kind or language: made = kept + all of `dropped`.

    Attributes:
        name: Which.
        made: How many were made.
        kept: How many are left.
        dropped: How many each filter dropped, in the order of `PairCounts.filters`.
    """

    name: str
    made: int
    kept: int
    dropped: tuple[int, ...]


def rows(counts: PairCounts, by: str, limit: int | None = None) -> list[CountRow]:
    """The counts by source, kind or language, the greatest first.

    Args:
        counts: All counts.
        by: One of `BY`.
        limit: Maximum number of rows, the last being all others.
    """
    groups: dict[str, list[PairCell]] = {}
    for cell in sorted(counts.made):
        groups.setdefault(getattr(cell, BY[by]), []).append(cell)
    table = sorted((_row(counts, name, cells) for name, cells in groups.items()), key=lambda row: -row.made)
    if limit is None or len(table) <= limit:
        return table
    rest = [cell for row in table[limit - 1 :] for cell in groups[row.name]]
    return [*table[: limit - 1], _row(counts, OTHERS, rest)]


def total(counts: PairCounts) -> CountRow:
    """The counts of everything."""
    return _row(counts, "all", counts.made)


def _row(counts: PairCounts, name: str, cells: Iterable[PairCell]) -> CountRow:
    group = list(cells)
    made, kept = (sum(each[cell] for cell in group) for each in (counts.made, counts.kept))
    dropped = tuple(sum(counts.dropped[by, cell] for cell in group) for by in counts.filters)
    return CountRow(name, made, kept, dropped)


def examples(counts: PairCounts) -> list[tuple[str, PairCell, DroppedPair]]:
    """One example of what each filter dropped: of the cell in which it dropped most."""
    found: list[tuple[str, PairCell, DroppedPair]] = []
    for name in counts.filters:
        cell = min(counts.dropped_by(name).items(), key=lambda item: (-item[1], item[0]))[0]
        found.append((name, cell, counts.dropped.first[name, cell]))
    return found


def language_pairs(counts: PairCounts) -> int:
    """How many ordered pairs of different languages have a pair that was kept."""
    return len({cell.languages for cell, count in counts.kept.items() if count and ">" in cell.languages})


def summary(counts: PairCounts) -> dict[str, Any]:
    """The totals as JSON."""
    whole = total(counts)
    texts: Counter[str] = Counter()
    for (what, _, _), count in counts.texts.items():
        texts[what] += count
    kept = [cell for cell, count in counts.kept.items() if count]
    return {
        "made": whole.made,
        "kept": whole.kept,
        "dropped": dict(zip(counts.filters, whole.dropped, strict=True)),
        "languages": len({cell.languages for cell in kept if ">" not in cell.languages}),
        "language_pairs": language_pairs(counts),
        "texts": dict(sorted(texts.items())),
    }


def draw(counts: PairCounts, path: Path) -> None:
    """Draws what was kept and dropped by each filter, for each source and kind, as bars of 100 %.

    Raises:
        MissingExtra: If matplotlib is not installed.
        StorageError: If the file cannot be written.
    """
    with require_extra("drawing the report", "eval"):
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    parts = [rows(counts, "source", 15), rows(counts, "kind")]
    figure = Figure(figsize=(9, 1.6 + 0.32 * sum(map(len, parts))), layout="constrained")
    FigureCanvasSVG(figure)
    heights = [max(1, len(part)) for part in parts]
    axes: Any = figure.subplots(2, 1, height_ratios=heights, squeeze=False)[:, 0]
    for axis, part, by in zip(axes, parts, ("source", "kind"), strict=True):
        _draw_bars(axis, part, counts.filters)
        axis.set_title(f"pairs by {by}", loc="left", fontsize=10)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, frameon=False, fontsize=8)
    # No date and no random ids: the same counts give the same file.
    settings: Any = {"svg.hashsalt": "triptych", "svg.fonttype": "none"}
    with replacing(path) as temporary, matplotlib.rc_context(settings):
        figure.savefig(temporary, format="svg", metadata={"Date": None})


def _draw_bars(axis: Any, part: Sequence[CountRow], names: Sequence[str]) -> None:
    labels = [f"{row.name}  {row.made:,}" for row in part]
    start = [0.0] * len(part)
    for number, name in enumerate(["kept", *names]):
        counts = [row.kept if number == 0 else row.dropped[number - 1] for row in part]
        shares = [100 * count / max(1, row.made) for count, row in zip(counts, part, strict=True)]
        color = "#2a6f97" if number == 0 else f"C{number}"
        axis.barh(labels, shares, left=start, label=name, color=color, height=0.7)
        start = [left + share for left, share in zip(start, shares, strict=True)]
    axis.invert_yaxis()
    axis.set_xlim(0, 100)
    axis.set_xlabel("%", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
