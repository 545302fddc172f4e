"""Documents as users give them, checked: ids, texts and metadata become payloads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from triptych.errors import InputError
from triptych.index.layout import Payload

_LARGEST = 2**63
"""Integers in metadata lie within ±this: what the engines' JSON holds."""


def read_documents(
    ids: Sequence[str], texts: Sequence[str], metadata: Sequence[Mapping[str, Any] | None] | None
) -> list[Payload]:
    """Documents as payloads, all of them checked before any is used.

    Args:
        ids: N distinct names.
        texts: N texts.
        metadata: N JSON objects or None.

    Raises:
        InputError: Naming the document and what is wrong with it.
    """
    names = check_ids(ids, "add")
    if isinstance(texts, str):
        raise InputError("add: got one string for texts; expected a list of strings")
    objects = [None] * len(names) if metadata is None else list(metadata)
    if not len(names) == len(texts) == len(objects):
        raise InputError(
            f"add: got {len(names)} ids, {len(texts)} texts and {len(objects)} metadata; expected equally many"
        )
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"add: got the id {name!r} twice; expected each id once")
        seen.add(name)
    return [
        Payload(
            id=name, text=check_text(text, f"add: text of document {name!r}"), metadata=_metadata(name, value)
        )
        for name, text, value in zip(names, texts, objects, strict=True)
    ]


def check_ids(ids: Sequence[str], where: str) -> list[str]:
    """The ids as a list.

    Raises:
        InputError: If one is not a string, empty, or not valid Unicode.
    """
    if isinstance(ids, str):
        raise InputError(f"{where}: got the string {ids!r} for ids; expected a list of strings")
    for name in ids:
        if not isinstance(name, str) or not name:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise InputError(f"{where}: got the id {name!r}; expected a string that is not empty")
        check_text(name, f"{where}: id")
    return list(ids)


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
        raise InputError(f"{where}: got a text that is no valid Unicode ({error.reason})") from error
    return text


def _metadata(name: str, value: object) -> dict[str, Any]:
    """A copy of a document's metadata as JSON gives it back.

    Raises:
        InputError: For anything that JSON cannot hold unchanged.
    """
    if value is None:
        return {}
    where = f"add: metadata of document {name!r}"
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: got {type(value).__name__}; expected a JSON object (a dict)")
    try:
        text = json.dumps(dict(cast(Mapping[str, Any], value)), allow_nan=False, ensure_ascii=False)
        text.encode()
        copy = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: got what JSON cannot hold ({error}); expected a JSON object") from error
    _check_json(cast(Mapping[Any, Any], value), where)
    return copy


def _check_json(value: object, where: str) -> None:
    if isinstance(value, Mapping):
        for key, inner in cast(Mapping[Any, Any], value).items():
            if not isinstance(key, str):
                raise InputError(f"{where}: got the key {key!r}; expected strings as keys")
            _check_json(inner, where)
    elif isinstance(value, list | tuple):
        for inner in cast(Sequence[Any], value):
            _check_json(inner, where)
    elif isinstance(value, int) and not -_LARGEST <= value < _LARGEST:
        raise InputError(f"{where}: got the number {value}; expected integers of at most 64 bits")
