"""HotpotQA, distractor setting: a question, two paragraphs that answer it together, and eight that do not.

An array of ``{"_id", "question", "answer", "supporting_facts": [[title, sentence]], "context": [[title, [sentence,
…]]]}``; rows on the Hub have ``id``, and objects of lists in place of the pairs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from triptych.data.labelled.files import Files
from triptych.data.labelled.items import Dropped, Item, Labelled, Options, Passage, draw
from triptych.data.labelled.jsonstream import rows
from triptych.data.records import Place


def read_hotpotqa(files: Files, options: Options) -> Iterator[Item]:
    """Reads such files: paragraphs with a supporting fact are positives, the distractors are given negatives."""
    for path in files.of_split("questions", options.split, r".*\.jsonl?", r".*\.parquet"):
        for place, record in rows(path):
            yield _item(record, place, options)


def _item(record: dict[str, Any], place: Place, options: Options) -> Item:
    question = record.get("question")
    if not isinstance(question, str) or "context" not in record:
        raise place.error(
            f"got fields {', '.join(map(repr, record))}; expected question, context, supporting_facts"
        )
    supporting = {
        str(title) for title, _ in _pairs(record.get("supporting_facts"), ("title", "sent_id"), place)
    }
    paragraphs = [
        Passage("".join(sentences).strip(), str(title))
        for title, sentences in _pairs(record["context"], ("title", "sentences"), place)
    ]
    pos = [passage for passage in paragraphs if passage.title in supporting]
    if not pos:
        return Dropped(place, "no supporting paragraph", question)
    neg = [passage for passage in paragraphs if passage.title not in supporting]
    kept = draw(neg, options.max_negatives, options.seed, question) if options.wants("given") else []
    answer = record.get("answer")
    id_ = record.get("_id", record.get("id"))
    return Labelled(
        place, question, pos, kept, str(id_) if id_ else None, "en", {"answers": [answer]} if answer else {}
    )


def _pairs(value: Any, names: tuple[str, str], place: Place) -> list[tuple[Any, Any]]:
    """Pairs of a list of lists, or of an object of two lists."""
    if isinstance(value, dict):
        columns = cast("dict[str, list[Any]]", value)
        return list(zip(columns.get(names[0], []), columns.get(names[1], []), strict=True))
    pairs = cast("list[Any]", value or [])
    if not isinstance(value, list | None) or not all(
        isinstance(pair, list) and len(pair) == 2 for pair in pairs
    ):
        raise place.error(f"got {value!r:.60}; expected a list of pairs ({', '.join(names)})")
    return [(pair[0], pair[1]) for pair in pairs]
