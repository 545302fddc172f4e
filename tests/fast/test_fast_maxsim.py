"""MaxSim in 16 bits stays near the exact one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.errors import InputError
from triptych.ops import fast_maxsim
from triptych.ops.fast_maxsim import HalfDocuments
from triptych.ops.scores import maxsim_scores
from triptych.types import Ragged


def ragged(lengths: list[int], width: int = 16, seed: int = 0) -> Ragged:
    values = np.random.default_rng(seed).standard_normal((sum(lengths), width)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64))


@settings(deadline=None, max_examples=40)
@given(
    queries=st.lists(st.integers(0, 5), max_size=4),
    documents=st.lists(st.integers(0, 9), max_size=8),
    block=st.integers(1, 90),
)
def test_scores_are_those_of_the_exact_function_up_to_bfloat16(
    queries: list[int], documents: list[int], block: int
) -> None:
    q, d = ragged(queries), ragged(documents, seed=1)
    kept, fast_maxsim._BLOCK = fast_maxsim._BLOCK, block
    try:
        got = HalfDocuments(d).scores(q)
    finally:
        fast_maxsim._BLOCK = kept
    assert got.shape == (len(queries), len(documents))
    np.testing.assert_allclose(got, maxsim_scores(q, d), atol=0.01)


def test_the_ranking_of_documents_that_differ_is_kept() -> None:
    q, d = ragged([32], 128), ragged([200] * 50, 128, seed=2)
    exact, half = maxsim_scores(q, d)[0], HalfDocuments(d).scores(q)[0]
    np.testing.assert_allclose(half, exact, atol=2e-3)
    assert exact[half.argmax()] > exact.max() - 2e-3


def test_queries_of_another_width_are_an_error() -> None:
    with pytest.raises(InputError, match="width 8"):
        HalfDocuments(ragged([3], 16)).scores(ragged([2], 8))
