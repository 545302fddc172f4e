"""What lies in the folders that were given: files with the keys that ids are made of, and what is passed over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

from triptych.errors import DataError
from triptych.io import STDIN, printable
from triptych.text import is_utf8

SkipReason: TypeAlias = Literal[
    "unknown kind",
    "no text",
    "page without text (scanned?)",
    "unreadable",
    "extra missing",
    "too large",
    "hidden",
    "an index",
    "no regular file",
    "no UTF-8 name",
]
_INDEX = {"manifest.json", "lock"}  # what lies in the folder of every index
OnSkip: TypeAlias = Callable[[Path, SkipReason], None]


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to be read.

    Attributes:
        path: Where it is, as it was given.
        key: What ids are made of: its path relative to the folder that was given, with ``/`` between its parts, or its
            name if it was given itself.
        root: The folder or file that was given, by its real path; empty for standard input and pipes.
        is_named: Whether it was given itself; such a file is read, or an error.
    """

    path: Path
    key: str
    root: str = ""
    is_named: bool = False


def list_files(
    sources: Iterable[Path | str], is_known: Callable[[Path], bool], on_skip: OnSkip | None = None
) -> list[SourceFile]:
    """The files given, and those in the folders given, each once.

    Two files of the same key get the name of the folder they were found under before it, and of the folders above that
    until they differ.

    Args:
        sources: Files, folders, pipes, and ``-``.
        is_known: Whether a file of a folder is of a kind that can be read.
        on_skip: Called with what is passed over in folders, and why; a hidden folder counts as one.

    Raises:
        DataError: For a folder that cannot be read.
    """
    found: dict[
        str, tuple[SourceFile, Path]
    ] = {}  # by where it really is, with the folder it was found under
    for root in map(Path, sources):
        if str(root) == STDIN or not root.is_dir():
            folder = Path(os.path.realpath(root.parent))
            whole = str(folder / root.name) if root.is_file() else ""
            file = SourceFile(root, printable(root.name), whole, is_named=True)
            found.setdefault(STDIN if str(root) == STDIN else str(folder / root.name), (file, folder))
            continue
        folder = Path(os.path.realpath(root))
        for path in walk(root, on_skip):
            relative = path.relative_to(root)
            if is_known(path):
                found.setdefault(
                    str(folder / relative), (SourceFile(path, relative.as_posix(), str(folder)), folder)
                )
            elif on_skip:
                on_skip(path, "unknown kind")
    counts = Counter(file.key for file, _ in found.values())
    same: dict[str, list[tuple[SourceFile, Path]]] = {}
    for file, folder in found.values():
        if counts[file.key] > 1:
            same.setdefault(file.key, []).append((file, folder))
    longer = {path: key for group in same.values() for path, key in _longer_keys(group).items()}
    return [replace(file, key=longer.get(file.path, file.key)) for file, _ in found.values()]


def _longer_keys(group: list[tuple[SourceFile, Path]]) -> dict[Path, str]:
    """Keys of files of one key, with as many folders before it as make them differ."""
    keys = [file.key for file, _ in group]
    for depth in range(1, max(len(folder.parts) for _, folder in group) + 1):
        keys = [
            printable(Path(*[part for part in folder.parts if part != folder.anchor][-depth:], file.key))
            for file, folder in group
        ]
        if len(set(keys)) == len(keys):
            break
    return {file.path: key for (file, _), key in zip(group, keys, strict=True)}


def walk(folder: Path, on_skip: OnSkip | None = None) -> Iterator[Path]:
    """All files of a folder and its folders, in the order of their names, but for those that begin with a dot.

    Links to folders are not followed, and the folder of an index is left out with all that is in it.

    Args:
        folder: Where to begin.
        on_skip: Called with what is hidden, is no regular file (a pipe, a device, a dead link), or has a name that is
            not UTF-8 and so can be no id.

    Raises:
        DataError: For a folder that cannot be read.
    """

    def fail(error: OSError) -> None:
        raise DataError(f"cannot be read: {error.strerror or error}", printable(error.filename)) from error

    for place, folders, files in os.walk(folder, onerror=fail):
        if set(files) >= _INDEX:
            folders.clear()
            if on_skip:
                on_skip(Path(place), "an index")
            continue
        if on_skip:
            for name in sorted(name for name in folders if name.startswith(".")):
                on_skip(Path(place, name), "hidden")
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(place, name)
            reason: SkipReason | None = (
                "hidden"
                if name.startswith(".")
                else "no UTF-8 name"
                if not is_utf8(path.relative_to(folder))
                else None
                if path.is_file()
                else "no regular file"
            )
            if reason is None:
                yield path
            elif on_skip:
                on_skip(path, reason)
