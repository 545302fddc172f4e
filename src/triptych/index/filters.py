"""Conditions on documents' metadata: parsed from a plain mapping, evaluated by every engine alike.

A mapping's entries must all hold::

    {"lang": "fr"}                              equal
    {"lang": ["fr", "de"], "year": [2023, 2024]} equal to any of them
    {"year": {"gte": 2020, "lt": 2025}}         a range of numbers (gte, gt, lte, lt)
    {"published": {"gte": "2024-01-01"}}        a range of ISO dates or times (without a zone: UTC)
    {"published": date(2024, 1, 1)}             the same moment, however it is written

A key with dots descends into nested objects (``"author.name"``). Where the document holds a list, one
matching element is enough. A document without the field does not match. Numbers are equal by value
(5 = 5.0), and ``True`` is not 1. Values of other types stand for what `triptych.index.documents` makes of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal, TypeAlias, cast

from triptych.errors import InputError, show
from triptych.index.documents import check_text, plain_scalar

Scalar: TypeAlias = str | int | float | bool | datetime
Bound: TypeAlias = Literal["gte", "gt", "lte", "lt"]
BOUNDS: tuple[Bound, ...] = ("gte", "gt", "lte", "lt")

_TIME = re.compile(
    r"\s*(\d{4})-(\d{1,2})-(\d{1,2})"
    r"(?:[Tt ](\d{1,2}):(\d{1,2})(?::(\d{1,2})(?:\.(\d+))?\s*(?:[Zz]|([+-])(\d{2}):?(\d{2}))?)?)?"
)
"""What the engines take for a date or time in a document, and so what all of them must."""


@dataclass(frozen=True, slots=True)
class AnyOf:
    """The field equals one of `values`."""

    path: tuple[str, ...]
    values: tuple[Scalar, ...]

    def holds(self, value: object) -> bool:
        """Whether one value of a document fulfils the condition."""
        return any(_equal(value, wanted) for wanted in self.values)


@dataclass(frozen=True, slots=True)
class Between:
    """The field lies within bounds, all of them numbers or all of them times."""

    path: tuple[str, ...]
    bounds: tuple[tuple[Bound, float | datetime], ...]

    @property
    def of_times(self) -> bool:
        """Whether the bounds are times."""
        return isinstance(self.bounds[0][1], datetime)

    def holds(self, value: object) -> bool:
        """Whether one value of a document fulfils the condition."""
        found = _moment(value) if self.of_times else _number(value)
        if found is None:
            return False
        return all(
            _within(found, bound, _moment(limit) if isinstance(limit, datetime) else limit)
            for bound, limit in self.bounds
        )


@dataclass(frozen=True, slots=True)
class Present:
    """The document has the field, with a value."""

    path: tuple[str, ...]

    def holds(self, value: object) -> bool:
        """Whether one value of a document fulfils the condition."""
        return value is not None


Condition: TypeAlias = AnyOf | Between | Present


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that must all hold; `Filter.of` reads them from a mapping."""

    conditions: tuple[Condition, ...]

    @classmethod
    def of(cls, value: Filter | Mapping[str, Any] | None) -> Filter | None:
        """Reads a filter from a mapping (see the module's text); None and an empty mapping filter nothing.

        Raises:
            InputError: For a key or value that no condition can be made of.
        """
        if value is None or isinstance(value, Filter):
            return value
        if not isinstance(value, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f'filter: got {show(value)}; expected a mapping such as {{"lang": "fr"}}')
        conditions = tuple(_condition(key, wanted) for key, wanted in value.items())
        return cls(conditions) if conditions else None

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a document with this metadata fulfils all conditions."""
        return all(any(map(c.holds, _values(metadata, c.path))) for c in self.conditions)


def field_paths(metadata: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """All fields of a document, as filters name them."""
    for name, value in metadata.items():
        yield prefix + name
        if isinstance(value, Mapping):
            yield from field_paths(cast(Mapping[str, Any], value), f"{prefix}{name}.")


def _condition(key: object, wanted: object) -> Condition:
    if not isinstance(key, str) or not all(key.split(".")) or set(key) & set('"\\[]'):
        raise InputError(
            f"filter: got the key {show(key)}; expected a field's name, dots leading into nested objects, "
            'without quotes ("), backslashes and brackets'
        )
    path = tuple(check_text(key, "filter: key").split("."))
    if isinstance(wanted, Mapping):
        return _between(key, path, cast(Mapping[Any, Any], wanted))
    several = isinstance(wanted, Iterable) and not isinstance(wanted, str | bytes)
    values = list(cast(Iterable[Any], wanted)) if several and getattr(wanted, "ndim", 1) else [wanted]
    if not values:
        raise _not_scalar(key, wanted)
    return AnyOf(path, tuple(_scalar(key, value) for value in values))


def _not_scalar(key: str, shown: object) -> InputError:
    return InputError(
        f"filter: got {key!r}: {show(shown)}; expected a string, number, truth value or date, a list of at least one "
        f"of them, or a range with {', '.join(BOUNDS)}"
    )


def _scalar(key: str, value: object) -> Scalar:
    plain = plain_scalar(value)
    if isinstance(plain, str):
        return check_text(plain, f"filter: {key!r}")
    if isinstance(plain, bool) or _number(plain) is not None:
        return plain
    moment = _as_datetime(plain)
    if moment is None:
        raise _not_scalar(key, value)
    return moment


def _between(key: str, path: tuple[str, ...], wanted: Mapping[Any, Any]) -> Between:
    unknown = [bound for bound in wanted if bound not in BOUNDS]
    if unknown or not wanted:
        raise InputError(
            f"filter: {key!r} has the bounds {show(list(wanted))}; expected one or more of {', '.join(BOUNDS)}"
        )
    plain = {bound: plain_scalar(limit) for bound, limit in wanted.items()}
    numbers = {bound: _number(limit) for bound, limit in plain.items()}
    times = {bound: _as_datetime(limit) for bound, limit in plain.items()}
    for limits in (numbers, times):
        if None not in limits.values():
            return Between(path, tuple((bound, cast(Any, limits[bound])) for bound in plain))
    raise InputError(
        f"filter: {key!r} has the limits {show(list(wanted.values()))}; expected all numbers, or all "
        "ISO dates or times of the years 1 to 9999"
    )


def _number(value: object) -> float | None:
    """The number as the engines compare it (float64), or None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if number - number == 0 else None


def _as_datetime(value: object) -> datetime | None:
    """A date or time of a filter in UTC, or None for what is none."""
    try:
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if not isinstance(value, datetime) or value != value:  # pandas' NaT is a datetime
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        return None


def _moment(value: object) -> int | None:
    """Microseconds since the year 0 of a date or time, also of those that Python's own types cannot hold."""
    if isinstance(value, datetime):
        value = value.isoformat()
    if not isinstance(value, str) or not (match := _TIME.fullmatch(value)):
        return None
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    fraction, sign, off_hours, off_minutes = match.groups()[6:]
    try:
        days = date(year % 400 + 400, month, day).toordinal() + (year // 400) * 146_097
    except ValueError:
        return None
    if hour > 23 or minute > 59 or second > 60:
        return None
    offset = (int(off_hours or 0) * 60 + int(off_minutes or 0)) * (-1 if sign == "-" else 1)
    micros = int((fraction or "0")[:6].ljust(6, "0"))
    return (((days * 24 + hour) * 60 + minute - offset) * 60 + second) * 1_000_000 + micros


def _equal(value: object, wanted: Scalar) -> bool:
    if isinstance(wanted, datetime):
        moment = _moment(value)
        return moment is not None and moment == _moment(wanted)
    if isinstance(wanted, str | bool):
        return type(value) is type(wanted) and value == wanted
    number = _number(value)
    return number is not None and number == float(wanted)


def _within(value: Any, bound: Bound, limit: Any) -> bool:
    if bound == "gte":
        return value >= limit
    if bound == "gt":
        return value > limit
    return value <= limit if bound == "lte" else value < limit


def _values(node: object, path: tuple[str, ...]) -> Iterator[object]:
    """What a document has at `path`: nothing, one value, or a list's elements."""
    for name in path:
        if not isinstance(node, Mapping) or name not in node:
            return
        node = cast(Mapping[str, object], node)[name]
    if isinstance(node, list | tuple):
        yield from cast(Sequence[object], node)
    else:
        yield node
