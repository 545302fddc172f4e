"""MS MARCO: the passage ranking files, training triples, and the question answering JSON; mMARCO's translations.

Passage ranking: ``collection.tsv`` (pid, text), ``queries.SPLIT.tsv`` (qid, text), ``qrels.SPLIT.tsv`` (qid, 0, pid,
relevance) and, for negatives, ``qidpidtriples.train.full.2.tsv`` (qid, pid, pid that is not relevant).
``triples.train.small.tsv`` has query, positive and negative as texts. Question answering v1.1 is JSON Lines, v2.1
one object of columns; in both ``is_selected`` marks the passages on which an answer rests.

MS MARCO passages, with the development queries and those of the TREC Deep Learning tracks.
"""

from __future__ import annotations

import json
import re
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from triptych.collections.base import (
    Collection,
    Document,
    Facts,
    FileCorpus,
    Judgements,
    Wanted,
    found,
    make,
    the_file,
)
from triptych.collections.files import Files, entries, rows
from triptych.collections.joined import (
    Dropped,
    Item,
    Labelled,
    Options,
    Pair,
    Passage,
    Tables,
    cells_of,
    draw,
    join,
    texts_of,
)
from triptych.collections.qrels import Judgement, read_qrels
from triptych.collections.texts import distinct, qrels_of, tsv_queries, tsv_rows
from triptych.errors import DataError
from triptych.io import open_source
from triptych.records import Place
from triptych.text import code_of, name_of

_JSON = r".*\.(?:json|jsonl|parquet)"
_IDS = (r"qidpidtriples\..*\.tsv", r"triples\.train\.ids\..*tsv")
_COLUMNS = ("passages", "query", "query_id")


def read_msmarco(files: Files, options: Options) -> Iterator[Item]:
    """Reads any of the three forms: a collection, else triples of texts, else JSON."""
    split = re.escape(options.split)
    if files.matching(r"collection\.tsv"):
        queries = [files.one("queries", rf"queries\.{split}\.tsv", rf"queries\.{split}\.small\.tsv")]
        yield from _join(files, options, [files.one("collection", r"collection\.tsv")], queries, "en")
    elif files.matching(r"triples\..*\.tsv"):
        for path in files.of_split("triples", options.split, r"triples\..*\.tsv"):
            yield from _triples(path, options)
    else:
        for path in files.of_split("collection.tsv, triples or JSON", options.split, _JSON):
            yield from _question_answering(path, options)


def read_mmarco(files: Files, options: Options) -> Iterator[Item]:
    """Reads mMARCO: ``LANGUAGE_collection.tsv``, ``LANGUAGE_queries.SPLIT.tsv`` and MS MARCO's judgements.

    Without qrels the positives are those of ``triples.train.ids.small.tsv``. All languages that are there are read,
    or the one of the options.
    """
    found = {
        code_of(file.name.split("_")[0]): file for file in files.some("collection", r"[a-z]+_collection\.tsv")
    }
    wanted = list(found) if options.language is None else [code_of(options.language)]
    for language in wanted:
        if language not in found:
            raise DataError(f"no collection in {language!r}; there are {', '.join(found)}", files.roots[0])
        split = re.escape(options.split)
        queries = files.one("queries", rf"{name_of(language)}_queries\.{split}(?:\.small|\.full)?\.tsv")
        yield from _join(files, options, [found[language]], [queries], language)


def _join(
    files: Files, options: Options, collection: list[Path], queries: list[Path], language: str
) -> Iterator[Item]:
    split = re.escape(options.split)
    triples = (
        [path for pattern in _IDS for path in files.matching(pattern)] if options.split == "train" else []
    )
    names = (rf"qrels\.{split}\.tsv", rf"qrels\.{split}\.small\.tsv")
    if triples and not any(files.matching(name) for name in names):
        qrels, judgements = triples[0], _positives(triples)
    else:
        qrels = files.one("judgements", *names)
        judgements = read_qrels(qrels)
    parts = Tables(
        queries=texts_of(queries),
        judgements=judgements,
        documents=texts_of(collection),
        qrels=qrels,
        negatives=_pairs(triples),
        language=language,
    )
    yield from join(parts, options)


def _positives(paths: list[Path]) -> Iterator[Judgement]:
    before = None
    for path in paths:
        for place, (query, positive, _) in cells_of(path, (3,), "query id, positive id, negative id"):
            if (query, positive) != before:
                yield Judgement(query, positive, 1.0, place.line or 0)
            before = query, positive


def _pairs(paths: list[Path]) -> Iterator[Pair]:
    for path in paths:
        for _, (query, _, negative) in cells_of(path, (3,), "query id, positive id, negative id"):
            yield Pair(query, negative)


def _triples(path: Path, options: Options) -> Iterator[Item]:
    """Triples of texts; neighbours with one query become one example."""
    lines = cells_of(path, (3,), "query, positive, negative")
    for query, group in groupby(lines, key=lambda line: line[1][0]):
        same = list(group)
        pos = dict.fromkeys(cells[1] for _, cells in same)
        neg = dict.fromkeys(cells[2] for _, cells in same if cells[2] not in pos)
        negatives = [Passage(text) for text in neg] if options.wants("given") else []
        yield Labelled(
            same[0][0],
            query,
            [Passage(text) for text in pos],
            draw(negatives, options.max_negatives, options.seed, query),
            language="en",
        )


def _question_answering(path: Path, options: Options) -> Iterator[Item]:
    records = _columns(path) if _is_of_columns(path) else rows(path)
    for place, record in records:
        query, passages = record.get("query"), _passages(record.get("passages"))
        if not isinstance(query, str) or passages is None:
            raise place.error(
                f"got fields {', '.join(map(repr, record))}; expected MS MARCO's query and passages"
            )
        id_ = str(record.get("query_id", "")) or None
        if not any(selected for _, selected in passages):
            yield Dropped(place, "no passage is selected", query)
            continue
        neg = [passage for passage, selected in passages if not selected] if options.wants("given") else []
        answers = [answer for answer in record.get("answers") or [] if answer != "No Answer Present."]
        yield Labelled(
            place,
            query,
            [passage for passage, selected in passages if selected],
            draw(neg, options.max_negatives, options.seed, query),
            id_,
            "en",
            {"answers": answers} if answers else {},
        )


def _passages(value: Any) -> list[tuple[Passage, bool]] | None:
    """Passages and whether they were selected: a list of objects, or (in Parquet) an object of lists."""
    if isinstance(value, dict):
        lists = cast("dict[str, list[Any]]", value)
        pairs = zip(lists.get("passage_text", []), lists.get("is_selected", []), strict=True)
    elif isinstance(value, list):
        pairs = ((each.get("passage_text"), each.get("is_selected")) for each in cast("list[Any]", value))
    else:
        return None
    return [(Passage(str(text)), bool(selected)) for text, selected in pairs]


def _is_of_columns(path: Path) -> bool:
    with open_source(path) as source:
        return re.match(rb'\s*\{\s*"\w+"\s*:\s*\{\s*"\d+"\s*:', source.head) is not None


def _columns(path: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Rows of an object of columns: ``{"query": {"0": …}, "passages": {"0": …}}``."""
    with tempfile.TemporaryDirectory() as folder, closing(sqlite3.connect(f"{folder}/rows")) as base:
        base.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;")
        base.execute("CREATE TABLE cells (row INTEGER, name TEXT, value TEXT, line INTEGER)")
        for entry in entries(path):
            name, row = entry.keys if len(entry.keys) == 2 else (entry.keys[0], None)
            if row is None or not str(row).isdigit():
                raise entry.place.error(f"column {name!r} is no object of numbered rows")
            if name in (*_COLUMNS, "answers"):
                cell = int(row), name, json.dumps(entry.value), entry.place.line
                base.execute("INSERT INTO cells VALUES (?, ?, ?, ?)", cell)
        base.execute("CREATE INDEX cells_row ON cells (row)")
        cells = base.execute("SELECT row, name, value, line FROM cells ORDER BY row")
        for _, group in groupby(cells, key=lambda cell: cell[0]):
            same = list(group)
            record = {name: json.loads(value) for _, name, value, _ in same}
            yield Place(str(path), min(line for *_, line in same)), record


LAYOUT = "collection.tsv, queries.SPLIT.tsv and qrels.SPLIT.tsv, or msmarco-test20YY-queries.tsv and 20YYqrels-pass.txt"
_CITATION = "Bajaj and others, 2016, arXiv 1611.09268"
_LICENCE = "for non-commercial research"
FACTS = Facts("msmarco", ("RR@10", "R@1000", "R@100", "nDCG@10", "AP@100", "Success@5"), _LICENCE, _CITATION)
# A passage of grade 1 is related, but does not answer: the tracks count it in nDCG alone.
TRACK_FACTS = Facts(
    "msmarco",
    ("nDCG@10", "R(rel=2)@100", "R(rel=2)@1000", "RR(rel=2)@10", "AP(rel=2)@100"),
    _LICENCE,
    _CITATION,
)


def msmarco(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads MS MARCO's passages. The split is "dev.small"; "dl19" and "dl20" are the tracks of 2019 and 2020."""
    split = wanted.split or "dev.small"
    if not wanted.takes("en", "msmarco/en"):
        return found([], path, wanted, LAYOUT)
    docs = the_file(path, LAYOUT, "collection.tsv")
    if split in ("dl19", "dl20"):
        year = f"20{split[2:]}"
        asked = the_file(path, LAYOUT, f"msmarco-test{year}-queries.tsv")
        judged = the_file(path, LAYOUT, f"{year}qrels-pass.txt")
    else:
        asked = the_file(path, LAYOUT, f"queries.{split}.tsv")
        judged = the_file(path, LAYOUT, f"qrels.{split}.tsv")

    def read() -> Iterator[tuple[Place, Document]]:
        for place, (id_, text) in tsv_rows(docs, 2, "id, passage"):
            yield place, Document(id_, text)

    corpus = FileCorpus.of(lambda: distinct(read), [docs], "msmarco")
    facts = TRACK_FACTS if split.startswith("dl") else FACTS
    judgements = Judgements(tsv_queries(asked), qrels_of(judged), judged)
    return [make(facts, "en", split, corpus, judgements, wanted)]
