"""Loads a Parquet file of `triptych export` or `triptych encode --with-text` into Milvus, and searches there.

    pip install pymilvus milvus-lite
    triptych export my.index --outputs dense,lexical --output vectors.parquet
    python examples/to_milvus.py vectors.parquet my.db "how do I boil an egg"

Instead of my.db the address of a server can stand. Milvus has dense and lexical vectors; token vectors are left out.
"""

import json
import sys

import pyarrow.parquet as pq
from pymilvus import AnnSearchRequest, DataType, MilvusClient, WeightedRanker

from triptych import Encoder

NAME = "documents"


def load(path: str, place: str) -> MilvusClient:
    """Makes a collection of a file, in batches."""
    client = MilvusClient(place)
    with pq.ParquetFile(path) as file:
        schema = client.create_schema(auto_id=False)
        schema.add_field("id", DataType.VARCHAR, max_length=1024, is_primary=True)
        schema.add_field("text", DataType.VARCHAR, max_length=65_535)
        schema.add_field("metadata", DataType.JSON)
        width = file.schema_arrow.field("dense").type.list_size
        schema.add_field("dense", DataType.FLOAT_VECTOR, dim=width)
        schema.add_field("lexical", DataType.SPARSE_FLOAT_VECTOR)
        index = client.prepare_index_params()
        index.add_index("dense", index_type="AUTOINDEX", metric_type="IP")
        index.add_index("lexical", index_type="SPARSE_INVERTED_INDEX", metric_type="IP")
        client.create_collection(NAME, schema=schema, index_params=index)
        for batch in file.iter_batches(256):
            client.insert(NAME, [to_row(row) for row in batch.to_pylist()])
    client.load_collection(NAME)
    return client


def to_row(row: dict) -> dict:
    """A row of the file as Milvus takes it."""
    weights = dict(zip(row["lexical_indices"], row["lexical_values"], strict=True))
    fields = {name: row[name] for name in ("id", "text", "dense")}
    # Milvus wants at least one weight; no query has one of token 0, which begins a text.
    return fields | {"metadata": json.loads(row["metadata"]), "lexical": weights or {0: 1e-9}}


def search(client: MilvusClient, encoder: Encoder, query: str, k: int = 10) -> list[tuple[str, float]]:
    """Recalls by both heads and adds their scores, which Milvus maps to numbers from 0 to 1 first."""
    vectors = encoder.encode_query([query], outputs=("dense", "lexical"))
    start, end = vectors.lexical.indptr[:2]
    weights = dict(
        zip(
            vectors.lexical.indices[start:end].tolist(), vectors.lexical.data[start:end].tolist(), strict=True
        )
    )
    requests = [
        AnnSearchRequest([vectors.dense[0].tolist()], "dense", {"metric_type": "IP"}, limit=10 * k),
        AnnSearchRequest([weights], "lexical", {"metric_type": "IP"}, limit=10 * k),
    ]
    (hits,) = client.hybrid_search(NAME, requests, WeightedRanker(1.0, 0.3), limit=k)
    return [(hit["id"], hit["distance"]) for hit in hits]


if __name__ == "__main__":
    collection = load(sys.argv[1], sys.argv[2])
    for name, score in search(collection, Encoder.from_pretrained("small"), sys.argv[3]):
        print(f"{score:.4f}\t{name}")
