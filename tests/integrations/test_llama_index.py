from __future__ import annotations

import asyncio

import pytest

pytest.importorskip("llama_index.core")

from llama_index.core.schema import QueryBundle
from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from triptych import Index
from triptych.errors import InputError
from triptych.integrations.llama_index import TriptychNodeRetriever


def test_nodes_are_the_hits_of_the_index(filled: Index) -> None:
    nodes = TriptychNodeRetriever(filled, similarity_top_k=3).retrieve("how do I make coffee?")
    hits = filled.search("how do I make coffee?", 3)
    assert [(node.node_id, node.score, node.text, node.metadata) for node in nodes] == [
        (hit.id, hit.score, hit.text, hit.metadata) for hit in hits
    ]


def test_it_can_be_awaited_and_takes_a_query_bundle(filled: Index) -> None:
    retriever = TriptychNodeRetriever(filled, similarity_top_k=1)
    [node] = asyncio.run(retriever.aretrieve(QueryBundle("croûte terrestre")))
    assert node.node_id == "volcan"


def test_weights_and_filters_reach_the_index(filled: Index) -> None:
    filters = MetadataFilters(
        filters=[
            MetadataFilter(key="lang", operator="in", value=["en", "de"]),
            MetadataFilter(key="year", operator=">=", value=2021),
            MetadataFilter(key="year", operator="<", value=2024),
        ]
    )
    nodes = TriptychNodeRetriever(filled, filters=filters, weights=(1, 0, 0)).retrieve("tea")
    assert [node.node_id for node in nodes] == ["tea"]
    assert nodes[0].score == pytest.approx(filled.search("tea", 1, weights=(1, 0, 0))[0].score)
    assert TriptychNodeRetriever(filled, filters={"lang": "fr"}).retrieve("tea")[0].node_id == "volcan"


def test_conditions_are_joined_and_negated_as_llama_index_says(filled: Index) -> None:
    def ids(condition: FilterCondition, *parts: MetadataFilter | MetadataFilters) -> set[str]:
        filters = MetadataFilters(filters=list(parts), condition=condition)
        return {node.node_id for node in TriptychNodeRetriever(filled, filters=filters).retrieve("tea")}

    french, late = (
        MetadataFilter(key="lang", value="fr"),
        MetadataFilter(key="year", value=2023, operator=FilterOperator.GTE),
    )
    assert ids(FilterCondition.OR, french, late) == {"volcan", "tea", "erdbeben"}
    assert ids(FilterCondition.NOT, late) == {"moka", "volcan"}
    english = MetadataFilter(key="lang", value=["fr", "de"], operator=FilterOperator.NIN)
    inner = MetadataFilters(filters=[late, french], condition=FilterCondition.OR)
    assert ids(FilterCondition.AND, english, inner) == {"tea"}
    assert ids(
        FilterCondition.AND, MetadataFilter(key="lang", value="en", operator=FilterOperator.NE), late
    ) == {"erdbeben"}


def test_filters_that_an_index_does_not_know_are_refused(filled: Index) -> None:
    one = MetadataFilter(key="lang", value="en")
    for filters, word in (
        (MetadataFilters(filters=[one, one], condition=FilterCondition.NOT), "two ways"),
        (
            MetadataFilters(filters=[MetadataFilter(key="lang", value="e", operator="text_match")]),
            "text_match",
        ),
    ):
        with pytest.raises(InputError, match=word):
            TriptychNodeRetriever(filled, filters=filters)
