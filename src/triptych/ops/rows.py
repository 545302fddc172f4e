"""From one weight a position to one row a text: the lexical representation as a sparse matrix."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from triptych.types import Floats


def lexical_rows(
    ids: NDArray[Any], weights: Floats, offsets: NDArray[np.int64], vocabulary: int
) -> sparse.csr_array:
    """The largest weight of each token id of each text (arXiv 2402.03216v4, section 3.2, lexical retrieval).

    Args:
        ids: ``[T]`` token ids of N packed texts.
        weights: float32 ``[T]`` ≥ 0; 0 for positions that do not count.
        offsets: ``[N + 1]``.
        vocabulary: V, number of columns.

    Returns:
        CSR float32 ``[N, V]`` with sorted columns and no explicit zeros.
    """
    rows = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    kept = weights > 0
    key, weights = rows[kept] * vocabulary + ids[kept], weights[kept]
    order = np.argsort(key, kind="stable")
    key, weights = key[order], weights[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    data = np.maximum.reduceat(weights, first) if len(first) else weights
    rows, columns = np.divmod(key[first], vocabulary)
    indptr = np.searchsorted(rows, np.arange(len(offsets)))
    return sparse.csr_array((data, columns, indptr), shape=(len(offsets) - 1, vocabulary))
