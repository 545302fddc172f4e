"""Training data on disk: checked and tokenized once, then memory-mapped and read by row.

The first opening reads the files, tokenizes every text and writes an Arrow file into a cache folder whose name is a
digest of all that it depends on: the content of the files, the tokenizer, the limits. Later openings map that file into
memory. Nothing is ever held whole but two numbers per row.

With several processes, let one open the data sets first; otherwise each does the work, with the same result.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from triptych.errors import DataError, InputError, require_extra

with require_extra("training data", "train"):
    import pyarrow as pa

from triptych.collections.beir import is_beir
from triptych.collections.examples import Example, Scores
from triptych.collections.training import Reading, read_examples, read_records, read_texts, source_files
from triptych.io import file_digest
from triptych.model.tokenizer import TextTokenizer
from triptych.records import JSONL, PARQUET, Place, ending, files_of
from triptych.train.rows import RowTable, RowWriter, open_or_build
from triptych.train.sampling import SampledSource
from triptych.types import Progress, chunked

VERSION = 3
"""Of what is stored; another one prepares all data sets again."""

READING = "reading training data"
"""The stage that `Progress` is called with."""

_CHUNK = 64  # texts that are tokenized together
_UNCUT = 1 << 30  # a length that cuts nothing
_VIEWS = 4096  # record batches whose columns are kept at hand; some kilobytes each
_SHARD = re.compile(r"-\d+-of-\d+(?=\.)")

Ids: TypeAlias = NDArray[np.int32]
_T = TypeVar("_T")
_Row = TypeVar("_Row", covariant=True)


class Records(Protocol):
    """Records by iteration, as often as needed; a `datasets.Dataset` is one.

    Attributes:
        column_names: The fields of each record.
    """

    @property
    def column_names(self) -> Any:
        """The fields of each record."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


DataSource: TypeAlias = Path | str | Sequence[Path] | Records
"""A file, a folder, several files, or records in memory."""


def is_records(value: object) -> bool:
    """Whether a value can be a source of records, by its methods: the package `datasets` is not needed."""
    return hasattr(value, "column_names") and hasattr(value, "__iter__")


def default_cache() -> Path:
    """``TRIPTYCH_CACHE``, or ``triptych`` in the user's cache folder."""
    if folder := os.environ.get("TRIPTYCH_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triptych"


def data_sets(path: Path) -> list[tuple[str, list[Path]]]:
    """Names and files of the data sets of a path.

    A file and a BEIR folder are one data set. In any other folder each file is one, since a batch should not mix data
    sets; the shards of one (``name-00000-of-00004.parquet``) belong together.

    Raises:
        DataError: If there is no such path, or no data in it.
    """
    if not path.is_dir() or is_beir(path):
        return [(path.name, [path])]
    groups: dict[str, list[Path]] = {}
    for file in files_of(path, JSONL + PARQUET):
        groups.setdefault(_SHARD.sub("", file.relative_to(path).as_posix()), []).append(file)
    return [(f"{path.name}/{name}", files) for name, files in groups.items()]


def _cache_folder(
    kind: str, source: DataSource, tokenizer: TextTokenizer, options: dict[str, Any], cache: Path | None
) -> Path:
    """The folder of a data set, named by a digest of the content, the tokenizer and the options."""
    content = _content_digest(source, options.get("split", "train"))
    key = json.dumps([VERSION, kind, content, tokenizer.digest, options], sort_keys=True)
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return (cache or default_cache()) / "data" / f"{kind}-{digest}"


def _content_digest(source: DataSource, split: str) -> str:
    """Size and time of a file say nothing of its content: a copy or a restored backup has the old ones."""
    digest = hashlib.blake2b(digest_size=16)
    if is_records(source):
        for record in cast(Records, source):
            digest.update(json.dumps(record, sort_keys=True, default=repr).encode() + b"\n")
        return digest.hexdigest()
    for path in _paths(source):
        for file in source_files(path, split):
            name = ending(file) if file == path else file.relative_to(path).as_posix()
            try:
                content = file_digest(file)
            except OSError as error:
                raise DataError(f"cannot be read: {error.strerror or error}", file) from error
            digest.update(json.dumps([name, content]).encode())
    return digest.hexdigest()


def _paths(source: DataSource) -> list[Path]:
    paths = [source] if isinstance(source, str | Path) else list(cast("Sequence[Path]", source))
    return [Path(path) for path in paths]


# Queries with passages


@dataclass(frozen=True, slots=True)
class PairLimits:
    """How queries and passages become tokens.

    Attributes:
        query_max: Maximum tokens of a query, special ones counted.
        passage_max: Maximum tokens of a passage.
        query_prefix: Before every query.
        document_prefix: Before every passage.
        prompts: Whether a query's own prompt, where it has one, stands in the place of the prefix.
        vectors: Whether a teacher's vectors are kept.
    """

    query_max: int = 512
    passage_max: int = 8192
    query_prefix: str = ""
    document_prefix: str = ""
    prompts: bool = False
    vectors: bool = False

    def query(self, example: Example) -> str:
        """The query with the prefix, or with its prompt."""
        prompt = example.prompt if self.prompts else None
        return (self.query_prefix if prompt is None else prompt) + example.query


@dataclass(frozen=True, slots=True, eq=False)
class PairRow:
    """A training example as token ids, special tokens and prefixes included, cut to the limits.

    Attributes:
        query: int32.
        passages: int32 each; the positives first, then the negatives.
        positives: How many of them answer the query, at least 1.
        scores: A teacher's score of each passage, or None.
        prompt: Tokens of the query's own prompt, [CLS] included; None: it has the model's prefix.
        vectors: float32 ``[1 + passages, T]``, a teacher's vectors of the query and the passages, or None.
    """

    query: Ids
    passages: Sequence[Ids]
    positives: int
    scores: NDArray[np.float64] | None
    prompt: tuple[int, ...] | None = None
    vectors: NDArray[np.float32] | None = None


_IDS = pa.list_(pa.int32())
_PAIR_SCHEMA = pa.schema(
    [
        ("query", _IDS),
        ("passages", pa.list_(_IDS)),
        ("positives", pa.int32()),
        ("scores", pa.list_(pa.float64())),
        ("id", pa.string()),
        ("language", pa.string()),
        ("length", pa.int32()),
        ("key", pa.int64()),
    ]
)
_PROMPT = pa.field("prompt", _IDS)  # only with `PairLimits.prompts`
_VECTORS = pa.field("vectors", pa.list_(pa.list_(pa.float32())))  # only with `PairLimits.vectors`


def text_key(ids: NDArray[np.integer] | Sequence[int]) -> int:
    """A number for a text that depends on its token ids alone."""
    content = np.asarray(ids, dtype=np.int64).tobytes()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little", signed=True)


class PairDataset:
    """Training examples by row; made by `open_pairs`.

    Attributes:
        name: What reports call it.
        digest: Changes with the content, the tokenizer and the limits.
        lengths: int32 ``[N]``, tokens of the longest text of each row (query, positives, negatives), cut as in
            training.
        max_negatives: The most negatives of any row.
        scored: How many rows have a teacher's scores.
        vector_width: T of the teacher's vectors; 0: no row has any.
        skipped: Queries of the files that have no positive.
        truncated: Texts longer than their limit.
    """

    def __init__(self, table: RowTable, name: str, digest: str) -> None:
        self._table = table
        self._view = lru_cache(_VIEWS)(self._columns)
        self._answers = lru_cache(_VIEWS)(self._find_answers)
        self._keys = table.numbers("key")
        self._repeated = _rows_by_key(self._keys)
        self.name, self.digest = name, digest
        self.lengths: NDArray[np.int32] = table.numbers("length")
        self.max_negatives = int(table.info["max_negatives"])
        self.scored = int(table.info["scored"])
        self.vector_width = int(table.info.get("vector_width", 0))
        self.skipped = int(table.info["skipped"])
        self.truncated = int(table.info["truncated"])

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, row: int) -> PairRow:
        batch, within = self._table.locate(row)
        return self._view(batch).row(within)

    def answers(self, row: int) -> frozenset[int]:
        """Keys of all passages that are labelled as positives of a row's query, in whatever row of the data set."""
        rows = self._repeated.get(int(self._keys[row]))
        return self._answers(row if rows is None else int(rows[0]))

    def _columns(self, batch: int) -> _View:
        return _View.of(self._table.batches[batch])

    def _find_answers(self, row: int) -> frozenset[int]:
        rows = self._repeated.get(int(self._keys[row]), [row])
        found = (self[int(number)] for number in rows)
        return frozenset(text_key(passage) for each in found for passage in each.passages[: each.positives])

    def id(self, row: int) -> str | None:
        """What the file calls a row."""
        return self._table.row(row)["id"]

    def languages(self) -> list[str | None]:
        """What the file says of each row's language."""
        return self._table.texts("language")


def _rows_by_key(keys: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """The rows of each key that several rows have."""
    order = np.argsort(keys, kind="stable")
    runs = np.split(order, np.flatnonzero(np.diff(keys[order])) + 1)
    return {int(keys[run[0]]): run for run in runs if len(run) > 1}


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
    prompts: Sequence[Sequence[int] | None] | None
    vectors: Any

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
            batch.column("prompt").to_pylist() if "prompt" in batch.schema.names else None,
            batch.column("vectors") if "vectors" in batch.schema.names else None,
        )

    def row(self, row: int) -> PairRow:
        first, last = self.passage_bounds[row], self.passage_bounds[row + 1]
        bounds = self.token_bounds[first : last + 1].tolist()
        scores = (
            self.scores[self.score_bounds[row] : self.score_bounds[row + 1]] if self.scored[row] else None
        )
        prompt = None if self.prompts is None else self.prompts[row]
        vectors = None
        if self.vectors is not None and self.vectors[row].is_valid:
            own = self.vectors[row].values
            vectors = own.flatten().to_numpy().reshape(len(own), -1)
        return PairRow(
            self.query[self.query_bounds[row] : self.query_bounds[row + 1]],
            [self.tokens[a:b] for a, b in pairwise(bounds)],
            int(self.positives[row]),
            scores,
            None if prompt is None else tuple(prompt),
            vectors,
        )


def open_pairs(
    source: DataSource,
    tokenizer: TextTokenizer,
    limits: PairLimits,
    *,
    name: str | None = None,
    cache: Path | None = None,
    reading: Reading | None = None,
    progress: Progress | None = None,
) -> PairDataset:
    """Opens training examples (see `triptych.collections.training.read_examples`) as one data set.

    Args:
        source: A file, a folder, several files, or records such as a `datasets.Dataset`.
        tokenizer: Makes the tokens.
        limits: Lengths and prefixes, as in training.
        name: What reports call it; None: the file's name.
        cache: Folder for the prepared data sets; by default `default_cache`.
        reading: How files are read; with `on_error`, broken records are left out.
        progress: Called with the number of examples read so far.

    Raises:
        DataError: For what cannot be read (file and line), or if there is no example at all.
        StorageError: If the cache cannot be written.
    """
    how = reading or Reading()
    if name is None:
        name = "records" if is_records(source) else _paths(source)[0].name
    options = {"split": how.split, "positive_from": how.positive_from, "lenient": how.on_error is not None}
    options["blank_negatives"] = how.blank_negatives
    kept = {name: value for name, value in asdict(limits).items() if name != "vectors" or value}
    folder = _cache_folder("pairs", source, tokenizer, {**kept, **options}, cache)

    def write(writer: RowWriter) -> dict[str, Any]:
        info = {"rows": 0, "max_negatives": 0, "scored": 0, "truncated": 0, "skipped": 0}
        widths: set[int] = set()

        def count_skipped(place: Place) -> None:
            info["skipped"] += 1
            if how.on_skip:
                how.on_skip(place)

        examples = _examples(source, name, replace(how, on_skip=count_skipped))
        for chunk in chunked(examples, _CHUNK):
            rows, truncated = _tokenize(chunk, tokenizer, limits)
            for row in rows:
                vectors = row.get("vectors") or ()
                widths.update(map(len, vectors[:1]))
                writer.add(row, 4 * sum(map(len, (row["query"], *row["passages"], *vectors))))
            info["rows"] += len(chunk)
            info["truncated"] += truncated
            info["max_negatives"] = max(info["max_negatives"], *(len(example.neg) for example in chunk))
            info["scored"] += sum(example.pos_scores is not None for example in chunk)
            if progress:
                progress(READING, info["rows"], None)
        if not info["rows"]:
            reason = f"; {info['skipped']} queries have no positive" if info["skipped"] else ""
            raise DataError(
                f"no training example in it{reason}", name if is_records(source) else _paths(source)[0]
            )
        if len(widths) > 1:
            raise DataError(f"teacher_vectors of {sorted(widths)} numbers; expected one width", name)
        return info | {"vector_width": next(iter(widths), 0)}

    schema = _PAIR_SCHEMA.append(_PROMPT) if limits.prompts else _PAIR_SCHEMA
    schema = schema.append(_VECTORS) if limits.vectors else schema
    return PairDataset(open_or_build(folder, schema, write), name, folder.name)


def _examples(source: DataSource, name: str, how: Reading) -> Iterator[Example]:
    if not is_records(source):
        return (example for _, example in read_examples(_paths(source), how))
    records = (
        (Place(name, row), _record(record, name)) for row, record in enumerate(cast(Records, source), start=1)
    )
    return (example for _, example in read_records(records, Place(name), how))


def _record(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise DataError(
            f"iterating over it gives {value!r:.40}; expected records, as of one split of a `datasets.DatasetDict`",
            name,
        )
    return dict(cast("Mapping[str, Any]", value))


def _tokenize(
    examples: Sequence[Example], tokenizer: TextTokenizer, limits: PairLimits
) -> tuple[list[dict[str, Any]], int]:
    """The rows of some examples, and how many texts were cut."""
    queries = tokenizer.encode([limits.query(example) for example in examples], max_length=limits.query_max)
    texts = [text for example in examples for text in example.passages]
    passages = tokenizer.encode(texts, prefix=limits.document_prefix, max_length=limits.passage_max)
    stream = iter([ids.astype(np.int32) for ids in passages.ids])
    rows: list[dict[str, Any]] = []
    for query, example in zip(queries.ids, examples, strict=True):
        own = list(islice(stream, len(example.passages)))
        scores = None
        if example.pos_scores is not None:
            scores = [*example.pos_scores, *cast(Scores, example.neg_scores)]
        rows.append(
            {
                "query": query.astype(np.int32),
                "passages": own,
                "positives": len(example.pos),
                "scores": scores,
                "id": example.id,
                "language": example.language,
                "length": max(map(len, (query, *own))),
                "key": text_key(query),
            }
        )
        if limits.prompts:
            rows[-1]["prompt"] = None if example.prompt is None else tokenizer.prefix_ids(example.prompt)
        if limits.vectors:
            rows[-1]["vectors"] = example.teacher_vectors
    return rows, queries.truncated + passages.truncated


# Raw texts

_TEXT_SCHEMA = pa.schema([("ids", _IDS), ("language", pa.string()), ("length", pa.int32())])


class TextDataset:
    """Token ids of raw texts by row; made by `open_texts`.

    Attributes:
        name: What reports call it.
        digest: Changes with the content, the tokenizer and the limits.
        lengths: int32 ``[N]``, tokens of each row.
        texts: How many texts the rows are the pieces of.
    """

    def __init__(self, table: RowTable, name: str, digest: str) -> None:
        self._table = table
        self.name, self.digest = name, digest
        self.lengths: NDArray[np.int32] = table.numbers("length")
        self.texts = int(table.info["texts"])

    def __len__(self) -> int:
        return len(self._table)

    def languages(self) -> list[str | None]:
        """What the file says of each row's language."""
        return self._table.texts("language")

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        return np.array(self._table.row(row)["ids"], dtype=np.int32)


def open_texts(
    source: Path | str,
    tokenizer: TextTokenizer,
    max_length: int,
    *,
    lines: bool = False,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> TextDataset:
    """Opens a file or folder of raw texts (see `triptych.collections.training.read_texts`) as token ids.

    A text longer than `max_length` becomes several rows of at most that many tokens, each with the special tokens
    around it, so that nothing is lost; the pieces of a text have equal lengths but for rounding.

    Args:
        source: A file or folder.
        tokenizer: Makes the tokens.
        max_length: Maximum tokens of a row, special ones counted.
        lines: Every line of a .txt file is a text.
        cache: Folder for the data sets; by default `default_cache`.
        progress: Called with the number of texts read so far.

    Raises:
        DataError: For what cannot be read (file and line), or if there is no text at all.
        InputError: If the special tokens leave no room in `max_length`.
        StorageError: If the cache cannot be written.
    """
    room = max_length - len(tokenizer.before) - len(tokenizer.after)
    if room < 1:
        raise InputError(f"open_texts: got max_length {max_length}; expected room for one token more")
    folder = _cache_folder("texts", source, tokenizer, {"max_length": max_length, "lines": lines}, cache)

    def write(writer: RowWriter) -> dict[str, Any]:
        texts = rows = 0
        for chunk in chunked(read_texts(source, lines=lines), _CHUNK):
            encoded = tokenizer.encode([raw.text for raw in chunk], max_length=_UNCUT).ids
            for ids, raw in zip(encoded, chunk, strict=True):
                inner = ids[len(tokenizer.before) : len(ids) - len(tokenizer.after)]
                for part in np.array_split(inner, -(-len(inner) // room)) if len(inner) else ():
                    piece = np.concatenate([tokenizer.before, part, tokenizer.after]).astype(np.int32)
                    writer.add({"ids": piece, "language": raw.language, "length": len(piece)}, 4 * len(piece))
                    rows += 1
            texts += len(chunk)
            if progress:
                progress(READING, texts, None)
        if not rows:
            raise DataError("no text in it; expected one or more", source)
        return {"texts": texts}

    return TextDataset(open_or_build(folder, _TEXT_SCHEMA, write), Path(source).name, folder.name)


# Several data sets as one


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
        self.offsets = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)

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

    def sources(
        self, *, by_language: bool = False, weights: Sequence[float] | None = None
    ) -> list[SampledSource]:
        """What the sampler draws from: one source per data set, or one per data set and language.

        Args:
            by_language: Divide each data set by its rows' ``lang``; rows without one are a source of their own.
            weights: One number ≥ 0 per data set; all 1 by default.

        Raises:
            InputError: For a wrong number of weights.
        """
        shares = [1.0] * len(self.parts) if weights is None else list(weights)
        if len(shares) != len(self.parts):
            raise InputError(
                f"weights: got {len(shares)} numbers; expected {len(self.parts)}, one per data set"
            )
        sources: list[SampledSource] = []
        for part, start, weight in zip(self.parts, self.offsets, shares, strict=False):
            rows = np.arange(start, start + len(part))
            if not by_language:
                sources.append(SampledSource(part.name, rows, part.lengths, weight))
                continue
            languages = np.array([language or "" for language in part.languages()])
            for language in sorted(set(languages.tolist())):
                own = languages == language
                sources.append(
                    SampledSource(f"{part.name}:{language or '?'}", rows[own], part.lengths[own], weight)
                )
        return sources
