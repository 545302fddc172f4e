"""Natural Questions as Google publishes them, simplified or whole: JSON Lines, a question and a Wikipedia page each.

A page is a list of tokens, some of which are HTML tags: words in ``document_text``, separated by single spaces, or
objects in ``document_tokens``. ``annotations`` name a long answer by its tokens (a passage, the positive) and short
answers inside; ``long_answer_candidates`` are the page's other passages.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from html import unescape
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

from triptych.data.labelled.dpr import read_dpr
from triptych.data.labelled.files import Files
from triptych.data.labelled.items import Dropped, Item, Labelled, Options, Passage, draw
from triptych.data.labelled.jsonstream import first_keys, rows
from triptych.data.records import Place

_FILES = (r".*\.jsonl", r".*\.json")
_TAG = re.compile(r"</?[A-Za-z][^<>]*>")
_BEFORE = re.compile(r" +([.,;:!?%)\]}]|'s\b|n't\b|'')")
_AFTER = re.compile(r"([(\[{]|``) +")
_AGREED = 2  # of five annotators of a development question: the rule of the data set's own evaluation
_BLOCK = 5  # words that a passage needs


def read_natural_questions(files: Files, options: Options) -> Iterator[Item]:
    """Reads Google's release, or DPR's form of it."""
    for path in files.of_split("JSON Lines of questions", options.split, *_FILES):
        if "positive_ctxs" in first_keys(path):
            yield from read_dpr(Files([path]), options)
            continue
        for place, record in rows(path):
            yield _item(record, place, options)


def _item(record: dict[str, Any], place: Place, options: Options) -> Item:
    question = record.get("question_text")
    if not isinstance(question, str) or not isinstance(record.get("annotations"), list):
        raise place.error(
            f"got fields {', '.join(map(repr, record))}; expected question_text, document_text, annotations"
        )
    tokens = _tokens(record, place)
    annotations = cast("list[dict[str, Any]]", record["annotations"])
    spans = [_span(each.get("long_answer") or {}) for each in annotations]
    answered = [span for span in spans if span is not None]
    if len(answered) < (_AGREED if len(annotations) > 1 else 1):
        return Dropped(place, "no long answer", question)
    title = _title(record)
    pos = {span: Passage(_text(tokens, span), title) for span in answered}
    neg = _others(record, tokens, list(pos), title) if options.wants("all") else []
    return Labelled(
        place,
        question,
        list(pos.values()),
        draw(neg, options.max_negatives, options.seed, question),
        str(record.get("example_id", "")) or None,
        "en",
        {"answers": answers} if (answers := _answers(annotations, tokens)) else {},
    )


def _tokens(record: dict[str, Any], place: Place) -> list[str]:
    """The page's tokens; those that are tags are empty, so that the numbers stay."""
    text = record.get("document_text")
    if isinstance(text, str):
        return ["" if _TAG.fullmatch(token) else token for token in text.split(" ")]
    objects = record.get("document_tokens")
    if not isinstance(objects, list):
        raise place.error("no document_text and no document_tokens; expected one of them")
    return ["" if each["html_token"] else str(each["token"]) for each in cast("list[Any]", objects)]


def _span(value: dict[str, Any]) -> tuple[int, int] | None:
    start, end = value.get("start_token", -1), value.get("end_token", -1)
    return (start, end) if 0 <= start < end else None


def _text(tokens: Sequence[str], span: tuple[int, int]) -> str:
    joined = " ".join(token for token in tokens[slice(*span)] if token)
    return _AFTER.sub(r"\1", _BEFORE.sub(r"\1", joined)).replace("``", '"').replace("''", '"')


def _answers(annotations: Sequence[dict[str, Any]], tokens: Sequence[str]) -> list[str]:
    shorts = [_span(short) for each in annotations for short in each.get("short_answers") or []]
    return list(dict.fromkeys(_text(tokens, span) for span in shorts if span))


def _others(
    record: dict[str, Any], tokens: Sequence[str], positive: Sequence[tuple[int, int]], title: str | None
) -> list[Passage]:
    """Passages of the page that share no token with a positive."""
    found: list[Passage] = []
    for candidate in record.get("long_answer_candidates") or []:
        span = _span(candidate)
        if not span or not candidate.get("top_level", True):
            continue
        if all(span[1] <= start or end <= span[0] for start, end in positive):
            text = _text(tokens, span)
            if len(text.split()) >= _BLOCK:
                found.append(Passage(text, title))
    return found


def _title(record: dict[str, Any]) -> str | None:
    """The page's title: the simplified form has it in the address alone."""
    if title := record.get("document_title"):
        return str(title)
    query = urlsplit(unescape(str(record.get("document_url", "")))).query
    titles = parse_qs(query).get("title")
    return titles[0].replace("_", " ") if titles else None
