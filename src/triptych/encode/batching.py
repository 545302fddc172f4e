"""Which texts run together, and how a batch's representations come back to the processor."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from triptych.encode.assembly import Assembly
from triptych.model.m3 import M3Model
from triptych.model.packed import Packed
from triptych.model.packed_forward import supported
from triptych.model.tokenizer import Ids
from triptych.types import Encoded, Head

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
