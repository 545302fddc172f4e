"""Brings records that belong together into the same part: files with a compressed frame for each part."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import zstandard
from numpy.typing import NDArray

from triptych.files import replacing

_HELD = 32 << 20  # bytes of text that are held before frames are written
_LEVEL = 1


class ShuffleWriter:
    """Takes lines for parts; made by `shuffling`.

    Args:
        file: Where the frames go.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.frames: list[tuple[int, int, int]] = []
        self._file = file
        self._held: dict[int, list[bytes]] = {}
        self._bytes = 0
        self._offset = 0
        self._compressor = zstandard.ZstdCompressor(level=_LEVEL)

    def add(self, part: int, line: str) -> None:
        """Adds a line (with its line break) to a part."""
        data = line.encode()
        self._held.setdefault(part, []).append(data)
        self._bytes += len(data)
        if self._bytes >= _HELD:
            self.flush()

    def flush(self) -> None:
        """Writes what is held, one frame for each part."""
        for part, lines in sorted(self._held.items()):
            frame = self._compressor.compress(b"".join(lines))
            self._file.write(frame)
            self.frames.append((part, self._offset, len(frame)))
            self._offset += len(frame)
        self._held, self._bytes = {}, 0


@contextmanager
def shuffling(path: Path) -> Generator[ShuffleWriter]:
    """Gives a writer of lines to parts; memory: about 32 MB of text, whatever is written.

    Args:
        path: Where the frames go; the table of the frames (part, offset, length) goes to the same name with
            ``.npy`` after it, last.

    Raises:
        StorageError: If they cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        writer = ShuffleWriter(file)
        yield writer
        writer.flush()
    save(_table(path), np.array(writer.frames, np.int64).reshape(-1, 3))


def read_part(paths: Iterable[Path], part: int) -> Iterator[str]:
    """The lines of a part in all files, in the order of the files and of their writing."""
    decompressor = zstandard.ZstdDecompressor()
    for path in paths:
        frames = np.load(_table(path))
        with path.open("rb") as file:
            for _, offset, length in frames[frames[:, 0] == part].tolist():
                file.seek(offset)
                yield from decompressor.decompress(file.read(length)).decode().split("\n")[:-1]


def is_shuffled(path: Path) -> bool:
    """Whether both files are there."""
    return _table(path).exists()


def save(path: Path, array: NDArray[Any]) -> None:
    """Writes an array as .npy, atomically.

    Raises:
        StorageError: If it cannot be written.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.save(file, array, allow_pickle=False)


def write_lines(path: Path, lines: Iterable[str], level: int = 3) -> int:
    """Writes lines as a Zstandard file, atomically; gives their number. The bytes depend on the lines alone.

    Raises:
        StorageError: If it cannot be written.
    """
    count = 0
    with (
        replacing(path) as temporary,
        temporary.open("wb") as file,
        zstandard.ZstdCompressor(level=level).stream_writer(file, closefd=False) as stream,
    ):
        for line in lines:
            stream.write(line.encode())
            count += 1
    return count


def _table(path: Path) -> Path:
    return path.with_name(path.name + ".npy")
