"""Files of an index: durable writes, the lock, the manifest, room on the disk."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from triptych.errors import IndexCorrupt, IndexForeign, IndexLocked, IndexMissing, StorageError
from triptych.index.layout import LAYOUT, Layout

FORMAT = "triptych-index"
MANIFEST = "manifest.json"
LOCK = "lock"
_CLEAN = "closed.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an index says about itself.

    Attributes:
        engine: "exact", "edge" or "server".
        source: From where the model can be loaded again.
        fingerprint: Of the model whose vectors the index holds.
        layout: What is stored, and how.
    """

    engine: str
    source: str
    fingerprint: str
    layout: Layout

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "format": FORMAT,
            "version": LAYOUT,
            "engine": self.engine,
            "model": {"source": self.source, "fingerprint": self.fingerprint},
            "layout": self.layout.to_json(),
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
        if found.get("version") != LAYOUT:
            raise IndexForeign(
                f"{place}: got an index of layout version {found.get('version')!r}; this triptych reads version "
                f"{LAYOUT}. Use the triptych that made it, or build it again"
            )
        try:
            model = found["model"]
            texts = found["engine"], model["source"], model["fingerprint"]
            layout = Layout.from_json(found["layout"])
        except (KeyError, TypeError) as error:
            raise IndexCorrupt(f"{place}: the manifest is incomplete ({error!r}); restore it") from error
        if not all(isinstance(text, str) for text in texts):
            raise IndexCorrupt(
                f"{place}: the manifest has {texts!r}; expected the engine and the model's names"
            )
        return cls(*texts, layout)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the index in a folder.

    Raises:
        IndexMissing: If there is no index.
        IndexForeign: If it is of another layout version.
        IndexCorrupt: If it cannot be read.
    """
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        what = "a folder without an index" if folder.is_dir() else "a file" if folder.exists() else "nothing"
        raise IndexMissing(f"{folder}: found {what}; expected an index made by Index.create") from None
    except OSError as error:
        raise IndexCorrupt(f"{path}: cannot be read: {error}") from error
    try:
        value = json.loads(text)
    except ValueError as error:
        raise IndexCorrupt(
            f"{path}: got something that is not JSON ({error}); restore it from a copy"
        ) from error
    return Manifest.from_json(value, str(folder))


def write_file(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Writes a file so that it appears whole or not at all, also after a loss of power.

    Raises:
        StorageError: If it could not be written; what was at `path` is unchanged.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        raise storage_error(f"{path}: could not be written", error) from error


def write_json(path: Path, value: object) -> None:
    """Writes JSON by `write_file`."""
    write_file(
        path, lambda file: file.write(json.dumps(value, ensure_ascii=False, indent=2).encode() + b"\n")
    )


def sync_folder(folder: Path) -> None:
    """Makes renames and new files in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def storage_error(what: str, error: BaseException) -> StorageError:
    """A StorageError that keeps the system's error number, where there is one."""
    message = f"{what}: {error}. Nothing that was acknowledged before is lost"
    if isinstance(error, OSError) and error.errno:
        return StorageError(error.errno, message)
    return StorageError(message)


class FolderLock:
    """Keeps all others, in this process and in others, from the index in a folder until `close`.

    The lock is the operating system's, so that it ends with the process whatever its end.

    Raises:
        IndexLocked: If another holds it.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / LOCK
        try:
            self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise storage_error(f"{path}: cannot be opened", error) from error
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._handle)
            self._handle = None
            raise IndexLocked(
                f"{folder}: the index is open elsewhere, in this process or another; an index in a folder can be "
                "open once at a time. Close it there first, or put it on a server"
            ) from None

    def close(self) -> None:
        """Gives the lock back."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


class CloseRecord:
    """What a properly closed index in a folder looked like: its files with their sizes, and its documents.

    An engine may open damaged files with documents missing, or trim them first. The record shows the damage before
    the engine touches anything. It exists only while the index is closed: after a kill there is none.
    """

    def __init__(self, folder: Path, data: Path) -> None:
        self._path = folder / _CLEAN
        self._data = data

    def check_files(self) -> int | None:
        """Compares the files with the record; returns the number of documents, or None without a record.

        Raises:
            IndexCorrupt: Naming the first file that differs.
        """
        try:
            record = json.loads(self._path.read_bytes())
            expected, documents = dict(record["files"]), int(record["documents"])
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise IndexCorrupt(f"{self._path}: cannot be read ({error!r}); restore it from a copy") from error
        found = self._sizes()
        for name in sorted(expected.keys() | found.keys()):
            if found.get(name) != expected.get(name):
                raise IndexCorrupt(
                    f"{self._data / name}: found {_size(found.get(name))}; expected {_size(expected.get(name))}, as "
                    "when the index was closed. Restore it from a copy, or build the index again"
                )
        return documents

    def write(self, documents: int) -> None:
        """Records the state of an index whose engine is closed."""
        write_json(self._path, {"documents": documents, "files": self._sizes()})

    def remove(self) -> None:
        """To be called when the engine is open: from now on anything may change."""
        self._path.unlink(missing_ok=True)

    def _sizes(self) -> dict[str, int]:
        files = (path for path in self._data.rglob("*") if path.is_file())
        return {path.relative_to(self._data).as_posix(): path.stat().st_size for path in files}


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
