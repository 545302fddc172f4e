"""What a retriever searches: an open index, the folder of one, or an index of a server by its address."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from triptych.client import Client, split_address
from triptych.errors import InputError, show
from triptych.index.documents import Payload
from triptych.index.index import Index
from triptych.types import Hit


class Searchable(Protocol):
    """What `triptych.Index` and `RemoteIndex` have in common."""

    def search(self, query: str, k: int = 10, **options: Any) -> list[Hit]:
        """The k best documents; options as for `triptych.Index.search`."""
        ...

    def get(self, ids: Iterable[str]) -> list[Payload | None]:
        """Documents by their ids; None for one not there."""
        ...

    def add(
        self,
        ids: Iterable[str],
        texts: Iterable[str],
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
    ) -> int:
        """Adds documents; one whose id is there already is replaced."""
        ...

    def delete(self, ids: Iterable[str]) -> int:
        """Removes documents; unknown ids are no error."""
        ...

    def close(self) -> None:
        """Frees everything that is held."""
        ...


class RemoteIndex:
    """An index of a server, with the methods that an open one has. It closes itself when it is no longer referred to.

    Args:
        client: A connection to the server.
        name: The index's name there.
    """

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name
        self._end = weakref.finalize(self, client.close)

    def search(self, query: str, k: int = 10, **options: Any) -> list[Hit]:
        """See `Searchable`."""
        return [found.hit for found in self._client.search(self._name, query, k, **options)]

    def get(self, ids: Iterable[str]) -> list[Payload | None]:
        """See `Searchable`."""
        return self._client.get(self._name, list(ids))

    def add(
        self,
        ids: Iterable[str],
        texts: Iterable[str],
        metadata: Iterable[Mapping[str, Any] | None] | None = None,
    ) -> int:
        """See `Searchable`."""
        names = list(ids)
        objects = [None] * len(names) if metadata is None else metadata
        rows = zip(names, texts, objects, strict=True)
        return self._client.upsert(
            self._name, [{"id": name, "text": text, "metadata": data} for name, text, data in rows]
        )

    def delete(self, ids: Iterable[str]) -> int:
        """See `Searchable`."""
        return self._client.delete(self._name, list(ids))

    def close(self) -> None:
        """Closes the connection."""
        self._end()


def open_source(place: object, *, api_key: str | None = None) -> Searchable:
    """Opens what a retriever shall search.

    Args:
        place: An open index, which is used as it is; the folder of one; or ``http(s)://host[:port]/name`` for the
            index of that name on a server of `triptych serve`.
        api_key: For a server.

    Raises:
        InputError: For anything else.
        IndexMissing: If the folder holds no index.
    """
    if not isinstance(place, str | Path):
        if hasattr(place, "search") and hasattr(place, "get"):
            return cast(Searchable, place)
        raise InputError(f"index: got {show(place)}; expected an open index, a folder, or a server's address")
    if not str(place).startswith(("http://", "https://")):
        return cast(Searchable, Index.open(place))
    if (address := split_address(str(place))) is None:
        raise InputError(f"index: got {place!r}; expected http(s)://host[:port]/name with the index's name")
    return RemoteIndex(Client(address[0], api_key=api_key), address[1])


_OPERATORS = {"==": "eq", "!=": "ne", "in": "in", ">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_RESERVED = ("id", "and", "or", "not")


def comparison(name: str, operator: str, value: Any) -> dict[str, Any]:
    """A condition of another package as a filter of an index.

    Args:
        name: The metadata's field.
        operator: ``==``, ``!=``, ``>``, ``>=``, ``<``, ``<=``, ``in``, ``not in`` or ``nin``.
        value: What the field is compared with.

    Raises:
        InputError: For another operator.
    """
    name = f"metadata.{name}" if name in _RESERVED else name
    if operator in ("not in", "nin"):
        return {name: {"not": value}}
    if operator not in _OPERATORS:
        expected = ", ".join((*_OPERATORS, "not in"))
        raise InputError(f"filters: got the operator {operator!r} for {name!r}; expected one of {expected}")
    return {name: {_OPERATORS[operator]: value}}


def combination(operator: str, parts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Filters joined by ``and`` or ``or``, or ``not`` all of them, in either letter case.

    Raises:
        InputError: For another operator.
    """
    match operator.lower():
        case "and" | "or" as name:
            return {name: list(parts)}
        case "not":
            return {"not": {"and": list(parts)}}
        case _:
            raise InputError(f"filters: got the operator {operator!r}; expected and, or, not")
