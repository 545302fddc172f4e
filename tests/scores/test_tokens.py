"""Token vectors in few bytes, against plain loops."""

from __future__ import annotations

import base64

import numpy as np
import pytest

import reference
from triptych.scores import tokens as module
from triptych.scores.on_numpy import maxsim_scores
from triptych.scores.tokens import BITS, Frame, TokenForm, TokenPrecision, Tokens, pool, pooled_lengths
from triptych.types import Ragged

FRAMED: tuple[TokenPrecision, ...] = ("4bit", "2bit", "1bit")
ALL: tuple[TokenPrecision, ...] = ("float32", "float16", "int8", "binary", *FRAMED)


def vectors(rng: np.random.Generator, lengths: list[int], width: int = 13) -> Ragged:
    """Of length 1, and not around 0; 13 columns fill no byte."""
    rows = rng.standard_normal((sum(lengths), width)).astype(np.float32) + 0.3
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return Ragged(rows, np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64))


def form_of(ragged: Ragged, precision: TokenPrecision, width: int | None = None) -> TokenForm:
    needed = precision in FRAMED or width is not None
    frame = Frame.fit(ragged, width) if needed else None
    return TokenForm(ragged.width, precision, width or ragged.width, frame)


@pytest.mark.parametrize("precision", FRAMED)
def test_few_bits_stand_for_what_plain_loops_keep(precision: TokenPrecision) -> None:
    ragged = vectors(np.random.default_rng(0), [5, 0, 7])
    form = form_of(ragged, precision)
    assert form.frame is not None
    expected = [reference.few_bits(row, form.frame.mean.tolist(), BITS[precision]) for row in ragged.values]
    np.testing.assert_allclose(Tokens.pack(ragged, form).unpack().values, expected, atol=1e-5)


@pytest.mark.parametrize("precision", FRAMED)
def test_a_difference_has_the_right_inner_product_with_what_stands_for_it(precision: TokenPrecision) -> None:
    ragged = vectors(np.random.default_rng(1), [40])
    form = form_of(ragged, precision)
    assert form.frame is not None
    apart = ragged.values - form.frame.mean
    back = Tokens.pack(ragged, form).unpack().values - form.frame.mean
    np.testing.assert_allclose((apart * back).sum(1), (apart * apart).sum(1), rtol=2e-3)
    assert np.linalg.norm(back - apart, axis=1).max() < {"4bit": 0.2, "2bit": 0.6, "1bit": 1.3}[precision]


@pytest.mark.parametrize("precision", ALL)
@pytest.mark.parametrize("width", [None, 5])
@pytest.mark.parametrize("unpacked", [1, 3, 2048])
def test_maxsim_of_packed_vectors_is_that_of_what_they_stand_for(
    precision: TokenPrecision, width: int | None, unpacked: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_UNPACKED", unpacked)
    rng = np.random.default_rng(2)
    documents, queries = vectors(rng, [3, 0, 1, 9, 0, 4]), vectors(rng, [2, 0, 5])
    packed = Tokens.pack(documents, form_of(documents, precision, None if precision == "binary" else width))
    expected = [[reference.maxsim_score(q, d) for d in packed.unpack()] for q in queries]
    np.testing.assert_allclose(maxsim_scores(queries, packed), expected, atol=1e-5)
    assert not maxsim_scores(queries, packed)[1].any()
    none = packed.take(np.asarray([1, 4]))
    np.testing.assert_array_equal(maxsim_scores(queries, none), np.zeros((3, 2)))


@pytest.mark.parametrize("precision", ALL)
def test_equal_documents_have_equal_scores_wherever_they_stand(precision: TokenPrecision) -> None:
    rng = np.random.default_rng(3)
    documents = vectors(rng, [4, 3, 5])
    packed = Tokens.pack(documents, form_of(documents, precision)).take(np.asarray([0, 1, 0, 2, 0]))
    scores = maxsim_scores(vectors(rng, [6]), packed)[0]
    np.testing.assert_allclose(scores[[2, 4]], scores[0], rtol=0, atol=1e-6)


def test_a_basis_keeps_vectors_that_lie_in_its_directions() -> None:
    rng = np.random.default_rng(4)
    flat = rng.standard_normal((500, 3)).astype(np.float32) @ rng.standard_normal((3, 12)).astype(np.float32)
    ragged = Ragged(flat, np.asarray([0, 500]))
    frame = Frame.fit(ragged, 3)
    assert frame.basis is not None
    np.testing.assert_allclose(frame.basis.T @ frame.basis, np.eye(3), atol=1e-5)
    np.testing.assert_allclose(
        Tokens.pack(ragged, TokenForm(12, "float32", 3, frame)).unpack().values, flat, atol=1e-3
    )


def test_a_frame_survives_its_json_and_few_vectors_hardly_move_it() -> None:
    ragged = vectors(np.random.default_rng(5), [300])
    for width in (None, 4):
        frame = Frame.fit(ragged, width)
        back = Frame.from_json(frame.to_json())
        assert back == frame
        np.testing.assert_array_equal(back.project(ragged.values), frame.project(ragged.values))
    assert Frame.fit(ragged) != Frame.fit(ragged.take([]))
    assert np.linalg.norm(Frame.fit(Ragged(ragged.values[:1], np.asarray([0, 1]))).mean) < 0.01


@pytest.mark.parametrize("precision", tuple(BITS))
def test_packed_documents_survive_as_text_and_damaged_text_is_an_error(precision: TokenPrecision) -> None:
    ragged = vectors(np.random.default_rng(6), [3, 0, 4])
    form = form_of(ragged, precision)
    packed = Tokens.pack(ragged, form)
    texts = [packed.to_text(i) for i in range(3)]
    back = Tokens.from_texts(texts, form)
    for i in range(3):
        np.testing.assert_array_equal(back.unpack()[i], packed.unpack()[i])
    assert len(back) == 3
    assert len(Tokens.from_texts([], form)) == 0
    damaged = base64.b64encode(base64.b64decode(texts[2])[:-1]).decode()
    with pytest.raises(ValueError, match="bytes are not a number of vectors"):
        Tokens.from_texts([texts[0], damaged], form)
    for damaged in (texts[2][:-4] + "*" + texts[2][-4:], texts[2][:-1], "é" + texts[2][1:]):
        with pytest.raises(ValueError, match=r"base64|padding|ASCII"):
            Tokens.from_texts([texts[0], damaged], form)


@pytest.mark.parametrize("precision", ["float16", "int8", "1bit"])
def test_what_was_unpacked_is_packed_to_the_same_so_that_an_index_can_be_copied(
    precision: TokenPrecision,
) -> None:
    ragged = vectors(np.random.default_rng(7), [30, 20])
    packed = Tokens.pack(ragged, form_of(ragged, precision))
    again = Tokens.pack(packed.unpack(), packed.form)
    np.testing.assert_allclose(again.unpack().values, packed.unpack().values, atol=2e-3)


def test_zero_vectors_stand_for_the_mean() -> None:
    frame = Frame(np.zeros(13, np.float32))
    zeros = Ragged(np.zeros((2, 13), np.float32), np.asarray([0, 2]))
    for precision in FRAMED:
        assert not Tokens.pack(zeros, TokenForm(13, precision, 13, frame)).unpack().values.any()


def test_pooling_joins_the_vectors_that_resemble_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(8)
    centers = vectors(rng, [6]).values
    near = np.repeat(centers, 2, axis=0) + rng.normal(0, 1e-3, (12, 13)).astype(np.float32)
    order = rng.permutation(12)
    monkeypatch.setattr(module, "_UNPOOLED", 1)
    ragged = Ragged.of([near[order], np.zeros((0, 13), np.float32), centers[:1]], 13)
    pooled = pool(ragged, 2)
    assert pooled.lengths.tolist() == [6, 0, 1]
    assert {int(np.argmax(centers @ row)) for row in pooled[0]} == set(range(6))
    np.testing.assert_allclose(np.linalg.norm(pooled[0], axis=1), 1, atol=1e-6)
    np.testing.assert_allclose((centers @ pooled[0].T).max(axis=1), 1, atol=1e-4)
    assert pool(ragged, 1) is ragged


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_pooling_keeps_one_vector_of_so_many_also_of_long_texts(
    factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_POOLED", 16)
    monkeypatch.setattr(module, "_UNPOOLED", 1)
    lengths = [1, 2, 15, 16, 17, 50]
    pooled = pool(vectors(np.random.default_rng(9), lengths), factor)
    runs = [[16] * (n // 16) + ([n % 16] if n % 16 else []) for n in lengths]
    assert pooled.lengths.tolist() == [sum(-(-n // factor) for n in run) for run in runs]


def test_short_texts_keep_sixteen_vectors() -> None:
    lengths = np.asarray([0, 3, 16, 17, 31, 48, 49, 90])
    pooled = pool(vectors(np.random.default_rng(10), lengths.tolist()), 3)
    assert pooled.lengths.tolist() == [0, 3, 16, 16, 16, 16, 17, 30] == pooled_lengths(lengths, 3).tolist()
    assert pooled_lengths(lengths, 1).tolist() == lengths.tolist()
