"""Filters for PostgreSQL: a table of the metadata's values, and conditions on it that B-trees answer.

A filter asks for values of fields: equal, within bounds, beginning so, there at all. Every value of a document's
metadata is a row of the table ``fields``, written in the forms in which filters compare: as a text, as a number, as the
moment that it names, as a truth value. The operators of jsonb would not do: they know no dates, and an index answers
only equality by them.

PostgreSQL's texts hold no NUL, which documents may: `escape` writes it in two characters.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, cast

from triptych.index.filters import ID, AnyOf, Between, Filter, Not, Or, Part, Prefix, moment_of, number_of
from triptych.index.layout import point_id

FIELDS = """
CREATE TABLE fields (
    document uuid NOT NULL, path text COLLATE "C" NOT NULL,
    text text COLLATE "C", number float8, moment bigint, flag boolean
);
CREATE INDEX fields_document ON fields (document);
CREATE INDEX fields_path ON fields (path, flag);
CREATE INDEX fields_text ON fields (path, left(text, 200)) WHERE text IS NOT NULL;
CREATE INDEX fields_number ON fields (path, number) WHERE number IS NOT NULL;
CREATE INDEX fields_moment ON fields (path, moment) WHERE moment IS NOT NULL;
CREATE STATISTICS fields_texts (mcv) ON path, (left(text, 200)) FROM fields;
CREATE STATISTICS fields_numbers (mcv) ON path, number FROM fields;
CREATE STATISTICS fields_moments (mcv) ON path, moment FROM fields;
CREATE STATISTICS fields_flags (mcv) ON path, flag FROM fields;
"""
# The statistics tell the planner how many documents have a value: without, it takes path and value for independent.
FIELDS_OF = "SELECT document::text, path, text, number, moment, flag FROM fields WHERE document = ANY(%(keys)s::uuid[])"
LONGEST_KEY = 200
"""Characters of a text that an index of the database has; the rest is compared with the row."""

_BOUNDS = {"gte": ">=", "gt": ">", "lte": "<=", "lt": "<"}


def write_filter(where: Filter | None) -> tuple[str, dict[str, Any]]:
    """A condition on ``documents d`` with names for its values, and the values; none of them is in the text."""
    values: dict[str, Any] = {}

    def bind(value: object) -> str:
        name = f"f{len(values)}"
        values[name] = value
        return f"%({name})s"

    def write(part: Part) -> str:
        if isinstance(part, Filter):
            return "(" + " AND ".join(map(write, part.conditions)) + ")"
        if isinstance(part, Or):  # as a set of documents, since OR would have each of them looked at
            some = " UNION ALL ".join(f"SELECT d.key FROM documents d WHERE {write(p)}" for p in part.parts)
            return f"d.key IN ({some})"
        if isinstance(part, Not):
            return f"NOT {write(part.part)}"
        if isinstance(part, AnyOf) and part.path == ID:
            return f"d.key = ANY({bind([point_id(str(value)) for value in part.values])}::uuid[])"
        if isinstance(part, Prefix) and part.path == ID:
            return _begins("d.id", part, bind)
        conditions = [f"f.path = {bind(_path(part.path[1:]))}"]
        if isinstance(part, Prefix):
            conditions.append(_begins("f.text", part, bind))
        elif isinstance(part, Between):
            column = "moment" if part.of_times else "number"
            for bound, limit in part.bounds:
                value = moment_of(limit) if isinstance(limit, datetime) else float(limit)
                conditions.append(f"f.{column} {_BOUNDS[bound]} {bind(value)}")
        elif isinstance(part, AnyOf):
            conditions.append(_equals(part, bind))
        return f"EXISTS (SELECT FROM fields f WHERE f.document = d.key AND {' AND '.join(conditions)})"

    return (write(where) if where is not None else "true"), values


def _begins(column: str, part: Prefix, bind: Any) -> str:
    options: list[str] = []
    for prefix in map(escape, part.prefixes):
        start = f"left({column}, {LONGEST_KEY}) ^@ {bind(prefix[:LONGEST_KEY])}"
        options.append(start if len(prefix) <= LONGEST_KEY else f"{start} AND {column} ^@ {bind(prefix)}")
    return "(" + " OR ".join(options) + ")"


def _equals(part: AnyOf, bind: Any) -> str:
    texts = [escape(value) for value in part.values if isinstance(value, str)]
    flags = [value for value in part.values if isinstance(value, bool)]
    moments = [moment_of(value) for value in part.values if isinstance(value, datetime)]
    numbers = [number_of(value) for value in part.values]
    options: list[str] = []
    if texts:
        starts = sorted({text[:LONGEST_KEY] for text in texts})
        whole = "" if max(map(len, texts)) < LONGEST_KEY else f" AND f.text = ANY({bind(texts)})"
        options.append(f"left(f.text, {LONGEST_KEY}) = ANY({bind(starts)}){whole}")
    if flags:
        options.append(f"f.flag = ANY({bind(flags)})")
    if moments:
        options.append(f"f.moment = ANY({bind(moments)}::bigint[])")
    if numbers := [number for number in numbers if number is not None]:
        options.append(f"f.number = ANY({bind(numbers)}::float8[])")
    return "(" + " OR ".join(options) + ")"


def write_fields(connection: Any, metadata: Mapping[str, Mapping[str, Any]]) -> None:
    """Replaces the rows of documents, named by their keys."""
    connection.execute("DELETE FROM fields WHERE document = ANY(%s::uuid[])", [list(metadata)])
    with (
        connection.cursor() as cursor,
        cursor.copy("COPY fields (document, path, text, number, moment, flag) FROM STDIN") as copy,
    ):
        for key, value in metadata.items():
            for row in field_rows(value):
                copy.write_row((key, *row))


def field_rows(value: object, path: tuple[str, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The rows of metadata, or of a value within them: path, text, number, moment, truth value."""
    if isinstance(value, Mapping):
        if path:
            yield (_path(path), None, None, None, None)
        for name, inner in cast(Mapping[str, object], value).items():
            if name and not set(name) & set('."\\[]'):  # others cannot be asked for
                yield from field_rows(inner, (*path, name))
        return
    for each in dict.fromkeys(
        map(_forms, value if isinstance(value, list) else [] if value is None else [value])
    ):
        yield (_path(path), *each)


def _forms(value: object) -> tuple[str | None, float | None, int | None, bool | None]:
    return (
        escape(value) if isinstance(value, str) else None,
        number_of(value),
        moment_of(value),
        value if isinstance(value, bool) else None,
    )


def _path(path: tuple[str, ...]) -> str:
    """A path as the table has it: of a very long one a digest, since an index of the database takes no more."""
    name = escape(".".join(path))
    return name if len(name) <= LONGEST_KEY else hashlib.blake2b(name.encode(), digest_size=32).hexdigest()


def escape(text: str) -> str:
    """A text without NUL, and from another text another one; what begins a text begins it still."""
    return text.replace("\ufdd0", "\ufdd01").replace("\0", "\ufdd00")


def unescape(text: str) -> str:
    """The inverse of `escape`."""
    return text.replace("\ufdd00", "\0").replace("\ufdd01", "\ufdd0")


def to_json(value: object) -> str:
    """A value for a column of the type json, which keeps the text as it is."""
    return json.dumps(value, ensure_ascii=False)
