"""Records of JSON Lines and Parquet files, one after the other, each with its place."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from triptych.data.records import Place, parse_object
from triptych.data.streams import STDIN, open_source, read_lines
from triptych.errors import DataError

JSONL = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")
COMPRESSED = (".gz", ".zst", ".zstd")
_ROWS = 256  # of a Parquet file held at once


def ending(path: Path) -> str:
    """The ending of a file name in lower case, without a compression's."""
    name = path.name.lower()
    for compression in COMPRESSED:
        name = name.removesuffix(compression)
    return Path(name).suffix


def files_of(path: Path, endings: tuple[str, ...]) -> list[Path]:
    """The file itself, or the files of a folder with one of the endings, in the order of their names.

    Files and folders whose name begins with a dot are passed over.

    Raises:
        DataError: If there is no such path, or the folder has no such file.
    """
    if str(path) == STDIN or path.is_file():
        return [path]
    if not path.exists():
        raise DataError("no such file or folder", path)
    if not path.is_dir():  # a pipe
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if ending(file) in endings
        and file.is_file()
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not found:
        raise DataError(
            f"no file in this folder ends in one of {' '.join(endings)} (or .gz, .zst after it)", path
        )
    return found


def places_of(path: Path) -> Iterator[tuple[Place, str | dict[str, Any]]]:
    """The raw records of a file: lines of JSON still to be parsed, or rows of Parquet.

    A Parquet file is told by its ending; everything else is taken for JSON Lines. Blank lines are passed over.

    Raises:
        DataError: For a file that cannot be read as what it should be.
    """
    if ending(path) in PARQUET:
        yield from _parquet(path)
        return
    with open_source(path) as source:
        for line in read_lines(source):
            if line.text.strip():
                yield Place(source.name, line.number), line.text


def parsed(raw: str | dict[str, Any], place: Place) -> dict[str, Any]:
    """A raw record as a mapping.

    Raises:
        DataError: For a line that is not one JSON object.
    """
    return parse_object(raw, place) if isinstance(raw, str) else raw


def _parquet(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            for batch in file.iter_batches(batch_size=_ROWS):
                for row in cast("list[dict[str, Any]]", batch.to_pylist()):
                    number += 1
                    yield Place(path.as_posix(), number), row
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"not a Parquet file that can be read: {error}", path) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", path) from error
