"""Checks the index in a folder against its digests, and repairs what can be repaired."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from triptych.errors import IndexCorrupt, IndexFault, InputError
from triptych.index.documents import check_place
from triptych.index.exact import SegmentFolder
from triptych.index.postgres_link import hide_password, is_postgres
from triptych.index.storage import (
    DATA,
    FolderLock,
    Manifest,
    Seal,
    check_room,
    copy_sparse,
    folder_size,
    read_manifest,
)
from triptych.index.store import is_address, load_engine, open_store

if TYPE_CHECKING:
    from triptych.index.postgres import PostgresEngine

DAMAGED = "damaged"
"""Folder within the index to which `repair` moves files that cannot be read."""


@dataclass(frozen=True, slots=True)
class IndexHealth:
    """What a check found.

    Attributes:
        place: The folder.
        engine: Its engine.
        closed: Whether it was closed properly, so that its digests could be compared.
        documents: How many there are; None if that cannot be told.
        problems: A sentence for each damaged file.
        moved: Files that a repair put aside, relative to the folder.
    """

    place: str
    engine: str
    closed: bool
    documents: int | None
    problems: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


def check(place: str | Path) -> IndexHealth:
    """Reads all files of the index in a folder and compares them with their digests; changes nothing.

    An index that was not closed properly has no digests of the embedded engine's files: a copy is opened. In PostgreSQL
    all rows are read, and what filters ask for is compared with the metadata.

    Raises:
        InputError: For the address of a Qdrant server.
        IndexMissing: If there is no index.
        IndexLocked: If it is open.
        IndexCorrupt: If its manifest cannot be read.
    """
    if is_postgres(str(place)):
        return _check_postgres(str(place))
    folder = _folder(place)
    manifest = read_manifest(folder)
    lock = FolderLock(folder)
    try:
        return _check(folder, manifest)
    finally:
        lock.close()


def repair(place: str | Path) -> IndexHealth:
    """Makes the index in a folder one that can be opened, with all documents that can still be read.

    Files that cannot be read are moved to ``damaged/`` within the folder. With the exact engine the documents of
    these files are lost, and documents that they had deleted or replaced come back; with the embedded engine a
    damaged write-ahead log or segment is left out. Adding all documents again completes the index.

    Raises:
        InputError: For a server's address.
        IndexMissing: If there is no index.
        IndexLocked: If it is open.
        IndexCorrupt: If nothing helps; the files are as they were then.
    """
    folder = _folder(place)
    manifest = read_manifest(folder)
    lock = FolderLock(folder)
    moved: list[str] = []
    try:
        if lock.read_only:
            raise IndexFault(f"{folder}: the folder cannot be written; expected one that can")
        health = _check(folder, manifest)
        if health.problems or not health.closed:
            if manifest.engine == "exact":
                moved = SegmentFolder(folder / DATA, manifest.layout).salvage(folder / DAMAGED)
            elif health.problems:
                moved = _repair_edge(folder, manifest)
            Seal(folder, digests=True).remove()
    finally:
        lock.close()
    open_store(str(folder)).close()  # which seals it
    lock = FolderLock(folder)
    try:
        after = _check(folder, manifest)
    finally:
        lock.close()
    return IndexHealth(
        after.place, after.engine, after.closed, after.documents, after.problems, tuple(sorted(moved))
    )


def _check_postgres(place: str) -> IndexHealth:
    store = open_store(place, read_only=True)
    try:
        engine = cast("PostgresEngine", store.engine)
        problems = tuple(engine.problems())
        return IndexHealth(store.place, "postgres", True, engine.count(), problems)
    finally:
        store.close()


def _folder(place: str | Path) -> Path:
    text = check_place(place)
    if is_address(text):
        shown = hide_password(text)
        raise InputError(
            f"index: got the address {shown!r}; expected a folder: a server checks its own files"
        )
    return Path(text).absolute()


def _check(folder: Path, manifest: Manifest) -> IndexHealth:
    seal = Seal(folder, digests=True)
    problems: list[str] = []
    documents: int | None = None
    closed = False
    try:
        documents = seal.read()
        closed = documents is not None and seal.lists_files
        problems += seal.problems(quick=False)
    except IndexCorrupt as error:
        problems.append(str(error))
    if manifest.engine == "exact":
        problems += SegmentFolder(folder / DATA, manifest.layout, read_only=True).problems()
    if not problems and (manifest.engine == "exact" or not closed):
        try:
            found = _count_copy(folder, manifest)
        except IndexCorrupt as error:
            problems.append(str(error))
        else:
            if documents is not None and found != documents:
                problems.append(
                    f"{folder}: found {found} documents; expected {documents}, as when it was closed"
                )
            documents = found
    return IndexHealth(str(folder), manifest.engine, closed, None if problems else documents, tuple(problems))


def _count_copy(folder: Path, manifest: Manifest) -> int:
    """The number of documents, without changing a file: the embedded engine is given a copy."""
    if manifest.engine == "exact":
        return load_engine(manifest, folder / DATA, read_only=True).count()
    with _copied(folder) as copy:
        engine = load_engine(manifest, Path(copy) / DATA)
        try:
            return engine.count()
        finally:
            engine.close()


def _copied(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A copy of the engine's files, beside the index so that it can be renamed to their place."""
    check_room(folder, folder_size(folder / DATA), "a copy of the index")
    copy = tempfile.TemporaryDirectory(prefix=".copy-", dir=folder)
    copy_sparse(folder / DATA, Path(copy.name) / DATA)
    return copy


def _repair_edge(folder: Path, manifest: Manifest) -> list[str]:
    """Leaves out the write-ahead log, or one segment, or both; takes what keeps the most documents."""
    segments = [path.name for path in sorted((folder / DATA / "segments").glob("*")) if path.is_dir()]
    options: list[Sequence[str]] = [[], ["wal"], *([f"segments/{name}"] for name in segments)]
    options += [["wal", f"segments/{name}"] for name in segments]
    best, kept = None, -1
    for without in options:
        try:
            with _copied(folder) as copy:
                found = _count_without(Path(copy) / DATA, manifest, without)
        except IndexFault:
            continue
        if found > kept:
            best, kept = without, found
    if best is None:
        raise IndexCorrupt(
            f"{folder}: the engine cannot read its files; restore them from a copy, or build it again"
        )
    with _copied(folder) as copy:
        _count_without(Path(copy) / DATA, manifest, best)
        target = folder / DAMAGED
        if target.exists():
            shutil.rmtree(target)
        (folder / DATA).rename(target)
        (Path(copy) / DATA).rename(folder / DATA)
    return [f"{DAMAGED}/{name}" for name in best] or [DAMAGED]


def _count_without(data: Path, manifest: Manifest, without: Sequence[str]) -> int:
    for name in without:
        shutil.rmtree(data / name)
        if name == "wal":
            (data / name).mkdir()
    engine = load_engine(manifest, data)
    try:
        # Every payload is read, since a damaged one may be noticed only then.
        return sum(
            payload is not None for payload in engine.fetch([engine.key(name) for name in engine.ids()])
        )
    finally:
        engine.close()
