"""Qdrant within the process (qdrant-edge-py): the engine for an index in a folder.

Writes go through the engine's write-ahead log and survive the death of the process; `flush` makes them survive
the loss of power. The engine maps its files into memory: on a full disk the system would end the process with
SIGBUS, whatever we catch, so that room is checked before every step.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import qdrant_edge as qe

from triptych.errors import IndexCorrupt, IndexFault, StorageError
from triptych.index.filters import Filter
from triptych.index.layout import Coarse, Layout
from triptych.index.qdrant import (
    FULL_SCAN_KB,
    GRAPH_BUILD,
    GRAPH_DEGREE,
    Datatype,
    Dialect,
    NeutralPoint,
    QdrantEngine,
    Request,
    SparseList,
    Vector,
    VectorSpec,
    collection_spec,
    write_filter,
)
from triptych.index.storage import check_room, folder_size, no_panics, read_error, storage_error
from triptych.io import sync_folder
from triptych.types import Head

_ROOM_TO_OPEN = 32_000_000
_ROOM_TO_WRITE = 64_000_000
_BYTES_A_NUMBER = 10
"""In the log (CBOR: 5) and in the vectors (up to 4)."""

_FLUSH_BYTES = 128_000_000
"""So much is written between two flushes at most: until then the log keeps it a second time."""

_DATATYPES: Mapping[Datatype, qe.VectorStorageDatatype] = {
    "float32": qe.VectorStorageDatatype.Float32,
    "float16": qe.VectorStorageDatatype.Float16,
    "turbo8": qe.VectorStorageDatatype.Turbo8,
}

_PAGE = 1000

_DIALECT = Dialect(
    all_of=lambda conditions: qe.Filter(must=conditions),
    any_of=lambda conditions: qe.Filter(should=conditions),
    none_of=lambda conditions: qe.Filter(must_not=conditions),
    # The engine takes Python's True for the number 1, since bool is a kind of int; NumPy's is none.
    equals=lambda key, value: qe.FieldCondition(
        key, match=qe.MatchValue(cast(bool, np.bool_(value)) if isinstance(value, bool) else value)
    ),
    prefix=lambda key, prefix: qe.FieldCondition(key, match=qe.MatchPrefix(prefix)),
    among=lambda key, values: qe.FieldCondition(key, match=qe.MatchAny(list(values))),
    numbers=lambda key, bounds: qe.FieldCondition(key, range=qe.RangeFloat(**bounds)),
    times=lambda key, bounds: qe.FieldCondition(
        key, range=qe.RangeDateTime(**{bound: limit.isoformat() for bound, limit in bounds.items()})
    ),
    empty=qe.IsEmptyCondition,
    ids=lambda keys: qe.HasIdCondition({uuid.UUID(key) for key in keys}),
)


def create(folder: Path, layout: Layout) -> QdrantEngine:
    """Makes an empty engine in a new folder.

    Raises:
        StorageError: If it cannot be written.
    """
    check_room(folder.parent, _ROOM_TO_WRITE, "a new index")
    try:
        folder.mkdir()
        with no_panics():
            shard = qe.EdgeShard.create(str(folder), _config(layout))
            shard.flush()
        sync_folder(folder)
    except Exception as error:
        raise storage_error(f"{folder}: the engine's files cannot be made", error) from error
    return QdrantEngine(EdgeBackend(shard, folder, layout), layout)


def load(folder: Path, layout: Layout) -> QdrantEngine:
    """Opens what `create` made, and repeats from the log what a killed process had written there.

    Raises:
        IndexCorrupt: If the engine cannot read its files.
        StorageError: If the disk is full.
    """
    if not folder.is_dir():
        raise IndexCorrupt(f"{folder}: is missing; restore it from a copy, or build the index again")
    check_room(folder, _ROOM_TO_OPEN, "opening the index")
    try:
        with no_panics():
            return QdrantEngine(EdgeBackend(qe.EdgeShard.load(str(folder)), folder, layout), layout)
    except Exception as error:
        raise read_error(folder, error) from error


class EdgeBackend:
    """`Backend` over an EdgeShard."""

    def __init__(self, shard: qe.EdgeShard, folder: Path, layout: Layout) -> None:
        self._shard: qe.EdgeShard | None = shard
        self._folder = folder
        self._ef = layout.ef
        self._unflushed = 0

    @property
    def shard(self) -> qe.EdgeShard:
        """The engine's own object.

        Raises:
            IndexFault: After `close`.
        """
        if self._shard is None:
            raise IndexFault(f"{self._folder}: the index is closed")
        return self._shard

    def upsert(self, batch: Sequence[NeutralPoint]) -> None:
        """See `Backend.upsert`."""
        needed = sum(_bytes(point) for point in batch)
        check_room(self._folder, _ROOM_TO_WRITE + needed, f"adding {len(batch)} documents")
        self._update(qe.UpdateOperation.upsert_points([_point(point) for point in batch]))
        self._unflushed += needed
        if self._unflushed >= _FLUSH_BYTES:
            self.flush()

    def delete(self, keys: Sequence[str]) -> None:
        """See `Backend.delete`."""
        check_room(self._folder, _ROOM_TO_OPEN, "deleting documents")
        self._update(qe.UpdateOperation.delete_points(list(keys)))

    def query(self, requests: Sequence[Request]) -> list[list[tuple[str, float]]]:
        """See `Backend.query`."""
        if not requests:
            return []
        # Many ids take longer to write than to find; the scores of all heads are asked for by the same list.
        written: dict[tuple[Filter | None, int], Any] = {}

        def filter_of(request: Request) -> Any:
            key = request.where, id(request.only)
            if key not in written:
                written[key] = write_filter(_DIALECT, request.where, request.only)
            return written[key]

        batch = qe.QueryBatchRequest([self._request(request, filter_of(request)) for request in requests])
        with _reading(self._folder):
            answers = self.shard.query_batch(batch)
        return [[(str(point.id), point.score) for point in answer] for answer in answers]

    def payloads(self, keys: Sequence[str], fields: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """See `Backend.payloads`."""
        with _reading(self._folder):
            records = self.shard.retrieve(list(keys), with_payload=list(fields), with_vector=False)
        return {str(record.id): record.payload or {} for record in records}

    def vectors(self, keys: Sequence[str], heads: Sequence[Head]) -> Mapping[str, Mapping[str, Vector]]:
        """See `Backend.vectors`."""
        with _reading(self._folder):
            records = self.shard.retrieve(list(keys), with_payload=False, with_vector=list(heads))
        found = {str(record.id): cast("dict[str, Any]", record.vector or {}) for record in records}
        return {key: {name: _plain(vector) for name, vector in each.items()} for key, each in found.items()}

    def set_payload(self, fields: Mapping[str, dict[str, Any]]) -> None:
        """See `Backend.set_payload`."""
        needed = sum(4 * len(str(value)) for value in fields.values())
        check_room(self._folder, _ROOM_TO_WRITE + needed, "changing metadata")
        for key, value in fields.items():
            self._update(qe.UpdateOperation.set_payload([key], value))

    def count(self, where: Filter | None, *, parts: bool = False) -> int:
        """See `Backend.count`."""
        with _reading(self._folder):
            chosen = write_filter(_DIALECT, where, parts=parts)
            return self.shard.count(qe.CountRequest(exact=True, filter=chosen))

    def index_field(self, field: str) -> None:
        """See `Backend.index_field`."""
        self._update(qe.UpdateOperation.create_field_index(field, qe.PayloadSchemaType.Keyword))

    def scroll(self, fields: Sequence[str], where: Filter | None = None) -> Iterator[Mapping[str, Any]]:
        """See `Backend.scroll`."""
        offset: Any = None
        chosen = write_filter(_DIALECT, where)
        while True:
            with _reading(self._folder):
                request = qe.ScrollRequest(
                    offset=offset, limit=_PAGE, filter=chosen, with_payload=list(fields), with_vector=False
                )
                records, offset = self.shard.scroll(request)
            yield from (record.payload or {} for record in records)
            if offset is None:
                return

    def flush(self) -> None:
        """See `Backend.flush`."""
        self._unflushed = 0
        with self._writing("flush"):
            self.shard.flush()

    def optimize(self) -> None:
        """See `Backend.optimize`. Holds Python's lock: other threads stand still meanwhile."""
        check_room(self._folder, _ROOM_TO_WRITE + folder_size(self._folder), "optimize()")
        with self._writing("optimize"):
            self.shard.optimize()
            self.shard.flush()

    def close(self) -> None:
        """See `Backend.close`."""
        if self._shard is not None:
            shard, self._shard = self._shard, None
            with self._writing("close"):
                shard.flush()
                shard.close()

    def _update(self, operation: qe.UpdateOperation) -> None:
        with self._writing("write"):
            self.shard.update(operation)

    @contextlib.contextmanager
    def _writing(self, what: str) -> Generator[None]:
        try:
            with no_panics():
                yield
        except (IndexFault, StorageError):
            raise
        except Exception as error:
            raise storage_error(
                f"{self._folder}: the engine failed to {what}; open the index again", error
            ) from error

    def _request(self, request: Request, chosen: Any) -> qe.QueryRequest:
        if request.exact:
            params = qe.SearchParams(exact=True, quantization=qe.QuantizationSearchParams(ignore=True))
        else:
            rescore = qe.QuantizationSearchParams(rescore=True, oversampling=2.0)
            params = qe.SearchParams(hnsw_ef=max(self._ef, request.limit), quantization=rescore)
        vector: Any = request.vector
        if request.head == "lexical":
            vector = qe.SparseVector(*cast(SparseList, vector))
        return qe.QueryRequest(
            limit=request.limit,
            query=qe.Query.Nearest(vector, using=request.head),
            filter=chosen,
            params=params,
            with_payload=False,
            with_vector=False,
        )


@contextlib.contextmanager
def _reading(folder: Path) -> Generator[None]:
    try:
        with no_panics():
            yield
    except IndexFault:
        raise
    except Exception as error:
        raise IndexFault(f"{folder}: the engine failed to read: {error}") from error


def _config(layout: Layout) -> qe.EdgeConfig:
    spec = collection_spec(layout)
    return qe.EdgeConfig(
        vectors={name: _vector_params(vector) for name, vector in spec.vectors.items()},
        sparse_vectors={name: qe.EdgeSparseVectorParams(memory=qe.Memory.Cached) for name in spec.sparse},
        optimizers=qe.EdgeOptimizersConfig(indexing_threshold=spec.indexing_threshold_kb),
        wal_enabled=True,
    )


def _vector_params(spec: VectorSpec) -> qe.EdgeVectorParams:
    several = qe.MultiVectorConfig(qe.MultiVectorComparator.MaxSim) if spec.several else None
    return qe.EdgeVectorParams(
        size=spec.size,
        distance=qe.Distance.Dot,
        multivector_config=several,
        datatype=_DATATYPES[spec.datatype],
        quantization_config=_coarse(spec.coarse),
        hnsw_config=qe.HnswIndexConfig(
            m=GRAPH_DEGREE if spec.graph else 0, ef_construct=GRAPH_BUILD, full_scan_threshold=FULL_SCAN_KB
        ),
    )


def _coarse(kind: Coarse) -> Any:
    if kind == "int8":
        return qe.ScalarQuantizationConfig(qe.ScalarType.Int8)
    return qe.TurboQuantQuantizationConfig(bits=qe.TurboQuantBitSize.Bits4) if kind == "4bit" else None


def _point(point: NeutralPoint) -> qe.Point:
    vectors: dict[str, Any] = dict(point.vectors)
    for name, (indices, values) in point.sparse.items():
        vectors[name] = qe.SparseVector(indices, values)
    return qe.Point(point.id, vectors, point.payload)


def _plain(vector: Any) -> Vector:
    return (vector.indices, vector.values) if isinstance(vector, qe.SparseVector) else vector


def _bytes(point: NeutralPoint) -> int:
    """About how much a point takes on the disk, in the log and in the store."""
    numbers = sum(_numbers(vector) for vector in point.vectors.values())
    numbers += sum(2 * len(indices) for indices, _ in point.sparse.values())
    texts = sum(4 * len(str(value)) for value in point.payload.values())
    return _BYTES_A_NUMBER * numbers + 2 * texts


def _numbers(vector: list[float] | list[list[float]]) -> int:
    first = vector[0]
    return len(vector) * (len(first) if isinstance(first, list) else 1)
