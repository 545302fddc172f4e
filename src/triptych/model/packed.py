"""A batch of token ids without padding, and which of its positions count in which head.

From one weight a position to one row a text: the lexical representation as a sparse matrix.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from triptych.config import M3Config
from triptych.types import Floats, Head


@dataclass(frozen=True, slots=True)
class Packed:
    """N texts in one flat buffer.

    Attributes:
        ids: int64 ``[T]``, token ids, special ones included.
        offsets: int64 ``[N + 1]``; text i is ``ids[offsets[i]:offsets[i + 1]]``. No text is empty.
        lengths: The same as Python numbers, so that nobody waits for the device to read them.
        host: The same batch on the processor, if it was made there and `ids` is on another device: what depends
            on the ids alone is found out there, while the device computes.
    """

    ids: Tensor
    offsets: Tensor
    lengths: tuple[int, ...]
    host: Packed | None = None

    @classmethod
    def of(
        cls, texts: Sequence[NDArray[np.integer] | Sequence[int]], device: torch.device | None = None
    ) -> Packed:
        """Packs lists of token ids."""
        lengths = tuple(len(text) for text in texts)
        flat = (
            np.concatenate([np.asarray(text, dtype=np.int64) for text in texts])
            if texts
            else np.zeros(0, np.int64)
        )
        offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int64)
        here = cls(torch.from_numpy(flat), offsets, lengths)
        if device is None or device.type == "cpu":
            return here
        return cls(sent(here.ids, device), sent(offsets, device), lengths, here)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def rows(self) -> Tensor:
        """int64 ``[T]``: the text to which each position belongs."""
        numbers = torch.arange(len(self), device=self.ids.device)
        return numbers.repeat_interleave(self.offsets.diff(), output_size=len(self.ids))


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; from the processor to a GPU without waiting for what that is computing."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def moved(batch: Packed, device: torch.device) -> Packed:
    """A batch on a device; what is known of it on the processor stays with it."""
    here = batch if batch.ids.device.type == "cpu" else batch.host
    return Packed(sent(batch.ids, device), sent(batch.offsets, device), batch.lengths, here)


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """Token ids with a meaning of their own; None where a tokenizer has no such token."""

    cls: int
    eos: int
    pad: int
    unk: int | None = None

    @property
    def never_lexical(self) -> tuple[int, ...]:
        """Ids that have no lexical weight: [CLS], [EOS], padding, unknown."""
        return tuple({self.cls, self.eos, self.pad} | ({self.unk} if self.unk is not None else set()))


def positions(batch: Packed, head: Head, config: M3Config, special: SpecialIds) -> Tensor:
    """Which positions count in a head: the one place where this is decided.

    - dense: the first (`cls`), all (`mean`), or every [CLS] (`mcls`);
    - lexical: all but special and unknown tokens;
    - multi: all but, with `mcls`, the further [CLS]; the first and the last if the configuration says so.

    Returns:
        bool ``[T]``.
    """
    ids = batch.ids
    everything = torch.ones_like(ids, dtype=torch.bool)
    starts, ends = batch.offsets[:-1], batch.offsets[1:] - 1
    if head == "dense":
        if config.pooling == "mean":
            return everything
        if config.pooling == "mcls":
            return ids == special.cls
        return torch.zeros_like(everything).index_fill_(0, starts, True)
    if head == "lexical":
        return ~torch.isin(ids, torch.tensor(special.never_lexical, device=ids.device))
    counted = ids != special.cls if config.pooling == "mcls" else everything
    counted = counted.index_fill(0, starts, config.multi_first)
    return counted if config.multi_last else counted.index_fill(0, ends, False)


@dataclass(frozen=True, slots=True)
class Reps:
    """The representations of a packed batch; a head that was not asked for is None.

    Attributes:
        ids: int64 ``[T]``, the token ids of the batch.
        offsets: int64 ``[N + 1]``.
        dense: float32 ``[N, D]``, rows of length 1.
        lexical: float32 ``[T]`` ≥ 0, one weight a position; 0 where the position does not count.
        multi: ``[M, D']``, rows of length 1, for the positions that count.
        multi_offsets: int64 ``[N + 1]``, the texts' bounds in `multi`.
    """

    ids: Tensor
    offsets: Tensor
    dense: Tensor | None = None
    lexical: Tensor | None = None
    multi: Tensor | None = None
    multi_offsets: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int64))


def lexical_rows(
    ids: NDArray[Any], weights: Floats, offsets: NDArray[np.int64], vocabulary: int
) -> sparse.csr_array:
    """The largest weight of each token id of each text (arXiv 2402.03216v4, section 3.2, lexical retrieval).

    Args:
        ids: ``[T]`` token ids of N packed texts.
        weights: float32 ``[T]`` ≥ 0; 0 for positions that do not count.
        offsets: ``[N + 1]``.
        vocabulary: V, number of columns.

    Returns:
        CSR float32 ``[N, V]`` with sorted columns and no explicit zeros.
    """
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    kept = weights > 0
    key, weights = rows[kept] * vocabulary + ids[kept], weights[kept]
    order = np.argsort(key, kind="stable")
    key, weights = key[order], weights[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    data = np.maximum.reduceat(weights, first) if len(first) else weights
    rows, columns = np.divmod(key[first], vocabulary)
    indptr = np.searchsorted(rows, np.arange(len(offsets)))
    return sparse.csr_array((data, columns, indptr), shape=(len(offsets) - 1, vocabulary))
