"""One training example, and the forms in which people's records hold one.

Known forms, told apart by their fields:

- ``{"query", "pos": […], "neg": […]}``, optionally with ``pos_scores``, ``neg_scores``, ``prompt``, ``id``,
  ``lang``: the form of the published M3 training data, and ours;
- columns ``query|anchor|question``, ``positive|answer|passage``, ``negative`` or ``negative_1``, ``negative_2``…
  with, for distillation, ``label|score``: a list of the teacher's scores (positive first), or with one negative
  the margin between the two, as sentence-transformers has them;
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
from triptych.records import Place

Scores: TypeAlias = tuple[float, ...]

QUERY = ("query", "anchor", "question", "sentence1")
POSITIVE = ("positive", "answer", "passage", "sentence2")
LIST = ("docs", "documents", "passages")
LABEL = ("label", "score", "labels", "scores")
LANGUAGE = ("lang", "language")
_NEGATIVE = re.compile(r"negative(?:_(\d+))?")
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
        prompt: Stands before the query in place of the model's query prefix, or None.
        id: What the file calls it.
        language: What the file says of its language.

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


def parse_record(record: Mapping[str, Any], place: Place) -> Example | list[Judged]:
    """Makes an example of a record, or judged pairs that wait for others of the same query.

    Fields that mean nothing here are left alone.

    Raises:
        DataError: For a record of none of the known forms, a field of the wrong type, or what `Example` refuses.
    """
    record = {name: value for name, value in record.items() if value is not None}
    query = _first(record, QUERY)
    if query is None:
        raise place.error(f"no query; the record has {_names(record)}; {_EXPECTED}")
    if "pos" in record:
        return make_example(place, query=_text(record, query, place), **_lists(record, place))
    if (documents := _first(record, LIST)) is not None:
        return _judged_list(record, query, documents, place)
    positive = _first(record, POSITIVE)
    if positive is None:
        raise place.error(f"no passage; the record has {_names(record)}; {_EXPECTED}")
    negatives = _negatives(record, place)
    label = _first(record, LABEL)
    if label is not None and not negatives and not isinstance(record[label], list):
        texts = _text(record, query, place), _text(record, positive, place)
        value, graded = _judgement(record[label], label, place)
        return [Judged(*texts, value, graded, *_extras(record, place))]
    id_, language = _extras(record, place)
    scores = (None, None) if label is None else _teacher(record[label], label, len(negatives), place)
    return make_example(
        place,
        query=_text(record, query, place),
        pos=(_text(record, positive, place),),
        neg=negatives,
        pos_scores=scores[0],
        neg_scores=scores[1],
        prompt=_optional_text(record, "prompt", place),
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


def _lists(record: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """The fields of our own form but for the query."""
    neg = _texts(record, "neg", place) if "neg" in record else ()
    pos_scores = _numbers(record, "pos_scores", place) if "pos_scores" in record else None
    neg_scores = _numbers(record, "neg_scores", place) if "neg_scores" in record else None
    if pos_scores is not None and neg_scores is None and not neg:
        neg_scores = ()
    id_, language = _extras(record, place)
    return {
        "pos": _texts(record, "pos", place),
        "neg": neg,
        "pos_scores": pos_scores,
        "neg_scores": neg_scores,
        "prompt": _optional_text(record, "prompt", place),
        "id": id_,
        "language": language,
    }


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
    """Texts of ``negative``, ``negative_1``, …, in the order of their numbers."""
    named = [(int(match[1] or 0), name) for name in record if (match := _NEGATIVE.fullmatch(name))]
    texts: list[str] = []
    for _, name in sorted(named):
        texts += (
            _texts(record, name, place) if isinstance(record[name], list) else [_text(record, name, place)]
        )
    return tuple(texts)


def _extras(record: Mapping[str, Any], place: Place) -> tuple[str | None, str | None]:
    id_ = record.get("id", record.get("_id"))
    if isinstance(id_, bool) or not isinstance(id_, str | int | None):
        raise place.error(f"field 'id' is {id_!r:.40}; expected a string or a whole number")
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


def _optional_text(record: Mapping[str, Any], name: str, place: Place) -> str | None:
    return _text(record, name, place) if name in record else None


def _texts(record: Mapping[str, Any], name: str, place: Place) -> tuple[str, ...]:
    value = record[name]
    if not isinstance(value, list) or not all(isinstance(text, str) for text in cast(list[Any], value)):
        raise place.error(f"field {name!r} is {value!r:.60}; expected a list of strings")
    return tuple(cast(list[str], value))


def _numbers(record: Mapping[str, Any], name: str, place: Place) -> Scores:
    value = record[name]
    if not isinstance(value, list):
        raise place.error(f"field {name!r} is {value!r:.60}; expected a list of numbers")
    return tuple(_judgement(number, name, place)[0] for number in cast(list[Any], value))


def _first(record: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in record), None)


def _names(record: Mapping[str, Any]) -> str:
    return ", ".join(map(repr, record)) or "no fields"
