"""Conditions on documents: parsed from a plain mapping, evaluated by every engine alike.

A mapping's entries must all hold::

    {"lang": "fr"}                              equal
    {"lang": ["fr", "de"], "year": [2023, 2024]} equal to any of them
    {"year": {"gte": 2020, "lt": 2025}}         a range of numbers (gte, gt, lte, lt)
    {"published": {"gte": "2024-01-01"}}        a range of ISO dates or times (without a zone: UTC)
    {"published": date(2024, 1, 1)}             the same moment, however it is written
    {"path": {"prefix": "docs/"}}               a string that begins so (or so: a list)
    {"author": {"exists": True}}                the field is there, neither null nor an empty list
    {"lang": {"not": "fr"}}                     not equal; a list: to none of them; a mapping: that does not hold
    {"year": {"gte": 2020, "ne": 2022}}         operators of one field must all hold; eq, ne and in are there, too
    {"id": ["a", "b"]}                          the document's id
    {"or": [{"lang": "fr"}, {"year": 2020}]}    one of these filters holds; "and": all of them
    {"not": {"lang": "fr", "year": 2020}}       this filter does not hold

A key with dots descends into nested objects (``"author.name"``). Where the document holds a list, one
matching element is enough. A document without the field does not match, and so matches where that is negated. Numbers
are equal by value (5 = 5.0), and ``True`` is not 1. Strings are compared as they are, letter case included. Values of
other types stand for what `triptych.index.documents` makes of them. The keys "id", "and", "or" and "not" are reserved:
metadata fields of these names are ``"metadata.id"`` and so on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from triptych.errors import InputError, show
from triptych.index.documents import Payload, check_text, plain_scalar

Scalar: TypeAlias = str | int | float | bool | datetime
Bound: TypeAlias = Literal["gte", "gt", "lte", "lt"]
BOUNDS: tuple[Bound, ...] = ("gte", "gt", "lte", "lt")
OPERATORS = (*BOUNDS, "eq", "ne", "in", "not", "prefix", "exists")
RESERVED = ("id", "and", "or", "not")
"""Keys that are no fields of the metadata."""

ID = ("id",)
"""The path of a document's id; those of metadata fields begin with "metadata"."""

_DEPTH = 32
"""Most levels of filters in filters: the engines' decoders have a limit, too."""

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
        found = moment_of(value) if self.of_times else number_of(value)
        if found is None:
            return False
        return all(
            _within(found, bound, moment_of(limit) if isinstance(limit, datetime) else limit)
            for bound, limit in self.bounds
        )


@dataclass(frozen=True, slots=True)
class Present:
    """The document has the field, and it is neither null nor an empty list."""

    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Prefix:
    """The field is a string that begins with one of `prefixes`."""

    path: tuple[str, ...]
    prefixes: tuple[str, ...]

    def holds(self, value: object) -> bool:
        """Whether one value of a document fulfils the condition."""
        return isinstance(value, str) and value.startswith(self.prefixes)


Condition: TypeAlias = AnyOf | Between | Present | Prefix


@dataclass(frozen=True, slots=True)
class Not:
    """`part` does not hold."""

    part: Part


@dataclass(frozen=True, slots=True)
class Or:
    """One of `parts` holds."""

    parts: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Filter:
    """Conditions that must all hold; `Filter.of` reads them from a mapping."""

    conditions: tuple[Part, ...]

    @classmethod
    def of(cls, value: Filter | Mapping[str, Any] | None) -> Filter | None:
        """Reads a filter from a mapping (see the module's text); None and an empty mapping filter nothing.

        Raises:
            InputError: For a key or value that no condition can be made of.
        """
        if value is None or isinstance(value, Filter):
            return value
        found = _filter(value, "filter", _DEPTH)
        return found if found.conditions else None

    def matches(self, document: Payload) -> bool:
        """Whether a document fulfils all conditions."""
        return all(_matches(part, document) for part in self.conditions)

    @property
    def paths(self) -> list[tuple[str, ...]]:
        """The fields that it asks for, each once, but for the id."""
        return [path for path in dict.fromkeys(leaf.path for leaf in self.leaves) if path != ID]

    @property
    def leaves(self) -> Iterator[Condition]:
        """The conditions on fields, wherever they stand in it."""
        return _leaves(self)

    @property
    def optional_paths(self) -> list[tuple[str, ...]]:
        """Those of them that a document may lack and still fulfil the filter, in a negation or an alternative."""
        inner = [part for part in self.conditions if isinstance(part, Not | Or | Filter)]
        found = [
            path
            for part in inner
            for path in (
                part.optional_paths if isinstance(part, Filter) else [leaf.path for leaf in _leaves(part)]
            )
        ]
        return [path for path in dict.fromkeys(found) if path != ID]


Part: TypeAlias = Condition | Not | Or | Filter
"""What a filter consists of."""


def field_name(path: Sequence[str]) -> str:
    """A path as a filter's key names it."""
    name = ".".join(path[1:])
    return ".".join(path) if path == ID or name in RESERVED else name


def field_path(key: object, where: str = "filter: got the key") -> tuple[str, ...]:
    """The path of the field that a key names.

    Raises:
        InputError: For what is no name.
    """
    if not isinstance(key, str) or not all(key.split(".")) or set(key) & set('"\\[]'):
        raise InputError(
            f"{where} {show(key)}; expected a field's name, dots leading into nested objects, "
            'without quotes ("), backslashes and brackets'
        )
    path = tuple(check_text(key, "filter: key").split("."))
    reserved = path[0] == "metadata" and path[1:] and path[1:] in [(name,) for name in RESERVED]
    return path if path == ID or reserved else ("metadata", *path)


def field_paths(metadata: Mapping[str, Any], prefix: tuple[str, ...] = ("metadata",)) -> Iterator[str]:
    """All fields of a document, as filters name them."""
    for name, value in metadata.items():
        path = (*prefix, name)
        yield field_name(path)
        if isinstance(value, Mapping):
            yield from field_paths(cast(Mapping[str, Any], value), path)


def _matches(part: Part, document: Payload) -> bool:
    if isinstance(part, Filter):
        return part.matches(document)
    if isinstance(part, Not):
        return not _matches(part.part, document)
    if isinstance(part, Or):
        return any(inner.matches(document) for inner in part.parts)
    value = value_at(document, part.path)
    if isinstance(part, Present):
        return value is not None and value != []
    several = isinstance(value, list | tuple)
    return any(map(part.holds, cast(Sequence[object], value) if several else [value]))


def _leaves(part: Part) -> Iterator[Condition]:
    if isinstance(part, Not):
        yield from _leaves(part.part)
    elif isinstance(part, Or | Filter):
        for inner in part.parts if isinstance(part, Or) else part.conditions:
            yield from _leaves(inner)
    else:
        yield part


def _filter(value: object, where: str, depth: int) -> Filter:
    if not isinstance(value, Mapping):
        raise InputError(f'{where}: got {show(value)}; expected a mapping such as {{"lang": "fr"}}')
    _check_depth(depth)
    found: list[Part] = []
    for key, wanted in cast(Mapping[Any, Any], value).items():
        if key == "not":
            found.append(Not(_part(wanted, "filter: 'not'", depth)))
        elif key in ("and", "or"):
            several = isinstance(wanted, Iterable) and not isinstance(wanted, str | bytes | Mapping)
            parts = list(cast(Iterable[Any], wanted)) if several else []
            if not parts:
                raise InputError(
                    f"filter: got {key!r}: {show(wanted)}; expected a list of at least one filter, such as "
                    f'{{"{key}": [{{"lang": "fr"}}, {{"year": 2020}}]}}'
                )
            filters = tuple(_part(part, f"filter: {key!r}[{i}]", depth) for i, part in enumerate(parts))
            found.append(Or(filters) if key == "or" else Filter(filters))
        else:
            found += _conditions(key, field_path(key), wanted, depth)
    return Filter(tuple(found))


def _part(value: object, where: str, depth: int) -> Filter:
    found = value if isinstance(value, Filter) else _filter(value, where, depth - 1)
    if not found.conditions:
        raise InputError(f'{where}: got an empty filter; expected a mapping such as {{"lang": "fr"}}')
    return found


def _check_depth(depth: int) -> None:
    if depth < 1:
        raise InputError(f"filter: got filters nested more than {_DEPTH} deep; expected fewer levels")


def _conditions(key: str, path: tuple[str, ...], wanted: object, depth: int) -> list[Part]:
    """What a field is asked for: one value, several, or operators."""
    _check_depth(depth)
    if not isinstance(wanted, Mapping):
        return [_any_of(key, path, wanted)]
    operators = cast(Mapping[Any, Any], wanted)
    if not operators or any(name not in OPERATORS for name in operators):
        raise InputError(
            f"filter: {key!r} has the operators {show(list(operators))}; expected one or more of "
            f"{', '.join(OPERATORS)}"
        )
    if path == ID and (other := [name for name in operators if name in (*BOUNDS, "exists")]):
        raise InputError(f"filter: {key!r} has the operators {show(other)}; expected ids, or their prefix")
    found: list[Part] = []
    if bounds := {name: limit for name, limit in operators.items() if name in BOUNDS}:
        found.append(_between(key, path, bounds))
    for name, value in operators.items():
        if name in ("eq", "in"):
            found.append(_any_of(key, path, value))
        elif name in ("ne", "not"):
            found.append(Not(Filter(tuple(_conditions(key, path, value, depth - 1)))))
        elif name == "prefix":
            found.append(_prefix(key, path, value))
        elif name == "exists":
            if not isinstance(plain := plain_scalar(value), bool | np.bool_):
                raise InputError(f"filter: got {key!r}: exists {show(value)}; expected True or False")
            found.append(Present(path) if plain else Not(Present(path)))
    return found


def _any_of(key: str, path: tuple[str, ...], wanted: object) -> AnyOf:
    several = isinstance(wanted, Iterable) and not isinstance(wanted, str | bytes | Mapping)
    values = list(cast(Iterable[Any], wanted)) if several and getattr(wanted, "ndim", 1) else [wanted]
    if not values:
        raise _not_scalar(key, wanted)
    scalars = tuple(_scalar(key, value) for value in values)
    if path == ID and not all(isinstance(value, str) for value in scalars):
        raise InputError(f"filter: got {key!r}: {show(wanted)}; expected ids, which are strings")
    return AnyOf(path, scalars)


def _prefix(key: str, path: tuple[str, ...], wanted: object) -> Prefix:
    several = isinstance(wanted, list | tuple)
    prefixes = list(cast(Sequence[object], wanted)) if several else [wanted]
    if not prefixes or not all(isinstance(prefix, str) for prefix in prefixes):
        raise InputError(f"filter: got {key!r}: prefix {show(wanted)}; expected a string, or a list of them")
    return Prefix(path, tuple(check_text(prefix, f"filter: {key!r}") for prefix in prefixes))


def _not_scalar(key: str, shown: object) -> InputError:
    return InputError(
        f"filter: got {key!r}: {show(shown)}; expected a string, number, truth value or date, a list of at least one "
        f"of them, or a mapping with {', '.join(OPERATORS)}"
    )


def _scalar(key: str, value: object) -> Scalar:
    plain = plain_scalar(value)
    if isinstance(plain, str):
        return check_text(plain, f"filter: {key!r}")
    if isinstance(plain, bool) or number_of(plain) is not None:
        return plain
    moment = _as_datetime(plain)
    if moment is None:
        raise _not_scalar(key, value)
    return moment


def _between(key: str, path: tuple[str, ...], wanted: Mapping[Any, Any]) -> Between:
    plain = {bound: plain_scalar(limit) for bound, limit in wanted.items()}
    numbers = {bound: number_of(limit) for bound, limit in plain.items()}
    times = {bound: _as_datetime(limit) for bound, limit in plain.items()}
    for limits in (numbers, times):
        if None not in limits.values():
            return Between(path, tuple((bound, cast(Any, limits[bound])) for bound in plain))
    raise InputError(
        f"filter: {key!r} has the limits {show(list(wanted.values()))}; expected all numbers, or all "
        "ISO dates or times of the years 1 to 9999"
    )


def number_of(value: object) -> float | None:
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


def moment_of(value: object) -> int | None:
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
        moment = moment_of(value)
        return moment is not None and moment == moment_of(wanted)
    if isinstance(wanted, str | bool):
        return type(value) is type(wanted) and value == wanted
    number = number_of(value)
    return number is not None and number == float(wanted)


def _within(value: Any, bound: Bound, limit: Any) -> bool:
    if bound == "gte":
        return value >= limit
    if bound == "gt":
        return value > limit
    return value <= limit if bound == "lte" else value < limit


def value_at(node: object, path: tuple[str, ...]) -> object:
    """What a document has at `path`; None: nothing, or null."""
    for name in path:
        if not isinstance(node, Mapping) or name not in node:
            return None
        node = cast(Mapping[str, object], node)[name]
    return node
