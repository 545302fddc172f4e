"""LangChain's own standard tests, and what they leave out."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_tests")

from langchain_core.documents import Document
from langchain_tests.integration_tests import (
    EmbeddingsIntegrationTests,
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)

from triptych import Encoder, Index
from triptych.errors import InputError
from triptych.integrations.langchain import TriptychEmbeddings, TriptychRetriever, TriptychVectorStore


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.anyio
class TestRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _index(self, filled: Index) -> None:
        self.index = filled

    @property
    def retriever_constructor(self) -> type[TriptychRetriever]:
        return TriptychRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"index": self.index}

    @property
    def retriever_query_example(self) -> str:
        return "how do I make coffee?"


@pytest.mark.anyio
class TestVectorStore(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, empty: Index) -> TriptychVectorStore:  # type: ignore[override]
        return TriptychVectorStore(empty)


@pytest.mark.anyio
class TestEmbeddings(EmbeddingsIntegrationTests):
    @pytest.fixture(autouse=True)
    def _encoder(self, small: Encoder) -> None:
        self.encoder = small

    @property
    def embeddings_class(self) -> type[TriptychEmbeddings]:
        return TriptychEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        return {"model": self.encoder}


def test_a_document_has_the_scores_of_its_hit_and_its_own_metadata(filled: Index) -> None:
    [document] = TriptychRetriever(index=filled, k=1).invoke("how do I make coffee?")
    [hit] = filled.search("how do I make coffee?", 1)
    assert document == Document(
        id="moka",
        page_content=hit.text,
        metadata={"lang": "en", "year": 2020, "score": hit.score, "scores": dict(hit.scores)},
    )


def test_a_field_of_the_document_goes_before_a_score_of_ours(empty: Index) -> None:
    empty.add(["a"], ["some text"], [{"score": "high"}])
    [document] = TriptychRetriever(index=empty).invoke("text")
    assert document.metadata["score"] == "high"


def test_filter_weights_and_k_are_those_of_the_retriever_or_of_the_call(filled: Index) -> None:
    french = TriptychRetriever(index=filled, filter={"lang": "fr"})
    assert [each.id for each in french.invoke("coffee")] == ["volcan"]
    assert [each.id for each in french.invoke("coffee", filter={"lang": "de"})] == ["erdbeben"]
    lexical = TriptychRetriever(index=filled, weights=(0, 1, 0), k=2)
    found = lexical.invoke("coffee")
    assert [each.id for each in found] == [hit.id for hit in filled.search("coffee", 2, weights=(0, 1, 0))]
    assert found[0].metadata["score"] == found[0].metadata["scores"]["lexical"]


def test_the_store_adds_to_an_index_and_takes_no_embeddings(empty: Index) -> None:
    embeddings = TriptychEmbeddings(empty.encoder)  # type: ignore[arg-type]
    store = TriptychVectorStore.from_texts(
        ["tea", "coffee"], embeddings, [{"n": 1}, {"n": 2}], ids=["t", "c"], index=empty
    )
    assert store.similarity_search("coffee", 1, filter={"n": 1})[0].id == "t"
    [(document, score)] = store.similarity_search_with_score("coffee", 1)
    assert (document.id, score) == ("c", empty.search("coffee", 1)[0].score)
    assert store.as_retriever(search_kwargs={"k": 1}).invoke("coffee")[0].id == "c"
    with pytest.raises(InputError, match="index="):
        TriptychVectorStore.from_texts(["a"], embeddings)
    with pytest.raises(InputError, match="ids"):
        store.delete()
    assert len(empty) == 2


def test_embeddings_are_the_dense_vectors_of_the_encoder(small: Encoder) -> None:
    embeddings = TriptychEmbeddings(small)
    assert embeddings.embed_query("tea") == small.encode_query(["tea"]).dense[0].tolist()
    assert embeddings.embed_documents(["tea", "a"]) == small.encode_document(["tea", "a"]).dense.tolist()
