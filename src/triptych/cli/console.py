"""The terminal: results on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task

Advance = Callable[[int], None]


def stdout() -> Console:
    """A console on standard output; 80 columns wide where it is no terminal."""
    from rich.console import Console

    return Console(highlight=False, emoji=False, markup=False)


def stderr() -> Console:
    """A console on standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, emoji=False, markup=False)


def emit(value: Mapping[str, Any]) -> None:
    """One JSON object as one line of standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def progress(label: str, total: int | None, unit: str = "documents") -> Generator[Advance]:
    """A progress bar with rate and remaining time, if standard error is a terminal.

    Args:
        label: What is going on.
        total: How many there are; None: unknown, and no remaining time is shown.
        unit: What is counted.

    Yields:
        A function to call with the number of units done since its last call.
    """
    console = stderr()
    if not console.is_terminal:
        yield lambda done: None
        return
    from rich import progress as bars
    from rich.text import Text

    class Rate(bars.ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f} {unit}/s" if speed else "", style="dim")

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=20),
        bars.MofNCompleteColumn(),
        Rate(),
        bars.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with bars.Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(label, total=total)
        yield lambda done: bar.advance(task, done)
