"""Queries, judgements and a corpus in files of their own, joined without holding the corpus in memory."""

from __future__ import annotations

import heapq
import sqlite3
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

from triptych.data.beir import Judgement
from triptych.data.labelled.items import Dropped, Item, Labelled, Options, Passage, draw, rank_of
from triptych.data.records import Place

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;
CREATE TABLE judged (query TEXT, doc TEXT, value REAL);
CREATE TABLE docs (id TEXT PRIMARY KEY, title TEXT, text TEXT);
CREATE TABLE wanted (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE asked (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_INDEX = "CREATE INDEX judged_query ON judged (query); INSERT OR IGNORE INTO wanted SELECT doc FROM judged;"
_BLOCK = 500
_POSITIVES = 50  # more than a query has, as a rule, among the negatives that are offered for it


class Text(NamedTuple):
    """A query or a document with its id and its place."""

    id: str
    text: str
    place: Place
    title: str | None = None


class Pair(NamedTuple):
    """A query and a document that is offered as a negative, by their ids."""

    query: str
    document: str


@dataclass(frozen=True, slots=True)
class Collection:
    """A data set in parts, each of which is read once.

    Attributes:
        queries: All queries, judged or not.
        judgements: Which documents were judged for them, and how.
        documents: The corpus.
        qrels: The file of the judgements, for messages.
        negatives: Further documents that do not answer.
        positive_from: The least grade of a positive, unless the options say otherwise.
        language: The language of the queries.
    """

    queries: Iterable[Text]
    judgements: Iterable[Judgement]
    documents: Iterable[Text]
    qrels: Path
    negatives: Iterable[Pair] = ()
    positive_from: float = 1.0
    language: str | None = None


def join(collection: Collection, options: Options) -> Iterator[Item]:
    """The judged queries of a collection, in their order, with the texts of what was judged.

    What is judged stands in a temporary SQLite file meanwhile. Judgements of a document that the corpus lacks, or of
    a query that the queries lack, are dropped aloud: a part of a corpus can be converted.

    Raises:
        DataError: As the readers of the parts.
    """
    least = collection.positive_from if options.positive_from is None else options.positive_from
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(f"{folder}/collection")) as base:
        base.executescript(_SCHEMA)
        base.executemany("INSERT INTO judged VALUES (?, ?, ?)", _grades(collection, least, options))
        if options.negatives != "none":
            base.executemany("INSERT INTO judged VALUES (?, ?, NULL)", _thinned(collection, options))
        base.executescript(_INDEX)
        _store(base, collection.documents)
        for query in collection.queries:
            yield from _item(base, query, collection, least, options)
        left = base.execute(
            "SELECT query, COUNT(*) FROM judged WHERE value IS NOT NULL AND query NOT IN (SELECT id FROM asked) "
            "GROUP BY query"
        )
        for id_, _ in left:
            yield Dropped(Place(str(collection.qrels)), "judged query is not among the queries", str(id_))


def _grades(collection: Collection, least: float, options: Options) -> Iterator[tuple[str, str, float]]:
    for judged in collection.judgements:
        if judged.value >= least or options.negatives != "none":
            yield judged.query, judged.document, judged.value


def _thinned(collection: Collection, options: Options) -> Iterator[tuple[str, str]]:
    """Pairs; of neighbours with one query no more than can be drawn in the end.

    Such files have hundreds of millions of lines. The positives among them are known only later, so that some more
    than `max_negatives` are kept.
    """
    if options.max_negatives is None:
        yield from collection.negatives
        return
    for query, pairs in groupby(collection.negatives, key=lambda pair: pair.query):
        ranked = ((rank_of(options.seed, query, pair.document), pair.document) for pair in pairs)
        for _, document in heapq.nsmallest(options.max_negatives + _POSITIVES, ranked):
            yield query, document


def _store(base: sqlite3.Connection, documents: Iterable[Text]) -> None:
    """Keeps the documents that were judged, looked up in blocks."""
    stream = iter(documents)
    while block := list(islice(stream, _BLOCK)):
        marks = ",".join("?" * len(block))
        found = base.execute(f"SELECT id FROM wanted WHERE id IN ({marks})", [each.id for each in block])
        wanted = {row[0] for row in found}
        for each in block:
            if each.id in wanted:
                try:
                    base.execute("INSERT INTO docs VALUES (?, ?, ?)", (each.id, each.title, each.text))
                except sqlite3.IntegrityError:
                    raise each.place.error(f"duplicate id {each.id!r}; expected each id once") from None


def _item(
    base: sqlite3.Connection, query: Text, collection: Collection, least: float, options: Options
) -> Iterator[Item]:
    rows: list[tuple[Any, ...]] = base.execute(
        "SELECT doc, value, docs.id, title, text FROM judged LEFT JOIN docs ON docs.id = doc WHERE query = ? "
        "ORDER BY judged.rowid",
        (query.id,),
    ).fetchall()
    if not any(value is not None for _, value, *_ in rows):
        if rows:
            yield Dropped(query.place, "query has negatives and no judgement", query.text)
        return
    try:
        base.execute("INSERT INTO asked VALUES (?)", (query.id,))
    except sqlite3.IntegrityError:
        raise query.place.error(f"duplicate id {query.id!r}; expected each id once") from None
    pos: dict[str, Passage] = {}
    neg: dict[str, Passage] = {}
    for doc, value, known, title, text in rows:
        if known is None:
            yield Dropped(query.place, "judged passage is not in the corpus", str(doc))
            continue
        side = pos if value is not None and value >= least else neg
        side.setdefault(doc, Passage(text, title, doc))
    others = [passage for id_, passage in neg.items() if id_ not in pos]
    yield Labelled(
        query.place,
        query.text,
        list(pos.values()),
        draw(others, options.max_negatives, options.seed, query.id),
        query.id,
        collection.language,
    )
