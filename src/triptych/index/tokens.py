"""Token vectors in the precision in which they are stored: float32, float16, 8 bits or 1 bit a number.

- int8: every vector has one float32 scale d, and ``value = d · code`` with code in -127..127
- binary: the sign of every number; a vector of D' signs stands for ``±1 / √D'``, so that its length is 1
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.index.layout import TokenPrecision
from triptych.types import Floats, Ragged


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token vectors of N documents, packed.

    Attributes:
        codes: ``[T, C]``: float32, float16 or int8 with C = D'; for "binary" uint8 with C = ⌈D'/8⌉.
        scales: float32 ``[T]`` for "int8", else None.
        offsets: int64 ``[N + 1]``; document i has the rows ``offsets[i]:offsets[i + 1]``.
        width: D'.
        precision: Which form `codes` has.
    """

    codes: NDArray[Any]
    scales: Floats | None
    offsets: NDArray[np.int64]
    width: int
    precision: TokenPrecision

    @classmethod
    def pack(cls, ragged: Ragged, precision: TokenPrecision) -> Tokens:
        """Packs vectors ``[n_i, D']``."""
        values, scales = ragged.values, None
        if precision == "int8":
            largest = np.abs(values).max(axis=1, initial=0).astype(np.float32)
            scales = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
            codes: NDArray[Any] = np.rint(values / scales[:, None]).astype(np.int8)
        elif precision == "binary":
            codes = np.packbits(values >= 0, axis=1)
        else:
            codes = values.astype(precision)
        return cls(codes, scales, ragged.offsets, ragged.width, precision)

    def unpack(self) -> Ragged:
        """The vectors that the codes stand for, float32."""
        if self.precision == "binary":
            bits = np.unpackbits(self.codes, axis=1, count=self.width)
            values = (bits.astype(np.float32) * 2 - 1) / np.float32(np.sqrt(self.width))
        else:
            values = self.codes.astype(np.float32)
            if self.scales is not None:
                values *= self.scales[:, None]
        return Ragged(values, self.offsets)

    def take(self, documents: NDArray[np.int64]) -> Tokens:
        """The documents of these numbers, in that order."""
        lengths = np.diff(self.offsets)[documents]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        rows = np.repeat(self.offsets[documents] - offsets[:-1], lengths) + np.arange(offsets[-1])
        scales = None if self.scales is None else self.scales[rows]
        return Tokens(self.codes[rows], scales, offsets, self.width, self.precision)

    def run(self, start: int, stop: int) -> Tokens:
        """The documents from `start` to before `stop`, without a copy."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        scales = None if self.scales is None else self.scales[first:last]
        offsets = self.offsets[start : stop + 1] - first
        return Tokens(self.codes[first:last], scales, offsets, self.width, self.precision)

    @classmethod
    def concat(cls, parts: Sequence[Tokens]) -> Tokens:
        """Joins parts of the same width and precision."""
        lengths = np.concatenate([np.diff(part.offsets) for part in parts])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        scales = [part.scales for part in parts if part.scales is not None]
        codes = np.concatenate([part.codes for part in parts])
        joined = np.concatenate(scales) if scales else None
        return cls(codes, joined, offsets, parts[0].width, parts[0].precision)


def to_text(tokens: Tokens, document: int) -> str:
    """The binary codes of one document as base64, for a payload: the engines have no vectors of one bit."""
    rows = tokens.codes[tokens.offsets[document] : tokens.offsets[document + 1]]
    return base64.b64encode(rows.tobytes()).decode("ascii")


def from_texts(texts: Sequence[str], width: int) -> Tokens:
    """The inverse of `to_text` for several documents; an empty text is a document without vectors."""
    row = (width + 7) // 8
    blobs = [base64.b64decode(text) for text in texts]
    offsets = np.zeros(len(blobs) + 1, dtype=np.int64)
    np.cumsum([len(blob) // row for blob in blobs], out=offsets[1:])
    codes = np.frombuffer(b"".join(blobs), dtype=np.uint8).reshape(-1, row)
    return Tokens(codes, None, offsets, width, "binary")
