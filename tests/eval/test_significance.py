"""Tests of significance against SciPy's, all sign patterns, and the definition of Holm's correction."""

from itertools import product

import numpy as np
import pytest
from scipy import stats

from triptych.errors import InputError
from triptych.eval.compare import TOGETHER, differences, holm, p_value, paired_t, randomisation
from triptych.eval.results import Subset


@pytest.mark.parametrize("seed", range(5))
def test_the_paired_t_test_equals_scipys(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 50)) + np.array([[0.1], [0.0]])
    assert paired_t(a, b) == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-9)
    assert paired_t(a, b) == paired_t(b, a)


def test_equal_or_single_scores_differ_in_nothing_and_a_constant_difference_is_certain() -> None:
    a = np.array([0.5, 0.25, 1.0])
    assert p_value(a, a) == p_value(a, a, "randomisation") == paired_t(a[:1], a[1:2]) == 1.0
    assert paired_t(a, a + 0.5) == 0.0


def test_the_randomisation_test_of_few_queries_counts_all_sign_patterns() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.random((2, 9))
    d = a - b
    means = [abs((d * signs).mean()) for signs in product((1, -1), repeat=9)]
    assert randomisation(a, b) == pytest.approx(np.mean([m >= abs(d.mean()) - 1e-12 for m in means]))


def test_the_randomisation_test_of_many_queries_is_near_the_t_test_and_repeats_itself() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.random((2, 400)) + np.array([[0.04], [0.0]])
    assert randomisation(a, b, trials=4000) == pytest.approx(paired_t(a, b), abs=0.03)
    assert randomisation(a, b, trials=500) == randomisation(a, b, trials=500)


@pytest.mark.parametrize("seed", range(5))
def test_holms_correction_equals_its_definition(seed: int) -> None:
    values = np.random.default_rng(seed).random(7).round(1).tolist()
    order = sorted(range(7), key=lambda i: values[i])
    expected, worst = [0.0] * 7, 0.0
    for step, i in enumerate(order):
        worst = max(worst, min(1.0, (7 - step) * values[i]))
        expected[i] = worst
    assert holm(values) == pytest.approx(expected, abs=1e-12)
    assert holm([]) == []


def test_scores_of_different_queries_are_refused() -> None:
    with pytest.raises(InputError, match="same queries"):
        paired_t(np.zeros(3), np.zeros(4))


def subset(name: str, scores: dict[str, list[float]]) -> Subset:
    ids = [f"q{i}" for i in range(len(next(iter(scores.values()))))]
    metrics = {system: {"nDCG@10": float(np.mean(values))} for system, values in scores.items()}
    return Subset(
        "set", name, "test", "digest", 9, len(ids), 9, metrics, "nDCG@10", ids, scores, [5] * len(ids)
    )


def test_each_subset_is_tested_against_the_reference_and_all_together_pair_by_pair() -> None:
    rng = np.random.default_rng(0)
    parts = [subset(name, {s: rng.random(30).tolist() for s in "abc"}) for name in ("de", "fr")]
    found = differences(parts, "c")
    assert [(one.subset, one.a, one.b) for one in found] == [
        ("de", "a", "c"),
        ("de", "b", "c"),
        ("fr", "a", "c"),
        ("fr", "b", "c"),
        (TOGETHER, "a", "b"),
        (TOGETHER, "a", "c"),
        (TOGETHER, "b", "c"),
    ]
    together = [np.concatenate([part.per_query[s] for part in parts]) for s in "ab"]
    assert found[4].p == pytest.approx(paired_t(*together))
    assert found[4].difference == pytest.approx(together[0].mean() - together[1].mean())
    assert [one.p_holm for one in found[4:]] == pytest.approx(holm([one.p for one in found[4:]]))


def test_an_unknown_reference_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of a, b"):
        differences([subset("", {"a": [1.0], "b": [0.0]})], "x")
