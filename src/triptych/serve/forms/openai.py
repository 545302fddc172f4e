"""``/v1/embeddings`` as OpenAI has it, with what Jina adds, and Jina's multi-vector form."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from triptych.errors import InputError
from triptych.serve.forms.common import (
    Encoding,
    ForeignBody,
    Prompt,
    StrictRoute,
    TextItem,
    answer,
    dense_of,
    encode_input,
    multi_of,
    rows_as,
    service_of,
    shorten,
    texts_of,
)

router = APIRouter(route_class=StrictRoute, tags=["OpenAI and Jina"])


class EmbeddingsBody(ForeignBody):
    """OpenAI's fields, and Jina's ``task``, ``embedding_type``, ``return_multivector`` and objects with a text."""

    input: str | list[str | TextItem] | list[int] | list[list[int]] = Field(
        examples=[["Ein Satz.", "Une phrase."]]
    )
    model: str | None = None
    encoding_format: Encoding = "float"
    dimensions: int | None = Field(
        None, description="Only the first so many numbers, brought to length 1 again."
    )
    task: str | None = Field(None, description="Jina: of a query, a passage, or anything else.")
    embedding_type: Encoding | None = Field(None, description="Jina's name of encoding_format.")
    return_multivector: bool = Field(False, description="Jina: token vectors instead of dense ones.")
    normalized: bool = True
    truncate: bool = True


class MultiVectorBody(ForeignBody):
    """Jina's multi-vector form."""

    input: list[str | TextItem] = Field(examples=[["Ein Satz."]])
    model: str | None = None
    input_type: Prompt = "document"
    embedding_type: Encoding = "float"


@router.get("/v1/models", summary="All models")
async def models(request: Request) -> Response:
    """Names of the models."""
    names = service_of(request).model_names
    return answer(
        {
            "object": "list",
            "data": [{"id": name, "object": "model", "owned_by": "triptych"} for name in names],
        }
    )


@router.post("/v1/embeddings", summary="Dense vectors")
async def embeddings(body: EmbeddingsBody, request: Request) -> Response:
    """Dense vectors of texts or token ids, in the order of the input."""
    if not body.normalized:
        raise InputError("normalized: got false; expected true, since these vectors have length 1")
    model = service_of(request).model(body.model)
    prompt = _prompt_of(body.task)
    encoding = body.embedding_type or body.encoding_format
    head = "multi" if body.return_multivector else "dense"
    counted = await encode_input(
        model, texts_of(body.input), outputs=(head,), prompt=prompt, cut="end" if body.truncate else "none"
    )
    if head == "multi":
        items = [{"embeddings": list(rows_as(rows, encoding))} for rows in multi_of(counted.encoded)]
    else:
        dense = shorten(dense_of(counted.encoded), body.dimensions)
        items = [{"embedding": row} for row in rows_as(dense, encoding)]
    data = [{"object": "embedding", "index": i, **item} for i, item in enumerate(items)]
    usage = {"prompt_tokens": counted.tokens, "total_tokens": counted.tokens}
    return answer(
        {"object": "list", "data": data, "model": body.model or model.encoder.source, "usage": usage}
    )


@router.post("/v1/multi-vector", summary="Token vectors")
async def multi_vector(body: MultiVectorBody, request: Request) -> Response:
    """A vector for each token of each text."""
    model = service_of(request).model(body.model)
    counted = await encode_input(model, texts_of(body.input), outputs=("multi",), prompt=body.input_type)
    data: list[dict[str, Any]] = [
        {"object": "embeddings", "index": i, "embeddings": list(rows_as(rows, body.embedding_type))}
        for i, rows in enumerate(multi_of(counted.encoded))
    ]
    usage = {"prompt_tokens": counted.tokens, "total_tokens": counted.tokens}
    return answer(
        {"object": "list", "data": data, "model": body.model or model.encoder.source, "usage": usage}
    )


def _prompt_of(task: str | None) -> Prompt | None:
    """Whose prefix a task of Jina's wants."""
    if task is None:
        return None
    kind = task.rpartition(".")[2]
    return "query" if kind == "query" else "document" if kind in ("passage", "document") else None
