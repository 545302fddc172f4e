"""Tab-separated files of retrieval collections: no quoting, perhaps a header."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from triptych.data.labelled.collection import Text
from triptych.data.records import Place
from triptych.data.streams import open_source, read_lines


def cells_of(path: Path, columns: tuple[int, ...], expected: str) -> Iterator[tuple[Place, list[str]]]:
    """The cells of each line that is not blank.

    Args:
        path: The file.
        columns: Numbers of columns that a line may have.
        expected: What they are, for messages.

    Raises:
        DataError: For a line with another number of columns.
    """
    with open_source(path) as source:
        for line in read_lines(source):
            if not line.text.strip():
                continue
            cells = line.text.split("\t")
            place = Place(source.name, line.number)
            if len(cells) not in columns:
                raise place.error(f"got {len(cells)} columns separated by tabs; expected {expected}")
            yield place, cells


def texts_of(paths: Iterable[Path], header: tuple[str, ...] = ()) -> Iterator[Text]:
    """Texts of files with two columns, id and text; a first line whose first cell is in `header` is none."""
    for path in paths:
        for place, (id_, text) in cells_of(path, (2,), "id, text"):
            if place.line == 1 and id_.lower() in header:
                continue
            yield Text(id_, text, place)
