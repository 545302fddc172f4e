"""The files of the exact engine: one numbered safetensors file for every step that changed something.

A segment holds the documents of one `add`, or the ids of one `delete`; the state of the index is what comes out
when they are read in order. A *base* segment stands for all before it. Files appear whole or not at all, and
are never changed, so that a process may end at any moment.

The exact engine: compares every query with every document in NumPy and SciPy.

It is the other engines' oracle in the tests, and enough by itself for tens of thousands of documents (without
token vectors, about a hundred thousand). All of it is in memory while it is open.
"""

from __future__ import annotations

import contextlib
import json
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy import sparse

from triptych.errors import IndexCorrupt, InputError
from triptych.index.engine import Candidates
from triptych.index.filters import Filter
from triptych.index.layout import Layout, Payload, Tokens, check_block, check_vectors
from triptych.index.storage import storage_error, write_file
from triptych.scores.on_numpy import dense_scores, lexical_scores, maxsim_scores
from triptych.types import Encoded, Floats, Head, Ragged

_NAME = re.compile(r"(\d{8})\.safetensors")


@dataclass(frozen=True, slots=True)
class Rows:
    """Documents with their representations, row by row.

    Attributes:
        payloads: N payloads.
        dense: float32 or float16 ``[N, D]``.
        lexical: CSR float32 ``[N, V]``, if the index has that head.
        tokens: The token vectors of N documents, if the index has that head.
    """

    payloads: Sequence[Payload]
    dense: NDArray[Any]
    lexical: sparse.csr_array | None
    tokens: Tokens | None

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """The documents of these numbers, in that order."""
        return Rows(
            [self.payloads[i] for i in rows],
            self.dense[rows],
            None if self.lexical is None else cast(sparse.csr_array, self.lexical[rows]),
            None if self.tokens is None else self.tokens.take(rows),
        )

    @classmethod
    def concat(cls, parts: Sequence[Rows]) -> Rows:
        """Joins parts of the same layout."""
        lexical = [part.lexical for part in parts if part.lexical is not None]
        tokens = [part.tokens for part in parts if part.tokens is not None]
        return cls(
            [payload for part in parts for payload in part.payloads],
            np.concatenate([part.dense for part in parts]),
            sparse.csr_array(sparse.vstack(lexical, format="csr")) if lexical else None,
            Tokens.concat(tokens) if tokens else None,
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """One step: documents that were added, or ids that were deleted."""

    rows: Rows | None
    deleted: Sequence[str] = ()


class SegmentFolder:
    """Writes and reads the segments of one index."""

    def __init__(self, folder: Path, layout: Layout) -> None:
        self._folder = folder
        self._layout = layout
        self._next = 1

    def load(self) -> list[Segment]:
        """All segments that count, in order; removes what a killed process left over.

        Raises:
            IndexCorrupt: If a segment is missing or damaged.
        """
        for part in self._folder.glob("*.part"):
            part.unlink()
        numbers = self._numbers()
        if numbers and numbers != list(range(numbers[0], numbers[-1] + 1)):
            gap = next(a + 1 for a, b in pairwise(numbers) if b != a + 1)
            raise IndexCorrupt(f"{self._path(gap)}: is missing; restore it from a copy")
        segments: list[Segment] = []
        first = max((n for n in numbers if self._is_base(n)), default=None)
        if numbers and first is None and numbers[0] != 1:
            raise IndexCorrupt(f"{self._path(1)}: is missing; restore it from a copy")
        for number in numbers:
            if first is not None and number < first:
                self._path(number).unlink()
            else:
                segments.append(self._read(number))
        self._next = numbers[-1] + 1 if numbers else 1
        return segments

    def append(self, segment: Segment) -> None:
        """Makes one step durable.

        Raises:
            StorageError: If it could not be written; the step did not happen then.
        """
        self._write(self._next, segment, base=False)
        self._next += 1

    def replace_all(self, rows: Rows | None) -> None:
        """Writes a base segment with `rows` and removes all before it."""
        number = self._next
        self._write(number, Segment(rows), base=True)
        self._next += 1
        for old in self._numbers():
            if old < number:
                with contextlib.suppress(OSError):  # the next `load` tries again
                    self._path(old).unlink()

    def _numbers(self) -> list[int]:
        matches = (_NAME.fullmatch(path.name) for path in self._folder.iterdir())
        return sorted(int(match[1]) for match in matches if match)

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.safetensors"

    def _write(self, number: int, segment: Segment, *, base: bool) -> None:
        arrays = {"deleted": _text(list(segment.deleted))}
        if segment.rows is not None:
            arrays |= _to_arrays(segment.rows)
        notes = {"base": str(int(base)), "crc": str(_checksum(arrays))}
        write_file(self._path(number), lambda file: file.write(save(arrays, metadata=notes)))

    def _is_base(self, number: int) -> bool:
        try:
            with safe_open(self._path(number), framework="np") as file:
                return file.metadata()["base"] == "1"
        except (SafetensorError, OSError, KeyError, TypeError) as error:
            raise _corrupt(self._path(number), error) from error

    def _read(self, number: int) -> Segment:
        path = self._path(number)
        try:
            with safe_open(path, framework="np") as file:
                arrays = {name: cast(NDArray[Any], file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
                expected = int(file.metadata()["crc"])
            good = _checksum(arrays) == expected
            rows = _from_arrays(arrays, self._layout) if good and "payloads" in arrays else None
            deleted = json.loads(arrays["deleted"].tobytes()) if good else []
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise _corrupt(path, error) from error
        if not good:
            raise _corrupt(path, ValueError("its checksum differs"))
        return Segment(rows, deleted)


def _corrupt(path: Path, error: Exception) -> IndexCorrupt:
    return IndexCorrupt(f"{path}: is damaged ({error}); restore it from a copy, or build the index again")


def _text(value: object) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value, ensure_ascii=False).encode(), dtype=np.uint8)


def _checksum(arrays: Mapping[str, NDArray[Any]]) -> int:
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(
            np.ascontiguousarray(arrays[name]).data.cast("B") if arrays[name].size else b"", total
        )
    return total


def _to_arrays(rows: Rows) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {"payloads": _text(rows.payloads), "dense": rows.dense}
    if rows.lexical is not None:
        arrays |= {f"lexical.{name}": getattr(rows.lexical, name) for name in ("data", "indices", "indptr")}
    if rows.tokens is not None:
        arrays |= {"multi.codes": rows.tokens.codes, "multi.offsets": rows.tokens.offsets}
        if rows.tokens.scales is not None:
            arrays["multi.scales"] = rows.tokens.scales
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _from_arrays(arrays: Mapping[str, NDArray[Any]], layout: Layout) -> Rows:
    payloads = json.loads(arrays["payloads"].tobytes())
    lexical = tokens = None
    if "lexical" in layout.widths:
        parts = (arrays["lexical.data"], arrays["lexical.indices"], arrays["lexical.indptr"])
        lexical = sparse.csr_array(parts, shape=(len(payloads), layout.widths["lexical"]))
    if "multi" in layout.widths:
        scales = cast("Floats | None", arrays.get("multi.scales"))
        codes, offsets = arrays["multi.codes"], arrays["multi.offsets"]
        tokens = Tokens(codes, scales, offsets, layout.widths["multi"], layout.multi)
    return Rows(payloads, arrays["dense"], lexical, tokens)


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
