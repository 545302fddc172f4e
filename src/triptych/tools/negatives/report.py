"""What mining did, counted: nothing that was dropped goes unmentioned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from triptych.tools.negatives.filters import REASONS

LONGEST = 300
"""Characters of a text that are shown."""


@dataclass
class Report:
    """Counts over queries; those of several parts add up.

    Attributes:
        queries: Examples that were read and written.
        full: Those that have as many negatives as were wanted.
        short: Those that have fewer, but some.
        empty: Those that have none.
        negatives: Mined negatives of all.
        existing: Negatives that the examples had and kept.
        candidates: Ranked passages that were looked at: the mined ones and the dropped ones.
        dropped: Reason (a key of `REASONS`) to how many candidates.
        samples: Reason to the first candidate that was dropped for it.
        sums: Totals of "positive" and "negative" scores and of mined "rank"s, with "positives", the number of
            positives.
        languages: Language as the file names it ("?": it does not) to queries and mined negatives.
        facts: What was mined from, by what, and how; none for a part.
    """

    queries: int = 0
    full: int = 0
    short: int = 0
    empty: int = 0
    negatives: int = 0
    existing: int = 0
    candidates: int = 0
    dropped: Counter[str] = field(default_factory=Counter[str])
    samples: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    sums: dict[str, float] = field(default_factory=dict[str, float])
    languages: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    def drop(self, reasons: Sequence[str], sample: Mapping[str, dict[str, Any]]) -> None:
        """Counts candidates of one query that were dropped; `sample` has one of each reason."""
        self.dropped.update(reasons)
        for reason, shown in sample.items():
            self.samples.setdefault(reason, shown)

    def keep(self, mined: int, existing: int, wanted: int, language: str | None) -> None:
        """Counts the negatives of one query."""
        self.queries += 1
        self.negatives += mined
        self.existing += existing
        self.full += mined + existing >= wanted
        self.short += 0 < mined + existing < wanted
        self.empty += mined + existing == 0
        counts = self.languages.setdefault(language or "?", [0, 0])
        counts[0] += 1
        counts[1] += mined

    def total(self, sums: Mapping[str, float]) -> None:
        """Adds to `sums`."""
        for name, value in sums.items():
            self.sums[name] = self.sums.get(name, 0) + value

    def add(self, other: Report) -> None:
        """Adds a later part."""
        for name in ("queries", "full", "short", "empty", "negatives", "existing", "candidates"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.dropped.update(other.dropped)
        self.total(other.sums)
        for reason, shown in other.samples.items():
            self.samples.setdefault(reason, shown)
        for language, (queries, mined) in other.languages.items():
            counts = self.languages.setdefault(language, [0, 0])
            counts[0] += queries
            counts[1] += mined

    def mean(self, name: str) -> float | None:
        """Mean "positive" or "negative" score, or mean "rank" of the mined negatives."""
        count = self.sums.get("positives", 0) if name == "positive" else self.negatives
        return self.sums[name] / count if count else None

    def to_json(self) -> dict[str, Any]:
        """As JSON, reasons in their order."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["dropped"] = {reason: self.dropped[reason] for reason in REASONS}
        values["samples"] = {reason: self.samples[reason] for reason in REASONS if reason in self.samples}
        values["sums"] = dict(sorted(self.sums.items()))
        values["languages"] = dict(sorted(self.languages.items()))
        values["means"] = {name: self.mean(name) for name in ("positive", "negative", "rank")}
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Report:
        """The inverse of `to_json`."""
        known: dict[str, Any] = {name: values[name] for name in cls.__dataclass_fields__}
        known["dropped"] = Counter(known["dropped"])
        return cls(**known)


def shortened(text: str) -> str:
    """A text as it is shown."""
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
