"""The exact engine: compares every query with every document in NumPy and SciPy.

It is the other engines' oracle in the tests, and enough by itself for tens of thousands of documents (without
token vectors, about a hundred thousand). All of it is in memory while it is open.

Its files are one numbered safetensors file, a *segment*, for every step that changed something. A segment holds
the documents of one `add`, or the ids of one `delete`; the state of the index is what comes out when they are
read in order. When there are many small ones, sixteen are merged: a segment may stand for all from an earlier
number to its own. Files appear whole or not at all, and are never changed, so that a process may end at any moment.
"""

from __future__ import annotations

import contextlib
import copy
import json
import re
import shutil
import threading
import zlib
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from scipy import sparse

from triptych.errors import IndexCorrupt, IndexFault, StorageError
from triptych.index.documents import DocumentOrigin, Payload
from triptych.index.engine import Candidates
from triptych.index.filters import Filter
from triptych.index.layout import Layout, check_block, check_vectors
from triptych.index.storage import read_error, storage_error
from triptych.io import write_atomically
from triptych.scores.on_numpy import cuts, dense_scores, lexical_scores, maxsim_scores, top_k
from triptych.scores.packing import digest
from triptych.scores.tokens import Tokens
from triptych.types import Encoded, Floats, Head, Ragged

_NAME = re.compile(r"(\d{8})\.safetensors")

_LEFT_OVER = re.compile(r"\.\d{8}\.safetensors\.|\d{8}\.safetensors\.part$")

_MERGED = 16
"""So many segments of about equal span become one."""

_LARGEST_MERGE = 2**28
"""Bytes of segments that are merged at once; larger ones stay as they are."""

_SCAN = 2**24
"""Numbers of token vectors that a scan unpacks at once (64 MB in float32)."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Documents with their representations, row by row; a head that the index lacks is None.

    Attributes:
        payloads: N payloads.
        dense: float32 or float16 ``[N, D]``.
        lexical: CSR float32 ``[N, V]``.
        tokens: The token vectors of N documents.
    """

    payloads: Sequence[Payload]
    dense: NDArray[Any] | None
    lexical: sparse.csr_array | None
    tokens: Tokens | None

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """The documents of these numbers, in that order."""
        return Rows(
            [self.payloads[i] for i in rows],
            None if self.dense is None else self.dense[rows],
            None if self.lexical is None else cast(sparse.csr_array, self.lexical[rows]),
            None if self.tokens is None else self.tokens.take(rows),
        )


@dataclass(frozen=True, slots=True)
class Segment:
    """One step, or several: ids that were deleted, and then documents that were added."""

    rows: Rows | None
    deleted: Sequence[str] = ()


class _Span(NamedTuple):
    """The file of a segment: it stands for the steps from `first` to `last`, which is its name."""

    first: int
    last: int
    size: int

    @property
    def level(self) -> int:
        """How often sixteen were merged."""
        return ((self.last - self.first + 1).bit_length() - 1) // 4


class SegmentFolder:
    """Writes and reads the segments of one index."""

    def __init__(self, folder: Path, layout: Layout, *, read_only: bool = False) -> None:
        self._folder = folder
        self.layout = layout
        self._read_only = read_only
        self._spans: list[_Span] = []

    def load(self) -> Iterator[Segment]:
        """All segments that count, in order; removes what a killed process left over.

        Raises:
            IndexCorrupt: If a segment is missing or damaged.
        """
        numbers = set(self._numbers())
        spans: list[_Span] = []
        last, useless = max(numbers, default=0), set(numbers)
        while last:
            if last not in numbers:
                raise IndexCorrupt(f"{self._path(last)}: is missing; restore it from a copy")
            first = self._first(last)
            spans.append(_Span(first, last, self._path(last).stat().st_size))
            useless.discard(last)
            last = first - 1
        self._spans = spans[::-1]
        for span in self._spans:
            yield self._read(span.last)
        if not self._read_only:  # and not before all that counts is known to be whole
            for number in useless:
                self._path(number).unlink()
            for path in self._folder.iterdir():
                if _LEFT_OVER.match(path.name):
                    path.unlink()

    def problems(self) -> list[str]:
        """What is wrong with the files, a sentence for each that is missing or damaged."""
        try:
            for _ in self.load():
                pass
        except IndexFault as error:
            found = [str(error)]
            for number in self._numbers():
                try:
                    self._read(number)
                except IndexFault as other:
                    found.append(str(other))
            return list(dict.fromkeys(found))
        return []

    def salvage(self, aside: Path) -> list[str]:
        """Joins all segments that can be read, and moves the others.

        Args:
            aside: The folder for the others.

        Returns:
            Their paths, relative to the index.
        """
        good: list[Segment] = []
        moved: list[str] = []
        numbers = self._numbers()
        for number in numbers:
            try:
                good.append(self._read(number))
            except IndexCorrupt:
                aside.mkdir(exist_ok=True)
                shutil.copy2(self._path(number), aside)
                moved.append(f"{aside.name}/{self._path(number).name}")
        if numbers:
            self._write(1, numbers[-1] + 1, merge(good, base=True))
        for _ in self.load():  # which removes all before
            pass
        return moved

    def _numbers(self) -> list[int]:
        try:
            matches = map(_NAME.fullmatch, (path.name for path in self._folder.iterdir()))
        except OSError as error:
            raise read_error(self._folder, error) from error
        return sorted(int(match[1]) for match in matches if match)

    def append(self, segment: Segment) -> None:
        """Makes one step durable.

        Raises:
            StorageError: If it could not be written; the step did not happen then.
        """
        number = self._spans[-1].last + 1 if self._spans else 1
        self._spans.append(_Span(number, number, self._write(number, number, segment)))
        while len(some := self._spans[-_MERGED:]) == _MERGED and some[0].level == some[-1].level:
            if sum(span.size for span in some) > _LARGEST_MERGE:
                break
            try:
                self._replace(some, merge([self._read(span.last) for span in some], base=some[0].first == 1))
            except (StorageError, IndexCorrupt, MemoryError):
                break  # the step itself is stored; another one will try again

    def replace_all(self, rows: Rows | None) -> None:
        """Writes one segment with `rows` and removes all before it."""
        if self._spans:
            self._replace(self._spans, Segment(rows))

    def _replace(self, old: Sequence[_Span], segment: Segment) -> None:
        first, last = old[0].first, old[-1].last
        size = self._write(first, last, segment)  # over the file of the last one
        self._spans = [*self._spans[: -len(old)], _Span(first, last, size)]
        for span in old[:-1]:
            with contextlib.suppress(OSError):  # the next `load` tries again
                self._path(span.last).unlink()

    def _path(self, number: int) -> Path:
        return self._folder / f"{number:08d}.safetensors"

    def _write(self, first: int, last: int, segment: Segment) -> int:
        arrays = {"deleted": _text(list(segment.deleted))}
        if segment.rows is not None:
            arrays |= _to_arrays(segment.rows)
        data = save(arrays, metadata={"first": str(first), "digest": digest(arrays, str(first))})
        try:
            write_atomically(self._path(last), data)
        except OSError as error:
            raise storage_error(f"{self._path(last)}: could not be written", error) from error
        return len(data)

    def _first(self, number: int) -> int:
        """The first step that a segment stands for."""
        path = self._path(number)
        try:
            with safe_open(path, framework="np") as file:
                notes = cast(dict[str, str], file.metadata())
            base = 1 if notes.get("base") == "1" else number  # as earlier versions say it
            first = int(notes.get("first", base))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, MemoryError) as error:
            raise read_error(path, error) from error
        if not 1 <= first <= number:
            raise read_error(path, ValueError(f"it stands for the steps from {first} to {number}"))
        return first

    def _read(self, number: int) -> Segment:
        path = self._path(number)
        try:
            with safe_open(path, framework="np") as file:
                arrays = {name: cast(NDArray[Any], file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118
                notes = cast(dict[str, str], file.metadata())
            _check_digest(arrays, notes)
            rows = _from_arrays(arrays, self.layout) if "payloads" in arrays else None
            return Segment(rows, json.loads(arrays["deleted"].tobytes()))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError, MemoryError) as error:
            raise read_error(path, error) from error


def merge(segments: Sequence[Segment], *, base: bool) -> Segment:
    """One segment that does what several do one after the other.

    Args:
        segments: In order.
        base: Whether there is nothing before them, so that nothing has to be deleted.
    """
    place: dict[str, tuple[int, int]] = {}
    deleted: dict[str, None] = {}
    for i, segment in enumerate(segments):
        for name in segment.deleted:
            place.pop(name, None)
            deleted[name] = None
        if segment.rows is not None:
            for row, payload in enumerate(segment.rows.payloads):
                place[payload["id"]] = i, row
    state = State.empty()
    for i, segment in enumerate(segments):
        rows = np.asarray(sorted(row for part, row in place.values() if part == i), dtype=np.int64)
        if segment.rows is not None and len(rows):
            state = state.append(segment.rows.take(rows))
    gone = () if base else [name for name in deleted if name not in place]
    return Segment(state.rows if state.size else None, gone)


def _text(value: object) -> NDArray[np.uint8]:
    return np.frombuffer(json.dumps(value, ensure_ascii=False).encode(), dtype=np.uint8)


def _check_digest(arrays: Mapping[str, NDArray[Any]], notes: Mapping[str, str]) -> None:
    """Raises ValueError if a segment is not what was written."""
    if "digest" in notes:
        good = digest(arrays, notes["first"]) == notes["digest"]
    else:
        good = _old_checksum(arrays) == int(notes["crc"])
    if not good:
        raise ValueError("its checksum differs")


def _old_checksum(arrays: Mapping[str, NDArray[Any]]) -> int:
    """What segments of earlier versions have instead of a digest."""
    total = 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        total = zlib.crc32(array.data.cast("B") if array.size else b"", total)
    return total


def _to_arrays(rows: Rows) -> dict[str, NDArray[Any]]:
    """The arrays of documents as they are stored; column numbers in 32 bits, since SciPy would copy others."""
    arrays: dict[str, NDArray[Any]] = {"payloads": _text(list(rows.payloads))}
    if rows.dense is not None:
        arrays["dense"] = rows.dense
    if rows.lexical is not None:
        arrays["lexical.data"] = rows.lexical.data
        arrays["lexical.indices"] = rows.lexical.indices.astype(np.int32, copy=False)
        arrays["lexical.indptr"] = rows.lexical.indptr.astype(np.int32, copy=False)
    if rows.tokens is not None:
        arrays |= {"multi.codes": rows.tokens.codes, "multi.offsets": rows.tokens.offsets}
        if rows.tokens.scales is not None:
            arrays["multi.scales"] = rows.tokens.scales
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def _from_arrays(arrays: Mapping[str, NDArray[Any]], layout: Layout) -> Rows:
    payloads = json.loads(arrays["payloads"].tobytes())
    dense = lexical = tokens = None
    if "dense" in layout.widths:
        dense = arrays["dense"]
    if "lexical" in layout.widths:
        parts = (arrays["lexical.data"], arrays["lexical.indices"], arrays["lexical.indptr"])
        lexical = sparse.csr_array(parts, shape=(len(payloads), layout.widths["lexical"]))
    if "multi" in layout.widths:
        codes, offsets = arrays["multi.codes"], arrays["multi.offsets"]
        tokens = Tokens(codes, arrays.get("multi.scales"), offsets, layout.tokens)
    return Rows(payloads, dense, lexical, tokens)


class Growing:
    """An array that grows at its end; what was read before stays valid, since nothing before the end changes."""

    def __init__(self, first: NDArray[Any]) -> None:
        self._buffer = first
        self._size = len(first)

    @property
    def last(self) -> Any:
        """The last item."""
        return self._buffer[self._size - 1]

    def append(self, more: NDArray[Any]) -> NDArray[Any]:
        """Everything so far and `more`."""
        size = self._size + len(more)
        if size > len(self._buffer):
            larger = np.empty(
                (max(size, len(self._buffer) * 3 // 2), *self._buffer.shape[1:]), self._buffer.dtype
            )
            larger[: self._size] = self._buffer[: self._size]
            self._buffer = larger
        self._buffer[self._size : size] = more
        self._size = size
        return self._buffer[:size]


@dataclass(frozen=True, slots=True)
class State:
    """All documents in the order in which they were added, those that are gone included; never changed.

    Attributes:
        rows: The documents, or None at the very beginning.
        size: How many rows count; `rows.payloads` may have grown since.
        alive: bool ``[size]``, whether a document is still there.
        row_of: Row of each document that is there; may have changed since, see `find`.
        growing: Buffers that `append` writes to.
    """

    rows: Rows | None
    size: int
    alive: NDArray[np.bool_]
    growing: Mapping[str, Growing]

    @classmethod
    def empty(cls) -> State:
        """No documents."""
        return cls(None, 0, np.zeros(0, dtype=bool), {})

    def append(self, new: Rows) -> State:
        """With further documents at the end. Of one state this may be done once."""
        count = len(new.payloads)
        alive = np.concatenate([self.alive, np.ones(count, dtype=bool)])
        arrays = _to_arrays(Rows([], new.dense, new.lexical, new.tokens))
        del arrays["payloads"]
        if self.rows is None:
            growing = {name: Growing(array) for name, array in arrays.items()}
            rows = Rows(list(new.payloads), new.dense, new.lexical, new.tokens)
            return State(rows, count, alive, growing)
        for name in ("lexical.indptr", "multi.offsets"):
            if name in arrays:
                arrays[name] = arrays[name][1:] + self.growing[name].last
        whole = {name: self.growing[name].append(array) for name, array in arrays.items()}
        cast(list[Payload], self.rows.payloads).extend(new.payloads)
        return State(_whole(new, whole, self.rows.payloads), self.size + count, alive, self.growing)

    def without(self, rows: Sequence[int]) -> State:
        """Without the documents of these rows."""
        alive = self.alive.copy()
        alive[list(rows)] = False
        return State(self.rows, self.size, alive, self.growing)

    def compact(self) -> State:
        """The same documents without those that are gone."""
        if self.rows is None or not self.alive.any():
            return State.empty()
        return State.empty().append(self.rows.take(np.flatnonzero(self.alive)))


def _whole(new: Rows, arrays: Mapping[str, NDArray[Any]], payloads: Sequence[Payload]) -> Rows:
    lexical = tokens = None
    if new.lexical is not None:
        width = int(cast(tuple[int, int], new.lexical.shape)[1])
        parts = (arrays["lexical.data"], arrays["lexical.indices"], arrays["lexical.indptr"])
        lexical = sparse.csr_array(parts, shape=(len(parts[2]) - 1, width), copy=False)
    if new.tokens is not None:
        offsets = cast(NDArray[np.int64], arrays["multi.offsets"])
        tokens = Tokens(arrays["multi.codes"], arrays.get("multi.scales"), offsets, new.tokens.form)
    return Rows(payloads, arrays.get("dense"), lexical, tokens)


def _transpose(state: State, start: int) -> sparse.csr_array:
    lexical: Any = cast(Rows, state.rows).lexical
    return sparse.csr_array(lexical[start : state.size].T.tocsr())


def _width(matrix: sparse.csr_array) -> int:
    return int(cast(tuple[int, int], matrix.shape)[1])


class ExactEngine:
    """An `Engine` that compares with everything; `create` or `open` makes one.

    Keys are the documents' ids themselves. An `add` or `delete` appends one file. Threads may use one engine
    together: a lock orders the changes, and a reader works on the state that it found.

    Args:
        folder: The folder of the segments; it exists.
        layout: What is stored.
        read_only: Leave the folder as it is.

    Raises:
        IndexCorrupt: If files are missing or damaged.
    """

    def __init__(self, folder: Path, layout: Layout, *, read_only: bool = False) -> None:
        self.layout = layout
        self.routes = layout.heads
        self._files = SegmentFolder(folder, layout, read_only=read_only)
        self._lock = threading.RLock()
        self._torn = False
        self._load()

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

    def key(self, document: str) -> str:
        """The id itself."""
        return document

    def add(self, vectors: Encoded, payloads: Sequence[Payload]) -> None:
        """See `Engine.add`."""
        check_block(self.layout, vectors, payloads)
        if payloads:
            with self._changing():
                self._step(Segment(self._rows(vectors, payloads)))

    def delete(self, keys: Sequence[str]) -> int:
        """See `Engine.delete`."""
        with self._changing():
            there = [key for key in dict.fromkeys(keys) if key in self._row_of]
            if there:
                self._step(Segment(None, there))
        return len(there)

    def count(self, where: Filter | None = None) -> int:
        """See `Engine.count`."""
        return len(_allowed(self._current()[0], where))

    def recall(self, queries: Encoded, route: Head, k: int, where: Filter | None = None) -> list[Candidates]:
        """See `Engine.recall`."""
        check_vectors(self.layout, queries, [route], "recall")
        state = self._current()[0]
        allowed = _allowed(state, where)
        if state.rows is None or not len(allowed):
            return [Candidates([], np.zeros(0, np.float32)) for _ in range(len(queries))]
        if route == "lexical":
            query: Any = queries.lexical
            parts = [
                np.asarray((query @ part).toarray(), dtype=np.float32) for part in self._postings_of(state)
            ]
            scores: Floats = np.concatenate(parts, axis=1)
        else:
            scores = _all_scores(state.rows, queries, route)
        scores = scores[:, allowed]
        if route == "multi":
            scores[:, np.diff(cast(Tokens, state.rows.tokens).offsets)[allowed] == 0] = -np.inf
        floor = 0.0 if route == "lexical" else -np.inf
        return [_best(row, allowed, state.rows.payloads, k, floor) for row in scores]

    def score(
        self, queries: Encoded, keys: Sequence[Sequence[str]], heads: Sequence[Head]
    ) -> list[dict[Head, Floats]]:
        """See `Engine.score`."""
        check_vectors(self.layout, queries, heads, "score")
        state, places = self._current([key for names in keys for key in names])
        scores: list[dict[Head, Floats]] = []
        start = 0
        for i, names in enumerate(keys):
            rows = places[start : start + len(names)]
            start += len(names)
            there = np.flatnonzero(rows >= 0)  # the others were deleted since they were recalled
            found: dict[Head, Floats] = {head: np.zeros(len(names), np.float32) for head in heads}
            if state.rows is not None and len(there):
                some = state.rows.take(rows[there])
                for head in heads:
                    found[head][there] = _all_scores(some, queries[i], head)[0]
            scores.append(found)
        return scores

    def fetch(self, keys: Sequence[str]) -> list[Payload | None]:
        """See `Engine.fetch`."""
        state, places = self._current(keys)
        payloads = list[Payload]() if state.rows is None else state.rows.payloads
        # Copies, since callers may change what they get.
        return [copy.deepcopy(payloads[row]) if row >= 0 else None for row in places.tolist()]

    def vectors(self, keys: Sequence[str], heads: Sequence[Head]) -> Encoded:
        """See `Engine.vectors`."""
        state, places = self._current(keys)
        there = np.flatnonzero(places >= 0)
        some = None if state.rows is None else state.rows.take(places[there])
        dense = lexical = multi = None
        if "dense" in heads:
            dense = np.zeros((len(keys), self.layout.widths["dense"]), np.float32)
            if some is not None:
                dense[there] = some.dense
        if "lexical" in heads:
            lexical = sparse.csr_array((len(keys), self.layout.widths["lexical"]), dtype=np.float32)
            if some is not None:
                part: Any = some.lexical
                counts = np.zeros(len(keys), np.int64)
                counts[there] = np.diff(part.indptr)
                indptr = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
                lexical = sparse.csr_array((part.data, part.indices, indptr), shape=lexical.shape)
        if "multi" in heads:
            width = self.layout.widths["multi"]
            items = [np.zeros((0, width), np.float32)] * len(keys)
            if some is not None:
                for place, rows in zip(there, cast(Tokens, some.tokens).unpack(), strict=True):
                    items[place] = rows
            multi = Ragged.of(items, width)
        return Encoded(dense, lexical, multi)

    def set_metadata(
        self,
        keys: Sequence[str],
        metadata: Sequence[dict[str, Any]],
        origins: Sequence[DocumentOrigin] | None = None,
    ) -> None:
        """See `Engine.set_metadata`. The documents are written again as they are, with other metadata."""
        with self._changing():
            state, places = self._current(keys)
            there = np.flatnonzero(places >= 0)
            if state.rows is None or not len(there):
                return
            rows = state.rows.take(places[there])
            payloads = [
                cast(
                    Payload,
                    {**old, "metadata": metadata[i]} | ({} if origins is None else {"origin": origins[i]}),
                )
                for i, old in zip(there.tolist(), rows.payloads, strict=True)
            ]
            self._step(Segment(replace(rows, payloads=payloads)))

    def ids(self, where: Filter | None = None) -> Iterator[str]:
        """See `Engine.ids`."""
        with self._lock:
            self._repair()
            if where is None:
                return iter(list(self._row_of))
            state = self._state
        payloads = list[Payload]() if state.rows is None else state.rows.payloads
        return iter([payloads[row]["id"] for row in _allowed(state, where).tolist()])

    def origins(self) -> Iterator[tuple[str, DocumentOrigin | None]]:
        """See `Engine.origins`."""
        with self._lock:
            self._repair()
            payloads = [] if self._state.rows is None else self._state.rows.payloads
            return iter([(name, payloads[row].get("origin")) for name, row in self._row_of.items()])

    def flush(self) -> None:
        """Nothing to do: every step is on the disk when its method returns."""

    def optimize(self) -> None:
        """Writes all documents to one file and drops what was replaced or deleted."""
        with self._changing():
            state = self._state.compact()
            self._files.replace_all(state.rows)
            self._set(state)

    def close(self) -> None:
        """Frees the memory."""
        with self._lock:
            self._torn = False
            self._set(State.empty())

    @contextlib.contextmanager
    def _changing(self) -> Generator[None]:
        """Orders changes. One that was cut short (Ctrl-C) may be on the disk and not here: it is read again."""
        with self._lock:
            self._repair()
            self._torn = True
            yield
            self._torn = False

    def _repair(self) -> None:
        if self._torn:
            self._load()
            self._torn = False

    def _load(self) -> None:
        self._set(State.empty())
        self._files.layout = self.layout  # may have got its frame since
        for segment in self._files.load():
            self._apply(segment)

    def _step(self, segment: Segment) -> None:
        try:
            self._files.append(segment)
        except StorageError:
            self._torn = False  # nothing happened
            raise
        self._apply(segment)

    def _set(self, state: State) -> None:
        payloads: Sequence[Payload] = () if state.rows is None else state.rows.payloads
        self._state = state
        self._postings: tuple[sparse.csr_array, ...] = ()
        self._row_of = {payload["id"]: row for row, payload in enumerate(payloads)}

    def _apply(self, segment: Segment) -> None:
        names = [] if segment.rows is None else [payload["id"] for payload in segment.rows.payloads]
        gone = [
            row for name in (*segment.deleted, *names) if (row := self._row_of.pop(name, None)) is not None
        ]
        state = self._state.without(gone) if gone else self._state
        if segment.rows is not None:
            self._row_of.update((name, state.size + i) for i, name in enumerate(names))
            state = state.append(segment.rows)
        self._state = state
        if state.size > 2 * len(self._row_of) + 1000:
            self._set(state.compact())

    def _postings_of(self, state: State) -> Sequence[sparse.csr_array]:
        """The lexical matrix transposed, in parts ``[V, n]`` of consecutive rows.

        To transpose it costs more than a search, so that the parts are kept, and joined as long as one is not larger
        than what follows: so there are few of them.
        """
        with self._lock:
            if state.growing is not self._state.growing:  # the documents have been renumbered since
                return [_transpose(state, 0)]
            parts: list[sparse.csr_array] = list(self._postings)
            done = sum(map(_width, parts))
            if done < state.size:
                new = _transpose(state, done)
                while parts and _width(parts[-1]) <= 2 * _width(new):
                    new = sparse.csr_array(sparse.hstack([parts.pop(), new], format="csr"))
                parts.append(new)
                self._postings = tuple(parts)
            return parts

    def _rows(self, vectors: Encoded, payloads: Sequence[Payload]) -> Rows:
        heads, layout = self.layout.heads, self.layout
        lexical = cast(sparse.csr_array, vectors.lexical)
        return Rows(
            list(payloads),
            cast(NDArray[Any], vectors.dense).astype(layout.dense) if "dense" in heads else None,
            cast(sparse.csr_array, lexical.astype(np.float32)) if "lexical" in heads else None,
            Tokens.pack(cast(Ragged, vectors.multi), layout.tokens) if "multi" in heads else None,
        )

    def _current(self, keys: Sequence[str] = ()) -> tuple[State, NDArray[np.int64]]:
        """The state, and the rows of documents in it (-1: not there)."""
        with self._lock:
            self._repair()
            return self._state, np.asarray([self._row_of.get(key, -1) for key in keys], dtype=np.int64)


def _allowed(state: State, where: Filter | None) -> NDArray[np.int64]:
    """The rows of documents that are there and fulfil a filter, ascending."""
    rows = np.flatnonzero(state.alive)
    if where is None or state.rows is None:
        return rows
    payloads = state.rows.payloads
    return np.asarray([row for row in rows.tolist() if where.matches(payloads[row])], dtype=np.int64)


def _all_scores(rows: Rows, queries: Encoded, head: Head) -> Floats:
    if head == "dense":
        return dense_scores(cast(Floats, queries.dense), cast(NDArray[Any], rows.dense))
    if head == "lexical":
        return lexical_scores(cast(sparse.csr_array, queries.lexical), cast(sparse.csr_array, rows.lexical))
    tokens = cast(Tokens, rows.tokens)
    parts = cuts(np.diff(tokens.offsets), max(1, _SCAN // tokens.width))
    multi = cast(Ragged, queries.multi)
    return np.concatenate([maxsim_scores(multi, tokens.run(p.start, p.stop)) for p in parts], axis=1)


def _best(
    scores: Floats, rows: NDArray[np.int64], payloads: Sequence[Payload], k: int, floor: float
) -> Candidates:
    """The k best above `floor`, equal ones by id."""
    best = top_k(scores, k, floor=floor, with_ties=True)
    numbers: list[int] = rows[best].tolist()
    ids = [payloads[row]["id"] for row in numbers]
    order = sorted(range(len(best)), key=lambda i: (-float(scores[best[i]]), ids[i]))[:k]
    return Candidates([ids[i] for i in order], scores[best[order]])
