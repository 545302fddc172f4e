"""The real BGE-M3, where a folder with its weights is named by TRIPTYCH_BGE_M3."""

import os
from collections.abc import Iterator

import numpy as np
import pytest

from triptych import Encoder

pytestmark = [
    pytest.mark.weights,
    pytest.mark.skipif("TRIPTYCH_BGE_M3" not in os.environ, reason="TRIPTYCH_BGE_M3 names no folder"),
]

# The model card's example and its printed scores.
QUERIES = ["What is BGE M3?", "Defination of BM25"]
PASSAGES = [
    "BGE M3 is an embedding model supporting dense retrieval, lexical matching and multi-vector interaction.",
    "BM25 is a bag-of-words retrieval function that ranks a set of documents based on the query terms "
    "appearing in each document",
]


@pytest.fixture(scope="module")
def bge_m3() -> Iterator[Encoder]:
    return Encoder.from_pretrained(os.environ["TRIPTYCH_BGE_M3"], device="cpu", dtype="float32")


@pytest.mark.parametrize(
    ("weights", "expected", "tolerance"),
    [
        # The card's figures come from half precision.
        ((1, 0, 0), [[0.6265, 0.3477], [0.3499, 0.678]], 2e-3),
        ((0, 1, 0), [[0.19556, 0.0088], [0.0, 0.1803]], 2e-3),
        ((0, 0, 1), [[0.7797, 0.4621], [0.4524, 0.7899]], 2e-3),
    ],
    ids=["dense", "lexical", "multi"],
)
def test_scores_equal_those_of_the_model_card(
    bge_m3: Encoder, weights: tuple[float, float, float], expected: list[list[float]], tolerance: float
) -> None:
    np.testing.assert_allclose(bge_m3.score(QUERIES, PASSAGES, weights), expected, atol=tolerance, rtol=0)


def test_the_configuration_is_the_published_one(bge_m3: Encoder) -> None:
    config = bge_m3.config
    assert (config.pooling, config.max_length, config.multi_dim) == ("cls", 8192, 1024)
    assert bge_m3.widths == {"dense": 1024, "lexical": 250002, "multi": 1024}
