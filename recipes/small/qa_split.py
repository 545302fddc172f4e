"""Training text for the conversion, and a development split of it that is cut by article.

Records are JSON lines in zstd. Two kinds are understood: questions on a passage (`s` set, `l` language,
`a` article, `t` passage, `q` questions, each a string or [language, question, the same in the passage's
language]), and documents (`k` key, `l` language, `p` = [[index, kind, paragraph], …]).
"""

from __future__ import annotations

import io
import json
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zstandard

from triptych.errors import DataError
from triptych.text import digest

DEVELOPMENT = 10
"""Every so manieth article is development."""


@dataclass(frozen=True, slots=True)
class Passage:
    """A passage with the questions that it answers; a paragraph of a document has none."""

    source: str
    language: str
    article: str
    text: str
    questions: tuple[str, ...] = ()

    @property
    def number(self) -> int:
        """A number that depends on the text alone: the order in which samples are drawn."""
        return digest(self.text)

    @property
    def is_development(self) -> bool:
        """Whether the article is set aside. A set without articles is cut by passage."""
        return digest(f"{self.source}\t{self.article or self.text}") % DEVELOPMENT == 0


def read(paths: Iterable[Path]) -> Iterator[Passage]:
    """Reads all passages and paragraphs; refuses records that are marked as evaluation.

    Raises:
        DataError: For a record of another form, or one of an evaluation set.
    """
    for path in paths:
        for number, record in enumerate(_records(path), start=1):
            if record.get("u", "train") != "train":
                raise DataError("an evaluation record; expected training text alone", path, number)
            try:
                yield from _passages(record)
            except (KeyError, TypeError, ValueError) as error:
                raise DataError(
                    f"neither a passage with questions nor a document: {error!r}", path, number
                ) from error


def _records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as stream:
        for line in io.TextIOWrapper(stream, encoding="utf-8"):
            yield json.loads(line)


def _passages(record: dict[str, Any]) -> Iterator[Passage]:
    if "q" in record:
        questions = tuple(each if isinstance(each, str) else each[-1] for each in record["q"])
        yield Passage(record["s"], record["l"], record["a"], record["t"], questions)
    else:
        for _, kind, text in record["p"]:
            if not kind and len(text) >= 40:
                yield Passage(record["s"], record["l"], record["k"], text)


def sample(passages: Iterable[Passage], each: int, *, by: str = "source language") -> list[Passage]:
    """At most `each` passages of every group, those with the smallest numbers, each text once.

    Args:
        passages: To choose from.
        each: Most passages of a group.
        by: Names of the attributes that make the groups.
    """
    groups: dict[tuple[str, ...], dict[str, Passage]] = defaultdict(dict)
    for passage in passages:
        groups[tuple(getattr(passage, name) for name in by.split())][passage.text] = passage
    chosen: list[Passage] = []
    for key in sorted(groups):
        chosen += sorted(groups[key].values(), key=lambda passage: passage.number)[:each]
    return chosen
