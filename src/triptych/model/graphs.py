"""CUDA graphs for one short text: all kernels of the pass are launched at once.

A short text keeps a GPU busy for less time than the processor needs to launch its kernels. A graph is recorded
for a few numbers of tokens; a text is put into the next larger one, with a second text of junk behind it that
takes up the rest. Attention does not look across texts, so the junk changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock

import torch
from torch import Tensor

from triptych.model.packed import Packed
from triptych.model.packed_forward import Shape

SIZES = (16, 32, 64, 128, 256, 512)
_WARM_UP = 3

Forward = Callable[[Tensor, Tensor, Shape], Tensor]


@dataclass(frozen=True, slots=True)
class _Recorded:
    """A graph with all the memory that it reads and writes: freed, it would be given to somebody else."""

    graph: torch.cuda.CUDAGraph
    ids: Tensor
    places: Tensor
    bounds: Tensor
    states: Tensor


class Graphs:
    """Records and replays a forward pass.

    Args:
        forward: From token ids ``[T]``, rows of the position table ``[T]`` and bounds to states ``[T, H]``,
            without asking the device for anything.
        padding_idx: The model's, from which its positions count; None: they count from 0.
    """

    def __init__(self, forward: Forward, padding_idx: int | None) -> None:
        self._forward = forward
        self._padding = padding_idx
        self._first = 0 if padding_idx is None else padding_idx + 1
        self._recorded: dict[int, _Recorded] = {}
        self._lock = Lock()

    def takes(self, batch: Packed) -> bool:
        """Whether a batch is one text that is short enough, with positions that simply count up."""
        if len(batch) != 1 or not batch.ids.is_cuda or batch.lengths[0] > SIZES[-1]:
            return False
        return self._padding is None or not bool((batch.ids == self._padding).any())

    def __call__(self, batch: Packed) -> Tensor:
        """States ``[T, H]`` of one text."""
        length = batch.lengths[0]
        size = next(size for size in SIZES if size >= length)
        with self._lock:
            if size not in self._recorded:
                # Recording uses streams of the current device, which need not be the batch's.
                with torch.cuda.device(batch.ids.device):
                    self._recorded[size] = self._record(size, batch.ids.device)
            recorded = self._recorded[size]
            recorded.ids[:length].copy_(batch.ids, non_blocking=True)
            recorded.bounds[1:2].fill_(length)
            recorded.graph.replay()
            return recorded.states[:length].clone()

    def _record(self, size: int, device: torch.device) -> _Recorded:
        ids = torch.zeros(size, dtype=torch.int64, device=device)
        places = torch.arange(self._first, self._first + size, device=device)
        bounds = torch.tensor([0, size // 2, size], dtype=torch.int32, device=device)
        # The kernel is told the most tokens that either text can have.
        shape = Shape((size, size), bounds, size)
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.cuda.stream(stream), torch.inference_mode():
            for _ in range(_WARM_UP):
                self._forward(ids, places, shape)
        torch.cuda.current_stream(device).wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=stream), torch.inference_mode():
            states = self._forward(ids, places, shape)
        return _Recorded(graph, ids, places, bounds, states)
