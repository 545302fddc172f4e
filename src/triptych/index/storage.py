"""Files of an index in a folder: the lock, the manifest, the seal of a closed index, room on the disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import weakref
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from triptych.errors import (
    IndexCorrupt,
    IndexFault,
    IndexForeign,
    IndexLocked,
    IndexMissing,
    InputError,
    StorageError,
)
from triptych.index.layout import READABLE, Layout
from triptych.io import write_json
from triptych.types import HeadWeights

FORMAT = "triptych-index"
MANIFEST = "manifest.json"
LOCK = "lock"
SEAL = "closed.json"
DATA = "data"
ENGINES = ("edge", "exact", "server", "postgres")
"""Engines that a manifest may name."""

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_QUICK = 1 << 26
"""Opening compares digests while the files hold at most this many bytes; above it only `check` does."""
_REUSE = 1 << 24
"""The digest of a file larger than this is taken from the last seal while its size and time are unchanged."""
_UNREADABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)
_READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index says about itself.

    Attributes:
        engine: "exact", "edge", "server" or "postgres".
        source: From where the model can be loaded again.
        fingerprint: Of the model whose vectors the index holds.
        layout: What is stored, and how.
        weights: Of the scores, for searches that name none; None: the usual ones.
    """

    engine: str
    source: str
    fingerprint: str
    layout: Layout
    weights: HeadWeights | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object; weights are in it only if there are some."""
        weights = {} if self.weights is None else {"weights": list(self.weights)}
        return {
            "format": FORMAT,
            "version": self.layout.version,
            "engine": self.engine,
            "model": {"source": self.source, "fingerprint": self.fingerprint},
            "layout": self.layout.to_json(),
            **weights,
        }

    @classmethod
    def from_json(cls, value: object, place: str) -> Manifest:
        """Reads a manifest.

        Raises:
            IndexMissing: If `value` is a JSON object of something else.
            IndexForeign: If it is of another layout version.
            IndexCorrupt: If fields are missing.
        """
        if not isinstance(value, dict) or cast(dict[str, Any], value).get("format") != FORMAT:
            raise IndexMissing(
                f"{place}: got something that is not an index; expected one made by Index.create"
            )
        found = cast(dict[str, Any], value)
        if found.get("version") not in READABLE:
            raise IndexForeign(
                f"{place}: got an index of layout version {found.get('version')!r}; this triptych reads the "
                f"versions {', '.join(map(str, READABLE))}. Use the triptych that made it, or build it again"
            )
        if found.get("engine") not in ENGINES and isinstance(found.get("engine"), str):
            raise IndexForeign(
                f"{place}: got an index of the engine {found['engine']!r}; expected one of {', '.join(ENGINES)}"
            )
        try:
            model = found["model"]
            texts = found["engine"], model["source"], model["fingerprint"]
            layout = Layout.from_json(found["layout"])
            weights = found.get("weights")
            weights = None if weights is None else HeadWeights.of(weights)
        except (KeyError, TypeError, InputError) as error:
            raise IndexCorrupt(f"{place}: the manifest is incomplete ({error!r}); restore it") from error
        if not all(isinstance(text, str) for text in texts):
            raise IndexCorrupt(
                f"{place}: the manifest has {texts!r}; expected the engine and the model's names"
            )
        return cls(*texts, layout, weights)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes a manifest with its digest."""
    write_json(folder / MANIFEST, _with_digest(manifest.to_json()))


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the index in a folder.

    Raises:
        IndexMissing: If there is no index.
        IndexForeign: If it is of another layout version.
        IndexCorrupt: If its bytes are not those that were written.
        IndexFault: If it cannot be read for another reason.
    """
    path = folder / MANIFEST
    try:
        value = _read_json(path)
    except (FileNotFoundError, NotADirectoryError):
        what = "a folder without an index" if folder.is_dir() else "a file" if folder.exists() else "nothing"
        raise IndexMissing(f"{folder}: found {what}; expected an index made by Index.create") from None
    manifest = Manifest.from_json(value, str(folder))
    _check_digest(path, value)
    return manifest


def _with_digest(value: Mapping[str, Any]) -> dict[str, Any]:
    return {**value, "digest": _digest_of(value)}


def _digest_of(value: Mapping[str, Any]) -> str:
    text = json.dumps({name: part for name, part in value.items() if name != "digest"}, sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _read_json(path: Path) -> Any:
    """The value of one of our JSON files.

    Raises:
        FileNotFoundError: Or NotADirectoryError, if there is none.
        IndexCorrupt: If it is not JSON.
    """
    try:
        value = json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise read_error(path, error) from error
    except (ValueError, RecursionError) as error:
        raise IndexCorrupt(
            f"{path}: got something that is not JSON ({error}); restore it from a copy"
        ) from error
    return value


def _check_digest(path: Path, value: Mapping[str, Any]) -> None:
    """Raises IndexCorrupt if a JSON object is not what was written; one of an older version has no digest."""
    if value.get("digest", _digest_of(value)) != _digest_of(value):
        raise IndexCorrupt(f"{path}: is damaged (its digest differs); restore it from a copy")


def storage_error(what: str, error: BaseException) -> StorageError:
    """A StorageError that keeps the system's error number, where there is one."""
    message = f"{what}: {error}. Nothing that was acknowledged before is lost"
    if isinstance(error, OSError) and error.errno:
        return StorageError(error.errno, message)
    return StorageError(message)


def read_error(what: object, error: BaseException) -> IndexFault:
    """The error for files that could not be read: only what is wrong with the files themselves is damage."""
    number = error.errno if isinstance(error, OSError) else None
    if number is None and (match := re.search(r"os error (\d+)", str(error))):
        number = int(match[1])
    words = str(error).lower()
    if (
        isinstance(error, MemoryError)
        or number == errno.ENOMEM
        or "out of memory" in words
        or "allocat" in words
    ):
        return IndexFault(
            f"{what}: there is not enough memory to read it ({error}); the files were left as they are"
        )
    if "wouldblock" in words:
        return IndexLocked(
            f"{what}: is open elsewhere, perhaps in a process that was forked while it was open"
        )
    if number in _UNREADABLE:
        return IndexFault(f"{what}: cannot be read now ({error}); the files were left as they are")
    return IndexCorrupt(f"{what}: is damaged ({error}); restore it from a copy, or build the index again")


_locks: weakref.WeakSet[FolderLock] = weakref.WeakSet()


class FolderLock:
    """Keeps all others, in this process and in others, from the index in a folder until `close`.

    The lock is the operating system's, so that it ends with the process whatever its end, and with this object.
    In a folder that cannot be written, or is to be read alone, it is shared with other readers.

    Args:
        folder: The folder.
        read_only: Whether it is to be read alone.

    Attributes:
        folder: The folder, without links.
        read_only: Whether it is to be read alone, or cannot be written.

    Raises:
        IndexLocked: If another holds it.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        path = folder / LOCK
        self.folder = folder.resolve()
        self.read_only = read_only
        self._handle: int | None = None
        try:
            usual = os.O_RDONLY if read_only else os.O_RDWR | os.O_CREAT
            self._handle = os.open(path, usual | os.O_CLOEXEC, 0o644)
        except OSError as error:
            if error.errno not in _READ_ONLY and not (read_only and error.errno == errno.ENOENT):
                raise storage_error(f"{path}: cannot be opened", error) from error
            self.read_only = True
            with contextlib.suppress(OSError):  # without the file no writer has it open
                self._handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        if self._handle is None:
            return
        _locks.add(self)
        try:
            fcntl.flock(self._handle, (fcntl.LOCK_SH if self.read_only else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError:
            self.close()
            raise IndexLocked(
                f"{folder}: the index is open elsewhere, in this process or another; an index in a folder can be "
                "open once at a time. Close it there first; or let `triptych serve` open it, which any number of "
                "programs can ask"
            ) from None

    def close(self) -> None:
        """Releases the lock."""
        if self._handle is not None:
            handle, self._handle = self._handle, None
            os.close(handle)

    def __del__(self) -> None:
        self.close()


def _release_in_child() -> None:
    """A forked child has a copy of every handle, and would keep our lock and the engine's after the parent is gone.

    The engine's handles are not ours to close; they become ones of /dev/null.
    """
    folders = [str(lock.folder) + os.sep for lock in _locks]
    for lock in list(_locks):
        lock.close()
    handles = Path("/proc/self/fd")
    for handle in list(handles.iterdir()) if folders and handles.exists() else []:
        with contextlib.suppress(OSError):
            if str(handle.readlink()).startswith(tuple(folders)):
                nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                os.dup2(nothing, int(handle.name), inheritable=False)
                os.close(nothing)


os.register_at_fork(after_in_child=_release_in_child)


class FileFacts(NamedTuple):
    """A file of a closed index: bytes, time of its last change in ns, digest ("" where an engine has its own)."""

    size: int
    time: int
    digest: str


class Seal:
    """The files of a properly closed index with their digests, and the number of its documents.

    An engine may open damaged files with documents missing, or trim them first. The seal shows the damage before
    the engine touches anything, and is withdrawn before it does: whenever a process is killed, there is none that
    describes other files. Files that are not in it are someone else's and ignored.

    Args:
        folder: The index.
        digests: Whether files get digests; an engine whose files hold their own needs none.
    """

    def __init__(self, folder: Path, digests: bool) -> None:
        self._path = folder / SEAL
        self._data = folder / DATA
        self._digests = digests
        self._known: Mapping[str, FileFacts] = {}
        self._record: Mapping[str, Any] | None = None

    def verify(self, *, quick: bool) -> int | None:
        """Compares the files with the seal.

        Args:
            quick: Do not read the files if they are large.

        Returns:
            The number of documents, or None without a seal.

        Raises:
            IndexCorrupt: Naming the first file that differs.
        """
        documents = self.read()
        problem = next(self.problems(quick=quick), None)
        if problem is not None:
            _check_digest(self._path, cast(Mapping[str, Any], self._record))
            raise IndexCorrupt(problem)
        return documents

    def read(self) -> int | None:
        """Reads the seal; the number of documents, or None without a seal.

        Raises:
            IndexCorrupt: If it is not what was written.
        """
        try:
            record = _read_json(self._path)
        except FileNotFoundError:
            return None
        try:
            self._known = {
                name: FileFacts(*facts) if isinstance(facts, list) else FileFacts(int(facts), 0, "")
                for name, facts in dict(record["files"]).items()
            }
            documents = int(record["documents"])
        except (ValueError, KeyError, TypeError) as error:
            raise IndexCorrupt(f"{self._path}: cannot be read ({error!r}); restore it from a copy") from error
        self._record = record
        return documents

    def problems(self, *, quick: bool) -> Iterator[str]:
        """What differs from the seal, a sentence for each file."""
        for name, facts in sorted(self._known.items()):
            path = self._data / name
            size = path.stat().st_size if path.is_file() else None
            if size != facts.size:
                yield (
                    f"{path}: found {_size(size)}; expected {_size(facts.size)}, as when the index was closed. "
                    "Restore it from a copy, or build the index again"
                )
        if quick and sum(_data_bytes(self._data / name) for name in self._known) > _QUICK:
            return
        for name, facts in sorted(self._known.items()):
            path = self._data / name
            whole = path.is_file() and path.stat().st_size == facts.size
            if facts.digest and whole and _digest(path) != facts.digest:
                yield (
                    f"{path}: is damaged (its digest differs from when the index was closed). Restore it from a "
                    "copy, or build the index again"
                )

    def write(self, documents: int) -> None:
        """Records the state of an index whose engine is closed."""
        files: dict[str, FileFacts] = {}
        for path in self._data.rglob("*"):
            if path.is_file():
                name, status = path.relative_to(self._data).as_posix(), path.stat()
                old = self._known.get(name)
                size, time = status.st_size, status.st_mtime_ns
                if not self._digests:
                    digest = ""
                elif old and old.digest and size > _REUSE and (old.size, old.time) == (size, time):
                    digest = old.digest
                else:
                    digest = _digest(path)
                files[name] = FileFacts(size, time, digest)
        self._known = files
        write_json(self._path, _with_digest({"documents": documents, "files": files}))

    @property
    def lists_files(self) -> bool:
        """Whether it tells more than the number of documents."""
        return bool(self._known)

    def withdraw(self, documents: int | None) -> None:
        """To be called before the engine is opened, which may change any file; only the count is still certain."""
        if documents is not None:
            write_json(self._path, _with_digest({"documents": documents, "files": {}}))

    def remove(self) -> None:
        """To be called before documents may change."""
        self._path.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    """Digest of a file's bytes. Blocks of zeros are skipped, since an engine's files are large and nearly empty."""
    found = hashlib.blake2b(digest_size=16)
    try:
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            for start in _filled(file.fileno(), size):
                file.seek(start)
                data = file.read(_CHUNK)
                if data != _ZEROS[: len(data)]:
                    found.update(start.to_bytes(8, "little"))
                    found.update(data)
    except OSError as error:
        raise read_error(path, error) from error
    found.update(size.to_bytes(8, "little"))
    return found.hexdigest()


def _filled(handle: int, size: int) -> Iterator[int]:
    """Starts of the chunks that are not holes of a sparse file."""
    start = 0
    while start < size:
        try:
            start = max(start, os.lseek(handle, start, os.SEEK_DATA) // _CHUNK * _CHUNK)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole from here
                return
            if error.errno != errno.EINVAL:
                raise
        yield start
        start += _CHUNK


def copy_sparse(source: Path, target: Path) -> None:
    """Copies a folder; blocks of zeros take no room."""
    for path in sorted(source.rglob("*")):
        copy = target / path.relative_to(source)
        if path.is_dir():
            copy.mkdir(parents=True, exist_ok=True)
        elif path.is_file():
            copy.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb", buffering=0) as old, copy.open("wb") as new:
                size = os.fstat(old.fileno()).st_size
                for start in _filled(old.fileno(), size):
                    old.seek(start)
                    data = old.read(_CHUNK)
                    if data != _ZEROS[: len(data)]:
                        new.seek(start)
                        new.write(data)
                new.truncate(size)


def _data_bytes(path: Path) -> int:
    return path.stat().st_blocks * 512 if path.exists() else 0


def _size(size: int | None) -> str:
    return "no file" if size is None else f"{size:,} bytes"


def check_room(folder: Path, needed: int, what: str) -> None:
    """Refuses a step that needs more room than the disk has.

    Raises:
        StorageError: Naming both numbers.
    """
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"{folder}: the disk has {free / 1e6:.0f} MB left, and {what} may need {needed / 1e6:.0f} MB. Make room "
            "and try again; nothing that was acknowledged before is lost"
        )


def folder_size(folder: Path) -> int:
    """Bytes that the files under a folder take on the disk (sparse files: what is written of them)."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


@contextlib.contextmanager
def no_panics() -> Generator[None]:
    """Turns a panic of a Rust library into a RuntimeError.

    PyO3 derives its PanicException from BaseException, past every ``except Exception``, and gives it no name
    that could be imported.
    """
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(f"the engine panicked: {error}") from error
