"""How every command ends: one clear line instead of a traceback, and an exit code that means something."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import warnings
from collections.abc import Generator
from typing import Any

import typer
from typer.core import TyperGroup

from triptych.errors import InputError, TriptychError

FAILED, USAGE = 1, 2
INTERRUPTED, PIPE_CLOSED = 128 + signal.SIGINT, 128 + signal.SIGPIPE


class Commands(TyperGroup):
    """A group of commands whose errors become one line on standard error."""

    def invoke(self, ctx: Any) -> Any:
        """Runs a command.

        Exit codes: 2 for wrong usage or data, 1 for other failures, 130 after Ctrl-C, 141 if the reader of
        the output went away.
        """
        if ctx.params.get("debug"):
            return super().invoke(ctx)
        try:
            with _warnings_as_lines():
                result = super().invoke(ctx)
                sys.stdout.flush()
                return result
        except BrokenPipeError:
            _forget_stdout()
            raise typer.Exit(PIPE_CLOSED) from None
        except KeyboardInterrupt:
            say("interrupted")
            raise typer.Exit(INTERRUPTED) from None
        except TriptychError as error:
            say(f"error: {_one_line(error)}")
            raise typer.Exit(USAGE if isinstance(error, InputError) else FAILED) from None
        except Exception as error:
            if hasattr(error, "exit_code"):  # typer's own: wrong usage, or an exit
                raise
            say(f"internal error: {type(error).__name__}: {_one_line(error)} (triptych --debug … shows more)")
            raise typer.Exit(FAILED) from None


def say(message: str) -> None:
    """One line on standard error; nothing if nobody can read it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(f"triptych: {message}\n")
        sys.stderr.flush()


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _forget_stdout() -> None:
    """What is still buffered has no reader: flushing it at exit would fail once more."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextlib.contextmanager
def _warnings_as_lines() -> Generator[None]:
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
