"""BEIR folders: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/SPLIT.tsv``, plain or compressed."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from triptych.collections.examples import Example, make_example
from triptych.errors import DataError
from triptych.io import open_source, read_lines
from triptych.records import COMPRESSED, Fields, Place, parsed, places_of, to_document

_SCHEMA = """
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE judged (line INTEGER PRIMARY KEY, query TEXT NOT NULL, doc TEXT NOT NULL, value REAL NOT NULL);
CREATE INDEX judged_query ON judged (query);
CREATE INDEX judged_doc ON judged (doc);
CREATE TABLE docs (id TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE done (query TEXT PRIMARY KEY) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class Judgement:
    """One line of a qrels file: how relevant a document is for a query (0: not), and its line number."""

    query: str
    document: str
    value: float
    line: int


@dataclass(frozen=True, slots=True)
class BeirSet:
    """A retrieval test collection in memory.

    Attributes:
        corpus: Document id to text, the title in front.
        queries: Query id to text; those that the split judges.
        qrels: Query id to {document id: relevance}.
    """

    corpus: dict[str, str]
    queries: dict[str, str]
    qrels: dict[str, dict[str, int]]


def is_beir(path: Path) -> bool:
    """Whether the path is a folder with a corpus and queries."""
    return (
        path.is_dir() and _find(path, "corpus.jsonl") is not None and _find(path, "queries.jsonl") is not None
    )


def beir_files(folder: Path, split: str) -> tuple[Path, Path, Path]:
    """Corpus, queries and qrels of a folder.

    Raises:
        DataError: If one is missing; for the qrels it names the splits that are there.
    """
    found = [_find(folder, name) for name in ("corpus.jsonl", "queries.jsonl")]
    qrels = _find(folder / "qrels", f"{split}.tsv")
    for name, path in zip(("corpus.jsonl", "queries.jsonl"), found, strict=True):
        if path is None:
            raise DataError(f"no {name} in this folder; expected a BEIR folder", folder)
    if qrels is None:
        names = sorted(file.name.split(".")[0] for file in (folder / "qrels").glob("*.tsv*"))
        raise DataError(
            f"no qrels/{split}.tsv; this folder has the splits {', '.join(names) or '(none)'}", folder
        )
    corpus, queries = (path for path in found if path is not None)
    return corpus, queries, qrels


def read_qrels(path: Path) -> Iterator[Judgement]:
    """Reads judgements: ``query-id corpus-id score`` (tabs, with or without that header) or TREC's four columns.

    Raises:
        DataError: For a line of another form.
    """
    with open_source(path) as source:
        for line in read_lines(source):
            cells = line.text.split("\t") if "\t" in line.text else line.text.split()
            if not line.text.strip() or (line.number == 1 and cells[0] in ("query-id", "query_id", "qid")):
                continue
            if len(cells) not in (3, 4):
                raise DataError(
                    f"got {len(cells)} columns; expected query, document, relevance", source.name, line.number
                )
            try:
                value = float(cells[-1])
            except ValueError:
                raise DataError(
                    f"relevance {cells[-1]!r} is not a number", source.name, line.number
                ) from None
            yield Judgement(cells[0], cells[-2], value, line.number)


def load_beir(folder: Path | str, split: str = "test") -> BeirSet:
    """Reads a whole collection into memory, for evaluation.

    Raises:
        DataError: For a missing file, a broken line, an id that is there twice, or a judged query or document
            that is not there.
    """
    corpus_file, query_file, qrels_file = beir_files(Path(folder), split)
    corpus = dict(_texts(corpus_file))
    everything = dict(_texts(query_file))
    qrels: dict[str, dict[str, int]] = {}
    for judgement in read_qrels(qrels_file):
        _require(
            judgement.query in everything, "query", judgement.query, query_file, qrels_file, judgement.line
        )
        known = judgement.document in corpus
        _require(known, "document", judgement.document, corpus_file, qrels_file, judgement.line)
        qrels.setdefault(judgement.query, {})[judgement.document] = int(judgement.value)
    return BeirSet(corpus, {id_: everything[id_] for id_ in qrels}, qrels)


def read_beir(folder: Path | str, split: str = "train") -> Iterator[tuple[Place, Example | None]]:
    """Reads the judged queries of a split as training examples.

    A document of relevance above 0 is a positive, one of 0 or less a negative. The texts that are judged stand
    in a temporary SQLite file meanwhile, so that the corpus is never held in memory.

    Yields:
        Place of the query and its example, in the order of the queries; None for a query without a positive.

    Raises:
        DataError: As `load_beir`.
    """
    corpus_file, query_file, qrels_file = beir_files(Path(folder), split)
    with tempfile.TemporaryDirectory() as temporary, closing(sqlite3.connect(f"{temporary}/beir")) as base:
        base.executescript(_SCHEMA)
        rows = ((j.line, j.query, j.document, j.value) for j in read_qrels(qrels_file))
        base.executemany("INSERT INTO judged VALUES (?, ?, ?, ?)", rows)
        _store_judged(base, corpus_file, qrels_file)
        yield from _join(base, query_file)
        left = base.execute(
            "SELECT line, query FROM judged WHERE query NOT IN (SELECT query FROM done) ORDER BY line LIMIT 1"
        ).fetchone()
        if left:
            _require(False, "query", left[1], query_file, qrels_file, left[0])


def _store_judged(base: sqlite3.Connection, corpus: Path, qrels: Path) -> None:
    for place, id_, text in _documents(corpus):
        if base.execute("SELECT 1 FROM judged WHERE doc = ? LIMIT 1", (id_,)).fetchone():
            try:
                base.execute("INSERT INTO docs VALUES (?, ?)", (id_, text))
            except sqlite3.IntegrityError:
                raise place.error(f"duplicate id {id_!r}; expected each id once") from None
    left = base.execute(
        "SELECT line, doc FROM judged WHERE doc NOT IN (SELECT id FROM docs) ORDER BY line LIMIT 1"
    ).fetchone()
    if left:
        _require(False, "document", left[1], corpus, qrels, left[0])


def _join(base: sqlite3.Connection, queries: Path) -> Iterator[tuple[Place, Example | None]]:
    wanted = "SELECT text, value FROM judged JOIN docs ON docs.id = judged.doc WHERE query = ? ORDER BY line"
    for place, id_, text in _documents(queries):
        judged: list[tuple[str, float]] = base.execute(wanted, (id_,)).fetchall()
        if not judged:
            continue
        try:
            base.execute("INSERT INTO done VALUES (?)", (id_,))
        except sqlite3.IntegrityError:
            raise place.error(f"duplicate id {id_!r}; expected each id once") from None
        pos = tuple(passage for passage, value in judged if value > 0)
        neg = tuple(passage for passage, value in judged if value <= 0)
        yield place, make_example(place, query=text, pos=pos, neg=neg, id=id_) if pos else None


def _documents(path: Path) -> Iterator[tuple[Place, str, str]]:
    for place, raw in places_of(path):
        document = to_document(parsed(raw, place), Fields(), place)
        yield place, document.id, document.content


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for place, id_, text in _documents(path):
        if id_ in seen:
            raise place.error(f"duplicate id {id_!r}; expected each id once")
        seen.add(id_)
        yield id_, text


def _require(known: bool, kind: str, id_: str, where: Path, qrels: Path, line: int) -> None:
    if not known:
        raise DataError(f"{kind} {id_!r} is not in {where.name}", qrels, line)


def _find(folder: Path, name: str) -> Path | None:
    return next(
        (folder / (name + end) for end in ("", *COMPRESSED) if (folder / (name + end)).is_file()), None
    )
