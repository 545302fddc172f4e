"""What smaller token vectors cost: fewer dimensions, fewer bits, fewer vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from triptych.eval.scan import Variant, same
from triptych.ops.rowquant import Quantized
from triptych.types import Floats, Ragged

Bits: TypeAlias = Literal[32, 16, 8, 4, 1]


class Form(NamedTuple):
    """A form of token vectors.

    Attributes:
        bits: A number: 32 and 16 are floats, 8 and 4 codes with scales, 1 the sign.
        dims: Numbers a vector that are kept; None: all.
        basis: Which: the "first" (as of a model trained for that), or principal components ("pca") of the corpus.
        pooled: How many neighbouring tokens are averaged to one vector.
    """

    bits: Bits = 32
    dims: int | None = None
    basis: Literal["first", "pca"] = "first"
    pooled: int = 1

    @property
    def name(self) -> str:
        """Such as ``pca 96, 4 bits``."""
        parts = [f"{self.basis} {self.dims} dimensions"] if self.dims else []
        parts += [f"{self.pooled} tokens a vector"] if self.pooled > 1 else []
        parts += [f"{self.bits} bit{'s' if self.bits > 1 else ''}"] if self.bits < 32 or not parts else []
        return ", ".join(parts)


def forms(width: int) -> tuple[Form, ...]:
    """What is compared for vectors of this width: the bits, the dimensions and the pooling alone, and some of both."""
    halves = [width // 2, width // 4, width // 8]
    dims = [dim for dim in halves if dim >= 8]
    found = [Form(), Form(16), Form(8), Form(4), Form(1)]
    found += [Form(32, dim, basis) for dim in dims for basis in ("pca", "first")]
    found += [Form(32, pooled=2), Form(32, pooled=4)]
    found += [Form(4, dim, "pca") for dim in dims[:2]] + [Form(4, pooled=2)]
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Change:
    """A form, ready to be applied.

    Attributes:
        form: Which.
        turn: float32 ``[D', dims]``, onto what is kept; None: everything is.
    """

    form: Form
    turn: Floats | None

    @classmethod
    def of(cls, form: Form, axes: Floats, width: int) -> Change:
        """`axes` are ``[D', D']``: the principal components in falling order, as columns."""
        if form.dims is None or form.dims >= width:
            return cls(form, None)
        whole = axes if form.basis == "pca" else np.eye(width, dtype=np.float32)
        return cls(form, np.ascontiguousarray(whole[:, : form.dims]))

    def queries(self, tokens: Ragged) -> Ragged:
        """Query vectors keep their numbers as they are: they are stored nowhere."""
        return self._turned(tokens)

    def documents(self, tokens: Ragged) -> Ragged:
        """What is left of the documents' vectors, as float32."""
        tokens = self._turned(_pooled(tokens, self.form.pooled))
        return Ragged(_rounded(tokens.values, self.form.bits), tokens.offsets)

    def bytes(self, tokens: Ragged) -> int:
        """What documents take in this form: codes and scales."""
        width = tokens.width if self.turn is None else self.turn.shape[1]
        rows = int((-(-tokens.lengths // self.form.pooled)).sum())
        row = {32: 4 * width, 16: 2 * width, 8: width + 4, 4: -(-width // 32) * 18, 1: -(-width // 8)}
        return rows * row[self.form.bits]

    def _turned(self, tokens: Ragged) -> Ragged:
        if self.turn is None:
            return tokens
        return Ragged(_unit(tokens.values.astype(np.float32, copy=False) @ self.turn), tokens.offsets)


def variant(form: Form, queries: Ragged, axes: Floats) -> Variant:
    """The form as the re-scoring takes it."""
    if form == Form():
        return Variant(queries, same)
    change = Change.of(form, axes, queries.width)
    return Variant(change.queries(queries), change.documents)


def principal_axes(tokens: Ragged, most: int = 200_000) -> Floats:
    """The directions in which token vectors lie, the most important first, as columns ``[D', D']``.

    They are those of the second moments about 0, not about the mean: inner products are what has to be kept.
    """
    values = cast(NDArray[np.float32], tokens.values[:most].astype(np.float64))
    _, vectors = np.linalg.eigh(values.T @ values)
    return np.ascontiguousarray(vectors[:, ::-1], dtype=np.float32)


def _rounded(values: NDArray[np.float32], bits: Bits) -> Floats:
    rounds: dict[int, Callable[[NDArray[np.float32]], Floats]] = {
        32: lambda x: x.astype(np.float32, copy=False),
        16: lambda x: x.astype(np.float16).astype(np.float32),
        8: lambda x: Quantized.of(x, 8).dequantize(),
        4: lambda x: Quantized.of(x, 4).dequantize(),
        1: lambda x: np.where(x >= 0, 1, -1).astype(np.float32) / np.float32(np.sqrt(x.shape[1])),
    }
    return rounds[bits](values) if len(values) else values.astype(np.float32)


def _pooled(tokens: Ragged, factor: int) -> Ragged:
    """Means of runs of `factor` neighbours (the last of a text may be shorter), of length 1 again."""
    if factor == 1 or not len(tokens.values):
        return tokens
    counts = -(-tokens.lengths // factor)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], counts)
    starts = np.repeat(tokens.offsets[:-1], counts) + factor * within
    sums = np.add.reduceat(tokens.values.astype(np.float32), starts, axis=0)
    return Ragged(_unit(sums), offsets)


def _unit(values: Floats) -> Floats:
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    return np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
