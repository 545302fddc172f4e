"""The files of a data set, told apart by the names that their publishers gave them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from triptych.data.rows import COMPRESSED
from triptych.errors import DataError

_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz", ".7z")


_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "devel", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("test", "eval"), "test"),
}


class Files:
    """All files below some paths.

    Args:
        paths: Files and folders; folders are read recursively, and what begins with a dot is passed over.

    Raises:
        DataError: For a path that is not there, or an archive, which has to be unpacked first.
    """

    def __init__(self, paths: Sequence[Path | str]) -> None:
        self.roots = [Path(path) for path in paths]
        self.all: list[Path] = []
        for root in self.roots:
            if not root.exists():
                raise DataError("no such file or folder", root)
            self.all += sorted(_below(root)) if root.is_dir() else [root]
        for file in self.all:
            if file in self.roots and file.name.lower().endswith(_ARCHIVES):
                raise DataError("is an archive; unpack it and give the folder", file)

    def matching(self, pattern: str) -> list[Path]:
        """Files whose name, without a compression's ending, is matched whole by a regular expression."""
        return [file for file in self.all if re.fullmatch(pattern, plain_name(file), re.IGNORECASE)]

    def some(self, what: str, *patterns: str) -> list[Path]:
        """The files of the first pattern that any file matches.

        Raises:
            DataError: If none does.
        """
        for pattern in patterns:
            if found := self.matching(pattern):
                return found
        raise DataError(
            f"no {what} among {self._names()}; expected a file named like {' or '.join(map(_readable, patterns))}",
            self.roots[0] if self.roots else None,
        )

    def one(self, what: str, *patterns: str) -> Path:
        """The only file of the first pattern that any file matches.

        Raises:
            DataError: If there is none, or more than one.
        """
        found = self.some(what, *patterns)
        if len(found) > 1:
            names = ", ".join(str(file) for file in found[:4])
            raise DataError(f"several files can be the {what}: {names}; give the one that is meant")
        return found[0]

    def of_split(self, what: str, split: str, *patterns: str) -> list[Path]:
        """The files of the first pattern that any file matches, if they are of the split by their names.

        A file whose name has the name of a split between dots, hyphens and underscores is of that split; files
        without any such name count for every split.

        Raises:
            DataError: If no file matches, or all that match are of other splits.
        """
        found = self.some(what, *patterns)
        named = {file: _split_of(file) for file in found}
        wanted = [file for file, of in named.items() if of is None or of == _SPLITS.get(split, split)]
        if not wanted:
            there = ", ".join(sorted({str(of) for of in named.values()}))
            raise DataError(f"no {what} of the split {split!r}; there are {there}", self.roots[0])
        exact = [file for file in wanted if named[file] is not None]
        return exact or wanted

    def _names(self) -> str:
        names = [file.name for file in self.all[:8]]
        return ", ".join(names) + (", …" if len(self.all) > 8 else "") if names else "no files at all"


def plain_name(file: Path) -> str:
    """A file's name without the ending of a compression."""
    name = file.name
    for end in COMPRESSED:
        if name.lower().endswith(end):
            return name[: -len(end)]
    return name


def _split_of(file: Path) -> str | None:
    parts = re.split(r"[._-]", plain_name(file).lower())
    return next((_SPLITS[part] for part in parts if part in _SPLITS), None)


def _below(folder: Path) -> list[Path]:
    return [
        file
        for file in folder.rglob("*")
        if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]


def _readable(pattern: str) -> str:
    """A pattern as a person would write it."""
    text = pattern.replace("\\", "").replace(".*", "*").replace("[^/]*", "*").replace(".+", "*")
    return re.sub(r"\(\?:([^()]*)\)\??", r"\1", text)
