"""The three scores as differentiable torch functions on packed (unpadded) batches: the training side.

Scores are float32 whatever the type of the inputs. A packed batch of N texts is a flat array of positions
with `offsets` int64 ``[N + 1]``. The formulae are those of `triptych.ops.scores`.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

# Elements of the largest intermediate of one MaxSim block (float32): 256 MB.
_BLOCK = 64 * 1024 * 1024


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

    Neither forward nor backward holds the ``[S, T]`` similarities of the whole batch: blocks of documents go
    through, and only the position of each maximum is kept for the gradient (one maximum of a tie gets it).
    A pair of which either side is empty scores 0.
    """
    best: Tensor = _BestToken.apply(queries.float(), documents.float(), document_offsets)  # type: ignore[assignment]
    total = best.new_zeros(len(query_offsets) - 1, best.shape[1]).index_add(0, _rows(query_offsets), best)
    return total / query_offsets.diff().clamp(min=1)[:, None]


class _BestToken(torch.autograd.Function):
    """``[S, N]``: the largest inner product of each query vector with the vectors of each document."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, documents: Tensor, offsets: Tensor) -> Tensor:
        bounds = offsets.tolist()
        n = len(bounds) - 1
        best = queries.new_zeros(len(queries), n)
        place = torch.full((len(queries), n), -1, dtype=torch.int64, device=queries.device)
        for first, last in _document_blocks(bounds, max(1, _BLOCK // max(1, len(queries)))):
            height = max(bounds[i + 1] - bounds[i] for i in range(first, last))
            if height == 0:
                continue
            position = offsets[first:last, None] + torch.arange(height, device=offsets.device)
            inside = position < offsets[first + 1 : last + 1, None]
            padded = documents[position.clamp(max=len(documents) - 1)]
            similarity = torch.einsum("sd,ntd->snt", queries, padded).masked_fill_(~inside, -torch.inf)
            value, where = similarity.max(dim=2)
            filled = inside[:, 0]
            best[:, first:last] = torch.where(filled, value, 0)
            place[:, first:last] = torch.where(filled, where + offsets[first:last], -1)
        ctx.save_for_backward(queries, documents, place)
        return best

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        queries, documents, place = ctx.saved_tensors
        if not len(documents):
            return torch.zeros_like(queries), torch.zeros_like(documents), None
        # The gradient is a sparse [S, T] matrix with one entry for each query vector and document.
        row = torch.arange(len(queries), device=place.device)[:, None].expand_as(place)
        entry = torch.stack([row, place.clamp(min=0)]).flatten(1)
        value = torch.where(place >= 0, grads[0], 0).flatten()
        chosen = torch.sparse_coo_tensor(
            entry, value, (len(queries), len(documents)), check_invariants=False
        ).coalesce()
        return torch.sparse.mm(chosen, documents), torch.sparse.mm(chosen.t(), queries), None


def _document_blocks(bounds: list[int], budget: int) -> list[tuple[int, int]]:
    """Runs of documents whose padded area is at most `budget` (a longer document stands alone)."""
    blocks: list[tuple[int, int]] = []
    first, height = 0, 0
    for i in range(len(bounds) - 1):
        taller = max(height, bounds[i + 1] - bounds[i])
        if i > first and taller * (i + 1 - first) > budget:
            blocks.append((first, i))
            first, taller = i, bounds[i + 1] - bounds[i]
        height = taller
    if first < len(bounds) - 1:
        blocks.append((first, len(bounds) - 1))
    return blocks


def combine(
    dense: Tensor | None, lexical: Tensor | None, multi: Tensor | None, weights: tuple[float, float, float]
) -> Tensor:
    """The weighted sum ``s = Σ weight · score`` of the scores given (section 3.2, hybrid retrieval)."""
    parts = [w * s for w, s in zip(weights, (dense, lexical, multi), strict=True) if s is not None and w]
    return torch.stack(parts).sum(0)
