"""The three scores on torch tensors: differentiable on packed (unpadded) batches, and on a GPU for whole corpora.

Scores are float32 whatever the type of the inputs. A packed batch of N texts is a flat array of positions with
`offsets` int64 ``[N + 1]``. The formulae are those of `triptych.scores.on_numpy`. The ``[S, T]`` similarities of S
query vectors and T document vectors never exist as a whole: blocks of documents of like length go through, and what
is kept for the gradient is the position of each maximum.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from triptych.errors import InputError
from triptych.scores.on_numpy import lexical_scores as numpy_lexical_scores
from triptych.types import Encoded, Floats, Head, Ragged

# Elements of the largest block of similarities.
_BLOCK = 64 * 1024 * 1024


class _Block(NamedTuple):
    """Documents that go through together.

    Attributes:
        texts: int64 ``[n]``, their numbers.
        grid: int64 ``[n, h]``, the flat places of their vectors; padding repeats the last one.
        inside: bool ``[n, h]``, what is not padding; None: there is none.
    """

    texts: Tensor
    grid: Tensor
    inside: Tensor | None


class _Segments(NamedTuple):
    """The text of each query vector, int64 ``[S]``, and what a vector counts in the text's mean."""

    rows: Tensor
    share: Tensor


class MaxSim(torch.autograd.Function):
    """``[Q, N]``, float32: the mean over a query's vectors of the best inner product in the document.

    On ties the gradient goes to one argmax. 16-bit vectors are multiplied in float16 (they are of length 1, and it
    has three more bits for them than bfloat16) and their gradient in bfloat16, which has the range for it.

    Args (of `apply`):
        queries: ``[S, d]``.
        query_offsets: int64 ``[Q + 1]``.
        documents: ``[T, d]``.
        document_offsets: int64 ``[N + 1]``.
        products: Make the gradient of matrix products, which a GPU is fast at, instead of a sparse matrix, which
            has fewer operations.
    """

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        query_offsets: Tensor,
        documents: Tensor,
        document_offsets: Tensor,
        products: bool,
    ) -> Tensor:
        """Scores, ``[Q, N]``."""
        dtype = torch.float16 if queries.is_cuda and queries.dtype.itemsize == 2 else torch.float32
        left, right = queries.to(dtype), documents.to(dtype)
        segments = _segments(query_offsets, len(queries))
        total = queries.new_zeros(len(document_offsets) - 1, len(query_offsets) - 1, dtype=torch.float32)
        blocks = _blocks(document_offsets, max(1, _BLOCK // max(1, len(queries)))) if len(queries) else []
        places: list[Tensor] = []
        for block in blocks:
            value, place = _best(left, right[block.grid], block.inside, by_column=products)
            total.index_copy_(0, block.texts, _means(value, segments, total.shape[1]))
            places.append(place.to(torch.int16 if block.grid.shape[1] < 1 << 15 else torch.int32))
        ctx.save_for_backward(queries, query_offsets, documents, *places)
        ctx.blocks, ctx.products = blocks, products
        return total.T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the vectors."""
        queries, query_offsets, documents, *places = ctx.saved_tensors
        segments = _segments(query_offsets, len(queries))
        way = _by_products if ctx.products else _by_sparse
        left, right = way(queries, documents, grads[0].T.contiguous(), segments, ctx.blocks, places)
        return left.to(queries.dtype), None, right.to(documents.dtype), None, None


def _best(
    queries: Tensor, documents: Tensor, inside: Tensor | None, *, by_column: bool
) -> tuple[Tensor, Tensor]:
    """For n padded documents ``[n, h, d]`` the largest similarities of S query vectors and their places, ``[n, S]``."""
    count, height, _ = documents.shape
    flat = documents.flatten(0, 1)
    if by_column:  # neighbors in memory belong to different maxima, so that a GPU's threads read side by side
        similar, axis = (flat @ queries.T).view(count, height, -1), 1
        mask = None if inside is None else inside[:, :, None]
    else:
        similar, axis = (queries @ flat.T).view(-1, count, height), 2
        mask = None if inside is None else inside[None]
    if mask is not None:
        similar.masked_fill_(~mask, -torch.inf)
    value, place = similar.max(axis)
    return (value, place) if by_column else (value.T, place.T)


def _means(best: Tensor, segments: _Segments, count: int) -> Tensor:
    """Means over each query's vectors of its maxima ``[n, S]``: float32 ``[n, Q]``."""
    means = torch.zeros(count, len(best), device=best.device)
    means.index_add_(0, segments.rows, best.T.float() * segments.share[:, None])
    return means.T


def _by_products(
    queries: Tensor,
    documents: Tensor,
    grads: Tensor,
    segments: _Segments,
    blocks: list[_Block],
    places: list[Tensor],
) -> tuple[Tensor, Tensor]:
    """Both gradients by matrix products with the blocks of the ``[T, S]`` gradient, one entry a column."""
    dtype = torch.bfloat16 if queries.is_cuda and queries.dtype.itemsize == 2 else torch.float32
    left, right = queries.to(dtype), documents.to(dtype)
    of_queries = queries.new_zeros(queries.shape, dtype=torch.float32)
    of_documents = documents.new_zeros(documents.shape, dtype=torch.float32)
    for block, place in zip(blocks, places, strict=True):
        wanted = _gradient(grads, segments, block).to(dtype)
        rows = torch.arange(block.grid.shape[1], device=place.device, dtype=place.dtype)
        chosen = torch.where(place[:, None] == rows[None, :, None], wanted[:, None], 0).flatten(0, 1)
        places_here = block.grid.flatten()
        of_queries += chosen.T @ right[places_here]
        of_documents.index_add_(0, places_here, (chosen @ left).float())
    return of_queries, of_documents


def _by_sparse(
    queries: Tensor,
    documents: Tensor,
    grads: Tensor,
    segments: _Segments,
    blocks: list[_Block],
    places: list[Tensor],
) -> tuple[Tensor, Tensor]:
    """Both gradients by the sparse ``[S, T]`` matrix with one entry for each query vector and document."""
    size = (len(queries), len(documents))
    rows = torch.arange(size[0], device=queries.device)
    entries = [torch.zeros(2, 0, dtype=torch.int64, device=queries.device)]
    values = [grads.new_zeros(0)]
    for block, place in zip(blocks, places, strict=True):
        columns = block.grid[:, :1] + place
        entries.append(torch.stack([rows.expand_as(columns), columns]).flatten(1))
        values.append(_gradient(grads, segments, block).flatten())
    chosen = torch.sparse_coo_tensor(
        torch.cat(entries, 1), torch.cat(values), size, check_invariants=False
    ).coalesce()
    return torch.sparse.mm(chosen, documents.float()), torch.sparse.mm(chosen.t(), queries.float())


def _gradient(grads: Tensor, segments: _Segments, block: _Block) -> Tensor:
    """What each maximum gets, ``[n, S]``, of the gradient ``[N, Q]`` of the scores."""
    return grads[block.texts].index_select(1, segments.rows) * segments.share


def _segments(offsets: Tensor, total: int) -> _Segments:
    lengths = offsets.diff()
    rows = torch.arange(len(lengths), device=offsets.device).repeat_interleave(lengths, output_size=total)
    return _Segments(rows, 1 / lengths[rows].float())


def _blocks(offsets: Tensor, budget: int) -> list[_Block]:
    """Documents by length, longest first, whose padded area is at most `budget` (a longer one stands alone).

    Documents without vectors are in no block.
    """
    lengths: list[int] = offsets.diff().tolist()
    order = sorted((i for i, length in enumerate(lengths) if length), key=lambda i: -lengths[i])
    on_device = torch.tensor(order, dtype=torch.int64).to(offsets.device)
    blocks: list[_Block] = []
    start = 0
    while start < len(order):
        tallest = lengths[order[start]]
        stop = min(len(order), start + max(1, budget // tallest))
        blocks.append(_block(offsets, on_device[start:stop], tallest, lengths[order[stop - 1]]))
        start = stop
    return blocks


def _block(offsets: Tensor, texts: Tensor, tallest: int, shortest: int) -> _Block:
    first, last = offsets[:-1][texts, None], offsets[1:][texts, None] - 1
    grid = first + torch.arange(tallest, device=offsets.device)
    if tallest == shortest:
        return _Block(texts, grid, None)
    return _Block(texts, grid.clamp(max=last), grid <= last)


def dense_scores(queries: Float[Tensor, "q d"], documents: Float[Tensor, "n d"]) -> Float[Tensor, "q n"]:
    """Inner products of all pairs, float32."""
    return queries.float() @ documents.float().T


def lexical_scores(
    query_ids: Int[Tensor, "s"],
    query_weights: Float[Tensor, "s"],
    query_offsets: Int[Tensor, "q_plus_1"],
    document_ids: Int[Tensor, "t"],
    document_weights: Float[Tensor, "t"],
    document_offsets: Int[Tensor, "n_plus_1"],
) -> Float[Tensor, "q n"]:
    """Sums over shared token ids of products of weights, for all pairs.

    Works in the vocabulary of the queries alone, since an id that no query has adds nothing: the largest
    array is ``[N, U]`` with U distinct query ids, never ``[B, L, V]``. Where an id occurs twice in a text its
    maximum counts; the gradient of a tie is shared evenly.

    Args:
        query_ids: Token id of each query position.
        query_weights: Its weight ≥ 0; 0 for positions that do not count.
        query_offsets: Bounds of the queries.
        document_ids: The same of the documents.
        document_weights: The same of the documents.
        document_offsets: The same of the documents.
    """
    vocabulary = torch.unique(query_ids)
    if not len(vocabulary):
        return query_weights.new_zeros(len(query_offsets) - 1, len(document_offsets) - 1, dtype=torch.float32)
    column = torch.searchsorted(vocabulary, document_ids).clamp_(max=len(vocabulary) - 1)
    shared = (vocabulary[column] == document_ids).nonzero().squeeze(1)
    q, n, u = len(query_offsets) - 1, len(document_offsets) - 1, len(vocabulary)
    rows = _rows(document_offsets)[shared]
    queries = _max_per_id(
        torch.searchsorted(vocabulary, query_ids), query_weights, _rows(query_offsets), (q, u)
    )
    documents = _max_per_id(column[shared], document_weights[shared], rows, (n, u))
    return queries @ documents.T


def _max_per_id(column: Tensor, weights: Tensor, row: Tensor, shape: tuple[int, int]) -> Tensor:
    flat = weights.new_zeros(shape[0] * shape[1], dtype=torch.float32)
    return flat.scatter_reduce(0, row * shape[1] + column, weights.float(), "amax").view(shape)


def _rows(offsets: Tensor) -> Tensor:
    """The text's number for each position."""
    lengths = offsets.diff()
    return torch.repeat_interleave(torch.arange(len(lengths), device=offsets.device), lengths)


def maxsim_scores(
    queries: Float[Tensor, "s d"],
    query_offsets: Int[Tensor, "q_plus_1"],
    documents: Float[Tensor, "t d"],
    document_offsets: Int[Tensor, "n_plus_1"],
) -> Float[Tensor, "q n"]:
    """Mean over a query's vectors of the best inner product in the document, for all pairs.

    Neither forward nor backward holds the ``[S, T]`` similarities of the whole batch: see `MaxSim`. 16-bit
    vectors on a GPU are multiplied in 16 bits, float32 ones exactly. A pair of which either side is empty scores 0.
    """
    scores: Tensor = MaxSim.apply(queries, query_offsets, documents, document_offsets, queries.is_cuda)  # type: ignore[assignment]
    return scores


def combine(
    dense: Tensor | None, lexical: Tensor | None, multi: Tensor | None, weights: tuple[float, float, float]
) -> Tensor:
    """The weighted sum ``s = Σ weight · score`` of the scores given (section 3.2, hybrid retrieval)."""
    parts = [w * s for w, s in zip(weights, (dense, lexical, multi), strict=True) if s is not None and w]
    return torch.stack(parts).sum(0)


_DEVICE_BLOCK = 256 * 1024 * 1024
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
                found["lexical"] = numpy_lexical_scores(queries.lexical, documents.lexical)
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
        self._values = torch.from_numpy(np.ascontiguousarray(queries.values)).to(device).to(dtype)
        self._count = len(queries)
        offsets = torch.from_numpy(np.ascontiguousarray(queries.offsets)).to(device)
        self._segments = _segments(offsets, len(self._values))

    def scores(self, documents: Ragged) -> Floats:
        """MaxSim of all pairs (see `maxsim_scores`), without a gradient.

        Args:
            documents: N matrices ``[T_j, D']``.

        Returns:
            float32 ``[Q, N]``; 0 where either side has no vectors.

        Raises:
            InputError: For different widths.
        """
        values, device = self._values, self._values.device
        total = torch.zeros(len(documents), self._count, device=device)
        if len(values) and len(documents.values):
            if values.shape[1] != documents.width:
                raise InputError(
                    f"DeviceQueries.scores: got documents of width {documents.width}; expected {values.shape[1]}"
                )
            right = torch.from_numpy(np.ascontiguousarray(documents.values)).to(device).to(values.dtype)
            offsets = torch.from_numpy(np.ascontiguousarray(documents.offsets)).to(device)
            for block in _blocks(offsets, max(1, _DEVICE_BLOCK // len(values))):
                best, _ = _best(values, right[block.grid], block.inside, by_column=values.is_cuda)
                total.index_copy_(0, block.texts, _means(best, self._segments, self._count))
        return total.T.cpu().numpy()


def maxsim_of_pairs(
    queries: Ragged, documents: Tensor, offsets: Tensor, query: Tensor, document: Tensor, budget: int
) -> Tensor:
    """MaxSim of chosen pairs on a device, many pairs of about the same height at once.

    Args:
        queries: Q matrices ``[S_i, D']``.
        documents: ``[T, D']``, on the device, or in the host's memory where they do not fit.
        offsets: int64 ``[N + 1]`` on the device.
        query: int64 ``[P]`` on the device, the query of each pair.
        document: int64 ``[P]``, its document.
        budget: Token vectors that are compared at once.

    Returns:
        float32 ``[P]`` on the device; 0 where either side has no vectors.
    """
    device = offsets.device
    lengths = torch.from_numpy(queries.lengths).to(device)
    tall = max(1, int(queries.lengths.max(initial=1)))
    padded = torch.zeros(len(queries), tall, queries.width, device=device)
    padded[torch.arange(tall, device=device) < lengths[:, None]] = torch.from_numpy(
        queries.values.astype(np.float32)
    ).to(device)
    heights = offsets.diff()[document]
    order = heights.argsort(descending=True, stable=True)
    sorted_heights = [
        height for height in heights[order].tolist() if height
    ]  # one without vectors keeps its 0
    scores = torch.zeros(len(document), device=device)
    start = 0
    while start < len(sorted_heights):
        pairs = order[start : min(len(sorted_heights), start + max(1, budget // sorted_heights[start]))]
        rows = document[pairs]
        position = offsets[rows][:, None] + torch.arange(sorted_heights[start], device=device)
        # Beyond the end of a document its last vector again, which changes no maximum.
        place = torch.minimum(position, offsets[rows + 1][:, None] - 1).to(documents.device)
        vectors = documents[place].to(device).float()
        best = torch.bmm(vectors, padded[query[pairs]].transpose(1, 2)).amax(dim=1)
        inside = torch.arange(tall, device=device) < lengths[query[pairs], None]
        scores[pairs] = (best * inside).sum(1) / lengths[query[pairs]].clamp(min=1)
        start += len(pairs)
    return scores


def top_k(scores: Tensor, k: int, floor: float = -torch.inf) -> Tensor:
    """Columns of the k largest scores of each row above `floor`; of equal ones at the end the first columns.

    Args:
        scores: ``[Q, N]``.
        k: How many, ≥ 1.
        floor: Only scores above it count.

    Returns:
        int64 ``[Q, min(k, N)]``, **ascending columns** (a union is made of them next); -1 for those that do not count.
    """
    k = min(k, scores.shape[1])
    bar = scores.topk(k, dim=1).values[:, -1:]
    above, level = scores > bar, scores == bar
    room = k - above.sum(dim=1, keepdim=True)
    chosen = above | (level & (level.cumsum(dim=1, dtype=torch.int32) <= room))
    columns = chosen.nonzero()[:, 1].view(len(scores), k)
    return columns.masked_fill(scores.gather(1, columns) <= floor, -1)
