"""What the commands read: documents from files, folders and standard input, and queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.cli.failures import say
from triptych.data.documents import read_documents, read_queries
from triptych.data.records import Document, Fields, Query
from triptych.data.streams import STDIN
from triptych.errors import InputError

if TYPE_CHECKING:
    from triptych.cli.options import Format


@dataclass
class Inputs:
    """The documents that a command was given.

    Attributes:
        paths: Files, folders or ``-``.
        format: Their format; None: by their endings.
        fields: Names of their fields.
        skipped: Files of folders that were passed over.
    """

    paths: list[str]
    format: Format | None
    fields: Fields
    skipped: list[Path] = field(default_factory=list[Path])

    def read(self) -> Iterator[Document]:
        """The documents, one after the other."""
        self.skipped.clear()
        chosen: Any = None if self.format is None else self.format.value
        return read_documents(self.paths, format=chosen, fields=self.fields, on_skip=self.skipped.append)

    def blocks(self, size: int) -> Iterator[list[Document]]:
        """The documents in lists of `size`; the last may be shorter."""
        if size < 1:
            raise InputError(f"--block: got {size}; expected at least 1")
        documents = self.read()
        return iter(lambda: list(islice(documents, size)), [])

    def count(self) -> int | None:
        """Reads everything once: finds what is wrong before hours of encoding, and counts the documents.

        Returns:
            How many there are; None where reading twice is impossible (standard input, pipes).
        """
        if any(path == STDIN or not (Path(path).is_dir() or Path(path).is_file()) for path in self.paths):
            return None
        return sum(1 for _ in self.read())

    def note_skipped(self) -> None:
        """Says which files were passed over."""
        if self.skipped:
            names = ", ".join(path.name for path in self.skipped[:3])
            more = ", …" if len(self.skipped) > 3 else ""
            say(f"skipped {len(self.skipped)} files whose ending is not known ({names}{more})")


def metadata_of(document: Document, extra: dict[str, Any] | None = None) -> dict[str, Any]:
    """What is stored beside a document's text: its other fields, its title, and what was given for all."""
    title = {"title": document.title} if document.title else {}
    return {**title, **document.metadata, **(extra or {})}


def queries_of(words: Sequence[str], file: str | None) -> list[Query]:
    """The queries of a command: its words as one, or those of a file.

    Raises:
        InputError: For both, or neither.
    """
    if list(words) == [STDIN]:
        words, file = [], file or STDIN
    if bool(words) == (file is not None):
        raise InputError("search: give either the words of one query or --queries FILE ('-': standard input)")
    if file is not None:
        return list(read_queries(file))
    return [Query("query", " ".join(words))]


def model_name(name: str) -> str:
    """A folder by its whole path, since an index records it and may be opened from elsewhere."""
    path = Path(name).expanduser()
    return str(path.resolve()) if path.is_dir() and name != "small" else name
