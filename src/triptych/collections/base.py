"""Test collections as values: a corpus that can be streamed again and again, queries, judgements.

What a reader of test collections is asked and gives, and how it finds its files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, cast

import numpy as np

from triptych.errors import DataError
from triptych.types import Floats

METRICS: tuple[str, ...] = ("nDCG@10", "R@10", "R@100", "RR@10", "AP@100", "Success@5")
"""What is measured where a collection says nothing else; names as in ir-measures."""

ANSWER_RECALL = "AnswerRecall"
"""Our name, as in ``AnswerRecall@20``: the part of the queries with an answer in one of their first k documents."""


class Document(NamedTuple):
    """A document: its id, and its text with the title in front."""

    id: str
    text: str


class Corpus(Protocol):
    """Documents that can be read from the beginning any number of times, and need not fit in memory."""

    @property
    def digest(self) -> str:
        """Hex digest of the content: corpora of the same digest are encoded once."""
        ...

    @property
    def size(self) -> int | None:
        """Number of documents; None where only reading it tells."""
        ...

    def __iter__(self) -> Iterator[Document]:
        """The documents, always in the same order."""
        ...


@dataclass(frozen=True, slots=True)
class MemoryCorpus:
    """A corpus in memory.

    Attributes:
        documents: In order.
        digest: See `Corpus`.
    """

    documents: tuple[Document, ...]
    digest: str

    @classmethod
    def of(cls, documents: Mapping[str, str] | Iterable[Document]) -> MemoryCorpus:
        """Takes documents, or a mapping from id to text."""
        if isinstance(documents, Mapping):
            kept = tuple(Document(*item) for item in cast(Mapping[str, str], documents).items())
        else:
            kept = tuple(documents)
        digest = hashlib.blake2b(digest_size=16)
        for part in (part for document in kept for part in document):
            data = part.encode("utf-8", "surrogatepass")
            digest.update(len(data).to_bytes(8, "little") + data)
        return cls(kept, digest.hexdigest())

    @property
    def size(self) -> int:
        """Number of documents."""
        return len(self.documents)

    def __iter__(self) -> Iterator[Document]:
        return iter(self.documents)


@dataclass(frozen=True, slots=True)
class FileCorpus:
    """A corpus in files, read anew each time.

    Attributes:
        read: Gives the documents from the beginning.
        digest: See `Corpus`.
        size: See `Corpus`.
    """

    read: Callable[[], Iterator[Document]]
    digest: str
    size: int | None = None

    @classmethod
    def of(
        cls, read: Callable[[], Iterator[Document]], files: Sequence[Path], kind: str, size: int | None = None
    ) -> FileCorpus:
        """Takes the digest of the files' bytes.

        Args:
            read: Gives the documents from the beginning.
            files: All that `read` reads.
            kind: Name of the format and whatever else decides which documents come out of the same bytes.
            size: Number of documents, where it is known.

        Raises:
            DataError: If a file cannot be read.
        """
        return cls(read, digest_of(files, kind), size)

    def __iter__(self) -> Iterator[Document]:
        return self.read()


def digest_of(files: Iterable[Path], kind: str) -> str:
    """Hex digest of the bytes of files, in their order, and of `kind`.

    Raises:
        DataError: If a file cannot be read.
    """
    digest = hashlib.blake2b(kind.encode(), digest_size=16)
    for path in files:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "blake2b").digest())
        except OSError as error:
            raise DataError(f"cannot be read: {error.strerror or error}", path) from error
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Collection:
    """Queries with judgements over a corpus.

    Attributes:
        name: Of the data set, such as "miracl".
        subset: Language or pair of languages (of query and document), such as "de", "en-zh"; "" if there is one.
        corpus: What is searched. Collections may share one.
        queries: Query id to text.
        qrels: Query id to {document id: relevance}; above 0 is relevant.
        excluded: Query id to documents that are left out of its ranking, such as the query's own document, or
            translations of the answer that are neither right nor wrong.
        answers: Query id to strings of which a passage has to contain one (MKQA); None: judged by `qrels`.
        split: Name of the split, such as "dev".
        metrics: Names as in ir-measures, or ``AnswerRecall@k``.
        licence: Of the data.
        citation: Of the data.
    """

    name: str
    subset: str
    corpus: Corpus
    queries: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]
    excluded: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    answers: Mapping[str, tuple[str, ...]] | None = None
    split: str = "test"
    metrics: tuple[str, ...] = METRICS
    licence: str = ""
    citation: str = ""

    @property
    def label(self) -> str:
        """Name and subset, as in ``miracl/de``."""
        return f"{self.name}/{self.subset}" if self.subset else self.name


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
        ignore_identical_ids: Whether BEIR folders leave a document out of a query's ranking whose id is the query's,
            even if it is relevant, as BEIR's own evaluation does.
    """

    subsets: tuple[str, ...] = ()
    split: str | None = None
    warn: Callable[[str], None] | None = None
    ignore_identical_ids: bool = True

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


@dataclass(frozen=True, slots=True, eq=False)
class Ranked:
    """The ranking of one query.

    Attributes:
        documents: Ids, the best first.
        scores: float32, descending; equal ones are in the order of the ids.
    """

    documents: tuple[str, ...]
    scores: Floats

    @classmethod
    def of(cls, scores: Mapping[str, float]) -> Ranked:
        """Orders documents by falling score, equal ones by id."""
        order = sorted(scores.items(), key=lambda item: (-item[1], item[0]))
        return cls(tuple(id_ for id_, _ in order), np.asarray([score for _, score in order], np.float32))

    def __len__(self) -> int:
        return len(self.documents)


Run: TypeAlias = Mapping[str, Ranked]
"""Query id to its ranking."""
