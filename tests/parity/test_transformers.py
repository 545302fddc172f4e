"""Our outputs equal a plain re-computation with transformers, for each kind of backbone."""

from pathlib import Path

import numpy as np
import pytest

import twin
from checkpoints import TEXTS, WORDS
from triptych import Encoder
from triptych.model.backbone import padded_states
from triptych.model.packed import Packed

QUERIES = ["what is bge m3?", "defination of bm25", "the world"]


@pytest.fixture(scope="module")
def plain(any_folder: Path) -> twin.Twin:
    return twin.Twin(any_folder)


def test_all_three_representations_equal_the_plain_computation(
    any_encoder: Encoder, plain: twin.Twin
) -> None:
    twin.assert_equal(any_encoder.encode(TEXTS), plain(TEXTS))


def test_random_texts_equal_the_plain_computation(any_encoder: Encoder, plain: twin.Twin) -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(WORDS, size=n)) for n in rng.integers(1, 40, 12)]
    twin.assert_equal(any_encoder.encode(texts), plain(texts, any_encoder.config.max_length))


def test_texts_that_are_cut_equal_the_plain_computation(any_encoder: Encoder, plain: twin.Twin) -> None:
    texts = ["the world of text " * 30, "a model"]
    with pytest.warns(UserWarning, match="1 of 2 texts were cut to 20 tokens"):
        encoded = any_encoder.encode(texts, max_length=20)
    twin.assert_equal(encoded, plain(texts, max_length=20))


@pytest.mark.parametrize("weights", [(1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0.3, 1), (0.15, 0.5, 0.35)])
def test_scores_equal_the_loops(
    any_encoder: Encoder, plain: twin.Twin, weights: tuple[float, float, float]
) -> None:
    queries, documents = plain(QUERIES), plain(TEXTS)
    expected = [[twin.score(q, d, weights) for d in documents] for q in queries]
    np.testing.assert_allclose(any_encoder.score(QUERIES, TEXTS, weights), expected, atol=1e-5, rtol=0)


def test_mean_pooling_equals_the_plain_computation(any_folder: Path) -> None:
    encoder = Encoder.from_pretrained(any_folder, device="cpu", dtype="float32", pooling="mean")
    twin.assert_equal(encoder.encode(TEXTS), twin.Twin(any_folder, "mean")(TEXTS))


def test_the_packed_pass_equals_the_padded_one(any_own_encoder: Encoder) -> None:
    """Whatever executor the model picks, it gives what Hugging Face's own padded pass gives."""
    ids = any_own_encoder.tokenizer.encode(TEXTS, max_length=64).ids
    model, batch = any_own_encoder.release_model(), Packed.of(ids)
    rows = model(batch).dense.detach().numpy()
    states = padded_states(model.backbone, batch, any_own_encoder.tokenizer.special.pad).detach().numpy()
    first = states[batch.offsets[:-1].numpy()]
    expected = first / np.linalg.norm(first, axis=1, keepdims=True)
    np.testing.assert_allclose(rows, expected, atol=1e-5)


def test_a_model_that_was_taken_out_of_its_encoder_equals_the_plain_computation(
    any_own_encoder: Encoder, plain: twin.Twin
) -> None:
    """Without the inference engine, as in training."""
    assert any_own_encoder.release_model().engine is None
    twin.assert_equal(any_own_encoder.encode(TEXTS), plain(TEXTS))
