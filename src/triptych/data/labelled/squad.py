"""SQuAD and everything in its format: SQuAD 1.1 and 2.0, KorQuAD 1, XQuAD, GermanQuAD, DuReader-robust and others.

``{"data": [{"title", "paragraphs": [{"context", "qas": [{"id", "question", "answers", "is_impossible"}]}]}]}``, or rows
``{"id", "title", "context", "question", "answers"}`` as on the Hub.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

from triptych.data.labelled.files import Files
from triptych.data.labelled.items import Dropped, Item, Labelled, Options, Passage, draw
from triptych.data.labelled.jsonstream import rows
from triptych.data.records import Place


def read_squad(files: Files, options: Options) -> Iterator[Item]:
    """Reads such files; the paragraph of a question is its positive.

    Negatives of the kind "all" are the other paragraphs of the article that do not have the answer; rows do not say
    which those are. A question that its paragraph does not answer (SQuAD 2.0) makes no example.
    """
    for path in files.of_split("questions", options.split, r".*\.json", r".*\.jsonl", r".*\.parquet"):
        for place, record in rows(path, "data"):
            if "paragraphs" in record:
                yield from _article(record, place, options)
            else:
                yield _row(record, place, options)


def _article(record: dict[str, Any], place: Place, options: Options) -> Iterator[Item]:
    title = _title(record)
    paragraphs = cast("list[dict[str, Any]]", record["paragraphs"])
    contexts = [str(paragraph.get("context", "")) for paragraph in paragraphs]
    for context, paragraph in zip(contexts, paragraphs, strict=True):
        for question in paragraph.get("qas") or []:
            answers = _answers(question.get("answers"))
            others = contexts if options.wants("all") else []
            neg = [Passage(text, title) for text in others if text != context and not _any(answers, text)]
            yield _item(question, Passage(context, title), answers, neg, (place, options))


def _row(record: dict[str, Any], place: Place, options: Options) -> Item:
    if "question" not in record or "context" not in record:
        raise place.error(
            f"got fields {', '.join(map(repr, record))}; expected paragraphs, or question and context"
        )
    answers = _answers(record.get("answers"))
    return _item(record, Passage(str(record["context"]), _title(record)), answers, [], (place, options))


def _item(
    question: dict[str, Any],
    context: Passage,
    answers: list[str],
    neg: Sequence[Passage],
    where: tuple[Place, Options],
) -> Item:
    place, options = where
    text = str(question.get("question", ""))
    if question.get("is_impossible") or not answers:
        return Dropped(place, "the paragraph does not answer the question", text)
    kept = draw(dict.fromkeys(neg), options.max_negatives, options.seed, text)
    id_ = question.get("id")
    return Labelled(
        place,
        text,
        [context],
        kept,
        None if id_ is None else str(id_),
        options.language,
        {"answers": answers},
    )


def _title(record: dict[str, Any]) -> str | None:
    return str(record.get("title") or "").replace("_", " ") or None


def _answers(value: Any) -> list[str]:
    """Texts of a list of objects, or of an object of lists."""
    if isinstance(value, dict):
        texts: list[Any] = cast("dict[str, Any]", value).get("text") or []
    else:
        texts = [each.get("text") for each in cast("list[dict[str, Any]]", value or [])]
    return list(dict.fromkeys(str(text) for text in texts if text))


def _any(answers: Sequence[str], text: str) -> bool:
    return any(answer.casefold() in text.casefold() for answer in answers)
