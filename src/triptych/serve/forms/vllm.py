"""vLLM's ``/pooling``; its ``/score`` stands with the other forms of ranking."""

from __future__ import annotations

import time
import uuid
from typing import Any, Literal, cast

from fastapi import APIRouter, Request
from starlette.responses import Response

from triptych.serve.batching import Counted
from triptych.serve.forms.common import (
    ForeignBody,
    StrictRoute,
    answer,
    dense_of,
    encode_input,
    multi_of,
    rows_as,
    service_of,
    shorten,
)
from triptych.types import Head

router = APIRouter(route_class=StrictRoute, tags=["vLLM"])
_HEADS: dict[str, Head] = {"embed": "dense", "token_embed": "multi", "token_classify": "lexical"}


class PoolingBody(ForeignBody):
    """vLLM's fields."""

    input: str | list[str] | list[int] | list[list[int]]
    model: str | None = None
    task: Literal["embed", "token_embed", "token_classify"] = "token_embed"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = None


@router.post("/pooling", summary="Vectors of any head")
async def pooling(body: PoolingBody, request: Request) -> Response:
    """As vLLM serves BGE-M3: embed is dense, token_embed the token vectors, token_classify the lexical weights.

    token_classify gives for each token of the text, special ones left out, the weight of its token id in the text.
    """
    model = service_of(request).model(body.model)
    counted = await encode_input(model, body.input, outputs=(_HEADS[body.task],))
    data: list[dict[str, Any]] = [
        {"index": i, "object": "pooling", "data": value} for i, value in enumerate(_values(body, counted))
    ]
    return answer(
        {
            "id": f"pool-{uuid.uuid4().hex}",
            "object": "list",
            "created": int(time.time()),
            "model": body.model or model.encoder.source,
            "data": data,
            "usage": {"prompt_tokens": counted.tokens, "total_tokens": counted.tokens},
        }
    )


def _values(body: PoolingBody, counted: Counted) -> list[Any]:
    if body.task == "embed":
        return list(rows_as(shorten(dense_of(counted.encoded), body.dimensions), body.encoding_format))
    if body.task == "token_embed":
        rows = multi_of(counted.encoded)
    else:
        lexical = cast(Any, counted.encoded.lexical)
        rows = [lexical[[i]].toarray()[0, ids[1:-1], None] for i, ids in enumerate(counted.ids)]
    if body.encoding_format == "base64":
        return [text for each in rows for text in rows_as(each.reshape(1, -1), "base64")]
    return [list(each) for each in rows]
