"""Every form with the client that people use for it, over loopback."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import cohere
import httpx
import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient

from serve.conftest import Running
from triptych import Encoder
from triptych.scores import on_numpy as scores
from triptych.types import HeadWeights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:cohere")
TEXTS = ["bge m3 is a model", "hello world", "defination of bm25"]


@pytest.fixture
def as_openai(shared_server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{shared_server.url}/v1", api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture
def as_cohere(shared_server: Running) -> Iterator[cohere.ClientV2]:
    with httpx.Client() as connections:
        yield cohere.ClientV2("none", base_url=shared_server.url, httpx_client=connections)


def post(server: Running, path: str, body: Any) -> Any:
    answer = httpx.post(server.url + path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def dense(encoder: Encoder, texts: str | list[str]) -> np.ndarray:
    """The dense vectors of a pass that computes nothing else, whose last layer does less."""
    return encoder.encode(texts, outputs=["dense"]).dense


def relevance(encoder: Encoder, query: str, texts: list[str]) -> np.ndarray:
    """The weighted mean of the three scores, by the definitions."""
    left, right = encoder.encode_query(query), encoder.encode_document(texts)
    single = {head: scores.head_scores(left, right, head) for head in encoder.heads}
    weights = HeadWeights.default(encoder.heads)
    return scores.combine(single, weights, left)[0] / sum(weights)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_openai_gets_the_encoders_dense_vectors(
    as_openai: openai.OpenAI, encoder: Encoder, encoding: Any
) -> None:
    found = as_openai.embeddings.create(model="tiny", input=TEXTS, encoding_format=encoding)
    rows = [row.embedding for row in found.data]
    if encoding == "base64":
        rows = [np.frombuffer(base64.b64decode(row), "<f4") for row in rows]
    assert np.array_equal(np.array(rows, np.float32), dense(encoder, TEXTS))
    assert [row.index for row in found.data] == [0, 1, 2]
    tokens = sum(map(len, encoder.tokenize(TEXTS).ids))
    assert (found.usage.prompt_tokens, found.usage.total_tokens, found.model) == (tokens, tokens, "tiny")


def test_openai_without_a_wish_gets_the_same_vectors(as_openai: openai.OpenAI, encoder: Encoder) -> None:
    found = as_openai.embeddings.create(model="tiny", input="hello world")
    assert np.array_equal(np.array(found.data[0].embedding, np.float32), dense(encoder, "hello world")[0])


def test_openai_may_send_token_ids_with_or_without_special_tokens(
    as_openai: openai.OpenAI, encoder: Encoder
) -> None:
    whole = [ids.tolist() for ids in encoder.tokenize(TEXTS).ids]
    expected = dense(encoder, TEXTS)
    for ids in (whole, [row[1:-1] for row in whole]):
        found = as_openai.embeddings.create(model="tiny", input=ids, encoding_format="float")
        assert np.array_equal(np.array([row.embedding for row in found.data], np.float32), expected)
    one = as_openai.embeddings.create(model="tiny", input=whole[0], encoding_format="float")
    assert np.allclose(one.data[0].embedding, expected[0], atol=2e-6)


def test_openai_gets_shorter_vectors_of_length_one(as_openai: openai.OpenAI, encoder: Encoder) -> None:
    found = as_openai.embeddings.create(model="tiny", input=TEXTS, dimensions=8, encoding_format="float")
    part = dense(encoder, TEXTS)[:, :8]
    rows = np.array([row.embedding for row in found.data])
    assert np.allclose(rows, part / np.linalg.norm(part, axis=1, keepdims=True), atol=1e-6)


def test_openai_hears_of_a_wrong_model_and_of_wrong_input(as_openai: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match=r"text-embedding-3-small.*tiny"):
        as_openai.embeddings.create(model="text-embedding-3-small", input="a")
    with pytest.raises(openai.UnprocessableEntityError, match="dimensions"):
        as_openai.embeddings.create(model="tiny", input="a", dimensions=10_000)
    with pytest.raises(openai.UnprocessableEntityError, match=r"input\[0\]"):
        as_openai.embeddings.create(model="tiny", input=[10**9])
    assert [model.id for model in as_openai.models.list()] == ["tiny"]


@pytest.mark.parametrize("path", ["", "/embed"])
def test_the_hub_client_gets_dense_vectors_of_tei(
    shared_server: Running, encoder: Encoder, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    client = InferenceClient(model=shared_server.url + path, token="none")
    found = client.feature_extraction("hello world", normalize=True, truncate=True)
    assert np.array_equal(found, dense(encoder, "hello world"))


def test_tei_gives_lexical_weights_and_token_vectors(shared_server: Running, encoder: Encoder) -> None:
    expected = encoder.encode(TEXTS)
    for i, pairs in enumerate(post(shared_server, "/embed_sparse", {"inputs": TEXTS})):
        row = expected.lexical[[i]]
        assert [pair["index"] for pair in pairs] == row.indices.tolist()
        assert np.array_equal(np.array([pair["value"] for pair in pairs], np.float32), row.data)
    for found, wanted in zip(
        post(shared_server, "/embed_all", {"inputs": TEXTS}), expected.multi, strict=True
    ):
        assert np.array_equal(np.array(found, np.float32), wanted)


def test_tei_ranks_texts(shared_server: Running, encoder: Encoder) -> None:
    body = {"query": "hello world", "texts": TEXTS, "return_text": True}
    found = post(shared_server, "/rerank", body)
    expected = relevance(encoder, "hello world", TEXTS)
    assert [row["index"] for row in found] == np.argsort(-expected).tolist()
    assert [row["text"] for row in found] == [TEXTS[row["index"]] for row in found]
    assert np.allclose([row["score"] for row in found], np.sort(expected)[::-1], atol=1e-6)
    raw = post(shared_server, "/rerank", body | {"raw_scores": True})
    assert raw[0]["score"] == pytest.approx(
        found[0]["score"] * sum(HeadWeights.default(encoder.heads)), rel=1e-5
    )


def test_tei_gives_tokens_and_says_what_it_is(shared_server: Running, encoder: Encoder) -> None:
    [found] = post(shared_server, "/tokenize", {"inputs": "hello world"})
    assert [token["id"] for token in found] == encoder.tokenize("hello world").ids[0].tolist()
    assert [token["special"] for token in found] == [True] + [False] * (len(found) - 2) + [True]
    words = ["hello world"[token["start"] : token["stop"]] for token in found[1:-1]]
    assert "".join(words).replace(" ", "") == "helloworld"
    [bare] = post(shared_server, "/tokenize", {"inputs": "hello world", "add_special_tokens": False})
    assert bare == found[1:-1]
    info = httpx.get(f"{shared_server.url}/info").json()
    assert info["max_input_length"] == encoder.config.max_length
    assert info["model_sha"] == encoder.fingerprint


def test_tei_refuses_a_text_that_may_not_be_cut(shared_server: Running) -> None:
    answer = httpx.post(f"{shared_server.url}/embed", json={"inputs": "word " * 9000, "truncate": False})
    assert answer.status_code == 413
    assert answer.json()["error_type"] == "Validation"


def test_cohere_gets_vectors_of_queries_and_documents(as_cohere: cohere.ClientV2, encoder: Encoder) -> None:
    kinds = ["float", "base64", "ubinary", "binary"]
    found = as_cohere.embed(model="tiny", input_type="search_document", texts=TEXTS, embedding_types=kinds)
    expected = dense(encoder, TEXTS)
    assert np.array_equal(np.array(found.embeddings.float_, np.float32), expected)
    decoded = [np.frombuffer(base64.b64decode(row), "<f4") for row in found.embeddings.base64]
    assert np.array_equal(decoded, expected)
    assert np.array_equal(np.unpackbits(np.array(found.embeddings.ubinary, np.uint8), axis=1), expected > 0)
    assert np.array_equal(np.array(found.embeddings.binary) + 128, found.embeddings.ubinary)
    assert found.meta.billed_units.input_tokens == sum(map(len, encoder.tokenize(TEXTS).ids))
    with pytest.raises(cohere.UnprocessableEntityError, match="embedding_types"):
        as_cohere.embed(model="tiny", input_type="search_query", texts=TEXTS, embedding_types=["int4"])


@pytest.mark.filterwarnings("ignore::triptych.encode.encoder.TruncationWarning")
def test_what_is_cut_at_the_start_keeps_its_end(
    shared_server: Running, as_cohere: cohere.ClientV2, encoder: Encoder
) -> None:
    room = encoder.config.max_length - 2
    text = " ".join(["hello world"] * room + [TEXTS[0]])
    whole = encoder.tokenizer.encode([text], max_length=10**6).ids[0]
    end, start = (
        encoder.encode_ids([ids], outputs=["dense"]).dense
        for ids in (
            np.concatenate([whole[:1], whole[-room - 1 :]]),
            np.concatenate([whole[: room + 1], whole[-1:]]),
        )
    )
    left = post(shared_server, "/embed", {"inputs": text, "truncation_direction": "left"})
    np.testing.assert_allclose(left, end, atol=1e-6)
    right = post(shared_server, "/embed", {"inputs": text, "truncation_direction": "Right"})
    np.testing.assert_allclose(right, start, atol=1e-6)
    assert np.abs(end - start).max() > 1e-3
    found = as_cohere.embed(model="tiny", texts=[text], input_type="classification", truncate="START")
    np.testing.assert_allclose(found.embeddings.float_, end, atol=1e-6)
    asked = {"query": "hello", "texts": [text], "raw_scores": True}
    scores_of = {
        side: post(shared_server, "/rerank", asked | {"truncation_direction": side})[0]["score"]
        for side in ("left", "right")
    }
    assert scores_of["left"] != scores_of["right"]


def test_cohere_gets_vectors_as_bytes_that_keep_their_direction(
    as_cohere: cohere.ClientV2, encoder: Encoder
) -> None:
    expected = dense(encoder, TEXTS)
    kinds = ["int8", "uint8", "binary", "ubinary"]
    found = as_cohere.embed(
        model="tiny", texts=TEXTS, input_type="classification", embedding_types=kinds
    ).embeddings
    signed, unsigned = np.array(found.int8), np.array(found.uint8)
    assert np.abs(signed).max(axis=1).tolist() == [127] * len(TEXTS)
    np.testing.assert_array_equal(unsigned, signed + 128)
    cosines = (signed * expected).sum(1) / np.linalg.norm(signed, axis=1)
    assert cosines.min() > 0.9999
    np.testing.assert_array_equal(np.unpackbits(np.array(found.ubinary, "u1"), axis=1), expected > 0)
    np.testing.assert_array_equal(np.array(found.binary) + 128, found.ubinary)


def test_cohere_ranks_documents(as_cohere: cohere.ClientV2, encoder: Encoder) -> None:
    found = as_cohere.rerank(model="tiny", query="hello world", documents=TEXTS, top_n=2)
    expected = relevance(encoder, "hello world", TEXTS)
    assert [row.index for row in found.results] == np.argsort(-expected)[:2].tolist()
    assert [row.relevance_score for row in found.results] == pytest.approx(
        np.sort(expected)[::-1][:2].tolist(), abs=1e-6
    )


def test_jina_gets_vectors_token_vectors_and_ranks(shared_server: Running, encoder: Encoder) -> None:
    body = {"model": "tiny", "task": "retrieval.passage", "input": [{"text": text} for text in TEXTS]}
    found = post(shared_server, "/v1/embeddings", body)
    expected = encoder.encode_document(TEXTS)
    assert np.array_equal(
        np.array([row["embedding"] for row in found["data"]], np.float32), dense(encoder, TEXTS)
    )
    several = post(shared_server, "/v1/embeddings", body | {"return_multivector": True})
    old = post(shared_server, "/v1/multi-vector", {"input": TEXTS, "input_type": "document"})
    for rows in (several, old):
        for row, wanted in zip(rows["data"], expected.multi, strict=True):
            assert np.array_equal(np.array(row["embeddings"], np.float32), wanted)
    body = {"query": "hello world", "documents": [{"text": text} for text in TEXTS], "return_documents": True}
    ranked = post(shared_server, "/v1/rerank", body)
    assert ranked["results"][0]["document"] == {"text": TEXTS[ranked["results"][0]["index"]]}


def test_our_rerank_gives_the_three_scores(shared_server: Running, encoder: Encoder) -> None:
    weights = {"dense": 0.5, "lexical": 2.0}
    body = {"query": "hello world", "documents": TEXTS, "weights": weights}
    found = post(shared_server, "/v1/rerank", body)["results"]
    left, right = encoder.encode_query("hello world"), encoder.encode_document(TEXTS)
    for row in found:
        for head in encoder.heads:
            assert row["scores"][head] == pytest.approx(
                scores.head_scores(left, right, head)[0, row["index"]], abs=2e-6
            )
        total = 0.5 * row["scores"]["dense"] + 2 * row["scores"]["lexical"]
        assert row["score"] == pytest.approx(total, abs=1e-5)
        assert row["relevance_score"] == pytest.approx(total / 2.5, abs=1e-5)
    assert [row["score"] for row in found] == sorted((row["score"] for row in found), reverse=True)


def test_vllm_pooling_gives_each_head(
    as_openai: openai.OpenAI, shared_server: Running, encoder: Encoder
) -> None:
    expected = encoder.encode(TEXTS)
    found = {
        task: [row["data"] for row in post(shared_server, "/pooling", {"input": TEXTS, "task": task})["data"]]
        for task in ("embed", "token_embed", "token_classify")
    }
    assert np.array_equal(np.array(found["embed"], np.float32), dense(encoder, TEXTS))
    for i, ids in enumerate(encoder.tokenize(TEXTS).ids):
        assert np.array_equal(np.array(found["token_embed"][i], np.float32), expected.multi[i])
        wanted = [[weight] for weight in expected.lexical[[i]].toarray()[0, ids[1:-1]]]
        assert np.array_equal(np.array(found["token_classify"][i], np.float32), np.array(wanted))
    packed = post(shared_server, "/pooling", {"input": TEXTS[0], "encoding_format": "base64"})["data"][0][
        "data"
    ]
    assert np.allclose(np.frombuffer(base64.b64decode(packed), "<f4"), expected.multi[0].ravel(), atol=2e-6)


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
def test_vllm_scores_one_text_with_many_and_pairs(
    shared_server: Running, encoder: Encoder, path: str
) -> None:
    expected = relevance(encoder, TEXTS[0], TEXTS)
    found = post(shared_server, path, {"text_1": TEXTS[0], "text_2": TEXTS})["data"]
    assert np.allclose([row["score"] for row in found], expected, atol=2e-6)
    pairs = post(shared_server, path, {"queries": [TEXTS[0]] * 3, "documents": TEXTS})["data"]
    assert np.allclose([row["score"] for row in pairs], expected, atol=2e-6)
