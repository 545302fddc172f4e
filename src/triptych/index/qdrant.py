"""The engine on Qdrant, whether it runs within the process or on a server.

All that is ours is here: the collection of a layout, what is asked, in which way, and what the answers mean. Both
libraries take the same settings under almost the same names, but as objects of their own; a `Backend` and a
`Dialect` (in `edge` and `server`) only write them in these, so that both behave alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Protocol, TypeAlias, cast

import numpy as np
from scipy import sparse

from triptych.errors import IndexFault, InputError
from triptych.index.documents import Payload
from triptych.index.engine import Candidates
from triptych.index.filters import AnyOf, Between, Condition, Filter
from triptych.index.layout import (
    Coarse,
    Layout,
    Tokens,
    check_block,
    check_vectors,
    from_texts,
    point_id,
    to_text,
)
from triptych.scores.on_numpy import cuts, maxsim_scores
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
    vectors: dict[str, VectorSpec] = {}
    if "dense" in widths:
        vectors[DENSE] = VectorSpec(widths["dense"], _DATATYPES[layout.dense], False, True, layout.coarse)
    if "multi" in widths and layout.multi != "binary":
        vectors[MULTI] = VectorSpec(widths["multi"], _DATATYPES[layout.multi], True, False, "none")
    bytes_each = widths.get("dense", 1) * (4 if layout.dense == "float32" else 2)
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
        plain: dict[str, list[float] | list[list[float]]] = {}
        if "dense" in layout.widths:
            plain[DENSE] = cast(Floats, vectors.dense)[i].tolist()
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


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a library writes conditions; fields are named in Qdrant's notation.

    Attributes:
        all_of: From conditions to one that holds where all of them do.
        any_of: … where one of them does.
        none_of: … where none of them does.
        equals: A field and the text or truth value that it has.
        numbers: A field and the bounds of its number.
        times: A field and the bounds of its time.
        empty: A field that is missing, null or an empty list.
        ids: Only these points.
    """

    all_of: Callable[[list[Any]], Any]
    any_of: Callable[[list[Any]], Any]
    none_of: Callable[[list[Any]], Any]
    equals: Callable[[str, str | bool], Any]
    numbers: Callable[[str, Mapping[str, float]], Any]
    times: Callable[[str, Mapping[str, datetime]], Any]
    empty: Callable[[str], Any]
    ids: Callable[[Sequence[str]], Any]


def write_filter(dialect: Dialect, where: Filter | None, only: Sequence[str] | None = None) -> Any:
    """A filter in a library's classes; None if it lets all points through.

    Args:
        dialect: The library.
        where: Only points that fulfil this.
        only: Only these points.
    """
    conditions = (
        [] if where is None else [_write_condition(dialect, condition) for condition in where.conditions]
    )
    if only is not None:
        conditions.append(dialect.ids(only))
    return dialect.all_of(conditions) if conditions else None


def _write_condition(dialect: Dialect, condition: Condition) -> Any:
    # The quotes let names contain anything but quotes.
    key = ".".join(f'"{name}"' for name in ("metadata", *condition.path))
    if isinstance(condition, Between):
        bounds: dict[str, Any] = dict(condition.bounds)
        return dialect.times(key, bounds) if condition.of_times else dialect.numbers(key, bounds)
    if not isinstance(condition, AnyOf):
        return dialect.none_of([dialect.empty(key)])
    options: list[Any] = []
    for value in condition.values:
        if isinstance(value, str | bool):
            options.append(dialect.equals(key, value))
        elif isinstance(value, datetime):
            options.append(dialect.times(key, {"gte": value, "lte": value}))
        else:  # a range, since a match by value would tell 5 from 5.0
            options.append(dialect.numbers(key, {"gte": float(value), "lte": float(value)}))
    return dialect.any_of(options)


_NUMBERS_AT_ONCE = 2**20
"""Numbers in one request: about 20 MB of JSON, below the 32 MB that a server takes by default."""

_IDS_AT_ONCE = 1000
_MANY = 10_000

SparseList: TypeAlias = tuple[list[int], list[float]]
Vector: TypeAlias = list[float] | list[list[float]] | SparseList


@dataclass(frozen=True, slots=True)
class Request:
    """One search by one named vector.

    Attributes:
        head: The vector's name; it tells the form of `vector` too.
        vector: Numbers, rows of numbers, or (for "lexical") token ids and weights.
        limit: How many points are wanted.
        exact: Compare with all points, by the stored vectors themselves and not by a coarse form of them. A
            backend must turn both off: the engine, asked to score by ids, would else use the coarse form.
        where: Only points that fulfil this.
        only: Only these points.
    """

    head: Head
    vector: Vector
    limit: int
    exact: bool
    where: Filter | None = None
    only: Sequence[str] | None = None


class Backend(Protocol):
    """Qdrant's operations in neutral form; keys are UUIDs in text form."""

    def upsert(self, batch: Sequence[NeutralPoint]) -> None:
        """Inserts or replaces points."""
        ...

    def delete(self, keys: Sequence[str]) -> None:
        """Removes points."""
        ...

    def query(self, requests: Sequence[Request]) -> list[list[tuple[str, float]]]:
        """Keys and scores for each request, the best first."""
        ...

    def payloads(self, keys: Sequence[str], fields: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """These fields of the payloads of points that are there."""
        ...

    def count(self, where: Filter | None) -> int:
        """How many points there are."""
        ...

    def ids(self) -> Iterator[str]:
        """The field "id" of all payloads."""
        ...

    def flush(self) -> None:
        """Brings everything to the disk."""
        ...

    def optimize(self) -> None:
        """Builds graphs and merges segments."""
        ...

    def close(self) -> None:
        """Flushes and frees everything."""
        ...


class QdrantEngine:
    """An `Engine` over a `Backend`; `triptych.index.edge` and `triptych.index.server` make one."""

    def __init__(self, backend: Backend, layout: Layout) -> None:
        self.layout = layout
        self.backend = backend
        # Token vectors of one bit lie in the payload, where Qdrant can keep but not search them.
        unsearchable = {"multi"} if layout.multi == "binary" else set[str]()
        self.routes: tuple[Head, ...] = tuple(head for head in layout.heads if head not in unsearchable)
        self._count = backend.count(None)

    def key(self, document: str) -> str:
        """A UUID made of the id."""
        return point_id(document)

    def add(self, vectors: Encoded, payloads: Sequence[Payload]) -> None:
        """See `Engine.add`."""
        check_block(self.layout, vectors, payloads)
        for part in _parts(self.layout, vectors, payloads):
            self.backend.upsert(points(self.layout, vectors[part], payloads[part]))
        self._count = self.backend.count(None)

    def delete(self, keys: Sequence[str]) -> int:
        """See `Engine.delete`."""
        deleted = 0
        for i in range(0, len(keys), _IDS_AT_ONCE):
            there = list(self.backend.payloads(keys[i : i + _IDS_AT_ONCE], ["id"]))
            if there:
                self.backend.delete(there)
            deleted += len(there)
        self._count = self.backend.count(None)
        return deleted

    def count(self, where: Filter | None = None) -> int:
        """See `Engine.count`."""
        return self.backend.count(where)

    def recall(self, queries: Encoded, route: Head, k: int, where: Filter | None = None) -> list[Candidates]:
        """See `Engine.recall`."""
        if route not in self.routes:
            raise InputError(f"recall: got the route {route!r}; expected one of {', '.join(self.routes)}")
        check_vectors(self.layout, queries, [route], "recall")
        exact = route != "dense" or self._count < self.layout.exact_below
        if k > _MANY:  # the engine makes room for as many as are asked for
            k = min(k, max(_MANY, self.backend.count(None)))
        asked: dict[int, Request] = {}
        for i in range(len(queries)):
            if vector := _query_vector(queries, route, i):
                asked[i] = Request(route, vector, k, exact, where)
        found = dict(zip(asked, self.backend.query(list(asked.values())), strict=True))
        return [_candidates(found.get(i, []), _factor(queries, route, i), route) for i in range(len(queries))]

    def score(
        self, queries: Encoded, keys: Sequence[Sequence[str]], heads: Sequence[Head]
    ) -> list[dict[Head, Floats]]:
        """See `Engine.score`."""
        check_vectors(self.layout, queries, heads, "score")
        scores: list[dict[Head, Floats]] = [
            {head: np.zeros(len(names), np.float32) for head in heads} for names in keys
        ]
        asked: dict[tuple[int, Head], Request] = {}
        for i, names in enumerate(keys):
            for head in heads:
                vector = _query_vector(queries, head, i)
                if vector and names and head in self.routes:
                    asked[i, head] = Request(head, vector, len(names), exact=True, only=names)
        for (i, head), found in zip(asked, self.backend.query(list(asked.values())), strict=True):
            scores[i][head] = _spread(found, keys[i]) * _factor(queries, head, i)
        if "multi" in heads and "multi" not in self.routes:
            for i, names in enumerate(keys):
                scores[i]["multi"] = self._bit_scores(cast(Ragged, queries.multi).take([i]), names)
        return scores

    def fetch(self, keys: Sequence[str]) -> list[Payload | None]:
        """See `Engine.fetch`."""
        stored: dict[str, Mapping[str, Any]] = {}
        for i in range(0, len(keys), _IDS_AT_ONCE):
            stored |= self.backend.payloads(keys[i : i + _IDS_AT_ONCE], list(Payload.__annotations__))
        return [read_payload(stored[key]) if key in stored else None for key in keys]

    def ids(self) -> Iterator[str]:
        """See `Engine.ids`."""
        return self.backend.ids()

    def flush(self) -> None:
        """See `Engine.flush`."""
        self.backend.flush()

    def optimize(self) -> None:
        """See `Engine.optimize`."""
        self.backend.optimize()

    def close(self) -> None:
        """See `Engine.close`."""
        self.backend.close()

    def _bit_scores(self, query: Ragged, keys: Sequence[str]) -> Floats:
        """MaxSim with token vectors that lie in the payloads."""
        stored = self.backend.payloads(keys, [BITS]) if keys else {}
        texts = [stored.get(key, {}).get(BITS, "") for key in keys]
        try:
            documents = from_texts(texts, self.layout.widths["multi"])
        except ValueError as error:
            raise IndexFault(f"score: a document's token vectors cannot be read: {error}") from error
        return maxsim_scores(query, documents.unpack())[0]


def _parts(layout: Layout, vectors: Encoded, payloads: Sequence[Payload]) -> list[slice]:
    """Runs of documents with at most `_NUMBERS_AT_ONCE` numbers each, or texts of that size."""
    each = np.asarray([len(payload["text"]) // 16 for payload in payloads], dtype=np.int64)
    if "dense" in layout.widths:
        each += layout.widths["dense"]
    if "lexical" in layout.widths:
        each += 2 * np.diff(cast(sparse.csr_array, vectors.lexical).indptr)
    if "multi" in layout.widths:
        each += cast(Ragged, vectors.multi).lengths * layout.widths["multi"]
    return cuts(each, _NUMBERS_AT_ONCE)


def _query_vector(queries: Encoded, head: Head, i: int) -> Vector:
    """One query's representation as lists; empty if the query has none."""
    if head == "dense":
        return cast(Floats, queries.dense)[i].tolist()
    if head == "lexical":
        indices, values = sparse_row(cast(sparse.csr_array, queries.lexical), i)
        return (indices, values) if indices else []
    return cast(Ragged, queries.multi)[i].astype(np.float32, copy=False).tolist()


def _factor(queries: Encoded, head: Head, i: int) -> np.float32:
    """By what Qdrant's score is multiplied: its MaxSim is the sum over the query's tokens, ours the mean."""
    tokens = len(cast(Ragged, queries.multi)[i]) if head == "multi" else 1
    return np.float32(1 / max(1, tokens))


def _candidates(found: Sequence[tuple[str, float]], factor: np.float32, head: Head) -> Candidates:
    good = [(key, score) for key, score in found if head != "lexical" or score > 0]
    return Candidates([key for key, _ in good], np.asarray([score for _, score in good], np.float32) * factor)


def _spread(found: Sequence[tuple[str, float]], keys: Sequence[str]) -> Floats:
    """Scores in the order of `keys`; a point that was not returned lacks the representation, and gets 0."""
    scores = dict(found)
    return np.asarray([scores.get(key, 0.0) for key in keys], dtype=np.float32)
