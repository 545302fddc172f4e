"""The exact engine: compares every query with every document in NumPy and SciPy.

It is the other engines' oracle in the tests, and enough by itself for tens of thousands of documents (without
token vectors, about a hundred thousand). All of it is in memory while it is open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from triptych.errors import InputError
from triptych.index.engine import Candidates
from triptych.index.filters import Filter
from triptych.index.layout import Layout, Payload, check_block, check_vectors
from triptych.index.segments import Rows, Segment, SegmentFolder
from triptych.index.storage import storage_error
from triptych.index.tokens import Tokens
from triptych.ops.scores import dense_scores, lexical_scores, maxsim_scores
from triptych.types import Encoded, Floats, Head, Ragged

_SCAN = 2**24
"""Numbers of token vectors that a scan unpacks at once (64 MB in float32)."""


@dataclass(frozen=True, slots=True)
class _View:
    """All live documents in the order of their ids, so that equal scores are ranked by row.

    `postings` is the lexical matrix transposed, ``[V, N]``: to transpose it costs more than a search.
    """

    rows: Rows
    ids: list[str]
    postings: sparse.csr_array | None


class ExactEngine:
    """An `Engine` that compares with everything; `create` or `open` makes one.

    Keys are the documents' ids themselves. An `add` or `delete` appends one file; the arrays for searching are
    joined again by the first search after it.

    Args:
        folder: The folder of the segments; it exists.
        layout: What is stored.

    Raises:
        IndexCorrupt: If files are missing or damaged.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.layout = layout
        self.routes = layout.heads
        self._files = SegmentFolder(folder, layout)
        self._parts: list[Rows] = []
        self._row_of: dict[str, int] = {}
        self._size = 0
        self._view: _View | None = None
        for segment in self._files.load():
            self._apply(segment)

    @classmethod
    def create(cls, folder: Path, layout: Layout) -> ExactEngine:
        """Makes an empty engine in a new folder.

        Raises:
            StorageError: If the folder cannot be made.
        """
        try:
            folder.mkdir()
        except OSError as error:
            raise storage_error(f"{folder}: cannot be made", error) from error
        return cls(folder, layout)

    @classmethod
    def open(cls, folder: Path, layout: Layout) -> ExactEngine:
        """Opens what `create` made."""
        return cls(folder, layout)

    def key(self, document: str) -> str:
        """The id itself."""
        return document

    def add(self, vectors: Encoded, payloads: Sequence[Payload]) -> None:
        """See `Engine.add`."""
        check_block(self.layout, vectors, payloads)
        if payloads:
            self._step(Segment(self._rows(vectors, payloads)))

    def delete(self, keys: Sequence[str]) -> int:
        """See `Engine.delete`."""
        there = [key for key in dict.fromkeys(keys) if key in self._row_of]
        if there:
            self._step(Segment(None, there))
        return len(there)

    def count(self, where: Filter | None = None) -> int:
        """See `Engine.count`."""
        return len(self._row_of) if where is None else len(self._allowed(where))

    def recall(self, queries: Encoded, route: Head, k: int, where: Filter | None = None) -> list[Candidates]:
        """See `Engine.recall`."""
        check_vectors(self.layout, queries, [route], "recall")
        if not self._row_of:
            return [Candidates([], np.zeros(0, np.float32)) for _ in range(len(queries))]
        view, allowed = self._current(), self._allowed(where)
        if route == "lexical":
            product: Any = cast(sparse.csr_array, queries.lexical) @ cast(sparse.csr_array, view.postings)
            scores: Floats = np.asarray(product.toarray(), dtype=np.float32)[:, allowed]
        else:
            scores = _all_scores(view.rows, queries, route)[:, allowed]
        if route == "multi" and view.rows.tokens is not None:
            scores[:, np.diff(view.rows.tokens.offsets)[allowed] == 0] = -np.inf
        floor = 0.0 if route == "lexical" else -np.inf
        return [_best(row, allowed, view.ids, k, floor) for row in scores]

    def score(
        self, queries: Encoded, keys: Sequence[Sequence[str]], heads: Sequence[Head]
    ) -> list[dict[Head, Floats]]:
        """See `Engine.score`."""
        check_vectors(self.layout, queries, heads, "score")
        return [self._scores_of(queries[i], names, heads) for i, names in enumerate(keys)]

    def fetch(self, keys: Sequence[str]) -> list[Payload | None]:
        """See `Engine.fetch`."""
        if not self._row_of:
            return [None for _ in keys]
        payloads = self._current().rows.payloads
        return [payloads[self._row_of[key]] if key in self._row_of else None for key in keys]

    def ids(self) -> Iterator[str]:
        """See `Engine.ids`."""
        return iter(list(self._row_of))

    def flush(self) -> None:
        """Nothing to do: every step is on the disk when its method returns."""

    def optimize(self) -> None:
        """Writes all documents to one file and drops what was replaced or deleted."""
        self._files.replace_all(self._current().rows if self._row_of else None)

    def close(self) -> None:
        """Frees the memory."""
        self._parts, self._row_of, self._view = [], {}, None

    def _step(self, segment: Segment) -> None:
        self._files.append(segment)
        self._apply(segment)

    def _apply(self, segment: Segment) -> None:
        self._view = None
        for key in segment.deleted:
            self._row_of.pop(key, None)
        if segment.rows is not None:
            names = (payload["id"] for payload in segment.rows.payloads)
            self._row_of.update((name, self._size + i) for i, name in enumerate(names))
            self._parts.append(segment.rows)
            self._size += len(segment.rows.payloads)

    def _rows(self, vectors: Encoded, payloads: Sequence[Payload]) -> Rows:
        heads, layout = self.layout.heads, self.layout
        lexical = vectors.lexical if "lexical" in heads else None
        return Rows(
            list(payloads),
            cast(NDArray[Any], vectors.dense).astype(layout.dense),
            None if lexical is None else cast(sparse.csr_array, lexical.astype(np.float32)),
            Tokens.pack(cast(Ragged, vectors.multi), layout.multi) if "multi" in heads else None,
        )

    def _current(self) -> _View:
        if self._view is None:
            ids = sorted(self._row_of)
            places = np.asarray([self._row_of[name] for name in ids], dtype=np.int64)
            rows = Rows.concat(self._parts).take(places)
            postings = None if rows.lexical is None else rows.lexical.T.tocsr()
            self._parts, self._size = [rows], len(ids)
            self._row_of = {name: i for i, name in enumerate(ids)}
            self._view = _View(rows, ids, postings)
        return self._view

    def _allowed(self, where: Filter | None) -> NDArray[np.int64]:
        """The rows that fulfil a filter, ascending."""
        if where is None or not self._row_of:
            return np.arange(len(self._row_of))
        payloads = self._current().rows.payloads
        return np.asarray([i for i, p in enumerate(payloads) if where.matches(p["metadata"])], dtype=np.int64)

    def _scores_of(self, query: Encoded, names: Sequence[str], heads: Sequence[Head]) -> dict[Head, Floats]:
        missing = [name for name in names if name not in self._row_of]
        if missing:
            raise InputError(f"score: got {missing[0]!r}; expected documents of the index")
        if not names:
            return {head: np.zeros(0, np.float32) for head in heads}
        view = self._current()
        wanted = view.rows.take(np.asarray([self._row_of[name] for name in names], dtype=np.int64))
        return {head: _all_scores(wanted, query, head)[0] for head in heads}


def _all_scores(rows: Rows, queries: Encoded, head: Head) -> Floats:
    if head == "dense":
        return dense_scores(cast(Floats, queries.dense), rows.dense)
    if head == "lexical":
        return lexical_scores(cast(sparse.csr_array, queries.lexical), cast(sparse.csr_array, rows.lexical))
    return _maxsim(cast(Ragged, queries.multi), cast(Tokens, rows.tokens))


def _best(scores: Floats, rows: NDArray[np.int64], ids: Sequence[str], k: int, floor: float) -> Candidates:
    """The k best above `floor`, equal ones by their row, which is the order of the ids."""
    good = np.flatnonzero(scores > floor)
    if len(good) > k:
        bar = np.partition(scores[good], len(good) - k)[len(good) - k]
        good = good[scores[good] >= bar]
    order = good[np.argsort(-scores[good], kind="stable")][:k]
    return Candidates([ids[int(i)] for i in rows[order]], scores[order])


def _maxsim(queries: Ragged, documents: Tokens) -> Floats:
    """MaxSim of all pairs, unpacking the documents a part at a time."""
    ends = documents.offsets[1:] * documents.width
    parts: list[Floats] = []
    start = 0
    while start < len(ends):
        taken = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, taken + _SCAN, side="right")))
        part = documents.run(start, stop)
        parts.append(maxsim_scores(queries, part.unpack()))
        start = stop
    return np.concatenate(parts, axis=1)
