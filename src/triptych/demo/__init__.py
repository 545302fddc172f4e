"""A small real corpus in 24 languages, with queries whose answers are known; SOURCES.txt names where it is from."""

from __future__ import annotations

from importlib.resources import as_file, files

from triptych.documents import read_documents, read_queries
from triptych.records import Document, Query

CORPUS = "corpus.jsonl.zst"
QUERIES = "queries.jsonl"


def load_corpus() -> list[Document]:
    """The demo's passages.

    Returns:
        631 documents of 70 to 900 characters. Their metadata: ``lang`` (ISO 639-1), ``source`` and ``topic``,
        which is the same for a passage and its counterparts in other languages.
    """
    with as_file(files(__name__) / CORPUS) as path:
        return list(read_documents(path))


def load_queries() -> list[Query]:
    """The demo's queries.

    Returns:
        16 queries. Their metadata: ``lang``; ``relevant``, the ids of the passages that answer the query in any
        language; ``cross_lingual``, true if none of those is in the query's language.
    """
    with as_file(files(__name__) / QUERIES) as path:
        return list(read_queries(path))
