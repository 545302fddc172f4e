"""The one rule for the best of many scores, and MaxSim of chosen pairs, on both kinds of arrays."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from triptych.scores import on_numpy, on_torch
from triptych.types import Ragged

ROWS = st.lists(st.sampled_from([0.0, 0.5, 1.0, -1.0, -np.inf, 0.25]), max_size=12)


def plain_top_k(row: list[float], k: int, floor: float) -> list[int]:
    ranked = sorted(range(len(row)), key=lambda column: (-row[column], column))
    return [column for column in ranked if row[column] > floor][:k]


@given(ROWS, st.integers(0, 14), st.sampled_from([-np.inf, 0.0]))
def test_the_best_are_those_of_a_stable_sort(row: list[float], k: int, floor: float) -> None:
    found = on_numpy.top_k(np.asarray(row, np.float32), k, floor=floor)
    assert found.tolist() == plain_top_k(row, k, floor)


@given(ROWS, st.integers(1, 14))
def test_with_ties_all_that_equal_the_last_one_come_too(row: list[float], k: int) -> None:
    found = on_numpy.top_k(np.asarray(row, np.float32), k, with_ties=True).tolist()
    best = plain_top_k(row, k, -np.inf)
    assert found[: len(best)] == best
    beyond = [c for c in range(len(row)) if best and len(best) == k and row[c] == row[best[-1]]]
    assert set(found) == set(best) | set(beyond)


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.5, 1.0, 2.0]), min_size=6, max_size=6), min_size=1),
    st.integers(1, 9),
)
def test_torch_chooses_the_same_columns_as_numpy(rows: list[list[float]], k: int) -> None:
    found = on_torch.top_k(torch.tensor(rows), k, 0.0)
    for row, columns in zip(rows, found.tolist(), strict=True):
        assert [c for c in columns if c >= 0] == sorted(plain_top_k(row, k, 0.0))


def ragged(lengths: list[int], seed: int) -> Ragged:
    values = np.random.default_rng(seed).standard_normal((sum(lengths), 4)).astype(np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return Ragged(values, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


@pytest.mark.parametrize("budget", [1, 7, 1000])
def test_chosen_pairs_score_what_all_pairs_score(budget: int) -> None:
    queries, documents = ragged([3, 0, 1, 5], 0), ragged([2, 4, 0, 1, 6, 4], 1)
    query = np.array([0, 1, 2, 3, 3, 0, 2, 3, 0])
    document = np.array([0, 1, 2, 3, 4, 4, 5, 2, 1])
    expected = on_numpy.maxsim_scores(queries, documents)[query, document]
    np.testing.assert_allclose(
        on_numpy.maxsim_of_pairs(queries, documents, query, document), expected, atol=1e-6
    )
    on_device = on_torch.maxsim_of_pairs(
        queries,
        torch.from_numpy(documents.values),
        torch.from_numpy(documents.offsets),
        torch.from_numpy(query),
        torch.from_numpy(document),
        budget,
    )
    np.testing.assert_allclose(on_device.numpy(), expected, atol=1e-6)


def test_no_pairs_have_no_scores() -> None:
    none = np.zeros(0, np.int64)
    assert on_numpy.maxsim_of_pairs(ragged([1], 0), ragged([1], 1), none, none).shape == (0,)
