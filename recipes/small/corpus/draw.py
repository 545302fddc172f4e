"""Drawing so many of each group, the same ones in every run and whatever the order in which they come."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

Group = TypeVar("Group", bound=Hashable)
Item = TypeVar("Item")


class Draw(Generic[Group, Item]):
    """Keeps of each group the items with the smallest numbers, at most so many.

    Args:
        cap: Most items of a group.
    """

    def __init__(self, cap: Callable[[Group], int]) -> None:
        self._cap = cap
        self._kept: dict[Group, list[tuple[int, int, Item]]] = {}
        self._offered: dict[Group, int] = {}

    def offer(self, group: Group, number: int, item: Item) -> None:
        """Takes an item, or not.

        Args:
            group: What it is counted with.
            number: Decides; a digest of its content and the seed.
            item: The item.
        """
        kept = self._kept.setdefault(group, [])
        count = self._offered[group] = self._offered.get(group, 0) + 1
        if len(kept) < self._cap(group):
            heapq.heappush(kept, (-number, -count, item))
        elif kept and number < -kept[0][0]:
            heapq.heapreplace(kept, (-number, -count, item))

    def items(self) -> Iterator[tuple[Group, Item]]:
        """What was kept: groups as they first came, items by their numbers."""
        for group, kept in self._kept.items():
            for _, _, item in sorted(kept, key=lambda entry: (-entry[0], -entry[1])):
                yield group, item

    def counts(self) -> dict[Group, tuple[int, int]]:
        """Of each group, how many were kept and how many were offered."""
        return {group: (len(self._kept[group]), count) for group, count in self._offered.items()}
