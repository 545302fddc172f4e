"""Lexical weights of queries from a table instead of an encoder: a token weighs what its rarity says.

**Math** ``w_q(t) = ln(1 + (N − n_t + ½) / (n_t + ½))`` for each token id t of a query, once: the inverse document
frequency of BM25, with N documents of which n_t have a weight for t. The score is ``s_lex = Σ_t w_q(t) · w_p(t)`` as
always; w_p is the head's (inference-free retrieval, arXiv 2411.04403).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy import sparse

from triptych.errors import IndexCorrupt, IndexFault, InputError, StorageError
from triptych.index.engine import Engine
from triptych.io import write_atomically
from triptych.scores.packing import digest
from triptych.types import Floats, chunked

if TYPE_CHECKING:
    from triptych.index.store import Store
    from triptych.model.tokenizer import TextTokenizer

FILE = "query_weights.safetensors"
"""The table of an index, in its folder."""

_PAGE = 256


@dataclass(frozen=True, slots=True)
class QueryWeights:
    """How many documents have each token.

    Attributes:
        documents: N.
        counts: int32 ``[V]``, of these how many have the token.
        source: What was counted: the index's own documents or other texts.
    """

    documents: int
    counts: NDArray[np.int32]
    source: Literal["index", "texts"]

    @classmethod
    def of_engine(cls, engine: Engine) -> QueryWeights:
        """Counts the documents of an index by their lexical vectors."""

        def rows() -> Iterator[NDArray[np.int64]]:
            for names in chunked(engine.ids(), _PAGE):
                found: Any = engine.vectors([engine.key(name) for name in names], ["lexical"]).lexical
                yield from np.split(found.indices, found.indptr[1:-1])

        return cls._of(rows(), lexical_width(engine), "index")

    @classmethod
    def of_texts(cls, texts: Iterable[str], tokenizer: TextTokenizer, width: int) -> QueryWeights:
        """Counts texts, each of which is a document.

        Args:
            texts: Read as a stream.
            tokenizer: The model's.
            width: V.

        Raises:
            InputError: For something that is no text.
        """
        rows = (ids for page in chunked(texts, _PAGE) for ids in token_ids(page, tokenizer, width))
        return cls._of(rows, width, "texts")

    @classmethod
    def _of(
        cls, rows: Iterable[NDArray[np.int64]], width: int, source: Literal["index", "texts"]
    ) -> QueryWeights:
        counts, documents = np.zeros(width, np.int32), 0
        for ids in rows:
            counts[ids] += 1  # each id is there once
            documents += 1
        return cls(documents, counts, source)

    def weights(self, ids: NDArray[np.int64]) -> Floats:
        """float32, the weights of token ids; all > 0."""
        found = self.counts[ids]
        return np.log1p((self.documents - found + 0.5) / (found + 0.5)).astype(np.float32)

    def encode(self, queries: Sequence[str], tokenizer: TextTokenizer) -> sparse.csr_array:
        """Lexical vectors of Q queries.

        Returns:
            CSR float32 ``[Q, V]``; of special and unknown tokens there are no weights.

        Raises:
            InputError: For a tokenizer of another vocabulary.
        """
        ids = token_ids(queries, tokenizer, len(self.counts))
        columns = np.concatenate(ids) if ids else np.zeros(0, np.int64)
        offsets = np.cumsum([0, *map(len, ids)])
        return sparse.csr_array((self.weights(columns), columns, offsets), (len(ids), len(self.counts)))

    def write(self, folder: Path) -> None:
        """Writes the table to an index's folder.

        Raises:
            StorageError: If it cannot be written; an old one stays.
        """
        notes = json.dumps({"documents": self.documents, "source": self.source})
        arrays = {"counts": self.counts}
        write_atomically(folder / FILE, save(arrays, {"table": notes, "digest": digest(arrays, notes)}))

    @classmethod
    def read(cls, folder: Path) -> QueryWeights | None:
        """The table of an index; None if there is none.

        Raises:
            IndexCorrupt: If it is not what was written.
        """
        path = folder / FILE
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="np") as file:
                counts, notes = file.get_tensor("counts"), cast(dict[str, str], file.metadata())
            good = digest({"counts": counts}, notes["table"]) == notes["digest"]
            table = cls(counts=counts, **json.loads(notes["table"])) if good else None
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            table = None
        if table is None:
            raise IndexCorrupt(f"{path}: is damaged; remove it, and the documents are counted again")
        return table


def lexical_width(engine: Engine) -> int:
    """V.

    Raises:
        InputError: If the index has no lexical vectors.
    """
    heads = engine.layout.heads
    if "lexical" not in heads:
        raise InputError(
            f"query weights: the index has {', '.join(heads)} vectors alone; expected lexical ones"
        )
    return engine.layout.widths["lexical"]


def current_weights(store: Store, known: QueryWeights | None) -> QueryWeights:
    """The table of an open index: counted if there is none, or if the documents have become others.

    Args:
        store: The index.
        known: What it was before; None: what the folder has.
    """
    lexical_width(store.engine)
    if known is None and store.folder is not None:
        known = QueryWeights.read(store.folder)
    if known is not None and (
        known.source == "texts" or 10 * abs(store.engine.count() - known.documents) <= known.documents
    ):
        return known
    table = QueryWeights.of_engine(store.engine)
    with suppress(StorageError):  # a search needs no room on the disk
        keep_weights(store, table)
    return table


def keep_weights(store: Store, table: QueryWeights) -> QueryWeights:
    """Writes a table to the folder of an index that can be written."""
    if store.folder is not None and store.is_writable:
        table.write(store.folder)
    return table


def token_ids(texts: Iterable[str], tokenizer: TextTokenizer, width: int) -> list[NDArray[np.int64]]:
    """The different token ids of each text that can have a lexical weight, ascending.

    Raises:
        InputError: For something that is no text.
        IndexFault: If the tokenizer has ids beyond the width.
    """
    ids = [np.unique(found) for found, _ in tokenizer.spans(list(texts))]
    never = tokenizer.special.never_lexical
    kept = [found[~np.isin(found, never)] for found in ids]
    if (largest := max((int(found[-1]) for found in kept if len(found)), default=0)) >= width:
        raise IndexFault(
            f"lexical queries: got the token id {largest} of the model's tokenizer; the index has the ids below "
            f"{width}. It is another tokenizer than that of the index's vectors"
        )
    return kept
