"""The three scores, their weighted sum and the order that they make, on NumPy and SciPy arrays.

`triptych.scores.on_torch` has the same functions for training and for GPUs. The formulae are those of
arXiv 2402.03216v4, section 3.2; `tests/reference.py` writes them out in plain loops.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy import sparse

from triptych.errors import InputError
from triptych.scores.tokens import Tokens
from triptych.types import DefaultWeights, Encoded, Floats, Head, HeadWeights, Ragged

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


def maxsim_scores(queries: Ragged, documents: Ragged | Tokens) -> Floats:
    """Mean over a query's tokens of the inner product with the document's best token, for all pairs.

    **Math** ``s_mul = 1/N Σ_i max_j <E_q[i], E_p[j]>`` (section 3.2, multi-vector retrieval; N is the number
    of query vectors). No [Q, N, S, T] array is made: documents go through in blocks of whole texts.

    Args:
        queries: Q matrices ``[S_i, D']``.
        documents: N matrices ``[T_j, D']``; packed ones count as what they stand for.

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
    packed = documents if isinstance(documents, Tokens) else Tokens.of(documents)
    for block in cuts(documents.lengths[filled_documents], max(1, _BLOCK // len(query_rows))):
        columns = filled_documents[block]
        first, last = documents.offsets[columns[0]], documents.offsets[columns[-1] + 1]
        products = packed.products(query_rows, int(first), int(last))
        # Texts without vectors between two others take no rows, so the starts stay strictly ascending.
        best = np.maximum.reduceat(products, documents.offsets[columns] - first, axis=1)
        scores[np.ix_(filled_queries, columns)] = np.add.reduceat(best, query_starts, axis=0) / query_lengths
    return scores


def combine(
    scores: Mapping[Head, Floats], weights: HeadWeights, queries: Encoded | Floats | None = None
) -> Floats:
    """The weighted sum of the single scores (section 3.2, hybrid retrieval); it is not renormalised.

    Args:
        scores: Equal shapes, one for each head that has a weight.
        weights: Weights ≥ 0.
        queries: What the scores are of, a row each, or their `lexical_squares`; needed for `DefaultWeights`, in which
            the lexical score counts by how much of the query it covers.

    Raises:
        InputError: If a head with a weight has no scores, or the queries are needed and missing.
    """
    missing = [head for head in weights.heads if head not in scores]
    if missing:
        raise InputError(
            f"combine: weights {tuple(weights)} use {missing}, but the scores given are {list(scores)}"
        )
    if isinstance(weights, DefaultWeights) and weights.lexical:
        scores = {**scores, "lexical": coverage(scores["lexical"], queries)}
    total: Floats = sum(
        (np.float32(getattr(weights, head)) * scores[head] for head in weights.heads), np.float32(0)
    )  # type: ignore[assignment]
    return total


def coverage(lexical: Floats, queries: Encoded | Floats | None) -> Floats:
    """How much of each query its lexical scores cover: ``(s_lex / Σ w_q²)³``; 0 for a query without words.

    Args:
        lexical: Scores ``[Q, N]``, or ``[N]`` of a single query.
        queries: Q queries with their lexical weights, or their `lexical_squares`.

    Raises:
        InputError: For queries without lexical weights.
    """
    own = queries if isinstance(queries, np.ndarray) else lexical_squares(queries)
    share = lexical / np.maximum(own[:, None] if lexical.ndim == 2 else own, np.float32(1e-12))
    return np.where(lexical > 0, share * share * share, np.float32(0))


def lexical_squares(queries: Encoded | None) -> Floats:
    """What each query's lexical weights have with themselves, ``Σ w_q²``, float32 ``[Q]``.

    Raises:
        InputError: For queries without lexical weights.
    """
    if queries is None or queries.lexical is None:
        raise InputError("combine: the default weights need the queries' lexical weights; expected queries")
    words = queries.lexical
    return np.asarray(words.multiply(words).sum(axis=1), dtype=np.float32).reshape(-1)


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


def cuts(lengths: NDArray[np.int64], budget: int) -> list[slice]:
    """Cuts a sequence of texts into consecutive runs of at most `budget` rows each (a longer text stands alone).

    Args:
        lengths: ``[N]``, rows of each text.
        budget: Rows, ≥ 1.

    Returns:
        Slices that cover all N texts in order.
    """
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


def ndcg(
    scores: NDArray[Any], gains: Sequence[Mapping[int, int | float]], k: int = 10
) -> NDArray[np.float64]:
    """Normalised discounted cumulative gain of each query, over all documents.

    **Math** ``nDCG@k = Σ_{r ≤ k} g_r / log2(r + 1)``, divided by that of the best order; g is the relevance, as
    trec_eval's ``ndcg_cut`` has it. Equal scores rank by column.

    Args:
        scores: ``[Q, N]``; columns with -inf are not ranked.
        gains: For each query, column to relevance; what is missing, or not above 0, is not relevant.
        k: Depth ≥ 1.

    Returns:
        float64 ``[Q]`` in [0, 1]; 0 for a query without a relevant document.
    """
    k = min(k, scores.shape[1])
    discount = 1 / np.log2(np.arange(2, k + 2))
    found = np.zeros(len(scores))
    for row, known in enumerate(gains):
        got = np.array([max(0.0, known.get(int(column), 0.0)) for column in top_k(scores[row], k)])
        ideal = np.sort([value for value in known.values() if value > 0])[::-1][:k]
        if len(ideal):
            found[row] = (got * discount[: len(got)]).sum() / (ideal * discount[: len(ideal)]).sum()
    return found


def top_k(
    scores: NDArray[Any], k: int, *, floor: float = -np.inf, with_ties: bool = False
) -> NDArray[np.int64]:
    """Positions of the k largest scores, the best first; equal ones by position, as a stable sort has them.

    This is the one rule for ties. To break them by id, sort the documents by id beforehand; where that order is not
    known yet, `with_ties` also returns all that equal the k-th.

    Args:
        scores: ``[N]``.
        k: How many, ≥ 0.
        floor: Only scores above it count; -inf (the default) leaves out scores of -inf.
        with_ties: Return all that are equal to the k-th, too.

    Returns:
        int64 ``[≤ k]``, or more with `with_ties`.
    """
    above = np.flatnonzero(scores > floor)
    if len(above) > k:
        if not k:
            return above[:0]
        bar = np.partition(scores[above], len(above) - k)[len(above) - k]
        above = above[scores[above] >= bar]
    order = above[np.argsort(-scores[above], kind="stable")]
    return order if with_ties else order[:k]


def maxsim_of_pairs(
    queries: Ragged, documents: Ragged, query: NDArray[np.int64], document: NDArray[np.int64]
) -> Floats:
    """MaxSim of chosen pairs: one product for each document with all its queries, read where its vectors stand.

    **Math** as `maxsim_scores`.

    Args:
        queries: Q matrices ``[S_i, D']``.
        documents: N matrices ``[T_j, D']``.
        query: int64 ``[P]``, the query of each pair.
        document: int64 ``[P]``, its document.

    Returns:
        float32 ``[P]``; 0 where either side has no vectors.
    """
    scores = np.zeros(len(query), dtype=np.float32)
    filled = np.flatnonzero((queries.lengths[query] > 0) & (documents.lengths[document] > 0))
    order = filled[np.argsort(document[filled], kind="stable")]
    for pairs in np.split(order, np.flatnonzero(np.diff(document[order])) + 1) if len(order) else []:
        vectors = documents[int(document[pairs[0]])].astype(np.float32, copy=False)
        stacked = np.concatenate([queries[int(i)] for i in query[pairs]]).astype(np.float32, copy=False)
        lengths = queries.lengths[query[pairs]]
        best = (stacked @ vectors.T).max(axis=1)
        scores[pairs] = np.add.reduceat(best, np.cumsum(lengths) - lengths) / lengths
    return scores


_GONE = -np.inf


class Best:
    """For each of Q queries the k documents with the highest total so far, equal ones by their rank.

    New entries wait until there are as many as are kept, and are sorted in together: a block costs little more
    than one comparison for each score.

    Args:
        queries: Q.
        k: Documents a query.
        parts: Number of single scores that are kept with each document.

    Attributes:
        rows: int64 ``[Q, k]``, numbers of documents, the best first; -1 where there are fewer than k.
        totals: float32 ``[Q, k]``, descending; -inf where there are fewer.
        parts: float32 ``[P, Q, k]``, the single scores.
    """

    def __init__(self, queries: int, k: int, parts: int) -> None:
        self.rows = np.full((queries, k), -1, dtype=np.int64)
        self.totals: Floats = np.full((queries, k), _GONE, dtype=np.float32)
        self.parts: Floats = np.zeros((parts, queries, k), dtype=np.float32)
        self._ranks = np.full((queries, k), np.iinfo(np.int64).max)
        self._waiting: list[
            tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], Floats, Floats]
        ] = []
        self._many = 0

    def add(
        self,
        first: int,
        rows: NDArray[np.int64],
        ranks: NDArray[np.int64],
        totals: Floats,
        parts: Floats,
    ) -> None:
        """Takes the scores of some queries and documents.

        Args:
            first: Number of the first of these queries; the others follow it.
            rows: ``[n]``, numbers of the documents, all new.
            ranks: ``[n]``, their ranks among equals.
            totals: ``[q, n]``; -inf: not to be listed.
            parts: ``[P, q, n]``.
        """
        k = self.rows.shape[1]
        last = first + len(totals)
        bar = self.totals[first:last, -1:]
        chosen = (totals >= bar) & (totals > _GONE)
        if totals.shape[1] > k and np.count_nonzero(chosen) > 2 * k * len(totals):
            place = totals.shape[1] - k
            chosen &= totals >= np.partition(totals, place, axis=1)[:, place, None]
        query, column = np.nonzero(chosen)
        if not len(query):
            return
        entry = (query + first, rows[column], ranks[column], totals[query, column], parts[:, query, column])
        self._waiting.append(entry)
        self._many += len(query)
        if self._many >= self.rows.size:
            self.settle()

    def settle(self) -> None:
        """Sorts in what waits; after it, the attributes hold."""
        if not self._waiting:
            return
        k = self.rows.shape[1]
        kept = np.nonzero(self.rows >= 0)
        old = (kept[0], self.rows[kept], self._ranks[kept], self.totals[kept], self.parts[:, *kept])
        query, rows, ranks, totals, parts = (
            np.concatenate(part, axis=-1) for part in zip(old, *self._waiting, strict=True)
        )
        self._waiting, self._many = [], 0
        order = np.lexsort((ranks, -totals, query))
        query = query[order]
        place = np.arange(len(query)) - np.searchsorted(query, query)
        inside = place < k
        order, at = order[inside], (query[inside], place[inside])
        self.rows[at], self.totals[at], self._ranks[at] = rows[order], totals[order], ranks[order]
        self.parts[:, *at] = parts[:, order]
