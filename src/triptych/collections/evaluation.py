"""Test collections of what readers yield: of tables, or of labelled queries."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from hashlib import blake2b
from pathlib import Path

import numpy as np

from triptych.collections.base import (
    METRICS,
    Collection,
    Document,
    Excluded,
    FileCorpus,
    Grades,
    Qrels,
    Wanted,
)
from triptych.collections.joined import Dropped, Item, JudgedPassage, Judgement, Tables, Text, contradiction
from triptych.errors import DataError

_FIRST_LOOK = 1024


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
    qrels = _whole(grades_of(tables.judgements, tables.qrels), tables.qrels, wanted.warn)
    if tables.all_judged:
        qrels = {query: qrels.get(query, {}) for query in queries} | qrels
    name = tables.name or facts.name
    own = tables.ignore_identical_ids if wanted.ignore_identical_ids is None else wanted.ignore_identical_ids
    judged = _keep_judged(queries, qrels, tables.qrels, wanted.warn)
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
    one query. The collection is as hard as its negatives, and unjudged passages count as not relevant.

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
            _keep_judged(queries, qrels[language], files[0], wanted.warn),
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


def _text_id(passage: JudgedPassage) -> str:
    return blake2b(passage.content.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


_FINEST = 1_000_000
"""The highest relevance that fractions are multiplied up to: trec_eval holds a counter for each level."""


def _whole(qrels: Grades, where: Path, warn: Callable[[str], None] | None) -> Grades:
    """The judgements in whole numbers, for the metrics of trec_eval, which know no fractions.

    All are multiplied by one number, which changes no order, no share and so no nDCG, and keeps what is relevant so:
    cut down to whole numbers, 0.5 would become "not relevant".
    """
    values = {value for docs in qrels.values() for value in docs.values()}
    factor = math.lcm(*(Fraction(repr(value)).denominator for value in values))
    if factor == 1:
        return qrels
    highest = max(map(abs, values))
    factor = min(factor, max(1, _FINEST / highest))
    if warn is not None:
        warn(f"{where}: has fractions of relevance; all were multiplied by {factor:g} for the metrics")

    def scaled(value: float) -> float:
        return max(1, round(value * factor)) if value > 0 else round(value * factor)

    return {query: {doc: scaled(value) for doc, value in docs.items()} for query, docs in qrels.items()}


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


def _keep_judged(
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
