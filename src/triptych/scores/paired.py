"""Paired comparison of two rankings of the same queries: Student's t-test over clusters, and Holm's correction."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special

from triptych.errors import InputError

Values: TypeAlias = NDArray[np.float64]

LEVEL = 0.05
"""Below this a corrected p-value counts as significant."""


def paired_t(a: Values, b: Values, clusters: Sequence[Hashable] | None = None) -> float:
    """Two-sided p-value of Student's paired t-test; 1 for equal samples or fewer than two clusters.

    Args:
        a: ``[Q]`` scores of one system.
        b: ``[Q]`` scores of the other for the same queries.
        clusters: The cluster of each query; None: each query is one.
    """
    difference = cluster_means(differences_of(a, b), clusters)
    n = len(difference)
    if n < 2 or not difference.any():
        return 1.0
    error = difference.std(ddof=1) / np.sqrt(n)
    if error == 0:
        return 0.0
    return float(2 * special.stdtr(n - 1, -abs(difference.mean() / error)))


def cluster_means(values: Values, clusters: Sequence[Hashable] | None) -> Values:
    """The mean of each cluster's values, in the order in which the clusters first appear.

    Raises:
        InputError: If there are not as many names of clusters as values.
    """
    if clusters is None:
        return values
    if len(clusters) != len(values):
        raise InputError(f"paired test: got {len(clusters)} clusters for {len(values)} queries")
    number: dict[Hashable, int] = {}
    places = [number.setdefault(name, len(number)) for name in clusters]
    return np.bincount(places, values, len(number)) / np.bincount(places, minlength=len(number))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that may be compared with the level for the whole family.

    **Math** with p sorted ascending, ``p̃_(i) = max_{j ≤ i} min(1, (m − j + 1) · p_(j))`` (Holm 1979).
    """
    order = np.argsort(values, kind="stable")
    scaled = np.minimum(1, np.asarray(values, float)[order] * np.arange(len(values), 0, -1))
    corrected = np.empty(len(values))
    corrected[order] = np.maximum.accumulate(scaled)
    return corrected.tolist()


def differences_of(a: Values, b: Values) -> Values:
    """``a − b``.

    Raises:
        InputError: Unless both are scores of the same queries.
    """
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(
            f"paired test: got scores of shapes {a.shape} and {b.shape}; expected the same queries"
        )
    return a - b
