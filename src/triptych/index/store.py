"""An index at its place: an engine with its manifest, and for a folder its lock.

A folder holds ``manifest.json``, the lock, the engine's own files under ``data/``, and after a proper close a
seal, which tells what they were. It is made beside its place and renamed to it, so that it is there whole or not
at all.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from triptych.errors import IndexCorrupt, IndexExists, IndexFault, InputError
from triptych.index import postgres, server
from triptych.index.documents import check_choice
from triptych.index.engine import Engine
from triptych.index.layout import Layout, check_block
from triptych.index.postgres_link import hide_password, is_postgres, read_address
from triptych.index.storage import (
    DATA,
    MANIFEST,
    FolderLock,
    Manifest,
    Seal,
    check_room,
    copy_sparse,
    folder_size,
    read_error,
    read_manifest,
    storage_error,
    write_manifest,
)
from triptych.io import sync_folder
from triptych.scores.tokens import pool

if TYPE_CHECKING:
    from triptych.index.documents import Payload
    from triptych.index.qdrant import QdrantEngine
    from triptych.types import Encoded, HeadWeights, Ragged

EngineName: TypeAlias = Literal["auto", "edge", "exact", "server", "postgres"]
_PLACES = {
    "server": "a URL http(s)://host[:port]/collection",
    "postgres": "an address postgresql://user@host[:port]/database/collection",
}
_ATTEMPTS = 5
"""How often reading is tried beside a writer that merges files."""


@dataclass(slots=True)
class _Opened:
    """What has to be given back in the end; the seal only if the folder can be written."""

    engine: Engine
    lock: FolderLock | None = None
    seal: Seal | None = None
    temporary: str | None = None
    torn: bool = False
    read_only: bool = False
    process: int = 0

    def __post_init__(self) -> None:
        self.process = os.getpid()

    def close(self) -> None:
        """Flushes and frees everything, unless this is a copy in a forked process."""
        if os.getpid() != self.process:
            return
        try:
            count = self.engine.count() if self.seal is not None else 0
            self.engine.close()
            if self.seal is not None and not self.torn:
                self.seal.write(count)
        finally:
            with suppress(Exception):
                self.engine.close()
            if self.lock is not None:
                self.lock.close()
            if self.temporary is not None:
                shutil.rmtree(self.temporary, ignore_errors=True)


class Store:
    """An open index: its engine and manifest; `create_store` or `open_store` makes one.

    One without references is closed; so are all at the end of the process.

    Attributes:
        place: Folder or address.
        manifest: What the index says about itself.
        engine: The engine.
    """

    def __init__(self, place: str, manifest: Manifest, opened: _Opened) -> None:
        self.place = place
        self.manifest = manifest
        self.engine = opened.engine
        self._since = 0
        self._opened = opened
        self._close = weakref.finalize(self, opened.close)

    @property
    def is_open(self) -> bool:
        """Whether it can be used in this process."""
        return self._close.alive and os.getpid() == self._opened.process

    @property
    def folder(self) -> Path | None:
        """The index's folder; None of a server's."""
        return None if is_address(self.place) else Path(self.place)

    @property
    def is_writable(self) -> bool:
        """Whether it was opened to be changed."""
        lock = self._opened.lock
        return not (self._opened.read_only or (lock is not None and lock.read_only))

    def check_open(self) -> None:
        """Raises IndexFault after `close`, and in a process that was forked from the owner."""
        if not self._close.alive:
            raise IndexFault(f"{self.place}: the index is closed; Index.open opens it again")
        if os.getpid() != self._opened.process:
            raise IndexFault(
                f"{self.place}: the index was opened in process {self._opened.process} and cannot be used in process "
                f"{os.getpid()}, which was forked from it: both would write to the same files. Open it in the worker, "
                "after the parent has closed it, or put it on a server"
            )

    @contextmanager
    def changing(self) -> Generator[Engine]:
        """Gives the engine for a change.

        One that Ctrl-C cuts short may be on disk and not yet in memory: then `close` leaves no seal, as a kill.

        Raises:
            IndexFault: If the index is closed, or was opened in a folder that cannot be written.
        """
        self.check_open()
        if not self.is_writable:
            raise IndexFault(
                f"{self.place}: the index is open for reading alone, since the folder cannot be written or read_only "
                "was asked for"
            )
        try:
            yield self.engine
        except BaseException:
            self._opened.torn = True
            raise

    def add(self, vectors: Encoded, payloads: Sequence[Payload], *, bulk: bool = False) -> None:
        """Adds documents as the layout wants them: with their token vectors pooled, and measured from a frame.

        Args:
            vectors: Of N texts.
            payloads: Of N documents.
            bulk: Whether very many are added, and nobody searches meanwhile: then the embedded engine moves what it
                holds in memory to files, and makes its graph, each time that there are as many as it compares at once.

        Raises:
            InputError: As `Engine.add`.
        """
        layout = self.manifest.layout
        if "multi" in layout.widths and (layout.pool_tokens > 1 or layout.lacks_frame):
            check_block(layout, vectors, payloads, framed=False)
            multi = pool(cast("Ragged", vectors.multi), layout.pool_tokens)
            vectors = replace(vectors, multi=multi)
            if layout.lacks_frame and len(multi.values):
                self._write(replace(self.manifest, layout=layout.fit(multi)))
        with self.changing() as engine:
            engine.add(vectors, payloads)
            self._since += len(payloads) if bulk and self.manifest.engine == "edge" else 0
            if self._since >= max(1, layout.exact_below):
                engine.optimize()
                self._since = 0

    def set_weights(self, weights: HeadWeights | None) -> None:
        """Writes other weights to the manifest, at once or not at all."""
        self._write(replace(self.manifest, weights=weights))

    def _write(self, manifest: Manifest) -> None:
        with self.changing() as engine:
            if self.manifest.engine == "postgres":
                manifest = cast("postgres.PostgresEngine", engine).write_manifest(manifest)
            elif self.folder is None:
                backend = cast("server.ServerBackend", cast("QdrantEngine", engine).backend)
                manifest = backend.write_manifest(manifest)
            else:
                write_manifest(self.folder, manifest)
            engine.layout = manifest.layout
        self.manifest = manifest

    def close(self) -> None:
        """Flushes and frees everything. Twice is no error.

        Raises:
            StorageError: If something could not be written; the lock is given back nevertheless.
        """
        self._close()


def create_store(
    place: str, engine: EngineName, layout: Layout, model: tuple[str, str], api_key: str | None = None
) -> Store:
    """Makes an empty index.

    Args:
        place: A folder that does not exist (or is empty), or an address (see `triptych.index.server`).
        engine: "auto" is the server for an address and "edge" for a folder.
        layout: What to store.
        model: The model's source and fingerprint.
        api_key: For a server; for PostgreSQL the password.

    Raises:
        InputError: For an engine that does not go with the place.
        IndexExists: If there is something at the place.
        StorageError: If it cannot be written.
    """
    name = _engine_name(place, engine)
    manifest = Manifest(name, *model, layout)
    if name == "postgres":
        address = read_address(place, api_key)
        return Store(address.shown, manifest, _Opened(postgres.create(address, manifest)))
    if name == "server":
        client, collection = server.connect(place, api_key)
        try:
            return Store(
                place,
                manifest,
                _Opened(server.create(client, collection, manifest, server.read_options(place))),
            )
        except BaseException:
            client.close()
            raise
    folder = Path(place).absolute()
    _make_folder(folder, manifest)
    return open_store(str(folder))


def find_manifest(place: str, api_key: str | None = None) -> Manifest:
    """What the index at a place says about itself; it is not opened.

    Raises:
        IndexMissing: If there is none.
        IndexCorrupt: If that cannot be read.
        IndexForeign: If it is of another layout version.
    """
    if is_postgres(place):
        engine, manifest = postgres.load(read_address(place, api_key), read_only=True)
        engine.close()
        return manifest
    if not server.is_address(place):
        return read_manifest(Path(place).absolute())
    client, collection = server.connect(place, api_key)
    try:
        return server.read_manifest(client, collection)
    finally:
        client.close()


def open_store(place: str, api_key: str | None = None, *, read_only: bool = False) -> Store:
    """Opens an index.

    Args:
        place: Folder or address.
        api_key: For a server; for PostgreSQL the password.
        read_only: Whether it is not to be changed. Of a folder what it holds now is read, and its lock given back: then
            others may change it.

    Raises:
        IndexMissing: If there is none.
        IndexLocked: If it is open elsewhere.
        IndexCorrupt: If its files cannot be read.
        IndexForeign: If it is of another layout version.
    """
    if is_postgres(place):
        address = read_address(place, api_key)
        opened, manifest = postgres.load(address, read_only=read_only)
        return Store(address.shown, manifest, _Opened(opened, read_only=read_only))
    if server.is_address(place):
        client, collection = server.connect(place, api_key)
        try:
            # An alias is followed once: it may stand for another index later.
            collection = server.resolve(client, collection)
            place = server.place_of(place, collection)
            manifest = server.read_manifest(client, collection)
            opened = _Opened(server.load(client, collection, manifest.layout), read_only=read_only)
            return Store(place, manifest, opened)
        except BaseException:
            client.close()
            raise
    folder = Path(place)
    folder = folder.resolve() if folder.is_symlink() else folder.absolute()  # a link may be switched later
    manifest = read_manifest(folder)
    if read_only and manifest.engine == "exact":
        return Store(str(folder), manifest, _read_beside_writer(folder, manifest))
    lock = FolderLock(folder, read_only=read_only)
    try:
        opened = open_folder(folder, manifest, lock)
        if read_only:
            lock.close()
        return Store(str(folder), manifest, opened)
    except MemoryError as error:
        lock.close()
        raise read_error(folder, error) from error
    except BaseException:
        lock.close()
        raise


def _read_beside_writer(folder: Path, manifest: Manifest) -> _Opened:
    """The exact engine's files never change, and are in memory once read; a writer may only merge them meanwhile."""
    for attempt in range(_ATTEMPTS):
        try:
            return _Opened(load_engine(manifest, folder / DATA, read_only=True), read_only=True)
        except IndexCorrupt:
            if attempt == _ATTEMPTS - 1:
                raise
    raise AssertionError


def open_folder(folder: Path, manifest: Manifest, lock: FolderLock) -> _Opened:
    """Opens the engine in a folder that is locked."""
    seal = Seal(folder, digests=manifest.engine != "exact")
    documents = seal.verify(quick=True)
    if lock.read_only:
        opened = _open_read_only(folder, manifest, lock)
    else:
        seal.withdraw(documents)
        opened = _Opened(load_engine(manifest, folder / DATA), lock, seal)
    try:
        _check_count(folder, opened.engine.count(), documents)
        if not lock.read_only:
            seal.remove()
    except BaseException:
        opened.torn = True
        opened.close()
        raise
    return opened


def _check_count(folder: Path, found: int, expected: int | None) -> None:
    if expected is not None and found != expected:
        raise IndexCorrupt(
            f"{folder}: found {found} documents; expected {expected}, as when the index was closed. Files of it are "
            "damaged: restore them from a copy, or build the index again"
        )


def _open_read_only(folder: Path, manifest: Manifest, lock: FolderLock) -> _Opened:
    """The embedded engine writes even when it only reads: it works on a copy."""
    if manifest.engine == "exact":
        return _Opened(load_engine(manifest, folder / DATA, read_only=True), lock)
    temporary = tempfile.mkdtemp(prefix="triptych-index-")
    try:
        check_room(
            Path(temporary), folder_size(folder / DATA), f"a copy of {folder}, which cannot be written"
        )
        copy_sparse(folder / DATA, Path(temporary) / DATA)
        return _Opened(load_engine(manifest, Path(temporary) / DATA), lock, temporary=temporary)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def is_address(place: str) -> bool:
    """Whether a place is a server's address and not a folder."""
    return is_postgres(place) or server.is_address(place)


def _engine_name(place: str, engine: EngineName) -> Literal["edge", "exact", "server", "postgres"]:
    check_choice(engine, EngineName, "index", "engine")
    remote = "postgres" if is_postgres(place) else "server" if server.is_address(place) else None
    if engine == "auto":
        return remote or "edge"
    if (engine if engine in _PLACES else None) != remote:
        expected = _PLACES.get(engine, "a folder")
        raise InputError(f"engine {engine!r}: got the place {hide_password(place)!r}; expected {expected}")
    return engine


def _make_folder(folder: Path, manifest: Manifest) -> None:
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        what = "an index" if (folder / MANIFEST).exists() else "something"
        raise IndexExists(f"{folder}: there is {what} already; expected a new place, or use Index.open")
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    try:
        try:
            part.mkdir(parents=True)
        except OSError as error:
            raise storage_error(f"{folder}: cannot be made", error) from error
        _create_engine(manifest, part / DATA).close()
        write_manifest(part, manifest)
        try:
            part.rename(folder)
            sync_folder(folder.parent)
        except OSError as error:
            raise storage_error(f"{folder}: cannot be made", error) from error
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


def _create_engine(manifest: Manifest, data: Path) -> Engine:
    if manifest.engine == "exact":
        from triptych.index.exact import ExactEngine

        return ExactEngine.create(data, manifest.layout)
    from triptych.index import edge

    return edge.create(data, manifest.layout)


def load_engine(manifest: Manifest, data: Path, *, read_only: bool = False) -> Engine:
    """The engine of a manifest over its files; only the exact one can leave them as they are."""
    if manifest.engine == "exact":
        from triptych.index.exact import ExactEngine

        return ExactEngine(data, manifest.layout, read_only=read_only)
    if manifest.engine == "edge":
        from triptych.index import edge

        return edge.load(data, manifest.layout)
    raise IndexFault(
        f"{data.parent}: got an index of the engine {manifest.engine!r} in a folder; expected another"
    )
