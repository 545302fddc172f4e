import numpy as np
import pytest
import torch

from triptych.tools.negatives import search as exact
from triptych.tools.negatives.options import Scoring
from triptych.tools.negatives.search import NOTHING, ExactSearch, best_rows, united
from triptych.types import Encoded, HeadWeights

from . import reference
from .made import encoded

CPU = torch.device("cpu")
HYBRID = HeadWeights(1.0, 0.5, 1.0)
SCORINGS = {
    "dense": Scoring(HeadWeights(1.0, 0.0, 0.0), HeadWeights(1.0, 0.0, 0.0), ("dense",), 9),
    "lexical": Scoring(HeadWeights(0.0, 1.0, 0.0), HeadWeights(0.0, 1.0, 0.0), ("lexical",), 9),
    "multi by all": Scoring(HeadWeights(0.0, 0.0, 1.0), HeadWeights(0.0, 0.0, 1.0), ("multi",), 9),
    "multi by others": Scoring(
        HeadWeights(0.0, 0.0, 1.0), HeadWeights(0.0, 0.0, 1.0), ("dense", "lexical"), 9
    ),
    "hybrid": Scoring(HYBRID, HYBRID, ("dense", "lexical"), 9),
    "all routes": Scoring(HYBRID, HYBRID, ("dense", "lexical", "multi"), 9),
    "dense, judged by all": Scoring(HeadWeights(1.0, 0.0, 0.0), HYBRID, ("dense",), 9),
}


def search(documents: Encoded, searchable: int, scoring: Scoring) -> ExactSearch:
    blocks = [documents[:17], documents[17:18], documents[18:]]
    return ExactSearch(blocks, searchable, scoring, CPU)


@pytest.fixture(params=["whole", "in small parts"])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "whole":
        monkeypatch.setattr(exact, "_PAIRS", 150)
        monkeypatch.setattr(exact, "_TOKENS", {"cpu": 30})
        monkeypatch.setattr(exact, "_SHARED", 40)


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
        judged = [reference.summed(queries, q, documents, d, scoring.judge) for d in expected]
        np.testing.assert_allclose(found.scores[q][: len(expected)], judged, rtol=0, atol=1e-6)
        asked = [reference.summed(queries, q, documents, d, scoring.judge) for d in wanted[q]]
        np.testing.assert_allclose(found.wanted[q], asked, rtol=0, atol=1e-6)


@pytest.mark.usefixtures("parts")
def test_the_lexical_scores_for_a_gpu_are_those_for_a_processor():
    documents, queries = encoded(40, 3, empty=(5,)), encoded(6, 4, empty=(2,))
    on_gpu = exact._SharedColumns(documents.lexical, CPU)
    expected = exact._Postings(documents.lexical).scores(queries.lexical)
    torch.testing.assert_close(on_gpu.scores(queries.lexical), expected, rtol=0, atol=1e-6)
    nothing = encoded(2, 5, empty=(0, 1)).lexical
    assert not on_gpu.scores(nothing).any()


@pytest.mark.usefixtures("parts")
def test_the_token_scores_for_a_gpu_are_those_for_a_processor():
    documents, queries = encoded(40, 3, empty=(5,)), encoded(6, 4, empty=(2,))
    tokens = exact._Tokens.of([torch.from_numpy(documents.multi.values)], [documents.multi.lengths], CPU)
    draw = torch.Generator().manual_seed(0)
    query, rows = torch.randint(6, (200,), generator=draw), torch.randint(40, (200,), generator=draw)
    expected = tokens.pair_scores(queries.multi, query, rows)
    torch.testing.assert_close(tokens.in_batches(queries.multi, query, rows), expected, rtol=0, atol=1e-6)
    assert (expected != 0).sum() > 100


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


def test_the_best_rows_are_those_of_a_stable_sort():
    draw = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 5, (20, 30), generator=draw).float()
    for k in (1, 7, 30, 99):
        rows = best_rows(scores, k, 0.0)
        for row, values in zip(rows.tolist(), scores.tolist(), strict=True):
            order = sorted(range(30), key=lambda i: (-values[i], i))[:k]
            expected = sorted(i for i in order if values[i] > 0)
            assert [i for i in row if i != NOTHING] == expected


def test_united_lists_have_every_row_once():
    lists = [torch.tensor([[3, 1, NOTHING], [2, 0, 1]]), torch.tensor([[1, 3], [NOTHING, NOTHING]])]
    rows = [[row for row in each if row != NOTHING] for each in united(lists).tolist()]
    assert rows == [[1, 3], [0, 1, 2]]
