import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.scores.on_numpy import ndcg


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 999), st.integers(1, 12), st.integers(1, 12))
def test_ndcg_equals_ir_measures(seed, documents, k):
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.arange(3 * documents, dtype=float)).reshape(3, documents)
    gains = [
        {
            int(column): int(rng.integers(0, 4))
            for column in rng.choice(documents, documents // 2, replace=False)
        }
        for _ in range(3)
    ]
    run = [ir_measures.ScoredDoc(str(q), str(d), scores[q, d]) for q in range(3) for d in range(documents)]
    qrels = [ir_measures.Qrel(str(q), str(d), gain) for q in range(3) for d, gain in gains[q].items()]
    got = ndcg(scores, gains, k)
    expected = {m.query_id: m.value for m in ir_measures.iter_calc([ir_measures.nDCG @ k], qrels, run)}
    for q in range(3):
        assert got[q] == pytest.approx(expected.get(str(q), 0.0), abs=1e-9)


def test_a_perfect_ranking_is_1_and_a_query_without_relevant_documents_0():
    scores = np.array([[3.0, 2.0, 1.0]] * 2)
    assert ndcg(scores, [{0: 2, 1: 1}, {0: 0}]).tolist() == [1.0, 0.0]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 999), st.integers(1, 9), st.integers(1, 12))
def test_equal_scores_rank_by_column(seed, documents, k):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (4, documents)).astype(np.float32)
    gains = [{int(column): 1 for column in rng.choice(documents, 1)} for _ in range(4)]
    for row, (given_scores, known) in enumerate(zip(scores, gains, strict=True)):
        ranked = sorted(range(documents), key=lambda column: (-given_scores[column], column))
        rank = ranked.index(next(iter(known))) + 1
        expected = 1 / np.log2(rank + 1) if rank <= k else 0.0
        assert ndcg(scores, gains, k)[row] == pytest.approx(expected)
