"""The engine on Qdrant, whether it runs within the process or on a server.

All that is ours is here: the collection of a layout, what is asked, in which way, and what the answers mean. Both
libraries take the same settings under almost the same names, but as objects of their own; a `Backend` and a
`Dialect` (in `edge` and `server`) only write them in these, so that both behave alike.

A point holds fewer than 2^20 numbers of token vectors, since a server refuses more. The token vectors of a longer
document lie in several points: that of the document, which has the first of them, and *parts*, which it names in
its payload. Its score is the exact MaxSim over all of them. Parts are written before the document that names them, so
that a process may end at any moment; parts that no document names are never read.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias, cast

import numpy as np
from scipy import sparse

from triptych.errors import IndexFault, InputError, StorageError
from triptych.index.documents import DocumentOrigin, Payload
from triptych.index.engine import Candidates
from triptych.index.filters import ID, AnyOf, Between, Condition, Filter, Not, Or, Part, Prefix
from triptych.index.layout import (
    Coarse,
    Layout,
    check_block,
    check_vectors,
    point_id,
)
from triptych.scores.on_numpy import cuts, maxsim_scores, top_k
from triptych.scores.tokens import Tokens
from triptych.types import Encoded, Floats, Head, Ragged

Datatype: TypeAlias = Literal["float32", "float16", "turbo8"]

DENSE: Head = "dense"
LEXICAL: Head = "lexical"
MULTI: Head = "multi"
FDE = "fde"
"""One vector for all token vectors of a document, see `triptych.scores.muvera`."""

BITS = "bits"
"""Field of the payload for token vectors of a few bits a number, which the engines have no vectors for."""

PARTS = "parts"
"""Field of a document's payload: the ids of the points with the rest of its token vectors."""

PART_OF = "part_of"
"""Field of such a point's payload: the id of the document's point."""

PART_ID = "part_id"
"""Another: the document's id."""

POINT_NUMBERS = 2**20 - 1
"""Most numbers of token vectors in one point: a server refuses more."""

_MARK = point_id("\0parts")
"""A point that is there if there are parts, so that an index without any never has to ask."""

FRAME = point_id("\0frame")
"""A point that is there while one of several writers finds the frame of token vectors, see `triptych.index.server`."""

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
    if "multi" in widths and not layout.is_packed:
        vectors[MULTI] = VectorSpec(layout.tokens.kept, _DATATYPES[layout.multi], True, False, "none")
    if layout.muvera is not None:
        vectors[FDE] = VectorSpec(layout.muvera.size, "float16", False, True, "none")
    fde_bytes = 1 if layout.muvera is None else 2 * layout.muvera.size
    bytes_each = widths["dense"] * (4 if layout.dense == "float32" else 2) if "dense" in widths else fde_bytes
    threshold = max(1, layout.exact_below * bytes_each // 1024)
    return CollectionSpec(vectors, (LEXICAL,) if "lexical" in widths else (), threshold)


@dataclass(frozen=True, slots=True)
class NeutralPoint:
    """A point before it is written in a library's classes; representations that are empty are left out."""

    id: str
    vectors: Mapping[str, list[float] | list[list[float]]]
    sparse: Mapping[str, tuple[list[int], list[float]]]
    payload: dict[str, Any]


class PointPlan(NamedTuple):
    """What becomes one point: a document with its first token vectors, or further ones of it.

    Attributes:
        document: Its number.
        rows: Which of its token vectors.
        parts: Of a document: the ids of its parts; of a part: None.
        id: The point's id.
    """

    document: int
    rows: slice
    parts: list[str] | None
    id: str


def pieces(layout: Layout, vectors: Encoded, payloads: Sequence[Payload]) -> Iterator[PointPlan]:
    """The points that documents will be, each document after its parts."""
    lengths, step = np.zeros(len(payloads), np.int64), 1
    if "multi" in layout.widths and not layout.is_packed:
        lengths, step = cast(Ragged, vectors.multi).lengths, max(1, POINT_NUMBERS // layout.tokens.kept)
    for i, payload in enumerate(payloads):
        rest = [slice(at, at + step) for at in range(step, int(lengths[i]), step)]
        names = [str(uuid.uuid4()) for _ in rest]
        for name, rows in zip(names, rest, strict=True):
            yield PointPlan(i, rows, None, name)
        yield PointPlan(i, slice(0, step), names, point_id(payload["id"]))


def points(
    layout: Layout, vectors: Encoded, payloads: Sequence[Payload], chosen: Sequence[PointPlan]
) -> list[NeutralPoint]:
    """The points of some pieces. Numbers as lists: the engine takes them twice as fast as arrays."""
    found: list[NeutralPoint] = []
    packed = fde = None
    if layout.muvera is not None:
        fde = layout.muvera.documents(cast(Ragged, vectors.multi).take([piece.document for piece in chosen]))
    if layout.is_packed:
        some = cast(Ragged, vectors.multi).take([piece.document for piece in chosen])
        packed = Tokens.pack(some, layout.tokens)
    for number, piece in enumerate(chosen):
        i, payload = piece.document, payloads[piece.document]
        plain: dict[str, list[float] | list[list[float]]] = {}
        weights: dict[str, tuple[list[int], list[float]]] = {}
        extra: dict[str, Any] = {} if packed is None else {BITS: packed.to_text(number)}
        if "multi" in layout.widths and packed is None:
            rows = cast(Ragged, vectors.multi)[i][piece.rows].astype(np.float32, copy=False)
            if len(rows):
                plain[MULTI] = (rows if layout.frame is None else layout.frame.project(rows)).tolist()
        if piece.parts is None:
            owner = {PART_OF: point_id(payload["id"]), PART_ID: payload["id"]}
            part = owner | {"metadata": payload["metadata"]}
            found.append(NeutralPoint(piece.id, plain, {}, part))
            continue
        if piece.parts:
            extra[PARTS] = piece.parts
        if "dense" in layout.widths:
            plain[DENSE] = cast(Floats, vectors.dense)[i].tolist()
        if fde is not None and len(cast(Ragged, vectors.multi)[i]):
            plain[FDE] = fde[number].tolist()
        if "lexical" in layout.widths:
            indices, values = sparse_row(cast(sparse.csr_array, vectors.lexical), i)
            if indices:
                weights[LEXICAL] = indices, values
        found.append(NeutralPoint(piece.id, plain, weights, dict(payload) | extra))
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
        origin: Any = {"origin": stored["origin"]} if "origin" in stored else {}
        return Payload(id=stored["id"], text=stored["text"], metadata=dict(stored["metadata"]), **origin)
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
        among: A field and texts of which it has one.
        prefix: A field and what its text begins with.
        numbers: A field and the bounds of its number.
        times: A field and the bounds of its time.
        empty: A field that is missing, null or an empty list.
        ids: Only these points.
    """

    all_of: Callable[[list[Any]], Any]
    any_of: Callable[[list[Any]], Any]
    none_of: Callable[[list[Any]], Any]
    equals: Callable[[str, str | bool], Any]
    among: Callable[[str, Sequence[str]], Any]
    prefix: Callable[[str, str], Any]
    numbers: Callable[[str, Mapping[str, float]], Any]
    times: Callable[[str, Mapping[str, datetime]], Any]
    empty: Callable[[str], Any]
    ids: Callable[[Sequence[str]], Any]


def write_filter(
    dialect: Dialect, where: Filter | None, only: Sequence[str] | None = None, *, parts: bool = False
) -> Any:
    """A filter in a library's classes; None if it lets all points through.

    Args:
        dialect: The library.
        where: Only points that fulfil this.
        only: Only these points.
        parts: Only parts of documents.
    """
    conditions = [] if where is None else [_write_part(dialect, part) for part in where.conditions]
    if only is not None:
        conditions.append(dialect.ids(only))
    if parts:
        conditions.append(dialect.none_of([dialect.empty(PART_OF)]))
    return dialect.all_of(conditions) if conditions else None


def _write_part(dialect: Dialect, part: Part) -> Any:
    if isinstance(part, Filter):
        return dialect.all_of([_write_part(dialect, inner) for inner in part.conditions])
    if isinstance(part, Or):
        return dialect.any_of([_write_part(dialect, inner) for inner in part.parts])
    if isinstance(part, Not):
        return dialect.none_of([_write_part(dialect, part.part)])
    return _write_condition(dialect, part)


def _write_condition(dialect: Dialect, condition: Condition) -> Any:
    # The quotes let names contain anything but quotes.
    key = ".".join(f'"{name}"' for name in condition.path)
    if isinstance(condition, Between):
        bounds: dict[str, Any] = dict(condition.bounds)
        return dialect.times(key, bounds) if condition.of_times else dialect.numbers(key, bounds)
    if isinstance(condition, Prefix):
        keys = (key, PART_ID) if condition.path == ID else (key,)
        return dialect.any_of([dialect.prefix(k, prefix) for k in keys for prefix in condition.prefixes])
    if not isinstance(condition, AnyOf):
        return dialect.none_of([dialect.empty(key)])
    if condition.path == ID:  # found without reading payloads
        names = [point_id(str(value)) for value in condition.values]
        return dialect.any_of([dialect.ids(names), dialect.among(PART_OF, names)])
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
_VECTORS_AT_ONCE = 16
_MANY = 10_000

SparseList: TypeAlias = tuple[list[int], list[float]]
Vector: TypeAlias = list[float] | list[list[float]] | SparseList


@dataclass(frozen=True, slots=True)
class Request:
    """One search by one named vector.

    Attributes:
        head: The vector's name, that of a head or "fde"; it tells the form of `vector` too.
        vector: Numbers, rows of numbers, or (for "lexical") token ids and weights.
        limit: How many points are wanted.
        exact: Compare with all points, by the stored vectors themselves and not by a coarse form of them. A
            backend must turn both off: the engine, asked to score by ids, would else use the coarse form.
        where: Only points that fulfil this.
        only: Only these points.
    """

    head: str
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

    def vectors(self, keys: Sequence[str], heads: Sequence[Head]) -> Mapping[str, Mapping[str, Vector]]:
        """These named vectors of points that are there."""
        ...

    def set_payload(self, fields: Mapping[str, dict[str, Any]]) -> None:
        """Replaces these fields of the payloads of points that are there."""
        ...

    def count(self, where: Filter | None, *, parts: bool = False) -> int:
        """How many points, or parts of documents, there are."""
        ...

    def index_field(self, field: str) -> None:
        """Makes conditions on a field of the payload, a text, fast."""
        ...

    def scroll(self, fields: Sequence[str], where: Filter | None = None) -> Iterator[Mapping[str, Any]]:
        """These fields of the payloads of all points, or of those that fulfil a filter."""
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

    def __init__(
        self, backend: Backend, layout: Layout, find_layout: Callable[[], Layout] | None = None
    ) -> None:
        self.layout = layout
        self.backend = backend
        self._find_layout = find_layout  # where another process may find a frame
        # Token vectors of a few bits lie in the payload, where Qdrant can keep but not search them.
        packed = {"multi"} if layout.is_packed else set[str]()
        self._held: tuple[Head, ...] = tuple(head for head in layout.heads if head not in packed)
        self.routes = self._held if layout.muvera is None else layout.heads
        self._points = backend.count(None)
        marks = backend.payloads([_MARK, FRAME], [PART_OF])
        self._has_parts = _MARK in marks
        if FRAME in marks and layout.frame is not None:  # its writer ended before it could take it away
            with suppress(StorageError):
                backend.delete([FRAME])

    def key(self, document: str) -> str:
        """A UUID made of the id."""
        return point_id(document)

    def add(self, vectors: Encoded, payloads: Sequence[Payload]) -> None:
        """See `Engine.add`."""
        check_block(self.layout, vectors, payloads)
        chosen = list(pieces(self.layout, vectors, payloads))
        if len(chosen) > len(payloads):
            self._mark()
        replaced = self._parts_of([piece.id for piece in chosen if piece.parts is not None])
        for cut in _cuts(self.layout, vectors, payloads, chosen):
            self.backend.upsert(points(self.layout, vectors, payloads, chosen[cut]))
        self._delete_points([name for names in replaced.values() for name in names])
        self._points = self.backend.count(None)

    def delete(self, keys: Sequence[str]) -> int:
        """See `Engine.delete`."""
        deleted = 0
        for i in range(0, len(keys), _IDS_AT_ONCE):
            there = self.backend.payloads(keys[i : i + _IDS_AT_ONCE], ["id", PARTS])
            self._delete_points(list(there))
            self._delete_points([name for payload in there.values() for name in payload.get(PARTS, [])])
            deleted += len(there)
        self._points = self.backend.count(None)
        return deleted

    def count(self, where: Filter | None = None) -> int:
        """See `Engine.count`."""
        others = self.backend.count(where, parts=True) if self._has_parts else 0
        return self.backend.count(where) - others

    def recall(self, queries: Encoded, route: Head, k: int, where: Filter | None = None) -> list[Candidates]:
        """See `Engine.recall`."""
        if route not in self.routes:
            raise InputError(f"recall: got the route {route!r}; expected one of {', '.join(self.routes)}")
        self._find_frame()
        check_vectors(self.layout, queries, [route], "recall")
        muvera = self.layout.muvera if route == "multi" else None
        exact = (route != "dense" and muvera is None) or self._points < self.layout.exact_below
        in_parts = route == "multi" and muvera is None and self._has_parts
        limit = 2 * k if in_parts else k  # several parts of a document may be among the best
        if limit > _MANY:  # the engine makes room for as many as are asked for
            limit = min(limit, max(_MANY, self.backend.count(None)))
        name, asked = route if muvera is None else FDE, dict[int, Request]()
        fde = None if muvera is None else muvera.queries(cast(Ragged, queries.multi))
        for i in range(len(queries)):
            if vector := self._query_vector(queries, route, i):
                vector = vector if fde is None else cast("list[float]", fde[i].tolist())
                asked[i] = Request(name, vector, limit, exact, where)
        found = dict(zip(asked, self.backend.query(list(asked.values())), strict=True))
        scales = [self._scale(queries, route, i) for i in range(len(queries))]
        if fde is not None:  # which know of no frame
            scales = [(factor, np.float32(0)) for factor, _ in scales]
        lists = [_candidates(found.get(i, []), *scales[i], route) for i in range(len(queries))]
        return self._join_parts(queries, lists, k) if in_parts else lists

    def score(
        self, queries: Encoded, keys: Sequence[Sequence[str]], heads: Sequence[Head]
    ) -> list[dict[Head, Floats]]:
        """See `Engine.score`."""
        self._find_frame()
        check_vectors(self.layout, queries, heads, "score")
        scores: list[dict[Head, Floats]] = [
            {head: np.zeros(len(names), np.float32) for head in heads} for names in keys
        ]
        asked: dict[tuple[int, Head], Request] = {}
        for i, names in enumerate(keys):
            for head in heads:
                vector = self._query_vector(queries, head, i)
                if vector and names and head in self._held:
                    asked[i, head] = Request(head, vector, len(names), exact=True, only=names)
        for (i, head), found in zip(asked, self.backend.query(list(asked.values())), strict=True):
            scores[i][head] = _spread(found, keys[i], *self._scale(queries, head, i))
        if "multi" in heads and "multi" not in self._held:
            for i, names in enumerate(keys):
                scores[i]["multi"] = self._bit_scores(cast(Ragged, queries.multi).take([i]), names)
        elif "multi" in heads and self._has_parts:
            self._score_parts(queries, keys, scores)
        return scores

    def fetch(self, keys: Sequence[str]) -> list[Payload | None]:
        """See `Engine.fetch`."""
        stored: dict[str, Mapping[str, Any]] = {}
        for i in range(0, len(keys), _IDS_AT_ONCE):
            stored |= self.backend.payloads(keys[i : i + _IDS_AT_ONCE], list(Payload.__annotations__))
        return [read_payload(stored[key]) if key in stored else None for key in keys]

    def vectors(self, keys: Sequence[str], heads: Sequence[Head]) -> Encoded:
        """See `Engine.vectors`."""
        self._find_frame()
        parts = self._parts_of(keys) if "multi" in heads else {}
        groups = [(key, *parts.get(key, ())) for key in keys]
        names = [name for group in groups for name in group]
        runs = [names[i : i + _VECTORS_AT_ONCE] for i in range(0, len(names), _VECTORS_AT_ONCE)]
        found = Encoded.concat([self._read(run, heads) for run in runs or [[]]])
        if not parts:
            return found
        first = np.cumsum([0, *map(len, groups)])
        multi = cast(Ragged, found.multi)
        one = found[first[:-1]]  # a part has token vectors alone
        return Encoded(one.dense, one.lexical, Ragged(multi.values, multi.offsets[first]))

    def _read(self, names: Sequence[str], heads: Sequence[Head]) -> Encoded:
        """What points hold; one that lacks a representation, or is not there, has zeros, or no token vectors."""
        stored = self.backend.vectors(names, [head for head in heads if head in self._held]) if names else {}
        points = [stored.get(name, {}) for name in names]
        widths, dense, lexical, multi = self.layout.widths, None, None, None
        if "dense" in heads:
            dense = np.zeros((len(points), widths["dense"]), np.float32)
            for i, point in enumerate(points):
                dense[i] = point.get(DENSE, 0.0)
        if "lexical" in heads:
            rows = [cast(SparseList, point.get(LEXICAL, ([], []))) for point in points]
            offsets = np.cumsum([0, *(len(indices) for indices, _ in rows)])
            indices = np.asarray([i for row, _ in rows for i in row], np.int64)
            values = np.asarray([v for _, row in rows for v in row], np.float32)
            lexical = sparse.csr_array((values, indices, offsets), shape=(len(rows), widths["lexical"]))
        if "multi" in heads and "multi" not in self._held:
            multi = self._bits(names).unpack()
        elif "multi" in heads:
            vectors = [np.asarray(point.get(MULTI, []), np.float32) for point in points]
            kept = self.layout.tokens.kept
            multi = Ragged.of([each.reshape(-1, kept) for each in vectors], kept)
            if self.layout.frame is not None:
                multi = Ragged(self.layout.frame.restore(multi.values), multi.offsets)
        return Encoded(dense, lexical, multi)

    def set_metadata(
        self,
        keys: Sequence[str],
        metadata: Sequence[dict[str, Any]],
        origins: Sequence[DocumentOrigin] | None = None,
    ) -> None:
        """See `Engine.set_metadata`."""
        parts = self._parts_of(keys)
        new: list[tuple[str, dict[str, Any]]] = []
        for i, key in enumerate(keys):
            origin = {} if origins is None else {"origin": origins[i]}
            new.append((key, {"metadata": metadata[i], **origin}))
            new += [(name, {"metadata": metadata[i]}) for name in parts.get(key, ())]
        for i in range(0, len(new), _IDS_AT_ONCE):
            self.backend.set_payload(dict(new[i : i + _IDS_AT_ONCE]))

    def ids(self, where: Filter | None = None) -> Iterator[str]:
        """See `Engine.ids`."""
        return (payload["id"] for payload in self.backend.scroll(["id"], where) if "id" in payload)

    def origins(self) -> Iterator[tuple[str, DocumentOrigin | None]]:
        """See `Engine.origins`."""
        found = self.backend.scroll(["id", "origin"])
        return ((payload["id"], payload.get("origin")) for payload in found if "id" in payload)

    def flush(self) -> None:
        """See `Engine.flush`."""
        self.backend.flush()

    def optimize(self) -> None:
        """See `Engine.optimize`."""
        self.backend.optimize()

    def close(self) -> None:
        """See `Engine.close`."""
        self.backend.close()

    def _find_frame(self) -> None:
        """Reads the manifest again, if another process may have found a frame since this one opened the index."""
        if self.layout.lacks_frame and self._find_layout is not None:
            self.layout = self._find_layout()

    def _mark(self) -> None:
        """Notes that there are parts, before the first of them."""
        if not self._has_parts:
            self.backend.index_field(PART_OF)
            self.backend.upsert([NeutralPoint(_MARK, {}, {}, {PART_OF: ""})])
            self._has_parts = True

    def _parts_of(self, keys: Sequence[str]) -> dict[str, list[str]]:
        """The parts of those documents that have some."""
        found: dict[str, list[str]] = {}
        for i in range(0, len(keys) if self._has_parts else 0, _IDS_AT_ONCE):
            stored = self.backend.payloads(keys[i : i + _IDS_AT_ONCE], [PARTS])
            found |= {key: payload[PARTS] for key, payload in stored.items() if PARTS in payload}
        return found

    def _delete_points(self, names: Sequence[str]) -> None:
        for i in range(0, len(names), _IDS_AT_ONCE):
            self.backend.delete(names[i : i + _IDS_AT_ONCE])

    def _score_parts(
        self, queries: Encoded, keys: Sequence[Sequence[str]], scores: Sequence[dict[Head, Floats]]
    ) -> None:
        """Puts the MaxSim over all parts in place of that over a document's first ones.

        A point's own MaxSim cannot be joined with another's, so that each query token is asked for by itself.
        """
        parts = self._parts_of(list({key for names in keys for key in names}))
        for i, names in enumerate(keys):
            owner = {part: row for row, key in enumerate(names) for part in (key, *parts.get(key, ()))
                     if key in parts}  # fmt: skip
            if not owner:
                continue
            tokens = self._query_vector(queries, "multi", i)
            asked = [Request("multi", [token], len(owner), exact=True, only=list(owner)) for token in tokens]  # type: ignore[list-item]
            best = np.full((len(asked), len(names)), -np.inf)
            for t, found in enumerate(self.backend.query(asked)):
                for key, score in found:
                    best[t, owner[key]] = max(best[t, owner[key]], score)
            rows = [row for row in sorted(set(owner.values())) if np.isfinite(best[:, row]).all()]
            if asked:
                scores[i]["multi"][rows] = best[:, rows].mean(axis=0) + self._scale(queries, "multi", i)[1]

    def _join_parts(self, queries: Encoded, lists: Sequence[Candidates], k: int) -> list[Candidates]:
        """Documents in place of their parts, with their exact scores."""
        stored: dict[str, Mapping[str, Any]] = {}
        keys = list({key for found in lists for key in found.keys})
        for i in range(0, len(keys), _IDS_AT_ONCE):
            stored |= self.backend.payloads(keys[i : i + _IDS_AT_ONCE], [PART_OF])
        owners = [
            list(dict.fromkeys(stored.get(key, {}).get(PART_OF, key) for key in found.keys))
            for found in lists
        ]
        found = [part["multi"] for part in self.score(queries, owners, ["multi"])]
        best = [top_k(values, k) for values in found]
        return [
            Candidates([names[int(row)] for row in rows], values[rows])
            for names, values, rows in zip(owners, found, best, strict=True)
        ]

    def _query_vector(self, queries: Encoded, head: Head, i: int) -> Vector:
        """One query's representation as lists; empty if the query has none."""
        if head == "dense":
            return cast(Floats, queries.dense)[i].tolist()
        if head == "lexical":
            indices, values = sparse_row(cast(sparse.csr_array, queries.lexical), i)
            return (indices, values) if indices else []
        rows, frame = cast(Ragged, queries.multi)[i].astype(np.float32, copy=False), self.layout.frame
        return (rows if frame is None or frame.basis is None else rows @ frame.basis).tolist()

    def _scale(self, queries: Encoded, head: Head, i: int) -> tuple[np.float32, np.float32]:
        """By what Qdrant's score is multiplied, and what is added then.

        Its MaxSim is the sum over the query's tokens, ours the mean; and it knows nothing of a frame's mean.
        """
        rows = cast(Ragged, queries.multi)[i] if head == "multi" else np.zeros((0, 0), np.float32)
        frame = self.layout.frame
        more = (rows @ frame.mean).mean() if frame is not None and len(rows) else 0
        return np.float32(1 / max(1, len(rows))), np.float32(more)

    def _bit_scores(self, query: Ragged, keys: Sequence[str]) -> Floats:
        """MaxSim with token vectors that lie in the payloads."""
        return maxsim_scores(query, self._bits(keys))[0]

    def _bits(self, keys: Sequence[str]) -> Tokens:
        """Token vectors that lie in the payloads."""
        stored = self.backend.payloads(keys, [BITS]) if keys else {}
        texts = [stored.get(key, {}).get(BITS, "") for key in keys]
        try:
            return Tokens.from_texts(texts, self.layout.tokens)
        except ValueError as error:
            raise IndexFault(f"score: a document's token vectors cannot be read: {error}") from error


def _cuts(
    layout: Layout, vectors: Encoded, payloads: Sequence[Payload], chosen: Sequence[PointPlan]
) -> list[slice]:
    """Runs of pieces with at most `_NUMBERS_AT_ONCE` numbers each, or texts of that size."""
    rows = np.asarray([piece.document for piece in chosen], dtype=np.int64)
    each = np.asarray([len(payload["text"]) // 16 for payload in payloads], dtype=np.int64)[rows]
    if "dense" in layout.widths:
        each += layout.widths["dense"]
    if layout.muvera is not None:
        each += layout.muvera.size
    if "lexical" in layout.widths:
        each += 2 * np.diff(cast(sparse.csr_array, vectors.lexical).indptr)[rows]
    if "multi" in layout.widths:
        lengths = cast(Ragged, vectors.multi).lengths[rows].tolist()
        held = [len(range(*piece.rows.indices(n))) for piece, n in zip(chosen, lengths, strict=True)]
        form = layout.tokens
        each += np.asarray(held, dtype=np.int64) * (form.row // 4 if layout.is_packed else form.kept)
    return cuts(each, _NUMBERS_AT_ONCE)


def _candidates(
    found: Sequence[tuple[str, float]], factor: np.float32, more: np.float32, head: Head
) -> Candidates:
    good = [(key, score) for key, score in found if head != "lexical" or score > 0]
    scores = np.asarray([score for _, score in good], np.float32)
    return Candidates([key for key, _ in good], scores * factor + more)


def _spread(
    found: Sequence[tuple[str, float]], keys: Sequence[str], factor: np.float32, more: np.float32
) -> Floats:
    """Scores in the order of `keys`; a point that was not returned lacks the representation, and gets 0."""
    scores = dict(found)
    values = np.asarray([scores.get(key, np.nan) for key in keys], dtype=np.float32) * factor + more
    return np.where(np.isnan(values), np.float32(0), values)
