import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

import twin
from triptych.errors import InputError
from triptych.types import HEADS, DefaultWeights, Encoded, HeadWeights, Hit, Ragged, check_heads

QUICK = settings(max_examples=50, deadline=None)


def test_head_names_come_back_in_their_canonical_order_without_repeats() -> None:
    assert check_heads(["multi", "dense", "multi"], "outputs") == ("dense", "multi")
    assert check_heads("lexical", "outputs") == ("lexical",)


def test_heads_have_the_names_of_other_packages_too() -> None:
    assert check_heads(["colbert", "dense", "multi", "sparse"], "outputs") == HEADS
    assert check_heads("multi_vector", "outputs") == ("multi",)
    assert HeadWeights.of({"sparse": 0.5, "colbert": 2, "dense": 0}) == (0, 0.5, 2)
    assert HeadWeights.of({"multi_vector": 1}).heads == ("multi",)
    with pytest.raises(InputError, match="expected one weight for each head"):
        HeadWeights.of({"sparse": 0.5, "lexical": 1})


def test_default_weights_leave_out_the_heads_that_are_not_there() -> None:
    assert HeadWeights.default(HEADS) == DefaultWeights() == (1, 0.3, 3)
    assert HeadWeights.default(["lexical", "dense"]) == (1, 0.3, 0)
    assert type(HeadWeights.of(HeadWeights.default(["dense", "multi"]))) is DefaultWeights


def test_the_default_weights_know_the_published_ones_of_their_heads() -> None:
    assert DefaultWeights().published == HeadWeights() == (1, 0.3, 1)
    assert HeadWeights.default(["lexical", "dense"]).published == (1, 0.3, 0)
    assert not isinstance(DefaultWeights().published, DefaultWeights)


def test_what_is_shown_of_encodings_and_hits_is_short_and_has_no_arrays() -> None:
    rows = np.eye(2, 300, dtype=np.float32)
    encoded = Encoded(rows, sparse.csr_array(rows), Ragged.of([rows, rows[:1]]))
    assert repr(encoded) == (
        "Encoded(2 texts: dense 300, lexical 300 (1.0 weights per text), multi 300 (1.5 vectors per text))"
    )
    assert repr(Encoded(dense=rows[:0])) == "Encoded(0 texts: dense 300)"
    hit = Hit("a", 1.25, {"dense": 1.0, "lexical": 0.25}, "word " * 50, {"lang": "en"}, (Hit("b", 1, {}),))
    assert repr(hit) == (
        f"Hit('a', 1.250: dense=1.000, lexical=0.250, text='{('word ' * 50)[:59]}…', metadata={{'lang': 'en'}}, 1 more)"
    )
    assert len(repr(Hit("a", 1, {}, "", {"long": "x" * 10_000}))) < 100


@pytest.mark.parametrize("names", [[], ["vector"], ["dense", "late"]])
def test_an_unknown_head_or_none_is_an_error_that_names_the_known_ones(names: list[str]) -> None:
    with pytest.raises(InputError, match=r"outputs: got .*; expected one or more of dense, lexical, multi"):
        check_heads(names, "outputs")


def test_weights_are_accepted_as_weights_triple_mapping_or_nothing() -> None:
    assert HeadWeights.of(None) == HeadWeights() == (1.0, 0.3, 1.0)
    assert HeadWeights.of(HeadWeights(1, 2, 3)) == HeadWeights.of([1, 2, 3]) == (1, 2, 3)
    assert HeadWeights.of({"lexical": 2}) == (0, 2, 0)
    assert HeadWeights.of(np.array([1.0, 0.0, 0.0])).heads == ("dense",)


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        (1, 2, 3, 4),
        (0, 0, 0),
        (-1, 1, 1),
        (float("nan"), 1, 1),
        (float("inf"), 1, 1),
        "abc",
        3,
        ("a", 1, 1),
        (1e308, 1e308, 1e308),
        (10**400, 1, 1),
        object(),
    ],
)
def test_weights_that_are_not_three_finite_numbers_are_an_error(value: object) -> None:
    with pytest.raises(InputError, match="three finite numbers"):
        HeadWeights.of(value)  # type: ignore[arg-type]


def test_weights_for_an_unknown_head_are_an_error() -> None:
    with pytest.raises(InputError, match=r"weights: got .*vector"):
        HeadWeights.of({"vector": 1.0})


def matrices(lengths: list[int]) -> list[np.ndarray]:
    rng = np.random.default_rng(len(lengths))
    return [rng.standard_normal((n, 3)).astype(np.float32) for n in lengths]


@QUICK
@given(st.lists(st.integers(0, 5), max_size=6), st.data())
def test_ragged_gives_back_the_matrices_it_was_made_of(lengths: list[int], data: st.DataObject) -> None:
    items = matrices(lengths)
    ragged = Ragged.of(items, 3)
    assert (len(ragged), ragged.width, ragged.lengths.tolist()) == (len(items), 3, lengths)
    for got, expected in zip(ragged, items, strict=True):
        np.testing.assert_array_equal(got, expected)
    rows = data.draw(st.lists(st.integers(0, len(items) - 1), max_size=5)) if items else []
    taken = ragged.take(rows)
    assert len(taken) == len(rows)
    for got, row in zip(taken, rows, strict=True):
        np.testing.assert_array_equal(got, items[row])


def test_ragged_counts_from_the_end_and_ends_where_it_ends() -> None:
    ragged = Ragged.of(matrices([1, 2]))
    np.testing.assert_array_equal(ragged[-1], ragged[1])
    for i in (2, -3):
        with pytest.raises(IndexError):
            ragged[i]


@pytest.mark.parametrize("offsets", [[], [0], [1, 2], [0, 3], [0, 2, 1, 2]])
def test_offsets_that_do_not_fit_the_rows_are_an_error(offsets: list[int]) -> None:
    with pytest.raises(InputError, match="ascending offsets"):
        Ragged(np.zeros((2, 3), np.float32), np.array(offsets, np.int64))


def encoded(count: int, heads: tuple[str, ...] = HEADS, seed: int = 0) -> Encoded:
    rng = np.random.default_rng(seed)
    return Encoded(
        rng.standard_normal((count, 4)).astype(np.float32) if "dense" in heads else None,
        sparse.csr_array(rng.integers(0, 3, (count, 7)).astype(np.float32)) if "lexical" in heads else None,
        Ragged.of(matrices(rng.integers(0, 4, count).tolist()), 3) if "multi" in heads else None,
    )


def test_encoded_needs_one_head_at_least_and_the_same_number_of_texts_in_all() -> None:
    with pytest.raises(InputError, match="same N"):
        Encoded()
    with pytest.raises(InputError, match=r"\[2, 3\]"):
        Encoded(np.zeros((2, 4), np.float32), sparse.csr_array((3, 7), dtype=np.float32))


@QUICK
@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    st.sampled_from([HEADS, ("dense",), ("lexical", "multi")]),
)
def test_joining_the_parts_gives_the_whole(sizes: list[int], heads: tuple[str, ...]) -> None:
    whole = encoded(sum(sizes), heads)
    ends = np.cumsum([0, *sizes])
    parts = [whole[int(a) : int(b)] for a, b in itertools.pairwise(ends)]
    joined = Encoded.concat(parts)
    assert joined.heads == heads
    twin.assert_same(joined, whole, 0)


def test_texts_are_chosen_by_number_slice_and_sequence() -> None:
    whole = encoded(5)
    twin.assert_same(whole[-1], whole[[4]], 0)
    twin.assert_same(whole[1:3], whole[np.array([1, 2])], 0)
    assert len(whole[[3, 3, 0]]) == 3


def test_parts_with_different_heads_are_not_joined() -> None:
    with pytest.raises(InputError, match="alike"):
        Encoded.concat([encoded(1), encoded(1, ("dense",))])
    with pytest.raises(InputError, match="one or more"):
        Encoded.concat([])
