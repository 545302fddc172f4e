"""Hits in groups: the passages of one document, by a field of the metadata that they share.

Hits of few groups may crowd the candidates. Then the same search again leaves out the documents of these groups, as
often as it takes to have groups enough, and then completes the groups that are returned.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from triptych.errors import InputError, show
from triptych.index.filters import ID, AnyOf, Filter, Not, Or, Part, field_name, value_at
from triptych.types import Hit

Key: TypeAlias = tuple[type, AnyOf]
"""A group: the condition that its documents fulfil, and the type of the value in it, since True equals 1 in Python."""


def group_hits(
    found: Sequence[Hit],
    search: Callable[[Part], list[Hit]],
    path: tuple[str, ...],
    *,
    wanted: int,
    size: int,
    candidates: int,
    min_score: float,
) -> list[Hit]:
    """The best hit of each group, with the next ones of its group.

    Args:
        found: The hits of a search, as many as were recalled.
        search: The same search among the documents that fulfil a further condition.
        path: Of the field that makes groups; a document without it is a group by itself.
        wanted: Groups, at most.
        size: Hits per group, at most.
        candidates: A search that finds fewer hits has found all that there are.
        min_score: Least score of a hit.

    Returns:
        Hits, the best first, equal ones by id.

    Raises:
        InputError: If a document has a list or an object in the field.
    """
    groups: dict[Key, dict[str, Hit]] = {}
    new: Sequence[Hit] = found
    while True:
        _add(groups, new, path)
        enough = len(_rank(groups, min_score)) >= wanted or all(hit.score < min_score for hit in new)
        if enough or len(new) < candidates:
            break
        new = search(Not(_members(groups)))
    complete = len(found) < candidates
    while not complete:
        some = {
            key: groups[key]
            for key, hits in _rank(groups, min_score)[:wanted]
            if len(hits) < size and key[1].path != ID
        }
        if not some:
            break
        known = AnyOf(ID, tuple(name for hits in some.values() for name in hits))
        new = search(Filter((_members(some), Not(known))))
        _add(groups, new, path)
        complete = len(new) < candidates
    best = [hits[:size] for _, hits in _rank(groups, min_score)[:wanted]]
    return [replace(hits[0], more=tuple(hits[1:])) for hits in best]


def _add(groups: dict[Key, dict[str, Hit]], hits: Iterable[Hit], path: tuple[str, ...]) -> None:
    for hit in hits:
        groups.setdefault(_key(hit, path), {})[hit.id] = hit


def _key(hit: Hit, path: tuple[str, ...]) -> Key:
    value = None if path == ID else value_at({"metadata": hit.metadata}, path)
    if value is None:
        return str, AnyOf(ID, (hit.id,))
    if isinstance(value, str | bool):
        return type(value), AnyOf(path, (value,))
    if isinstance(value, int | float):
        return float, AnyOf(path, (float(value),))
    raise InputError(
        f"search: group_by={field_name(path)!r}: document {hit.id!r} has {show(value)} there; expected a string, a "
        "number or a truth value"
    )


def _members(groups: Iterable[Key]) -> Or:
    """What the documents of these groups fulfil."""
    values: dict[tuple[str, ...], list[str | float]] = {}
    for _, condition in groups:
        values.setdefault(condition.path, []).extend(condition.values)  # type: ignore[arg-type]
    return Or(tuple(Filter((AnyOf(path, tuple(some)),)) for path, some in values.items()))


def _rank(groups: dict[Key, dict[str, Hit]], min_score: float) -> list[tuple[Key, list[Hit]]]:
    """The groups with a good hit, the best first, and their good hits, the best first."""
    good = {key: [hit for hit in each.values() if hit.score >= min_score] for key, each in groups.items()}
    ranked = [(key, sorted(hits, key=_order)) for key, hits in good.items() if hits]
    return sorted(ranked, key=lambda group: _order(group[1][0]))


def _order(hit: Hit) -> tuple[float, str]:
    return -hit.score, hit.id
