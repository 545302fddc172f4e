"""The JSON of DPR (Karpukhin et al. 2020), in which Natural Questions, TriviaQA and others are published.

An array of ``{"question", "answers", "positive_ctxs", "negative_ctxs", "hard_negative_ctxs"}``; a passage has
``title``, ``text`` and ``passage_id`` (or ``psg_id``).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from triptych.data.labelled.files import Files
from triptych.data.labelled.items import Dropped, Item, Labelled, Options, Passage, draw
from triptych.data.labelled.jsonstream import rows
from triptych.data.records import Place


def read_dpr(files: Files, options: Options) -> Iterator[Item]:
    """Reads such files; hard negatives are given, the others (of other questions) count among "all"."""
    for path in files.of_split("JSON of DPR", options.split, r".*\.jsonl?"):
        for place, record in rows(path):
            yield _item(record, place, options)


def _item(record: dict[str, Any], place: Place, options: Options) -> Item:
    question = record.get("question")
    if not isinstance(question, str) or "positive_ctxs" not in record:
        raise place.error(f"got fields {', '.join(map(repr, record))}; expected question, positive_ctxs, …")
    pos = _passages(record, "positive_ctxs", place)
    if not pos:
        return Dropped(place, "no positive", question)
    neg: list[Passage] = []
    if options.wants("given"):
        neg += _passages(record, "hard_negative_ctxs", place)
    if options.wants("all"):
        neg += _passages(record, "negative_ctxs", place)
    answers = record.get("answers")
    return Labelled(
        place,
        question,
        pos,
        draw(neg, options.max_negatives, options.seed, question),
        language="en",
        facts={"answers": answers} if answers else {},
    )


def _passages(record: dict[str, Any], name: str, place: Place) -> list[Passage]:
    value = record.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in cast("list[Any]", value)):
        raise place.error(f"field {name!r} is {value!r:.40}; expected a list of objects with title and text")
    passages = cast("list[dict[str, Any]]", value)
    return [
        Passage(
            str(each.get("text", "")),
            each.get("title") or None,
            str(each.get("passage_id", each.get("psg_id", ""))) or None,
        )
        for each in passages
    ]
