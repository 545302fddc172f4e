"""Tables of an evaluation in a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from triptych.cli.terminal import stdout

if TYPE_CHECKING:
    from triptych.eval.tables import Table as Values
    from triptych.eval.tables import TableCell

_CELL = 6


def show(values: Values) -> None:
    """Prints a table: rows as they are where there is room, otherwise turned, in as many parts as are needed."""
    console = stdout()
    console.print(Text(values.title, style="bold"))
    widths = [
        max(_CELL, len(head), *(len(row.cells[i].text) + 1 for row in values.rows)) + 2
        for i, head in enumerate(values.heads)
    ]
    names = max((len(row.name) for row in values.rows), default=0) + 2
    for table in (
        [_wide(values)] if names + sum(widths) <= console.width else _transpose(values, console.width)
    ):
        console.print(table)
    for note in values.notes:
        console.print(Text(note, style="dim"))
    console.print()


def _wide(values: Values) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    for head in values.heads:
        table.add_column(head, justify="right", no_wrap=True)
    for row in values.rows:
        table.add_row(row.name, *map(_text, row.cells), style="dim" if row.published else None)
    return table


def _transpose(values: Values, width: int) -> Iterator[Table]:
    room = width - max(map(len, values.heads), default=0) - 2
    part: list[int] = []
    used = 0
    for number, row in enumerate(values.rows):
        longest = max(map(len, _heading(row.name).split()), default=0)
        needed = max(_CELL, longest, *(len(cell.text) + 1 for cell in row.cells)) + 2
        if part and used + needed > room:
            yield _columns(values, part)
            part, used = [], 0
        part.append(number)
        used += needed
    if part:
        yield _columns(values, part)


def _columns(values: Values, part: list[int]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("", no_wrap=True)
    rows = [values.rows[number] for number in part]
    for row in rows:
        style = "dim" if row.published else ""
        table.add_column(_heading(row.name), justify="right", overflow="fold", style=style)
    for i, head in enumerate(values.heads):
        table.add_row(head, *(_text(row.cells[i]) for row in rows))
    return table


def _heading(name: str) -> str:
    """The name of a system on several short lines."""
    return name.replace(": ", ":\n").replace("/", "/\n").replace("+", "+\n").replace(" ", "\n")


def _text(cell: TableCell) -> Text:
    style = "dim" if cell.text == "–" else "bold" if cell.best else ""
    return Text(cell.text, style=style).append("*" if cell.star else " ", style="dim")
