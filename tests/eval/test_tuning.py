"""Weights are chosen where they are said to be."""

import numpy as np
import pytest

from eval import made
from triptych.errors import InputError
from triptych.eval.evaluate import evaluate_systems as evaluate
from triptych.eval.protocols import Pool
from triptych.eval.running import EvalOptions
from triptych.eval.tuning import Development, drop_reported, tune
from triptych.scores.on_numpy import ndcg
from triptych.types import HEADS, HeadWeights

NONE = np.zeros(0, np.int64)


def development(
    seed: int, queries: int = 20, documents: int = 30
) -> tuple[Development, np.ndarray, list[dict[int, int]]]:
    rng = np.random.default_rng(seed)
    scores = rng.random((3, queries, documents)).astype(np.float32)
    gains = [{int(row): int(rng.integers(1, 4)) for row in rng.choice(documents, 3)} for _ in range(queries)]
    for query, judged in enumerate(gains):
        for row in judged:
            scores[1, query, row] += 0.4  # the lexical score knows best
    pool = Pool([np.arange(documents)] * queries, list(scores.transpose(1, 0, 2)))
    return (
        Development.of(pool, [(i, judged, NONE) for i, judged in enumerate(gains)], np.arange(documents)),
        scores,
        gains,
    )


@pytest.mark.parametrize("weights", [HeadWeights(1, 0, 0), HeadWeights(1, 0.3, 1), HeadWeights(0, 1, 2)])
def test_the_quality_of_weights_is_the_mean_ndcg_of_their_sum(weights: HeadWeights) -> None:
    found, scores, gains = development(0)
    total = sum(w * s for w, s in zip(weights, scores, strict=True))
    assert found.ndcg(weights) == pytest.approx(np.mean(ndcg(total, gains, 10)), abs=1e-6)


def test_documents_that_are_left_out_or_not_in_the_corpus_change_the_quality_as_they_should() -> None:
    pool = Pool([np.array([0, 1, 2])], [np.array([[3, 2, 1], [0, 0, 0], [0, 0, 0]], np.float32)])
    dense = HeadWeights(1, 0, 0)
    second = [(0, {1: 1}, NONE)]
    assert Development.of(pool, second, np.arange(3)).ndcg(dense) == pytest.approx(1 / np.log2(3))
    assert Development.of(pool, [(0, {1: 1}, np.array([0]))], np.arange(3)).ndcg(dense) == pytest.approx(1)
    absent = Development.of(pool, [(0, {1: 1, -1: 1}, np.array([0]))], np.arange(3)).ndcg(dense)
    assert absent == pytest.approx(1 / (1 + 1 / np.log2(3)))


def test_equal_sums_rank_by_id() -> None:
    pool = Pool([np.array([0, 1])], [np.zeros((3, 2), np.float32)])
    places = [(0, {1: 1}, NONE)]
    assert Development.of(pool, places, np.array([0, 1])).ndcg(HeadWeights()) == pytest.approx(1 / np.log2(3))
    assert Development.of(pool, places, np.array([1, 0])).ndcg(HeadWeights()) == 1


def test_joined_parts_of_different_width_keep_their_quality() -> None:
    parts = [development(1, 5, 30)[0], development(2, 7, 12)[0]]
    weights = HeadWeights(1, 0.5, 1)
    expected = (5 * parts[0].ndcg(weights) + 7 * parts[1].ndcg(weights)) / 12
    assert Development.concat(parts).ndcg(weights) == pytest.approx(expected)


def test_tuning_is_at_least_as_good_as_the_usual_weights_and_uses_only_its_heads() -> None:
    found, _, _ = development(3)
    weights, value = tune(found, HEADS)
    assert value >= max(
        found.ndcg(HeadWeights()), found.ndcg(HeadWeights(0, 1, 0)), found.ndcg(HeadWeights(1, 0, 0))
    )
    assert value == pytest.approx(found.ndcg(weights), abs=1e-3)
    assert tune(found, ("dense", "multi"))[0].lexical == 0


def test_tuned_modes_are_reported_beside_the_fixed_ones_with_where_they_come_from() -> None:
    dev = made.collection(80, 20, seed=9, name="dev", split="dev", words=(8,))
    result = evaluate([made.collection()], [made.Toy()], EvalOptions(block=16), development=[dev])
    told = {one.system: one for one in result.tuned}
    assert set(told) == {"toy/dense+lexical tuned", "toy/all tuned"} <= set(result.systems)
    for name, one in told.items():
        assert one.ndcg >= one.fixed_ndcg
        assert (one.development, one.queries) == (["dev"], 20)
        assert result.systems[name].weights == one.weights


def test_no_query_that_is_reported_is_tuned_on() -> None:
    test = made.collection()
    shared = dict(list(test.queries.items())[:3])
    dev = made.collection(seed=5, name="dev", words=(8,))
    mixed = made.Collection(
        "dev", "", dev.corpus, {**dev.queries, **shared}, {**dev.qrels, **{q: test.qrels[q] for q in shared}}
    )
    [kept], left_out = drop_reported([mixed], [test])
    assert (kept.queries, left_out) == (dev.queries, 3)
    for bad in (test, made.Collection("other", "", dev.corpus, shared, {q: test.qrels[q] for q in shared})):
        with pytest.raises(InputError, match="reported, too"):
            drop_reported([bad], [test])
