"""The loader for HAKARI-Bench gives what our own scores are made of."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import checkpoints
from triptych import Encoder
from triptych.errors import InputError
from triptych.hakari import load_model

QUERIES = ["what is the sun", "a b"]
DOCUMENTS = ["the sun is a star", "b a", "moon and sun", ""]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(checkpoints.make("xlm-roberta", tmp_path_factory.mktemp("model")))


def load(folder: str, kind: str, **changes: Any) -> Any:
    """As the benchmark calls it: with an object that has these attributes and others."""
    given = {"model_name_or_path": folder, "model_type": kind, "dtype": "fp32", "device": "cpu"}
    given |= {"trust_remote_code": False, "max_seq_length": None, "model_loader_kwargs": None}
    return load_model(SimpleNamespace(**given | changes))


def scores(folder: str, weights: tuple[float, float, float] | None) -> Any:
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype="float32")
    return encoder.score(QUERIES, DOCUMENTS, weights)


def test_dense_vectors_give_our_scores(folder: str) -> None:
    model = load(folder, "dense")
    found = model.encode_query(QUERIES, batch_size=2) @ model.encode_document(DOCUMENTS, batch_size=2).T
    np.testing.assert_allclose(found, scores(folder, (1, 0, 0)), atol=1e-6)
    assert model.metadata()["fingerprint"] == model.encoder.fingerprint


def test_sparse_rows_give_our_scores(folder: str) -> None:
    model = load(folder, "sparse")
    queries, documents = model.encode_query(QUERIES), model.encode_document(DOCUMENTS)
    assert queries.is_sparse
    found = queries.to_dense() @ documents.to_dense().T
    np.testing.assert_allclose(found, scores(folder, (0, 1, 0)), atol=1e-6)


def test_token_vectors_give_our_scores(folder: str) -> None:
    model = load(folder, "late-interaction")
    queries, documents = model.encode(QUERIES, is_query=True), model.encode(DOCUMENTS, is_query=False)
    found = [
        [(query @ document.T).max(axis=1).mean() for document in documents] for query in queries
    ]  # the benchmark takes the sum, which ranks alike
    np.testing.assert_allclose(found, scores(folder, (0, 0, 1)), atol=1e-6)


@pytest.mark.parametrize(
    ("mode", "weights"), [("all", None), ("dense+lexical", (1, 0.3, 0)), ("multi", (0, 0, 1))]
)
def test_pairs_in_any_order_get_the_weighted_sum(folder: str, mode: str, weights: Any) -> None:
    model = load(folder, "reranker", model_loader_kwargs={"mode": mode})
    expected = scores(folder, weights)
    order = [(1, 3), (0, 2), (1, 0), (0, 0), (0, 2), (1, 1)]
    found = model.predict([[QUERIES[q], DOCUMENTS[d]] for q, d in order], batch_size=1)
    np.testing.assert_allclose(found, [expected[q, d] for q, d in order], atol=1e-5)


def test_queries_and_documents_have_their_prefixes(folder: str, tmp_path: Any) -> None:
    encoder = Encoder.from_pretrained(folder, dtype="float32", query_prefix="sun ", document_prefix="moon ")
    encoder.save_pretrained(tmp_path / "model")
    model = load(str(tmp_path / "model"), "dense")
    assert not np.allclose(model.encode_query(["star"]), model.encode_document(["star"]))


@pytest.mark.parametrize(
    ("kind", "given"), [("bm25", None), ("dense", {"mode": "all"}), ("reranker", {"weights": [1, 2]})]
)
def test_what_it_is_not_is_refused(folder: str, kind: str, given: Any) -> None:
    with pytest.raises(InputError, match="load_model"):
        load(folder, kind, model_loader_kwargs=given)


def test_a_shorter_length_is_kept(folder: str) -> None:
    assert load(folder, "dense", max_seq_length=8).max_seq_length == 8
