"""MaxSim of all pairs of a packed batch, with its gradient: the training side of the multi-vector score.

The ``[S, T]`` similarities of S query vectors and T document vectors never exist as a whole: blocks of documents of
like length go through, and what is kept for the gradient is the place of each maximum.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

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

    Of a tie one maximum gets the gradient. 16-bit vectors are multiplied in float16 (they are of length 1, and it
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
        """See the class."""
        kind = torch.float16 if queries.is_cuda and queries.dtype.itemsize == 2 else torch.float32
        left, right = queries.to(kind), documents.to(kind)
        segments = _segments(query_offsets, len(queries))
        total = queries.new_zeros(len(document_offsets) - 1, len(query_offsets) - 1, dtype=torch.float32)
        blocks = _blocks(document_offsets, max(1, _BLOCK // max(1, len(queries)))) if len(queries) else []
        places: list[Tensor] = []
        for block in blocks:
            value, place = _best(left, right[block.grid], block.inside, by_column=products)
            means = total.new_zeros(total.shape[1], len(block.texts))
            means.index_add_(0, segments.rows, value.T.float() * segments.share[:, None])
            total.index_copy_(0, block.texts, means.T)
            places.append(place.to(torch.int16 if block.grid.shape[1] < 1 << 15 else torch.int32))
        ctx.save_for_backward(queries, query_offsets, documents, *places)
        ctx.blocks, ctx.products = blocks, products
        return total.T

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of the vectors."""
        queries, query_offsets, documents, *places = ctx.saved_tensors
        segments = _segments(query_offsets, len(queries))
        turned = grads[0].T.contiguous()
        way = _by_products if ctx.products else _by_sparse
        left, right = way(queries, documents, turned, segments, ctx.blocks, places)
        return left.to(queries.dtype), None, right.to(documents.dtype), None, None


def _best(
    queries: Tensor, documents: Tensor, inside: Tensor | None, *, by_column: bool
) -> tuple[Tensor, Tensor]:
    """For n padded documents ``[n, h, d]`` the largest similarities of S query vectors and their places, ``[n, S]``."""
    count, height, _ = documents.shape
    flat = documents.flatten(0, 1)
    if (
        by_column
    ):  # neighbours in memory belong to different maxima, so that a GPU's threads read side by side
        similar, axis = (flat @ queries.T).view(count, height, -1), 1
        mask = None if inside is None else inside[:, :, None]
    else:
        similar, axis = (queries @ flat.T).view(-1, count, height), 2
        mask = None if inside is None else inside[None]
    if mask is not None:
        similar.masked_fill_(~mask, -torch.inf)
    value, place = similar.max(axis)
    return (value, place) if by_column else (value.T, place.T)


def _by_products(
    queries: Tensor,
    documents: Tensor,
    grads: Tensor,
    segments: _Segments,
    blocks: list[_Block],
    places: list[Tensor],
) -> tuple[Tensor, Tensor]:
    """Both gradients by matrix products with the blocks of the ``[T, S]`` gradient, one entry a column."""
    kind = torch.bfloat16 if queries.is_cuda and queries.dtype.itemsize == 2 else torch.float32
    left, right = queries.to(kind), documents.to(kind)
    of_queries = queries.new_zeros(queries.shape, dtype=torch.float32)
    of_documents = documents.new_zeros(documents.shape, dtype=torch.float32)
    for block, place in zip(blocks, places, strict=True):
        wanted = _gradient(grads, segments, block).to(kind)
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
    """Documents by length, so many that their padded area is at most `budget` (a longer one stands alone).

    Documents without vectors are in no block.
    """
    lengths: list[int] = offsets.diff().tolist()
    order = sorted((i for i, length in enumerate(lengths) if length), key=lambda i: -lengths[i])
    there = torch.tensor(order, dtype=torch.int64).to(offsets.device)
    cuts = [0]
    for i in range(len(order)):
        if i > cuts[-1] and lengths[order[cuts[-1]]] * (i + 1 - cuts[-1]) > budget:
            cuts.append(i)
    return [
        _block(offsets, there[a:b], lengths[order[a]], lengths[order[b - 1]])
        for a, b in pairwise([*cuts, len(order)])
        if b > a
    ]


def _block(offsets: Tensor, texts: Tensor, tallest: int, shortest: int) -> _Block:
    first, last = offsets[:-1][texts, None], offsets[1:][texts, None] - 1
    grid = first + torch.arange(tallest, device=offsets.device)
    if tallest == shortest:
        return _Block(texts, grid, None)
    return _Block(texts, grid.clamp(max=last), grid <= last)
