"""Counts of what was made, dropped and kept, so that nothing vanishes uncounted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast

from triptych.tools.pairs.base import Pair

_EXAMPLE_CHARS = 160


class Cell(NamedTuple):
    """What counts are kept apart by: languages (``de`` or ``de>en``), source and kind."""

    languages: str
    source: str
    kind: str

    @classmethod
    def of(cls, pair: Pair) -> Cell:
        """The cell of a pair."""
        return cls(pair.languages, pair.source, pair.kind)


class Filter(NamedTuple):
    """A named test that a pair must pass.

    Attributes:
        name: Under which what it drops is counted.
        keeps: The test.
    """

    name: str
    keeps: Callable[[Pair], bool]


class Dropped(NamedTuple):
    """An example of what a filter dropped; `because` says more where there is more to say."""

    query: str
    passage: str
    because: str = ""


@dataclass(slots=True)
class Tally:
    """How many pairs were made, dropped by each filter, and kept; made = kept + all dropped, in every cell.

    Attributes:
        made: Pairs of each cell.
        kept: Those that passed all filters.
        dropped: Filter to pairs of each cell.
        examples: The first pair that a filter dropped in a cell, with its texts cut.
        texts: Documents, blocks and records by what became of them: ``(what, languages, source)``.
    """

    made: Counter[Cell] = field(default_factory=Counter[Cell])
    kept: Counter[Cell] = field(default_factory=Counter[Cell])
    dropped: dict[str, Counter[Cell]] = field(default_factory=dict[str, Counter[Cell]])
    examples: dict[tuple[str, Cell], Dropped] = field(default_factory=dict[tuple[str, Cell], Dropped])
    texts: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])

    def drop(self, name: str, pair: Pair, because: str = "") -> None:
        """Counts a pair that the filter `name` dropped."""
        cell = Cell.of(pair)
        self.dropped.setdefault(name, Counter())[cell] += 1
        if (name, cell) not in self.examples:
            self.examples[name, cell] = Dropped(*map(_short, (pair.query, pair.passage, because)))

    def add(self, other: Tally) -> None:
        """Adds another tally; its examples count where there is none yet."""
        self.made += other.made
        self.kept += other.kept
        self.texts += other.texts
        for name, counts in other.dropped.items():
            self.dropped.setdefault(name, Counter()).update(counts)
        self.examples = other.examples | self.examples

    def to_dict(self) -> dict[str, Any]:
        """The tally as JSON; `from_dict` reads it."""
        names = sorted(self.dropped)
        cells = {*self.made, *self.kept, *(cell for counts in self.dropped.values() for cell in counts)}
        return {
            "cells": [
                {
                    **cell._asdict(),
                    "made": self.made[cell],
                    "kept": self.kept[cell],
                    "dropped": {name: self.dropped[name][cell] for name in names if self.dropped[name][cell]},
                }
                for cell in sorted(cells)
            ],
            "examples": [
                {"filter": name, **cell._asdict(), **example._asdict()}
                for (name, cell), example in sorted(self.examples.items())
            ],
            "texts": [[*key, count] for key, count in sorted(self.texts.items())],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Tally:
        """The inverse of `to_dict`."""
        tally = cls()
        for row in values["cells"]:
            cell = _cell(row)
            tally.made += Counter({cell: row["made"]})
            tally.kept += Counter({cell: row["kept"]})
            for name, count in cast("dict[str, int]", row["dropped"]).items():
                tally.dropped.setdefault(name, Counter())[cell] = count
        for row in values["examples"]:
            example = Dropped(row["query"], row["passage"], row["because"])
            tally.examples[row["filter"], _cell(row)] = example
        for what, languages, source, count in values["texts"]:
            tally.texts[what, languages, source] = count
        return tally


def _cell(row: Mapping[str, Any]) -> Cell:
    return Cell(row["languages"], row["source"], row["kind"])


def filtered(pairs: Iterable[Pair], filters: Iterable[Filter], tally: Tally) -> Iterator[Pair]:
    """The pairs that pass all filters; a pair is counted for the first filter that drops it.

    What is given out is counted as made but not yet as kept: other filters may follow.
    """
    steps = tuple(filters)
    for pair in pairs:
        tally.made[Cell.of(pair)] += 1
        name = next((name for name, keeps in steps if not keeps(pair)), None)
        if name is None:
            yield pair
        else:
            tally.drop(name, pair)


def counted(pairs: Iterable[Pair], tally: Tally) -> Iterator[Pair]:
    """The same pairs, each counted as kept."""
    for pair in pairs:
        tally.kept[Cell.of(pair)] += 1
        yield pair


def _short(text: str) -> str:
    return text if len(text) <= _EXAMPLE_CHARS else text[: _EXAMPLE_CHARS - 1] + "…"
