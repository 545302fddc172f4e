"""MS MARCO: the passage ranking files, training triples, and the question answering JSON; mMARCO's translations.

Passage ranking: ``collection.tsv`` (pid, text), ``queries.SPLIT.tsv`` (qid, text), ``qrels.SPLIT.tsv`` (qid, 0, pid,
relevance) and, for negatives, ``qidpidtriples.train.full.2.tsv`` (qid, pid, pid that is not relevant); the splits
"dl19" and "dl20" are the tracks of TREC Deep Learning, ``msmarco-test20YY-queries.tsv`` and ``20YYqrels-pass.txt``.
``triples.train.small.tsv`` has query, positive and negative as texts. Question answering v1.1 is JSON Lines, v2.1 one
object of columns; in both ``is_selected`` marks the passages on which an answer rests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from triptych.collections.files import Files, columns, rows
from triptych.collections.joined import (
    Dropped,
    Item,
    JudgedPassage,
    Judgement,
    Labelled,
    Options,
    Pair,
    Tables,
    cells_of,
    judgements_of,
    texts_of,
)
from triptych.errors import DataError
from triptych.io import open_source
from triptych.records import Place
from triptych.text import code_of, name_of

_JSON = r".*\.(?:json|jsonl|parquet)"
_IDS = (r"qidpidtriples\..*\.tsv", r"triples\.train\.ids\..*tsv")
_COLUMNS = ("query_id", "query", "passages", "answers")
GRADED_METRICS = ("nDCG@10", "R(rel=2)@100", "R(rel=2)@1000", "RR(rel=2)@10", "AP(rel=2)@100")
"""Where a passage of grade 1 is related, but does not answer: it counts in nDCG alone."""


def read_msmarco(files: Files, options: Options) -> Iterator[Tables | Item]:
    """Reads any of the three forms: a collection, else triples of texts, else JSON."""
    split = options.split or "dev.small"
    if collection := files.matching(r"collection\.tsv"):
        if not options.takes("msmarco", "en"):
            return
        if split in ("dl19", "dl20"):
            year = f"20{split[2:]}"
            asked = files.one("queries", rf"msmarco-test{year}-queries\.tsv")
            judged = files.one("judgements", rf"{year}qrels-pass\.txt")
            yield _tables(files, split, collection, asked, "en", judged, GRADED_METRICS)
        else:
            name = re.escape(split)
            asked = files.one("queries", rf"queries\.{name}\.tsv", rf"queries\.{name}\.small\.tsv")
            yield _tables(files, split, collection, asked, "en")
    elif files.matching(r"triples\..*\.tsv"):
        for path in files.of_split("triples", split.split(".")[0], r"triples\..*\.tsv"):
            yield from _triples(path, options)
    else:
        for path in files.of_split("collection.tsv, triples or JSON", split.split(".")[0], _JSON):
            yield from _question_answering(path, options)


def read_mmarco(files: Files, options: Options) -> Iterator[Tables]:
    """Reads mMARCO: ``LANGUAGE_collection.tsv``, ``LANGUAGE_queries.SPLIT.tsv`` and MS MARCO's judgements.

    Without qrels the positives are those of ``triples.train.ids.small.tsv``. All languages that are there are read,
    or the one of the options.
    """
    split = options.split or "dev.small"
    found = {
        code_of(file.name.split("_")[0]): file for file in files.some("collection", r"[a-z]+_collection\.tsv")
    }
    wanted = list(found) if options.language is None else [code_of(options.language)]
    for language in wanted:
        if language not in found:
            raise DataError(f"no collection in {language!r}; there are {', '.join(found)}", files.roots[0])
        if options.takes("mmarco", language):
            pattern = rf"{name_of(language)}_queries\.{re.escape(split)}(?:\.small|\.full)?\.tsv"
            yield _tables(files, split, [found[language]], files.one("queries", pattern), language)


def _tables(
    files: Files,
    split: str,
    collection: list[Path],
    queries: Path,
    language: str,
    qrels: Path | None = None,
    metrics: tuple[str, ...] = (),
) -> Tables:
    triples = [path for pattern in _IDS for path in files.matching(pattern)] if split == "train" else []
    names = (rf"qrels\.{re.escape(split)}\.tsv", rf"qrels\.{re.escape(split)}\.small\.tsv")
    if triples and not any(files.matching(name) for name in names):
        qrels, judgements = triples[0], _positives(triples)
    else:
        qrels = qrels or files.one("judgements", *names)
        judgements = judgements_of([qrels])
    return Tables(
        queries=texts_of([queries]),
        judgements=judgements,
        documents=partial(texts_of, collection),
        files=collection,
        qrels=qrels,
        negatives=_pairs(triples),
        language=language,
        subset=language,
        metrics=metrics,
    )


def _ids(paths: list[Path]) -> Iterator[tuple[Place, list[str]]]:
    for path in paths:
        yield from cells_of(path, (3,), "query id, positive id, negative id")


def _positives(paths: list[Path]) -> Iterator[Judgement]:
    before = None
    for place, (query, positive, _) in _ids(paths):
        if (query, positive) != before:
            yield Judgement(query, positive, 1, place)
        before = query, positive


def _pairs(paths: list[Path]) -> Iterator[Pair]:
    for _, (query, _, negative) in _ids(paths):
        yield Pair(query, negative)


def _triples(path: Path, options: Options) -> Iterator[Item]:
    """Triples of texts; neighbours with one query become one example."""
    lines = cells_of(path, (3,), "query, positive, negative")
    for query, group in groupby(lines, key=lambda line: line[1][0]):
        same = list(group)
        pos = dict.fromkeys(cells[1] for _, cells in same)
        neg = dict.fromkeys(cells[2] for _, cells in same if cells[2] not in pos)
        sample = options.sample(map(JudgedPassage, neg), query) if options.wants("given") else []
        yield Labelled(same[0][0], query, [JudgedPassage(text) for text in pos], sample, language="en")


def _question_answering(path: Path, options: Options) -> Iterator[Item]:
    for place, record in columns(path, _COLUMNS) if _is_of_columns(path) else rows(path):
        query, passages = record.get("query"), _passages(record.get("passages"))
        if not isinstance(query, str) or passages is None:
            raise place.error(
                f"got fields {', '.join(map(repr, record))}; expected MS MARCO's query and passages"
            )
        pos = [passage for passage, selected in passages if selected]
        if not pos:
            yield Dropped(place, "no passage is selected", query)
            continue
        neg = [passage for passage, selected in passages if not selected] if options.wants("given") else []
        answers = [answer for answer in record.get("answers") or [] if answer != "No Answer Present."]
        id_ = str(record.get("query_id", "")) or None
        facts = {"answers": answers} if answers else {}
        yield Labelled(place, query, pos, options.sample(neg, query), id_, "en", facts)


def _passages(value: Any) -> list[tuple[JudgedPassage, bool]] | None:
    """Passages and whether they were selected: a list of objects, or (in Parquet) an object of lists."""
    if isinstance(value, dict):
        lists = cast("dict[str, list[Any]]", value)
        pairs = zip(lists.get("passage_text", []), lists.get("is_selected", []), strict=True)
    elif isinstance(value, list):
        pairs = ((each.get("passage_text"), each.get("is_selected")) for each in cast("list[Any]", value))
    else:
        return None
    return [(JudgedPassage(str(text)), bool(selected)) for text, selected in pairs]


def _is_of_columns(path: Path) -> bool:
    with open_source(path) as source:
        return re.match(rb'\s*\{\s*"\w+"\s*:\s*\{\s*"\d+"\s*:', source.head) is not None
