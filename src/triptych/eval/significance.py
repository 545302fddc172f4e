"""Whether two systems differ: paired tests over queries, corrected for their number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from triptych.errors import InputError

Test: TypeAlias = Literal["t", "randomisation"]


def paired_t(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Two-sided p-value of Student's paired t-test; 1 for equal samples or fewer than two queries.

    Args:
        a: ``[Q]`` scores of one system.
        b: ``[Q]`` scores of the other for the same queries.
    """
    difference = _differences(a, b)
    n = len(difference)
    if n < 2 or not difference.any():
        return 1.0
    error = difference.std(ddof=1) / np.sqrt(n)
    if error == 0:
        return 0.0
    return float(2 * special.stdtr(n - 1, -abs(difference.mean() / error)))


def randomisation(
    a: NDArray[np.float64], b: NDArray[np.float64], trials: int = 10_000, seed: int = 0
) -> float:
    """Two-sided p-value of Fisher's paired randomisation test: signs of the differences change at random.

    Exact if there are at most as many sign patterns as trials; otherwise (hits + 1) / (trials + 1).

    Args:
        a: ``[Q]`` scores of one system.
        b: ``[Q]`` scores of the other for the same queries.
        trials: Random sign patterns.
        seed: Of the random numbers.
    """
    difference = _differences(a, b)
    difference = difference[difference != 0]
    if not len(difference):
        return 1.0
    tested = stats.permutation_test(
        (difference,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=trials,
        batch=max(1, 4_000_000 // len(difference)),
        rng=np.random.default_rng(seed),
    )
    return float(tested.pvalue)


def p_value(a: NDArray[np.float64], b: NDArray[np.float64], test: Test = "t") -> float:
    """The p-value of the test of that name."""
    return paired_t(a, b) if test == "t" else randomisation(a, b)


def holm(values: Sequence[float]) -> list[float]:
    """Holm's step-down correction: p-values that may be compared with the level for the whole family.

    **Math** with p sorted ascending, ``p̃_(i) = max_{j ≤ i} min(1, (m − j + 1) · p_(j))`` (Holm 1979).
    """
    order = np.argsort(values, kind="stable")
    scaled = np.minimum(1, np.asarray(values, float)[order] * np.arange(len(values), 0, -1))
    corrected = np.empty(len(values))
    corrected[order] = np.maximum.accumulate(scaled)
    return corrected.tolist()


def _differences(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(
            f"paired test: got scores of shapes {a.shape} and {b.shape}; expected the same queries"
        )
    return a - b
