"""How the batches' representations come back to the processor, in the callers' order.

A GPU's batches are copied on a stream of their own and put into their places by a thread, both while the next batches
are computed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from triptych.model.packed import Ids, Packed, Reps, lexical_rows, positions
from triptych.types import Encoded, Head, Ragged

if TYPE_CHECKING:
    from triptych.model.m3 import M3Model

# Batches that a GPU may be ahead of the thread: enough that it need not wait, few enough for its memory.
_AHEAD = 4


@dataclass(frozen=True, slots=True)
class _Arriving:
    """A batch whose values are being copied from a GPU, or are there."""

    texts: NDArray[np.int64]
    values: Mapping[str, Tensor]
    event: Any


class Assembly:
    """Collects the batches of one call.

    Args:
        model: What computes the batches.
        heads: Heads that were asked for.
        count: N, number of texts.
        ids: The token ids of all texts, when they are known.
        ahead: Whether a thread does what remains to be done on the processor.
    """

    def __init__(
        self,
        model: M3Model,
        heads: Sequence[Head],
        count: int,
        ids: Future[list[Ids]],
        *,
        ahead: bool = False,
    ) -> None:
        self.heads, self.widths = tuple(heads), model.widths
        self._model, self._ids = model, ids
        self._thread = ThreadPoolExecutor(1, "assembly") if ahead else None
        self._settling: deque[Future[None]] = deque()
        self._lexical: list[tuple[NDArray[np.int64], sparse.csr_array]] = []
        self._dense = _new(count, self.widths["dense"]) if "dense" in heads else None
        self._multi: Tensor | None = None
        self._bounds: NDArray[np.int64] = np.zeros(1, np.int64)

    def add(self, texts: NDArray[np.int64], reps: Reps) -> None:
        """Adds the representations of the texts with these numbers, in this order."""
        values: dict[str, Tensor] = {"offsets": reps.offsets, "ids": reps.ids}
        if "dense" in self.heads:
            values["dense"] = cast(Tensor, reps.dense)
        if "lexical" in self.heads:
            values["lexical"] = cast(Tensor, reps.lexical)
        if "multi" in self.heads:
            multi = cast(Tensor, reps.multi)
            # A component of a unit vector that was computed in 8 or 11 bits of mantissa loses nothing in float16,
            # and the copy over the bus is the slowest step.
            half = next(self._model.parameters()).dtype in (torch.float16, torch.bfloat16)
            small = half and multi.is_cuda and self._model.config.normalize
            values["multi"] = multi.half() if small else multi
        arriving = _copy_to_host(texts, values)
        if self._thread is None:
            self._settle(arriving)
            return
        # Before all ids are known the thread cannot begin, and waiting for it would be for ever.
        while self._ids.done() and len(self._settling) >= _AHEAD:
            self._settling.popleft().result()
        self._settling.append(self._thread.submit(self._settle, arriving))

    def result(self) -> Encoded:
        """All texts, in order."""
        while self._settling:
            self._settling.popleft().result()
        if self._thread is not None:
            self._thread.shutdown()
        self._make_room()
        dense = None if self._dense is None else self._dense.numpy()
        multi = None if self._multi is None else Ragged(self._multi.numpy(), self._bounds)
        return Encoded(dense, self._concat_lexical() if "lexical" in self.heads else None, multi)

    def _make_room(self) -> None:
        """Makes the array of token vectors, which needs the number of tokens of all texts."""
        if self._multi is not None or "multi" not in self.heads:
            return
        batch = Packed.of(self._ids.result())
        counted = positions(batch, "multi", self._model.config, self._model.special)
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), counted.cumsum(0)])
        self._bounds = ends[batch.offsets].numpy()
        self._multi = _new(int(self._bounds[-1]), self.widths["multi"])

    # What a caller in inference mode makes can be changed in that mode alone, and a thread has a mode of its own.
    @torch.inference_mode()
    def _settle(self, arriving: _Arriving) -> None:
        """Waits for a batch that is being copied and puts it into its places."""
        self._make_room()
        if arriving.event is not None:
            arriving.event.synchronize()
        texts, values = arriving.texts, arriving.values
        if self._dense is not None:
            self._dense[torch.from_numpy(texts)] = values["dense"].float()
        if "lexical" in self.heads:
            ids, weights, offsets = (values[name].numpy() for name in ("ids", "lexical", "offsets"))
            self._lexical.append((texts, lexical_rows(ids, weights, offsets, self.widths["lexical"])))
        if self._multi is not None:
            self._place_vectors(self._multi, texts, values["multi"])

    def _place_vectors(self, multi: Tensor, texts: NDArray[np.int64], vectors: Tensor) -> None:
        """Copies token vectors to their rows; a few at a time, so that those in float32 stay in the cache."""
        counts = self._bounds[texts + 1] - self._bounds[texts]
        within = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = torch.from_numpy(np.repeat(self._bounds[texts], counts) + within)
        for part, some in zip(rows.split(2048), vectors.split(2048), strict=True):
            multi.index_copy_(0, part, some.float())

    def _concat_lexical(self) -> sparse.csr_array:
        if not self._lexical:
            return sparse.csr_array((0, self.widths["lexical"]), dtype=np.float32)
        order = np.concatenate([texts for texts, _ in self._lexical])
        whole = sparse.csr_array(sparse.vstack([rows for _, rows in self._lexical], format="csr"))
        return cast(sparse.csr_array, whole[np.argsort(order)])


def _new(rows: int, columns: int) -> Tensor:
    """Memory by NumPy, which asks for large pages: new ones cost a GPU's processor more time than filling them."""
    return torch.from_numpy(np.empty((rows, columns), np.float32))


def _copy_to_host(texts: NDArray[np.int64], values: Mapping[str, Tensor]) -> _Arriving:
    if not values["ids"].is_cuda:
        return _Arriving(texts, {name: value.cpu() for name, value in values.items()}, None)
    device = values["ids"].device
    stream = _stream_of_copies(device.index)
    stream.wait_stream(torch.cuda.current_stream(device))
    pinned: dict[str, Tensor] = {}
    with torch.cuda.stream(stream):
        for name, value in values.items():
            pinned[name] = torch.empty(value.shape, dtype=value.dtype, pin_memory=True)
            pinned[name].copy_(value, non_blocking=True)
            value.record_stream(stream)
        event = torch.cuda.Event()
        event.record(stream)
    return _Arriving(texts, pinned, event)


@cache
def _stream_of_copies(device: int | None) -> Any:
    return torch.cuda.Stream(device)
