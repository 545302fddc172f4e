"""What a labelled data set says of one query, whatever its format, and how much of it is wanted.

Tab-separated files of retrieval collections: no quoting, perhaps a header.

Queries, judgements and a corpus in files of their own, joined without holding the corpus in memory.
"""

from __future__ import annotations

import heapq
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from triptych.collections.qrels import Judgement
from triptych.errors import InputError
from triptych.io import open_source, read_lines
from triptych.records import Place

Negatives: TypeAlias = Literal["given", "all", "none"]
NEGATIVES: tuple[Negatives, ...] = get_args(Negatives)


class Passage(NamedTuple):
    """A passage as text and, where the data set has them, its title and its id."""

    text: str
    title: str | None = None
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Labelled:
    """One query with what was judged of it.

    Attributes:
        place: Where it stands.
        query: The query.
        pos: Passages that answer it.
        neg: Passages that do not.
        id: What the data set calls it.
        language: ISO 639-1 code, as far as the data set says.
        facts: Other fields worth keeping, such as ``answers``.
    """

    place: Place
    query: str
    pos: Sequence[Passage]
    neg: Sequence[Passage] = ()
    id: str | None = None
    language: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict[str, Any])


class Dropped(NamedTuple):
    """Something that makes no example: where it stands, and why (a short phrase that is counted)."""

    place: Place
    why: str
    example: str = ""


Item: TypeAlias = "Labelled | Dropped"


@dataclass(frozen=True, slots=True)
class Options:
    """What is wanted of a data set.

    Attributes:
        split: Part of the data set, as its files name it.
        positive_from: The least grade of a positive; None: what the data set's makers use.
        negatives: "given" are passages that the publisher offers as negatives; "all" also those of which it only
            follows that they do not answer (other paragraphs of the article, random passages); "none" leaves all
            away.
        max_negatives: Most negatives of a query, drawn by `seed`; None: all.
        titles: Whether a passage begins with its title.
        language: Which language's files are read, where a folder has several, and what `lang` says where the data
            set does not.
        topic_fields: Fields of a TREC topic that make the query, in this order.
        seed: Of the draw.

    Raises:
        InputError: For an unknown kind of negatives, or a number below 0.
    """

    split: str = "train"
    positive_from: float | None = None
    negatives: Negatives = "given"
    max_negatives: int | None = None
    titles: bool = True
    language: str | None = None
    topic_fields: tuple[str, ...] = ("title",)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.negatives not in NEGATIVES:
            raise InputError(f"negatives: got {self.negatives!r}; expected one of {', '.join(NEGATIVES)}")
        if self.max_negatives is not None and self.max_negatives < 0:
            raise InputError(f"max_negatives: got {self.max_negatives}; expected 0 or more")

    def wants(self, kind: Literal["given", "all"]) -> bool:
        """Whether negatives of this kind are wanted."""
        return self.negatives == kind or self.negatives == "all"


Reader: TypeAlias = Callable[..., Iterator[Item]]
"""``(files, options)`` → the queries of a data set; see `triptych.collections.catalogue`."""


def draw(items: Iterable[Passage], most: int | None, seed: int, query: str) -> list[Passage]:
    """At most `most` of some passages, in their order.

    Those whose digest with seed and query is least: the choice depends on neither the order of the passages nor
    on how they come in parts, so that a draw of draws is a draw of the whole.
    """
    if most is None:
        return list(items)
    keyed = [(rank_of(seed, query, item.id or item.text), i, item) for i, item in enumerate(items)]
    return [item for _, _, item in sorted(heapq.nsmallest(most, keyed), key=lambda entry: entry[1])]


def rank_of(seed: int, query: str, passage: str) -> int:
    """A number in [0, 2^63) that is a function of seed, query and passage alone."""
    text = f"{seed}\0{query}\0{passage}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 1


def cells_of(path: Path, columns: tuple[int, ...], expected: str) -> Iterator[tuple[Place, list[str]]]:
    """The cells of each line that is not blank.

    Args:
        path: The file.
        columns: Numbers of columns that a line may have.
        expected: What they are, for messages.

    Raises:
        DataError: For a line with another number of columns.
    """
    with open_source(path) as source:
        for line in read_lines(source):
            if not line.text.strip():
                continue
            cells = line.text.split("\t")
            place = Place(source.name, line.number)
            if len(cells) not in columns:
                raise place.error(f"got {len(cells)} columns separated by tabs; expected {expected}")
            yield place, cells


def texts_of(paths: Iterable[Path], header: tuple[str, ...] = ()) -> Iterator[Text]:
    """Texts of files with two columns, id and text; a first line whose first cell is in `header` is none."""
    for path in paths:
        for place, (id_, text) in cells_of(path, (2,), "id, text"):
            if place.line == 1 and id_.lower() in header:
                continue
            yield Text(id_, text, place)


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
class Tables:
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


def join(collection: Tables, options: Options) -> Iterator[Item]:
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


def _grades(collection: Tables, least: float, options: Options) -> Iterator[tuple[str, str, float]]:
    for judged in collection.judgements:
        if judged.value >= least or options.negatives != "none":
            yield judged.query, judged.document, judged.value


def _thinned(collection: Tables, options: Options) -> Iterator[tuple[str, str]]:
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
    base: sqlite3.Connection, query: Text, collection: Tables, least: float, options: Options
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
