"""Cohere's ``/v2/embed``; its ``/v2/rerank`` stands with the other forms of that."""

from __future__ import annotations

import uuid
from typing import Any, Literal

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from triptych.errors import InputError
from triptych.serve.batching import Cut
from triptych.serve.forms.common import (
    ForeignBody,
    Prompt,
    SmallEncoding,
    StrictRoute,
    answer,
    dense_of,
    encode_input,
    rows_as,
    service_of,
    shorten,
)

router = APIRouter(route_class=StrictRoute, tags=["Cohere"])
_CUTS: dict[str, Cut] = {"START": "start", "END": "end", "NONE": "none"}
_PROMPTS: dict[str, Prompt] = {"search_query": "query", "search_document": "document"}


class ContentItem(ForeignBody):
    """A part of an input: a text."""

    type: Literal["text"]
    text: str


class ContentBody(ForeignBody):
    """An input of several parts."""

    content: list[ContentItem]


class EmbedBody(ForeignBody):
    """Cohere's fields."""

    model: str | None = None
    input_type: Literal["search_query", "search_document", "classification", "clustering"]
    texts: list[str] | None = Field(None, examples=[["Ein Satz."]])
    inputs: list[ContentBody] | None = None
    embedding_types: list[SmallEncoding] = Field(default=["float"])
    truncate: Literal["START", "END", "NONE"] = "END"
    output_dimension: int | None = None
    max_tokens: int | None = None


@router.post("/v2/embed", summary="Dense vectors (Cohere)")
async def embed(body: EmbedBody, request: Request) -> Response:
    """Dense vectors as lists of numbers, base64 of float32, bytes, or bits of their signs."""
    if (body.texts is None) == (body.inputs is None):
        raise InputError("texts: expected either texts or inputs")
    texts = body.texts if body.texts is not None else _joined(body.inputs or [])
    model = service_of(request).model(body.model)
    counted = await encode_input(
        model,
        texts,
        outputs=("dense",),
        prompt=_PROMPTS.get(body.input_type),
        cut=_CUTS[body.truncate],
        max_length=body.max_tokens,
    )
    dense = shorten(dense_of(counted.encoded), body.output_dimension)
    content: dict[str, Any] = {
        "id": str(uuid.uuid4()),
        "response_type": "embeddings_by_type",
        "embeddings": {kind: list(rows_as(dense, kind)) for kind in body.embedding_types},
        "texts": texts,
        "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": counted.tokens}},
    }
    return answer(content)


def _joined(inputs: list[ContentBody]) -> list[str]:
    return ["\n".join(part.text for part in each.content) for each in inputs]
