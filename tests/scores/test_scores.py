import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import reference
from triptych.errors import InputError
from triptych.scores import on_numpy as scores
from triptych.scores import on_torch as blocks
from triptych.scores import on_torch as torch_scores
from triptych.types import DefaultWeights, Encoded, HeadWeights, Ragged

SMALL = settings(max_examples=40, deadline=None)


def random_ragged(rng: np.random.Generator, lengths: list[int], width: int) -> Ragged:
    return Ragged.of([rng.standard_normal((n, width)).astype(np.float32) for n in lengths], width)


def random_tokens(rng: np.random.Generator, lengths: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids with many repeats, weights with ties and zeros, offsets."""
    total = sum(lengths)
    ids = rng.integers(0, 12, total)
    weights = rng.integers(0, 4, total).astype(np.float32) / 2
    return ids, weights, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def csr(ids: np.ndarray, weights: np.ndarray, offsets: np.ndarray) -> sparse.csr_array:
    rows = [reference.lexical_weights(ids[a:b], weights[a:b], set()) for a, b in itertools.pairwise(offsets)]
    dense = np.zeros((len(rows), 12), dtype=np.float32)
    for i, row in enumerate(rows):
        for token, weight in row.items():
            dense[i, token] = weight
    return sparse.csr_array(dense)


def slow_maxsim(queries: Ragged, documents: Ragged) -> np.ndarray:
    return np.array([[reference.maxsim_score(q, d) for d in documents] for q in queries])


lengths = st.lists(st.integers(0, 7), min_size=1, max_size=5)


@SMALL
@given(lengths, lengths, st.integers(0, 9))
def test_maxsim_equals_the_loops_also_with_empty_texts_and_small_blocks(
    q: list[int], d: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    queries, documents = random_ragged(rng, q, 3), random_ragged(rng, d, 3)
    expected = slow_maxsim(queries, documents)
    with pytest.MonkeyPatch.context() as patch:
        for block in (1, 10, 10**6):
            patch.setattr(scores, "_BLOCK", block)
            np.testing.assert_allclose(scores.maxsim_scores(queries, documents), expected, atol=1e-5)
            patch.setattr(blocks, "_BLOCK", block)
            for products in (False, True):
                got = torch_maxsim(queries, documents, products=products)
                np.testing.assert_allclose(got, expected, atol=1e-5)


def torch_maxsim(queries: Ragged, documents: Ragged, *, products: bool) -> np.ndarray:
    q, qo, d, do = (
        torch.from_numpy(a) for a in (queries.values, queries.offsets, documents.values, documents.offsets)
    )
    return blocks.MaxSim.apply(q, qo, d, do, products).numpy()  # type: ignore[attr-defined]


@SMALL
@given(lengths, lengths, st.integers(0, 9))
def test_lexical_scores_equal_the_loops_with_repeated_ids_and_ties(
    q: list[int], d: list[int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    queries, documents = random_tokens(rng, q), random_tokens(rng, d)
    rows = [
        [reference.lexical_weights(ids[a:b], weights[a:b], set()) for a, b in itertools.pairwise(offsets)]
        for ids, weights, offsets in (queries, documents)
    ]
    expected = np.array([[reference.lexical_score(a, b) for b in rows[1]] for a in rows[0]])
    fast = torch_scores.lexical_scores(*map(torch.from_numpy, queries), *map(torch.from_numpy, documents))
    np.testing.assert_allclose(fast.numpy(), expected, atol=1e-5)
    np.testing.assert_allclose(scores.lexical_scores(csr(*queries), csr(*documents)), expected, atol=1e-5)


def test_dense_scores_equal_the_loops() -> None:
    rng = np.random.default_rng(0)
    queries, documents = (rng.standard_normal((n, 8)).astype(np.float32) for n in (3, 5))
    expected = [[reference.dense_score(q, d) for d in documents] for q in queries]
    np.testing.assert_allclose(scores.dense_scores(queries, documents), expected, atol=1e-5)
    both = torch_scores.dense_scores(torch.from_numpy(queries), torch.from_numpy(documents))
    np.testing.assert_allclose(both.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("block", [1, 12, 10**6])
def test_gradient_of_maxsim_equals_that_of_the_plain_formula(
    monkeypatch: pytest.MonkeyPatch, block: int, products: bool
) -> None:
    monkeypatch.setattr(blocks, "_BLOCK", block)
    rng = np.random.default_rng(1)
    q, d = random_ragged(rng, [3, 0, 2], 4), random_ragged(rng, [2, 5, 0, 1], 4)
    weight = torch.from_numpy(rng.standard_normal((3, 4)).astype(np.float32))

    def plain(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        total = torch.zeros(())
        for i in range(3):
            for j in range(4):
                x, y = a[q.offsets[i] : q.offsets[i + 1]], b[d.offsets[j] : d.offsets[j + 1]]
                if len(x) and len(y):
                    total = total + weight[i, j] * (x @ y.T).max(1).values.mean()
        return total

    gradients = []
    for fast in (True, False):
        a, b = torch.tensor(q.values, requires_grad=True), torch.tensor(d.values, requires_grad=True)
        if fast:
            bounds = torch.from_numpy(q.offsets), torch.from_numpy(d.offsets)
            matrix = blocks.MaxSim.apply(a, bounds[0], b, bounds[1], products)
            (matrix * weight).sum().backward()
        else:
            plain(a, b).backward()
        gradients.append((a.grad, b.grad))
    for fast_grad, plain_grad in zip(*gradients, strict=True):
        torch.testing.assert_close(fast_grad, plain_grad)


def test_gradient_of_lexical_scores_goes_to_the_largest_weight_of_an_id() -> None:
    ids, offsets = torch.tensor([5, 7, 5]), torch.tensor([0, 3])
    weights = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)
    document = torch.tensor([3.0], requires_grad=True)
    score = torch_scores.lexical_scores(
        ids, weights, offsets, torch.tensor([5]), document, torch.tensor([0, 1])
    )
    score.sum().backward()
    assert score.item() == 6.0
    assert weights.grad is not None
    assert weights.grad.tolist() == [0.0, 0.0, 3.0]
    assert document.grad is not None
    assert document.grad.tolist() == [2.0]


def test_scores_are_float32_whatever_the_inputs_are() -> None:
    q = torch.randn(2, 4, dtype=torch.bfloat16)
    offsets = torch.tensor([0, 1, 2])
    ids = torch.tensor([1, 2])
    assert torch_scores.dense_scores(q, q).dtype == torch.float32
    assert torch_scores.maxsim_scores(q, offsets, q, offsets).dtype == torch.float32
    assert torch_scores.lexical_scores(ids, q[:, 0], offsets, ids, q[:, 0], offsets).dtype == torch.float32


def test_combination_is_the_weighted_sum() -> None:
    parts = {
        head: np.full((1, 2), value, np.float32)
        for head, value in (("dense", 1), ("lexical", 10), ("multi", 100))
    }
    total = scores.combine(parts, HeadWeights(1, 0.3, 2))  # type: ignore[arg-type]
    np.testing.assert_allclose(total, 1 + 3 + 200)
    with pytest.raises(InputError, match="multi"):
        scores.combine({"dense": parts["dense"]}, HeadWeights(1, 0, 1))  # type: ignore[dict-item]


def test_by_default_the_lexical_score_counts_by_what_it_covers_of_the_query() -> None:
    weights = np.array([[2, 1, 0], [0, 0.1, 0], [0, 0, 0]], np.float32)
    queries = Encoded(lexical=sparse.csr_array(weights))
    single = {
        "dense": np.array([[0.5, 0.1], [0.2, 0.3], [0.4, 0.6]], np.float32),
        "lexical": np.array([[5, 1], [0.02, 0], [0, 0]], np.float32),
        "multi": np.array([[0.7, 0.2], [0.1, 0.5], [0.3, 0.8]], np.float32),
    }
    expected = np.zeros((3, 2))
    for q in range(3):
        own = sum(float(w) ** 2 for w in weights[q])
        for n in range(2):
            covered = float(single["lexical"][q, n]) / own if own else 0
            expected[q, n] = single["dense"][q, n] + 0.3 * covered**3 + 3 * single["multi"][q, n]
    found = scores.combine(single, DefaultWeights(), queries)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    for q in range(3):  # one query's scores are a row, as an engine has them
        row = scores.combine({head: each[q] for head, each in single.items()}, DefaultWeights(), queries[q])
        np.testing.assert_array_equal(row, found[q])


def test_the_default_sum_is_the_same_at_every_scale_of_the_lexical_head() -> None:
    rng = np.random.default_rng(0)
    queries, documents = (sparse.csr_array(rng.integers(0, 3, (n, 9)).astype(np.float32)) for n in (4, 6))
    scaled = [
        scores.combine(
            {"lexical": scores.lexical_scores(queries * scale, documents * scale)},
            DefaultWeights(0, 1, 0),
            Encoded(lexical=queries * scale),
        )
        for scale in (1, 0.25, 8)
    ]
    np.testing.assert_allclose(scaled[1], scaled[0], rtol=1e-5)
    np.testing.assert_allclose(scaled[2], scaled[0], rtol=1e-5)


def test_the_default_sum_needs_the_queries_lexical_weights() -> None:
    one = np.ones((1, 1), np.float32)
    every = {"dense": one, "lexical": one, "multi": one}
    with pytest.raises(InputError, match="expected queries"):
        scores.combine(every, DefaultWeights())
    with pytest.raises(InputError, match="expected queries"):
        scores.combine(every, DefaultWeights(), Encoded(dense=one))
    assert scores.combine(every, DefaultWeights(1, 0, 3)) == 4


@pytest.mark.parametrize("function", [scores.dense_scores, scores.lexical_scores, scores.maxsim_scores])
def test_different_widths_are_an_error_that_names_both(function: object) -> None:
    def make(width: int) -> object:
        matrix = np.ones((2, width), np.float32)
        if function is scores.lexical_scores:
            return sparse.csr_array(matrix)
        return Ragged.of([matrix]) if function is scores.maxsim_scores else matrix

    with pytest.raises(InputError, match=r"3.*4"):
        function(make(3), make(4))  # type: ignore[operator]


def test_a_score_that_is_missing_or_has_the_weight_0_does_not_count_in_torch_either() -> None:
    dense, broken = torch.full((1, 2), 2.0), torch.full((1, 2), torch.nan)
    assert torch_scores.combine(dense, None, dense, (1.0, 0.3, 2.0)).tolist() == [[6, 6]]
    assert torch_scores.combine(dense, broken, dense, (1.0, 0.0, 2.0)).tolist() == [[6, 6]]
