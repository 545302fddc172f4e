"""Which systems differ, subset by subset and data set by data set."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InputError
from triptych.eval.results import Difference, Subset
from triptych.eval.significance import Test, holm, p_value

TOGETHER = "*"
"""The name of all subsets of a data set together."""


def differences(subsets: Sequence[Subset], reference: str, test: Test = "t") -> list[Difference]:
    """Tests the systems against each other.

    On each subset every system is compared with the reference. With the queries of all subsets of a data set
    together every pair is compared. Holm's correction is for all comparisons of one subset, or of all together.

    Args:
        subsets: Results.
        reference: A system.
        test: Which.

    Raises:
        InputError: If there is no such system.
    """
    found: list[Difference] = []
    for dataset in dict.fromkeys(subset.dataset for subset in subsets):
        members = [subset for subset in subsets if subset.dataset == dataset]
        systems = list(members[0].per_query)
        if reference not in systems:
            raise InputError(f"reference: got {reference!r}; expected one of {', '.join(systems)}")
        against = [(name, reference) for name in systems if name != reference]
        if len(members) > 1:
            for subset in members:
                found += _family([subset], subset.subset, against, test)
        found += _family(members, TOGETHER, list(combinations(systems, 2)), test)
    return found


def _family(
    members: Sequence[Subset], name: str, pairs: Sequence[tuple[str, str]], test: Test
) -> list[Difference]:
    metric = members[0].primary
    values = {system: _joined(members, system) for pair in pairs for system in pair}
    raw = [p_value(values[a], values[b], test) for a, b in pairs]
    return [
        Difference(
            members[0].dataset, name, metric, a, b, float(np.mean(values[a] - values[b])), p, corrected
        )
        for (a, b), p, corrected in zip(pairs, raw, holm(raw), strict=True)
    ]


def _joined(members: Sequence[Subset], system: str) -> NDArray[np.float64]:
    return np.concatenate([np.asarray(subset.per_query[system], dtype=np.float64) for subset in members])
