"""Bytes in and out: files written whole or not at all, and files, pipes and standard input read as checked UTF-8.

What can be wrong with the bytes is found here: a missing file, a cut-off archive, text that is not UTF-8, and a line,
a text or an archive over a limit.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import hashlib
import io
import itertools
import json
import lzma
import mmap
import os
import re
import struct
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, cast

import zstandard

from triptych.errors import DataError, StorageError, TooLarge, TriptychError


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """Gives a temporary path to write to; at the end that file is forced to the disk and renamed to `path`.

    Args:
        path: The file; an old one is replaced at once, or not at all.

    Raises:
        StorageError: If the folder cannot be written (disk full, no permission); an old file is untouched.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        sync_folder(path.parent)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(error.errno, f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that it appears whole or not at all.

    Raises:
        StorageError: If it cannot be written; an old file is untouched.
    """
    with replacing(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: Path, value: Any) -> None:
    """Writes a value as indented JSON, atomically."""
    write_atomically(path, (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode())


DIGESTS = "digests.json"
"""The file of a folder that names its other files with the digests of what was written."""


def file_digest(path: Path) -> str:
    """BLAKE2b of a file's bytes, 16 bytes as hex.

    Raises:
        OSError: If it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    if path.stat().st_size:
        # In one call, which holds the interpreter's lock at no time.
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            digest.update(content)
    return digest.hexdigest()


def write_digests(folder: Path, files: Iterable[Path]) -> None:
    """Writes the digests of files of a folder to `DIGESTS` in it."""
    write_json(folder / DIGESTS, {file.relative_to(folder).as_posix(): file_digest(file) for file in files})


def verify_digests(folder: Path) -> dict[Path, str]:
    """Checks the files of a folder against what `write_digests` wrote.

    Returns:
        What is wrong, by file; empty if all is right, or if the folder has no digests.
    """
    listing = folder / DIGESTS
    if not listing.is_file():
        return {}
    try:
        expected = dict(json.loads(listing.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        return {listing: f"cannot be read ({error}); expected the digests of the files beside it"}
    problems: dict[Path, str] = {}
    for path, digest in ((folder / str(name), digest) for name, digest in expected.items()):
        try:
            damaged = file_digest(path) != digest
        except FileNotFoundError:
            problems[path] = f"missing; {DIGESTS} names it"
        except OSError as error:
            problems[path] = f"cannot be read: {error.strerror}"
        else:
            if damaged:
                problems[path] = (
                    f"is damaged or was changed: its digest is not that in {listing}; restore it, or remove its line "
                    "there if the change is meant"
                )
    return problems


def sync_folder(folder: Path) -> None:
    """Forces a folder's entries to the disk, so that a rename survives a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    """The rights that new files lose; mkstemp gives its files to their owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


STDIN = "-"
MAX_LINE = 1 << 26
"""Bytes of a line, at most (64 MiB): a file without line ends, or a device, is refused before it fills the memory."""
MAX_TEXT = 1 << 28
"""Bytes of a text that is read whole, at most (256 MiB)."""
MAX_RATIO = 500
"""How many times its own size a compressed file may grow once it is over `FREE_SIZE`; text grows some 3 to 30 times."""
FREE_SIZE = 1 << 28
"""Bytes that any compressed file may expand to (256 MiB)."""
BOM = b"\xef\xbb\xbf"
_CHUNK = 1 << 18
_SMALL_CHUNK = 1 << 11  # small, because what comes out may be thousands of times larger
_MEMORY = 1 << 28  # bytes of an xz file's dictionary, at most
# What zipfile raises: broken in several ways; no such member; an unknown method; a password.
_BROKEN_ARCHIVE = (zipfile.BadZipFile, ValueError, struct.error, KeyError, RuntimeError, EOFError, zlib.error)
_PEEK = 512  # bytes that decide on compression and, without a format, on JSON Lines
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_XZ = b"\xfd7zXZ\x00"
_BZIP2 = re.compile(rb"BZh[1-9](?:1AY&SY|\x17rE8P\x90)")
_MAGIC = 10  # bytes of the longest magic number
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


class Line(NamedTuple):
    """A line without its end, and its number from 1."""

    number: int
    text: str


class Source(NamedTuple):
    """An open, decompressed stream with the name that ids and messages use.

    Attributes:
        name: The path as given, with ``/`` between its parts; ``-`` for standard input.
        stream: The bytes, decompressed.
        head: Its first bytes, for guessing; they are still to come from `stream`.
    """

    name: str
    stream: BinaryIO
    head: bytes


class _Chunks(io.RawIOBase):
    """A raw stream over an iterator of byte strings."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # pyright: ignore[reportIncompatibleMethodOverride]
        while not self._left:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._left = memoryview(chunk)
        n = min(len(buffer), len(self._left))
        buffer[:n] = self._left[:n]
        self._left = self._left[n:]
        return n


@contextlib.contextmanager
def open_source(path: Path | str) -> Generator[Source]:
    """Opens a file, a pipe or (for ``-``) standard input, and decompresses gzip, Zstandard, xz and bzip2.

    Compression is told by the first bytes, so that it works on pipes too and a wrong ending does no harm:
    no text begins with such a magic number.

    Raises:
        DataError: For a file that cannot be opened or read, or a broken archive (while reading too).
    """
    name = STDIN if str(path) == STDIN else printable(path)
    with contextlib.ExitStack() as stack:
        with _read_errors(name):
            raw = sys.stdin.buffer if name == STDIN else stack.enter_context(Path(path).open("rb"))
            source = unpack(raw, name)
        yield source


def unpack(raw: BinaryIO, name: str) -> Source:
    """A source over an open stream of bytes, decompressed as `open_source` does."""
    stream, magic = _peek(raw, _MAGIC)
    return Source(name, *_peek(_decompress(stream, magic, name), _PEEK))


def printable(path: Path | str) -> str:
    r"""A path as text, with ``/`` between its parts; bytes that are not UTF-8 are escaped, as in ``\xe9``."""
    name = Path(path).as_posix()
    try:
        return os.fsencode(name).decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a surrogate pair, which is no name of a file
        return name.encode("utf-8", "backslashreplace").decode()


def read_lines(source: Source) -> Iterator[Line]:
    """Lines of a source, ended by LF or CR LF and nothing else; a byte order mark is dropped.

    Raises:
        DataError: For bytes that are not UTF-8, with the line and the offset (after decompression), or a line over
            `MAX_LINE`.
    """
    offset = 0
    with _read_errors(source.name):
        for number, line in enumerate(iter(partial(source.stream.readline, MAX_LINE + 1), b""), start=1):
            if len(line) > MAX_LINE:
                raise TooLarge(_too_long("a line", MAX_LINE), source.name, number)
            skip = len(BOM) if number == 1 and line.startswith(BOM) else 0
            try:
                text = line[skip:].decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(line[skip:], error, offset + skip, source.name, number) from None
            yield Line(number, text.removesuffix("\n").removesuffix("\r"))
            offset += len(line)


def read_text(source: Source) -> str:
    """The whole text of a source, its lines ended by LF.

    Raises:
        DataError: As `read_lines`, and for a text over `MAX_TEXT`.
    """
    lines: list[str] = []
    size = 0
    for line in read_lines(source):
        lines.append(line.text)
        size += len(line.text) + 1
        if size > MAX_TEXT:
            raise TooLarge(_too_long("a text", MAX_TEXT), source.name)
    return "\n".join(lines)


def read_bytes(source: Source) -> bytes:
    """All bytes of a source.

    Raises:
        TooLarge: If there are more than `MAX_TEXT`.
    """
    data = io.BytesIO()
    with _read_errors(source.name):
        # In chunks, as the memory for a read is taken at once.
        for chunk in iter(partial(source.stream.read, _CHUNK), b""):
            data.write(chunk)
            if data.tell() > MAX_TEXT:
                raise TooLarge(f"a file of more than {MAX_TEXT >> 20} MiB, the limit", source.name)
    return data.getvalue()


@contextlib.contextmanager
def open_archive(file: Path | BinaryIO, name: str) -> Generator[zipfile.ZipFile]:
    """Opens a zip archive that does not expand out of all proportion.

    Args:
        file: The archive, or a stream in which one can go back and forth.
        name: For messages.

    Raises:
        DataError: For what is no archive or a broken one (while reading too), an encrypted one, or one that expands
            to more than `FREE_SIZE` and more than `MAX_RATIO` times its size.
    """
    try:
        archive = zipfile.ZipFile(file)
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", name) from error
    except _BROKEN_ARCHIVE as error:
        raise DataError(f"no zip archive that can be read ({error})", name) from error
    with archive:
        size = archive.fp.seek(0, os.SEEK_END) if archive.fp else 0
        expanded = sum(member.file_size for member in archive.infolist())
        if expanded > FREE_SIZE and expanded > MAX_RATIO * size:
            raise _out_of_proportion(name)
        yield archive


@contextlib.contextmanager
def open_member(archive: zipfile.ZipFile, member: str | zipfile.ZipInfo, name: str) -> Generator[BinaryIO]:
    """Opens a member of an archive for reading.

    Raises:
        DataError: If it is not there or cannot be read (while reading too).
    """
    try:
        with archive.open(member) as stream:
            yield cast(BinaryIO, stream)
    except TriptychError:
        raise
    except _BROKEN_ARCHIVE as error:
        raise DataError(f"cannot be unpacked: {error}", name) from error


def read_member(archive: zipfile.ZipFile, member: str, name: str) -> bytes:
    """The bytes of a member of an archive.

    Raises:
        DataError: If it is not there or cannot be read.
        TooLarge: If there are more than `MAX_TEXT`.
    """
    with open_member(archive, member, name) as stream:
        return read_bytes(Source(name, stream, b""))


def _out_of_proportion(name: str) -> TooLarge:
    limit = f"more than {MAX_RATIO} times its size, the limit above {FREE_SIZE >> 20} MiB"
    return TooLarge(f"expands to {limit}; decompress it first if it is what you mean", name)


def _too_long(what: str, limit: int) -> str:
    return f"{what} of more than {limit >> 20} MiB, the limit; expected text in lines"


def _not_utf8(line: bytes, error: UnicodeDecodeError, offset: int, name: str, number: int) -> DataError:
    place = offset + error.start
    if place == 0 and line.startswith(_UTF16):
        return DataError("UTF-16 text; expected UTF-8", name, number)
    return DataError(f"byte 0x{line[error.start]:02x} at offset {place} is not UTF-8", name, number)


@contextlib.contextmanager
def _read_errors(name: str) -> Generator[None]:
    try:
        yield
    except DataError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError, lzma.LZMAError) as error:
        raise DataError(f"broken compressed file ({error})", name) from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror or error}", name) from error


def _peek(stream: BinaryIO, size: int) -> tuple[BinaryIO, bytes]:
    """The first bytes of a stream (fewer only at its end), and the stream from its beginning."""
    head = stream.read(size) or b""
    # read1 gives what a slow pipe has by now; read would wait until the chunk is full.
    rest = iter(lambda: cast(io.BufferedReader, stream).read1(_CHUNK) or b"", b"")
    return io.BufferedReader(_Chunks(itertools.chain([head] if head else [], rest)), _CHUNK), head


class _Metered:
    """A stream that counts the bytes that were read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self.count += len(data)
        return data


def _decompress(stream: BinaryIO, head: bytes, name: str) -> BinaryIO:
    packed = _Metered(stream)
    if head.startswith(_GZIP):
        plain = iter(partial(gzip.GzipFile(fileobj=cast(BinaryIO, packed), mode="rb").read1, _CHUNK), b"")
    elif head.startswith(_ZSTD) or name.lower().endswith((".zst", ".zstd")):
        # The library's own reader takes a cut-off frame for the end of the data.
        plain = _frames(packed, lambda: zstandard.ZstdDecompressor().decompressobj())
    elif head.startswith(_XZ):
        plain = _frames(packed, partial(lzma.LZMADecompressor, memlimit=_MEMORY))
    elif _BZIP2.match(head):
        plain = _frames(packed, bz2.BZ2Decompressor)
    else:
        return stream
    return io.BufferedReader(_Chunks(_limit(plain, packed, name)), _CHUNK)


def _limit(chunks: Iterable[bytes], packed: _Metered, name: str) -> Iterator[bytes]:
    """The chunks, as long as they are not out of all proportion to what was read for them."""
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > FREE_SIZE and size > MAX_RATIO * packed.count:
            raise _out_of_proportion(name)
        yield chunk


def _frames(stream: _Metered, new: Callable[[], Any]) -> Iterator[bytes]:
    """Decompresses all frames of a stream.

    Args:
        stream: The compressed bytes.
        new: Gives a decompressor of one frame.
    """
    frame = None
    for chunk in iter(partial(stream.read, _SMALL_CHUNK), b""):
        data = chunk
        while data:
            frame = frame or new()
            yield frame.decompress(data)
            data = b""
            if frame.eof:
                data, frame = frame.unused_data, None
    if frame is not None:
        raise EOFError("it ends in the middle of a frame")


WriteLine = Callable[[Mapping[str, Any]], None]


@contextmanager
def compressing(path: Path, level: int = 9) -> Generator[BinaryIO]:
    """Opens a file that appears under its name when it is whole; the same content gives the same bytes.

    Args:
        path: ``.gz`` means gzip and ``.zst`` Zstandard; the folder is created.
        level: Of Zstandard.

    Raises:
        StorageError: If it cannot be written; an old file is untouched, as it is by any error in between.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary, temporary.open("wb") as raw, ExitStack() as stack:
        stream: Any = raw
        if path.suffix == ".gz":
            stream = stack.enter_context(gzip.GzipFile("", "wb", fileobj=raw, mtime=0))
        elif path.suffix in (".zst", ".zstd"):
            writer = zstandard.ZstdCompressor(level=level).stream_writer(cast(BinaryIO, raw), closefd=False)
            stream = stack.enter_context(writer)
        yield stream


@contextmanager
def json_lines(path: Path) -> Generator[WriteLine]:
    """Gives a function that writes one record; the file appears under its name when all are written.

    Args:
        path: ``.gz`` means gzip and ``.zst`` Zstandard; the folder is made if it is not there.

    Raises:
        StorageError: If it cannot be written; an old file is untouched, as it is by any error in between.
    """
    with compressing(path) as stream:

        def write(record: Mapping[str, Any]) -> None:
            line = json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
            stream.write(line.encode("utf-8", "surrogatepass"))

        yield write
