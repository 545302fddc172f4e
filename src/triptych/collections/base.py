"""Test collections as values: a corpus that can be streamed again and again, queries, judgements; and rankings."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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


Qrels: TypeAlias = Mapping[str, Mapping[str, int]]
"""Query id to {document id: relevance}."""
Grades: TypeAlias = dict[str, dict[str, float]]
"""The same, where a relevance may be a fraction."""


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
        license: Of the data.
        citation: Of the data.
    """

    name: str
    subset: str
    corpus: Corpus
    queries: Mapping[str, str]
    qrels: Qrels
    excluded: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    answers: Mapping[str, tuple[str, ...]] | None = None
    split: str = "test"
    metrics: tuple[str, ...] = METRICS
    license: str = ""
    citation: str = ""

    @property
    def label(self) -> str:
        """Name and subset, as in ``miracl/de``."""
        return f"{self.name}/{self.subset}" if self.subset else self.name


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is wanted of a data set for evaluation.

    Attributes:
        subsets: Shell patterns for subsets, such as "de" or "en-*", or for labels, such as "xquad/*"; none: all.
        split: Name of the split; None: the one that the data set is usually judged by.
        warn: Called with a sentence for each kind of thing that was left out, with its number.
        ignore_identical_ids: Whether a document with the query's own id is left out of its ranking; None: in BEIR
            folders, as BEIR's own evaluation does, and nowhere else.
    """

    subsets: tuple[str, ...] = ()
    split: str | None = None
    warn: Callable[[str], None] | None = None
    ignore_identical_ids: bool | None = None


class Excluded(Mapping[str, frozenset[str]]):
    """Documents that are left out of each judged query's ranking; subsets share the groups and differ in the rest.

    Args:
        groups: Query id to documents, of which those that are relevant stay.
        qrels: Query id to {document id: relevance}.
        own: Whether a document with the query's own id is left out too, relevant or not.
    """

    def __init__(self, groups: Mapping[str, frozenset[str]], qrels: Qrels, own: bool) -> None:
        self._groups = groups
        self._qrels = qrels
        self._own = own

    def __getitem__(self, query: str) -> frozenset[str]:
        relevant = {doc for doc, value in self._qrels[query].items() if value > 0}
        if query not in self._groups and not self._own:
            raise KeyError(query)
        rest = self._groups.get(query, frozenset[str]()) - relevant
        return rest | {query} if self._own else rest

    def __iter__(self) -> Iterator[str]:
        return (query for query in self._qrels if self._own or query in self._groups)

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
