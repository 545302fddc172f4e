"""The three scores on a device, for comparing many queries with whole corpora."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from triptych.errors import InputError
from triptych.ops.scores import lexical_scores
from triptych.types import Encoded, Floats, Head, Ragged

_BLOCK = 256 * 1024 * 1024
"""Similarities that are held at once: 512 MB in 16 bits."""


def device_scoring(
    device: torch.device, dtype: torch.dtype
) -> Callable[[Encoded], Callable[[Encoded, Sequence[Head]], dict[Head, Floats]]]:
    """A scoring for `triptych.eval` on a device.

    Dense scores are float32 products. MaxSim multiplies in `dtype`: in float16 its scores are within about 0.0005 of
    the exact ones, in bfloat16 0.004 (each maximum is rounded, then averaged in float32). Lexical scores are sparse
    products, which SciPy computes as fast on the processor.

    Args:
        device: Such as cuda.
        dtype: Of MaxSim's products.
    """

    def prepare(queries: Encoded) -> Callable[[Encoded, Sequence[Head]], dict[Head, Floats]]:
        dense = None if queries.dense is None else torch.from_numpy(queries.dense).to(device)
        tokens = None if queries.multi is None else DeviceQueries(queries.multi, device, dtype)

        def score(documents: Encoded, heads: Sequence[Head]) -> dict[Head, Floats]:
            found: dict[Head, Floats] = {}
            for head in heads:
                if getattr(documents, head) is None or getattr(queries, head) is None:
                    raise InputError(f"device_scoring: got no {head!r} representation on one side")
            if "dense" in heads and dense is not None and documents.dense is not None:
                right = torch.from_numpy(documents.dense).to(device)
                found["dense"] = (dense @ right.T).cpu().numpy()
            if "lexical" in heads and queries.lexical is not None and documents.lexical is not None:
                found["lexical"] = lexical_scores(queries.lexical, documents.lexical)
            if "multi" in heads and tokens is not None and documents.multi is not None:
                found["multi"] = tokens.scores(documents.multi)
            return found

        return score

    return prepare


class DeviceQueries:
    """Queries' token vectors on a device, made once for many blocks of documents.

    Args:
        queries: Q matrices ``[S_i, D']``.
        device: Where.
        dtype: Of the products.
    """

    def __init__(self, queries: Ragged, device: torch.device, dtype: torch.dtype) -> None:
        self._lengths = torch.from_numpy(queries.lengths).to(device)
        self._values = torch.from_numpy(np.ascontiguousarray(queries.values)).to(device).to(dtype)
        self._rows = torch.repeat_interleave(torch.arange(len(queries), device=device), self._lengths)

    def scores(self, documents: Ragged) -> Floats:
        """Mean over a query's tokens of the inner product with the document's best token, for all pairs.

        **Math** ``s_mul = 1/N Σ_i max_j <E_q[i], E_p[j]>`` (arXiv 2402.03216v4, section 3.2).

        Args:
            documents: N matrices ``[T_j, D']``.

        Returns:
            float32 ``[Q, N]``; 0 where either side has no vectors.

        Raises:
            InputError: For different widths.
        """
        device, size = self._values.device, len(self._lengths)
        total = np.zeros((size, len(documents)), dtype=np.float32)
        filled = np.flatnonzero(documents.lengths)
        if not len(self._values) or not len(filled):
            return total
        if self._values.shape[1] != documents.width:
            raise InputError(
                f"DeviceQueries.scores: got documents of width {documents.width}; expected {self._values.shape[1]}"
            )
        values = torch.from_numpy(np.ascontiguousarray(documents.values)).to(device).to(self._values.dtype)
        order = filled[np.argsort(documents.lengths[filled], kind="stable")]
        found = torch.zeros((size, len(order)), dtype=torch.float32, device=device)
        start = 0
        while start < len(order):
            end = self._end(documents.lengths[order], start)
            found[:, start:end] = self._block(values, documents, order[start:end])
            start = end
        found /= self._lengths.clamp(min=1)[:, None]
        total[:, order] = found.cpu().numpy()
        return total

    def _end(self, lengths: np.ndarray, start: int) -> int:
        """Neighbours in the order of lengths, of which the longest, times their number, fits into a block."""
        most = _BLOCK // len(self._values)
        areas = lengths[start:] * np.arange(1, len(lengths) - start + 1)
        return start + max(1, int(np.searchsorted(areas, most, side="right")))

    def _block(self, values: Tensor, documents: Ragged, chosen: np.ndarray) -> Tensor:
        """Sums of maxima, float32 ``[Q, n]``. A shorter text repeats its last vector, which changes no maximum."""
        height = int(documents.lengths[chosen].max())
        inside = np.minimum(np.arange(height), documents.lengths[chosen, None] - 1)
        place = torch.from_numpy(documents.offsets[chosen, None] + inside).to(values.device)
        padded = values[place.flatten()]
        best = (self._values @ padded.T).view(len(self._values), len(chosen), height).amax(dim=2).float()
        sums = torch.zeros((len(self._lengths), len(chosen)), dtype=torch.float32, device=values.device)
        return sums.index_add_(0, self._rows, best)
