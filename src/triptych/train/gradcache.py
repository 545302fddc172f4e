"""Encoding a batch in sub-batches of any size, with the gradient of the whole.

GradCache (arXiv 2101.06983): 1. encode all sub-batches without a graph; 2. take the loss of all representations
and its gradient with respect to them; 3. encode each sub-batch again, with a graph, and push its part of that
gradient through. The memory of the graph is that of one sub-batch; the gradient is that of the whole batch,
dropout included, since each sub-batch is encoded twice from the same state of the random generators.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from triptych.model.packed import Packed, Reps, batches, to_device
from triptych.train.objective import concat_reps, leaves, ragged_places, take

Encode: TypeAlias = Callable[["SubBatch"], Reps]
Losses: TypeAlias = Callable[[Reps], dict[str, Tensor]]
LastOnly: TypeAlias = Callable[[bool], AbstractContextManager[None]]


@dataclass(frozen=True, slots=True)
class SubBatch:
    """Some texts of a batch, and which ones."""

    batch: Packed
    texts: tuple[int, ...]

    def to(self, device: torch.device) -> SubBatch:
        """The same on another device."""
        return SubBatch(self.batch.to(device), self.texts)


def split(batch: Packed, budget: int | None) -> list[SubBatch]:
    """Cuts a batch into sub-batches of at most `budget` tokens; texts of like length come together.

    Args:
        batch: N texts.
        budget: Tokens; a longer text stands alone. None: one sub-batch, the batch as it is.

    Returns:
        Sub-batches that hold each text once, longest texts first: if memory is short, that shows at once.
    """
    if budget is None:
        return [SubBatch(batch, tuple(range(len(batch))))]
    order = sorted(range(len(batch)), key=lambda i: -batch.lengths[i])
    lengths = np.asarray([batch.lengths[i] for i in order], dtype=np.int64)
    groups = [order[part] for part in batches(lengths, budget, padded=False)] or [order]
    return [SubBatch(choose(batch, group), tuple(group)) for group in groups]


def choose(batch: Packed, texts: Sequence[int]) -> Packed:
    """The texts `texts` of a batch, in that order."""
    chosen = torch.tensor(list(texts), dtype=torch.int64, device=batch.offsets.device)
    places, offsets = ragged_places(batch.offsets, chosen)
    lengths = tuple(batch.lengths[i] for i in texts)
    prompts = None if batch.prompts is None else tuple(batch.prompts[i] for i in texts)
    return Packed(batch.ids[places], offsets, lengths, prefix=batch.prefix, prompts=prompts)


def backward(
    encode: Encode,
    parts: Sequence[SubBatch],
    losses: Losses,
    synchronized: LastOnly | None = None,
    passes: int | None = None,
) -> dict[str, Tensor]:
    """Computes the losses of a batch and adds the gradient of ``loss`` to the parameters.

    Args:
        encode: From a part to its representations; the only thing that needs much memory.
        parts: The batch, from `split`. With one part and one pass this is the plain forward and backward pass.
        losses: From the representations of the whole batch, in its order, to losses; ``loss`` is minimized.
        synchronized: Returns the context for a backward pass, told whether it is the last one: with many processes
            gradients are exchanged once, at the end.
        passes: Forward and backward passes that every process makes, at least `parts`: a process with fewer parts
            encodes its last one again, for nothing. None: as many as parts.

    Returns:
        The losses, without graph.
    """
    within, passes = synchronized or _always, passes or len(parts)
    if passes == 1:
        with within(True):
            found = losses(_in_order([encode(parts[0])], parts))
            found["loss"].backward()
        return {name: value.detach() for name, value in found.items()}
    states: list[_Random] = []
    pieces: list[Reps] = []
    everything = [*parts, *(parts[-1],) * (passes - len(parts))]
    for part in everything:
        states.append(_Random.now(part.batch.ids.device))
        with torch.no_grad(), within(False):
            pieces.append(encode(part))
    cached = [leaves(piece) for piece in pieces]
    found = losses(_in_order(cached[: len(parts)], parts))
    found["loss"].backward()
    after = _Random.now(parts[0].batch.ids.device)
    for i, (part, state, piece) in enumerate(zip(everything, states, cached, strict=True)):
        with within(i == passes - 1), state.restored():
            again = encode(part)
            torch.autograd.backward(*_pairs(again, piece))
    after.restore()
    return {name: value.detach() for name, value in found.items()}


def accumulate(
    losses: Callable[[Any], dict[str, Tensor]],
    parts: Sequence[Any],
    synchronized: LastOnly | None = None,
    passes: int | None = None,
) -> dict[str, Tensor]:
    """The same for losses that are the sum of the parts' losses, each with its own graph: one forward pass each."""
    within, passes = synchronized or _always, passes or len(parts)
    sums: dict[str, Tensor] = {}
    for i in range(passes):
        with within(i == passes - 1):
            found = losses(parts[min(i, len(parts) - 1)])
            spare = i >= len(parts)
            (found["loss"] * 0 if spare else found["loss"]).backward()
        for name, value in found.items() if not spare else ():
            sums[name] = sums.get(name, torch.zeros_like(value.detach())) + value.detach()
    return sums


def _always(last: bool) -> AbstractContextManager[None]:
    del last
    return nullcontext()


def _pairs(again: Reps, cached: Reps) -> tuple[list[Tensor], list[Tensor]]:
    """Representations with a graph, and the gradient that each got from the losses."""
    outputs: list[Tensor] = []
    gradients: list[Tensor] = []
    for name in ("dense", "lexical", "multi", "projected"):
        output, leaf = getattr(again, name), getattr(cached, name)
        if output is not None and output.requires_grad:
            outputs.append(output)
            gradients.append(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)
    return outputs, gradients


def _in_order(pieces: Sequence[Reps], parts: Sequence[SubBatch]) -> Reps:
    """The representations of the sub-batches as one batch, in its order."""
    everything = concat_reps(pieces)
    texts = [text for part in parts for text in part.texts]
    if all(a == b for a, b in enumerate(texts)):
        return everything
    return take(everything, original_order(parts), permutes=True)


def original_order(parts: Sequence[SubBatch]) -> Tensor:
    """int64 ``[N]``: where each text of the batch stands when the sub-batches are laid one after the other."""
    order = [text for part in parts for text in part.texts]
    places = torch.empty(len(order), dtype=torch.int64)
    places[torch.tensor(order, dtype=torch.int64)] = torch.arange(len(order))
    return to_device(places, parts[0].batch.offsets.device)


@dataclass(frozen=True, slots=True)
class _Random:
    """The state of the generators that dropout draws from."""

    device: torch.device
    cpu: Tensor
    cuda: Tensor | None

    @classmethod
    def now(cls, device: torch.device) -> _Random:
        state = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        return cls(device, torch.get_rng_state(), state)

    def restore(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)

    @contextmanager
    def restored(self) -> Generator[None]:
        self.restore()
        yield
