"""PostgreSQL with pgvector: the engine for an index in a database that one has already.

Scores are exact. Dense recall compares with all documents until `optimize` has built a graph (HNSW over half
precision); lexical recall is exact; token vectors lie as bytes, and MaxSim is computed here, since to send 200
documents costs less than to have SQL multiply their vectors.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from scipy import sparse

from triptych.errors import IndexCorrupt, InputError
from triptych.index.documents import DocumentOrigin, Payload
from triptych.index.engine import Candidates
from triptych.index.filters import Filter
from triptych.index.layout import Layout, check_block, check_vectors, point_id
from triptych.index.postgres_filters import (
    FIELDS_OF,
    escape,
    field_rows,
    to_json,
    unescape,
    write_fields,
    write_filter,
)
from triptych.index.postgres_link import PostgresAddress, PostgresLink
from triptych.index.postgres_tables import (
    create_collection,
    has_graph,
    raise_terms,
    read_manifest,
    rearrange,
    write_manifest,
)
from triptych.index.qdrant import sparse_row
from triptych.index.storage import Manifest
from triptych.scores.on_numpy import maxsim_scores, top_k
from triptych.scores.tokens import Tokens
from triptych.types import HEADS, Encoded, Floats, Head, Ragged, chunked

_WIDEST_GRAPH = 4000
_LARGEST_EF = 1000
_MOST_TOKENS = 16_000
"""Limits of pgvector: columns of a half-precision graph, its breadth, entries of a sparse vector."""

_PAGE = 1000
_AT_ONCE = 64
"""Documents whose token vectors are read at once: of 8,192 tokens each they take 400 MB."""


def create(address: PostgresAddress, manifest: Manifest) -> PostgresEngine:
    """Makes a collection and opens it; raises what `create_collection` does."""
    create_collection(address, manifest)
    return load(address)[0]


def load(address: PostgresAddress, *, read_only: bool = False) -> tuple[PostgresEngine, Manifest]:
    """Opens a collection.

    Raises:
        IndexMissing: If there is no such collection.
        IndexForeign: If it is of another layout version.
        IndexFault: If the server is not there, or does not let us in.
    """
    link = PostgresLink(address, read_only=read_only)
    try:
        manifest = link.run(lambda connection: read_manifest(connection, address))
        return PostgresEngine(link, manifest.layout), manifest
    except BaseException:
        link.close()
        raise


class PostgresEngine:
    """An `Engine` over a `PostgresLink`; `create` or `load` makes one. Keys are UUIDs made of the ids."""

    def __init__(self, link: PostgresLink, layout: Layout) -> None:
        self.layout = layout
        self.routes: tuple[Head, ...] = layout.heads
        self._link = link
        self._graph = bool(link.run(has_graph))

    def key(self, document: str) -> str:
        """A UUID made of the id."""
        return point_id(document)

    def add(self, vectors: Encoded, payloads: Sequence[Payload]) -> None:
        """See `Engine.add`. All documents are stored, or none."""
        check_block(self.layout, vectors, payloads)
        if not payloads:
            return
        keys = [point_id(payload["id"]) for payload in payloads]
        order = sorted(range(len(keys)), key=lambda i: keys[i])  # always, lest writers wait for each other
        columns = self._columns(vectors, payloads, keys)
        names = ", ".join(columns)
        update = ", ".join(f"{name} = EXCLUDED.{name}" for name in columns if name != "key")
        values = ", ".join("%b" if name in self.layout.widths else "%s" for name in columns)
        upsert = f"INSERT INTO documents ({names}) VALUES ({values}) ON CONFLICT (key) DO UPDATE SET {update}"
        rows = [[column[i] for column in columns.values()] for i in order]
        metadata = {keys[i]: payload["metadata"] for i, payload in enumerate(payloads)}

        def write(connection: Any) -> None:
            with connection.cursor() as cursor:
                cursor.executemany(upsert, rows)
            write_fields(connection, metadata)
            if "lexical" in self.layout.widths:
                raise_terms(connection, cast(sparse.csr_array, vectors.lexical))

        self._link.run(write, writing=True)

    def _columns(
        self, vectors: Encoded, payloads: Sequence[Payload], keys: Sequence[str]
    ) -> dict[str, Sequence[Any]]:
        """Of the table of documents, name by name."""
        types, layout = _types(), self.layout
        found: dict[str, Sequence[Any]] = {
            "key": keys,
            "id": [escape(payload["id"]) for payload in payloads],
            "text": [escape(payload["text"]) for payload in payloads],
            "metadata": [to_json(payload["metadata"]) for payload in payloads],
            "origin": [to_json(payload["origin"]) if "origin" in payload else None for payload in payloads],
        }
        if "dense" in layout.widths:
            kind = types.Vector if layout.dense == "float32" else types.HalfVector
            found["dense"] = [kind(row) for row in cast(Floats, vectors.dense)]
        if "lexical" in layout.widths:
            rows = [sparse_row(cast(sparse.csr_array, vectors.lexical), i) for i in range(len(payloads))]
            if (most := max(len(indices) for indices, _ in rows)) > _MOST_TOKENS:
                raise InputError(
                    f"add: got {most} lexical weights of one document; pgvector has at most {_MOST_TOKENS}"
                )
            found["lexical"] = [self._sparse(*row) for row in rows]
            found["tokens"] = [indices for indices, _ in rows]
        if "multi" in layout.widths:
            packed = Tokens.pack(cast(Ragged, vectors.multi), layout.tokens)
            found["multi"] = [packed.to_bytes(i) for i in range(len(payloads))]
        return found

    def _sparse(self, indices: Sequence[int], values: Sequence[float]) -> Any:
        return _types().SparseVector(dict(zip(indices, values, strict=True)), self.layout.widths["lexical"])

    def delete(self, keys: Sequence[str]) -> int:
        """See `Engine.delete`."""
        most = 0

        def work(connection: Any) -> None:
            nonlocal most
            done = connection.execute(
                "DELETE FROM documents WHERE key = ANY(%s::uuid[])", [list(keys)]
            ).rowcount
            connection.execute("DELETE FROM fields WHERE document = ANY(%s::uuid[])", [list(keys)])
            most = max(most, done)  # at a second attempt the first may have done it all the same

        self._link.run(work, writing=True)
        return most

    def count(self, where: Filter | None = None) -> int:
        """See `Engine.count`."""
        return self._rows("SELECT count(*) FROM documents d WHERE {where}", where)[0][0]

    def recall(self, queries: Encoded, route: Head, k: int, where: Filter | None = None) -> list[Candidates]:
        """See `Engine.recall`."""
        if route not in self.routes:
            raise InputError(f"recall: got the route {route!r}; expected one of {', '.join(self.routes)}")
        check_vectors(self.layout, queries, [route], "recall")
        if route == "multi":
            return self._scan(cast(Ragged, queries.multi), k, where)
        one = self._nearest if route == "dense" else self._overlapping
        return [_candidates(one(queries, i, k, where)) for i in range(len(queries))]

    def _nearest(self, queries: Encoded, i: int, k: int, where: Filter | None) -> list[tuple[str, float]]:
        """Documents with the largest inner products: by the graph if there is one, and if it finds enough."""
        row, width, types = cast(Floats, queries.dense)[i], self.layout.widths["dense"], _types()
        found: list[tuple[str, float]] = []
        for graph in (True, False) if self._graph and k <= _LARGEST_EF else (False,):
            kind = "halfvec" if graph else "vector"
            statement = (
                f"SELECT d.key::text, -(d.dense::{kind}({width}) <#> %(query)b) FROM documents d WHERE {{where}} "
                f"ORDER BY d.dense::{kind}({width}) <#> %(query)b LIMIT %(k)s"
            )
            values = {"query": types.HalfVector(row) if graph else types.Vector(row), "k": k}
            found = self._rows(
                statement, where, values, ef=min(_LARGEST_EF, max(self.layout.ef, k)) if graph else None
            )
            if len(found) == k:
                break
        return found

    def _overlapping(self, queries: Encoded, i: int, k: int, where: Filter | None) -> list[tuple[str, float]]:
        """Documents with the largest lexical scores.

        The tokens that could add most are asked for first. Once k documents are found that score more than all other
        tokens could add together, a document with these alone cannot be among the best: common words, which nearly
        every document has, need no look.
        """
        indices, values = sparse_row(cast(sparse.csr_array, queries.lexical), i)
        known = "SELECT token, largest FROM terms WHERE token = ANY(%(all)s::int[])"
        largest = dict(self._rows(known, None, {"all": indices}))
        pairs = [(t, value) for t, value in zip(indices, values, strict=True) if value > 0 and t in largest]
        could = {t: largest[t] * value for t, value in pairs}
        tokens = sorted(could, key=lambda t: could[t], reverse=True)
        if not tokens:
            return []
        # What a token and all after it could add, and a little for rounding.
        rest = np.cumsum([could[t] for t in reversed(tokens)])[::-1] * (1 + 1e-5)
        statement = (
            "SELECT d.key::text, -(d.lexical <#> %(query)b) AS score FROM documents d WHERE d.tokens && "
            "%(some)s::int[] AND {where} ORDER BY score DESC LIMIT %(k)s"
        )
        query, first = self._sparse(indices, values), int((rest > rest[0] / 2).sum())
        found = self._rows(statement, where, {"query": query, "some": tokens[:first], "k": k})
        needed = int((rest > (found[-1][1] if len(found) == k else 0.0)).sum())
        if needed > first:
            found = self._rows(statement, where, {"query": query, "some": tokens[:needed], "k": k})
        return [row for row in found if row[1] > 0]

    def _scan(self, queries: Ragged, k: int, where: Filter | None) -> list[Candidates]:
        """The best by MaxSim of all documents, some of which are in memory at a time."""
        self._find_frame()
        condition, values = write_filter(where)
        statement = f"SELECT d.key::text, d.multi FROM documents d WHERE length(d.multi) > 0 AND {condition}"

        def work(connection: Any) -> list[Candidates]:
            best = [_candidates([]) for _ in range(len(queries))]
            with connection.cursor("scan") as cursor:
                cursor.execute(statement, values, binary=True)
                while rows := cursor.fetchmany(_AT_ONCE):
                    scores = maxsim_scores(queries, self._tokens([blob for _, blob in rows]))
                    keys = [key for key, _ in rows]
                    for i in np.flatnonzero(queries.lengths):
                        joined = np.concatenate([best[i].scores, scores[i]])
                        names, top = best[i].keys + keys, top_k(joined, k)
                        best[i] = Candidates([names[j] for j in top], joined[top])
            return best

        return self._link.run(work)

    def score(
        self, queries: Encoded, keys: Sequence[Sequence[str]], heads: Sequence[Head]
    ) -> list[dict[Head, Floats]]:
        """See `Engine.score`."""
        check_vectors(self.layout, queries, heads, "score")
        columns = ["key::text"]
        if "dense" in heads:
            columns.append(f"-(dense::vector({self.layout.widths['dense']}) <#> %(dense)b)")
        if "lexical" in heads:
            columns.append("-(lexical <#> %(lexical)b)")
        if "multi" in heads:
            self._find_frame()
            columns.append("multi")
        statement = f"SELECT {', '.join(columns)} FROM documents WHERE key = ANY(%(keys)s::uuid[])"
        ordered: list[Head] = [head for head in HEADS if head in heads]
        scores: list[dict[Head, Floats]] = []
        for i, names in enumerate(keys):
            values: dict[str, Any] = {}
            if "dense" in heads:
                values["dense"] = _types().Vector(cast(Floats, queries.dense)[i])
            if "lexical" in heads:
                values["lexical"] = self._sparse(*sparse_row(cast(sparse.csr_array, queries.lexical), i))
            place = {key: row for row, key in enumerate(names)}
            found: dict[Head, Floats] = {head: np.zeros(len(names), np.float32) for head in heads}
            for start in range(0, len(names), _AT_ONCE):
                part = values | {"keys": list(names[start : start + _AT_ONCE])}
                rows = self._rows(statement, None, part, binary=True)
                at = [place[row[0]] for row in rows]
                for column, head in enumerate(ordered, 1):
                    column = [row[column] for row in rows]
                    if head == "multi":
                        query = cast(Ragged, queries.multi).take([i])
                        column = maxsim_scores(query, self._tokens(column))[0]
                    found[head][at] = column
            scores.append(found)
        return scores

    def fetch(self, keys: Sequence[str]) -> list[Payload | None]:
        """See `Engine.fetch`."""
        found: dict[str, Payload] = {}
        for row in self._by_key("key::text, id, text, metadata, origin", keys):
            key, name, text, metadata, origin = row
            more: Any = {} if origin is None else {"origin": origin}
            found[key] = Payload(id=unescape(name), text=unescape(text), metadata=metadata, **more)
        return [found.get(key) for key in keys]

    def vectors(self, keys: Sequence[str], heads: Sequence[Head]) -> Encoded:
        """See `Engine.vectors`."""
        chosen = [head for head in HEADS if head in heads]
        stored = {row[0]: row for row in self._by_key(", ".join(["key::text", *chosen]), keys)}
        columns = {
            head: [stored[key][i] if key in stored else None for key in keys]
            for i, head in enumerate(chosen, 1)
        }
        widths, dense, lexical, multi = self.layout.widths, None, None, None
        if "dense" in heads:
            dense = np.zeros((len(keys), widths["dense"]), np.float32)
            for i, row in enumerate(columns["dense"]):
                dense[i] = 0 if row is None else row.to_numpy()
        if "lexical" in heads:
            rows = [([], []) if row is None else (row.indices(), row.values()) for row in columns["lexical"]]
            lexical = sparse.csr_array(
                (
                    np.asarray([v for _, values in rows for v in values], np.float32),
                    np.asarray([i for indices, _ in rows for i in indices], np.int64),
                    np.cumsum([0, *(len(indices) for indices, _ in rows)]),
                ),
                shape=(len(keys), widths["lexical"]),
            )
        if "multi" in heads:
            self._find_frame()
            multi = self._tokens([blob or b"" for blob in columns["multi"]]).unpack()
        return Encoded(dense, lexical, multi)

    def set_metadata(
        self,
        keys: Sequence[str],
        metadata: Sequence[dict[str, Any]],
        origins: Sequence[DocumentOrigin] | None = None,
    ) -> None:
        """See `Engine.set_metadata`."""
        update = "UPDATE documents SET metadata = %s, origin = coalesce(%s::json, origin) WHERE key = %s"
        new = dict(zip(keys, metadata, strict=True))
        place = {key: i for i, key in enumerate(keys)}
        lock = "SELECT key::text FROM documents WHERE key = ANY(%s::uuid[]) ORDER BY documents.key FOR UPDATE"

        def write(connection: Any) -> None:
            there = [key for (key,) in connection.execute(lock, [list(keys)])]
            origin = {key: to_json(origins[place[key]]) for key in there} if origins is not None else {}
            with connection.cursor() as cursor:
                cursor.executemany(update, [(to_json(new[key]), origin.get(key), key) for key in there])
            write_fields(connection, {key: new[key] for key in there})

        if keys:
            self._link.run(write, writing=True)

    def ids(self, where: Filter | None = None) -> Iterator[str]:
        """See `Engine.ids`."""
        return (unescape(name) for _, name in self._pages("id", where))

    def origins(self) -> Iterator[tuple[str, DocumentOrigin | None]]:
        """See `Engine.origins`."""
        return ((unescape(name), origin) for _, name, origin in self._pages("id, origin", None))

    def _pages(self, columns: str, where: Filter | None) -> Iterator[Any]:
        statement = (
            f"SELECT d.key::text, {columns} FROM documents d WHERE d.key > %(after)s AND {{where}} ORDER BY d.key "
            "LIMIT %(page)s"
        )
        after = "00000000-0000-0000-0000-000000000000"
        while rows := self._rows(statement, where, {"after": after, "page": _PAGE}):
            yield from rows
            after = rows[-1][0]

    def write_manifest(self, manifest: Manifest) -> Manifest:
        """Replaces the manifest of the collection, but for a frame that another process has found; what holds then."""
        address = self._link.address

        def write(connection: Any) -> Manifest:
            connection.execute("LOCK TABLE manifest IN SHARE ROW EXCLUSIVE MODE")
            there = read_manifest(connection, address).layout
            new = manifest if there.frame is None else replace(manifest, layout=there)
            write_manifest(connection, new)
            return new

        return self._link.run(write, writing=True)

    def flush(self) -> None:
        """Nothing to do but to see that it is open: what has returned has been flushed by the server."""
        self._link.run(lambda _: None, single=True)

    def optimize(self) -> None:
        """Builds the dense vectors' graph from `Layout.exact_below` documents on, and renews the planner's numbers.

        Others can search and write meanwhile.
        """
        width = self.layout.widths.get("dense", 0)
        graph = 0 < width <= _WIDEST_GRAPH and self.count() >= self.layout.exact_below
        self._link.alone(lambda connection: rearrange(connection, width if graph else 0))
        self._graph = bool(self._link.run(has_graph))

    def close(self) -> None:
        """See `Engine.close`."""
        self._link.close()

    def problems(self) -> Iterator[str]:
        """Reads everything, whereby the server compares its own checksums; a sentence for each damaged document."""
        for page in chunked(self._pages("id, metadata", None), _AT_ONCE):
            keys = [key for key, _, _ in page]
            expected = {key: sorted(map(str, field_rows(metadata))) for key, _, metadata in page}
            found: dict[str, list[str]] = {key: [] for key in keys}
            for key, *row in self._rows(FIELDS_OF, None, {"keys": keys}):
                found[key].append(str(tuple(row)))
            try:
                self.vectors(keys, self.layout.heads)
            except IndexCorrupt as error:
                yield str(error)
            for key, name, _ in page:
                if key != point_id(unescape(name)) or sorted(found[key]) != expected[key]:
                    yield f"document {unescape(name)!r}: its fields are not those of its metadata; add it again"
        lost = "SELECT count(DISTINCT document) FROM fields WHERE document NOT IN (SELECT key FROM documents)"
        if (count := self._rows(lost)[0][0]) > 0:
            yield f"{count} documents have fields that are not there"

    def _rows(
        self,
        statement: str,
        where: Filter | None = None,
        values: Mapping[str, Any] | None = None,
        *,
        binary: bool = False,
        ef: int | None = None,
    ) -> list[Any]:
        """All rows of a statement, in which a condition may stand for `where`."""
        condition, bound = write_filter(where)

        def work(connection: Any) -> list[Any]:
            if ef is not None:
                connection.execute("SELECT set_config('hnsw.ef_search', %s, true)", [str(ef)])
                connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
            whole = statement.format(where=condition)
            return connection.execute(whole, bound | dict(values or {}), binary=binary).fetchall()

        return self._link.run(work, single=ef is None)

    def _by_key(self, columns: str, keys: Sequence[str]) -> Iterator[Any]:
        statement = f"SELECT {columns} FROM documents WHERE key = ANY(%(keys)s::uuid[])"
        for start in range(0, len(keys), _AT_ONCE):
            yield from self._rows(
                statement, None, {"keys": list(keys[start : start + _AT_ONCE])}, binary=True
            )

    def _find_frame(self) -> None:
        """Reads the manifest again, if another process may have found a frame since this one opened the index."""
        if self.layout.lacks_frame:
            address = self._link.address
            self.layout = self._link.run(lambda connection: read_manifest(connection, address)).layout

    def _tokens(self, blobs: Sequence[bytes]) -> Tokens:
        if self.layout.lacks_frame and any(
            blobs
        ):  # another process found one since this one opened the index
            address = self._link.address
            self.layout = self._link.run(lambda connection: read_manifest(connection, address)).layout
        try:
            return Tokens.from_bytes(blobs, self.layout.tokens)
        except ValueError as error:
            shown = self._link.address.shown
            raise IndexCorrupt(f"{shown}: a document's token vectors cannot be read: {error}") from error


def _candidates(found: Sequence[tuple[str, float]]) -> Candidates:
    return Candidates([key for key, _ in found], np.asarray([score for _, score in found], np.float32))


def _types() -> Any:
    return importlib.import_module("pgvector")
