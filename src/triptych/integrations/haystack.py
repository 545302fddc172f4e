"""Haystack: a retriever as a component of pipelines (``pip install "triptych[haystack]"``)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from triptych.errors import InputError, require_extra, show
from triptych.integrations.source import Searchable, combination, comparison, open_source

with require_extra("The retriever for Haystack", "haystack"):
    from haystack import Document, component, default_from_dict, default_to_dict
    from haystack.utils import Secret


@component
class TriptychTextRetriever:
    """Finds documents with all three heads; Haystack's protocol `TextRetriever`.

    Args:
        index: A folder with an index, ``http(s)://host[:port]/name`` for one of a server, or an open index (a pipeline
            with an open index cannot be saved).
        top_k: Documents per query.
        filters: Conditions on metadata in Haystack's form, or those of `triptych.Index.search`.
        weights: Weights of the three scores, such as ``{"dense": 1, "lexical": 0.3, "multi": 1}``; None: the default
            ones.
        api_key: For a server; default: the environment variable TRIPTYCH_API_KEY, if it is set.
    """

    def __init__(
        self,
        index: Any,
        top_k: int = 10,
        filters: dict[str, Any] | None = None,
        weights: dict[str, float] | None = None,
        api_key: Secret | None = None,
    ) -> None:
        self.index, self.top_k, self.filters, self.weights = index, top_k, filters, weights
        self.api_key = api_key or Secret.from_env_var("TRIPTYCH_API_KEY", strict=False)
        self._source: Searchable | None = None

    def warm_up(self) -> None:
        """Opens the index; `run` does so, too."""
        if self._source is None:
            self._source = open_source(self.index, api_key=self.api_key.resolve_value())

    def to_dict(self) -> dict[str, Any]:
        """What a saved pipeline holds of the component.

        Raises:
            InputError: If it was given an open index.
        """
        if not isinstance(self.index, str | Path):
            raise InputError("to_dict: got an open index; expected a folder or a server's address")
        return default_to_dict(
            self,
            index=str(self.index),
            top_k=self.top_k,
            filters=self.filters,
            weights=self.weights,
            api_key=self.api_key,
        )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TriptychTextRetriever:
        """The component of a saved pipeline."""
        return default_from_dict(cls, data)

    @component.output_types(documents=list[Document])
    def run(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """Finds documents.

        Args:
            query: The query.
            filters: Instead of the component's own.
            top_k: Instead of the component's own.

        Returns:
            ``{"documents": …}``, the best first, with the weighted sum as their score.
        """
        self.warm_up()
        options: dict[str, Any] = {"filter": _filter(filters or self.filters)}
        if self.weights is not None:
            options["weights"] = self.weights
        hits = cast(Searchable, self._source).search(query, self.top_k if top_k is None else top_k, **options)
        return {
            "documents": [
                Document(id=hit.id, content=hit.text, meta=dict(hit.metadata), score=hit.score)
                for hit in hits
            ]
        }

    @component.output_types(documents=list[Document])
    async def run_async(
        self, query: str, filters: dict[str, Any] | None = None, top_k: int | None = None
    ) -> dict[str, list[Document]]:
        """As `run`, in a thread."""
        return await asyncio.to_thread(self.run, query, filters, top_k)


def _filter(filters: dict[str, Any] | None) -> dict[str, Any] | None:
    """Haystack's filters have an operator; others are an index's own."""
    return _converted(filters) if filters and isinstance(filters.get("operator"), str) else filters


def _converted(filters: dict[str, Any]) -> dict[str, Any]:
    if "field" in filters:
        return comparison(filters["field"].removeprefix("meta."), filters["operator"], filters.get("value"))
    if "operator" not in filters or "conditions" not in filters:
        raise InputError(
            f"filters: got {show(filters)}; expected field, operator and value, or operator and conditions"
        )
    return combination(filters["operator"], [_converted(each) for each in filters["conditions"]])
