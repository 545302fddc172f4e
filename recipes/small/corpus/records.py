"""Passages with people's questions, and files: JSON Lines in Zstandard, the same bytes every time."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

from triptych.io import open_source, read_lines, write_atomically
from triptych.records import Place, parse_object

LEVEL = 6
"""Of compression; what travels is packed harder."""


class Question(NamedTuple):
    """A question as it was asked, and its language."""

    text: str
    lang: str


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage with the questions that people asked on it.

    Attributes:
        source: The collection.
        lang: Language of the passage.
        article: What it is part of; "" if that is not known.
        text: The passage.
        questions: In its language or another.
        licence: SPDX expression.
    """

    source: str
    lang: str
    article: str
    text: str
    questions: tuple[Question, ...] = ()
    licence: str = ""


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file, decompressed.

    Raises:
        DataError: For a file that cannot be read, or a line that is no object.
    """
    with open_source(path) as source:
        for line in read_lines(source):
            yield parse_object(line.text, Place(source.name, line.number))


def write(path: Path, records: Iterable[Mapping[str, Any]], level: int = LEVEL) -> int:
    """Writes JSON Lines, compressed where the name ends in .zst.

    Returns:
        The number of records.
    """
    lines = [json.dumps(record, ensure_ascii=False, separators=(",", ":")) + "\n" for record in records]
    content = "".join(lines).encode()
    if path.suffix == ".zst":
        content = zstandard.ZstdCompressor(level=level).compress(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, content)
    return len(lines)
