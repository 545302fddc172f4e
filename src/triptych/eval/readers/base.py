"""What a reader of test collections is asked and gives, and how it finds its files."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol, TypeAlias

from triptych.errors import DataError
from triptych.eval.collection import METRICS, Collection, Corpus

Queries: TypeAlias = dict[str, str]
Qrels: TypeAlias = dict[str, dict[str, int]]

PACKED = ("", ".gz", ".zst")
"""What a file's name may end in beyond what its layout says."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked of a reader.

    Attributes:
        subsets: Shell patterns for subsets, such as "de" or "en-*", or for labels, such as "xquad/*"; none: all.
        split: Name of the split; None: the one that the data set is usually judged by.
        warn: Called with a sentence for each kind of thing that was left out, with its number.
    """

    subsets: tuple[str, ...] = ()
    split: str | None = None
    warn: Callable[[str], None] | None = None

    def takes(self, subset: str, label: str = "") -> bool:
        """Whether a subset is asked for."""
        names = (subset, label)
        return not self.subsets or any(fnmatchcase(n, pattern) for pattern in self.subsets for n in names)


class Reader(Protocol):
    """Reads a local copy of a data set in its published layout."""

    def __call__(self, path: Path, wanted: Wanted) -> list[Collection]:
        """Reads queries and judgements; the corpora are read when they are iterated.

        Raises:
            DataError: For another layout (saying which files were looked for), a broken line, a query id that is
                there twice, judgements of a query that is not there, or no query with a relevant document.
        """
        ...


@dataclass(frozen=True, slots=True)
class Facts:
    """What is the same for all collections of a data set; fields as in `Collection`."""

    name: str
    metrics: tuple[str, ...] = METRICS
    licence: str = ""
    citation: str = ""


@dataclass(frozen=True, slots=True)
class Judgements:
    """Queries and what is relevant for them.

    Attributes:
        queries: Query id to text.
        qrels: Query id to {document id: relevance}.
        where: The file that errors and warnings name.
        excluded: Query id to documents that are left out of its ranking.
    """

    queries: Queries
    qrels: Qrels
    where: Path
    excluded: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])

    def kept(self, warn: Callable[[str], None] | None) -> tuple[Queries, Qrels]:
        """The judged queries that have a relevant document; how many have none is told.

        Raises:
            DataError: For a judged query that is not there, or if no query is left.
        """
        unknown = next((query for query in self.qrels if query not in self.queries), None)
        if unknown is not None:
            raise DataError(f"query {unknown!r} is judged here, but is not among the queries", self.where)
        kept = {query: docs for query, docs in self.qrels.items() if any(v > 0 for v in docs.values())}
        if not kept:
            raise DataError("no query has a relevant document (relevance above 0)", self.where)
        if len(kept) < len(self.qrels) and warn is not None:
            left = len(self.qrels) - len(kept)
            warn(
                f"{self.where}: {left} of {len(self.qrels)} queries have no relevant document and are left out"
            )
        return {query: self.queries[query] for query in kept}, kept


def make(
    facts: Facts, subset: str, split: str, corpus: Corpus, judgements: Judgements, wanted: Wanted
) -> Collection:
    """A collection of the judged queries."""
    queries, qrels = judgements.kept(wanted.warn)
    return Collection(
        name=facts.name,
        subset=subset,
        corpus=corpus,
        queries=queries,
        qrels=qrels,
        excluded=judgements.excluded,
        split=split,
        metrics=facts.metrics,
        licence=facts.licence,
        citation=facts.citation,
    )


def found(collections: list[Collection], path: Path, wanted: Wanted, layout: str) -> list[Collection]:
    """The collections, if there are any.

    Raises:
        DataError: If there are none: no file of the layout, or nothing that is asked for.
    """
    if not collections:
        asked = f" for {', '.join(wanted.subsets)}" if wanted.subsets else ""
        raise DataError(f"nothing found{asked}; expected {layout}", path)
    return collections


def locate(path: Path, *patterns: str) -> list[Path]:
    """Files below a folder that fit the first pattern that any fits, plain or compressed, in natural order.

    A pattern is looked for in the folder itself, then one and two folders deeper.
    """
    for pattern in patterns:
        for above in ("", "*/", "*/*/"):
            files = {file for end in PACKED for file in path.glob(above + pattern + end) if file.is_file()}
            if files:
                return sorted(files, key=_natural)
    return []


def the_file(path: Path, layout: str, *patterns: str) -> Path:
    """The first file that fits, as `locate` looks for it.

    Raises:
        DataError: If there is none.
    """
    files = locate(path, *patterns)
    if not files:
        raise DataError(f"no {' or '.join(patterns)} (or .gz, .zst) in this folder; expected {layout}", path)
    return files[0]


def folders(path: Path, pattern: str) -> list[Path]:
    """The folder itself if its name fits, or those below it (up to two deep) whose names do, in order."""
    if path.is_dir() and fnmatchcase(path.name, pattern):
        return [path]
    return sorted(each for above in ("", "*/") for each in path.glob(above + pattern) if each.is_dir())


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts numbers in names by value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.as_posix())]


class Without(Mapping[str, frozenset[str]]):
    """Documents to exclude, less those that are relevant: subsets share the first and differ in the second.

    Args:
        groups: Query id to documents.
        qrels: Query id to {document id: relevance}.
    """

    def __init__(self, groups: Mapping[str, frozenset[str]], qrels: Mapping[str, Mapping[str, int]]) -> None:
        self._groups = groups
        self._qrels = qrels

    def __getitem__(self, query: str) -> frozenset[str]:
        return self._groups[query] - {doc for doc, value in self._qrels[query].items() if value > 0}

    def __iter__(self) -> Iterator[str]:
        return (query for query in self._qrels if query in self._groups)

    def __len__(self) -> int:
        return sum(1 for _ in self)
