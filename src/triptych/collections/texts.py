"""Corpora, queries and judgements in the forms that several data sets share."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np

from triptych.collections.base import Document, FileCorpus, Qrels, Queries
from triptych.collections.qrels import read_qrels
from triptych.errors import DataError
from triptych.io import open_source, read_lines
from triptych.records import Fields, Place, parsed, places_of, to_document

FIELDS = Fields(id=("_id", "id", "docid", "doc_id"), text=("text", "contents"))
QUERY_FIELDS = Fields(id=("_id", "id", "qid", "query_id"), text=("text", "query", "question"), title=())

_FIRST_LOOK = 1024


def record_corpus(files: Sequence[Path], kind: str, fields: Fields = FIELDS) -> FileCorpus:
    """Documents of JSON Lines or Parquet, title in front.

    Args:
        files: In order.
        kind: Name of the layout, a part of the digest.
        fields: Names of the fields.
    """

    def read() -> Iterator[tuple[Place, Document]]:
        for file in files:
            for place, raw in places_of(file):
                document = to_document(parsed(raw, place), fields, place)
                yield place, Document(document.id, document.content)

    return FileCorpus.of(lambda: distinct(read), files, kind)


def distinct(read: Callable[[], Iterator[tuple[Place, Document]]]) -> Iterator[Document]:
    """The documents, while no id comes twice. 8 bytes are kept of each.

    Whether one does is looked for whenever the number of documents has doubled, and at the end.

    Raises:
        DataError: For an id that came before, with its place.
    """
    digests = array("Q")
    due = _FIRST_LOOK
    for _, document in read():
        digests.append(_digest(document.id))
        yield document
        if len(digests) == due:
            _refuse_twins(digests, read)
            due *= 2
    _refuse_twins(digests, read)


def _refuse_twins(digests: array[int], read: Callable[[], Iterator[tuple[Place, Document]]]) -> None:
    ordered = np.sort(np.frombuffer(digests, np.uint64)) if digests else np.zeros(0, np.uint64)
    twice = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    seen: set[str] = set()
    for place, document in read() if twice else ():
        if _digest(document.id) in twice:
            if document.id in seen:
                raise place.error(f"duplicate id {document.id!r}; expected each id once")
            seen.add(document.id)


def _digest(id_: str) -> int:
    return int.from_bytes(blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def record_queries(files: Iterable[Path], fields: Fields = QUERY_FIELDS) -> Queries:
    """Queries of JSON Lines or Parquet.

    Raises:
        DataError: For a blank query or an id that is there twice, with its place.
    """
    queries: Queries = {}
    for file in files:
        for place, raw in places_of(file):
            document = to_document(parsed(raw, place), fields, place)
            add_query(queries, document.id, document.text, place)
    return queries


def tsv_queries(path: Path) -> Queries:
    """Queries of a file of ``id TAB text``.

    Raises:
        DataError: For a line of another form, and as `record_queries`.
    """
    queries: Queries = {}
    for place, cells in tsv_rows(path, 2, "id, text"):
        add_query(queries, cells[0], cells[1], place)
    return queries


def add_query(queries: Queries, id_: str, text: str, place: Place) -> None:
    """Adds a query.

    Raises:
        DataError: If it is blank, or the id is there.
    """
    if id_ in queries:
        raise place.error(f"duplicate query id {id_!r}; expected each id once")
    if not text.strip():
        raise place.error(f"query {id_!r} is blank; expected text")
    queries[id_] = text


def tsv_rows(path: Path, columns: int, expected: str) -> Iterator[tuple[Place, list[str]]]:
    """Rows of a file in which a tab separates `columns` cells; blank lines are passed over.

    Raises:
        DataError: For a row of another width.
    """
    with open_source(path) as source:
        for line in read_lines(source):
            if not line.text.strip():
                continue
            place, cells = Place(source.name, line.number), line.text.split("\t")
            if len(cells) != columns:
                raise place.error(f"got {len(cells)} columns; expected {columns}: {expected}")
            yield place, cells


def qrels_of(path: Path) -> Qrels:
    """Judgements of a file in BEIR's or TREC's form.

    Raises:
        DataError: For a line of another form, a relevance that is not a whole number, or a second judgement of the
            same pair that differs from the first.
    """
    qrels: Qrels = {}
    for judgement in read_qrels(path):
        docs = qrels.setdefault(judgement.query, {})
        value = int(judgement.value)
        if value != judgement.value:
            raise DataError(f"relevance {judgement.value}; expected a whole number", path, judgement.line)
        if docs.setdefault(judgement.document, value) != value:
            pair = f"query {judgement.query!r}, document {judgement.document!r}"
            raise DataError(f"{pair} is judged twice, {value} and another value", path, judgement.line)
    if not qrels:
        raise DataError("no judgement in this file", path)
    return qrels


def tevatron(path: Path) -> tuple[Queries, Qrels]:
    """Queries with their passages: ``query_id query positive_passages negative_passages``, as MLDR has them.

    Raises:
        DataError: For a record of another form, and as `record_queries`.
    """
    queries: Queries = {}
    qrels: Qrels = {}
    for place, raw in places_of(path):
        record = parsed(raw, place)
        try:
            id_, text = str(record["query_id"]), str(record["query"])
            judged = {str(passage["docid"]): 0 for passage in record["negative_passages"]}
            judged |= {str(passage["docid"]): 1 for passage in record["positive_passages"]}
        except (KeyError, TypeError) as error:
            expected = "query_id, query, positive_passages and negative_passages with a docid each"
            raise place.error(f"expected {expected}; {error!r}") from None
        add_query(queries, id_, text, place)
        qrels[id_] = judged
    return queries, qrels
