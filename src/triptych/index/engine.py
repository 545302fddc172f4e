"""What an engine does: keeps vectors and payloads, finds candidates, and scores given documents.

An engine knows no text encoder and no weights; `triptych.index.search` puts its answers together. There are
`exact` (NumPy), `edge` (Qdrant within the process), `server` (Qdrant elsewhere) and `postgres` (PostgreSQL).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from triptych.index.documents import DocumentOrigin, Payload
from triptych.index.filters import Filter
from triptych.index.layout import Layout
from triptych.types import Encoded, Floats, Head


class Candidates(NamedTuple):
    """What one route recalled for one query, the best first.

    Attributes:
        keys: The engine's keys of the documents.
        scores: float32 ``[len(keys)]``, descending; of a coarse recall they may be approximate.
    """

    keys: list[str]
    scores: Floats


class Engine(Protocol):
    """A store of documents with up to three representations each.

    Documents are named by *keys*, strings of the engine's choice; `key` gives that of a document's id. Methods
    raise `triptych.errors.StorageError` when writing failed, `IndexFault` for other failures.
    """

    layout: Layout
    """What the engine holds of a document; gets its frame before the first token vectors."""

    @property
    def routes(self) -> tuple[Head, ...]:
        """The heads by which `recall` can search; the others can only `score`."""
        ...

    def key(self, document: str) -> str:
        """The key of the document with this id, whether it is there or not."""
        ...

    def add(self, vectors: Encoded, payloads: Sequence[Payload]) -> None:
        """Adds or replaces documents; what it has returned from survives the death of the process.

        Args:
            vectors: At least the layout's heads for N texts; further heads are not stored.
            payloads: N payloads with distinct ids.

        Raises:
            InputError: For vectors that do not fit; nothing is stored then.
        """
        ...

    def delete(self, keys: Sequence[str]) -> int:
        """Removes documents; returns how many of them there were. As durable as `add`."""
        ...

    def count(self, where: Filter | None = None) -> int:
        """How many documents there are, or fulfil a filter."""
        ...

    def recall(self, queries: Encoded, route: Head, k: int, where: Filter | None = None) -> list[Candidates]:
        """For each query up to k documents with the highest scores of one head, among those that fulfil `where`.

        By "lexical" only documents that share a token with the query are found, by "multi" only those with
        token vectors.
        """
        ...

    def score(
        self, queries: Encoded, keys: Sequence[Sequence[str]], heads: Sequence[Head]
    ) -> list[dict[Head, Floats]]:
        """Exact scores of given documents (as stored: `Layout` says in which precision).

        Args:
            queries: Q queries with these heads.
            keys: For each query the documents to score; the result has their order.
            heads: Which scores.

        Returns:
            For each query and head float32 ``[len(keys[i])]``; 0 for a document without that representation.
        """
        ...

    def fetch(self, keys: Sequence[str]) -> list[Payload | None]:
        """The payloads of documents in the given order; None for one that is not there."""
        ...

    def vectors(self, keys: Sequence[str], heads: Sequence[Head]) -> Encoded:
        """The representations of documents as they are stored, in float32 and the given order.

        A document that is not there, or lacks a representation, has zeros, or no token vectors.
        """
        ...

    def set_metadata(
        self,
        keys: Sequence[str],
        metadata: Sequence[dict[str, Any]],
        origins: Sequence[DocumentOrigin] | None = None,
    ) -> None:
        """Replaces the metadata, and origins if given, of documents that are there, each once; as durable as `add`."""
        ...

    def ids(self, where: Filter | None = None) -> Iterator[str]:
        """The ids of all documents, or of those that fulfil a filter, in no particular order."""
        ...

    def origins(self) -> Iterator[tuple[str, DocumentOrigin | None]]:
        """The ids of all documents and where these came from, in no particular order."""
        ...

    def flush(self) -> None:
        """Brings everything to the disk: survives even the loss of power."""
        ...

    def optimize(self) -> None:
        """Rearranges the store for faster search; blocks, and may take minutes."""
        ...

    def close(self) -> None:
        """Flushes and frees everything; the engine cannot be used afterwards. Twice is no error."""
        ...
