"""Jupyter: results as HTML, in which every text is escaped, and progress without widgets."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from html import escape
from time import monotonic
from typing import Any, NamedTuple, TypeAlias

COLORS: Mapping[str, str] = {"dense": "#0891b2", "lexical": "#ca8a04", "multi": "#c026d3"}
"""Of the heads; readable on light and on dark pages."""

_TEXT = 240  # characters of a text that are shown
_INTERVAL = 0.2  # seconds between two pictures of a bar


class Bar(NamedTuple):
    """A number with a bar: the number, the bar's share of the whole width (0 to 1), and its color."""

    value: float
    share: float
    color: str


Cell: TypeAlias = str | int | float | Bar | None


def html_table(
    heads: Sequence[str], rows: Sequence[Sequence[Cell]], title: str = "", notes: Sequence[str] = ()
) -> str:
    """A table.

    Args:
        heads: Of the columns.
        rows: Texts are left-aligned and numbers right-aligned; None is an empty cell.
        title: Above it.
        notes: Below it.
    """
    caption = f"<caption style='text-align:left'><b>{escape(title)}</b></caption>" if title else ""
    top = "".join(f"<th style='text-align:left'>{escape(head)}</th>" for head in heads)
    body = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    below = "".join(f"<div><small>{escape(note)}</small></div>" for note in notes)
    return f"<table>{caption}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>{below}"


def _cell(value: Cell) -> str:
    style = "vertical-align:top;text-align:left"
    if isinstance(value, Bar):
        width = 60 * min(1.0, max(0.0, value.share))
        bar = f"<div style='width:{width:.0f}px;height:4px;background:{value.color}'></div>"
        return f"<td style='{style}'>{value.value:.3f}{bar}</td>"
    if isinstance(value, float):
        return f"<td style='vertical-align:top;text-align:right'>{value:.4g}</td>"
    if isinstance(value, int):
        return f"<td style='vertical-align:top;text-align:right'>{value:,}</td>"
    return f"<td style='{style}'>{escape(value or '')}</td>"


def bars(values: Mapping[Any, float], highest: Mapping[Any, float], heads: Sequence[str]) -> list[Bar | None]:
    """The scores of one text by head, each in relation to the highest of its head."""
    return [
        Bar(values[head], values[head] / highest[head] if highest[head] > 0 else 0, COLORS[head])
        if head in values
        else None
        for head in heads
    ]


def shorten(text: str) -> str:
    """The beginning of a text in one line."""
    line = " ".join(text.split())
    return line if len(line) <= _TEXT else line[: _TEXT - 1] + "…"


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell: Any = sys.modules.get("IPython")
    running = shell.get_ipython() if shell is not None else None
    return running is not None and hasattr(running, "kernel")


class NotebookProgress:
    """A progress callback that draws one bar for each stage in a notebook.

    It is for every argument `progress` of this package, and needs no widgets.

    Example:
        >>> index.add(ids, texts, progress=NotebookProgress())  # doctest: +SKIP
    """

    def __init__(self) -> None:
        self._drawn: dict[str, tuple[Any, float]] = {}
        self._waiting: dict[str, tuple[int, int | None]] = {}
        if in_notebook():
            sys.modules["IPython"].get_ipython().events.register("post_run_cell", self._finish)

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Draws `done` of `total`, not more often than an eye sees."""
        drawn = self._drawn.get(stage)
        if drawn is not None and monotonic() < drawn[1] and done != total:
            self._waiting[stage] = done, total
            return
        self._draw(stage, done, total)

    def _finish(self, _: object) -> None:
        """Draws what was too early to be drawn, at the end of a cell."""
        for stage, (done, total) in list(self._waiting.items()):
            self._draw(stage, done, total)

    def _draw(self, stage: str, done: int, total: int | None) -> None:
        from IPython.display import HTML, display

        self._waiting.pop(stage, None)
        handle = self._drawn[stage][0] if stage in self._drawn else None

        known = f" max='{total}' value='{done}'" if total else ""
        many = f"{done:,} / {total:,}" if total else f"{done:,}"
        picture: Any = HTML(f"<progress{known}></progress> {escape(stage)}: {many}")
        if handle is None:
            handle = display(picture, display_id=True)
        else:
            handle.update(picture)
        self._drawn[stage] = handle, monotonic() + _INTERVAL
