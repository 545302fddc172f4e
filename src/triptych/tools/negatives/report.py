"""What mining did, counted: nothing that was dropped goes unmentioned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from triptych.tools.tally import Tally

REASONS: dict[str, str] = {
    "rank": "ranked before the first rank that is mined",
    "positive": "the text of a positive",
    "query": "the text of the query",
    "existing": "a negative that the example has already",
    "article": "from an article of a positive",
    "translation": "from a positive's article in another language",
    "duplicate": "the text of a better candidate",
    "margin": "scored too near to the positive",
    "reranker": "scored too near to the positive by the re-ranker",
    "left over": "more than are kept",
}
"""Why a candidate is dropped: the first that holds, in this order."""
_COUNTS = ("queries", "full", "short", "empty", "negatives", "existing", "candidates")


@dataclass
class NegativesReport:
    """Counts over queries; those of several parts add up.

    Attributes:
        queries: Examples that were read and written.
        full: Those that have as many negatives as were wanted.
        short: Those that have fewer, but some.
        empty: Those that have none.
        negatives: Mined negatives of all.
        existing: Negatives that the examples had and kept.
        candidates: Ranked passages that were looked at: the mined ones and the dropped ones.
        dropped: Reason (a key of `REASONS`) to candidates, with the first of them.
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
    dropped: Tally[str, dict[str, Any]] = field(default_factory=Tally[str, dict[str, Any]])
    sums: dict[str, float] = field(default_factory=dict[str, float])
    languages: dict[str, list[int]] = field(default_factory=dict[str, list[int]])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    def keep(self, mined: int, existing: int, wanted: int, language: str | None) -> None:
        """Counts the negatives of one query."""
        part = NegativesReport(1, negatives=mined, existing=existing, languages={language or "?": [1, mined]})
        part.full = int(mined + existing >= wanted)
        part.empty = int(mined + existing == 0)
        part.short = 1 - part.full - part.empty
        self.add(part)

    def add(self, later: NegativesReport) -> None:
        """Adds a later part."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.dropped.add(later.dropped)
        for name, value in later.sums.items():
            self.sums[name] = self.sums.get(name, 0) + value
        for language, (queries, mined) in later.languages.items():
            counts = self.languages.setdefault(language, [0, 0])
            counts[0] += queries
            counts[1] += mined

    def mean(self, name: str) -> float | None:
        """Mean "positive" or "negative" score, or mean "rank" of the mined negatives."""
        count = self.sums.get("positives", 0) if name == "positive" else self.negatives
        return self.sums[name] / count if count else None

    def to_json(self) -> dict[str, Any]:
        """As JSON, reasons in their order."""
        first = self.dropped.first
        return {
            **{name: getattr(self, name) for name in _COUNTS},
            "dropped": {reason: self.dropped[reason] for reason in REASONS},
            "samples": {reason: first[reason] for reason in REASONS if reason in first},
            "sums": dict(sorted(self.sums.items())),
            "languages": dict(sorted(self.languages.items())),
            "facts": self.facts,
            "means": {name: self.mean(name) for name in ("positive", "negative", "rank")},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> NegativesReport:
        """The inverse of `to_json`."""
        dropped: Tally[str, dict[str, Any]] = Tally(
            Counter(values["dropped"]), {reason: [sample] for reason, sample in values["samples"].items()}
        )
        rest = {name: values[name] for name in (*_COUNTS, "sums", "languages", "facts")}
        return cls(dropped=dropped, **rest)
