"""T2Ranking: tab-separated files with headers, four grades of relevance, and mined negatives.

``collection.tsv`` (pid, text), ``queries.SPLIT.tsv`` (qid, text), ``qrels.SPLIT.tsv`` (qid, -, pid, rel from 0 to 3) or
``qrels.retrieval.SPLIT.tsv`` (qid, pid: the positives alone), ``SPLIT.mined.tsv`` or ``SPLIT.bm25.tsv`` (qid, pid,
index, …). A grade of 2 and more counts as relevant, as its makers have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from triptych.data.beir import Judgement, read_qrels
from triptych.data.labelled.collection import Collection, Pair, join
from triptych.data.labelled.files import Files
from triptych.data.labelled.items import Item, Options
from triptych.data.labelled.tsv import cells_of, texts_of

_HEADER = ("qid", "pid")


def read_t2ranking(files: Files, options: Options) -> Iterator[Item]:
    """Reads the graded judgements if they are there, otherwise the positives of the retrieval task."""
    split = re.escape(options.split)
    qrels = files.one("judgements", rf"qrels\.{split}\.tsv", rf"qrels\.retrieval\.{split}\.tsv")
    graded = ".retrieval." not in qrels.name
    mined = files.matching(rf"{split}\.mined\.tsv") or files.matching(rf"{split}\.bm25\.tsv")
    parts = Collection(
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
