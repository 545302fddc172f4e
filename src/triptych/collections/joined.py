"""What a reader yields: parts of a retrieval collection, or one query with its passages; and the join for training.

`Tables` are queries, judgements and a corpus in files of their own. `join` makes training items of them without
holding the corpus in memory; `triptych.collections.catalogue` makes a test collection of the same tables.
"""

from __future__ import annotations

import heapq
import sqlite3
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from hashlib import blake2b
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, cast, get_args

from triptych.collections.files import Files, rows
from triptych.errors import InputError
from triptych.io import open_source, read_lines
from triptych.records import QUERY_IDS, Document, Fields, Place, to_document, tsv_rows
from triptych.types import chunked

Negatives: TypeAlias = Literal["given", "all", "none"]
NEGATIVES: tuple[Negatives, ...] = get_args(Negatives)
ABOVE_ZERO = 5e-324
"""The least grade of a positive where every grade above 0 is one."""


class JudgedPassage(NamedTuple):
    """A passage as text and, where the data set has them, its title and its id."""

    text: str
    title: str | None = None
    id: str | None = None

    @property
    def content(self) -> str:
        """Title and text, as in `triptych.records.Document`."""
        return Document("", self.text, self.title).content


def passages_of(
    record: Mapping[str, Any], field: str, ids: Sequence[str], place: Place
) -> list[JudgedPassage]:
    """The passages in a field of a record: objects with ``title`` and ``text``, and an id under one of `ids`.

    Raises:
        DataError: For a field that is no list of objects.
    """
    value = record.get(field) or []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in cast("list[Any]", value)):
        raise place.error(
            f"field {field!r} is {value!r:.40}; expected a list of objects with {ids[0]}, title and text"
        )
    return [
        JudgedPassage(
            str(each.get("text") or ""),
            each.get("title") or None,
            next((str(each[name]) for name in ids if each.get(name) is not None), "") or None,
        )
        for each in cast("list[dict[str, Any]]", value)
    ]


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
    pos: Sequence[JudgedPassage]
    neg: Sequence[JudgedPassage] = ()
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
        split: Part of the data set, as its files name it; None: the one that is usually evaluated.
        positive_from: The least grade of a positive; None: what the data set's makers use.
        negatives: "given" are passages that the publisher offers as negatives; "all" also those of which it only
            follows that they do not answer (other paragraphs of the article, random passages); "none" leaves all
            away.
        max_negatives: Maximum number of negatives per query, sampled by `seed`; None: all.
        titles: Begin a passage with its title, where it has one.
        language: Which language's files are read, where a folder has several, and what `lang` says where the data
            set does not.
        topic_fields: Fields of a TREC topic that make the query, in this order.
        seed: Of the sample of negatives.
        subsets: Shell patterns for subsets, such as "de" or "en-*", or labels, such as "xquad/*"; none: all.

    Raises:
        InputError: For an unknown kind of negatives, or a number below 0.
    """

    split: str | None = "train"
    positive_from: float | None = None
    negatives: Negatives = "given"
    max_negatives: int | None = None
    titles: bool = True
    language: str | None = None
    topic_fields: tuple[str, ...] = ("title",)
    seed: int = 0
    subsets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.negatives not in NEGATIVES:
            raise InputError(f"negatives: got {self.negatives!r}; expected one of {', '.join(NEGATIVES)}")
        if self.max_negatives is not None and self.max_negatives < 0:
            raise InputError(f"max_negatives: got {self.max_negatives}; expected 0 or more")

    def wants(self, kind: Literal["given", "all"]) -> bool:
        """Whether negatives of this kind are wanted."""
        return self.negatives == kind or self.negatives == "all"

    def takes(self, name: str, subset: str) -> bool:
        """Whether a subset of a data set is asked for."""
        labels = (subset, f"{name}/{subset}")
        return not self.subsets or any(fnmatchcase(n, pattern) for pattern in self.subsets for n in labels)

    def sample(self, passages: Iterable[JudgedPassage], query: str) -> list[JudgedPassage]:
        """At most `max_negatives` of some passages, in their order.

        Those whose digest with seed and query is least: the choice depends neither on the order of the passages nor
        on how they come in parts, so that a sample of samples is a sample of the whole.
        """
        if self.max_negatives is None:
            return list(passages)
        keyed = [(_rank(self.seed, query, item.id or item.text), i, item) for i, item in enumerate(passages)]
        return [item for *_, item in sorted(heapq.nsmallest(self.max_negatives, keyed), key=lambda e: e[1])]


class Text(NamedTuple):
    """A query or a document with its id and its place."""

    id: str
    text: str
    place: Place
    title: str | None = None

    @property
    def content(self) -> str:
        """Title and text, as in `triptych.records.Document`."""
        return Document(self.id, self.text, self.title).content


class Judgement(NamedTuple):
    """How relevant a document is for a query (0 and less: not)."""

    query: str
    document: str
    value: float
    place: Place


class Pair(NamedTuple):
    """A query and a document that is offered as a negative, by their ids."""

    query: str
    document: str


@dataclass(frozen=True, slots=True)
class Tables:
    """A data set, or one language of it, in parts.

    Attributes:
        queries: All queries, judged or not; walked once.
        judgements: Which documents were judged for them, and how; walked once.
        documents: Reads the corpus from its beginning.
        files: All that `documents` reads.
        qrels: The file of the judgements, for messages.
        negatives: Further documents that do not answer; walked once.
        positive_from: The least grade of a positive, unless the options say otherwise.
        language: The language of the queries.
        name: Where the files say more than the data set's name.
        subset: Language or pair of languages.
        split: Where the options name none.
        metrics: Names as in ir-measures, in place of the data set's.
        license: In place of the data set's.
        excluded: Query id to documents that are left out of its ranking.
        ignore_identical_ids: Whether a document with the query's own id is left out of its ranking.
        all_judged: Whether every query belongs to the split, one without judgements too.
    """

    queries: Iterable[Text]
    judgements: Iterable[Judgement]
    documents: Callable[[], Iterator[Text]]
    files: Sequence[Path]
    qrels: Path
    negatives: Iterable[Pair] = ()
    positive_from: float = ABOVE_ZERO
    language: str | None = None
    name: str = ""
    subset: str = ""
    split: str | None = None
    metrics: tuple[str, ...] = ()
    license: str = ""
    excluded: Mapping[str, frozenset[str]] = field(default_factory=dict[str, frozenset[str]])
    ignore_identical_ids: bool = False
    all_judged: bool = False


Reader: TypeAlias = Callable[[Files, Options], Iterator["Tables | Item"]]
"""Reads a local copy of a data set in its published layout."""


def cells_of(path: Path, columns: tuple[int, ...], expected: str) -> Iterator[tuple[Place, list[str]]]:
    """The cells of each line of a tab-separated file that is not blank; a header is skipped.

    Args:
        path: The file. Its first line is a header if its first cell is a name for ids.
        columns: Numbers of columns that a line may have.
        expected: What they are, for messages.

    Raises:
        DataError: For a line with another number of columns.
    """
    with open_source(path) as source:
        for number, cells in tsv_rows(read_lines(source)):
            place = Place(source.name, number)
            if number == 1 and cells[0].lower() in (*QUERY_IDS, "pid", "docid"):
                continue
            if len(cells) not in columns:
                raise place.error(f"got {len(cells)} columns separated by tabs; expected {expected}")
            yield place, cells


def texts_of(paths: Iterable[Path]) -> Iterator[Text]:
    """Texts of files with two columns, id and text."""
    for path in paths:
        for place, (id_, text) in cells_of(path, (2,), "id, text"):
            yield Text(id_, text, place)


def records_of(paths: Iterable[Path], fields: Fields | None = None) -> Iterator[Text]:
    """Documents or (with the fields of queries) queries of JSON Lines, Parquet or JSON."""
    for path in paths:
        for place, record in rows(path):
            document = to_document(record, fields or Fields(), place)
            yield Text(document.id, document.text, place, document.title)


def judgements_of(paths: Iterable[Path], value: float | None = None) -> Iterator[Judgement]:
    """Judgements in BEIR's columns (query, document, relevance) or TREC's four, by tabs or blanks.

    Args:
        paths: The files; a first line that begins with a name for ids of queries is a header.
        value: The relevance of a line with two columns; None: such a line is an error.

    Raises:
        DataError: For a line of another form, or a relevance that is no finite number.
    """
    allowed = (3, 4) if value is None else (2, 3, 4)
    for path in paths:
        with open_source(path) as source:
            for line in read_lines(source):
                cells = line.text.split("\t") if "\t" in line.text else line.text.split()
                if not line.text.strip() or (line.number == 1 and cells[0].lower() in QUERY_IDS):
                    continue
                place = Place(source.name, line.number)
                if len(cells) not in allowed:
                    raise place.error(f"got {len(cells)} columns; expected query, document, relevance")
                if len(cells) == 2 and value is not None:
                    yield Judgement(cells[0], cells[1], value, place)
                else:
                    yield Judgement(cells[0], cells[-2], relevance(cells[-1], place), place)


def relevance(value: Any, place: Place) -> float:
    """A grade as a number: an int where it is whole.

    Raises:
        DataError: For what is no finite number.
    """
    try:
        number = float(value)
        return int(number) if number == int(number) else number
    except (TypeError, ValueError, OverflowError):
        raise place.error(f"relevance {value!r:.40} is not a number") from None


_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
PRAGMA cache_size = -65536;
CREATE TABLE judged (query TEXT, doc TEXT, value REAL, file TEXT, line INTEGER);
CREATE TABLE docs (id TEXT PRIMARY KEY, title TEXT, text TEXT);
CREATE TABLE wanted (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE asked (id TEXT PRIMARY KEY) WITHOUT ROWID;
"""
_INDEX = "CREATE INDEX judged_query ON judged (query); INSERT OR IGNORE INTO wanted SELECT doc FROM judged;"
_TWICE = """
SELECT query, doc, MIN(value), MAX(value), file, MAX(line) FROM judged
WHERE value IS NOT NULL GROUP BY query, doc HAVING MIN(value) < MAX(value) LIMIT 1
"""
_LEFT = """
SELECT query, file, MIN(line) FROM judged WHERE value IS NOT NULL AND query NOT IN (SELECT id FROM asked)
GROUP BY query ORDER BY MIN(rowid)
"""
_ROWS = """
SELECT doc, value, docs.id, title, text, file, line FROM judged LEFT JOIN docs ON docs.id = doc WHERE query = ?
ORDER BY judged.rowid
"""
_BLOCK = 500
_POSITIVES = 50  # more than a query has, as a rule, among the negatives that are offered for it


def join(tables: Tables, options: Options, *, strict: bool = False) -> Iterator[Item]:
    """The judged queries of a collection, in their order, with the texts of what was judged.

    What is judged stands in a temporary SQLite file meanwhile.

    Args:
        tables: The parts.
        options: What is wanted.
        strict: Whether judgements of a document that the corpus lacks, or of a query that the queries lack, are
            errors. Otherwise they are dropped with a reason: a part of a corpus can be converted.

    Raises:
        DataError: As the readers of the parts, for an id that is there twice, or judgements of one pair that
            contradict each other.
    """
    least = tables.positive_from if options.positive_from is None else options.positive_from
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(f"{folder}/collection")) as base:
        base.executescript(_SCHEMA)
        grades = ((j.query, j.document, j.value, j.place.name, j.place.line) for j in tables.judgements)
        base.executemany("INSERT INTO judged VALUES (?, ?, ?, ?, ?)", grades)
        if twice := base.execute(_TWICE).fetchone():
            raise Place(*twice[4:]).error(contradiction(*twice[:4]))
        if options.negatives == "none":
            base.execute("UPDATE judged SET doc = NULL WHERE value < ?", (least,))
        else:
            pairs = _limit_negatives(tables.negatives, options)
            base.executemany("INSERT INTO judged VALUES (?, ?, NULL, NULL, NULL)", pairs)
        base.executescript(_INDEX)
        _store(base, tables.documents())
        for query in tables.queries:
            yield from _item(base, query, tables, least, (options, strict))
        for id_, file, line in base.execute(_LEFT):
            if strict:
                raise Place(file, line).error(f"query {id_!r} is not among the queries")
            yield Dropped(Place(str(tables.qrels)), "judged query is not among the queries", str(id_))


def contradiction(query: str, document: str, first: float, second: float) -> str:
    """The message about a pair that is judged twice."""
    return f"query {query!r}, document {document!r} is judged twice, {first:g} and {second:g}; expected one relevance"


def _limit_negatives(negatives: Iterable[Pair], options: Options) -> Iterator[tuple[str, str]]:
    """Pairs; of neighbours with one query no more than can be sampled in the end.

    Such files have hundreds of millions of lines. The positives among them are known only later, so that some more
    than `max_negatives` are kept.
    """
    if options.max_negatives is None:
        yield from negatives
        return
    for query, pairs in groupby(negatives, key=lambda pair: pair.query):
        ranked = ((_rank(options.seed, query, pair.document), pair.document) for pair in pairs)
        for _, document in heapq.nsmallest(options.max_negatives + _POSITIVES, ranked):
            yield query, document


def _store(base: sqlite3.Connection, documents: Iterable[Text]) -> None:
    """Stores the documents that were judged, looked up in blocks."""
    for block in chunked(documents, _BLOCK):
        marks = ",".join("?" * len(block))
        found = base.execute(f"SELECT id FROM wanted WHERE id IN ({marks})", [each.id for each in block])
        wanted = {row[0] for row in found}
        for each in block:
            if each.id in wanted:
                row = each.id, each.title, each.text
                _once(base, "INSERT INTO docs VALUES (?, ?, ?)", row, each)


def _once(base: sqlite3.Connection, statement: str, row: tuple[Any, ...], text: Text) -> None:
    try:
        base.execute(statement, row)
    except sqlite3.IntegrityError:
        raise text.place.error(f"duplicate id {text.id!r}; expected each id once") from None


def _item(
    base: sqlite3.Connection, query: Text, tables: Tables, least: float, how: tuple[Options, bool]
) -> Iterator[Item]:
    options, strict = how
    found: list[tuple[Any, ...]] = base.execute(_ROWS, (query.id,)).fetchall()
    if not any(row[1] is not None for row in found):
        if found:
            yield Dropped(query.place, "query has negatives and no judgement", query.text)
        return
    _once(base, "INSERT INTO asked VALUES (?)", (query.id,), query)
    pos: dict[str, JudgedPassage] = {}
    neg: dict[str, JudgedPassage] = {}
    for doc, value, known, title, text, file, line in found:
        if doc is None:  # a negative, and none is wanted
            continue
        if known is None:
            if strict:
                raise Place(file, line).error(f"document {doc!r} is not in {tables.files[0].name}")
            yield Dropped(query.place, "judged passage is not in the corpus", str(doc))
            continue
        side = pos if value is not None and value >= least else neg
        side.setdefault(doc, JudgedPassage(text, title, doc))
    others = [passage for id_, passage in neg.items() if id_ not in pos]
    sample = options.sample(others, query.id)
    yield Labelled(query.place, query.text, list(pos.values()), sample, query.id, tables.language)


def _rank(seed: int, query: str, passage: str) -> int:
    """A number in [0, 2^63) that is a function of seed, query and passage alone."""
    text = f"{seed}\0{query}\0{passage}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 1
