"""Counts of what was dropped, by reason, with the first examples: nothing is dropped without being counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

Reason = TypeVar("Reason")
Example = TypeVar("Example")


@dataclass(slots=True)
class Tally(Generic[Reason, Example]):
    """Counts by reason; those of several parts add up.

    Attributes:
        counts: Reason to count.
        examples: Reason to the first examples.
        per_reason: Maximum number of examples per reason.
    """

    counts: Counter[Reason] = field(default_factory=Counter[Reason])
    examples: dict[Reason, list[Example]] = field(default_factory=dict[Reason, list[Example]])
    per_reason: int = 1

    def drop(self, reason: Reason, example: Example | None = None, count: int = 1) -> None:
        """Counts something that is dropped."""
        self.counts[reason] += count
        if example is not None:
            self._show(reason, (example,))

    def add(self, later: Tally[Reason, Example]) -> None:
        """Adds the counts of a later part; the examples of this one come first."""
        self.counts.update(later.counts)
        for reason, examples in later.examples.items():
            self._show(reason, examples)

    def _show(self, reason: Reason, examples: Iterable[Example]) -> None:
        kept = self.examples.setdefault(reason, [])
        kept.extend(list(examples)[: self.per_reason - len(kept)])

    def __getitem__(self, reason: Reason) -> int:
        return self.counts[reason]

    @property
    def first(self) -> dict[Reason, Example]:
        """Reason to its first example."""
        return {reason: examples[0] for reason, examples in self.examples.items() if examples}

    def most_common(self) -> dict[Reason, int]:
        """Reason to count, the most frequent first."""
        return dict(self.counts.most_common())

    def __str__(self) -> str:
        return "; ".join(f"{count} × {reason}" for reason, count in self.counts.most_common())


def shorten(text: str, chars: int = 160, where: str = "") -> str:
    """A text as an example: on one line, cut to `chars` characters, after the place where it stands."""
    line = " ".join(text.split())
    return (f"{where}: " if where else "") + line[:chars] + ("…" if len(line) > chars else "")
