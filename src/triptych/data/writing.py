"""Writing JSON Lines: whole or not at all, compressed by the ending of the name, the same bytes for the same lines."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from triptych.files import replacing

WriteLine = Callable[[Mapping[str, Any]], None]


@contextmanager
def json_lines(path: Path) -> Generator[WriteLine]:
    """Gives a function that writes one record; the file appears under its name when all are written.

    Args:
        path: ``.gz`` means gzip and ``.zst`` Zstandard; the folder is made if it is not there.

    Raises:
        StorageError: If it cannot be written; an old file is untouched, as it is by any error in between.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as raw, ExitStack() as stack:
        stream: Any = raw
        if path.suffix == ".gz":
            stream = stack.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0))
        elif path.suffix in (".zst", ".zstd"):
            writer = zstandard.ZstdCompressor(level=9).stream_writer(cast(BinaryIO, raw), closefd=False)
            stream = stack.enter_context(writer)

        def write(record: Mapping[str, Any]) -> None:
            line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
            stream.write(line.encode("utf-8", "surrogatepass"))

        yield write
