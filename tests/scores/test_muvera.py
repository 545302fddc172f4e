import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import reference
from triptych.errors import InputError
from triptych.scores import muvera
from triptych.scores.muvera import Muvera
from triptych.scores.on_numpy import maxsim_scores
from triptych.types import Ragged

LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=5)


def random_ragged(rng: np.random.Generator, lengths: list[int], width: int) -> Ragged:
    return Ragged.of([rng.standard_normal((n, width)).astype(np.float32) for n in lengths], width)


@settings(max_examples=40, deadline=None)
@given(LENGTHS, st.integers(0, 3), st.sampled_from([2, 5]), st.booleans(), st.integers(0, 9))
def test_the_vectors_equal_the_loops_also_with_empty_texts_and_small_blocks(
    lengths: list[int], bits: int, columns: int, documents: bool, seed: int
) -> None:
    tokens = random_ragged(np.random.default_rng(seed), lengths, 5)
    made = Muvera(5, bits, columns, repetitions=3)
    signs, projection = made.directions
    rows = np.tile(np.eye(5), (3, 1)) if projection is None else projection.T
    slow = [
        reference.muvera(
            item.tolist(), signs.T.reshape(3, bits, 5), rows.reshape(3, columns, 5), document=documents
        )
        if len(item)
        else [0.0] * made.size
        for item in tokens
    ]
    for block in (1, 10**6):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(muvera, "_AT_ONCE", block)
            found = made.documents(tokens) if documents else made.queries(tokens)
            np.testing.assert_allclose(found, np.asarray(slow), atol=1e-4)


def test_without_bits_they_are_the_sum_and_the_mean() -> None:
    tokens = random_ragged(np.random.default_rng(0), [3, 0, 1], 4)
    made = Muvera(4, 0, 4, 1)
    sums = [item.sum(0) for item in tokens]
    np.testing.assert_allclose(made.queries(tokens), sums, atol=1e-6)
    np.testing.assert_allclose(made.documents(tokens), np.asarray(sums) / [[3], [1], [1]], atol=1e-6)


def test_products_rank_like_maxsim() -> None:
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((30, 32)).astype(np.float32)
    documents = Ragged.of(
        [
            topics[rng.integers(0, 30, 12)] + rng.standard_normal((12, 32)).astype(np.float32) / 3
            for _ in range(50)
        ]
    )
    queries = Ragged.of([documents[i][:4] + np.float32(0.05) for i in range(50)])
    made = Muvera(32, bits=4, columns=16, repetitions=40)
    found = made.queries(queries) @ made.documents(documents).T
    exact = maxsim_scores(queries, documents)
    assert (found.argmax(1) == exact.argmax(1)).mean() > 0.9


def test_the_directions_are_the_same_everywhere() -> None:
    signs, projection = Muvera(8, bits=2, columns=2, repetitions=2).directions
    assert "".join("+" if x > 0 else "-" for x in signs.ravel()[:16]) == "+-++++++--+-++++"
    assert "".join("+" if x > 0 else "-" for x in projection.ravel()[:16]) == "++-+-+-++-+++---"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="columns: got 9; expected an integer from 1 to 8"):
        Muvera(8, columns=9)
    with pytest.raises(InputError, match="4 columns; expected 8"):
        Muvera(8, columns=2).documents(Ragged.of([np.zeros((1, 4), np.float32)]))
