"""Which texts run together, and how a batch's representations come back to the processor."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray


def batches(lengths: NDArray[np.int64], budget: int, *, padded: bool = True) -> Iterator[slice]:
    """Cuts texts that are sorted by falling length into batches of at most `budget` tokens.

    A text longer than the budget stands alone.

    Args:
        lengths: Tokens of each text, falling.
        budget: Most tokens of a batch.
        padded: Whether every text counts as long as the longest of its batch.
    """
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        if padded:
            last = min(len(lengths), first + budget // int(lengths[first]))
        else:
            last = int(np.searchsorted(ends, ends[first] - lengths[first] + budget, side="right"))
        last = max(first + 1, last)
        yield slice(first, last)
        first = last
