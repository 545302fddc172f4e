"""The routes of text-embeddings-inference; its ``/rerank`` stands with the other forms of that."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from fastapi import APIRouter, Request
from pydantic import Field
from starlette.responses import Response

from triptych import __version__
from triptych.errors import InputError
from triptych.serve.batching import Counted, Cut
from triptych.serve.forms.common import (
    ForeignBody,
    Prompt,
    StrictRoute,
    answer,
    dense_of,
    encode_input,
    listed,
    multi_of,
    rows_as,
    service_of,
    shorten,
)
from triptych.types import Head

router = APIRouter(route_class=StrictRoute, tags=["text-embeddings-inference"])


Direction: TypeAlias = Literal["Left", "left", "Right", "right"]
"""Of cutting: at the left a text loses its beginning."""


def cut_of(truncate: bool, direction: Direction) -> Cut:
    """What a text that is too long loses."""
    return "none" if not truncate else "start" if direction.lower() == "left" else "end"


class InputsBody(ForeignBody):
    """TEI's fields."""

    inputs: str | list[str] | list[int] | list[list[int]] = Field(examples=["Ein Satz."])
    truncate: bool = True
    truncation_direction: Direction = "Right"
    normalize: bool = True
    prompt_name: Prompt | None = None
    dimensions: int | None = None


class TokenizeBody(ForeignBody):
    """TEI's fields."""

    inputs: str | list[str] = Field(examples=["Ein Satz."])
    add_special_tokens: bool = True
    prompt_name: Prompt | None = None


@router.post("/", summary="Dense vectors")
@router.post("/embed", summary="Dense vectors")
async def embed(body: InputsBody, request: Request) -> Response:
    """A vector for each input."""
    counted = await _encode(body, request, "dense")
    return answer(list(rows_as(shorten(dense_of(counted.encoded), body.dimensions), "float")))


@router.post("/embed_all", summary="Token vectors")
async def embed_all(body: InputsBody, request: Request) -> Response:
    """A list of vectors for each input: those of the multi-vector head."""
    counted = await _encode(body, request, "multi")
    return answer([list(rows_as(rows, "float")) for rows in multi_of(counted.encoded)])


@router.post("/embed_sparse", summary="Lexical weights")
async def embed_sparse(body: InputsBody, request: Request) -> Response:
    """The token ids of each input that have a weight, with it."""
    rows: Any = (await _encode(body, request, "lexical")).encoded.lexical
    pairs = [{"index": int(i), "value": value} for i, value in zip(rows.indices, rows.data, strict=True)]
    return answer([pairs[start:end] for start, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True)])


async def _encode(body: InputsBody, request: Request, head: Head) -> Counted:
    if not body.normalize:
        raise InputError("normalize: got false; expected true, since these vectors have length 1")
    model = service_of(request).model()
    cut = cut_of(body.truncate, body.truncation_direction)
    return await encode_input(model, body.inputs, outputs=(head,), prompt=body.prompt_name, cut=cut)


@router.post("/tokenize", summary="Tokens")
async def tokenize(body: TokenizeBody, request: Request) -> Response:
    """The tokens of each input, with the characters (bytes of UTF-8 in TEI, characters here) that they stand for."""
    model = service_of(request).model()
    tokenizer = model.encoder.tokenizer
    found = await model.pieces(listed(body.inputs), special=body.add_special_tokens)
    special = set(tokenizer.special.never_lexical)
    return answer(
        [
            [
                {
                    "id": number,
                    "text": piece,
                    "special": number in special and number != tokenizer.special.unk,
                    "start": start if start < end else None,
                    "stop": end if start < end else None,
                }
                for number, piece, (start, end) in text
            ]
            for text in found
        ]
    )


@router.get("/info", summary="The model and the limits")
async def info(request: Request) -> Response:
    """What TEI says of itself."""
    service = service_of(request)
    model, settings = service.model(), service.settings
    encoder = model.encoder
    return answer(
        {
            "model_id": encoder.source,
            "model_sha": encoder.fingerprint,
            "model_dtype": encoder.describe()["dtype"],
            "model_type": {"embedding": {"pooling": encoder.config.pooling}},
            "max_concurrent_requests": settings.queue,
            "max_input_length": encoder.config.max_length,
            "max_batch_tokens": model.budget,
            "max_batch_requests": None,
            "max_client_batch_size": settings.max_texts,
            "auto_truncate": True,
            "tokenization_workers": 2,
            "version": __version__,
            "sha": None,
            "docker_label": None,
        }
    )
