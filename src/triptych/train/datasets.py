"""Several data sets as one, and the sources that a sampler draws from.

Data sets of training examples on disk: checked and tokenised once, then read by row.

The first opening reads the files, tokenises every text and writes an Arrow file into a cache folder whose name is
a digest of all that it depends on: paths, sizes, times of change, the tokenizer, the limits. Later openings map that
file into memory. Nothing is ever held whole but one number a row.

With several processes, let one open the data sets first; otherwise each does the work, with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from triptych.collections.examples import Example, Scores
from triptych.collections.training import Reading, read_examples, source_paths
from triptych.errors import DataError, InputError
from triptych.records import Place
from triptych.train.data import RowTable, RowWriter, Tokenizes, cache_folder, chunked, open_or_build
from triptych.train.sampling import Source

_Row = TypeVar("_Row", covariant=True)


class Dataset(Protocol[_Row]):
    """Rows by number, with their lengths: `PairDataset`, `TextDataset` or your own.

    Attributes:
        name: What reports call it.
        lengths: int32 ``[N]``, tokens of each row.
    """

    name: str
    lengths: NDArray[np.int32]

    def __len__(self) -> int: ...

    def __getitem__(self, row: int) -> _Row: ...

    def languages(self) -> list[str | None]:
        """Each row's language, as far as it is known."""
        ...


class Datasets(Generic[_Row]):
    """Several data sets, one after the other, with row numbers that run through all of them.

    Args:
        parts: One or more.

    Attributes:
        parts: The same.
        offsets: int64 ``[len(parts) + 1]``; rows of part i are ``offsets[i]`` to ``offsets[i + 1] - 1``.
    """

    def __init__(self, parts: Sequence[Dataset[_Row]]) -> None:
        if not parts:
            raise InputError("Datasets: got no data set; expected one or more")
        self.parts = tuple(parts)
        self.offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64)

    def __len__(self) -> int:
        return int(self.offsets[-1])

    def part_of(self, row: int) -> int:
        """Number of the data set that has this row."""
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return int(np.searchsorted(self.offsets, row, side="right")) - 1

    def __getitem__(self, row: int) -> _Row:
        part = self.part_of(row)
        return self.parts[part][row - int(self.offsets[part])]

    @property
    def lengths(self) -> NDArray[np.int32]:
        """int32 ``[N]``, tokens of each row, or of its longest text."""
        return np.concatenate([part.lengths for part in self.parts])

    def sources(self, *, by_language: bool = False, weights: Sequence[float] | None = None) -> list[Source]:
        """What the sampler draws from: one source a data set, or one a data set and language.

        Args:
            by_language: Cut each data set by its rows' ``lang``; rows without one are a source of their own.
            weights: One number ≥ 0 a data set; all 1 by default.

        Raises:
            InputError: For a wrong number of weights.
        """
        given = [1.0] * len(self.parts) if weights is None else list(weights)
        if len(given) != len(self.parts):
            raise InputError(f"weights: got {len(given)} numbers; expected {len(self.parts)}, one a data set")
        found: list[Source] = []
        for part, start, weight in zip(self.parts, self.offsets, given, strict=False):
            whole = Source(part.name, np.arange(start, start + len(part)), part.lengths, weight)
            found += _by_language(whole, part.languages()) if by_language else [whole]
        return found


def _by_language(whole: Source, languages: list[str | None]) -> list[Source]:
    names = np.array([language or "" for language in languages])
    return [
        replace(
            whole,
            name=f"{whole.name}:{language or '?'}",
            rows=whole.rows[names == language],
            lengths=whole.lengths[names == language],
        )
        for language in sorted(set(names.tolist()))
    ]


_CHUNK = 64  # examples that are tokenised together
_IDS = pa.list_(pa.int32())
_SCHEMA = pa.schema(
    [
        ("query", _IDS),
        ("passages", pa.list_(_IDS)),
        ("positives", pa.int32()),
        ("scores", pa.list_(pa.float64())),
        ("id", pa.string()),
        ("language", pa.string()),
        ("length", pa.int32()),
    ]
)
_VIEWS = 4096  # record batches whose columns are kept at hand; some kilobytes each

Ids = NDArray[np.int32]
Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class PairLimits:
    """How queries and passages become tokens.

    Attributes:
        query_max: Most tokens of a query, special ones counted.
        passage_max: Most tokens of a passage.
        query_prefix: Before every query that brings no prompt of its own.
        document_prefix: Before every passage.
    """

    query_max: int = 512
    passage_max: int = 8192
    query_prefix: str = ""
    document_prefix: str = ""

    def query(self, example: Example) -> str:
        """The query with its prompt or the prefix."""
        return (self.query_prefix if example.prompt is None else example.prompt) + example.query


@dataclass(frozen=True, slots=True, eq=False)
class PairRow:
    """A training example as token ids, special tokens and prefixes included, cut to the limits.

    Attributes:
        query: int32.
        passages: int32 each; the positives first, then the negatives.
        positives: How many of them answer the query, at least 1.
        scores: A teacher's score of each passage, or None.
    """

    query: Ids
    passages: Sequence[Ids]
    positives: int
    scores: NDArray[np.float64] | None


class PairDataset:
    """Training examples by row; made by `open_pairs`.

    Attributes:
        name: What reports call it.
        lengths: int32 ``[N]``, tokens of the longest text of each row (query, positives, negatives), cut as in
            training.
        max_negatives: The most negatives of any row.
        scored: Whether every row has a teacher's scores.
        skipped: Queries of the files that have no positive.
        truncated: Texts longer than their limit.
    """

    def __init__(self, table: RowTable, name: str) -> None:
        self._table = table
        self._view = lru_cache(_VIEWS)(self._columns)
        self.name = name
        self.lengths = table.numbers("length")
        self.max_negatives = int(table.info["max_negatives"])
        self.scored = bool(table.info["scored"])
        self.skipped = int(table.info["skipped"])
        self.truncated = int(table.info["truncated"])

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, row: int) -> PairRow:
        batch, within = self._table.place(row)
        return self._view(batch).row(within)

    def _columns(self, batch: int) -> _View:
        return _View.of(self._table.batches[batch])

    def id(self, row: int) -> str | None:
        """What the file calls a row."""
        return self._table.row(row)["id"]

    def languages(self) -> list[str | None]:
        """What the file says of each row's language."""
        return self._table.texts("language")


class _View(NamedTuple):
    """The columns of a record batch as arrays that lie in the mapped file: a row costs slices, no conversion."""

    query: Ids
    query_bounds: Ids
    tokens: Ids
    token_bounds: Ids
    passage_bounds: Ids
    positives: Ids
    scores: NDArray[np.float64]
    score_bounds: Ids
    scored: NDArray[np.bool_]

    @classmethod
    def of(cls, batch: Any) -> _View:
        query, passages, scores = (batch.column(name) for name in ("query", "passages", "scores"))
        return cls(
            query.values.to_numpy(),
            query.offsets.to_numpy(),
            passages.values.values.to_numpy(),
            passages.values.offsets.to_numpy(),
            passages.offsets.to_numpy(),
            batch.column("positives").to_numpy(),
            scores.values.to_numpy(),
            scores.offsets.to_numpy(),
            scores.is_valid().to_numpy(zero_copy_only=False),
        )

    def row(self, row: int) -> PairRow:
        first, last = self.passage_bounds[row], self.passage_bounds[row + 1]
        bounds = self.token_bounds[first : last + 1].tolist()
        scores = (
            self.scores[self.score_bounds[row] : self.score_bounds[row + 1]] if self.scored[row] else None
        )
        return PairRow(
            self.query[self.query_bounds[row] : self.query_bounds[row + 1]],
            [self.tokens[a:b] for a, b in pairwise(bounds)],
            int(self.positives[row]),
            scores,
        )


def open_pairs(
    source: Path | str,
    tokenizer: Tokenizes,
    limits: PairLimits,
    *,
    cache: Path | None = None,
    reading: Reading | None = None,
    progress: Progress | None = None,
) -> PairDataset:
    """Opens a file or folder of training examples (see `triptych.collections.training.read_examples`).

    Args:
        source: A file or folder.
        tokenizer: Makes the tokens.
        limits: Lengths and prefixes, as in training.
        cache: Folder for the prepared data sets; by default `default_cache`.
        reading: How files are read; with `on_error`, broken records are left out.
        progress: Called with the number of examples read so far.

    Raises:
        DataError: For what cannot be read (file and line), or if there is no example at all.
        StorageError: If the cache cannot be written.
    """
    how = reading or Reading()
    options = {"split": how.split, "positive_from": how.positive_from, "lenient": how.on_error is not None}
    folder = cache_folder("pairs", source, tokenizer, {**asdict(limits), **options}, cache)

    def write(writer: RowWriter) -> dict[str, Any]:
        return _write_pairs(writer, source, tokenizer, limits, how, progress)

    return PairDataset(open_or_build(folder, _SCHEMA, write), Path(source).name)


def _write_pairs(
    writer: RowWriter,
    source: Path | str,
    tokenizer: Tokenizes,
    limits: PairLimits,
    how: Reading,
    progress: Progress | None,
) -> dict[str, Any]:
    skipped: list[Place] = []
    reading = replace(
        how, on_skip=skipped.append if how.on_skip is None else _both(skipped.append, how.on_skip)
    )
    info = {"rows": 0, "max_negatives": 0, "scored": True, "truncated": 0}
    for chunk in chunked((example for _, example in read_examples(source_paths(source), reading)), _CHUNK):
        rows, truncated = _tokenised(chunk, tokenizer, limits)
        for row in rows:
            writer.add(row, 4 * (len(row["query"]) + sum(map(len, row["passages"]))))
        info["rows"] += len(chunk)
        info["truncated"] += truncated
        info["max_negatives"] = max(info["max_negatives"], *(len(example.neg) for example in chunk))
        info["scored"] = info["scored"] and all(example.pos_scores is not None for example in chunk)
        if progress:
            progress(info["rows"], None)
    if not info["rows"]:
        reason = f"; {len(skipped)} queries have no positive" if skipped else ""
        raise DataError(f"no training example in it{reason}", source)
    return {**info, "skipped": len(skipped)}


def _tokenised(
    examples: Sequence[Example], tokenizer: Tokenizes, limits: PairLimits
) -> tuple[list[dict[str, Any]], int]:
    """The rows of some examples, and how many texts were cut."""
    queries = tokenizer.encode([limits.query(example) for example in examples], max_length=limits.query_max)
    texts = [text for example in examples for text in example.passages]
    passages = tokenizer.encode(texts, prefix=limits.document_prefix, max_length=limits.passage_max)
    each = iter([ids.astype(np.int32) for ids in passages.ids])
    rows: list[dict[str, Any]] = []
    for query, example in zip(queries.ids, examples, strict=True):
        own = list(islice(each, len(example.passages)))
        scores = (
            None if example.pos_scores is None else [*example.pos_scores, *cast(Scores, example.neg_scores)]
        )
        rows.append(
            {
                "query": query.astype(np.int32),
                "passages": own,
                "positives": len(example.pos),
                "scores": scores,
                "id": example.id,
                "language": example.language,
                "length": max(map(len, (query, *own))),
            }
        )
    return rows, queries.truncated + passages.truncated


def _both(first: Callable[[Place], None], second: Callable[[Place], None]) -> Callable[[Place], None]:
    def call(place: Place) -> None:
        first(place)
        second(place)

    return call
