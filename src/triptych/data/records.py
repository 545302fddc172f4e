"""Documents and queries as people's files hold them, and the checks that a record must pass."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, NoReturn, cast

from triptych.errors import DataError


@dataclass(frozen=True, slots=True)
class Document:
    """One document of a collection.

    Attributes:
        id: Unique in what was read together.
        text: The text without its title; that of a Markdown or HTML file has all that is seen, headings too.
        title: Its title, or None.
        metadata: All other fields of the record.
    """

    id: str
    text: str
    title: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])

    @property
    def content(self) -> str:
        """Title and text, joined by a line break; the title is left out where the text begins with it."""
        if not self.title or self.text.startswith(self.title):
            return self.text
        return f"{self.title}\n{self.text}" if self.text else self.title


@dataclass(frozen=True, slots=True)
class Query:
    """One query; `metadata` holds all other fields of its record."""

    id: str
    text: str
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Fields:
    """Names of the fields of a record, in order of preference; the first that a record has is taken.

    The defaults cover BEIR (``_id``, ``title``, ``text``), Pyserini (``id``, ``contents``) and common others.
    """

    id: tuple[str, ...] = ("id", "_id")
    text: tuple[str, ...] = ("text", "contents", "body")
    title: tuple[str, ...] = ("title",)

    @classmethod
    def of(cls, id_field: str | None, text_field: str | None, title_field: str | None = None) -> Fields:
        """The default names but for those given."""
        default = cls()
        return cls(
            (id_field,) if id_field is not None else default.id,
            (text_field,) if text_field is not None else default.text,
            (title_field,) if title_field is not None else default.title,
        )

    def without_title(self) -> Fields:
        """For queries: a title is a field like any other."""
        return Fields(self.id, self.text, ())

    @property
    def names(self) -> frozenset[str]:
        """All names that mean something."""
        return frozenset((*self.id, *self.text, *self.title))


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands: a file and, where there is one, a line."""

    name: str
    line: int | None = None

    @property
    def id(self) -> str:
        """The id of a record that brings none: the path, or path:line."""
        return self.name if self.line is None else f"{self.name}:{self.line}"

    def error(self, message: str) -> DataError:
        """A `DataError` that names the place."""
        return DataError(message, self.name, self.line)


def parse_object(line: str, place: Place) -> dict[str, Any]:
    """One line of JSON Lines as a mapping.

    Raises:
        DataError: For broken JSON, a value that is not an object, NaN or Infinity (not JSON, though Python
            reads them), and half a surrogate pair, which no UTF-8 text can hold.
    """
    try:
        value: Any = json.loads(line, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise place.error(f"broken JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise place.error("JSON nested too deeply") from None
    except ValueError as error:
        raise place.error(f"broken JSON: {error}") from None
    if not isinstance(value, dict):
        kind = _kind(value)
        raise place.error(
            f"got {kind}; expected one JSON object a line, such as " + '{"id": "1", "text": "…"}'
        )
    if "\\u" in line:  # only an escape can bring half a pair
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise place.error(
                "an escape \\ud800-\\udfff without its partner; expected whole characters"
            ) from None
    return cast(dict[str, Any], value)


def to_document(record: Mapping[str, Any], fields: Fields, place: Place) -> Document:
    """Makes a document of a record; every field that is neither id, text nor title becomes metadata.

    A field ``metadata`` that is an object (as in BEIR) is not kept as such: its entries join the others.

    Raises:
        DataError: For a missing text, a value of the wrong type, an empty id, or an entry of ``metadata``
            that contradicts a field of the same name.
    """
    id_name = _first(record, fields.id)
    text_name = _first(record, fields.text)
    title_name = _first(record, fields.title)
    if text_name is None:
        wanted = " or ".join(repr(name) for name in fields.text)
        raise place.error(f"no field {wanted}; the record has {', '.join(map(repr, record)) or 'no fields'}")
    text = record[text_name]
    if not isinstance(text, str):
        raise place.error(f"field {text_name!r} is {_kind(text)}; expected a string")
    title = None if title_name is None else record[title_name]
    if title is not None and not isinstance(title, str):
        raise place.error(f"field {title_name!r} is {_kind(title)}; expected a string or null")
    used = {id_name, text_name, title_name}
    rest = {name: value for name, value in record.items() if name not in used}
    return Document(_id(record, id_name, place), text, title or None, _flatten(rest, place))


class Uniqueness:
    """Refuses an id that came before; keeps 16 bytes of each (some 100 with the overhead), not the id."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def check(self, id_: str, place: Place) -> None:
        """Remembers an id.

        Raises:
            DataError: If it was there already.
        """
        digest = blake2b(id_.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if digest in self._seen:
            raise place.error(f"duplicate id {id_!r}; expected each id once in all that is read together")
        self._seen.add(digest)


def _first(record: Mapping[str, Any], names: Iterable[str]) -> str | None:
    return next((name for name in names if name in record), None)


def _id(record: Mapping[str, Any], name: str | None, place: Place) -> str:
    value = None if name is None else record[name]
    if value is None:
        return place.id
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise place.error(f"field {name!r} is {_kind(value)}; expected a string or a whole number")
    if value == "":
        raise place.error(f"field {name!r} is empty; expected an id, or no such field for a made one")
    return str(value)


def _flatten(rest: dict[str, Any], place: Place) -> dict[str, Any]:
    inner = rest.get("metadata")
    if not isinstance(inner, dict):
        return rest
    entries = cast(dict[str, Any], inner)
    del rest["metadata"]
    for name, value in entries.items():
        if name in rest and rest[name] != value:
            raise place.error(f"field {name!r} and the entry {name!r} of 'metadata' contradict each other")
    return {**rest, **entries}


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    kinds = {bool: "true or false", str: "a string", list: "an array", dict: "an object"}
    return kinds.get(type(value), f"the number {value!r:.40}")
