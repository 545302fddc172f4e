"""Rows in an Arrow IPC file: written once as a stream, memory-mapped afterwards, any row at once."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from triptych.errors import DataError, StorageError
from triptych.io import sync_folder, write_digests, write_json

ROWS_FILE = "rows.arrow"
INFO_FILE = "info.json"
_MAX_ROWS, _MAX_BYTES = 1024, 16 << 20  # of a record batch


class RowWriter:
    """Collects rows into record batches of at most 1,024 rows and about 16 MB.

    Args:
        sink: An open Arrow IPC writer.
        schema: Names and types of the columns.
    """

    def __init__(self, sink: Any, schema: Any) -> None:
        self._sink, self._schema = sink, schema
        self._rows: list[Mapping[str, Any]] = []
        self._bytes = 0

    def add(self, row: Mapping[str, Any], size: int) -> None:
        """Adds a row of about `size` bytes."""
        self._rows.append(row)
        self._bytes += size
        if len(self._rows) >= _MAX_ROWS or self._bytes >= _MAX_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what was collected."""
        if self._rows:
            self._sink.write_batch(pa.RecordBatch.from_pylist(self._rows, schema=self._schema))
            self._rows, self._bytes = [], 0


class RowTable:
    """The rows of a folder that `open_or_build` made, mapped into memory.

    Args:
        folder: The folder.

    Attributes:
        batches: Arrow's record batches: views into the mapped file.
        info: What the writer said of the rows.

    Raises:
        DataError: If its files cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        try:
            self.info: dict[str, Any] = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
            reader = pa.ipc.open_file(pa.memory_map(str(folder / ROWS_FILE)))
            self.batches: list[Any] = [reader.get_batch(i) for i in range(reader.num_record_batches)]
        except (OSError, ValueError) as error:  # Arrow's and JSON's errors are ValueErrors
            raise DataError(f"this cache of a data set cannot be read: {error}", folder) from error
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self.batches)], dtype=np.int64)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def row(self, number: int) -> dict[str, Any]:
        """Row `number`, from 0."""
        batch, within = self.locate(number)
        return cast("dict[str, Any]", self.batches[batch].slice(within, 1).to_pylist()[0])

    def locate(self, number: int) -> tuple[int, int]:
        """The record batch that has row `number`, and the row's number in it.

        Raises:
            IndexError: If there is no such row.
        """
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        batch = int(np.searchsorted(self._starts, number, side="right")) - 1
        return batch, number - int(self._starts[batch])

    def numbers(self, name: str) -> NDArray[Any]:
        """A column of numbers, whole."""
        return np.concatenate([batch.column(name).to_numpy(zero_copy_only=False) for batch in self.batches])

    def texts(self, name: str) -> list[str | None]:
        """A column of short texts, whole."""
        return [text for batch in self.batches for text in batch.column(name).to_pylist()]


def open_or_build(folder: Path, schema: Any, write: Callable[[RowWriter], dict[str, Any]]) -> RowTable:
    """Opens the rows of a folder, or makes them; the folder appears whole or not at all.

    Two processes may do this at the same time: the first to finish wins, and both have the same rows. A folder whose
    files cannot be read is built again.

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
        write_digests(new, (new / ROWS_FILE, new / INFO_FILE))
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
        raise StorageError(
            error.errno,
            f"{folder}: cannot be written: {error.strerror or error}; data.cache or the variable TRIPTYCH_CACHE "
            "names another folder",
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)
