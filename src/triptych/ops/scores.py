"""The three scores and their sum on NumPy and SciPy arrays: the index's and the evaluation's side.

`triptych.ops.torch_scores` has the same functions for training. The formulae are those of
arXiv 2402.03216v4, section 3.2; `tests/reference.py` writes them out in plain loops.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import cast

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import sparse

from triptych.errors import InputError
from triptych.types import Encoded, Floats, Head, HeadWeights, Ragged

# Elements of the largest intermediate of MaxSim: 64 MB in float32, which stays near the cache's reach
# while the matrix product is still large enough to run at full speed.
_BLOCK = 16 * 1024 * 1024


def dense_scores(queries: Float[np.ndarray, "q d"], documents: Float[np.ndarray, "n w"]) -> Floats:
    """Inner products of all pairs.

    **Math** ``s_dense = <e_q, e_p>`` (section 3.2, dense retrieval).

    Args:
        queries: ``[Q, D]``, rows of length 1.
        documents: ``[N, D]``, rows of length 1.

    Returns:
        float32 ``[Q, N]`` in [-1, 1].

    Raises:
        InputError: For different widths.
    """
    _same_width("dense_scores", queries.shape[1], documents.shape[1])
    return queries.astype(np.float32, copy=False) @ documents.astype(np.float32, copy=False).T


def lexical_scores(queries: sparse.csr_array, documents: sparse.csr_array) -> Floats:
    """Sums over the shared token ids of the products of their weights, for all pairs.

    **Math** ``s_lex = Σ_{t ∈ q ∩ p} w_q(t) · w_p(t)`` (section 3.2, lexical retrieval).

    Args:
        queries: CSR ``[Q, V]``, non-negative.
        documents: CSR ``[N, V]``, non-negative.

    Returns:
        float32 ``[Q, N]``, ≥ 0.

    Raises:
        InputError: For different widths.
    """
    _same_width("lexical_scores", _shape(queries)[1], _shape(documents)[1])
    product = cast(sparse.csr_array, queries @ documents.T.tocsr())
    return np.asarray(product.toarray(), dtype=np.float32)


def maxsim_scores(queries: Ragged, documents: Ragged) -> Floats:
    """Mean over a query's tokens of the inner product with the document's best token, for all pairs.

    **Math** ``s_mul = 1/N Σ_i max_j <E_q[i], E_p[j]>`` (section 3.2, multi-vector retrieval; N is the number
    of query vectors). No [Q, N, S, T] array is made: documents go through in blocks of whole texts.

    Args:
        queries: Q matrices ``[S_i, D']``.
        documents: N matrices ``[T_j, D']``.

    Returns:
        float32 ``[Q, N]`` in [-1, 1]; 0 where either side has no vectors.

    Raises:
        InputError: For different widths.
    """
    scores = np.zeros((len(queries), len(documents)), dtype=np.float32)
    filled_queries = np.flatnonzero(queries.lengths)
    filled_documents = np.flatnonzero(documents.lengths)
    if not len(filled_queries) or not len(filled_documents):
        return scores
    _same_width("maxsim_scores", queries.width, documents.width)
    query_rows = queries.values.astype(np.float32, copy=False)
    query_starts = queries.offsets[filled_queries]
    query_lengths = queries.lengths[filled_queries].astype(np.float32)[:, None]
    for block in _blocks(documents.lengths[filled_documents], max(1, _BLOCK // len(query_rows))):
        columns = filled_documents[block]
        first, last = documents.offsets[columns[0]], documents.offsets[columns[-1] + 1]
        rows = documents.values[first:last].astype(np.float32, copy=False)
        # Texts without vectors between two others take no rows, so the starts stay strictly ascending.
        best = np.maximum.reduceat(query_rows @ rows.T, documents.offsets[columns] - first, axis=1)
        scores[np.ix_(filled_queries, columns)] = np.add.reduceat(best, query_starts, axis=0) / query_lengths
    return scores


def combine(scores: Mapping[Head, Floats], weights: HeadWeights) -> Floats:
    """The weighted sum of the single scores (section 3.2, hybrid retrieval); it is not renormalised.

    Args:
        scores: Equal shapes, one for each head that has a weight.
        weights: Weights ≥ 0.

    Raises:
        InputError: If a head with a weight has no scores.
    """
    missing = [head for head in weights.heads if head not in scores]
    if missing:
        raise InputError(
            f"combine: weights {tuple(weights)} use {missing}, but the scores given are {list(scores)}"
        )
    total: Floats = sum(
        (np.float32(getattr(weights, head)) * scores[head] for head in weights.heads), np.float32(0)
    )  # type: ignore[assignment]
    return total


def head_scores(queries: Encoded, documents: Encoded, head: Head) -> Floats:
    """The score of one head for all pairs, float32 ``[Q, N]``.

    Raises:
        InputError: If either side lacks the head.
    """
    for side, encoded in (("queries", queries), ("documents", documents)):
        if getattr(encoded, head) is None:
            raise InputError(f"head_scores: {side} have no {head!r} representation, only {encoded.heads}")
    if head == "dense":
        return dense_scores(cast(Floats, queries.dense), cast(Floats, documents.dense))
    if head == "lexical":
        return lexical_scores(
            cast(sparse.csr_array, queries.lexical), cast(sparse.csr_array, documents.lexical)
        )
    return maxsim_scores(cast(Ragged, queries.multi), cast(Ragged, documents.multi))


def _blocks(lengths: NDArray[np.int64], budget: int) -> list[slice]:
    """Consecutive runs of texts with at most `budget` rows each (a longer text stands alone)."""
    ends = np.cumsum(lengths)
    cuts, start = [0], 0
    while start < len(lengths):
        base = ends[start - 1] if start else 0
        start = max(start + 1, int(np.searchsorted(ends, base + budget, side="right")))
        cuts.append(start)
    return [slice(a, b) for a, b in pairwise(cuts)]


def _shape(matrix: sparse.csr_array) -> tuple[int, int]:
    return cast(tuple[int, int], matrix.shape)


def _same_width(function: str, queries: int, documents: int) -> None:
    if queries != documents:
        raise InputError(f"{function}: got widths {queries} (queries) and {documents}; expected equal ones")
