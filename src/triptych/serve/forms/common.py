"""What the forms share: strict JSON, base classes of requests, numbers in the ways that clients ask for."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import orjson
from fastapi import Request
from fastapi.routing import APIRoute
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from starlette.responses import Response

from triptych.errors import InputError
from triptych.model.packed import Ids
from triptych.serve.batching import Batcher, Counted, Cut, RequestTooLarge
from triptych.serve.service import Service
from triptych.types import Encoded, Floats, Head, Ragged

Encoding: TypeAlias = Literal["float", "base64", "binary", "ubinary"]
SmallEncoding: TypeAlias = Literal[Encoding, "int8", "uint8"]
MOST_NUMBERS = 8_000_000
"""Most numbers of token vectors in one JSON answer."""
Prompt: TypeAlias = Literal["query", "document"]


class StrictRequest(Request):
    """A request whose JSON is what the standard says: no NaN, no half surrogates, no thousand levels."""

    async def json(self) -> Any:
        """The body."""
        try:
            return orjson.loads(await self.body())
        except orjson.JSONDecodeError as error:
            raise json.JSONDecodeError(error.msg, "", 0) from None  # without the document


class StrictRoute(APIRoute):
    """A route that reads its body so."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        handle = super().get_route_handler()

        async def strict(request: Request) -> Response:
            return await handle(StrictRequest(request.scope, request.receive))

        return strict


class OwnBody(BaseModel):
    """A body of our own forms: a key that it does not know is an error."""

    model_config = ConfigDict(strict=True, extra="forbid")


class ForeignBody(BaseModel):
    """A body of another product's form, of whose keys some mean nothing here."""

    model_config = ConfigDict(strict=True, extra="ignore")


class TextItem(ForeignBody):
    """A text as an object."""

    text: str


def texts_of(items: Any) -> Any:
    """The input with the texts of its objects."""
    if isinstance(items, list):
        return [each.text if isinstance(each, TextItem) else each for each in cast("list[Any]", items)]
    return items


def service_of(request: Request) -> Service:
    """The service of the app."""
    return cast(Service, request.app.state.service)


def answer(content: Any, status: int = 200) -> Response:
    """JSON. float32 is written with the digits that give the same float32 back."""
    data = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(data, status, media_type="application/json")


def listed(value: str | list[str]) -> list[str]:
    """One text as a list of one."""
    return [value] if isinstance(value, str) else value


def prefix_of(model: Batcher, prompt: Prompt | None) -> str:
    """What the model puts before a query or document; nothing before a plain text."""
    config = model.encoder.config
    return {"query": config.query_prefix, "document": config.document_prefix, None: ""}[prompt]


def need_head(model: Batcher, head: Head) -> None:
    """Raises InputError for a head that the model lacks."""
    if head not in model.encoder.heads:
        raise InputError(f"model: {model.encoder.source} has no {head} vectors")


async def encode_input(
    model: Batcher,
    given: str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]],
    *,
    outputs: Sequence[Head],
    prompt: Prompt | None = None,
    cut: Cut = "end",
    max_length: int | None = None,
) -> Counted:
    """Encodes what the forms of OpenAI take: texts or token ids, one or several."""
    for head in outputs:
        need_head(model, head)
    if isinstance(given, str) or not given or isinstance(given[0], str):
        texts = listed(cast("str | list[str]", given))
        return await model.encode(
            texts, outputs=outputs, prefix=prefix_of(model, prompt), cut=cut, max_length=max_length
        )
    several = cast("Sequence[Sequence[int]]", [given] if isinstance(given[0], int) else given)
    ids = [_framed(model, row, f"input[{i}]") for i, row in enumerate(several)]
    return Counted(await model.encode_ids(ids, outputs=outputs), ids, 0)


def _framed(model: Batcher, row: Sequence[int], where: str) -> Ids:
    """Token ids with the special tokens around them, if they have none."""
    tokenizer, limit = model.encoder.tokenizer, model.encoder.config.max_length
    size = len(tokenizer.tokenizer)
    if not row or not all(0 <= i < size for i in row):
        raise InputError(f"{where}: expected token ids from 0 to {size - 1}, at least one")
    ids = np.array(row, dtype=np.int64)
    before, after = tokenizer.before, tokenizer.after
    if not (np.array_equal(ids[: len(before)], before) and np.array_equal(ids[-len(after) :], after)):
        ids = np.concatenate([before, ids, after])
    if len(ids) > limit:
        raise InputError(f"{where}: got {len(ids)} tokens; expected at most {limit}")
    return ids


def shorten(dense: Floats, dimensions: int | None) -> Floats:
    """The first columns of dense vectors, brought to length 1 again."""
    if dimensions is None or dimensions == dense.shape[1]:
        return dense
    if not 1 <= dimensions < dense.shape[1]:
        raise InputError(f"dimensions: got {dimensions}; expected a number from 1 to {dense.shape[1]}")
    part = dense[:, :dimensions]
    return cast(Floats, part / np.maximum(np.linalg.norm(part, axis=1, keepdims=True), 1e-12))


def rows_as(rows: Floats, encoding: SmallEncoding) -> Iterable[Any]:
    """Vectors as lists of numbers, as base64 of float32 (little endian), as bytes, or as packed bits of their signs.

    As bytes, each vector is stretched to fill them: its direction, and so cosines, stay; its length does not.
    """
    if encoding == "base64":
        return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in rows]
    if encoding == "float":
        return list(np.ascontiguousarray(rows))
    if encoding in ("int8", "uint8"):
        whole = np.rint(rows * (127 / np.maximum(np.abs(rows).max(axis=1, keepdims=True), 1e-12)))
        return list(whole.astype(np.int8) if encoding == "int8" else (whole + 128).astype(np.uint8))
    bits: NDArray[Any] = np.packbits(rows > 0, axis=1)
    return list(bits if encoding == "ubinary" else (bits.astype(np.int16) - 128).astype(np.int8))


def dense_of(encoded: Encoded) -> Floats:
    """The dense vectors, which were asked for."""
    return cast(Floats, encoded.dense)


def multi_of(encoded: Encoded) -> list[Floats]:
    """The token vectors of each text, which were asked for, to be written as JSON.

    Raises:
        RequestTooLarge: If there are so many that writing them would hold up everybody else.
    """
    ragged = cast(Ragged, encoded.multi)
    if ragged.values.size > MOST_NUMBERS:
        raise RequestTooLarge(
            f"token vectors: got {ragged.values.size} numbers; expected at most {MOST_NUMBERS} as JSON: send fewer "
            "texts, or ask /v1/encode for a binary form by Accept"
        )
    return [np.ascontiguousarray(rows) for rows in ragged]
