"""Scores of texts for a query: ours, and the forms of Cohere, Jina, vLLM and text-embeddings-inference."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from triptych.errors import InputError
from triptych.serve.batching import Batcher
from triptych.serve.forms.common import (
    ForeignBody,
    StrictRoute,
    TextItem,
    answer,
    listed,
    service_of,
    texts_of,
)
from triptych.serve.forms.tei import Direction, cut_of
from triptych.serve.service import RerankScores
from triptych.types import HeadWeights

router = APIRouter(route_class=StrictRoute, tags=["rerank"])


class RerankBody(ForeignBody):
    """Cohere's, Jina's and vLLM's fields; `weights` is ours; `texts` and what follows it are TEI's."""

    query: str = Field(examples=["how do plants make sugar"])
    documents: list[str | TextItem] | None = Field(None, examples=[["Photosynthesis …", "Bread …"]])
    top_n: int | None = Field(None, ge=0)
    return_documents: bool = False
    weights: list[float] | dict[str, float] | None = Field(
        None, description="Of the scores dense, lexical, multi."
    )
    model: str | None = None
    texts: list[str] | None = Field(None, description="TEI: the documents; the answer is then a bare list.")
    raw_scores: bool = Field(False, description="TEI: the weighted sum instead of the mean.")
    return_text: bool = Field(False, description="TEI: whether texts come back.")
    truncate: bool = True
    truncation_direction: Direction = "Right"


class ScoreBody(ForeignBody):
    """vLLM's fields."""

    text_1: str | list[str] | None = None
    text_2: str | list[str] | None = None
    queries: str | list[str] | None = None
    documents: str | list[str] | None = None
    model: str | None = None


@router.post("/v1/rerank", summary="Rank documents by all three scores")
@router.post("/v2/rerank", summary="Rank documents (Cohere)")
@router.post("/rerank", summary="Rank documents (Jina, vLLM; with texts: TEI)")
async def rerank(body: RerankBody, request: Request) -> Response:
    """The best first. `relevance_score` is the weighted mean of the three scores, `score` their weighted sum."""
    if (body.texts is None) == (body.documents is None):
        raise InputError("documents: expected documents or, in TEI's form, texts")
    service = service_of(request)
    model = service.model(body.model)
    texts = body.texts if body.texts is not None else texts_of(body.documents or [])
    weights = None if body.weights is None else HeadWeights.of(body.weights)
    cut = cut_of(body.truncate, body.truncation_direction)
    ranked = await service.rank(model, body.query, texts, weights, cut=cut)
    order = np.argsort(-ranked.total, kind="stable").tolist()
    if body.texts is not None:
        numbers = ranked.total if body.raw_scores else ranked.relevance
        shown = {"text": texts} if body.return_text else {}
        return answer([_row(i, {"score": numbers} | shown) for i in order])
    return answer(_ranking(body, model, ranked, order[: body.top_n or None], texts))


def _ranking(
    body: RerankBody, model: Batcher, ranked: RerankScores, order: Sequence[int], texts: Sequence[str]
) -> dict[str, Any]:
    columns: dict[str, Any] = {"relevance_score": ranked.relevance, "score": ranked.total}
    results = [
        _row(i, columns) | {"scores": {head: each[i] for head, each in ranked.scores.items()}} for i in order
    ]
    if body.return_documents:
        results = [row | {"document": {"text": texts[i]}} for i, row in zip(order, results, strict=True)]
    return {
        "id": uuid.uuid4().hex,
        "model": body.model or model.encoder.source,
        "results": results,
        "usage": {"total_tokens": ranked.tokens, "prompt_tokens": ranked.tokens},
        "meta": {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    }


def _row(i: int, columns: Mapping[str, Any]) -> dict[str, Any]:
    return {"index": i} | {name: values[i] for name, values in columns.items()}


@router.post("/score", summary="Scores of pairs (vLLM)")
@router.post("/v1/score", summary="Scores of pairs (vLLM)")
async def score(body: ScoreBody, request: Request) -> Response:
    """The weighted mean of the three scores of one query with each document, or of pairs."""
    left, right = body.text_1 or body.queries, body.text_2 or body.documents
    if left is None or right is None:
        raise InputError("text_1: expected text_1 and text_2, or queries and documents")
    queries, documents = listed(left), listed(right)
    if len(queries) not in (1, len(documents)):
        raise InputError(
            f"text_1: got {len(queries)} texts for {len(documents)}; expected one, or equally many"
        )
    service, numbers, tokens = service_of(request), list[float](), 0
    model = service.model(body.model)
    if len(queries) == 1:
        pairs = [(queries[0], documents)]
    else:
        pairs = [(query, [document]) for query, document in zip(queries, documents, strict=True)]
    for query, texts in pairs:
        ranked = await service.rank(model, query, texts, None)
        numbers += ranked.relevance.tolist()
        tokens += ranked.tokens
    return answer(
        {
            "id": f"score-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": body.model or model.encoder.source,
            "data": [{"index": i, "object": "score", "score": number} for i, number in enumerate(numbers)],
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )
