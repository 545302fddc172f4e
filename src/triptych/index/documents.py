"""Documents as users give them, checked: ids, texts and metadata become payloads.

Whatever an engine could not give back unchanged is refused here, before anything is stored. Values that have one
natural form in JSON are converted: NumPy's numbers and arrays, enumerations, dates and times (as ISO 8601),
`Decimal` (a number), `UUID` and paths (texts).
"""

from __future__ import annotations

import datetime as dt
import math
import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from difflib import get_close_matches
from enum import Enum
from pathlib import PurePath
from typing import Any, NotRequired, TypedDict, cast, get_args
from uuid import UUID

import numpy as np

from triptych.errors import InputError, show
from triptych.types import items_of

DEPTH = 64
"""Most levels of nested objects and lists in metadata: the engines' decoders stop at 128, with theirs around ours."""

LARGEST = 2**31 - 1
"""Largest number that an argument may have which counts something."""

_LARGEST_INTEGER = 2**63
"""Integers in metadata lie within ±this: what the engines' JSON holds."""


class DocumentOrigin(TypedDict):
    """Where a document or passage came from, for `triptych.index.sync`.

    Attributes:
        document: The id of the document.
        passages: How many passages it has; 1 for one that is whole.
        digest: Of its content and of how it was cut.
        facts: A digest of its metadata.
        source: The folder or file that was read, by its whole path; "" for documents of a program.
        file: The key of the file that it was in; "" for documents of a program.
        stamp: Size and time of change of its file and what was given beside it, where the file is this document and no
            other; else "".
    """

    document: str
    passages: int
    digest: str
    facts: str
    source: str
    file: str
    stamp: str


class Payload(TypedDict):
    """What is kept of a document beside its vectors."""

    id: str
    text: str
    metadata: dict[str, Any]
    origin: NotRequired[DocumentOrigin]


def check_options(options: Mapping[str, Any], kind: type, where: str) -> None:
    """Checks names of options against those of a TypedDict.

    Raises:
        InputError: For an unknown one, with the nearest valid one.
    """
    known = list(kind.__annotations__)
    if unknown := [name for name in options if name not in known]:
        near = get_close_matches(unknown[0], known, n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        raise InputError(f"{where}: got the options {unknown}; expected some of {', '.join(known)}{hint}")


def check_integer(value: object, where: str, least: int = 1) -> int:
    """The integer itself; NumPy's are taken too.

    Raises:
        InputError: For anything else, or one that is not from `least` to `LARGEST`.
    """
    if not isinstance(value, int | np.integer) or isinstance(value, bool) or not least <= value <= LARGEST:
        raise InputError(f"{where}={show(value)}; expected an integer ≥ {least} and ≤ {LARGEST}")
    return int(value)


def check_choice(value: object, kind: Any, where: str, argument: str) -> None:
    """Checks that a value is one of those of a Literal.

    Raises:
        InputError: If it is not.
    """
    if not isinstance(value, str) or value not in get_args(kind):
        expected = ", ".join(map(repr, get_args(kind)))
        raise InputError(f"{where}: got {argument}={show(value)}; expected one of {expected}")


def check_list(value: object, where: str, argument: str, *, ordered: bool = True) -> list[Any]:
    """All items of an iterable; generators are read once.

    Args:
        value: What came.
        where: The function, for the message.
        argument: The argument, for the message.
        ordered: Whether the order counts, so that a set is refused.

    Raises:
        InputError: For what is no list of single items: a text, a mapping, a table.
    """
    items = items_of(value, ordered=ordered)
    if items is None:
        what = f"the string {show(value)}" if isinstance(value, str) else show(value)
        raise InputError(f"{where}: got {what} for {argument}; expected a list of strings")
    return list(items)


def check_text(text: object, where: str) -> str:
    """The text itself.

    Raises:
        InputError: If it is not a string, or not valid Unicode (engines keep texts as UTF-8).
    """
    if not isinstance(text, str):
        raise InputError(f"{where}: got {type(text).__name__}; expected a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{where}: got {text!r}, a text that is no valid Unicode ({error.reason})"
        ) from error
    return str.__str__(text)  # of a subclass, such as NumPy's, a plain one


def check_ids(ids: object, where: str, *, ordered: bool = True) -> list[str]:
    """The ids as a list.

    Raises:
        InputError: If one is not a string, empty, or not valid Unicode.
    """
    names = check_list(ids, where, "ids", ordered=ordered)
    for name in names:
        if not isinstance(name, str) or not name:
            raise InputError(f"{where}: got the id {show(name)}; expected a string that is not empty")
    return [check_text(name, f"{where}: id") for name in names]


def read_payloads(ids: object, texts: object, metadata: object) -> list[Payload]:
    """Documents as payloads, all of them checked before any is used.

    Args:
        ids: N distinct names.
        texts: N texts.
        metadata: N JSON objects or None; None for no metadata at all.

    Raises:
        InputError: Naming the document and what is wrong with it.
    """
    names = check_ids(ids, "add")
    contents = check_list(texts, "add", "texts")
    objects = [None] * len(names) if metadata is None else check_list(metadata, "add", "metadata")
    if not len(names) == len(contents) == len(objects):
        raise InputError(
            f"add: got {len(names)} ids, {len(contents)} texts and {len(objects)} metadata; expected equally many"
        )
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"add: got the id {name!r} twice; expected each id once")
        seen.add(name)
    return [
        Payload(
            id=name,
            text=check_text(text, f"add: text of document {name!r}"),
            metadata=read_metadata(value, f"add: metadata of document {name!r}"),
        )
        for name, text, value in zip(names, contents, objects, strict=True)
    ]


def read_metadata(value: object, where: str) -> dict[str, Any]:
    """A document's metadata as JSON gives it back; None is an empty object.

    Raises:
        InputError: For anything that JSON cannot hold.
    """
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: got {type(value).__name__}; expected a JSON object (a dict)")
    return _plain(value, where, "", DEPTH)


def _plain(value: object, where: str, field: str, depth: int) -> Any:
    """A copy of a value as JSON gives it back.

    Args:
        value: What came.
        where: Which document, for the message.
        field: The path to the value, for the message.
        depth: How many levels may still come.

    Raises:
        InputError: For anything that JSON cannot hold.
    """
    at = f"{where}, field {field!r}" if field else where
    value = plain_scalar(value)
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return check_text(value, f"{at}: JSON cannot hold it")
    if isinstance(value, int):
        if not -_LARGEST_INTEGER <= value < _LARGEST_INTEGER:
            raise InputError(f"{at}: got {show(value)}; expected integers of at most 64 bits")
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, dt.datetime | dt.date | dt.time) and value == value:  # pandas' NaT is a datetime
        return value.isoformat()
    if isinstance(value, Mapping | list | tuple):
        if not depth:
            raise InputError(
                f"{where}: got values nested more than {DEPTH} deep in {field.split('.')[0].split('[')[0]!r}, which "
                "the engines' JSON cannot hold; expected fewer levels"
            )
        if not isinstance(value, Mapping):
            several = enumerate(cast(Sequence[Any], value))
            return [_plain(inner, where, f"{field}[{i}]", depth - 1) for i, inner in several]
        fields: dict[str, Any] = {}
        for key, inner in cast(Mapping[Any, Any], value).items():
            if not isinstance(key, str):
                raise InputError(f"{at}: got the key {show(key)}; expected strings as keys")
            name = check_text(key.value if isinstance(key, Enum) else key, f"{at}: JSON cannot hold the key")
            fields[name] = _plain(inner, where, f"{field}.{name}" if field else name, depth - 1)
        return fields
    raise InputError(
        f"{at}: got {show(value)}, which JSON cannot hold; expected texts, finite numbers, truth values, dates, None, "
        "and lists and dicts of them"
    )


def plain_scalar(value: object) -> Any:
    """The Python value that an equal value of another type stands for; anything else as it is."""
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
        return float("nan") if value is None else value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, UUID | PurePath):
        return str(value)
    if isinstance(value, Decimal):
        return (
            value
            if not value.is_finite()
            else int(value)
            if value == value.to_integral_value()
            else float(value)
        )
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return float(value) if isinstance(value, float) else value


def check_place(place: object) -> str:
    """A folder's path or an address, as a string.

    Raises:
        InputError: If it is neither.
    """
    try:
        text = os.fspath(cast(Any, place))
        good = isinstance(text, str) and text != "" and "\0" not in text and bool(os.fsencode(text))
    except (TypeError, UnicodeEncodeError):
        text, good = "", False
    if not good:
        raise InputError(
            f"index: got the place {show(place)}; expected a folder's path, or a server's address"
        )
    return text
