"""What a data set needs of a tokenizer, so that this layer knows no model.

Rows in an Arrow IPC file: written once as a stream, memory-mapped afterwards, any row at once.

Where measured data sets are kept, and under which names.

Data sets of raw texts on disk, as token ids: for pre-training.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from triptych.collections.training import read_texts, source_files
from triptych.errors import DataError, InputError, StorageError
from triptych.io import sync_folder, write_json


class Encoding(Protocol):
    """Token ids of N texts, and how many texts were cut."""

    @property
    def ids(self) -> Sequence[NDArray[np.int64]]:
        """One array of ids a text, special tokens included."""
        ...

    @property
    def truncated(self) -> int:
        """How many texts were cut."""
        ...


class Tokenizes(Protocol):
    """What a data set needs of a tokenizer; `triptych.model.tokenizer.TextTokenizer` is one.

    Attributes:
        before: Special ids in front of every text.
        after: Special ids behind every text.
    """

    before: NDArray[np.int64]
    after: NDArray[np.int64]

    @property
    def digest(self) -> str:
        """Another one for every other way to tokenise."""
        ...

    def encode(
        self, texts: Sequence[str], *, prefix: str = "", max_length: int, mcls_every: int | None = None
    ) -> Encoding:
        """Tokenises texts, special tokens included, and cuts them to `max_length`."""
        ...


ROWS_FILE = "rows.arrow"
INFO_FILE = "info.json"
_MOST_ROWS = 1024
_MOST_BYTES = 16 << 20


class RowWriter:
    """Collects rows into record batches of at most 1,024 rows and about 16 MB.

    Args:
        sink: An open Arrow IPC writer.
        schema: Names and types of the columns.
    """

    def __init__(self, sink: Any, schema: Any) -> None:
        self._sink = sink
        self._schema = schema
        self._rows: list[Mapping[str, Any]] = []
        self._bytes = 0

    def add(self, row: Mapping[str, Any], size: int) -> None:
        """Adds a row.

        Args:
            row: A value for each column.
            size: About how many bytes it has.
        """
        self._rows.append(row)
        self._bytes += size
        if len(self._rows) >= _MOST_ROWS or self._bytes >= _MOST_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what was collected."""
        if self._rows:
            self._sink.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
            self._rows, self._bytes = [], 0


class RowTable:
    """The rows of a folder that `build` made; nothing is held in memory but where the batches are.

    Args:
        folder: The folder.

    Attributes:
        folder: The same.
        batches: Arrow's record batches: views into the mapped file, a few kilobytes each, whatever they hold.
        info: What `build` was told about the rows.

    Raises:
        DataError: If its files cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.info: dict[str, Any] = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
            reader = pa.ipc.open_file(pa.memory_map(str(folder / ROWS_FILE)))
            self.batches: list[Any] = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (OSError, ValueError) as error:  # Arrow's and JSON's errors are ValueErrors
            raise DataError(f"this cache of a data set cannot be read: {error}", folder) from error
        self._starts = np.concatenate([[0], np.cumsum([batch.num_rows for batch in self.batches])]).astype(
            np.int64
        )

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, number: int) -> dict[str, Any]:
        """Row `number`, from 0.

        Raises:
            IndexError: If there is no such row.
        """
        batch, within = self.place(number)
        return cast("dict[str, Any]", self.batches[batch].slice(within, 1).to_pylist()[0])

    def place(self, number: int) -> tuple[int, int]:
        """The record batch that has row `number`, and the row's number in it.

        Raises:
            IndexError: If there is no such row.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        batch = int(np.searchsorted(self._starts, number, side="right")) - 1
        return batch, number - int(self._starts[batch])

    def numbers(self, name: str) -> NDArray[np.int32]:
        """A column of numbers, whole."""
        parts = [batch.column(name).to_numpy(zero_copy_only=False) for batch in self.batches]
        return np.concatenate([np.zeros(0, np.int32), *parts]).astype(np.int32, copy=False)

    def texts(self, name: str) -> list[str | None]:
        """A column of short texts, whole."""
        return [text for batch in self.batches for text in batch.column(name).to_pylist()]


def open_or_build(folder: Path, schema: Any, write: Callable[[RowWriter], dict[str, Any]]) -> RowTable:
    """Opens the rows of a folder, or makes them; the folder appears whole or not at all.

    Two processes may do this at the same time: the first to finish wins, and both have the same rows. A folder
    whose files cannot be read is made anew.

    Args:
        folder: Its name should say all that the rows depend on.
        schema: Arrow schema of the rows.
        write: Adds all rows to a writer and returns the `RowTable.info`.

    Raises:
        StorageError: If the folder cannot be written.
    """
    if folder.exists():
        try:
            return RowTable(folder)
        except DataError:
            shutil.rmtree(folder, ignore_errors=True)
    with _new_folder(folder) as new:
        with pa.OSFile(str(new / ROWS_FILE), "wb") as file, pa.ipc.new_file(file, schema) as sink:
            writer = RowWriter(sink, schema)
            info = write(writer)
            writer.flush()
        write_json(new / INFO_FILE, info)
    return RowTable(folder)


@contextmanager
def _new_folder(folder: Path) -> Generator[Path]:
    """A temporary folder that takes the name `folder` at the end, unless another one has it by then."""
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        yield temporary
        with (temporary / ROWS_FILE).open("rb") as file:
            os.fsync(file.fileno())
        if not (folder / INFO_FILE).exists():
            temporary.rename(folder)
        sync_folder(folder.parent)
    except StorageError:
        raise
    except OSError as error:
        if (folder / INFO_FILE).exists():  # another process was first
            return
        raise StorageError(error.errno, f"{folder}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


VERSION = 2
"""Of what is stored; another one makes all data sets anew."""

_T = TypeVar("_T")


def default_cache() -> Path:
    """``TRIPTYCH_CACHE``, or ``triptych`` in the user's cache folder."""
    if given := os.environ.get("TRIPTYCH_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "triptych"


def cache_folder(
    kind: str, source: Path | str, tokenizer: Tokenizes, options: dict[str, Any], cache: Path | None
) -> Path:
    """The folder of a data set: its name is a digest of files, tokenizer and options.

    Args:
        kind: What is stored.
        source: A file or folder; every file in it counts with path, size and time of change.
        tokenizer: Its digest counts.
        options: JSON values; all count.
        cache: Folder of all data sets; None: `default_cache`.

    Raises:
        DataError: If there is nothing to read.
    """
    files = [
        (str(file.resolve()), stat.st_size, stat.st_mtime_ns)
        for file in source_files(source, options.get("split", "train"))
        for stat in [file.stat()]
    ]
    key = json.dumps([VERSION, kind, files, tokenizer.digest, options], sort_keys=True)
    digest = hashlib.blake2b(key.encode(), digest_size=16).hexdigest()
    return (cache or default_cache()) / "data" / f"{kind}-{digest}"


def chunked(items: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """Lists of `size` items; the last may be shorter."""
    stream = iter(items)
    return iter(lambda: list(islice(stream, size)), [])


_CHUNK = 64  # texts that are tokenised together
_WHOLE = 1 << 30  # a length that cuts nothing
_SCHEMA = pa.schema([("ids", pa.list_(pa.int32())), ("language", pa.string()), ("length", pa.int32())])


class TextDataset:
    """Token ids of raw texts by row; made by `open_texts`.

    Attributes:
        name: What reports call it.
        lengths: int32 ``[N]``, tokens of each row.
        texts: How many texts the rows are the pieces of.
    """

    def __init__(self, table: RowTable, name: str) -> None:
        self._table = table
        self.name = name
        self.lengths = table.numbers("length")
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
    tokenizer: Tokenizes,
    max_length: int,
    *,
    lines: bool = False,
    cache: Path | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> TextDataset:
    """Opens a file or folder of raw texts (see `triptych.collections.training.read_texts`) as token ids.

    A text longer than `max_length` becomes several rows of at most that many tokens, each with the special
    tokens around it, so that nothing is lost; the pieces of a text have equal lengths but for rounding.

    Args:
        source: A file or folder.
        tokenizer: Makes the tokens.
        max_length: Most tokens of a row, special ones counted.
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
    folder = cache_folder("texts", source, tokenizer, {"max_length": max_length, "lines": lines}, cache)

    def write(writer: RowWriter) -> dict[str, Any]:
        texts = rows = 0
        for chunk in chunked(read_texts(source, lines=lines), _CHUNK):
            encoded = tokenizer.encode([raw.text for raw in chunk], max_length=_WHOLE).ids
            for ids, raw in zip(encoded, chunk, strict=True):
                for piece in _pieces(ids, tokenizer, room):
                    row = {"ids": piece, "language": raw.language, "length": len(piece)}
                    writer.add(row, 4 * len(piece))
                    rows += 1
            texts += len(chunk)
            if progress:
                progress(texts, None)
        if not rows:
            raise DataError("no text in it; expected one or more", source)
        return {"texts": texts}

    return TextDataset(open_or_build(folder, _SCHEMA, write), Path(source).name)


def _pieces(ids: NDArray[np.int64], tokenizer: Tokenizes, room: int) -> Iterator[NDArray[np.int32]]:
    inner = ids[len(tokenizer.before) : len(ids) - len(tokenizer.after)]
    if not len(inner):
        return
    for part in np.array_split(inner, -(-len(inner) // room)):
        yield np.concatenate([tokenizer.before, part, tokenizer.after]).astype(np.int32)
