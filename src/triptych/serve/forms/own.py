"""Our own form: encode with any heads, search and change indexes."""

from __future__ import annotations

import io
import time
from contextlib import suppress
from functools import partial
from types import UnionType
from typing import Annotated, Any, Literal, Union, cast, get_args, get_origin, get_type_hints

import numpy as np
import pyarrow as pa
from fastapi import APIRouter, Header, Request
from pydantic import Field, create_model
from safetensors.numpy import save
from starlette.responses import Response

from triptych.errors import InputError
from triptych.index.layout import TokenPrecision
from triptych.index.search import SearchOptions
from triptych.scores.packing import pack
from triptych.serve.batching import Counted
from triptych.serve.forms.common import (
    OwnBody,
    Prompt,
    StrictRoute,
    answer,
    listed,
    multi_of,
    prefix_of,
    service_of,
)
from triptych.serve.service import NotFound, SearchAnswer
from triptych.types import Encoded, check_heads

router = APIRouter(route_class=StrictRoute, tags=["triptych"])
ARROW, SAFETENSORS = "application/vnd.apache.arrow.stream", "application/x-safetensors"
_CUT = 500  # characters of a text that is not wanted whole


def _json_type(annotation: Any) -> Any:
    """An option's type without the classes that JSON cannot give."""
    if get_origin(annotation) not in (Union, UnionType):
        return annotation
    kept = [
        kind for kind in get_args(annotation) if not getattr(kind, "__module__", "").startswith("triptych.")
    ]
    return Union[tuple(kept)]  # noqa: UP007


def _search_options() -> dict[str, Any]:
    hints = get_type_hints(SearchOptions)
    return {name: (_json_type(hint) | None, None) for name, hint in hints.items()}


class _Search(OwnBody):
    query: str | list[str] = Field(
        description="One query, or several.", examples=["how do plants make sugar"]
    )
    k: int = Field(10, ge=1, le=10_000, description="Hits of each query.")
    explain: bool = Field(False, description="Whether each hit says which words and tokens matched.")
    full_text: bool = Field(
        True, description=f"Whether texts come whole, instead of the first {_CUT} characters."
    )


SearchBody = create_model("SearchBody", __base__=_Search, **_search_options())
"""The body of a search: its own fields, and all of `SearchOptions`."""


class EncodeBody(OwnBody):
    """Texts to encode."""

    texts: str | list[str] = Field(
        description="One text, or several.", examples=[["Ein Satz.", "Une phrase."]]
    )
    outputs: list[str] | None = Field(None, description="Heads; default: all that the model has.")
    prompt: Prompt | None = Field(None, description="Whose prefix is put before the texts; default: none.")
    max_length: int | None = Field(None, description="Tokens after which texts are cut.")
    precision: Literal["float32", "float16"] = Field("float32", description="Of the numbers in the answer.")
    model: str | None = Field(None, description="Name of a model; default: the first.")


class DocumentBody(OwnBody):
    """A document."""

    id: str = Field(examples=["a"])
    text: str = Field(examples=["Ein Text."])
    metadata: dict[str, Any] | None = Field(None, examples=[{"lang": "de"}])


class DocumentsBody(OwnBody):
    """Documents to add."""

    documents: list[DocumentBody]


class IdsBody(OwnBody):
    """Ids of documents."""

    ids: list[str]


class ExplainBody(OwnBody):
    """A query, and documents of which is asked why they match."""

    query: str = Field(examples=["how do plants make sugar"])
    ids: list[str] = Field(max_length=100)


class DeleteBody(OwnBody):
    """Which documents to delete: ids, or a filter."""

    ids: list[str] | None = None
    filter: dict[str, Any] | None = Field(None, examples=[{"lang": "de", "year": {"lt": 2000}}])


class IndexBody(OwnBody):
    """How a new index is made."""

    model: str | None = Field(None, description="Name of a model; default: the first.")
    engine: Literal["auto", "edge", "exact"] = Field(
        "auto", description="edge, or exact for small collections."
    )
    multi: TokenPrecision | None = Field(
        "float16", description="How token vectors are stored; null: they are left out."
    )


@router.get("/v1/indexes", summary="All indexes")
async def indexes(request: Request) -> Response:
    """Name, size, model, heads, default weights and fields of the metadata of each index."""
    service, found = service_of(request), list[dict[str, Any]]()
    for name in service.index_names:
        with suppress(NotFound):  # one that was deleted since
            found.append(await service.describe(name))
    return answer({"indexes": found})


@router.get("/v1/indexes/{name}", summary="One index")
async def index(name: str, request: Request) -> Response:
    """The same of one."""
    return answer(await service_of(request).describe(name))


@router.put("/v1/indexes/{name}", summary="Make an index", status_code=201)
async def create(name: str, body: IndexBody, request: Request) -> Response:
    """Makes an empty index in the folder of --new-indexes; 409 if there is one of the name, 403 without folder."""
    service = service_of(request)
    await service.create(name, body.model, body.engine, {"multi": body.multi})
    return answer(await service.describe(name), 201)


@router.delete("/v1/indexes/{name}", summary="Delete an index")
async def drop(name: str, request: Request) -> Response:
    """Deletes an index of the folder of --new-indexes with all its documents; 403 for one that lies elsewhere."""
    await service_of(request).drop(name)
    return answer({"deleted": name})


@router.post("/v1/indexes/{name}/search", summary="Search")
async def search(name: str, body: SearchBody, request: Request) -> Response:  # type: ignore[valid-type]
    """Searches by all heads. A list of queries gives a list of lists of hits."""
    asked = cast(Any, body)
    options = {
        key: value for key in SearchOptions.__annotations__ if (value := getattr(asked, key)) is not None
    }
    started = time.perf_counter()
    found = await service_of(request).search(
        name, listed(asked.query), asked.k, cast(SearchOptions, options), with_explanations=asked.explain
    )
    hits = [_hits(one, asked.full_text) for one in found]
    took = round((time.perf_counter() - started) * 1000, 3)
    single = isinstance(asked.query, str)
    return answer({"query": asked.query, "took_ms": took, "hits": hits[0] if single else hits})


def _hits(found: SearchAnswer, full_text: bool) -> list[dict[str, Any]]:
    hits = [hit.to_json() for hit in found.hits]
    for hit, explanation in zip(hits, found.explanations, strict=False):
        hit["explanation"] = explanation.to_json()
    if not full_text:
        for hit in hits:
            hit["text"] = hit["text"] if len(hit["text"]) <= _CUT else hit["text"][:_CUT] + "…"
    return hits


@router.post("/v1/indexes/{name}/explain", summary="Why documents match")
async def explain(name: str, body: ExplainBody, request: Request) -> Response:
    """The words and tokens that matched, as a search gives them, for each id; null for a document that is not there."""
    found = await service_of(request).explain(name, body.query, body.ids)
    return answer({"explanations": [each and each.to_json() for each in found]})


@router.post("/v1/indexes/{name}/documents", summary="Add documents")
async def add(name: str, body: DocumentsBody, request: Request) -> Response:
    """Adds documents; 409, and nothing is added, if one is there already."""
    return await _store(name, body, request, replace=False)


@router.put("/v1/indexes/{name}/documents", summary="Add or replace documents")
async def upsert(name: str, body: DocumentsBody, request: Request) -> Response:
    """Adds documents; those whose ids are there already are replaced."""
    return await _store(name, body, request, replace=True)


async def _store(name: str, body: DocumentsBody, request: Request, *, replace: bool) -> Response:
    documents = body.documents
    stored = await service_of(request).add(
        name,
        [each.id for each in documents],
        [each.text for each in documents],
        [each.metadata for each in documents],
        replace=replace,
    )
    return answer({"stored": stored})


@router.post("/v1/indexes/{name}/documents/delete", summary="Delete documents")
async def delete(name: str, body: DeleteBody, request: Request) -> Response:
    """Deletes documents by id or filter; unknown ids are no error."""
    if (body.ids is None) == (body.filter is None):
        raise InputError("delete: expected either ids or filter")
    return answer({"deleted": await service_of(request).delete(name, body.ids, body.filter)})


@router.post("/v1/indexes/{name}/documents/get", summary="Read documents")
async def get_several(name: str, body: IdsBody, request: Request) -> Response:
    """Documents as they were added, in the order of the ids; null for one that is not there."""
    return answer({"documents": await service_of(request).get(name, body.ids)})


@router.get("/v1/indexes/{name}/documents/{id:path}", summary="Read a document")
async def get(name: str, id: str, request: Request) -> Response:
    """A document as it was added."""
    [found] = await service_of(request).get(name, [id])
    if found is None:
        raise NotFound("document: there is none of this id")
    return answer(found)


@router.delete("/v1/indexes/{name}/documents/{id:path}", summary="Delete a document")
async def delete_one(name: str, id: str, request: Request) -> Response:
    """Deletes a document; 404 if there is none."""
    if not (deleted := await service_of(request).delete(name, [id])):
        raise NotFound("document: there is none of this id")
    return answer({"deleted": deleted})


_BINARY: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "JSON; or by Accept a safetensors file, or an Arrow stream of one row per text.",
        "content": {"application/json": {}, ARROW: {}, SAFETENSORS: {}},
    }
}


@router.post("/v1/encode", summary="Encode texts with any heads", responses=_BINARY)
async def encode(body: EncodeBody, request: Request, accept: Annotated[str, Header()] = "*/*") -> Response:
    """Dense, lexical and token vectors from one pass. Token vectors in JSON are long: ask for a binary form."""
    service = service_of(request)
    model = service.model(body.model)
    outputs = None if body.outputs is None else check_heads(body.outputs, "outputs")
    if lacking := [head for head in outputs or () if head not in model.encoder.heads]:
        raise InputError(f"outputs: got {lacking}; this model has {', '.join(model.encoder.heads)}")
    counted = await model.encode(
        listed(body.texts), outputs=outputs, prefix=prefix_of(model, body.prompt), max_length=body.max_length
    )
    dtype = np.dtype(body.precision)
    facts = {
        "model": model.encoder.source,
        "tokens": str(counted.tokens),
        "truncated": str(counted.truncated),
    }
    for kind, write in ((SAFETENSORS, _safetensors), (ARROW, _arrow)):
        if kind in accept:
            return Response(
                await service.in_thread(partial(write, counted.encoded, dtype, facts)), media_type=kind
            )
    return answer(_as_json(counted, dtype, model.encoder.source))


def _safetensors(encoded: Encoded, dtype: np.dtype[Any], facts: dict[str, str]) -> bytes:
    arrays = {
        name: array.astype(dtype) if array.dtype == np.float32 else array
        for name, array in pack(encoded).items()
    }
    return save(arrays, facts)


def _arrow(encoded: Encoded, dtype: np.dtype[Any], facts: dict[str, str]) -> bytes:
    columns: dict[str, pa.Array] = {}
    if encoded.dense is not None:
        columns["dense"] = _fixed(encoded.dense.astype(dtype))
    if encoded.lexical is not None:
        rows = encoded.lexical
        values = [pa.array(rows.indices.astype(np.int32)), pa.array(rows.data.astype(dtype))]
        pairs = pa.StructArray.from_arrays(values, ["index", "value"])
        columns["lexical"] = pa.ListArray.from_arrays(pa.array(rows.indptr.astype(np.int32)), pairs)
    if encoded.multi is not None:
        offsets = pa.array(encoded.multi.offsets)
        columns["multi"] = pa.LargeListArray.from_arrays(offsets, _fixed(encoded.multi.values.astype(dtype)))
    table = pa.table(columns).replace_schema_metadata(facts)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _fixed(rows: Any) -> Any:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(rows).ravel()), rows.shape[1])


def _as_json(counted: Counted, dtype: np.dtype[Any], source: str) -> dict[str, Any]:
    encoded = counted.encoded
    found: dict[str, Any] = {"model": source}
    if encoded.dense is not None:
        found["dense"] = np.ascontiguousarray(encoded.dense.astype(dtype))
    if encoded.lexical is not None:
        rows = encoded.lexical
        bounds = list(zip(rows.indptr[:-1].tolist(), rows.indptr[1:].tolist(), strict=True))
        weights = rows.data.astype(dtype)
        found["lexical"] = [
            {"indices": rows.indices[start:end].astype(np.int64), "values": weights[start:end]}
            for start, end in bounds
        ]
    if encoded.multi is not None:
        found["multi"] = [rows.astype(dtype) for rows in multi_of(encoded)]
    return found | {"usage": {"tokens": counted.tokens, "truncated": counted.truncated}}
