"""What a retriever searches: an open index, the folder of one, or an index of a server by its address."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast
from urllib.parse import unquote, urlsplit

from triptych.errors import InputError, show
from triptych.index.documents import Payload
from triptych.index.index import Index
from triptych.types import Hit


class Searchable(Protocol):
    """What `triptych.Index` and `triptych.client.RemoteIndex` have in common."""

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
    from triptych.client import Client

    parts = urlsplit(str(place))
    base, _, name = parts.path.rpartition("/")
    if not name:
        raise InputError(f"index: got {place!r}; expected http(s)://host[:port]/name with the index's name")
    return Client(f"{parts.scheme}://{parts.netloc}{base}", api_key=api_key).index(unquote(name))


_RANGES = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}


def filter_of(conditions: Sequence[tuple[str, str, Any]]) -> dict[str, Any] | None:
    """Conditions that must all hold, as a filter of an index.

    Args:
        conditions: Field, operator (``==``, ``in``, ``>``, ``>=``, ``<``, ``<=``) and value.

    Raises:
        InputError: For another operator, or two conditions on a field that are not a range.
    """
    found: dict[str, Any] = {}
    for name, operator, value in conditions:
        before = found.get(name)
        if operator in _RANGES and (before is None or isinstance(before, dict)):
            found[name] = {**cast("dict[str, Any]", before or {}), _RANGES[operator]: value}
        elif operator in ("==", "in") and before is None:
            found[name] = value
        elif operator in _RANGES or operator in ("==", "in"):
            raise InputError(f"filters: got two conditions on {name!r}; expected one, or the ends of a range")
        else:
            expected = ", ".join(("==", "in", *_RANGES))
            raise InputError(f"filters: got the operator {operator!r} for {name!r}; expected {expected}")
    return found or None
