"""Batch sizes by length: the paper's tables, from a budget of tokens, or found by trying."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InputError


@dataclass(frozen=True, slots=True)
class BatchTable:
    """Batch sizes by length.

    Attributes:
        bounds: Ascending; bucket i has the rows of more than ``bounds[i - 1]`` and at most ``bounds[i]`` tokens.
        sizes: Rows of a batch of each bucket, for each process.
    """

    bounds: tuple[int, ...]
    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        ascending = all(a < b for a, b in zip((0, *self.bounds), self.bounds, strict=False))
        if not (self.bounds and len(self.bounds) == len(self.sizes) and ascending and min(self.sizes) >= 1):
            raise InputError(
                f"BatchTable: got bounds {list(self.bounds)}, sizes {list(self.sizes)}; expected as many sizes "
                "≥ 1 as ascending bounds ≥ 1"
            )

    @classmethod
    def of_budget(cls, tokens: int, bounds: Sequence[int], group: int = 1) -> BatchTable:
        """The largest batches whose longest passages stay within a number of tokens.

        Args:
            tokens: Most tokens of a batch's passages, on each process.
            bounds: Ascending bounds of the buckets.
            group: Passages of a query.
        """
        return cls(tuple(bounds), tuple(max(1, tokens // (bound * group)) for bound in bounds))

    def up_to(self, length: int) -> BatchTable:
        """The part of the table that texts of at most `length` tokens need."""
        last = min(bisect_left(self.bounds, length), len(self.bounds) - 1)
        return BatchTable(self.bounds[: last + 1], self.sizes[: last + 1])

    def scaled(self, factor: float) -> BatchTable:
        """The same bounds with batch sizes multiplied by a factor, at least 1."""
        return BatchTable(self.bounds, tuple(max(1, int(size * factor)) for size in self.sizes))

    def buckets(self, lengths: NDArray[np.int32], name: str) -> NDArray[np.int64]:
        """The bucket of each length.

        Raises:
            InputError: For a length beyond the last bound.
        """
        found = np.searchsorted(self.bounds, lengths, side="left")
        if len(found) and found.max() == len(self.bounds):
            longest = int(lengths.max())
            raise InputError(f"{name}: a row has {longest} tokens; the batch table ends at {self.bounds[-1]}")
        return found


_PAPER_BOUNDS = (500, 1000, 2000, 3000, 4000, 5000, 6000, 7000, 8192)
PRETRAIN_TABLE = BatchTable(_PAPER_BOUNDS, (700, 570, 388, 288, 224, 180, 157, 128, 104))
"""Contrastive pre-training on GPUs of 80 GB (arXiv 2402.03216v4, appendix on implementation)."""
FINETUNE_TABLE = BatchTable(_PAPER_BOUNDS, (48, 32, 20, 18, 14, 14, 12, 10, 8))
"""Fine-tuning with 7 negatives on GPUs of 80 GB (the same place)."""


def probe_table(fits: Callable[[int, int], bool], bounds: Sequence[int], most: int = 1 << 16) -> BatchTable:
    """Finds the largest batch of each bucket by trying.

    Args:
        fits: Whether a batch of so many rows (second argument) of so many tokens (first) can be trained on. It is
            taken to be monotonous: what fits also fits shorter or fewer.
        bounds: Ascending bounds of the buckets.
        most: Never try more rows than this.

    Raises:
        InputError: If not even one row of some length fits.
    """
    sizes: list[int] = []
    good = 1
    for bound in reversed(bounds):
        if not fits(bound, good):
            raise InputError(f"probe_table: not even {good} rows of {bound} tokens fit")
        bad = most + 1
        while good < most:
            trial = min(good * 2, most)
            if not fits(bound, trial):
                bad = trial
                break
            good = trial
        while bad - good > 1:
            middle = (good + bad) // 2
            good, bad = (middle, bad) if fits(bound, middle) else (good, middle)
        sizes.append(good)
    return BatchTable(tuple(bounds), tuple(reversed(sizes)))
