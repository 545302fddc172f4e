"""Token vectors in few bytes: packing, pooling, and the inner products that MaxSim is made of.

A vector v of D numbers is kept as codes that stand for another vector, which every score uses:

- float32, float16: the numbers themselves
- int8: every vector has one float32 scale d, and ``value = d · code`` with code in -127..127
- binary: the sign of every number, which stands for ``±1 / √D``
- 4bit, 2bit, 1bit: the difference from the collection's mean vector m; ``v ≈ m + d · (code - (2^b - 1) / 2)`` with b
  bits a number and one float16 scale d a vector, so chosen that the difference's inner product with what stands for
  it is right

A *frame* holds the mean and, where vectors are kept in fewer numbers, a basis B ``[D, W]`` of the directions in which
they differ most: the codes are then those of ``(v - m) B``, and stand for ``m + code B^T``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import pybase64
from numpy.typing import NDArray

from triptych.types import Floats, Ragged

TokenPrecision: TypeAlias = Literal["float32", "float16", "int8", "4bit", "2bit", "1bit", "binary", "none"]

BITS: Mapping[str, int] = {"4bit": 4, "2bit": 2, "1bit": 1, "binary": 1}
"""Bits a number of the forms whose codes are packed into bytes."""

_STEPS: Mapping[int, float] = {1: 1.0, 2: 0.996, 4: 0.335}
"""Distance of two codes in standard deviations: what loses least of normally distributed numbers."""

_UNPACKED = 512
"""Vectors that are unpacked at once, which stay in the cache."""

_FEW_QUERIES = 64
"""Below so many query vectors a product is faster with the documents' vectors as its rows."""

_FEW = 100
"""With so many vectors their mean counts half: that of fewer says little about a collection."""

_POOLED = 512
"""Vectors of a text that are clustered together; of a longer one consecutive runs."""

_UNPOOLED = 16
"""So many vectors of a run are left: a short text's say more each, and take little."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """From what token vectors are measured.

    Attributes:
        mean: float32 ``[D]``.
        basis: float32 ``[D, W]`` with orthonormal columns, or None: all D numbers are kept.
    """

    mean: Floats
    basis: Floats | None = None

    @classmethod
    def fit(cls, vectors: Ragged, width: int | None = None) -> Frame:
        """The mean of some vectors (drawn towards 0 if they are few), and their first W principal directions.

        These are turned in their own space, so that no direction has more to say than another: codes of few bits have
        the same steps in all.
        """
        values = vectors.values.astype(np.float32, copy=False)
        mean = values.sum(axis=0) / np.float32(len(values) + _FEW)
        if width is None:
            return cls(mean)
        apart = values - mean
        directions = np.linalg.eigh(apart.T @ apart)[1][:, ::-1][:, :width]
        turn = np.linalg.qr(np.random.default_rng(0).standard_normal((width, width)))[0]
        return cls(mean, np.ascontiguousarray(directions @ turn.astype(np.float32)))

    @property
    def shape(self) -> tuple[int, int | None]:
        """D, and W where fewer are kept."""
        return len(self.mean), None if self.basis is None else int(self.basis.shape[1])

    def project(self, values: Floats) -> Floats:
        """From vectors ``[T, D]`` to what is kept of them, ``[T, W]``."""
        apart = values - self.mean
        return apart if self.basis is None else apart @ self.basis

    def restore(self, values: Floats) -> Floats:
        """The inverse of `project`, as far as there is one."""
        return self.mean + (values if self.basis is None else values @ self.basis.T)

    def to_json(self) -> dict[str, str]:
        """The little-endian bytes of both as base64."""
        parts = {"mean": self.mean} | ({} if self.basis is None else {"basis": self.basis})
        return {
            name: pybase64.b64encode_as_string(part.astype("<f4").tobytes()) for name, part in parts.items()
        }

    @classmethod
    def from_json(cls, value: Mapping[str, str]) -> Frame:
        """The inverse of `to_json`.

        Raises:
            ValueError: If it is not that; likewise KeyError and TypeError.
        """
        parts = {name: np.frombuffer(pybase64.b64decode(text), "<f4") for name, text in value.items()}
        mean, basis = parts["mean"], parts.get("basis")
        return cls(mean, None if basis is None else basis.reshape(len(mean), -1))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Frame) and self.to_json() == other.to_json()

    __hash__ = None  # type: ignore[assignment]


@dataclass(frozen=True, slots=True)
class TokenForm:
    """In which form token vectors are kept.

    Attributes:
        width: D.
        precision: See the module's text.
        kept: W, the numbers that are kept of a vector; without a frame the first.
        frame: Of the forms that need one, as soon as there are vectors.
    """

    width: int
    precision: TokenPrecision
    kept: int
    frame: Frame | None = None

    @property
    def row(self) -> int:
        """Bytes of a vector's codes, without its scale."""
        bits = BITS.get(self.precision)
        if bits is not None:
            return (self.kept * bits + 7) // 8
        return self.kept * {"float32": 4, "float16": 2, "int8": 1, "none": 0}[self.precision]

    @property
    def scale(self) -> type[np.float16] | type[np.float32] | None:
        """The type of the scales, where vectors have some."""
        if self.precision == "int8":
            return np.float32
        return np.float16 if self.precision in BITS and self.precision != "binary" else None

    @property
    def bytes_per_token(self) -> int:
        """Bytes of a vector."""
        return self.row + (0 if self.scale is None else np.dtype(self.scale).itemsize)


@dataclass(frozen=True, slots=True)
class Tokens:
    """The token vectors of N documents, packed.

    Attributes:
        codes: ``[T, C]``: float32, float16 or int8 with C = W; for fewer bits uint8 with C = ⌈W · bits / 8⌉.
        scales: float32 ``[T]`` for "int8", float16 for "1bit" to "4bit", else None.
        offsets: int64 ``[N + 1]``; document i has the rows ``offsets[i]:offsets[i + 1]``.
        form: Which form `codes` has.
    """

    codes: NDArray[Any]
    scales: NDArray[Any] | None
    offsets: NDArray[np.int64]
    form: TokenForm

    @classmethod
    def pack(cls, ragged: Ragged, form: TokenForm) -> Tokens:
        """Packs vectors ``[n_i, D]``."""
        precision, scales = form.precision, None
        values = ragged.values.astype(np.float32, copy=False)
        values = values[:, : form.kept] if form.frame is None else form.frame.project(values)
        if precision == "int8":
            largest = np.abs(values).max(axis=1, initial=0).astype(np.float32)
            scales = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype(np.float32)
            codes: NDArray[Any] = np.rint(values / scales[:, None]).astype(np.int8)
        elif precision == "binary":
            codes = np.packbits(values >= 0, axis=1)
        elif precision in BITS:
            codes, scales = _pack_bits(values, BITS[precision])
        else:
            codes = values.astype(precision)
        return cls(codes, scales, ragged.offsets, form)

    @classmethod
    def of(cls, ragged: Ragged) -> Tokens:
        """Vectors as they are."""
        return cls(ragged.values, None, ragged.offsets, TokenForm(ragged.width, "float32", ragged.width))

    def unpack(self) -> Ragged:
        """The vectors that the codes stand for, float32."""
        values = self._values(0, len(self.codes))
        if self.scales is not None:
            values = values * self.scales.astype(np.float32)[:, None]
        return Ragged(values if self.form.frame is None else self.form.frame.restore(values), self.offsets)

    def products(self, queries: Floats, first: int, last: int) -> Floats:
        """Inner products of query vectors ``[S, D]`` with the vectors from `first` to before `last`, ``[S, T]``."""
        frame, size = self.form.frame, (len(queries), last - first)
        kept = queries if frame is None or frame.basis is None else queries @ frame.basis
        few = len(queries) < _FEW_QUERIES
        total: Floats = np.empty(size[::-1], np.float32).T if few else np.empty(size, np.float32)
        packed = BITS.get(self.form.precision)
        step = max(1, last - first) if packed is None else min(_UNPACKED, max(1, last - first))
        # One buffer for all: memory that is given back to the system costs more than what is written there.
        room = None if packed is None else np.empty((step, self.form.row, 8 // packed), np.float32)
        for at in range(first, last, step):
            end = min(at + step, last)
            np.matmul(kept, self._values(at, end, room).T, out=total[:, at - first : end - first])
        if self.scales is not None:
            total *= self.scales[first:last].astype(np.float32)
        if frame is not None:
            total += (queries @ frame.mean)[:, None]
        return total

    def _values(self, first: int, last: int, room: Floats | None = None) -> Floats:
        """What codes stand for before scale and frame, float32 ``[T, W]``; written to `room` ``[≥ T, C, 8 / bits]``."""
        codes, form = self.codes[first:last], self.form
        if form.precision not in BITS:
            return codes.astype(np.float32, copy=False)
        out = None if room is None else room[: len(codes)]
        # Every byte is a row of the table, so that nothing is clipped; without that word numpy makes a copy first.
        levels = np.take(_levels(BITS[form.precision]), codes, axis=0, out=out, mode="clip")
        values = levels.reshape(len(codes), form.row * levels.shape[2])[:, : form.kept]
        if form.precision == "binary":
            values *= np.float32(2 / np.sqrt(form.width))
        return values

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 ``[N]``, the number of vectors of each document."""
        return np.diff(self.offsets)

    @property
    def width(self) -> int:
        """D."""
        return self.form.width

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def take(self, documents: NDArray[np.int64]) -> Tokens:
        """The documents of these numbers, in that order."""
        lengths = self.lengths[documents]
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        rows = np.repeat(self.offsets[documents] - offsets[:-1], lengths) + np.arange(offsets[-1])
        scales = None if self.scales is None else self.scales[rows]
        return Tokens(self.codes[rows], scales, offsets, self.form)

    def run(self, start: int, stop: int) -> Tokens:
        """The documents from `start` to before `stop`, without a copy."""
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        scales = None if self.scales is None else self.scales[first:last]
        return Tokens(self.codes[first:last], scales, self.offsets[start : stop + 1] - first, self.form)

    @classmethod
    def concat(cls, parts: Sequence[Tokens]) -> Tokens:
        """Joins parts of the same form."""
        lengths = np.concatenate([part.lengths for part in parts])
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
        scales = [part.scales for part in parts if part.scales is not None]
        codes = np.concatenate([part.codes for part in parts])
        return cls(codes, np.concatenate(scales) if scales else None, offsets, parts[0].form)

    def to_bytes(self, document: int) -> bytes:
        """The codes of one document, and after them its scales."""
        first, last = int(self.offsets[document]), int(self.offsets[document + 1])
        scales = b"" if self.scales is None else self.scales[first:last].tobytes()
        return self.codes[first:last].tobytes() + scales

    def to_text(self, document: int) -> str:
        """`to_bytes` as base64."""
        return pybase64.b64encode_as_string(self.to_bytes(document))

    @classmethod
    def from_bytes(cls, blobs: Sequence[bytes], form: TokenForm) -> Tokens:
        """The inverse of `to_bytes` for several documents; one without bytes has no vectors.

        Raises:
            ValueError: If one is not of this form.
        """
        row, each = form.row, form.bytes_per_token
        counts = [0, *(len(blob) // each for blob in blobs)]
        for blob, count in zip(blobs, counts[1:], strict=True):
            if len(blob) != count * each:
                raise ValueError(f"{len(blob)} bytes are not a number of vectors of {each}")
        codes = b"".join([blob[: count * row] for blob, count in zip(blobs, counts[1:], strict=True)])
        scales = b"".join([blob[count * row :] for blob, count in zip(blobs, counts[1:], strict=True)])
        dtype = "uint8" if form.precision in BITS else form.precision
        return cls(
            np.frombuffer(codes, np.uint8).reshape(sum(counts), row).view(dtype),
            None if form.scale is None else np.frombuffer(scales, form.scale),
            np.cumsum(counts),
            form,
        )

    @classmethod
    def from_texts(cls, texts: Sequence[str], form: TokenForm) -> Tokens:
        """The inverse of `to_text` for several documents; raises what `from_bytes` does."""
        return cls.from_bytes([pybase64.b64decode(text, validate=True) for text in texts], form)


def _pack_bits(values: Floats, bits: int) -> tuple[NDArray[np.uint8], NDArray[np.float16]]:
    """Codes of so many bits, and the scale that makes the inner product of a vector with what stands for it right."""
    per = 8 // bits
    packed = np.zeros((len(values), -(-values.shape[1] // per)), np.uint8)
    scales = np.zeros(len(values), np.float16)
    for at in range(0, len(values), _UNPACKED):
        some, half = values[at : at + _UNPACKED], 1 << (bits - 1)
        squares = np.einsum("tw,tw->t", some, some)
        steps = np.sqrt(squares / some.shape[1]) * np.float32(_STEPS[bits])
        codes = some / np.where(steps > 0, steps, np.float32(1))[:, None]
        codes += half
        np.floor(codes, out=codes)
        np.clip(codes, 0, 2 * half - 1, out=codes)
        product = np.einsum("tw,tw->t", some, codes) - np.float32(half - 0.5) * some.sum(axis=1)
        np.divide(squares, product, out=scales[at : at + _UNPACKED], where=product > 0, casting="same_kind")
        whole = codes.astype(np.uint8)
        for place in range(per):
            part = whole[:, place::per]
            packed[at : at + _UNPACKED, : part.shape[1]] |= part << (bits * (per - 1 - place))
    return packed, scales


@cache
def _levels(bits: int) -> Floats:
    """What the numbers in each byte stand for, float32 ``[256, 8 / bits]``."""
    shifts = bits * np.arange(8 // bits - 1, -1, -1)
    codes = np.arange(256)[:, None] >> shifts & (1 << bits) - 1
    return (codes - ((1 << bits) - 1) / 2).astype(np.float32)


def pool(vectors: Ragged, factor: int) -> Ragged:
    """Joins the token vectors of each text that resemble each other: about ``n / factor`` means remain of n.

    Clusters are Ward's; a mean has the length 1, as the vectors have. 16 vectors, or all, remain of a short text.

    Args:
        vectors: N matrices ``[n_i, D]``.
        factor: ≥ 1.
    """
    if factor == 1:
        return vectors
    values = Ragged(vectors.values.astype(np.float32, copy=False), vectors.offsets)
    return Ragged.of([_pool_text(rows, factor) for rows in values], vectors.width)


def pooled_lengths(lengths: NDArray[np.int64], factor: int) -> NDArray[np.int64]:
    """How many vectors `pool` leaves of texts of at most 512, and about how many of longer ones."""
    return np.minimum(lengths, np.maximum(-(-lengths // factor), _UNPOOLED))


def _pool_text(rows: Floats, factor: int) -> Floats:
    runs = [rows[at : at + _POOLED] for at in range(0, len(rows), _POOLED)]
    return np.concatenate([_pool_run(run, factor) for run in runs]) if runs else rows


def _pool_run(rows: Floats, factor: int) -> Floats:
    from scipy.cluster.hierarchy import fcluster, linkage  # a quarter of a second, which searches do not need
    from scipy.spatial.distance import squareform

    count = int(pooled_lengths(np.asarray([len(rows)]), factor)[0])
    if count == len(rows):
        return rows
    squares = np.square(rows).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] + squares - 2 * (rows @ rows.T), 0))
    tree = linkage(cast(Any, squareform(apart, checks=False)), "ward")
    label = fcluster(tree, count, "maxclust")
    order = np.argsort(label, kind="stable")
    sums = np.add.reduceat(rows[order], np.flatnonzero(np.diff(label[order], prepend=0)), axis=0)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.divide(sums, lengths, out=sums, where=lengths > 0)
