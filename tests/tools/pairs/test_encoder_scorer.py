"""An encoder scores as its dense head does."""

import pickle
from pathlib import Path

import numpy as np

from triptych import Encoder
from triptych.tools.pairs.filters import EncoderScorer


def test_an_encoder_scores_all_queries_with_all_passages(folder: Path, encoder: Encoder) -> None:
    queries, passages = ["what is a model"], ["a model of text", "hello world"]
    scorer = pickle.loads(pickle.dumps(EncoderScorer(str(folder), "cpu")))
    scores = scorer(queries, passages)
    assert scores.shape == (1, 2)
    query = encoder.encode_query(queries, outputs="dense").dense
    passage = encoder.encode_document(passages, outputs="dense").dense
    assert query is not None
    assert passage is not None
    np.testing.assert_allclose(scores, query @ passage.T, atol=2e-2)


def test_long_passages_are_cut_without_a_warning(folder: Path) -> None:
    assert EncoderScorer(str(folder), "cpu", max_length=8)(["a b"], ["hello world " * 50]).shape == (1, 1)
