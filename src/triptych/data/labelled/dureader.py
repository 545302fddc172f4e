"""DuReader-retrieval, as its makers publish it, and DuReader-robust, which has SQuAD's format.

``dev/dev.json``: ``{"question_id", "question", "answer_paragraphs": [{"paragraph_id", "paragraph_text"}]}``.
``train/dual.train.tsv``: query, an empty column, a passage that answers, an empty column, one that does not, an empty
column. ``train/cross.train.tsv``: query, an empty column, passage, label (1 or 0).
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, cast

from triptych.data.labelled.files import Files
from triptych.data.labelled.items import Dropped, Item, Labelled, Options, Passage, draw
from triptych.data.labelled.jsonstream import rows
from triptych.data.labelled.tsv import cells_of
from triptych.data.records import Place

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
