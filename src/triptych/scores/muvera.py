"""One vector for all token vectors of a text, whose inner products stand for MaxSim (MUVERA, arXiv 2405.19504).

Token vectors fall into 2^bits parts by the signs of their products with random directions. A query's vector has, part
by part, the sum of its token vectors there. A document's has the mean; where it has none, the token vector whose part
differs in the fewest signs. A query token's product with its part of the document is then about that with its nearest
token. Each part is projected to few columns, and all is repeated with other directions. With no bits, all columns and
one repetition the vectors are the sum and the mean of all token vectors.

The directions are random signs that follow from the numbers alone, on every machine and with every version.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import shake_256

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from triptych.errors import InputError
from triptych.scores.on_numpy import cuts
from triptych.types import Floats, Ragged, check_int

_AT_ONCE = 2**22
"""Numbers of one repetition's largest intermediate: 16 MB."""


@dataclass(frozen=True)
class Muvera:
    """How token vectors become one.

    Attributes:
        width: Columns of a token vector.
        bits: The parts are 2^bits.
        columns: Columns of each part; `width`: they are not projected.
        repetitions: How often, with other directions.
    """

    width: int
    bits: int = 0
    columns: int = 16
    repetitions: int = 1

    def __post_init__(self) -> None:
        for name, least, most in (("bits", 0, 10), ("columns", 1, self.width), ("repetitions", 1, 1000)):
            check_int(getattr(self, name), f"fde: {name}", least, most)

    @property
    def size(self) -> int:
        """Columns of the vectors."""
        return self.repetitions * 2**self.bits * self.columns

    def documents(self, tokens: Ragged) -> Floats:
        """The vectors of documents.

        Args:
            tokens: N matrices ``[n_i, width]``.

        Returns:
            float32 ``[N, size]``; zeros for a document without token vectors.

        Raises:
            InputError: For another width.
        """
        return self._vectors(tokens, documents=True)

    def queries(self, tokens: Ragged) -> Floats:
        """The vectors of queries; arguments and result as of `documents`.

        Their products with those of documents stand for sums over a query's tokens, not means.
        """
        return self._vectors(tokens, documents=False)

    def _vectors(self, tokens: Ragged, *, documents: bool) -> Floats:
        if tokens.width != self.width:
            raise InputError(f"fde: got token vectors of {tokens.width} columns; expected {self.width}")
        found = np.zeros((len(tokens), self.size), np.float32)
        filled = np.flatnonzero(tokens.lengths)
        for run in cuts(tokens.lengths[filled], max(1, _AT_ONCE // max(2**self.bits, self.width))):
            rows = filled[run]
            starts = tokens.offsets[rows]
            values = tokens.values[starts[0] : tokens.offsets[rows[-1] + 1]].astype(np.float32)
            found[rows] = self._of(values, starts - starts[0], documents=documents)
        return found

    def _of(self, values: Floats, starts: NDArray[np.int64], *, documents: bool) -> Floats:
        """The vectors of texts of which each has a token vector."""
        signs, projection = self.directions
        parts, count, number = 2**self.bits, len(starts), np.arange(len(values))
        text = np.repeat(np.arange(count), np.diff(starts, append=len(values)))
        positive = (values @ signs).reshape(len(values), self.repetitions, self.bits) > 0
        part = positive @ (1 << np.arange(self.bits))
        projected = values if projection is None else values @ projection
        found = np.empty((count, self.repetitions, parts, self.columns), np.float32)
        for i in range(self.repetitions):
            first = 0 if projection is None else i * self.columns
            columns = projected[:, first : first + self.columns]
            place = text * parts + part[:, i]
            ones = np.ones(len(values), np.float32)
            total = sparse.csr_array((ones, (place, number)), (count * parts, len(values))) @ columns
            if documents:
                many = np.bincount(place, minlength=count * parts)[:, None]
                # The fewest different signs, and among equals the first token: both in one number.
                order = (self._distances[part[:, i]] << 32) + number[:, None]
                nearest = np.minimum.reduceat(order, starts, axis=0).ravel() & (2**32 - 1)
                total = np.where(many > 0, total / np.maximum(many, 1), columns[nearest])
            found[:, i] = total.reshape(count, parts, self.columns)
        return found.reshape(count, -1)

    @cached_property
    def directions(self) -> tuple[Floats, Floats | None]:
        """Random signs ``[width, repetitions · bits]``, and ``[width, repetitions · columns]`` to project with."""
        signs = _signs(self.width, self.repetitions * self.bits, "parts")
        if self.columns == self.width:
            return signs, None
        projection = _signs(self.width, self.repetitions * self.columns, "columns")
        return signs, projection / np.float32(np.sqrt(self.columns))

    @cached_property
    def _distances(self) -> NDArray[np.int64]:
        """``[2^bits, 2^bits]``, in how many signs two parts differ."""
        part = np.arange(2**self.bits, dtype=np.uint32)
        return np.bitwise_count(part[:, None] ^ part).astype(np.int64)


def _signs(rows: int, columns: int, name: str) -> Floats:
    drawn = np.frombuffer(shake_256(name.encode()).digest(rows * columns // 8 + 1), np.uint8)
    bits = np.unpackbits(drawn, count=rows * columns).reshape(rows, columns)
    return bits.astype(np.float32) * 2 - 1
