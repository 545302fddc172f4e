"""Weights are chosen where they are said to be; smaller token vectors are what they say they are."""

import numpy as np
import pytest

from eval import made
from triptych.errors import InputError
from triptych.eval.evaluate import evaluate
from triptych.eval.protocols import Pool
from triptych.eval.running import Options
from triptych.eval.scan import same
from triptych.eval.tuning import Change, Development, Form, apart, forms, principal_axes, tune, variant
from triptych.scores.on_numpy import ndcg
from triptych.types import HEADS, HeadWeights, Ragged

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
    assert Development.join(parts).ndcg(weights) == pytest.approx(expected)


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
    result = evaluate([made.collection()], [made.Toy()], Options(block=16), development=[dev])
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
    [kept], left_out = apart([mixed], [test])
    assert (kept.queries, left_out) == (dev.queries, 3)
    for bad in (test, made.Collection("other", "", dev.corpus, shared, {q: test.qrels[q] for q in shared})):
        with pytest.raises(InputError, match="reported, too"):
            apart([bad], [test])


def tokens(seed: int, texts: int = 5, width: int = 64) -> Ragged:
    rng = np.random.default_rng(seed)
    rows = [rng.standard_normal((rng.integers(0, 6), width)).astype(np.float32) for _ in range(texts)]
    return Ragged.of([row / np.linalg.norm(row, axis=1, keepdims=True) for row in rows], width)


@pytest.mark.parametrize(("bits", "error"), [(32, 0), (16, 1e-3), (8, 4e-3), (4, 6e-2)])
def test_fewer_bits_err_by_no_more_than_their_step(bits: int, error: float) -> None:
    given = tokens(0)
    changed = Change.of(Form(bits), np.eye(64, dtype=np.float32), 64).documents(given)  # type: ignore[arg-type]
    assert np.abs(changed.values - given.values).max() <= error
    assert bits == 32 or (changed.values != given.values).any()


def test_one_bit_keeps_signs_and_length() -> None:
    given = tokens(1)
    changed = Change.of(Form(1), np.eye(64, dtype=np.float32), 64).documents(given)
    assert (np.sign(changed.values) == np.where(given.values >= 0, 1, -1)).all()
    np.testing.assert_allclose(np.linalg.norm(changed.values, axis=1), 1, rtol=1e-6)


def test_principal_components_keep_the_inner_products_of_vectors_in_few_dimensions() -> None:
    rng = np.random.default_rng(2)
    flat = rng.standard_normal((50, 8)).astype(np.float32) @ rng.standard_normal((8, 64)).astype(np.float32)
    given = Ragged(flat / np.linalg.norm(flat, axis=1, keepdims=True), np.array([0, 20, 20, 50]))
    change = Change.of(Form(32, 8, "pca"), principal_axes(given), 64)
    left, right = change.queries(given).values, change.documents(given).values
    np.testing.assert_allclose(left @ right.T, given.values @ given.values.T, atol=1e-5)


def test_the_first_dimensions_are_cut_and_scaled_to_length_one() -> None:
    given = tokens(3)
    changed = Change.of(Form(32, 16), np.eye(64, dtype=np.float32), 64).documents(given)
    cut = given.values[:, :16]
    np.testing.assert_allclose(changed.values, cut / np.linalg.norm(cut, axis=1, keepdims=True), rtol=1e-5)


@pytest.mark.parametrize("factor", [2, 3, 10])
def test_pooled_tokens_are_normalised_sums_of_runs_within_a_text(factor: int) -> None:
    given = tokens(4)
    changed = Change.of(Form(32, pooled=factor), np.eye(64, dtype=np.float32), 64).documents(given)
    for before, after in zip(given, changed, strict=True):
        runs = [before[i : i + factor].sum(0) for i in range(0, len(before), factor)]
        expected = [row / np.linalg.norm(row) for row in runs]
        np.testing.assert_allclose(after, np.asarray(expected).reshape(-1, 64), atol=1e-6)


def test_bytes_are_those_of_codes_and_scales() -> None:
    given = Ragged.of([np.ones((3, 64), np.float32), np.ones((4, 64), np.float32)])
    axes = np.eye(64, dtype=np.float32)
    sizes = {form: Change.of(form, axes, 64).bytes(given) for form in forms(64)}
    assert sizes[Form()] == 7 * 256
    assert sizes[Form(8)] == 7 * 68
    assert sizes[Form(4)] == 7 * 36
    assert sizes[Form(1)] == 7 * 8
    assert sizes[Form(32, pooled=2)] == 4 * 256
    assert sizes[Form(4, 32, "pca")] == 7 * 18


def test_names_of_forms_are_distinct_and_the_whole_form_changes_nothing() -> None:
    names = [form.name for form in forms(384)]
    assert len(set(names)) == len(names)
    given = tokens(5)
    assert variant(Form(), given, np.eye(64, dtype=np.float32)).change is same


def test_compression_of_nothing_has_the_quality_of_the_evaluation() -> None:
    one = made.collection(documents=20)  # the first 20 of each list are the whole corpus
    result = evaluate([one], [made.Toy()], Options(block=16, compression=True))
    whole = next(found for found in result.compressed if found.form == "32 bits")
    for mode in ("multi", "all"):
        assert whole.ndcg[mode] == pytest.approx(result.averages["made"][f"toy/{mode}"]["nDCG@10"], abs=1e-6)
    assert len({found.bytes_per_document for found in result.compressed}) > 3
