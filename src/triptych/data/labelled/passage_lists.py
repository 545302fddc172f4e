"""Queries that bring their passages along, as the multilingual collections are published on the Hub.

``{"query_id", "query", "positive_passages": [{"docid", "title", "text"}], "negative_passages": […]}``. In some splits
the passages have ids alone; their texts then come from the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from triptych.data.beir import Judgement
from triptych.data.labelled.collection import Collection, Text, join
from triptych.data.labelled.items import Dropped, Item, Labelled, Options, Passage, draw
from triptych.data.labelled.jsonstream import rows
from triptych.data.records import Fields, Place, to_document

_FIELDS = Fields(id=("docid", "id", "_id"))


def read_lists(
    paths: Sequence[Path], corpus: Sequence[Path], options: Options, language: str | None
) -> Iterator[Item]:
    """Reads files of such queries.

    Args:
        paths: Their files.
        corpus: Files of the corpus (see `documents_of`); empty: the passages' own texts are used.
        options: What is wanted.
        language: Of the queries.
    """
    if not corpus:
        for path in paths:
            for place, record in rows(path):
                yield from _inline(place, record, options, language)
        return
    parts = Collection(
        queries=(Text(*_query(record, place), place) for path in paths for place, record in rows(path)),
        judgements=(judged for path in paths for judged in _judgements(path)),
        documents=documents_of(corpus),
        qrels=paths[0],
        language=language,
    )
    yield from join(parts, options)


def documents_of(paths: Sequence[Path]) -> Iterator[Text]:
    """Documents of JSON Lines: ``docid`` (or ``id``), ``text`` (or ``contents``) and perhaps ``title``."""
    for path in paths:
        for place, record in rows(path):
            document = to_document(record, _FIELDS, place)
            yield Text(document.id, document.text, place, document.title)


def _inline(place: Place, record: dict[str, Any], options: Options, language: str | None) -> Iterator[Item]:
    id_, query = _query(record, place)
    pos, neg = (_passages(record, name, place) for name in ("positive_passages", "negative_passages"))
    if any(not passage.text for passage in pos):
        yield Dropped(place, "passages have ids alone; give the corpus too", query)
        return
    kept = draw((passage for passage in neg if passage.text), options.max_negatives, options.seed, id_)
    yield Labelled(place, query, pos, kept if options.wants("given") else [], id_, language)


def _judgements(path: Path) -> Iterator[Judgement]:
    for place, record in rows(path):
        id_, _ = _query(record, place)
        for name, value in (("positive_passages", 1.0), ("negative_passages", 0.0)):
            for passage in _passages(record, name, place):
                yield Judgement(id_, passage.id or "", value, place.line or 0)


def _query(record: dict[str, Any], place: Place) -> tuple[str, str]:
    id_, query = record.get("query_id"), record.get("query")
    if not isinstance(id_, str | int) or not isinstance(query, str):
        raise place.error(
            f"got fields {', '.join(map(repr, record))}; expected query_id, query, positive_passages"
        )
    return str(id_), query


def _passages(record: dict[str, Any], name: str, place: Place) -> list[Passage]:
    value = record.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in cast("list[Any]", value)):
        raise place.error(f"field {name!r} is {value!r:.40}; expected a list of objects with docid and text")
    passages = cast("list[dict[str, Any]]", value)
    return [
        Passage(str(each.get("text") or ""), each.get("title") or None, str(each.get("docid", "")) or None)
        for each in passages
    ]
