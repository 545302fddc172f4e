"""What retrievers search: a folder, or an index of a server, with the same answers as an open index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integrations.conftest import DOCUMENTS, fill
from triptych import Encoder, Index
from triptych.errors import IndexMissing, InputError
from triptych.integrations.source import open_source

QUERY = "how do I make coffee?"


def by_langchain(index: Any) -> list[tuple[str, float]]:
    pytest.importorskip("langchain_core")
    from triptych.integrations.langchain import TriptychRetriever

    found = TriptychRetriever(index=index, filter={"lang": ["en", "de"]}, weights=(1, 0.3, 1)).invoke(QUERY)
    return [(str(each.id), each.metadata["score"]) for each in found]


def by_llama_index(index: Any) -> list[tuple[str, float]]:
    pytest.importorskip("llama_index.core")
    from triptych.integrations.llama_index import TriptychNodeRetriever

    retriever = TriptychNodeRetriever(index, filters={"lang": ["en", "de"]}, weights=(1, 0.3, 1))
    return [(node.node_id, node.score or 0) for node in retriever.retrieve(QUERY)]


def by_haystack(index: Any) -> list[tuple[str, float]]:
    pytest.importorskip("haystack")
    from triptych.integrations.haystack import TriptychTextRetriever

    weights = {"dense": 1.0, "lexical": 0.3, "multi": 1.0}
    retriever = TriptychTextRetriever(index, filters={"lang": ["en", "de"]}, weights=weights)
    return [(each.id, each.score or 0) for each in retriever.run(QUERY)["documents"]]


@pytest.mark.parametrize("retrieve", [by_langchain, by_llama_index, by_haystack])
def test_a_retriever_finds_the_same_by_url_as_in_the_process(
    retrieve: Callable[[Any], list[tuple[str, float]]], filled: Index, address: str
) -> None:
    hits = filled.search(QUERY, filter={"lang": ["en", "de"]}, weights=(1, 0.3, 1))
    for found in (retrieve(filled), retrieve(address)):
        assert [name for name, _ in found] == [hit.id for hit in hits]
        assert [score for _, score in found] == pytest.approx([hit.score for hit in hits], abs=2e-6)


def test_an_index_of_a_server_is_read_and_changed_as_an_open_one(address: str) -> None:
    index = open_source(address)
    text, metadata = DOCUMENTS["tea"]
    assert index.get(["tea", "nothing"]) == [{"id": "tea", "text": text, "metadata": metadata}, None]
    assert index.add(["x", "y"], ["one", "two"], [{"n": 1}, None]) == 2
    assert index.add(["y"], ["two again"]) == 1
    assert index.get(["y"]) == [{"id": "y", "text": "two again", "metadata": {}}]
    assert index.delete(["x", "y", "z"]) == 2
    index.close()


def test_a_folder_is_opened_with_its_recorded_model(small: Encoder, tmp_path: Path) -> None:
    fill(tmp_path / "my.index", small).close()
    found = open_source(str(tmp_path / "my.index"))
    assert found.search("coffee", 1)[0].id == "moka"
    found.close()


def test_what_is_no_index_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="got 3"):
        open_source(3)
    with pytest.raises(InputError, match="index's name"):
        open_source("http://127.0.0.1:1/")
    with pytest.raises(IndexMissing):
        open_source(tmp_path / "nothing")
