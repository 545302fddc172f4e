"""Our own form over loopback: encode, search, documents."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load

from serve.conftest import DOCUMENTS, Running
from triptych import Encoder
from triptych.client import Client
from triptych.explain import explain
from triptych.index.index import Index
from triptych.index.search import SearchOptions
from triptych.scores.packing import unpack
from triptych.serve.forms.own import ARROW, SAFETENSORS, SearchBody
from triptych.types import HEADS

TEXTS = ["bge m3 is a model", "", "hello world " * 30, "defination of bm25"]


def post(server: Running, path: str, body: Any, **options: Any) -> httpx.Response:
    return httpx.post(server.url + path, json=body, timeout=30, **options)


def test_documents_of_an_index_are_explained_by_their_ids(shared_server: Running, encoder: Encoder) -> None:
    body = {"query": "hello model", "ids": ["c", "nothing", "d/é"]}
    found = post(shared_server, "/v1/indexes/my.index/explain", body).json()["explanations"]
    texts = {each["id"]: each["text"] for each in DOCUMENTS}
    expected = [each.to_json() for each in explain(encoder, "hello model", [texts["c"], texts["d/é"]])]
    assert found[1] is None
    for one, wanted in zip((found[0], found[2]), expected, strict=True):
        assert [each["token"] for each in one["words"]] == [each["token"] for each in wanted["words"]]
        spans = [[each["document_span"] for each in side["tokens"]] for side in (one, wanted)]
        assert spans[0] == spans[1]
        assert any(spans[0])
    assert (
        post(shared_server, "/v1/indexes/my.index/explain", {**body, "ids": ["x"] * 101}).status_code == 422
    )


def test_vectors_as_json_equal_those_of_the_encoder_bit_for_bit(
    shared_server: Running, encoder: Encoder
) -> None:
    expected = encoder.encode_document(TEXTS)
    found = post(shared_server, "/v1/encode", {"texts": TEXTS, "prompt": "document"}).json()
    assert np.array_equal(np.array(found["dense"], np.float32), expected.dense)
    for i, row in enumerate(found["lexical"]):
        assert row["indices"] == expected.lexical[[i]].indices.tolist()
        assert np.array_equal(np.array(row["values"], np.float32), expected.lexical[[i]].data)
    for item, wanted in zip(found["multi"], expected.multi, strict=True):
        assert np.array_equal(np.array(item, np.float32).reshape(wanted.shape), wanted)


def test_vectors_as_safetensors_equal_those_of_the_encoder_bit_for_bit(
    shared_server: Running, encoder: Encoder
) -> None:
    expected = encoder.encode(TEXTS)
    answer = post(shared_server, "/v1/encode", {"texts": TEXTS}, headers={"accept": SAFETENSORS})
    assert answer.headers["content-type"] == SAFETENSORS
    found = unpack(load(answer.content))
    assert np.array_equal(found.dense, expected.dense)
    assert (found.lexical != expected.lexical).nnz == 0
    assert np.array_equal(found.multi.values, expected.multi.values)
    assert np.array_equal(found.multi.offsets, expected.multi.offsets)


def test_an_arrow_stream_has_a_row_for_each_text(shared_server: Running, encoder: Encoder) -> None:
    expected = encoder.encode(TEXTS)
    answer = post(shared_server, "/v1/encode", {"texts": TEXTS}, headers={"accept": ARROW})
    table = pa.ipc.open_stream(io.BytesIO(answer.content)).read_all()
    assert np.array_equal(np.array(table["dense"].to_pylist(), np.float32), expected.dense)
    for i, (pairs, tokens) in enumerate(
        zip(table["lexical"].to_pylist(), table["multi"].to_pylist(), strict=True)
    ):
        assert [pair["index"] for pair in pairs] == expected.lexical[[i]].indices.tolist()
        assert np.array_equal(
            np.array(tokens, np.float32).reshape(expected.multi[i].shape), expected.multi[i]
        )


@pytest.mark.parametrize("outputs", [["dense"], ["lexical", "multi"], ["multi"]])
def test_only_the_heads_that_are_asked_for_come(shared_server: Running, outputs: list[str]) -> None:
    found = post(shared_server, "/v1/encode", {"texts": "a text", "outputs": outputs}).json()
    assert {head for head in HEADS if head in found} == set(outputs)


def test_half_precision_is_the_float32_vectors_rounded(shared_server: Running, encoder: Encoder) -> None:
    body = {"texts": TEXTS, "precision": "float16"}
    found = load(post(shared_server, "/v1/encode", body, headers={"accept": SAFETENSORS}).content)
    assert found["dense"].dtype == np.float16
    assert np.array_equal(found["dense"], encoder.encode(TEXTS).dense.astype(np.float16))
    as_json = post(shared_server, "/v1/encode", body).json()
    assert np.array_equal(np.array(as_json["dense"], np.float16), found["dense"])


def test_the_answer_counts_tokens_and_texts_that_were_cut(shared_server: Running) -> None:
    found = post(shared_server, "/v1/encode", {"texts": TEXTS, "max_length": 8}).json()
    assert found["usage"]["truncated"] == 1
    assert found["usage"]["tokens"] <= 8 * len(TEXTS)


def test_a_search_over_http_finds_what_the_index_finds(
    start: Callable[..., Running], encoder: Encoder
) -> None:
    server = start()
    index: Index = server.service.index("my.index")
    options: dict[str, Any] = {
        "weights": {"dense": 1, "lexical": 2},
        "filter": {"lang": ["fr", "en"]},
        "candidates": 3,
    }
    body = {"query": "model of the world", "k": 2, **options}
    found = post(server, "/v1/indexes/my.index/search", body).json()
    assert found["query"] == "model of the world"
    assert found["took_ms"] > 0
    assert found["hits"] == [hit.to_json() for hit in index.search("model of the world", 2, **options)]
    several = post(server, "/v1/indexes/my.index/search", body | {"query": ["world", "text"]}).json()
    assert several["hits"] == [
        [hit.to_json() for hit in hits] for hits in index.search(["world", "text"], 2, **options)
    ]


def test_a_search_explains_its_hits(shared_server: Running, encoder: Encoder) -> None:
    body = {"query": "hello world", "k": 1, "explain": True}
    [hit] = post(shared_server, "/v1/indexes/my.index/search", body).json()["hits"]
    [expected] = explain(encoder, "hello world", [hit["text"]])
    assert hit["explanation"] == expected.to_json()
    assert set(hit["explanation"]) == {"words", "tokens", "left_out"}
    total = sum(word["score"] for word in hit["explanation"]["words"])
    assert total == pytest.approx(hit["scores"]["lexical"], abs=1e-5)


def test_a_search_by_rarity_encodes_no_query(shared_server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("a query was encoded")

    monkeypatch.setattr(Encoder, "encode", fail)
    body = {"query": "hello model", "lexical_queries": "idf", "explain": True}
    hits = post(shared_server, "/v1/indexes/my.index/search", body).json()["hits"]
    assert hits
    for hit in hits:
        assert {*hit["scores"]} == {"lexical"}
        assert sum(each["score"] for each in hit["explanation"]["words"]) == pytest.approx(
            hit["score"], abs=1e-4
        )
        assert hit["explanation"]["query_weights"]["by"] == "idf"


def test_a_long_text_comes_short_if_it_is_not_wanted_whole(start: Callable[..., Running]) -> None:
    server, long = start(), "many words " * 500
    put = httpx.put(
        f"{server.url}/v1/indexes/my.index/documents", json={"documents": [{"id": "long", "text": long}]}
    )
    assert put.json() == {"stored": 1}
    body = {"query": "many words", "k": 1}
    [hit] = post(server, "/v1/indexes/my.index/search", body).json()["hits"]
    assert hit["text"] == long
    [hit] = post(server, "/v1/indexes/my.index/search", body | {"full_text": False}).json()["hits"]
    assert hit["text"] == long[:500] + "…"


def test_every_option_of_a_search_is_in_the_body() -> None:
    assert set(SearchOptions.__annotations__) < set(SearchBody.model_fields)


def test_documents_are_added_replaced_read_and_deleted(start: Callable[..., Running]) -> None:
    server = start()
    documents = f"{server.url}/v1/indexes/my.index/documents"
    new = {"id": "new", "text": "a new text", "metadata": {"year": 2026, "tags": ["x"]}}
    assert httpx.post(documents, json={"documents": [new]}).json() == {"stored": 1}
    again = httpx.post(documents, json={"documents": [{"id": "other", "text": "o"}, new]})
    assert again.status_code == 409
    assert "new" in again.json()["message"]
    assert httpx.get(f"{documents}/other").status_code == 404, "nothing is added if one is there already"
    assert httpx.put(documents, json={"documents": [new | {"text": "changed"}]}).json() == {"stored": 1}
    assert httpx.get(f"{documents}/new").json() == new | {"text": "changed"}
    both = post(server, "/v1/indexes/my.index/documents/get", {"ids": ["d/é", "none"]}).json()["documents"]
    assert both == [DOCUMENTS[3], None]
    assert httpx.get(f"{documents}/d%2F%C3%A9").json() == DOCUMENTS[3]
    assert httpx.delete(f"{documents}/new").json() == {"deleted": 1}
    assert httpx.delete(f"{documents}/new").status_code == 404
    assert post(server, "/v1/indexes/my.index/documents/delete", {"filter": {"lang": "fr"}}).json() == {
        "deleted": 2
    }
    assert post(server, "/v1/indexes/my.index/documents/delete", {"ids": ["a", "none"]}).json() == {
        "deleted": 1
    }
    assert httpx.get(f"{server.url}/v1/indexes/my.index").json()["documents"] == 1


def test_an_index_says_what_it_holds(shared_server: Running) -> None:
    [found] = httpx.get(f"{shared_server.url}/v1/indexes").json()["indexes"]
    assert found == httpx.get(f"{shared_server.url}/v1/indexes/my.index").json()
    assert found["documents"] == 4
    assert found["heads"] == list(HEADS)
    assert found["weights"] == {"dense": 1.0, "lexical": 0.3, "multi": 3.0}
    assert sorted(found["fields"]) == ["lang", "year"]


def test_health_readiness_and_metrics(shared_server: Running) -> None:
    assert httpx.get(f"{shared_server.url}/health").json()["status"] == "ok"
    assert httpx.get(f"{shared_server.url}/ready").json() == {"ready": True}
    before = shared_server.metric("triptych_texts_total")
    post(shared_server, "/v1/encode", {"texts": TEXTS})
    assert shared_server.metric("triptych_texts_total") == before + len(TEXTS)


def test_hits_come_in_pages_and_groups_as_the_index_gives_them(start: Callable[..., Running]) -> None:
    server = start()
    index: Index = server.service.index("my.index")
    options: dict[str, Any] = {"group_by": "lang", "group_size": 2, "offset": 1, "min_score": -9.0}
    found = post(
        server, "/v1/indexes/my.index/search", {"query": "model of the world", "k": 3, **options}
    ).json()
    expected = index.search("model of the world", 3, **options)
    assert found["hits"] == [hit.to_json() for hit in expected]
    everything = post(server, "/v1/indexes/my.index/search", {"query": "model", "group_by": "lang"}).json()[
        "hits"
    ]
    assert sum(len(hit.get("more", ())) for hit in everything) == 1
    with Client(server.url) as client:
        again = client.search("my.index", "model of the world", 3, **options)
    assert [each.hit.to_json() for each in again] == found["hits"]
