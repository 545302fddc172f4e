"""Batches of token ids without padding.

Which texts run together, which positions count in which head, and how the batches' representations come back to the
processor in the callers' order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, groupby
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from triptych.config import M3Config
from triptych.model.tokenizer import Ids, SpecialIds
from triptych.types import Encoded, Floats, Head, Ragged

if TYPE_CHECKING:
    from triptych.model.m3 import M3Model

TOKEN_BUDGET = {"cpu": 4096, "cuda": 65536, "mps": 8192}
"""Tokens of one forward pass: large enough for full speed, small enough for a laptop's memory."""


_FEW = 64
"""Tokens of a text up to which plain Python is faster than NumPy."""


@dataclass(frozen=True, slots=True)
class Packed:
    """N texts in one flat buffer.

    Attributes:
        ids: int64 ``[T]``, token ids, special ones included.
        offsets: int64 ``[N + 1]``; text i is ``ids[offsets[i]:offsets[i + 1]]``. No text is empty.
        lengths: The lengths as Python numbers, which avoids a device sync.
        host: The same batch on the processor, if it was made there and `ids` is on another device: what depends
            on the ids alone is computed there while the device computes.
        prefix: Token ids with which the texts of this batch begin, [CLS] included, and which are a prefix rather
            than text; None: not known, so that the model's own prefixes are looked for.
        prompts: The same for each text that has a prefix of its own, and None for each other; None: none has.
    """

    ids: Tensor
    offsets: Tensor
    lengths: tuple[int, ...]
    host: Packed | None = None
    prefix: tuple[int, ...] | None = None
    prompts: tuple[tuple[int, ...] | None, ...] | None = None

    @classmethod
    def of(
        cls,
        texts: Sequence[NDArray[np.integer] | Sequence[int]],
        device: torch.device | None = None,
        prefix: tuple[int, ...] | None = None,
        prompts: tuple[tuple[int, ...] | None, ...] | None = None,
    ) -> Packed:
        """Packs lists of token ids."""
        flat = [np.asarray(text, dtype=np.int64) for text in texts]
        ids = torch.from_numpy(np.concatenate(flat) if flat else np.zeros(0, np.int64))
        lengths = tuple(len(text) for text in texts)
        offsets = torch.tensor([0, *accumulate(lengths)], dtype=torch.int64)
        batch = cls(ids, offsets, lengths, prefix=prefix, prompts=prompts)
        return batch if device is None or device.type == "cpu" else batch.to(device)

    def to(self, device: torch.device) -> Packed:
        """The batch on a device; it keeps its copy on the processor, if it has one."""
        host = self if self.ids.device.type == "cpu" else self.host
        ids, offsets = to_device(self.ids, device), to_device(self.offsets, device)
        return Packed(ids, offsets, self.lengths, host, self.prefix, self.prompts)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def rows(self) -> Tensor:
        """int64 ``[T]``: the text to which each position belongs."""
        numbers = torch.arange(len(self), device=self.ids.device)
        return numbers.repeat_interleave(self.offsets.diff(), output_size=len(self.ids))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on a device; copies from the processor to a GPU are asynchronous."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


@dataclass(frozen=True, slots=True)
class Shape:
    """What attention needs to know of a packed batch.

    Attributes:
        lengths: Tokens of each text.
        bounds: int32 ``[N + 1]`` on the device, for kernels that take texts of unequal length.
        longest: Tokens of the longest text. A field, not ``max(lengths)``, since compiled code that reads
            `lengths` would be compiled again for every batch.
        tiles: int32 ``[3, tiles]`` on the device, for the fused kernel (`triptych.model.fused.tiles_of`).
    """

    lengths: tuple[int, ...]
    bounds: Tensor
    longest: int
    tiles: Tensor | None = None

    @classmethod
    def of(cls, lengths: tuple[int, ...], bounds: Tensor) -> Shape:
        """The shape of one or more texts."""
        return cls(lengths, bounds, max(lengths))


def runs(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Groups neighbours of equal length: (first token, number of texts, length of each)."""
    groups = [(length, sum(1 for _ in same)) for length, same in groupby(lengths)]
    starts = accumulate((length * count for length, count in groups), initial=0)
    return [(start, count, length) for start, (length, count) in zip(starts, groups, strict=False)]


def position_ids(batch: Packed, padding_idx: int | None) -> Tensor:
    """Rows of the position table, int64 ``[T]``.

    BERT counts from 0. RoBERTa-like models (`padding_idx` given) count from ``padding_idx + 1`` and count only
    what is not the padding id, which a text may hold too (``<pad>`` written out).
    """
    real = torch.ones_like(batch.ids) if padding_idx is None else batch.ids.ne(padding_idx).long()
    count = real.cumsum(0)
    start = count.index_select(0, batch.offsets[:-1]) - real.index_select(0, batch.offsets[:-1])
    within = count - start.repeat_interleave(batch.offsets.diff(), output_size=len(batch.ids))
    return within - 1 if padding_idx is None else within * real + padding_idx


def positions(batch: Packed, head: Head, config: M3Config, special: SpecialIds) -> Tensor:
    """Which positions count in a head; see `counts`.

    Returns:
        bool ``[T]``.
    """
    ids, prefix = batch.ids, None
    if head == "lexical" and not config.prefix_in_lexical:
        prefix = _prefix_positions(batch, special)
    if ids.device.type == "cpu":  # for few tokens NumPy takes a quarter of torch's time
        first = np.zeros(len(ids), bool)
        last = first.copy()
        first[batch.offsets[:-1].numpy()] = last[batch.offsets[1:].numpy() - 1] = True
        return torch.from_numpy(counts(head, config, special, ids.numpy(), first, last, prefix))
    begin = torch.zeros_like(ids, dtype=torch.bool).index_fill_(0, batch.offsets[:-1], True)
    end = torch.zeros_like(begin).index_fill_(0, batch.offsets[1:] - 1, True)
    known = None if prefix is None else torch.from_numpy(prefix).to(ids.device)
    return counts(head, config, special, ids, begin, end, known)


Flags = TypeVar("Flags", Tensor, NDArray[np.bool_])


def counts(
    head: Head,
    config: M3Config,
    special: SpecialIds,
    ids: Any,
    first: Flags,
    last: Flags,
    prefix: Flags | None,
) -> Flags:
    """Which positions count in a head: the one place where this is decided, for any shape of batch.

    - dense: the first (`cls`), all (`mean`), or every [CLS] (`mcls`);
    - lexical: all but special and unknown tokens and the prefix before the text;
    - multi: all but, with `mcls`, the further [CLS]; the first and the last if the configuration says so.

    Args:
        head: The head.
        config: The model's configuration.
        special: Its special tokens.
        ids: int64, token ids: an array of NumPy or a tensor, as the others are.
        first: bool, the first position of each text.
        last: bool, the last position of each text.
        prefix: bool, positions of a prefix that does not count in the lexical head; None: there is none.

    Returns:
        bool, of the shape of `ids`.
    """
    every: Any = first | ~first  # true everywhere, in NumPy as in torch
    if head == "dense":
        if config.pooling == "mean":
            return every
        return first if config.pooling == "cls" else ids == special.cls
    if head == "lexical":
        for number in special.never_lexical:
            every = every & (ids != number)
        return every if prefix is None else every & ~prefix
    counted = ids != special.cls if config.pooling == "mcls" else every
    counted = counted | first if config.multi_first else counted & ~first
    return counted if config.multi_last else counted & ~last


def _prefix_positions(batch: Packed, special: SpecialIds) -> NDArray[np.bool_] | None:
    """Bool ``[T]``: where a text begins with the batch's prefix or, if that is not known, one of the model's.

    Of a prefix that is known to stand before the text, the positions up to the first that differs count: where
    the text was cut within the prefix, or its last token has become one with the text's first.
    """
    known = batch.prefix is not None
    prefixes = (batch.prefix,) if batch.prefix is not None else special.prefixes
    prefixes = tuple(prefix for prefix in prefixes if len(prefix) > 1)
    own = batch.prompts or ()
    if not (prefixes or any(own)) or not len(batch):
        return None
    ids = batch.ids.cpu().numpy()
    lengths = np.array(batch.lengths)
    starts = np.cumsum(lengths) - lengths
    longest = np.zeros(len(lengths), dtype=np.int64)
    for prefix in prefixes:
        reached = _matched(ids, starts, lengths, prefix)
        longest = np.maximum(longest, reached if known else np.where(reached == len(prefix), reached, 0))
    for prompt in {prompt for prompt in own if prompt is not None}:
        reached = _matched(ids, starts, lengths, prompt)
        longest = np.where([prompt == each for each in own], reached, longest)
    return np.arange(len(ids)) - np.repeat(starts, lengths) < np.repeat(longest, lengths)


def _matched(ids: Ids, starts: Ids, lengths: Ids, prefix: Sequence[int]) -> Ids:
    """With how many of a prefix's tokens each text begins, int64 ``[N]``."""
    same, reached = np.ones(len(lengths), dtype=bool), np.zeros(len(lengths), dtype=np.int64)
    for at, expected in enumerate(prefix):
        same = same & (at < lengths) & (ids[np.minimum(starts + at, len(ids) - 1)] == expected)
        reached += same
    return reached


@dataclass(frozen=True, slots=True)
class Reps:
    """The representations of a packed batch; a head that was not asked for is None.

    Attributes:
        ids: int64 ``[T]``, the token ids of the batch.
        offsets: int64 ``[N + 1]``.
        dense: float32 ``[N, D]``, rows of length 1.
        lexical: float32 ``[T]`` ≥ 0, one weight per position; 0 where the position does not count.
        multi: ``[M, D']``, rows of length 1, for the positions that count.
        multi_offsets: int64 ``[N + 1]``, the texts' bounds in `multi`.
        projected: ``[N, T]``, `dense` in the space of a teacher's vectors; in training with such vectors alone.
    """

    ids: Tensor
    offsets: Tensor
    dense: Tensor | None = None
    lexical: Tensor | None = None
    multi: Tensor | None = None
    multi_offsets: Tensor = field(default_factory=lambda: torch.zeros(1, dtype=torch.int64))
    projected: Tensor | None = None

    def to_encoded(self, vocabulary: int) -> Encoded:
        """The same as arrays on the processor; V is the number of columns of the lexical rows."""
        dense, lexical, multi = (
            None if part is None else part.float().cpu().numpy()
            for part in (self.dense, self.lexical, self.multi)
        )
        rows = None
        if lexical is not None:
            rows = lexical_rows(self.ids.cpu().numpy(), lexical, self.offsets.cpu().numpy(), vocabulary)
        bounds = self.multi_offsets.cpu().numpy()
        return Encoded(dense, rows, None if multi is None else Ragged(multi, bounds))


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
    if len(offsets) == 2 and len(ids) <= _FEW:  # for one query the arrays below cost more than their numbers
        best: dict[int, float] = {}
        for token, weight in zip(ids.tolist(), weights.tolist(), strict=True):
            if weight > best.get(token, 0.0):
                best[token] = weight
        found = sorted(best)
        values = np.array([best[token] for token in found], weights.dtype)
        bounds = np.array([0, len(found)])
        return sparse.csr_array((values, np.array(found, np.int64), bounds), shape=(1, vocabulary))
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


def usual_budget(model: M3Model, device: torch.device) -> int:
    """Tokens of one pass: by device, less if its memory is short."""
    usual = TOKEN_BUDGET.get(device.type, 4096)
    if device.type != "cuda":
        return usual
    config = cast(Any, model.backbone).config
    # The FFN's wide states before and after the activation, query, key, value, and a few states, in 4 bytes.
    per_token = 4 * (2 * config.intermediate_size + 8 * config.hidden_size)
    free, _total = torch.cuda.mem_get_info(device)
    return int(min(usual, max(8192, free // 2 // per_token)))


def batches(
    lengths: NDArray[np.int64], budget: int, *, padded: bool = True, most: int | None = None
) -> Iterator[slice]:
    """Cuts texts that are sorted by falling length into batches of at most `budget` tokens.

    A text longer than the budget stands alone.

    Args:
        lengths: Tokens of each text, falling.
        budget: Maximum tokens per batch.
        padded: Whether every text counts as long as the longest of its batch.
        most: Texts per batch, at most.
    """
    ends = np.cumsum(lengths)
    first = 0
    while first < len(lengths):
        if padded:
            last = min(len(lengths), first + budget // int(lengths[first]))
        else:
            last = int(np.searchsorted(ends, ends[first] - lengths[first] + budget, side="right"))
        last = max(first + 1, min(last, first + (most or len(lengths))))
        yield slice(first, last)
        first = last
