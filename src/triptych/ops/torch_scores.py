"""The three scores as differentiable torch functions on packed (unpadded) batches: the training side.

Scores are float32 whatever the type of the inputs. A packed batch of N texts is a flat array of positions
with `offsets` int64 ``[N + 1]``. The formulae are those of `triptych.ops.scores`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from triptych.ops.torch_maxsim import MaxSim


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

    Neither forward nor backward holds the ``[S, T]`` similarities of the whole batch: see `torch_maxsim`. 16-bit
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
