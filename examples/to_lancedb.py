"""Loads a Parquet file of `triptych export` or `triptych encode --with-text` into LanceDB, and searches there.

    pip install lancedb
    triptych export my.index --output vectors.parquet
    python examples/to_lancedb.py vectors.parquet my.lance "how do I boil an egg"

LanceDB takes the columns as they are: `dense` and `multi` are searched as vectors (token vectors by MaxSim, cosines,
which for vectors of length 1 are inner products), `lexical_indices` and `lexical_values` are kept.
"""

import sys

import lancedb
import pyarrow.parquet as pq

from triptych import Encoder


def load(path: str, place: str, table: str = "documents") -> "lancedb.table.Table":
    """Makes a table of a file, in batches, so that a large one needs little memory."""
    with pq.ParquetFile(path) as file:
        batches = (batch for batch in file.iter_batches(1024))
        return lancedb.connect(place).create_table(table, batches, schema=file.schema_arrow)


def search(
    table: "lancedb.table.Table", encoder: Encoder, query: str, k: int = 10
) -> list[tuple[str, float]]:
    """Recalls by dense vectors, and ranks what is found by the token vectors."""
    vectors = encoder.encode_query([query])
    found = table.search(vectors.dense[0], vector_column_name="dense").distance_type("dot").limit(10 * k)
    ids = [row["id"] for row in found.select(["id"]).to_list()]
    chosen = ", ".join("'" + name.replace("'", "''") + "'" for name in ids)
    ranked = table.search(vectors.multi[0], vector_column_name="multi").distance_type("cosine")
    rows = ranked.where(f"id IN ({chosen})", prefilter=True).limit(k).select(["id"]).to_list()
    return [(row["id"], row["_distance"]) for row in rows]


if __name__ == "__main__":
    documents = load(sys.argv[1], sys.argv[2])
    for name, distance in search(documents, Encoder.from_pretrained("small"), sys.argv[3]):
        print(f"{distance:.4f}\t{name}")
