"""Conditions on documents' metadata: parsed from a plain mapping, evaluated by every engine alike.

A mapping's entries must all hold::

    {"lang": "fr"}                              equal
    {"lang": ["fr", "de"], "year": [2023, 2024]} equal to any of them
    {"year": {"gte": 2020, "lt": 2025}}         a range of numbers (gte, gt, lte, lt)
    {"published": {"gte": "2024-01-01"}}        a range of ISO dates or times (without a zone: UTC)

A key with dots descends into nested objects (``"author.name"``). Where the document holds a list, one
matching element is enough. A document without the field does not match. Numbers are equal by value
(5 = 5.0), and ``True`` is not 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal, TypeAlias, cast

from triptych.errors import InputError

Scalar: TypeAlias = str | int | float | bool
Bound: TypeAlias = Literal["gte", "gt", "lte", "lt"]
BOUNDS: tuple[Bound, ...] = ("gte", "gt", "lte", "lt")


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
        found = _time(value) if self.of_times else _number(value)
        return found is not None and all(_within(found, bound, limit) for bound, limit in self.bounds)


Condition: TypeAlias = AnyOf | Between


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
            raise InputError(f'filter: got {value!r}; expected a mapping such as {{"lang": "fr"}}')
        conditions = tuple(_condition(key, wanted) for key, wanted in value.items())
        return cls(conditions) if conditions else None

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Whether a document with this metadata fulfils all conditions."""
        return all(any(map(c.holds, _values(metadata, c.path))) for c in self.conditions)


def _condition(key: object, wanted: object) -> Condition:
    if not isinstance(key, str) or not all(key.split(".")) or set(key) & set('"\\[]'):
        raise InputError(
            f"filter: got the key {key!r}; expected a field's name, dots leading into nested objects, "
            'without quotes ("), backslashes and brackets'
        )
    path = tuple(key.split("."))
    if isinstance(wanted, Mapping):
        return _between(key, path, cast(Mapping[Any, Any], wanted))
    several = isinstance(wanted, list | tuple | set | frozenset)
    values = list(cast(Sequence[Any], wanted)) if several else [wanted]
    wrong = [value for value in values if not _is_scalar(value)]
    if wrong or not values:
        shown = wrong[0] if wrong else wanted
        raise InputError(
            f"filter: got {key!r}: {shown!r}; expected a string, number or truth value, a list of at least one "
            f"of them, or a range with {', '.join(BOUNDS)}"
        )
    return AnyOf(path, tuple(cast("list[Scalar]", values)))


def _between(key: str, path: tuple[str, ...], wanted: Mapping[Any, Any]) -> Between:
    unknown = [bound for bound in wanted if bound not in BOUNDS]
    if unknown or not wanted:
        raise InputError(
            f"filter: {key!r} has the bounds {list(wanted)}; expected one or more of {', '.join(BOUNDS)}"
        )
    numbers = {bound: _number(limit) for bound, limit in wanted.items()}
    times = {bound: _time(limit) for bound, limit in wanted.items()}
    for limits in (numbers, times):
        if None not in limits.values():
            return Between(path, tuple((bound, cast(Any, limits[bound])) for bound in wanted))
    raise InputError(
        f"filter: {key!r} has the limits {list(wanted.values())}; expected all numbers, or all ISO dates or times"
    )


def _is_scalar(value: object) -> bool:
    return isinstance(value, str | bool) or _number(value) is not None


def _number(value: object) -> float | None:
    """The number as the engines compare it (float64), or None for what is no finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if number - number == 0 else None


def _time(value: object) -> datetime | None:
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def _equal(value: object, wanted: Scalar) -> bool:
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
