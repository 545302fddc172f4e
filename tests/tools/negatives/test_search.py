import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from triptych.scores import on_numpy
from triptych.tools.negatives import search as exact
from triptych.tools.negatives.options import Scoring
from triptych.tools.negatives.search import NOTHING, ExactSearch, union
from triptych.types import Encoded, HeadWeights

from . import reference
from .made import encoded

CPU = torch.device("cpu")
HYBRID = HeadWeights(1.0, 0.5, 1.0)
SCORINGS = {
    "dense": Scoring(HeadWeights(1.0, 0.0, 0.0), ("dense",), 9),
    "lexical": Scoring(HeadWeights(0.0, 1.0, 0.0), ("lexical",), 9),
    "multi by all": Scoring(HeadWeights(0.0, 0.0, 1.0), ("multi",), 9),
    "multi by others": Scoring(HeadWeights(0.0, 0.0, 1.0), ("dense", "lexical"), 9),
    "hybrid": Scoring(HYBRID, ("dense", "lexical"), 9),
    "all routes": Scoring(HYBRID, ("dense", "lexical", "multi"), 9),
}


def search(documents: Encoded, searchable: int, scoring: Scoring) -> ExactSearch:
    blocks = [documents[:17], documents[17:18], documents[18:]]
    return ExactSearch(blocks, searchable, scoring, CPU)


@pytest.fixture(params=["whole", "in small parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "whole":
        monkeypatch.setattr(exact, "_PAIRS", 150)
        monkeypatch.setattr(exact, "_NUMBERS", {"cpu": 30})
        monkeypatch.setattr(exact, "_MOVED", 40)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("scoring", SCORINGS.values(), ids=SCORINGS.keys())
def test_ranks_and_scores_are_those_of_plain_loops_with_ties_by_row_and_texts_without_tokens(scoring):
    documents, queries = encoded(50, 1, empty=(0, 20, 49)), encoded(7, 2, empty=(3,))
    searchable, depth = 44, 12
    wanted = [[1, 45], [], [49], [0, 2, 3], [7], [44], [8, 9]]
    found = search(documents, searchable, scoring).search(queries, wanted, depth)
    for q in range(len(queries)):
        expected = reference.ranking(queries, q, documents, searchable, scoring)[:depth]
        rows = found.rows[q][found.rows[q] != NOTHING]
        assert rows.tolist() == expected
        assert (found.rows[q][len(expected) :] == NOTHING).all()
        judged = [reference.summed(queries, q, documents, d, scoring.weights) for d in expected]
        np.testing.assert_allclose(found.scores[q][: len(expected)], judged, rtol=0, atol=1e-6)
        asked = [reference.summed(queries, q, documents, d, scoring.weights) for d in wanted[q]]
        np.testing.assert_allclose(found.wanted[q], asked, rtol=0, atol=1e-6)


@given(st.integers(0, 2**16), st.integers(1, 40), st.integers(1, 12), st.sampled_from(sorted(SCORINGS)))
def test_mining_ranks_as_the_scores_functions_do(seed: int, count: int, depth: int, name: str):
    documents, queries = encoded(count, seed), encoded(3, seed + 1)
    scoring = SCORINGS[name]
    found = ExactSearch([documents], count, scoring, CPU).search(queries, [[]] * 3, depth)
    scores = {head: on_numpy.head_scores(queries, documents, head) for head in ("dense", "lexical", "multi")}
    total = on_numpy.combine(scores, scoring.weights)
    for q in range(3):
        rows = {
            int(row)
            for route in scoring.routes
            for row in on_numpy.top_k(
                scores[route][q], scoring.candidates, floor=0.0 if route == "lexical" else -np.inf
            )
        }
        recalled = np.array(sorted(rows), dtype=np.int64)
        expected = recalled[on_numpy.top_k(total[q][recalled], depth)]
        assert found.rows[q][found.rows[q] != NOTHING].tolist() == expected.tolist()


def test_token_vectors_in_float16_change_scores_by_rounding_alone():
    draw = np.random.default_rng(0)
    documents, queries = encoded(30, 6), encoded(4, 7)
    documents.multi.values[:] = draw.normal(size=documents.multi.values.shape) / 2
    scoring = SCORINGS["multi by all"]
    half, full = (
        ExactSearch([documents], 30, scoring, CPU, token_dtype=dtype).search(queries, [[]] * 4, 30)
        for dtype in (torch.float16, torch.float32)
    )
    np.testing.assert_allclose(np.sort(half.scores), np.sort(full.scores), atol=2e-3)


def test_united_lists_have_every_row_once():
    lists = [torch.tensor([[3, 1, NOTHING], [2, 0, 1]]), torch.tensor([[1, 3], [NOTHING, NOTHING]])]
    rows = [[row for row in each if row != NOTHING] for each in union(lists).tolist()]
    assert rows == [[1, 3], [0, 1, 2]]
