"""LlamaIndex: a retriever (``pip install "triptych[llama-index]"``)."""

from __future__ import annotations

import asyncio
from typing import Any

from triptych.errors import InputError, require_extra
from triptych.integrations.source import combination, comparison, open_source

with require_extra("The retriever for LlamaIndex", "llama-index"):
    from llama_index.core.retrievers import BaseRetriever
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
    from llama_index.core.vector_stores import FilterCondition, MetadataFilter, MetadataFilters


class TriptychNodeRetriever(BaseRetriever):
    """Finds documents with all three heads, as nodes whose score is the weighted sum.

    Args:
        index: An open index, its folder, or ``http(s)://host[:port]/name`` for one of a server.
        similarity_top_k: Nodes per query.
        filters: Conditions on metadata: LlamaIndex's own, or those of `triptych.Index.search`.
        weights: Weights of the three scores; None: the default ones.
        api_key: For a server.
        **options: Those of LlamaIndex's base class, such as `callback_manager`.

    Raises:
        InputError: For filters that an index does not know.
    """

    def __init__(
        self,
        index: Any,
        *,
        similarity_top_k: int = 10,
        filters: MetadataFilters | dict[str, Any] | None = None,
        weights: Any = None,
        api_key: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.similarity_top_k = similarity_top_k
        self._source = open_source(index, api_key=api_key)
        self._options: dict[str, Any] = {
            "filter": _filter(filters) if isinstance(filters, MetadataFilters) else filters
        }
        if weights is not None:
            self._options["weights"] = weights

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._source.search(query_bundle.query_str, self.similarity_top_k, **self._options)
        return [
            NodeWithScore(
                node=TextNode(id_=hit.id, text=hit.text, metadata=dict(hit.metadata)), score=hit.score
            )
            for hit in hits
        ]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await asyncio.to_thread(self._retrieve, query_bundle)


def _filter(filters: MetadataFilters) -> dict[str, Any] | None:
    parts = [
        comparison(each.key, each.operator.value, each.value)
        if isinstance(each, MetadataFilter)
        else _filter(each)
        for each in filters.filters
    ]
    condition = filters.condition or FilterCondition.AND
    if condition is FilterCondition.NOT and len(parts) > 1:
        raise InputError("filters: got several conditions under not, which is read in two ways; expected one")
    return combination(condition.value, [part for part in parts if part]) if parts else None
