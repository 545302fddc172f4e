"""The tables of a collection in PostgreSQL: made, read and rearranged.

A collection is a schema with four tables, so that ``DROP SCHEMA`` removes it and ``ALTER SCHEMA … RENAME`` moves it:

- ``manifest``: one row, what the index says about itself
- ``documents``: a row a document, with all of its representations
- ``fields``: a row for each value of the metadata, by which filters are answered from B-trees (`postgres_filters`)
- ``terms``: the largest lexical weight that a token had in any document, by which most documents need no look
"""

from __future__ import annotations

import importlib
import json
from typing import Any

from scipy import sparse

from triptych.errors import IndexExists, IndexFault, IndexMissing, InputError
from triptych.index.layout import Layout
from triptych.index.postgres_filters import FIELDS
from triptych.index.postgres_link import SET_UP, PostgresAddress, PostgresLink
from triptych.index.qdrant import GRAPH_BUILD, GRAPH_DEGREE
from triptych.index.storage import Manifest

_TABLES = """
CREATE TABLE manifest (one boolean PRIMARY KEY DEFAULT true CHECK (one), value json NOT NULL);
CREATE TABLE documents (
    key uuid PRIMARY KEY, id text COLLATE "C" NOT NULL, text text NOT NULL, metadata json NOT NULL, origin json{columns}
);
CREATE INDEX documents_id ON documents (left(id, 200));
"""
_DENSE = "ALTER TABLE documents ALTER dense SET STORAGE MAIN;"
_LEXICAL = """
ALTER TABLE documents ALTER lexical SET STORAGE MAIN;
ALTER TABLE documents ALTER tokens SET STORAGE MAIN;
CREATE INDEX documents_tokens ON documents USING gin (tokens);
CREATE TABLE terms (token int PRIMARY KEY, largest float4 NOT NULL);
"""
_MULTI = "ALTER TABLE documents ALTER multi SET STORAGE EXTERNAL;"
# Vectors that a scan reads stay in the row; texts and token vectors, which are not to be compressed, go out of line.


def create_collection(address: PostgresAddress, manifest: Manifest) -> None:
    """Makes a collection with a manifest, in a new schema or an empty one.

    Raises:
        IndexExists: If there is something in a schema of this name.
        InputError: For a layout that pgvector cannot hold.
        IndexFault: If the server is not there, or we may not make the collection.
    """
    layout, schema = manifest.layout, address.collection
    if layout.coarse != "none":
        raise InputError(
            f"index: got coarse={layout.coarse!r}; PostgreSQL has none: its graph is in half precision anyway"
        )

    if layout.fde is not None:
        raise InputError(
            f"index: got fde={layout.fde!r}; in PostgreSQL recall by token vectors compares with all documents"
        )

    def make(connection: Any) -> None:
        sql: Any = importlib.import_module("psycopg.sql")
        connection.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"triptych {schema}"])
        taken = "SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s"
        if connection.execute(taken, [schema]).fetchone()[0]:
            raise IndexExists(
                f"{address.shown}: there is something in a schema of this name; expected a new name"
            )
        if connection.execute("SHOW server_encoding").fetchone()[0] != "UTF8":
            raise IndexFault(f"{address.shown}: the database's encoding is not UTF8, which texts need")
        connection.execute("CREATE EXTENSION IF NOT EXISTS vector SCHEMA public")
        if connection.execute("SELECT to_regnamespace(quote_ident(%s))", [schema]).fetchone()[0] is None:
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        connection.execute(SET_UP, [schema])
        connection.execute(_tables(layout))
        write_manifest(connection, manifest)

    link = PostgresLink(address)
    try:
        link.run(make, writing=True)
    finally:
        link.close()


def _tables(layout: Layout) -> str:
    """The statements that make the tables; only numbers and names of ours are put into them."""
    columns, more = "", ""
    if "dense" in layout.widths:
        kind = "vector" if layout.dense == "float32" else "halfvec"
        columns += f",\n    dense {kind}({layout.widths['dense']}) NOT NULL"
        more += _DENSE
    if "lexical" in layout.widths:
        columns += f",\n    lexical sparsevec({layout.widths['lexical']}) NOT NULL, tokens int[] NOT NULL"
        more += _LEXICAL
    if "multi" in layout.widths:
        columns += ",\n    multi bytea NOT NULL"
        more += _MULTI
    return _TABLES.format(columns=columns) + FIELDS + more


def write_manifest(connection: Any, manifest: Manifest) -> None:
    """Writes or replaces the manifest."""
    upsert = "INSERT INTO manifest (value) VALUES (%s) ON CONFLICT (one) DO UPDATE SET value = EXCLUDED.value"
    connection.execute(upsert, [json.dumps(manifest.to_json())])


def read_manifest(connection: Any, address: PostgresAddress) -> Manifest:
    """The manifest of a collection.

    Raises:
        IndexMissing: If there is no such collection.
        IndexForeign: If it is of another layout version.
    """
    there = "SELECT to_regclass(concat(quote_ident(%s), '.manifest'))"
    if connection.execute(there, [address.collection]).fetchone()[0] is None:
        raise IndexMissing(f"{address.shown}: there is no collection of this name; Index.create makes one")
    found = connection.execute("SELECT value FROM manifest").fetchone()
    return Manifest.from_json(None if found is None else found[0], address.shown)


def raise_terms(connection: Any, lexical: sparse.csr_array) -> None:
    """Sees that no weight is larger than its token's in the table; that of deleted documents may stay."""
    largest = lexical.max(axis=0).tocoo()
    new = dict(zip(largest.coords[-1].tolist(), largest.data.tolist(), strict=True))
    known = dict(
        connection.execute(
            "SELECT token, largest FROM terms WHERE token = ANY(%s::int[])", [list(new)]
        ).fetchall()
    )
    more = sorted(token for token, weight in new.items() if weight > known.get(token, 0))
    if more:
        connection.execute(
            "INSERT INTO terms SELECT * FROM unnest(%s::int[], %s::float4[]) "
            "ON CONFLICT (token) DO UPDATE SET largest = greatest(terms.largest, EXCLUDED.largest)",
            [more, [new[token] for token in more]],
        )


def has_graph(connection: Any) -> bool | None:
    """Whether the dense vectors' graph is there and whole; None: it is not there."""
    statement = (
        "SELECT indisvalid FROM pg_index JOIN pg_class c ON c.oid = indexrelid "
        "WHERE indrelid = 'documents'::regclass AND relname = 'documents_dense'"
    )
    return (connection.execute(statement).fetchone() or (None,))[0]


def rearrange(connection: Any, width: int) -> None:
    """Work that is no transaction; one at a time.

    Args:
        connection: To be closed afterwards.
        width: Of the dense vectors; 0: no graph.
    """
    connection.execute("SET statement_timeout = 0")
    connection.execute("SELECT pg_advisory_lock('documents'::regclass::int, 0)")
    if width and not has_graph(connection):
        connection.execute(
            "DROP INDEX IF EXISTS documents_dense"
        )  # one that was cut short is there, and of no use
        connection.execute(
            f"CREATE INDEX CONCURRENTLY documents_dense ON documents USING hnsw ((dense::halfvec({width})) "
            f"halfvec_ip_ops) WITH (m = {GRAPH_DEGREE}, ef_construction = {GRAPH_BUILD})"
        )
    connection.execute("VACUUM (ANALYZE) documents")
    connection.execute("VACUUM (ANALYZE) fields")
