"""Test collections as values: a corpus that can be streamed again and again, queries, judgements; and rankings."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias, cast

import numpy as np

from triptych.collections.joined import Dropped, Item, Judgement, Passage, Tables, Text, contradiction
from triptych.errors import DataError
from triptych.types import Floats

METRICS: tuple[str, ...] = ("nDCG@10", "R@10", "R@100", "RR@10", "AP@100", "Success@5")
"""What is measured where a collection says nothing else; names as in ir-measures."""

ANSWER_RECALL = "AnswerRecall"
"""Our name, as in ``AnswerRecall@20``: the part of the queries with an answer in one of their first k documents."""

_FIRST_LOOK = 1024


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


@dataclass(frozen=True, slots=True)
class Facts:
    """What is the same for all test collections of a data set; fields as in `Collection`."""

    name: str
    split: str = "test"
    metrics: tuple[str, ...] = METRICS
    license: str = ""
    citation: str = ""


def collection_of(
    tables: Tables, facts: Facts, wanted: Wanted, corpora: dict[tuple[Path, ...], FileCorpus]
) -> Collection:
    """The test collection of a data set in parts; the corpus is read when it is iterated.

    Args:
        tables: The parts.
        facts: Of the data set.
        wanted: What is wanted.
        corpora: The corpora of this data set by their files, so that several sets share one; added to.

    Raises:
        DataError: As the readers of the parts; for a blank query, an id that is there twice, a judged query that is
            not there, contradicting judgements, or no query with a relevant document.
    """
    files = tuple(tables.files)
    if files not in corpora:
        read = tables.documents
        corpora[files] = FileCorpus.of(lambda: distinct(read), files, facts.name)
    queries = {query.id: query.text for query in _unique(tables.queries)}
    qrels = grades_of(map(_whole, tables.judgements), tables.qrels)
    if tables.all_judged:
        qrels = {query: qrels.get(query, {}) for query in queries} | qrels
    name = tables.name or facts.name
    own = tables.ignore_identical_ids if wanted.ignore_identical_ids is None else wanted.ignore_identical_ids
    judged = _judged(queries, qrels, tables.qrels, wanted.warn)
    _warn_of_own(judged, own, tables.qrels, wanted.warn)
    return Collection(
        name,
        tables.subset,
        corpora[files],
        {query: queries[query] for query in judged},
        judged,
        Excluded(tables.excluded, judged, own),
        split=tables.split or facts.split,
        metrics=tables.metrics or facts.metrics,
        license=tables.license or facts.license,
        citation=facts.citation,
    )


def collections_of_items(
    read: Callable[[], Iterator[Item]], facts: Facts, wanted: Wanted, files: Sequence[Path], by_language: bool
) -> Iterator[Collection]:
    """Test collections of queries that bring their passages: the passages of all together are the corpus.

    A document's id is made of its text, so that a passage of several queries is one document, and equal queries are
    one query. The collection is as hard as its negatives, and passages that nobody judged count as not relevant.

    Args:
        read: Reads the queries from the beginning.
        facts: Of the data set.
        wanted: What is wanted.
        files: All that `read` reads.
        by_language: Whether each language is a subset of its own.

    Raises:
        DataError: As the reader, and for a query id that is there twice.
    """
    ids: dict[str, dict[str, str]] = {}
    qrels: dict[str, Grades] = {}
    dropped = 0
    for item in read():
        if isinstance(item, Dropped):
            dropped += 1
            continue
        language = (item.language or "") if by_language else ""
        known, judged = ids.setdefault(language, {}), qrels.setdefault(language, {})
        query = known.setdefault(item.query, item.id or str(len(known)))
        values = judged.setdefault(query, {})
        if len(judged) != len(known):
            raise item.place.error(f"duplicate query id {query!r}; expected one for each query")
        for passage in item.neg:
            values.setdefault(_text_id(passage), 0)
        values.update({_text_id(passage): 1 for passage in item.pos})
    if dropped and wanted.warn is not None:
        wanted.warn(f"{files[0]}: {dropped} queries have no positive and are left out")
    for language, known in ids.items():
        documents = partial(_passages, read, language if by_language else None)
        corpus = FileCorpus.of(documents, files, f"{facts.name}/{language}" if language else "training")
        queries = {id_: text for text, id_ in known.items()}
        yield Collection(
            facts.name,
            language,
            corpus,
            queries,
            _judged(queries, qrels[language], files[0], wanted.warn),
            split=facts.split,
            metrics=facts.metrics,
            license=facts.license,
            citation=facts.citation,
        )


def _passages(read: Callable[[], Iterator[Item]], language: str | None) -> Iterator[Document]:
    seen: set[str] = set()
    for item in read():
        if isinstance(item, Dropped) or language not in (None, item.language or ""):
            continue
        for passage in (*item.pos, *item.neg):
            id_ = _text_id(passage)
            if id_ not in seen:
                seen.add(id_)
                yield Document(id_, passage.content)


def _text_id(passage: Passage) -> str:
    return blake2b(passage.content.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def _whole(judgement: Judgement) -> Judgement:
    """A judgement for the metrics of trec_eval, which know no fractions.

    Raises:
        DataError: For a fraction: cut down to a whole number, 0.5 would become "not relevant".
    """
    if judgement.value != int(judgement.value):
        message = (
            f"relevance {judgement.value:g}; expected a whole number (multiply all: 1 and 2 for 0.5 and 1)"
        )
        raise judgement.place.error(message)
    return judgement


def grades_of(judgements: Iterable[Judgement], where: Path) -> Grades:
    """Judgements as a mapping from query to {document: relevance}.

    Raises:
        DataError: If there are none, or for a second judgement of a pair that differs from the first.
    """
    qrels: Grades = {}
    for query, document, value, place in judgements:
        before = qrels.setdefault(query, {}).setdefault(document, value)
        if before != value:
            raise place.error(contradiction(query, document, before, value))
    if not qrels:
        raise DataError("no judgement in this file", where)
    return qrels


def _unique(queries: Iterable[Text]) -> Iterator[Text]:
    seen: set[str] = set()
    for query in queries:
        if query.id in seen:
            raise query.place.error(f"duplicate query id {query.id!r}; expected each id once")
        if not query.text.strip():
            raise query.place.error(f"query {query.id!r} is blank; expected text")
        seen.add(query.id)
        yield query


def _judged(
    queries: Mapping[str, str], qrels: Grades, where: Path, warn: Callable[[str], None] | None
) -> Qrels:
    """The judgements of the queries that have a relevant document; how many have none is told."""
    unknown = next((query for query in qrels if query not in queries), None)
    if unknown is not None:
        raise DataError(f"query {unknown!r} is judged here, but is not among the queries", where)
    kept = {
        query: {doc: int(value) for doc, value in docs.items()}
        for query, docs in qrels.items()
        if any(value > 0 for value in docs.values())
    }
    if not kept:
        raise DataError("no query has a relevant document (relevance above 0)", where)
    if len(kept) < len(qrels) and warn is not None:
        left = len(qrels) - len(kept)
        warn(f"{where}: {left} of {len(qrels)} queries have no relevant document and are left out")
    return kept


def _warn_of_own(qrels: Qrels, own: bool, where: Path, warn: Callable[[str], None] | None) -> None:
    count = sum(docs.get(query, 0) > 0 for query, docs in qrels.items())
    if count and own and warn is not None:
        warn(
            f"{where}: {count} queries have a relevant document with their own id; as in BEIR's evaluation it is left "
            "out of the ranking and counts as not found (ignore_identical_ids=False keeps it)"
        )


def distinct(read: Callable[[], Iterator[Text]]) -> Iterator[Document]:
    """The documents of a corpus, as long as no id comes twice. 8 bytes are held of each.

    Whether one does is looked for whenever the number of documents has doubled, and at the end.

    Raises:
        DataError: For an id that came before, with its place.
    """
    digests = array("Q")
    due = _FIRST_LOOK
    for document in read():
        digests.append(_digest(document.id))
        yield Document(document.id, document.content)
        if len(digests) == due:
            _refuse_twins(digests, read)
            due *= 2
    _refuse_twins(digests, read)


def _refuse_twins(digests: array[int], read: Callable[[], Iterator[Text]]) -> None:
    ordered = np.sort(np.frombuffer(digests, np.uint64)) if digests else np.zeros(0, np.uint64)
    twice = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    seen: set[str] = set()
    for document in read() if twice else ():
        if _digest(document.id) in twice:
            if document.id in seen:
                raise document.place.error(f"duplicate id {document.id!r}; expected each id once")
            seen.add(document.id)


def _digest(id_: str) -> int:
    return int.from_bytes(blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


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
