"""Chinese data sets: DuReader-retrieval, T2Ranking, and the retrieval tasks of C-MTEB as Parquet files.

DuReader-retrieval (DuReader-robust has SQuAD's format): ``dev/dev.json`` with ``{"question_id", "question",
"answer_paragraphs": [{"paragraph_id", "paragraph_text"}]}``; ``train/dual.train.tsv``: query, an empty column, a
passage that answers, an empty column, one that does not, an empty column; ``train/cross.train.tsv``: query, an empty
column, passage, label (1 or 0).

T2Ranking: ``collection.tsv`` (pid, text), ``queries.SPLIT.tsv`` (qid, text), ``qrels.SPLIT.tsv`` (qid, -, pid, rel
from 0 to 3) or ``qrels.retrieval.SPLIT.tsv`` (qid, pid: the positives alone), ``SPLIT.mined.tsv`` or
``SPLIT.bm25.tsv`` (qid, pid, index, …). A grade of 2 and more counts as relevant, as its makers have it.

C-MTEB: ``TASK/data/corpus-*.parquet`` and ``queries-*.parquet`` with ``TASK-qrels/data/SPLIT-*.parquet`` beside it, or
TASK with the folders corpus, queries and qrels (or data).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from triptych.collections.files import Files, rows
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
    records_of,
    relevance,
    texts_of,
)
from triptych.collections.msmarco import GRADED_METRICS
from triptych.errors import DataError
from triptych.records import DOCUMENT_IDS, QUERY_FIELDS, QUERY_IDS, Place, first_of

_TRAIN = (r"dual\.train.*\.tsv", r"cross\.train.*\.tsv")


def read_dureader_retrieval(files: Files, options: Options) -> Iterator[Item]:
    """Reads training pairs of the split "train" (the dual encoder's, else the cross encoder's), else JSON."""
    if options.split == "train" and any(files.matching(pattern) for pattern in _TRAIN):
        path = files.one("training pairs", r"dual\.train\.tsv", r"cross\.train\.tsv", *_TRAIN)
        yield from _group_by_query(path, options)
        return
    for path in files.of_split("questions", options.split, r".*\.jsonl?"):
        for place, record in rows(path):
            yield _to_item(record, place)


def _to_item(record: dict[str, Any], place: Place) -> Item:
    question, paragraphs = record.get("question"), record.get("answer_paragraphs", [])
    if not isinstance(question, str) or not isinstance(paragraphs, list):
        raise place.error(f"got fields {', '.join(map(repr, record))}; expected question, answer_paragraphs")
    pos = [
        JudgedPassage(str(each.get("paragraph_text", "")), None, str(each.get("paragraph_id", "")) or None)
        for each in cast("list[dict[str, Any]]", paragraphs)
    ]
    if not pos:
        return Dropped(place, "no paragraph answers", question)
    return Labelled(place, question, pos, (), str(record.get("question_id", "")) or None, "zh")


def _group_by_query(path: Path, options: Options) -> Iterator[Item]:
    """Neighbouring lines of one query as one example."""
    for query, group in groupby(_read_judged(path), key=lambda judged: judged[1]):
        same = list(group)
        pos = dict.fromkeys(text for _, _, text, relevant in same if relevant)
        neg = dict.fromkeys(text for _, _, text, relevant in same if not relevant and text not in pos)
        if not pos:
            yield Dropped(same[0][0], "no positive", query)
            continue
        sample = options.sample(map(JudgedPassage, neg), query) if options.wants("given") else []
        yield Labelled(same[0][0], query, [JudgedPassage(text) for text in pos], sample, language="zh")


def _read_judged(path: Path) -> Iterator[tuple[Place, str, str, bool]]:
    expected = "query, -, passage, label or query, -, positive, -, negative, -"
    for place, cells in cells_of(path, (4, 5, 6), expected):
        if len(cells) == 4:
            if cells[3] not in ("0", "1"):
                raise place.error(f"got the label {cells[3]!r}; expected 0 or 1")
            yield place, cells[0], cells[2], cells[3] == "1"
        else:
            yield place, cells[0], cells[2], True
            yield place, cells[0], cells[4], False


def read_t2ranking(files: Files, options: Options) -> Iterator[Tables]:
    """Reads the graded judgements if they are there, otherwise the positives of the retrieval task."""
    split = re.escape(options.split or "dev")
    qrels = files.one("judgements", rf"qrels\.{split}\.tsv", rf"qrels\.retrieval\.{split}\.tsv")
    graded = ".retrieval." not in qrels.name
    mined = files.matching(rf"{split}\.mined\.tsv") or files.matching(rf"{split}\.bm25\.tsv")
    collection = [files.one("collection", r"collection\.tsv")]
    yield Tables(
        queries=texts_of([files.one("queries", rf"queries\.{split}\.tsv")]),
        judgements=judgements_of([qrels], None if graded else 1),
        documents=partial(texts_of, collection),
        files=collection,
        qrels=qrels,
        negatives=_read_negatives(mined),
        positive_from=2 if graded else 1,
        language="zh",
        subset="zh",
        metrics=GRADED_METRICS if graded else (),
    )


def _read_negatives(paths: list[Path]) -> Iterator[Pair]:
    for path in paths:
        for _, cells in cells_of(path, (2, 3, 4), "qid, pid, index (, score)"):
            yield Pair(cells[0], cells[1])


def tasks_of(path: Path) -> list[Path]:
    """The folders of C-MTEB's tasks: the path itself, and those in it."""
    return [
        task
        for task in (path, *sorted(path.glob("*/")))
        if _parquet(task, "corpus") and _parquet(task, "queries")
    ]


def read_cmteb(files: Files, options: Options) -> Iterator[Tables]:
    """Reads one task, or all in a folder; the subset is "zh", the name the task's."""
    split = options.split or "dev"
    for task in (task for root in files.roots for task in tasks_of(root)):
        if not options.takes(task.name, "zh"):
            continue
        corpus, queries, judged = (
            _parquet(task, "corpus"),
            _parquet(task, "queries"),
            _judgement_files(task, split),
        )
        if not judged:
            raise DataError(
                f"no judgements of split {split!r}; expected {task.name}-qrels/data/{split}-*.parquet", task
            )
        yield Tables(
            queries=records_of(queries, QUERY_FIELDS),
            judgements=_judgements(judged),
            documents=partial(records_of, corpus),
            files=corpus,
            qrels=judged[0],
            language="zh",
            name=task.name,
            subset="zh",
        )


def _parquet(task: Path, part: str) -> list[Path]:
    patterns = (f"data/{part}-*.parquet", f"{part}-*.parquet", f"{part}/*.parquet")
    return next((sorted(found) for pattern in patterns if (found := list(task.glob(pattern)))), [])


def _judgement_files(task: Path, split: str) -> list[Path]:
    beside = task.parent / f"{task.name}-qrels"
    places = (beside / "data", beside, task / "qrels", task / "default", task / "data", task)
    return next((found for place in places if (found := sorted(place.glob(f"{split}-*.parquet")))), [])


def _judgements(files: list[Path]) -> Iterator[Judgement]:
    for file in files:
        for place, row in rows(file):
            query, document = first_of(row, QUERY_IDS), first_of(row, DOCUMENT_IDS)
            if query is None or document is None or "score" not in row:
                raise place.error(
                    f"expected qid, pid, score, or query-id, corpus-id, score; got {', '.join(row)}"
                )
            yield Judgement(str(row[query]), str(row[document]), relevance(row["score"], place), place)
