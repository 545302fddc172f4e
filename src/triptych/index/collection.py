"""The Qdrant collection of an index in neutral form, for the embedded engine and the server alike.

Both take the same settings under almost the same names, but as objects of two libraries. This module says what
is to be set; `edge` and `server` write it in their library's classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from scipy import sparse

from triptych.errors import IndexFault
from triptych.index.layout import Coarse, Layout, Payload, point_id
from triptych.index.tokens import Tokens, to_text
from triptych.types import Encoded, Floats, Head, Ragged

Datatype: TypeAlias = Literal["float32", "float16", "turbo8"]

DENSE: Head = "dense"
LEXICAL: Head = "lexical"
MULTI: Head = "multi"

BITS = "bits"
"""Field of the payload for token vectors of one bit a number, which the engines have no vectors for."""

GRAPH_DEGREE = 16
GRAPH_BUILD = 200
"""m and ef_construct of the dense vectors' HNSW graph."""

FULL_SCAN_KB = 10_000
"""Below this many kilobytes of vectors that fulfil a filter the graph is not used."""

_DATATYPES: Mapping[str, Datatype] = {"float32": "float32", "float16": "float16", "int8": "turbo8"}


@dataclass(frozen=True, slots=True)
class VectorSpec:
    """A named vector of the collection; the distance is always the inner product.

    Attributes:
        size: Columns.
        datatype: In which form it is stored.
        several: Whether a document has several (compared by MaxSim).
        graph: Whether an HNSW graph is built; otherwise every search compares with all.
        coarse: A second form for recall.
    """

    size: int
    datatype: Datatype
    several: bool
    graph: bool
    coarse: Coarse


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """A collection: named vectors, named sparse vectors, and from which size on graphs are built."""

    vectors: Mapping[str, VectorSpec]
    sparse: tuple[str, ...]
    indexing_threshold_kb: int


def collection_spec(layout: Layout) -> CollectionSpec:
    """The collection that holds a layout."""
    widths = layout.widths
    vectors = {DENSE: VectorSpec(widths["dense"], _DATATYPES[layout.dense], False, True, layout.coarse)}
    if "multi" in widths and layout.multi != "binary":
        vectors[MULTI] = VectorSpec(widths["multi"], _DATATYPES[layout.multi], True, False, "none")
    bytes_each = widths["dense"] * (4 if layout.dense == "float32" else 2)
    threshold = max(1, layout.exact_below * bytes_each // 1024)
    return CollectionSpec(vectors, (LEXICAL,) if "lexical" in widths else (), threshold)


@dataclass(frozen=True, slots=True)
class NeutralPoint:
    """A point before it is written in a library's classes; representations that are empty are left out."""

    id: str
    vectors: Mapping[str, list[float] | list[list[float]]]
    sparse: Mapping[str, tuple[list[int], list[float]]]
    payload: dict[str, Any]


def points(layout: Layout, vectors: Encoded, payloads: Sequence[Payload]) -> list[NeutralPoint]:
    """The points of documents. Numbers as lists: the engine takes them twice as fast as arrays."""
    packed = None
    if layout.multi == "binary" and vectors.multi is not None:
        packed = Tokens.pack(vectors.multi, "binary")
    found: list[NeutralPoint] = []
    for i, payload in enumerate(payloads):
        plain: dict[str, list[float] | list[list[float]]] = {DENSE: cast(Floats, vectors.dense)[i].tolist()}
        weights: dict[str, tuple[list[int], list[float]]] = {}
        extra: dict[str, Any] = {}
        if "lexical" in layout.widths:
            indices, values = sparse_row(cast(sparse.csr_array, vectors.lexical), i)
            if indices:
                weights[LEXICAL] = indices, values
        if packed is not None:
            extra[BITS] = to_text(packed, i)
        elif "multi" in layout.widths:
            rows = cast(Ragged, vectors.multi)[i]
            if len(rows):
                plain[MULTI] = rows.astype(np.float32, copy=False).tolist()
        found.append(NeutralPoint(point_id(payload["id"]), plain, weights, dict(payload) | extra))
    return found


def sparse_row(matrix: sparse.csr_array, i: int) -> tuple[list[int], list[float]]:
    """Token ids and weights of one text, ascending by id, without zeros."""
    start, stop = int(matrix.indptr[i]), int(matrix.indptr[i + 1])
    indices, values = matrix.indices[start:stop], matrix.data[start:stop]
    order = np.argsort(indices)
    order = order[values[order] != 0]
    return indices[order].tolist(), values[order].astype(np.float64).tolist()


def read_payload(stored: Mapping[str, Any]) -> Payload:
    """The payload of a point.

    Raises:
        IndexFault: If the point was not written by this package.
    """
    try:
        return Payload(id=stored["id"], text=stored["text"], metadata=dict(stored["metadata"]))
    except (KeyError, TypeError) as error:
        raise IndexFault(
            f"got a point with the payload {stored!r}; expected id, text and metadata"
        ) from error


def field_path(path: Sequence[str]) -> str:
    """Qdrant's notation of a metadata field; the quotes let names contain anything but quotes."""
    return ".".join(f'"{name}"' for name in ("metadata", *path))
