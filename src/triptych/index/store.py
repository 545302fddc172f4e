"""An index at its place: an engine with its manifest, and for a folder its lock.

A folder holds ``manifest.json``, the lock, the engine's own files under ``data/``, and after a proper close a
record of them. It is made beside its place and renamed to it, so that it is there whole or not at all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias, get_args

from triptych.errors import IndexCorrupt, IndexExists, IndexFault, IndexForeign, InputError
from triptych.index import server
from triptych.index.engine import Engine
from triptych.index.layout import Layout
from triptych.index.storage import (
    MANIFEST,
    CloseRecord,
    FolderLock,
    Manifest,
    read_manifest,
    storage_error,
    sync_folder,
    write_json,
)

EngineName: TypeAlias = Literal["auto", "edge", "exact", "server"]

_DATA = "data"


class Store:
    """An open index: its engine and manifest; `create_store` or `open_store` makes one.

    Attributes:
        place: Folder or address.
        manifest: What the index says about itself.
        engine: The engine.
    """

    def __init__(self, place: str, manifest: Manifest, engine: Engine, lock: FolderLock | None) -> None:
        self.place = place
        self.manifest = manifest
        self.engine = engine
        self._lock = lock
        self._open = True
        self._torn = False

    @property
    def is_open(self) -> bool:
        """Whether `close` has not been called."""
        return self._open

    def check_open(self) -> None:
        """Raises IndexFault after `close`."""
        if not self._open:
            raise IndexFault(f"{self.place}: the index is closed; Index.open opens it again")

    @contextmanager
    def changing(self) -> Generator[Engine]:
        """Gives the engine for a change.

        One that Ctrl-C cuts short may be on disk and not yet in memory: then `close` leaves no count behind, as a kill.
        """
        try:
            yield self.engine
        except BaseException:
            self._torn = True
            raise

    def close(self) -> None:
        """Flushes and frees everything. Twice is no error.

        Raises:
            StorageError: If something could not be written; the lock is given back nevertheless.
        """
        if not self._open:
            return
        self._open = False
        try:
            count = self.engine.count() if self._lock is not None else 0
            self.engine.close()
            if self._lock is not None and not self._torn:
                _record(Path(self.place)).write(count)
        finally:
            self.engine.close()
            if self._lock is not None:
                self._lock.close()


def create_store(
    place: str, engine: EngineName, layout: Layout, model: tuple[str, str], api_key: str | None = None
) -> Store:
    """Makes an empty index.

    Args:
        place: A folder that does not exist (or is empty), or an address (see `triptych.index.server`).
        engine: "auto" is the server for an address and "edge" for a folder.
        layout: What to store.
        model: The model's source and fingerprint.
        api_key: For a server.

    Raises:
        InputError: For an engine that does not go with the place.
        IndexExists: If there is something at the place.
        StorageError: If it cannot be written.
    """
    name = _engine_name(place, engine)
    manifest = Manifest(name, *model, layout)
    if name == "server":
        client, collection = server.connect(place, api_key)
        try:
            return Store(place, manifest, server.create(client, collection, manifest), None)
        except BaseException:
            client.close()
            raise
    folder = Path(place).absolute()
    _make_folder(folder, manifest)
    return open_store(str(folder))


def open_store(place: str, api_key: str | None = None) -> Store:
    """Opens an index.

    Raises:
        IndexMissing: If there is none.
        IndexLocked: If it is open elsewhere.
        IndexCorrupt: If its files cannot be read.
        IndexForeign: If it is of another layout version.
    """
    if server.is_address(place):
        client, collection = server.connect(place, api_key)
        try:
            manifest = server.read_manifest(client, collection)
            return Store(place, manifest, server.load(client, collection, manifest.layout), None)
        except BaseException:
            client.close()
            raise
    folder = Path(place).absolute()
    manifest = read_manifest(folder)
    lock = FolderLock(folder)
    try:
        record = _record(folder)
        documents = record.check_files()
        engine = _load(manifest, folder / _DATA)
        try:
            _check_count(folder, engine.count(), documents)
            record.remove()
        except BaseException:
            engine.close()
            raise
    except BaseException:
        lock.close()
        raise
    return Store(str(folder), manifest, engine, lock)


def _engine_name(place: str, engine: EngineName) -> Literal["edge", "exact", "server"]:
    if engine not in get_args(EngineName):
        raise InputError(f"engine: got {engine!r}; expected one of {', '.join(get_args(EngineName))}")
    remote = server.is_address(place)
    if engine == "auto":
        return "server" if remote else "edge"
    if remote != (engine == "server"):
        expected = "a URL http(s)://host[:port]/collection" if engine == "server" else "a folder"
        raise InputError(f"engine {engine!r}: got the place {place!r}; expected {expected}")
    return engine


def _make_folder(folder: Path, manifest: Manifest) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        what = "an index" if (folder / MANIFEST).exists() else "something"
        raise IndexExists(f"{folder}: there is {what} already; expected a new place, or use Index.open")
    part = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    try:
        try:
            part.mkdir(parents=True)
        except OSError as error:
            raise storage_error(f"{folder}: cannot be made", error) from error
        _create(manifest, part / _DATA).close()
        write_json(part / MANIFEST, manifest.to_json())
        try:
            part.rename(folder)
            sync_folder(folder.parent)
        except OSError as error:
            raise storage_error(f"{folder}: cannot be made", error) from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _record(folder: Path) -> CloseRecord:
    return CloseRecord(folder, folder / _DATA)


def _check_count(folder: Path, found: int, expected: int | None) -> None:
    if expected is not None and found != expected:
        raise IndexCorrupt(
            f"{folder}: found {found} documents; expected {expected}, as when the index was closed. Files of it are "
            "damaged: restore them from a copy, or build the index again"
        )


def _create(manifest: Manifest, data: Path) -> Engine:
    if manifest.engine == "exact":
        from triptych.index.exact import ExactEngine

        return ExactEngine.create(data, manifest.layout)
    from triptych.index import edge

    return edge.create(data, manifest.layout)


def _load(manifest: Manifest, data: Path) -> Engine:
    if manifest.engine == "exact":
        from triptych.index.exact import ExactEngine

        return ExactEngine.open(data, manifest.layout)
    if manifest.engine == "edge":
        from triptych.index import edge

        return edge.load(data, manifest.layout)
    raise IndexForeign(
        f"{data.parent}: got an index of the engine {manifest.engine!r}; expected 'edge' or 'exact'"
    )
