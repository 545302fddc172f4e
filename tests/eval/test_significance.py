"""Tests of significance against SciPy's, all sign patterns, and the definition of Holm's correction."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import stats

from eval import made
from triptych.collections.base import Collection, MemoryCorpus
from triptych.errors import InputError
from triptych.eval.compare import Choice, compare
from triptych.eval.evaluate import evaluate_systems
from triptych.eval.results import Subset
from triptych.eval.significance import (
    TOGETHER,
    cluster_means,
    clusters_in,
    clusters_of,
    differences,
    holm,
    p_value,
    paired_t,
    randomisation,
)


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
    ids = [f"{name}{i}" for i in range(len(next(iter(scores.values()))))]
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


@pytest.mark.parametrize("seed", range(3))
def test_a_test_by_cluster_is_the_paired_test_of_the_clusters_means(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.random((2, 60))
    clusters = [f"c{number}" for number in rng.integers(0, 9, 60)]
    names = sorted(set(clusters))
    means = [
        [np.mean([value for value, own in zip(side, clusters, strict=True) if own == name]) for name in names]
        for side in (a, b)
    ]
    assert paired_t(a, b, clusters) == pytest.approx(stats.ttest_rel(*means).pvalue, rel=1e-9)
    assert randomisation(a, b, clusters) == pytest.approx(randomisation(*map(np.asarray, means)))
    assert paired_t(a, b, list(range(60))) == pytest.approx(paired_t(a, b))
    with pytest.raises(InputError, match="2 clusters for 60 queries"):
        cluster_means(a, ["x", "y"])


def test_a_question_asked_in_twelve_languages_counts_once() -> None:
    rng = np.random.default_rng(5)
    question = rng.normal(0.03, 0.2, 40)  # by which a is better, the same in every language
    parts = []
    for language in ("ar", "de", "el", "en", "es", "hi", "ro", "ru", "th", "tr", "vi", "zh"):
        noise = rng.normal(0, 0.001, 40)
        scores = {"a": (0.5 + question + noise).tolist(), "b": [0.5] * 40}
        ids = [f"set-{language}-{number:04}-{language}" for number in range(40)]
        parts.append(replace(subset(language, scores), ids=ids))
    [*_, whole] = differences(parts, "b")
    assert whole.clusters == 40
    assert whole.p == pytest.approx(paired_t(question, np.zeros(40)), rel=0.05)
    independent = np.concatenate([np.asarray(part.per_query["a"]) for part in parts])
    assert paired_t(independent, np.full(480, 0.5)) < whole.p / 100


def parallel(*languages: str, qrels: dict[str, dict[str, int]], queries: dict[str, str]) -> list[Collection]:
    """The same questions in each language, whose code stands in the place of LL."""
    documents = {name.replace("LL", lang): "w1" for lang in languages for q in qrels.values() for name in q}
    corpus = MemoryCorpus.of(documents)
    return [
        Collection(
            "set",
            lang,
            corpus,
            {q.replace("LL", lang): f"{text} {lang}" for q, text in queries.items()},
            {
                q.replace("LL", lang): {d.replace("LL", lang): value for d, value in judged.items()}
                for q, judged in qrels.items()
            },
        )
        for lang in languages
    ]


def test_clusters_join_translations_of_a_question_and_questions_on_a_passage() -> None:
    queries = {"x-LL-1-a": "one", "x-LL-1-b": "two", "x-LL-2-a": "three", "x-LL-3": "four"}
    qrels = {
        "x-LL-1-a": {"x-LL-1": 1, "x-LL-2": 0},
        "x-LL-1-b": {"x-LL-1": 2},
        "x-LL-2-a": {"x-LL-2": 1},
        "x-LL-3": {"x-LL-3": 1},
    }
    found = clusters_of(parallel("de", "zh_CN", queries=queries, qrels=qrels))
    assert found[0] == found[1]
    assert [name == found[0][0] for name in found[0]] == [True, True, False, False]
    assert len(set(found[0])) == 3


def test_equal_ids_in_all_languages_are_one_question_where_only_answers_are_judged() -> None:
    corpus = MemoryCorpus.of({"p": "w1"})
    answers = {"7": ("x",), "8": ("y",)}
    sets = [
        Collection("mkqa", f"{lang}-en", corpus, {"7": f"a {lang}", "8": f"b {lang}"}, {}, answers=answers)
        for lang in ("de", "fr", "zh_cn")
    ]
    assert clusters_of(sets) == [["mkqa/7", "mkqa/8"]] * 3


def test_queries_that_share_few_of_many_relevant_documents_stay_apart() -> None:
    corpus = MemoryCorpus.of(dict.fromkeys("abcdef", "w1"))
    qrels = {
        "1": {"a": 1, "b": 1, "c": 1},
        "2": {"c": 1, "d": 1, "e": 1},
        "3": {"d": 1, "e": 1},
        "4": {"f": 1},
    }
    one = Collection("set", "", corpus, {q: f"text {q}" for q in qrels}, qrels)
    first, second, third, fourth = clusters_of([one])[0]
    assert second == third  # two of three are the same
    assert len({first, second, fourth}) == 3
    twins = replace(one, queries=dict.fromkeys(qrels, "the same text"))
    assert len(set(clusters_of([twins])[0])) == 1


def test_results_name_their_clusters_and_every_test_uses_them() -> None:
    queries = {f"x-LL-{number}": f"w{number}" for number in range(12)}
    qrels = {query: {f"d-LL-{number // 4}": 1} for number, query in enumerate(queries)}
    sets = parallel("de", "en", "fr", queries=queries, qrels=qrels)
    sets = [replace(one, queries={q: text.split()[0] for q, text in one.queries.items()}) for one in sets]
    result = evaluate_systems(sets, [made.WordCount(), made.Toy(modes={"dense": made.MODES["dense"]})])
    assert {name for one in result.subsets for name in one.clusters} == set(result.subsets[0].clusters)
    assert len(set(result.subsets[0].clusters)) == 3
    assert {one.clusters for one in result.significance} == {3}
    older = replace(result, subsets=[replace(one, clusters=[]) for one in result.subsets])
    assert len(set(clusters_in(older.subsets))) == 12  # by ids alone
    [found] = compare({"x": result}, Choice(reference="words"))
    assert found.rows == ["mean", "de", "en", "fr"]
