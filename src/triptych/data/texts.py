"""Data sets of raw texts on disk, as token ids: for pre-training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from triptych.data.arrow import RowTable, RowWriter, open_or_build
from triptych.data.cache import cache_folder, chunked
from triptych.data.tokens import Tokenizes
from triptych.data.training import read_texts
from triptych.errors import DataError, InputError

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
    """Opens a file or folder of raw texts (see `triptych.data.training.read_texts`) as token ids.

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
