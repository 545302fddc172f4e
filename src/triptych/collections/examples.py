"""One training example, and the forms in which people's records hold one.

Known forms, told apart by their fields:

- ``{"query", "pos": […], "neg": […]}``, optionally with ``pos_scores``, ``neg_scores``, ``teacher_vectors``,
  ``prompt``, ``id``, ``lang``: the form of the published M3 training data, and ours; the lists may have the names of
  `POSITIVES` and `NEGATIVES` too (Tevatron, Cohere, DPR, ms-swift) and hold texts, objects with ``text`` and ``title``,
  or messages;
- columns ``query|anchor|question``, ``positive|passage|context|answer``, ``negative`` or ``negative_1``,
  ``negative_2``… with, for distillation, ``label|score``: a list of the teacher's scores (positive first), or with one
  negative the margin between the two, as sentence-transformers has them;
- columns ``query|anchor|sentence1``, ``passage|positive|sentence2`` and a number ``label|score``: one judged pair;
- columns ``query``, ``docs|documents|passages`` (a list) and ``labels|scores`` (a list): a judged list.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from triptych.errors import InputError
from triptych.records import QUERY_IDS, Document, Place

Scores: TypeAlias = tuple[float, ...]
Vectors: TypeAlias = tuple[tuple[float, ...], ...]

QUERY = ("query", "anchor", "question", "sentence1")
POSITIVE = ("positive", "passage", "context", "document", "sentence2", "answer")
"""In order of preference: an answer is the passage only where there is nothing else."""
POSITIVES = (
    "pos",
    "positives",
    "positive_passages",
    "relevant_passages",
    "positive_ctxs",
    "positive_messages",
    "contexts",
)
NEGATIVES = (
    *(
        "neg",
        "negs",
        "negatives",
        "negative_passages",
        "hard_negatives",
        "hard_negative_ctxs",
        "negative_messages",
    ),
    "rejected_response",
)
LIST = ("docs", "documents", "passages")
LABEL = ("label", "score", "labels", "scores")
LANGUAGE = ("lang", "language")
_NEGATIVE = re.compile(r"(?:hard_)?neg(?:ative)?(?:_(\d+))?")
_EXPECTED = (
    "expected query with pos (and neg), or columns query|anchor, positive (and negative, negative_1, …), "
    "or query, passage and label"
)


@dataclass(frozen=True, slots=True)
class Example:
    """A query with passages that answer it and passages that do not.

    Attributes:
        query: The query, not blank.
        pos: One or more passages that answer it.
        neg: Passages that do not.
        pos_scores: A teacher's score of each of `pos`, in any unit, or None.
        neg_scores: The same for `neg`; present exactly when `pos_scores` is.
        prompt: What the record would have before the query in place of the model's prefix, or None. The published
            training script reads it only where an instruction is set; training does with `data.prompts`.
        id: What the file calls it.
        language: What the file says of its language.
        teacher_vectors: A teacher's vector of each text, the query's first, then those of `passages`; all of one
            width, none of them zero; or None.

    Raises:
        InputError: For a blank text, no positive, or scores that do not fit.
    """

    query: str
    pos: tuple[str, ...]
    neg: tuple[str, ...] = ()
    pos_scores: Scores | None = None
    neg_scores: Scores | None = None
    prompt: str | None = None
    id: str | None = None
    language: str | None = None
    teacher_vectors: Vectors | None = None

    def __post_init__(self) -> None:
        if not self.query.strip():
            raise InputError("the query is blank; expected text")
        if not self.pos:
            raise InputError("no positive; expected one or more passages that answer the query")
        for name, texts in (("pos", self.pos), ("neg", self.neg)):
            blank = next((i for i, text in enumerate(texts) if not text.strip()), None)
            if blank is not None:
                raise InputError(f"{name}[{blank}] is blank; expected text")
        if (self.pos_scores is None) != (self.neg_scores is None):
            given, missing = ("pos", "neg") if self.neg_scores is None else ("neg", "pos")
            raise InputError(f"{given}_scores without {missing}_scores; expected both or none")
        _check_scores("pos", self.pos, self.pos_scores)
        _check_scores("neg", self.neg, self.neg_scores)
        _check_vectors(1 + len(self.passages), self.teacher_vectors)

    @property
    def passages(self) -> tuple[str, ...]:
        """Positives, then negatives."""
        return self.pos + self.neg


@dataclass(frozen=True, slots=True)
class Judged:
    """A query and one passage with a judgement: part of an example.

    Attributes:
        query: The query.
        passage: The passage.
        value: 1 and 0 for a binary judgement, otherwise a score.
        graded: Whether `value` is a score that a student may learn.
        id: What the file calls it.
        language: What the file says of its language.
    """

    query: str
    passage: str
    value: float
    graded: bool
    id: str | None = None
    language: str | None = None


def parse_record(
    record: Mapping[str, Any], place: Place, *, blank_negatives: bool = True
) -> Example | list[Judged]:
    """Makes an example of a record, or judged pairs that wait for others of the same query.

    Fields that mean nothing here are left alone.

    Args:
        record: The record.
        place: Where it stands.
        blank_negatives: Whether a blank negative is an error; otherwise it is left out, with its score.

    Raises:
        DataError: For a record of none of the known forms, a field of the wrong type, or what `Example` refuses.
    """
    record = {name: value for name, value in record.items() if value is not None}
    if "messages" in record and "positive_messages" in record:
        record["query"] = _content(record["messages"], "messages", place)
    query = _first(record, QUERY)
    if query is None:
        raise place.error(f"no query; the record has {_names(record)}; {_EXPECTED}")
    positive = _first(record, POSITIVES) or _first(record, POSITIVE)
    if positive not in POSITIVES and (documents := _first(record, LIST)) is not None:
        return _judged_list(record, query, documents, place)
    if positive is None:
        raise place.error(f"no passage; the record has {_names(record)}; {_EXPECTED}")
    text, (id_, language) = _text(record, query, place), _extras(record, place)
    pos, neg = _texts(record, positive, place), _negatives(record, place)
    pos_scores, neg_scores = _scores(record, "pos_scores", place), _scores(record, "neg_scores", place)
    label = _first(record, LABEL) if positive in POSITIVE else None
    if label is not None and not neg and not isinstance(record[label], list):
        value, graded = _judgement(record[label], label, place)
        return [Judged(text, passage, value, graded, id_, language) for passage in pos]
    if label is not None:
        pos_scores, neg_scores = _teacher(record[label], label, len(neg), place)
    if pos_scores is not None and neg_scores is None and not neg:
        neg_scores = ()
    vectors = _vectors(record, len(pos), len(neg), place)
    if not blank_negatives:
        kept = [i for i, passage in enumerate(neg) if passage.strip()]
        if vectors is not None:
            vectors = (*vectors[: 1 + len(pos)], *(vectors[1 + len(pos) + i] for i in kept))
        if neg_scores is not None and len(neg_scores) == len(neg):
            neg_scores = tuple(neg_scores[i] for i in kept)
        neg = tuple(neg[i] for i in kept)
    prompt = _text(record, "prompt", place) if "prompt" in record else None
    return make_example(
        place,
        query=text,
        pos=pos,
        neg=neg,
        pos_scores=pos_scores,
        neg_scores=neg_scores,
        teacher_vectors=vectors,
        prompt=prompt,
        id=id_,
        language=language,
    )


def join_judged(pairs: Sequence[Judged], positive_from: float, place: Place) -> Example | None:
    """Joins the judged passages of one query; None if none of them is a positive.

    Args:
        pairs: One or more, of the same query.
        positive_from: The least value of a positive. Binary judgements are 0 and 1.
        place: Where the first of them stands.
    """
    pos = [pair for pair in pairs if pair.value >= positive_from]
    neg = [pair for pair in pairs if pair.value < positive_from]
    if not pos:
        return None
    graded = any(pair.graded for pair in pairs)
    first = pairs[0]
    return make_example(
        place,
        query=first.query,
        pos=tuple(pair.passage for pair in pos),
        neg=tuple(pair.passage for pair in neg),
        pos_scores=tuple(pair.value for pair in pos) if graded else None,
        neg_scores=tuple(pair.value for pair in neg) if graded else None,
        id=first.id,
        language=first.language,
    )


def make_example(place: Place, **values: Any) -> Example:
    """`Example`, with a `DataError` that names the place."""
    try:
        return Example(**values)
    except InputError as error:
        raise place.error(str(error)) from None


def _check_scores(name: str, texts: Sequence[str], scores: Scores | None) -> None:
    if scores is None:
        return
    if len(scores) != len(texts):
        raise InputError(
            f"{name}_scores has {len(scores)} numbers; expected {len(texts)}, one for each of {name}"
        )
    if not all(math.isfinite(score) for score in scores):
        raise InputError(f"{name}_scores: got {list(scores)}; expected finite numbers")


def _check_vectors(texts: int, vectors: Vectors | None) -> None:
    if vectors is None:
        return
    widths = sorted({len(vector) for vector in vectors})
    if len(vectors) != texts or len(widths) != 1 or not widths[0]:
        raise InputError(
            f"teacher_vectors: got {len(vectors)} vectors of {widths} numbers; expected {texts}, one for the query "
            "and each of pos and neg, of one width"
        )
    for vector in vectors:
        if not all(map(math.isfinite, vector)) or not any(vector):
            raise InputError("teacher_vectors: got a zero vector or a number that is not finite")


def _judged_list(record: Mapping[str, Any], query: str, documents: str, place: Place) -> list[Judged]:
    label = _first(record, LABEL)
    texts = _texts(record, documents, place)
    if label is None:
        raise place.error(f"{documents!r} without labels; expected a list of {len(texts)} numbers")
    values = record[label]
    if not isinstance(values, list) or len(cast(list[Any], values)) != len(texts):
        raise place.error(
            f"field {label!r}: expected a list of {len(texts)} numbers, one for each of {documents!r}"
        )
    judgements = [_judgement(value, label.rstrip("s"), place) for value in cast(list[Any], values)]
    name, (id_, language) = _text(record, query, place), _extras(record, place)
    return [
        Judged(name, text, value, graded, id_, language)
        for text, (value, graded) in zip(texts, judgements, strict=True)
    ]


def _judgement(value: Any, name: str, place: Place) -> tuple[float, bool]:
    """The number, and whether it is a score: a `label` of 0 or 1 is not."""
    number = float(value) if isinstance(value, bool | int | float) else math.nan
    if not math.isfinite(number):
        raise place.error(f"field {name!r} is {value!r:.40}; expected a finite number")
    return number, not (name.startswith("label") and number in (0.0, 1.0))


def _teacher(value: Any, name: str, negatives: int, place: Place) -> tuple[Scores, Scores]:
    """A teacher's scores from a list (positive first) or, with one negative, from the margin.

    Only differences between a query's scores count in a softmax, so a margin m is the scores (m, 0).
    """
    if isinstance(value, list):
        scores = tuple(_judgement(each, name, place)[0] for each in cast(list[Any], value))
        if len(scores) != negatives + 1:
            raise place.error(
                f"field {name!r} has {len(scores)} numbers; expected {negatives + 1}: the positive's, then "
                "each negative's"
            )
        return scores[:1], scores[1:]
    if negatives == 1:
        return (_judgement(value, name, place)[0],), (0.0,)
    raise place.error(
        f"field {name!r} is one number beside {negatives} negatives; expected {negatives + 1} numbers"
    )


def _negatives(record: Mapping[str, Any], place: Place) -> tuple[str, ...]:
    """Texts of the lists of negatives, then of ``negative``, ``negative_1``, …, in the order of their numbers."""
    named = [(int(match[1] or 0), name) for name in record if (match := _NEGATIVE.fullmatch(name))]
    names = dict.fromkeys(
        [*(name for name in NEGATIVES if name in record), *(name for _, name in sorted(named))]
    )
    return tuple(text for name in names for text in _texts(record, name, place))


def _extras(record: Mapping[str, Any], place: Place) -> tuple[str | None, str | None]:
    name = _first(record, QUERY_IDS)
    id_ = None if name is None else record[name]
    if isinstance(id_, bool) or not isinstance(id_, str | int | None):
        raise place.error(f"field {name!r} is {id_!r:.40}; expected a string or a whole number")
    language = _first(record, LANGUAGE)
    return (
        None if id_ is None else str(id_),
        None if language is None else _text(record, language, place),
    )


def _text(record: Mapping[str, Any], name: str, place: Place) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise place.error(f"field {name!r} is {value!r:.40}; expected a string")
    return value


def _texts(record: Mapping[str, Any], name: str, place: Place) -> tuple[str, ...]:
    """The text or texts of a field: strings, objects with text and title, or lists of messages."""
    value = record[name]
    if isinstance(value, str) and name in (*POSITIVES, *NEGATIVES):
        raise place.error(f"field {name!r} is {value!r:.60}; expected a list of strings")
    values = cast(list[Any], value) if isinstance(value, list) else [value]
    return tuple(_content(each, name, place) for each in values)


def _content(value: Any, name: str, place: Place) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        text, title = fields.get("text", fields.get("content")), fields.get("title")
        if isinstance(text, str) and isinstance(title, str | None):
            return Document("", text, title or None).content
    if isinstance(value, list) and value:  # a conversation, of which the last message is the text
        return _content(cast(list[Any], value)[-1], name, place)
    raise place.error(f"field {name!r} holds {value!r:.60}; expected a string, or a list of strings")


def _scores(record: Mapping[str, Any], name: str, place: Place) -> Scores | None:
    if name not in record:
        return None
    value = record[name]
    if not isinstance(value, list):
        raise place.error(f"field {name!r} is {value!r:.60}; expected a list of numbers")
    return tuple(_judgement(number, name, place)[0] for number in cast(list[Any], value))


def _vectors(record: Mapping[str, Any], pos: int, neg: int, place: Place) -> Vectors | None:
    """The query's vector, the positives' and the negatives'."""
    value = record.get("teacher_vectors")
    if value is None:
        return None
    parts = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    rows = [[parts.get("query")], parts.get("pos"), parts.get("neg", [])]
    for name, row, count in zip(("query", "pos", "neg"), rows, (1, pos, neg), strict=True):
        if not isinstance(row, list) or len(cast("list[Any]", row)) != count:
            raise place.error(
                f"field 'teacher_vectors': {name} is {row!r:.40}; expected {count} lists of numbers"
            )
    try:
        return tuple(
            tuple(map(float, vector)) for row in cast("list[list[list[float]]]", rows) for vector in row
        )
    except (TypeError, ValueError):
        raise place.error("field 'teacher_vectors': expected lists of numbers") from None


def _first(record: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in record), None)


def _names(record: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, record)) or "no fields"
