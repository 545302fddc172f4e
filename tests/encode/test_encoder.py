"""What `Encoder.encode` promises, on each kind of backbone."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import twin
from checkpoints import POSITIONS, TEXTS, WIDTH, WORDS
from triptych import Encoder, HeadWeights
from triptych.encode.encoder import TruncationWarning
from triptych.errors import InputError
from triptych.model.packed import Packed, batches, positions
from triptych.scores.on_numpy import combine, head_scores
from triptych.types import HEADS, DefaultWeights

# A text alone and in a batch meets other shapes in the same products, so that sums are rounded otherwise.
ROUNDING = 2e-6
FEW = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
texts_of_words = st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join), max_size=7)


def load(folder: Path, **options: object) -> Encoder:
    return Encoder.from_pretrained(folder, device="cpu", **({"dtype": "float32"} | options))  # type: ignore[arg-type]


def test_one_text_alone_gives_what_it_gives_in_a_batch(any_encoder: Encoder) -> None:
    whole = any_encoder.encode(TEXTS)
    for i, text in enumerate(TEXTS):
        twin.assert_same(any_encoder.encode(text), whole[i], ROUNDING)


@FEW
@given(texts_of_words)
def test_the_callers_order_is_kept(encoder: Encoder, texts: list[str]) -> None:
    whole = encoder.encode(texts)
    assert len(whole) == len(texts)
    if texts:
        twin.assert_same(encoder.encode(texts[::-1])[::-1], whole, ROUNDING)


@pytest.mark.parametrize("budget", [1, 8, 40, 10**6])
def test_the_token_budget_changes_nothing_but_rounding(any_encoder: Encoder, budget: int) -> None:
    twin.assert_same(any_encoder.encode(TEXTS, token_budget=budget), any_encoder.encode(TEXTS), ROUNDING)


@FEW
@given(st.lists(st.integers(1, 30), max_size=20), st.integers(1, 60))
def test_batches_cover_all_texts_once_and_keep_the_budget(lengths: list[int], budget: int) -> None:
    falling = np.array(sorted(lengths, reverse=True), dtype=np.int64)
    parts = list(batches(falling, budget))
    assert [i for part in parts for i in range(part.start, part.stop)] == list(range(len(lengths)))
    for part in parts:
        count = part.stop - part.start
        assert count == 1 or count * falling[part.start] <= budget


@given(st.lists(st.integers(1, 20), max_size=30), st.integers(1, 40), st.integers(1, 9), st.booleans())
def test_batches_have_no_more_texts_than_allowed(
    lengths: list[int], budget: int, most: int, padded: bool
) -> None:
    falling = np.array(sorted(lengths, reverse=True), dtype=np.int64)
    cuts = list(batches(falling, budget, padded=padded, most=most))
    assert [i for cut in cuts for i in range(cut.start, cut.stop)] == list(range(len(lengths)))
    assert all(cut.stop - cut.start <= most for cut in cuts)
    for cut in cuts:
        assert cut.stop - cut.start == 1 or falling[cut].sum() <= budget


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_the_batch_size_limits_the_texts_of_a_pass_and_changes_nothing_but_rounding(
    any_encoder: Encoder, size: int
) -> None:
    steps: list[int] = []
    found = any_encoder.encode(TEXTS, batch_size=size, progress=lambda _, done, __: steps.append(done))
    twin.assert_same(found, any_encoder.encode(TEXTS), ROUNDING)
    passes = np.diff(steps)
    assert passes.max() == min(size, passes.max())
    assert passes.sum() == len(TEXTS)
    twin.assert_same(
        any_encoder.encode_query(TEXTS, batch_size=size), any_encoder.encode_query(TEXTS), ROUNDING
    )


def test_a_progress_bar_is_drawn_on_standard_error_when_asked_for(
    encoder: Encoder, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder.encode(TEXTS)
    assert capsys.readouterr() == ("", "")
    steps: list[int] = []
    encoder.encode(TEXTS, show_progress_bar=True, progress=lambda _, done, __: steps.append(done))
    out, err = capsys.readouterr()
    assert out == ""
    assert f"{len(TEXTS)}/{len(TEXTS)}" in err
    assert steps[-1] == len(TEXTS)


def test_texts_are_reranked_by_their_scores_with_one_query(encoder: Encoder) -> None:
    query, weights = "a model of text", (1, 0.5, 2)
    scores = encoder.score(query, TEXTS, weights)[0]
    ranked = encoder.rerank(query, TEXTS, weights=weights)
    assert sorted(one.index for one in ranked) == list(range(len(TEXTS)))
    assert [one.score for one in ranked] == pytest.approx(sorted(scores, reverse=True), abs=1e-6)
    for one in ranked:
        assert one.score == pytest.approx(scores[one.index], abs=1e-6)
        assert one.score == pytest.approx(
            sum(w * one.scores[h] for w, h in zip(weights, HEADS, strict=True)), abs=1e-5
        )
    assert encoder.rerank(query, TEXTS, 2, weights) == ranked[:2]
    assert [one.index for one in encoder.rerank(query, ["x", "x", "x"])] == [0, 1, 2]
    assert set(encoder.rerank(query, TEXTS, 1, {"sparse": 1})[0].scores) == {"lexical"}
    assert encoder.rerank(query, []) == []
    for arguments, message in (((["a"], ["b"]), "query: got"), (("a", ["b"], 0), "k: got 0")):
        with pytest.raises(InputError, match=message):
            encoder.rerank(*arguments)


def test_a_model_without_a_head_reranks_by_the_others(folder: Path) -> None:
    (best,) = load(folder, dense=False).rerank("a model", ["a text model"])
    assert set(best.scores) == {"lexical", "multi"}


def test_what_is_shown_of_an_encoder_is_one_line(encoder: Encoder) -> None:
    widths = ", ".join(f"{head} {width}" for head, width in encoder.widths.items())
    assert repr(encoder) == f"Encoder({encoder.source!r}: {widths}; float32 on cpu)"


def test_an_empty_list_gives_an_empty_result_of_the_right_widths(any_encoder: Encoder) -> None:
    empty = any_encoder.encode([])
    assert len(empty) == 0
    assert empty.heads == HEADS
    assert empty.dense.shape == (0, WIDTH)
    assert empty.lexical.shape == (0, any_encoder.widths["lexical"])
    assert (len(empty.multi), empty.multi.width) == (0, WIDTH)
    assert any_encoder.score([], TEXTS).shape == (0, len(TEXTS))
    assert any_encoder.score(TEXTS, []).shape == (len(TEXTS), 0)


def test_the_empty_string_gives_its_special_tokens_alone(any_encoder: Encoder) -> None:
    encoded = any_encoder.encode([""])
    np.testing.assert_allclose(np.linalg.norm(encoded.dense), 1, atol=1e-6)
    assert encoded.lexical.nnz == 0
    assert encoded.multi.lengths.tolist() == [1], "the end of the text has a vector, its beginning has none"
    assert np.isfinite(any_encoder.score([""], ["", "a model"])).all()


def test_rows_have_length_1_and_lexical_weights_are_positive(any_encoder: Encoder) -> None:
    encoded = any_encoder.encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(encoded.dense, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(encoded.multi.values, axis=1), 1, atol=1e-6)
    assert encoded.lexical.nnz > 0
    assert (encoded.lexical.data > 0).all()
    assert all(
        part.dtype == np.float32 for part in (encoded.dense, encoded.lexical.data, encoded.multi.values)
    )


def test_special_and_unknown_tokens_have_no_lexical_weight(any_encoder: Encoder) -> None:
    columns = any_encoder.encode([*TEXTS, "日本 日本"]).lexical.toarray().any(axis=0)
    assert not columns[list(any_encoder.tokenizer.special.never_lexical)].any()


def test_over_long_texts_are_cut_with_one_warning_that_counts_them(any_encoder: Encoder) -> None:
    long = "the world of text " * 40
    limit = any_encoder.config.max_length
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        encoded = any_encoder.encode([long, "x", long + "more"], token_budget=50)
    (warning,) = caught
    assert warning.category is TruncationWarning
    assert str(warning.message) == f"2 of 3 texts were cut to {limit} tokens"
    assert Path(warning.filename).name == Path(__file__).name, "the warning points at the caller"
    assert encoded.multi.lengths.tolist() == [limit - 1, encoded.multi.lengths[1], limit - 1]


def test_a_text_of_just_the_greatest_length_is_not_cut(encoder: Encoder) -> None:
    """The word "the" is one token, and two special ones are around it."""
    fits = " ".join(["the"] * (POSITIONS - 2))
    assert encoder.encode(fits).multi.lengths.tolist() == [POSITIONS - 1]
    with pytest.warns(TruncationWarning, match="1 of 1"):
        cut = encoder.encode(fits + " the")
    twin.assert_same(cut, encoder.encode(fits), ROUNDING)


@pytest.mark.parametrize("outputs", [("dense",), ("lexical",), ("multi",), ("multi", "dense"), "lexical"])
def test_only_the_heads_asked_for_are_computed(
    encoder: Encoder, outputs: str | tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (outputs,) if isinstance(outputs, str) else outputs
    whole = encoder.encode(TEXTS)

    def never(*_: object) -> None:
        raise AssertionError("computed without need")

    for head in set(HEADS) - set(asked):
        monkeypatch.setattr(encoder._model, f"_{head}", never)
    encoded = encoder.encode(TEXTS, outputs=outputs)
    assert set(encoded.heads) == set(asked)
    for head in asked:
        left, right = (getattr(part, head) for part in (encoded, whole))
        if head == "lexical":
            left, right = left.toarray(), right.toarray()
        if head == "multi":
            left, right = left.values, right.values
        np.testing.assert_allclose(left, right, atol=ROUNDING)


def test_prefixes_are_put_before_queries_and_documents_but_not_before_plain_texts(folder: Path) -> None:
    prefixes = {"query_prefix": "query ", "document_prefix": "passage "}
    plain, prefixed = load(folder), load(folder, **prefixes, prefix_in_lexical=True)
    twin.assert_same(prefixed.encode(TEXTS), plain.encode(TEXTS))
    twin.assert_same(prefixed.encode_query(TEXTS), plain.encode(["query " + text for text in TEXTS]))
    twin.assert_same(prefixed.encode_document(TEXTS), plain.encode(["passage " + text for text in TEXTS]))
    twin.assert_same(prefixed.encode_query(TEXTS, prefix=""), plain.encode(TEXTS))
    expected = plain.score(["query a model"], ["passage the world"])
    np.testing.assert_allclose(prefixed.score("a model", ["the world"]), expected, atol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "mean", "mcls"])
def test_the_tokens_of_a_prefix_are_in_no_lexical_vector_and_all_else_stays(
    any_folder: Path, pooling: str
) -> None:
    settings = {
        "query_prefix": "query: ",
        "document_prefix": "passage of ",
        "pooling": pooling,
        "mcls_every": 3,
    }
    masked, counted = load(any_folder, **settings), load(any_folder, **settings, prefix_in_lexical=True)
    every = 3 if pooling == "mcls" else None
    texts = [*TEXTS, "query passage of query", "日本"]
    for encode, prefix in (("encode_query", "query: "), ("encode_document", "passage of ")):
        got, whole = getattr(masked, encode)(texts), getattr(counted, encode)(texts)
        np.testing.assert_array_equal(got.dense, whole.dense)
        np.testing.assert_array_equal(got.multi.values, whole.multi.values)
        ids = counted.tokenizer.encode(texts, prefix=prefix, max_length=64, mcls_every=every).ids
        batch = Packed.of(ids)
        with torch.inference_mode():
            weights = counted._model(batch, ("lexical",)).lexical.numpy()
        for i, text in enumerate(ids):
            # Walk over the characters' spans: what ends within the prefix is no word of the text.
            spans = counted.tokenizer.backend.encode(prefix + texts[i], add_special_tokens=False).offsets
            ends = iter(end for _, end in spans)
            expected: dict[int, float] = {}
            for at, token in enumerate(text.tolist()[1:-1], start=1):
                if token == counted.tokenizer.special.cls or next(ends) <= len(prefix):
                    continue
                weight = float(weights[int(batch.offsets[i]) + at])
                if weight > 0:
                    expected[token] = max(expected.get(token, 0.0), weight)
            row = got.lexical[[i]]
            found = dict(zip(row.indices.tolist(), row.data.tolist(), strict=True))
            assert found == pytest.approx(expected, abs=ROUNDING), texts[i]


def test_a_blank_text_has_no_lexical_weights_whatever_its_prefix(folder: Path) -> None:
    encoder = load(folder, query_prefix="query: ")
    assert encoder.encode_query([""]).lexical.nnz == 0
    assert encoder.encode([""], prefix="what is ").lexical.nnz == 0
    # Cut within the prefix: "query", ":" and two special tokens fit.
    with pytest.warns(TruncationWarning):
        assert (
            encoder.encode(["bge m3"], prefix="what is the text of the world ", max_length=5).lexical.nnz == 0
        )


def test_a_batch_of_unknown_origin_has_the_models_own_prefixes_found_by_their_tokens(folder: Path) -> None:
    """As in training, where the texts come with their prefixes from a cache."""
    encoder = load(folder, query_prefix="query: ", document_prefix="passage ")
    texts = ["query: bge m3", "passage hello world", "que", "query", "", "the query: is"]
    ids = encoder.tokenizer.encode(texts, max_length=64).ids
    batch = Packed.of(ids)
    counted = positions(batch, "lexical", encoder.config, encoder._model.special)
    known = [len(encoder.tokenizer._tokens(each)) for each in ("query:", "passage", "", "", "", "")]
    for i, text in enumerate(ids):
        inside = counted[batch.offsets[i] : batch.offsets[i + 1]].tolist()
        special = set(encoder.tokenizer.special.never_lexical)
        expected = [int(token) not in special and at > known[i] for at, token in enumerate(text.tolist())]
        assert inside == expected, texts[i]


def test_progress_counts_up_to_the_number_of_texts(encoder: Encoder) -> None:
    seen: list[tuple[str, int, int | None]] = []
    encoder.encode(TEXTS, token_budget=16, progress=lambda *state: seen.append(state))
    assert len(seen) > 3
    done = [number for _, number, _ in seen]
    assert done == sorted(set(done))
    assert (seen[0], seen[-1]) == (("encoding", 0, len(TEXTS)), ("encoding", len(TEXTS), len(TEXTS)))


@pytest.mark.parametrize(
    "weights", [(1, 0.3, 1), [1, 0.3, 1], HeadWeights(), {"dense": 1, "lexical": 0.3, "multi": 1}]
)
def test_weights_come_in_several_forms(encoder: Encoder, weights: object) -> None:
    sides = encoder.encode_query(TEXTS[:2]), encoder.encode_document(TEXTS)
    dense, lexical, multi = (head_scores(*sides, head) for head in HEADS)
    found = encoder.score(TEXTS[:2], TEXTS, weights)  # type: ignore[arg-type]
    np.testing.assert_allclose(found, dense + 0.3 * lexical + multi, rtol=1e-5)


def test_without_weights_the_default_sum_ranks(encoder: Encoder) -> None:
    sides = encoder.encode_query(TEXTS[:2]), encoder.encode_document(TEXTS)
    single = {head: head_scores(*sides, head) for head in HEADS}
    expected = combine(single, DefaultWeights(), sides[0])
    np.testing.assert_allclose(encoder.score(TEXTS[:2], TEXTS), expected, rtol=1e-5)
    ranked = encoder.rerank(TEXTS[0], TEXTS)
    np.testing.assert_allclose([each.score for each in ranked], np.sort(expected[0])[::-1], rtol=1e-5)


def test_weights_of_dense_alone_give_the_dense_order(encoder: Encoder) -> None:
    dense = encoder.similarity(encoder.encode(TEXTS), encoder.encode(TEXTS).dense)
    np.testing.assert_allclose(encoder.score(TEXTS, TEXTS, (1, 0, 0)), dense, atol=1e-6)
    np.testing.assert_allclose(encoder.score(TEXTS, TEXTS, (7, 0, 0)), 7 * dense, atol=1e-5)


def test_similarity_needs_the_dense_head(encoder: Encoder) -> None:
    encoded = encoder.encode(TEXTS, outputs="lexical")
    with pytest.raises(InputError, match="without the dense head"):
        encoder.similarity(encoded, encoded)


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_half_precision_is_close_to_full_precision(folder: Path, encoder: Encoder, kind: str) -> None:
    half, full = load(folder, dtype=kind).encode(TEXTS), encoder.encode(TEXTS)
    assert half.dense.dtype == np.float32
    assert (half.dense * full.dense).sum(axis=1).min() > 0.999
    assert (half.multi.values * full.multi.values).sum(axis=1).min() > 0.998
    np.testing.assert_allclose(half.lexical.toarray(), full.lexical.toarray(), atol=0.05)
    np.testing.assert_allclose(np.linalg.norm(half.dense, axis=1), 1, atol=1e-6)


def test_a_model_that_runs_in_half_precision_is_saved_in_full(
    folder: Path, tmp_path: Path, encoder: Encoder
) -> None:
    load(folder, dtype="bfloat16", query_prefix="query ").save_pretrained(tmp_path)
    again = load(tmp_path)
    assert again.config.query_prefix == "query "
    twin.assert_same(again.encode(TEXTS), encoder.encode(TEXTS))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"outputs": ("dense", "vector")},
            "outputs: got .*vector.*expected one or more of dense, lexical, multi",
        ),
        ({"outputs": ()}, "outputs"),
        (
            {"max_length": POSITIONS + 1},
            f"max_length: got {POSITIONS + 1}; expected an integer from 4 to {POSITIONS}",
        ),
        ({"max_length": 2}, "max_length: got 2"),
        ({"batch_size": 0}, "batch_size: got 0; expected an integer ≥ 1"),
    ],
)
def test_bad_options_are_errors_that_name_them(
    encoder: Encoder, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        encoder.encode(TEXTS, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("texts", "message"), [(["a", 3], r"texts\[1\]: got int"), ([None], r"texts\[0\]: got NoneType")]
)
def test_what_is_not_a_string_is_an_error_that_names_its_place(
    encoder: Encoder, texts: list[object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        encoder.encode(texts)  # type: ignore[arg-type]


def test_a_head_that_the_model_lacks_cannot_be_asked_for(folder: Path, tmp_path: Path) -> None:
    load(folder).save_pretrained(tmp_path, layout="sentence-transformers", part="dense")
    encoder = load(tmp_path)
    assert encoder.encode(TEXTS).heads == encoder.heads == ("dense",)
    with pytest.raises(InputError, match=r"outputs: got \['multi'\]; this model has dense"):
        encoder.encode(TEXTS, outputs="multi")
    with pytest.raises(InputError, match="this model has dense"):
        encoder.score("a", "b", (1, 0.3, 1))


@pytest.mark.parametrize("options", [{"device": "nowhere"}, {"device": "cpu", "dtype": "float8"}])
def test_unknown_devices_and_types_are_errors(folder: Path, options: dict[str, object]) -> None:
    with pytest.raises(InputError, match=r"nowhere|float8"):
        Encoder.from_pretrained(folder, **options)  # type: ignore[arg-type]


def test_any_iterable_of_strings_and_a_bare_string_are_accepted(encoder: Encoder) -> None:
    def generated() -> Iterator[str]:
        yield from TEXTS

    expected = encoder.encode(TEXTS)
    for texts in (tuple(TEXTS), np.array(TEXTS), generated()):
        twin.assert_same(encoder.encode(texts), expected, 0)  # type: ignore[arg-type]
    assert len(encoder.encode("a model")) == 1


def test_odd_characters_are_encoded_like_any_others(encoder: Encoder) -> None:
    encoded = encoder.encode(["\x00", "\n\t ", "👩‍👩‍👧", "\u202eabc", "e\u0301", "\ufffe"])
    assert np.isfinite(encoded.dense).all()


def test_a_string_that_is_no_text_is_an_error_that_names_its_place(encoder: Encoder) -> None:
    with pytest.raises(InputError, match=r"texts\[1\]: surrogates not allowed at character 2"):
        encoder.encode(["good", "ab\ud800"])
    with pytest.raises(InputError, match="prefix"):
        encoder.encode(["good"], prefix="\ud800")


@pytest.mark.parametrize("budget", [0, -1])
def test_a_token_budget_below_one_is_an_error(encoder: Encoder, budget: int) -> None:
    with pytest.raises(InputError, match="token_budget"):
        encoder.encode(["a"], token_budget=budget)
