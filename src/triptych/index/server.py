"""Qdrant on a server or cluster (qdrant-client): the engine for an index at a URL.

The collection is the one that the embedded engine makes; the manifest lies in the collection's metadata, so
that every machine that reaches the server can open the index. An address is ``http(s)://host[:port]/collection``
(a path before the collection's name is kept as the server's prefix), or ``local:FOLDER`` for qdrant-client's
local mode, which is meant for tests. `OPTIONS` may follow as ``?shards=6&replicas=2``.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, urlsplit

from triptych.errors import (
    IndexExists,
    IndexFault,
    IndexLocked,
    IndexMissing,
    InputError,
    MissingExtra,
    StorageError,
)
from triptych.index.filters import ID, AnyOf, Between, Filter
from triptych.index.layout import Coarse, Layout
from triptych.index.qdrant import (
    FRAME,
    FULL_SCAN_KB,
    GRAPH_BUILD,
    GRAPH_DEGREE,
    PART_OF,
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
from triptych.index.storage import Manifest
from triptych.scores.tokens import Frame
from triptych.types import Head

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

LOCAL = "local:"
API_KEY = "TRIPTYCH_API_KEY"
"""Environment variable with the server's key, for those who do not give it as an argument."""

_LOCAL_COLLECTION = "triptych"
_LOCAL_LOCK = threading.RLock()
OPTIONS = {
    "shards": "shard_number",
    "replicas": "replication_factor",
    "write_consistency": "write_consistency_factor",
    "timeout": "timeout",
}
"""What an address may say of a new collection, as Qdrant names it, and the seconds that a request may take."""

_TIMEOUT = 60
_PAUSES = (0.2, 1.0, 3.0)
"""Seconds between attempts, where a request was lost on its way or the server is busy or starting."""

_BUSY = (429, 502, 503, 504)
_PAGE = 1000


def is_address(place: str) -> bool:
    """Whether a place is a server's address and not a folder."""
    return place.startswith(("http://", "https://", LOCAL))


def connect(place: str, api_key: str | None = None) -> tuple[QdrantClient, str]:
    """A client for an address, and the collection's name.

    Args:
        place: See the module's text.
        api_key: Default: the environment variable TRIPTYCH_API_KEY, else none.

    Raises:
        InputError: For an address without a collection.
        IndexLocked: If another holds the local mode's folder.
        MissingExtra: If qdrant-client is not installed.
    """
    qdrant = _qdrant()
    if place.startswith(LOCAL):
        try:
            path = place.removeprefix(LOCAL)
            return qdrant.QdrantClient(path=path, force_disable_check_same_thread=True), _LOCAL_COLLECTION
        except RuntimeError as error:
            raise IndexLocked(f"{place}: {error}") from error
    parts = urlsplit(place)
    prefix, _, collection = parts.path.strip("/").rpartition("/")
    options = read_options(place)
    if not collection or not parts.hostname or parts.fragment:
        raise InputError(f"index: got the address {place!r}; expected http(s)://host[:port]/collection")
    port = parts.port or (443 if parts.scheme == "https" else 6333)
    client = qdrant.QdrantClient(
        url=f"{parts.scheme}://{parts.hostname}:{port}",
        port=port,
        prefix=prefix or None,
        api_key=api_key or os.environ.get(API_KEY),
        timeout=options.get("timeout", _TIMEOUT),
        check_compatibility=False,  # it would warn instead of failing, and cost a request
    )
    return cast("QdrantClient", _Patient(client)), collection


def resolve(client: QdrantClient, name: str) -> str:
    """The collection that an alias stands for, or the name itself.

    Qdrant would follow it at every request: an index that is open would turn into another, of another model perhaps.
    """
    if name == _LOCAL_COLLECTION:
        return name
    with _asking(name):
        found = client.get_aliases().aliases
    return next((each.collection_name for each in found if each.alias_name == name), name)


def place_of(place: str, collection: str) -> str:
    """The address of a collection on the same server."""
    if place.startswith(LOCAL):
        return place
    address, mark, options = place.partition("?")
    return f"{address.rstrip('/').rpartition('/')[0]}/{collection}{mark}{options}"


def switch(alias: str, target: str, api_key: str | None = None) -> str | None:
    """Makes an alias stand for a collection, in one step; see `triptych.index.alias.switch`."""
    m = _models()
    client, name = connect(alias, api_key)
    try:
        other, collection = connect(target, api_key)
        other.close()
        bases = {place_of(each.partition("?")[0], "") for each in (target, alias)}
        if len(bases) > 1 or LOCAL in (alias[:6], target[:6]):
            raise InputError(f"switch: got {alias} for {target}; expected two addresses of one server")
        collection = resolve(client, collection)
        read_manifest(client, collection)
        before = resolve(client, name)
        with _asking(name):
            if before == name and client.collection_exists(name):
                raise IndexExists(
                    f"{alias}: there is a collection of this name; expected an alias, or a new name"
                )
        steps: list[Any] = [
            m.CreateAliasOperation(create_alias=m.CreateAlias(collection_name=collection, alias_name=name))
        ]
        if before != name:
            steps.insert(0, m.DeleteAliasOperation(delete_alias=m.DeleteAlias(alias_name=name)))
        with _asking(name, writing=True):
            client.update_collection_aliases(steps)
    finally:
        client.close()
    return None if before == name else place_of(alias, before)


def read_options(place: str) -> dict[str, int]:
    """What stands behind the question mark of an address, by the names of `OPTIONS`.

    Raises:
        InputError: For other names, and values that are no positive integers.
    """
    found = dict(parse_qsl("" if place.startswith(LOCAL) else urlsplit(place).query, keep_blank_values=True))
    for name, value in found.items():
        if name not in OPTIONS or not value.isdecimal() or not int(value):
            raise InputError(
                f"index: got {name}={value} in the address {place!r}; expected http(s)://host[:port]/collection with "
                f"positive integers for {', '.join(OPTIONS)}"
            )
    return {name: int(value) for name, value in found.items()}


class _Patient:
    """A client whose requests are sent again where they were lost; all of ours may be, but that for a collection."""

    def __init__(self, client: QdrantClient) -> None:
        self._client = client
        self._reached = False

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not callable(method) or name in ("create_collection", "close"):
            return method

        def ask(*values: Any, **named: Any) -> Any:
            pauses = iter(_PAUSES)
            while True:
                try:
                    answer = method(*values, **named)
                except Exception as error:
                    pause = next(pauses, None) if self._passes(error) else None
                    if pause is None:
                        raise
                    time.sleep(pause)
                else:
                    self._reached = True
                    return answer

        return ask

    def _passes(self, error: Exception) -> bool:
        """Whether another attempt may succeed; a server that was never there is not waited for."""
        source = getattr(error, "source", None)  # what the client's own exception stands for
        lost = type(source).__module__.startswith("httpx") and self._reached
        busy = type(error).__name__ == "ResourceExhaustedResponse"  # 429 with a time to wait
        return lost or busy or getattr(error, "status_code", None) in _BUSY


def create(
    client: QdrantClient, collection: str, manifest: Manifest, options: Mapping[str, int] | None = None
) -> QdrantEngine:
    """Makes a collection with a manifest.

    Args:
        client: For the server.
        collection: Its name.
        manifest: Of the index.
        options: Of `read_options`.

    Raises:
        IndexExists: If there is a collection of this name.
        StorageError: If the server refuses.
    """
    m = _models()
    with _asking(collection):
        if client.collection_exists(collection):
            raise IndexExists(f"{collection}: there is a collection of this name; expected a new name")
    spec = collection_spec(manifest.layout)
    spread: Any = {OPTIONS[name]: value for name, value in (options or {}).items()}
    with _asking(collection, writing=True):
        client.create_collection(
            collection,
            vectors_config={name: _vector_params(vector) for name, vector in spec.vectors.items()},
            sparse_vectors_config={name: m.SparseVectorParams() for name in spec.sparse},
            optimizers_config=m.OptimizersConfigDiff(indexing_threshold=spec.indexing_threshold_kb),
            metadata=manifest.to_json(),
            **spread,
        )
    return load(client, collection, manifest.layout)


def read_manifest(client: QdrantClient, collection: str) -> Manifest:
    """The manifest of a collection.

    Raises:
        IndexMissing: If there is no such collection, or it is not an index.
        IndexForeign: If it is of another layout version.
    """
    with _asking(collection):
        if not client.collection_exists(collection):
            raise IndexMissing(f"{collection}: there is no collection of this name; Index.create makes one")
        metadata = client.get_collection(collection).config.metadata
    return Manifest.from_json(metadata, collection)


def load(client: QdrantClient, collection: str, layout: Layout) -> QdrantEngine:
    """Opens a collection."""
    return QdrantEngine(
        ServerBackend(client, collection, layout), layout, lambda: read_manifest(client, collection).layout
    )


class ServerBackend:
    """`Backend` over a client and the name of a collection."""

    def __init__(self, client: QdrantClient, collection: str, layout: Layout) -> None:
        self._client: QdrantClient | None = client
        self._name = collection
        self._ef = layout.ef
        self._indexed: set[str] | None = None

    @property
    def client(self) -> QdrantClient:
        """The library's client.

        Raises:
            IndexFault: After `close`.
        """
        if self._client is None:
            raise IndexFault(f"{self._name}: the index is closed")
        return self._client

    def write_manifest(self, manifest: Manifest) -> Manifest:
        """Replaces the manifest of the collection, but for a frame that another process has found; what holds then.

        A server has no step that reads and writes at once. But of several that insert one point, and replace none, one
        is the first: its frame is that of all.
        """
        there = read_manifest(self.client, self._name)
        new_frame = manifest.layout.frame if there.layout.frame is None else None
        if new_frame is not None:
            manifest = replace(manifest, layout=replace(manifest.layout, frame=self._insert_frame(new_frame)))
            there = read_manifest(self.client, self._name)  # it has the frame where the point was gone again
        if there.layout.frame is not None:
            manifest = replace(manifest, layout=there.layout)
        # Only what differs, since others write too; and what is not named stays.
        old, new = there.to_json(), {"weights": None, **manifest.to_json()}
        metadata = {name: value for name, value in new.items() if old.get(name) != value}
        if metadata:
            with _asking(self._name, writing=True):
                self.client.update_collection(self._name, metadata=metadata)
        if new_frame is not None:
            self.delete([FRAME])
        return manifest

    def _insert_frame(self, frame: Frame) -> Frame:
        """The frame that was inserted first."""
        m = _models()
        point = m.PointStruct(id=FRAME, vector={}, payload={PART_OF: "", "frame": frame.to_json()})
        with _asking(self._name, writing=True):
            self.client.upsert(
                self._name,
                [point],
                wait=True,
                ordering=m.WriteOrdering.STRONG,
                update_mode=m.UpdateMode.INSERT_ONLY,
            )
        found = self.payloads([FRAME], ["frame"]).get(FRAME)
        return frame if found is None else Frame.from_json(found["frame"])

    def upsert(self, batch: Sequence[NeutralPoint]) -> None:
        """See `Backend.upsert`. Returns when the server has applied it, beyond having logged it."""
        points = [_point(point) for point in batch]
        with _asking(self._name, writing=True):
            self.client.upsert(self._name, points, wait=True)

    def delete(self, keys: Sequence[str]) -> None:
        """See `Backend.delete`."""
        with _asking(self._name, writing=True):
            self.client.delete(self._name, _models().PointIdsList(points=list(keys)), wait=True)

    def query(self, requests: Sequence[Request]) -> list[list[tuple[str, float]]]:
        """See `Backend.query`."""
        if not requests:
            return []
        for where in dict.fromkeys(request.where for request in requests):
            self._index_fields(where)
        batch = [self._request(request) for request in requests]
        with _asking(self._name):
            answers = self.client.query_batch_points(self._name, batch)
        return [[(str(point.id), point.score) for point in answer.points] for answer in answers]

    def payloads(self, keys: Sequence[str], fields: Sequence[str]) -> Mapping[str, Mapping[str, Any]]:
        """See `Backend.payloads`."""
        with _asking(self._name):
            records = self.client.retrieve(
                self._name, list(keys), with_payload=list(fields), with_vectors=False
            )
        return {str(record.id): record.payload or {} for record in records}

    def vectors(self, keys: Sequence[str], heads: Sequence[Head]) -> Mapping[str, Mapping[str, Vector]]:
        """See `Backend.vectors`."""
        with _asking(self._name):
            records = self.client.retrieve(
                self._name, list(keys), with_payload=False, with_vectors=cast("list[str]", list(heads))
            )
        found = {str(record.id): cast("dict[str, Any]", record.vector or {}) for record in records}
        return {key: {name: _plain(vector) for name, vector in each.items()} for key, each in found.items()}

    def set_payload(self, fields: Mapping[str, dict[str, Any]]) -> None:
        """See `Backend.set_payload`."""
        m = _models()
        steps = [
            m.SetPayloadOperation(set_payload=m.SetPayload(payload=value, points=[key]))
            for key, value in fields.items()
        ]
        with _asking(self._name, writing=True):
            self.client.batch_update_points(self._name, steps, wait=True)

    def count(self, where: Filter | None, *, parts: bool = False) -> int:
        """See `Backend.count`."""
        self._index_fields(where)
        with _asking(self._name):
            chosen = write_filter(_dialect(), where, parts=parts)
            return self.client.count(self._name, count_filter=chosen, exact=True).count

    def index_field(self, field: str) -> None:
        """See `Backend.index_field`."""
        if self._name == _LOCAL_COLLECTION:  # it has no indexes, and warns of it
            return
        with _asking(self._name, writing=True):
            self.client.create_payload_index(
                self._name, field, _models().PayloadSchemaType.KEYWORD, wait=True
            )

    def _index_fields(self, where: Filter | None) -> None:
        """Has the server index the fields that a filter asks for, once; it does so while it goes on answering.

        A field has one index, of the kind that the first condition needs. One who may only read cannot have any made.
        """
        if where is None or self._name == _LOCAL_COLLECTION:
            return
        if self._indexed is None:
            with _asking(self._name):
                self._indexed = set(self.client.get_collection(self._name).payload_schema)
        for key, kind in index_kinds(where):
            if key in self._indexed or key.replace('"', "") in self._indexed:
                continue
            self._indexed.add(key)
            with contextlib.suppress(Exception):  # the filter is answered all the same
                self.client.create_payload_index(
                    self._name, key, _models().PayloadSchemaType(kind), wait=False
                )

    def scroll(self, fields: Sequence[str], where: Filter | None = None) -> Iterator[Mapping[str, Any]]:
        """See `Backend.scroll`."""
        self._index_fields(where)
        offset: Any = None
        chosen = write_filter(_dialect(), where)
        while True:
            with _asking(self._name):
                records, offset = self.client.scroll(
                    self._name,
                    chosen,
                    limit=_PAGE,
                    offset=offset,
                    with_payload=list(fields),
                    with_vectors=False,
                )
            yield from (record.payload or {} for record in records)
            if offset is None:
                return

    def flush(self) -> None:
        """Nothing to do: the server flushes by itself."""

    def optimize(self) -> None:
        """Nothing to do: the server optimizes by itself."""

    def close(self) -> None:
        """See `Backend.close`."""
        if self._client is not None:
            client, self._client = self._client, None
            client.close()

    def _request(self, request: Request) -> Any:
        m = _models()
        if request.exact:
            params = m.SearchParams(exact=True, quantization=m.QuantizationSearchParams(ignore=True))
        else:
            rescore = m.QuantizationSearchParams(rescore=True, oversampling=2.0)
            params = m.SearchParams(hnsw_ef=max(self._ef, request.limit), quantization=rescore)
        vector: Any = request.vector
        if request.head == "lexical":
            indices, values = cast(SparseList, vector)
            vector = m.SparseVector(indices=indices, values=values)
        return m.QueryRequest(
            query=vector,
            using=request.head,
            limit=request.limit,
            filter=write_filter(_dialect(), request.where, request.only),
            params=params,
            with_payload=False,
            with_vector=False,
        )


def index_kinds(where: Filter) -> Iterator[tuple[str, str]]:
    """The fields of a filter in Qdrant's notation, and for each condition the kind of index that answers it."""
    for part in where.leaves:
        if part.path == ID:
            continue
        key = ".".join(f'"{name}"' for name in part.path)
        if isinstance(part, Between):
            yield key, "datetime" if part.of_times else "float"
        elif isinstance(part, AnyOf) and not isinstance(first := part.values[0], str):
            yield (
                key,
                "bool" if isinstance(first, bool) else "datetime" if isinstance(first, datetime) else "float",
            )
        else:
            yield key, "keyword"


def _qdrant() -> Any:
    try:
        return importlib.import_module("qdrant_client")
    except ImportError as error:
        raise MissingExtra("an index on a Qdrant server", "qdrant") from error


def _models() -> Any:
    return importlib.import_module("qdrant_client.models")


@contextlib.contextmanager
def _asking(collection: str, *, writing: bool = False) -> Generator[None]:
    """Turns what a request may raise into our errors."""
    # The client's local mode, which has one name for all its collections, is not made for threads.
    order = _LOCAL_LOCK if collection == _LOCAL_COLLECTION else contextlib.nullcontext()
    try:
        with order:
            yield
    except (IndexFault, InputError):
        raise
    except Exception as error:
        if writing:
            raise StorageError(f"{collection}: the server did not store it: {error}") from error
        raise IndexFault(f"{collection}: the server did not answer as it should: {error}") from error


def _vector_params(spec: VectorSpec) -> Any:
    m = _models()
    several = m.MultiVectorConfig(comparator=m.MultiVectorComparator.MAX_SIM) if spec.several else None
    return m.VectorParams(
        size=spec.size,
        distance=m.Distance.DOT,
        multivector_config=several,
        datatype=m.Datatype(spec.datatype),
        quantization_config=_coarse(spec.coarse),
        hnsw_config=m.HnswConfigDiff(
            m=GRAPH_DEGREE if spec.graph else 0, ef_construct=GRAPH_BUILD, full_scan_threshold=FULL_SCAN_KB
        ),
    )


def _coarse(kind: Coarse) -> Any:
    m = _models()
    if kind == "int8":
        return m.ScalarQuantization(scalar=m.ScalarQuantizationConfig(type=m.ScalarType.INT8))
    if kind == "4bit":
        return m.TurboQuantization(turbo=m.TurboQuantQuantizationConfig(bits=m.TurboQuantBitSize.BITS4))
    return None


def _point(point: NeutralPoint) -> Any:
    m = _models()
    vectors: dict[str, Any] = dict(point.vectors)
    for name, (indices, values) in point.sparse.items():
        vectors[name] = m.SparseVector(indices=indices, values=values)
    return m.PointStruct(id=point.id, vector=vectors, payload=point.payload)


def _plain(vector: Any) -> Vector:
    return (vector.indices, vector.values) if hasattr(vector, "indices") else vector


def _dialect() -> Dialect:
    m = _models()
    return Dialect(
        all_of=lambda conditions: m.Filter(must=conditions),
        any_of=lambda conditions: m.Filter(should=conditions),
        none_of=lambda conditions: m.Filter(must_not=conditions),
        equals=lambda key, value: m.FieldCondition(key=key, match=m.MatchValue(value=value)),
        prefix=lambda key, prefix: m.FieldCondition(key=key, match=m.MatchPrefix(prefix=prefix)),
        among=lambda key, values: m.FieldCondition(key=key, match=m.MatchAny(any=list(values))),
        numbers=lambda key, bounds: m.FieldCondition(key=key, range=m.Range(**bounds)),
        times=lambda key, bounds: m.FieldCondition(key=key, range=m.DatetimeRange(**bounds)),
        empty=lambda key: m.IsEmptyCondition(is_empty=m.PayloadField(key=key)),
        ids=lambda keys: m.HasIdCondition(has_id=list(keys)),
    )
