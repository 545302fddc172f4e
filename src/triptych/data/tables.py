"""Rows of TSV and CSV files as records.

TSV here is what retrieval collections use: a tab always separates, a quote is a character like any other.
CSV is RFC 4180: a cell in double quotes may hold separators, line breaks and doubled quotes. Python's csv
module is not used because it refuses cells over a limit that is global to the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from triptych.data.records import Fields, Place
from triptych.data.streams import Line

_CELL = {
    separator: re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|([^"\n{separator}][^\n{separator}]*|))({separator}|\Z)')
    for separator in (",", ";", "\t")
}


class Row(NamedTuple):
    """The cells of a row, and the number of the line on which it begins."""

    line: int
    cells: list[str]


def tsv_rows(lines: Iterable[Line]) -> Iterator[Row]:
    """Rows of a TSV file; blank lines are passed over."""
    for line in lines:
        if line.text.strip():
            yield Row(line.number, line.text.split("\t"))


def csv_rows(lines: Iterable[Line], fields: Fields, name: str) -> Iterator[Row]:
    """Rows of a CSV file; blank lines between rows are passed over.

    The separator is a comma, unless the first row names a text column when it is cut at semicolons (as some
    spreadsheets write) or tabs.

    Raises:
        DataError: For a quote that is not closed, or stands where none can.
    """
    separator: str | None = None
    for number, record in _whole_records(lines, name):
        if separator is None:
            separator = _separator(record, fields)
        yield Row(number, _cells(record, separator, Place(name, number)))


def records_of(rows: Iterable[Row], fields: Fields, name: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Names the cells of rows.

    The first row is a header if one of its cells is a name of `fields`. Without a header, one column is the
    text, and two are id and text.

    Raises:
        DataError: For a header without a text column or with a name twice, a row of another length, or more
            than two columns without a header.
    """
    header: list[str] | None = None
    for line, cells in rows:
        place = Place(name, line)
        if header is None:
            header = _header(cells, fields, place)
            if header == cells:
                continue
        if len(cells) != len(header):
            raise place.error(f"got {len(cells)} columns; expected {len(header)} ({', '.join(header)})")
        yield line, dict(zip(header, cells, strict=True))


def _header(cells: Sequence[str], fields: Fields, place: Place) -> list[str]:
    """The columns' names: those of the first row, or the implied ones."""
    if not fields.names.isdisjoint(cells):
        if fields.text and set(fields.text).isdisjoint(cells):
            raise place.error(
                f"header {list(cells)!r} has no text column; expected {' or '.join(fields.text)}"
            )
        if len(set(cells)) < len(cells):
            raise place.error(f"header {list(cells)!r} has a name twice; expected different names")
        return list(cells)
    if len(cells) > 2:
        expected = f"a header with a column {' or '.join(fields.text)}, or the columns (id,) text"
        raise place.error(f"got {len(cells)} columns without a header; expected {expected}")
    return [fields.id[0], fields.text[0]][-len(cells) :]


def _whole_records(lines: Iterable[Line], name: str) -> Iterator[tuple[int, str]]:
    """Joins lines until the quotes are even, as they are at every end of a row."""
    parts: list[str] = []
    start, quotes = 0, 0
    for line in lines:
        if not parts:
            if not line.text.strip():
                continue
            start = line.number
        parts.append(line.text)
        quotes += line.text.count('"')
        if quotes % 2 == 0:
            yield start, "\n".join(parts)
            parts, quotes = [], 0
    if parts:
        raise Place(name, start).error("a quote in this row is never closed")


def _separator(record: str, fields: Fields) -> str:
    for separator in (",", ";", "\t"):
        cells = {cell.strip('"') for cell in record.split(separator)}
        if len(cells) > 1 and not cells.isdisjoint(fields.text):
            return separator
    return ","


def _cells(record: str, separator: str, place: Place) -> list[str]:
    if '"' not in record:
        return record.split(separator)
    cells: list[str] = []
    at = 0
    while True:
        match = _CELL[separator].match(record, at)
        if match is None:
            column = len(cells) + 1
            raise place.error(f'misplaced quote in column {column}; expected "…" around the cell, "" inside')
        quoted = match.group(1)
        cells.append(match.group(2) if quoted is None else quoted.replace('""', '"'))
        if not match.group(3):
            return cells
        at = match.end()
