"""Which texts run together, and how a batch's representations come back to the processor.

Bringing batches' representations to the processor and into the callers' order, each value copied once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from triptych.model.forward import supported
from triptych.model.m3 import M3Model
from triptych.model.packed import Packed, Reps, lexical_rows, positions
from triptych.model.tokenizer import Ids
from triptych.types import Encoded, Head, Ragged

# Called with (texts done, texts in all; None: not known).
Progress = Callable[[int, int | None], None]

# Tokens of one forward pass: large enough for full speed, small enough for a laptop's memory.
_BUDGET = {"cpu": 4096, "cuda": 65536, "mps": 8192}


def encode_ids(
    model: M3Model,
    ids: Sequence[Ids],
    heads: Sequence[Head],
    device: torch.device,
    *,
    budget: int | None = None,
    progress: Progress | None = None,
) -> Encoded:
    """Runs a model over texts that are token ids already.

    Args:
        model: On `device`.
        ids: Of N texts.
        heads: Heads to compute.
        device: Where the batches go.
        budget: Tokens of one forward pass; None: `usual_budget`.
        progress: Called after every batch.

    Returns:
        N texts, in their order.
    """
    lengths = np.array([len(text) for text in ids], dtype=np.int64)
    order = np.argsort(-lengths, kind="stable")
    budget = budget or usual_budget(model, device)
    assembly = Assembly(model, heads, ids)
    done = 0
    for batch in batches(lengths[order], budget, padded=supported(model.backbone) is not None):
        chosen = order[batch]
        packed = Packed.of([ids[i] for i in chosen], device)
        with torch.inference_mode():
            assembly.add(chosen, model(packed, heads))
        done += len(chosen)
        if progress is not None:
            progress(done, len(ids))
    return assembly.result()


def usual_budget(model: M3Model, device: torch.device) -> int:
    """Tokens of one pass: by device, less if its memory is short."""
    usual = _BUDGET.get(device.type, 4096)
    if device.type != "cuda":
        return usual
    config = cast(Any, model.backbone).config
    # The FFN's wide states before and after the activation, query, key, value, and a few states, in 4 bytes.
    each = 4 * (2 * config.intermediate_size + 8 * config.hidden_size)
    free, _total = torch.cuda.mem_get_info(device)
    return int(min(usual, max(8192, free // 2 // each)))


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


@dataclass(frozen=True, slots=True)
class _Arriving:
    """A batch whose values are on their way from a GPU, or there."""

    texts: NDArray[np.int64]
    values: Mapping[str, Tensor]
    event: Any


class Assembly:
    """Collects the batches of one call.

    The arrays that the caller gets are made at the start. On a GPU, the copies of one batch and the work that
    they need on the processor overlap with the next batch's computation.

    Args:
        model: What computes the batches.
        heads: Heads that were asked for.
        ids: Token ids of all N texts.
    """

    def __init__(self, model: M3Model, heads: Sequence[Head], ids: Sequence[Ids]) -> None:
        self.heads, self.widths = tuple(heads), model.widths
        self._half = next(model.parameters()).dtype in (torch.float16, torch.bfloat16)
        self._waiting: _Arriving | None = None
        self._lexical: list[tuple[NDArray[np.int64], sparse.csr_array]] = []
        self._dense = torch.empty(len(ids), self.widths["dense"]) if "dense" in heads else None
        self._multi: Tensor | None = None
        if "multi" in heads:
            batch = Packed.of(ids)
            counted = positions(batch, "multi", model.config, model.special)
            ends = torch.cat([torch.zeros(1, dtype=torch.int64), counted.cumsum(0)])
            self._bounds = ends[batch.offsets].numpy()
            self._multi = torch.empty(int(self._bounds[-1]), self.widths["multi"])

    def add(self, texts: NDArray[np.int64], reps: Reps) -> None:
        """Takes the representations of the texts with these numbers, in this order."""
        values: dict[str, Tensor] = {"offsets": reps.offsets, "ids": reps.ids}
        if "dense" in self.heads:
            values["dense"] = cast(Tensor, reps.dense)
        if "lexical" in self.heads:
            values["lexical"] = cast(Tensor, reps.lexical)
        if "multi" in self.heads:
            multi = cast(Tensor, reps.multi)
            # Computed in 8 or 11 bits of mantissa, a component of a unit vector loses nothing in float16, and
            # the way over the bus is the longest that there is.
            values["multi"] = multi.half() if self._half and multi.is_cuda else multi
        arriving = _start(texts, values)
        self._settle()
        self._waiting = arriving

    def result(self) -> Encoded:
        """All texts, in order."""
        self._settle()
        dense = None if self._dense is None else self._dense.numpy()
        multi = None if self._multi is None else Ragged(self._multi.numpy(), self._bounds)
        return Encoded(dense, self._joined() if "lexical" in self.heads else None, multi)

    def _settle(self) -> None:
        """Waits for the batch on its way and puts it into its places."""
        if self._waiting is None:
            return
        if self._waiting.event is not None:
            self._waiting.event.synchronize()
        texts, values = self._waiting.texts, self._waiting.values
        self._waiting = None
        if self._dense is not None:
            self._dense[torch.from_numpy(texts)] = values["dense"].float()
        if "lexical" in self.heads:
            ids, weights, offsets = (values[name].numpy() for name in ("ids", "lexical", "offsets"))
            self._lexical.append((texts, lexical_rows(ids, weights, offsets, self.widths["lexical"])))
        if self._multi is not None:
            self._multi.index_copy_(0, self._rows(texts), values["multi"].float())

    def _rows(self, texts: NDArray[np.int64]) -> Tensor:
        """Where the token vectors of these texts stand in the result."""
        counts = self._bounds[texts + 1] - self._bounds[texts]
        starts = np.cumsum(counts) - counts
        within = np.arange(int(counts.sum())) - np.repeat(starts, counts)
        return torch.from_numpy(np.repeat(self._bounds[texts], counts) + within)

    def _joined(self) -> sparse.csr_array:
        if not self._lexical:
            return sparse.csr_array((0, self.widths["lexical"]), dtype=np.float32)
        order = np.concatenate([texts for texts, _ in self._lexical])
        whole = sparse.csr_array(sparse.vstack([rows for _, rows in self._lexical], format="csr"))
        return cast(sparse.csr_array, whole[np.argsort(order)])


def _start(texts: NDArray[np.int64], values: Mapping[str, Tensor]) -> _Arriving:
    if not values["ids"].is_cuda:
        return _Arriving(texts, {name: value.cpu() for name, value in values.items()}, None)
    there = {
        name: torch.empty(value.shape, dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
        for name, value in values.items()
    }
    event = torch.cuda.Event()
    # Of the GPU that copies, which need not be the current one.
    event.record(torch.cuda.current_stream(values["ids"].device))
    return _Arriving(texts, there, event)
