"""Whether two systems differ: paired tests over clusters of queries, corrected for their number.

Queries are not always independent: parallel sets ask the same question in many languages, and several questions are
asked about one passage. Such queries form a *cluster*. Each cluster counts once, with the mean of its queries'
differences; with independent queries this is the usual paired test.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations
from typing import Literal, TypeAlias

import numpy as np
from scipy import stats

from triptych.collections.base import Collection
from triptych.errors import InputError
from triptych.eval.results import Difference, Subset
from triptych.scores.paired import Values, cluster_means, differences_of, holm, paired_t

Test: TypeAlias = Literal["t", "randomisation"]

TOGETHER = "*"
"""The name of all subsets of a data set together."""

_MAX_SHARED = 500  # relevant sets with one document, above which that document says nothing of dependence


def randomisation(
    a: Values,
    b: Values,
    clusters: Sequence[Hashable] | None = None,
    trials: int = 10_000,
    seed: int = 0,
) -> float:
    """Two-sided p-value of Fisher's paired randomisation test: the signs of the clusters' differences are flipped.

    Exact if there are at most as many sign patterns as trials; otherwise (hits + 1) / (trials + 1).

    Args:
        a: ``[Q]`` scores of one system.
        b: ``[Q]`` scores of the other for the same queries.
        clusters: The cluster of each query; None: each query is one.
        trials: Random sign patterns.
        seed: Of the random numbers.
    """
    difference = cluster_means(differences_of(a, b), clusters)
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


def p_value(a: Values, b: Values, test: Test = "t", clusters: Sequence[Hashable] | None = None) -> float:
    """The p-value of the test of that name; arguments as of `paired_t`."""
    return paired_t(a, b, clusters) if test == "t" else randomisation(a, b, clusters)


class _Union:
    """Sets of keys that are merged."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def find(self, key: Hashable) -> Hashable:
        parent = self._parent.setdefault(key, key)
        while parent != key:
            self._parent[key] = parent = self._parent[parent]
            key, parent = parent, self._parent[parent]
        return key

    def merge(self, a: Hashable, b: Hashable) -> None:
        self._parent[self.find(a)] = self.find(b)


def clusters_of(collections: Sequence[Collection]) -> list[list[str]]:
    """Names of the clusters of each collection's queries.

    Two queries are of one cluster, directly or through others, if within one data set or corpus they have the same
    text, the same id but for the language, or relevant documents of which at least half are shared. Ids are
    compared without the codes of their subset's languages: ``xquad-de-0001-2`` of the subset ``de`` is
    ``xquad-en-0001-2`` of ``en``. Ids that are equal by chance only make the tests weaker.
    """
    union = _Union()
    relevant: dict[Hashable, dict[frozenset[str], None]] = defaultdict(dict)
    for one in collections:
        union.merge(("name", one.name), ("corpus", one.corpus.digest))
    for one in collections:
        scope = union.find(("name", one.name))
        for query, text in one.queries.items():
            node = _node(one.name, one.subset, query)
            union.merge(node, ("text", scope, text))
            judged = one.qrels.get(query, {})
            documents = frozenset(language_free(d, one.subset) for d, value in judged.items() if value > 0)
            if documents:
                relevant[scope][documents] = None
                union.merge(node, (scope, documents))
    for scope, sets in relevant.items():
        for a, b in _overlapping(list(sets)):
            union.merge((scope, a), (scope, b))
    names: dict[Hashable, str] = {}
    found: list[list[str]] = []
    for one in collections:
        own: list[str] = []
        for query in one.queries:
            name = f"{one.name}/{language_free(query, one.subset)}"
            own.append(names.setdefault(union.find(_node(one.name, one.subset, query)), name))
        found.append(own)
    return found


def _node(name: str, subset: str, query: str) -> Hashable:
    return ("query", name, language_free(query, subset))


def language_free(name: str, subset: str) -> str:
    """An id without the language codes of its subset (as words of their own); the id if nothing else is left."""
    codes = sorted({part for part in (subset, *subset.split("-")) if len(part) > 1}, key=len, reverse=True)
    if not codes:
        return name
    pattern = rf"(?<![^\W_])(?:{'|'.join(map(re.escape, codes))})(?![^\W_])"
    return re.sub(pattern, "", name, flags=re.IGNORECASE) or name


def _overlapping(sets: Sequence[frozenset[str]]) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Pairs of sets whose intersection is at least half of their union."""
    having: dict[str, list[int]] = defaultdict(list)
    for number, documents in enumerate(sets):
        for document in documents:
            having[document].append(number)
    shared: Counter[tuple[int, int]] = Counter()
    for numbers in having.values():
        if len(numbers) <= _MAX_SHARED:
            shared.update(combinations(numbers, 2))
    return [
        (sets[a], sets[b])
        for (a, b), both in shared.items()
        if 2 * both >= len(sets[a]) + len(sets[b]) - both
    ]


def clusters_in(subsets: Sequence[Subset]) -> list[str]:
    """The clusters of the queries of all subsets, one after the other.

    Results of older versions do not name them; there, equal ids but for the language are one cluster.
    """
    found: list[str] = []
    for one in subsets:
        count = len(next(iter(one.per_query.values()), one.ids))
        if len(one.clusters) == count:
            found += one.clusters
        elif len(one.ids) == count:
            found += [f"{one.dataset}/{language_free(query, one.subset)}" for query in one.ids]
        else:
            found += [f"{one.label}/{number}" for number in range(count)]
    return found


def differences(subsets: Sequence[Subset], reference: str, test: Test = "t") -> list[Difference]:
    """Tests the systems against each other.

    On each subset every system is compared with the reference. With the queries of all subsets of a data set
    together every pair is compared. Holm's correction is for all comparisons of one subset, or of all together.

    Args:
        subsets: Results.
        reference: A system; data sets for which it has no result are compared without one.
        test: Which.

    Raises:
        InputError: If there is no such system.
    """
    systems = list(dict.fromkeys(name for one in subsets for name in one.per_query))
    if reference not in systems:
        raise InputError(f"reference: got {reference!r}; expected one of {', '.join(systems)}")
    found: list[Difference] = []
    for dataset in dict.fromkeys(subset.dataset for subset in subsets):
        members = [subset for subset in subsets if subset.dataset == dataset]
        own = [name for name in systems if all(name in one.per_query for one in members)]
        if len(members) > 1 and reference in own:
            against = [(name, reference) for name in own if name != reference]
            for subset in members:
                found += _family([subset], subset.subset, against, test)
        found += _family(members, TOGETHER, list(combinations(own, 2)), test)
    return found


def _family(
    members: Sequence[Subset], name: str, pairs: Sequence[tuple[str, str]], test: Test
) -> list[Difference]:
    clusters = clusters_in(members)
    values: Mapping[str, Values] = {
        system: np.concatenate([np.asarray(one.per_query[system], np.float64) for one in members])
        for system in dict.fromkeys(system for pair in pairs for system in pair)
    }
    raw = [p_value(values[a], values[b], test, clusters) for a, b in pairs]
    many = len(set(clusters))
    dataset, metric = members[0].dataset, members[0].primary
    return [
        Difference(dataset, name, metric, a, b, float(np.mean(values[a] - values[b])), p, corrected, many)
        for (a, b), p, corrected in zip(pairs, raw, holm(raw), strict=True)
    ]
