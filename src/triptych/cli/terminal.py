"""The terminal: results on standard output, everything else on standard error, and nothing that steers it.

Texts, ids, names of files and messages come from strangers. What is written for people goes through `printable`, so
that no escape sequence of theirs reaches the terminal.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import os
import re
import sys
import warnings
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from triptych.errors import InputError

if TYPE_CHECKING:
    from rich.console import Console

    from triptych.types import Progress

# Controls of C0 and C1 but tab and line feed, marks and overrides of direction, line and paragraph separators, other
# invisible format characters that hide text, and halves of surrogate pairs.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """The text with a visible sign in the place of each character that a terminal would obey."""
    return _STEERING.sub(_visible, text) if _STEERING.search(text) else text


def _visible(found: re.Match[str]) -> str:
    code = ord(found[0])
    return chr(0x2400 + code) if code < 0x20 else "\u2421" if code == 0x7F else "\ufffd"


def say(message: str, *, everywhere: bool = False) -> None:
    """One line on standard error; nothing if that is closed.

    Args:
        message: The line.
        everywhere: Say it from each process that torchrun started, and not from the first alone.
    """
    if everywhere or is_first():
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"triptych: {printable(' '.join(message.split()))}\n")
            sys.stderr.flush()


def is_first() -> bool:
    """Whether this process speaks for all that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def emit(value: Mapping[str, Any]) -> None:
    """One JSON object as one line of standard output."""
    if is_first():
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        sys.stdout.write(_STEERING.sub(lambda found: json.dumps(found[0])[1:-1], text) + "\n")


def stdout() -> Console:
    """A console on standard output; 80 columns wide where it is no terminal."""
    return _console(stderr=False)


def stderr() -> Console:
    """A console on standard error."""
    return _console(stderr=True)


def _console(stderr: bool) -> Console:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Printable(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=printable(segment.text))

    return Printable(stderr=stderr, highlight=False, emoji=False, markup=False, quiet=not is_first())


@contextmanager
def progress() -> Generator[Progress]:
    """A progress bar for each stage with rate and remaining time, if standard error is a terminal.

    Yields:
        The callback that the functions of the package take.
    """
    console = stderr()
    if not console.is_terminal:
        yield lambda stage, done, total: None
        return
    from rich import progress as bars
    from rich.text import Text

    class Rate(bars.ProgressColumn):
        def render(self, task: bars.Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text(f"{speed:.1f}/s" if speed else "", style="dim")

    columns = (
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=20),
        bars.MofNCompleteColumn(),
        Rate(),
        bars.TimeRemainingColumn(compact=True, elapsed_when_finished=True),
    )
    with bars.Progress(*columns, console=console, transient=True) as drawn:
        tasks: dict[str, bars.TaskID] = {}

        def draw(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = drawn.add_task(printable(stage), total=total)
            drawn.update(tasks[stage], completed=done, total=total)

        yield draw


@contextmanager
def no_questions() -> Generator[None]:
    """Lets no package ask anything: documents on standard input are no answers."""
    before = builtins.input

    def refuse(prompt: object = "", /) -> str:
        raise InputError(f"expected no question, since nobody answers one here; got {str(prompt).strip()!r}")

    builtins.input = refuse
    try:
        yield
    finally:
        builtins.input = before


def forget_stdout() -> None:
    """What is still buffered has no reader: flushing it at exit would fail once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def warnings_as_lines() -> Generator[None]:
    """Shows the first warning of each kind as a line, counts the others, and silences other packages'."""
    seen: dict[type[Warning], int] = {}

    def show(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        seen[category] = seen.get(category, 0) + 1
        if seen[category] == 1:
            say(f"warning: {message}")

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.filterwarnings("always", module=r"triptych\b")
        warnings.showwarning = show
        try:
            yield
        finally:
            for category, times in seen.items():
                if times > 1:
                    say(f"warning: {times - 1} more of the kind {category.__name__}")
