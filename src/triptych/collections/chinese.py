"""DuReader-retrieval, as its makers publish it, and DuReader-robust, which has SQuAD's format.

``dev/dev.json``: ``{"question_id", "question", "answer_paragraphs": [{"paragraph_id", "paragraph_text"}]}``.
``train/dual.train.tsv``: query, an empty column, a passage that answers, an empty column, one that does not, an empty
column. ``train/cross.train.tsv``: query, an empty column, passage, label (1 or 0).

T2Ranking: tab-separated files with headers, four grades of relevance, and mined negatives.

``collection.tsv`` (pid, text), ``queries.SPLIT.tsv`` (qid, text), ``qrels.SPLIT.tsv`` (qid, -, pid, rel from 0 to 3) or
``qrels.retrieval.SPLIT.tsv`` (qid, pid: the positives alone), ``SPLIT.mined.tsv`` or ``SPLIT.bm25.tsv`` (qid, pid,
index, …). A grade of 2 and more counts as relevant, as its makers have it.

The retrieval tasks of C-MTEB (Chinese), as Parquet files of the Hub.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from triptych.collections.base import Collection, Facts, Judgements, Qrels, Wanted, found, locate, make
from triptych.collections.files import Files, rows
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
from triptych.collections.texts import record_corpus, record_queries
from triptych.errors import DataError
from triptych.records import Fields, Place, parsed, places_of

_TRAIN = (r"dual\.train.*\.tsv", r"cross\.train.*\.tsv")


def read_dureader_retrieval(files: Files, options: Options) -> Iterator[Item]:
    """Reads training pairs of the split "train" (the dual encoder's, else the cross encoder's), else JSON."""
    if options.split == "train" and any(files.matching(pattern) for pattern in _TRAIN):
        path = files.one("training pairs", r"dual\.train\.tsv", r"cross\.train\.tsv", *_TRAIN)
        yield from _grouped(path, options)
        return
    for path in files.of_split("questions", options.split, r".*\.jsonl?"):
        for place, record in rows(path):
            yield _answered(record, place)


def _answered(record: dict[str, Any], place: Place) -> Item:
    question, paragraphs = record.get("question"), record.get("answer_paragraphs", [])
    if not isinstance(question, str) or not isinstance(paragraphs, list):
        raise place.error(f"got fields {', '.join(map(repr, record))}; expected question, answer_paragraphs")
    pos = [
        Passage(str(each.get("paragraph_text", "")), None, str(each.get("paragraph_id", "")) or None)
        for each in cast("list[dict[str, Any]]", paragraphs)
    ]
    if not pos:
        return Dropped(place, "no paragraph answers", question)
    return Labelled(place, question, pos, (), str(record.get("question_id", "")) or None, "zh")


def _grouped(path: Path, options: Options) -> Iterator[Item]:
    """Neighbouring lines of one query as one example."""
    for query, group in groupby(_judged(path), key=lambda judged: judged[1]):
        same = list(group)
        pos = dict.fromkeys(text for _, _, text, relevant in same if relevant)
        neg = dict.fromkeys(text for _, _, text, relevant in same if not relevant and text not in pos)
        if not pos:
            yield Dropped(same[0][0], "no positive", query)
            continue
        given = map(Passage, neg) if options.wants("given") else ()
        kept = draw(given, options.max_negatives, options.seed, query)
        yield Labelled(same[0][0], query, [Passage(text) for text in pos], kept, language="zh")


def _judged(path: Path) -> Iterator[tuple[Place, str, str, bool]]:
    for place, cells in cells_of(
        path, (4, 5, 6), "query, -, passage, label or query, -, positive, -, negative, -"
    ):
        if len(cells) == 4:
            if cells[3] not in ("0", "1"):
                raise place.error(f"got the label {cells[3]!r}; expected 0 or 1")
            yield place, cells[0], cells[2], cells[3] == "1"
        else:
            yield place, cells[0], cells[2], True
            yield place, cells[0], cells[4], False


_HEADER = ("qid", "pid")


def read_t2ranking(files: Files, options: Options) -> Iterator[Item]:
    """Reads the graded judgements if they are there, otherwise the positives of the retrieval task."""
    split = re.escape(options.split)
    qrels = files.one("judgements", rf"qrels\.{split}\.tsv", rf"qrels\.retrieval\.{split}\.tsv")
    graded = ".retrieval." not in qrels.name
    mined = files.matching(rf"{split}\.mined\.tsv") or files.matching(rf"{split}\.bm25\.tsv")
    parts = Tables(
        queries=texts_of([files.one("queries", rf"queries\.{split}\.tsv")], _HEADER),
        judgements=read_qrels(qrels) if graded else _positives(qrels),
        documents=texts_of([files.one("collection", r"collection\.tsv")], _HEADER),
        qrels=qrels,
        negatives=_mined(mined),
        positive_from=2.0 if graded else 1.0,
        language="zh",
    )
    yield from join(parts, options)


def _positives(path: Path) -> Iterator[Judgement]:
    for place, (query, document) in cells_of(path, (2,), "qid, pid"):
        if query not in _HEADER:
            yield Judgement(query, document, 1.0, place.line or 0)


def _mined(paths: list[Path]) -> Iterator[Pair]:
    for path in paths:
        for _, cells in cells_of(path, (2, 3, 4), "qid, pid, index (, score)"):
            if cells[0] not in _HEADER:
                yield Pair(cells[0], cells[1])


LAYOUT = (
    "TASK/data/corpus-*.parquet and queries-*.parquet with TASK-qrels/data/SPLIT-*.parquet beside it, or TASK with the "
    "folders corpus, queries and qrels (or data) of Parquet files"
)
FIELDS = Fields(id=("_id", "id"), text=("text",))
_QUERY, _DOCUMENT = ("qid", "query-id"), ("pid", "corpus-id")


def cmteb(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads one task, or all in a folder. The split is "dev"; the subset is "zh", the name the task's."""
    split = wanted.split or "dev"
    collections: list[Collection] = []
    for task in (path, *sorted(path.glob("*/"))):
        docs, asked = _texts(task, "corpus"), _texts(task, "queries")
        if not docs or not asked or not wanted.takes("zh", f"{task.name}/zh"):
            continue
        judged = _judged_cmteb(task, split)
        if not judged:
            raise DataError(f"no judgements of split {split!r}; expected {LAYOUT}", task)
        judgements = Judgements(record_queries(asked, FIELDS.without_title()), _qrels(judged), judged[0])
        corpus = record_corpus(docs, "cmteb", FIELDS)
        collections.append(make(Facts(task.name), "zh", split, corpus, judgements, wanted))
    return found(collections, path, wanted, LAYOUT)


def _texts(task: Path, part: str) -> list[Path]:
    patterns = (f"data/{part}-*.parquet", f"{part}-*.parquet", f"{part}/*.parquet")
    return next((sorted(files) for pattern in patterns if (files := list(task.glob(pattern)))), [])


def _judged_cmteb(task: Path, split: str) -> list[Path]:
    beside = task.parent / f"{task.name}-qrels"
    places = (beside / "data", beside, task / "qrels", task / "default", task / "data", task)
    return next((files for place in places if (files := locate(place, f"{split}-*.parquet"))), [])


def _qrels(files: list[Path]) -> Qrels:
    qrels: Qrels = {}
    for file in files:
        for place, raw in places_of(file):
            row = parsed(raw, place)
            query = next((row[name] for name in _QUERY if name in row), None)
            document = next((row[name] for name in _DOCUMENT if name in row), None)
            if query is None or document is None or "score" not in row:
                raise place.error(
                    f"expected qid, pid, score, or query-id, corpus-id, score; got {', '.join(row)}"
                )
            qrels.setdefault(str(query), {})[str(document)] = int(row["score"])
    return qrels
