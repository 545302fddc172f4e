"""Several data sets as one, and the sources that a sampler draws from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from triptych.data.sampling import Source
from triptych.errors import InputError

_Row = TypeVar("_Row", covariant=True)


class Dataset(Protocol[_Row]):
    """Rows by number, with their lengths: `PairDataset`, `TextDataset` or your own.

    Attributes:
        name: What reports call it.
        lengths: int32 ``[N]``, tokens of each row.
    """

    name: str
    lengths: NDArray[np.int32]

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> _Row: ...

    def languages(self) -> list[str | None]:
        """Each row's language, as far as it is known."""
        ...


class Datasets(Generic[_Row]):
    """Several data sets, one after the other, with row numbers that run through all of them.

    Args:
        parts: One or more.

    Attributes:
        parts: The same.
        offsets: int64 ``[len(parts) + 1]``; rows of part i are ``offsets[i]`` to ``offsets[i + 1] - 1``.
    """

    def __init__(self, parts: Sequence[Dataset[_Row]]) -> None:
        if not parts:
            raise InputError("Datasets: got no data set; expected one or more")
        self.parts = tuple(parts)
        self.offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def part_of(self, row: int) -> int:
        """Number of the data set that has this row."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return int(np.searchsorted(self.offsets, row, side="right")) - 1

    def __getitem__(self, row: int) -> _Row:
        part = self.part_of(row)
        return self.parts[part][row - int(self.offsets[part])]

    @property
    def lengths(self) -> NDArray[np.int32]:
        """int32 ``[N]``, tokens of each row, or of its longest text."""
        return np.concatenate([part.lengths for part in self.parts])

    def sources(self, *, by_language: bool = False, weights: Sequence[float] | None = None) -> list[Source]:
        """What the sampler draws from: one source a data set, or one a data set and language.

        Args:
            by_language: Cut each data set by its rows' ``lang``; rows without one are a source of their own.
            weights: One number ≥ 0 a data set; all 1 by default.

        Raises:
            InputError: For a wrong number of weights.
        """
        given = [1.0] * len(self.parts) if weights is None else list(weights)
        if len(given) != len(self.parts):
            raise InputError(f"weights: got {len(given)} numbers; expected {len(self.parts)}, one a data set")
        found: list[Source] = []
        for part, start, weight in zip(self.parts, self.offsets, given, strict=False):
            whole = Source(part.name, np.arange(start, start + len(part)), part.lengths, weight)
            found += _by_language(whole, part.languages()) if by_language else [whole]
        return found


def _by_language(whole: Source, languages: list[str | None]) -> list[Source]:
    names = np.array([language or "" for language in languages])
    return [
        replace(
            whole,
            name=f"{whole.name}:{language or '?'}",
            rows=whole.rows[names == language],
            lengths=whole.lengths[names == language],
        )
        for language in sorted(set(names.tolist()))
    ]
