"""The command line: its commands, and how every one of them ends.

Importing this is quick, since the commands import torch and the rest when they run.
"""

from __future__ import annotations

import signal
import sys
import threading
import traceback
from collections.abc import Generator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Annotated, Any

import typer

from triptych import __version__
from triptych.cli import data, demo, encode, evaluate, index, mine, move, serve, synthesize, train
from triptych.cli.command import HELP, Command, CommandGroup
from triptych.cli.terminal import forget_stdout, no_questions, printable, say, warnings_as_lines
from triptych.errors import InputError, TriptychError

FAILED, USAGE = 1, 2
INTERRUPTED, PIPE_CLOSED, TERMINATED = (
    128 + number for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGTERM)
)


class Data(CommandGroup):
    """The commands of `triptych data`."""

    table: Mapping[str, Command] = {
        "pairs": data.pairs,
        "check": data.check,
        "convert": data.convert,
        "synthesize": synthesize.synthesize,
    }


class Main(CommandGroup):
    """All commands; their errors become one line on standard error."""

    table: Mapping[str, Command] = {
        "demo": demo.demo,
        "index": index.index,
        "search": index.search,
        "serve": serve.serve,
        "mcp": serve.mcp,
        "export": move.export,
        "copy": move.copy,
        "switch": move.switch,
        "encode": encode.encode,
        "score": encode.score,
        "info": demo.info,
        "verify": index.verify,
        "train": train.train,
        "pretrain": train.pretrain,
        "merge": train.merge,
        "convert": train.convert,
        "mine-negatives": mine.mine_negatives,
        "eval": evaluate.evaluate,
        "compare": evaluate.compare,
        "ablate": train.ablate,
    }

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Reads the words before the command's name."""
        with _usage_as_line():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Runs a command.

        Exit codes: 2 for wrong usage or data, 1 for other failures, 130 after Ctrl-C, 143 after SIGTERM, 141 if the
        reader of the output went away.
        """
        with _usage_as_line(), no_questions(), _end_on_sigterm() as terminated:
            debug = bool(ctx.params.get("debug"))
            try:
                with nullcontext() if debug else warnings_as_lines():
                    result = super().invoke(ctx)
                    sys.stdout.flush()
                    return result
            except BrokenPipeError:
                forget_stdout()
                raise typer.Exit(PIPE_CLOSED) from None
            except (KeyboardInterrupt, _Terminated):
                say("terminated" if terminated else "interrupted")
                raise typer.Exit(TERMINATED if terminated else INTERRUPTED) from None
            except Exception as error:
                if hasattr(error, "exit_code"):  # typer's own: wrong usage, or an exit
                    raise
                if debug:
                    sys.stderr.write(printable(traceback.format_exc()))
                else:
                    say(_line_of(error), everywhere=True)
                raise typer.Exit(USAGE if isinstance(error, InputError) else FAILED) from None


class _Terminated(BaseException):
    """SIGTERM came: commands say what they have done and close their files, as after Ctrl-C."""


@contextmanager
def _end_on_sigterm() -> Generator[list[int]]:
    """Gives a list that has the signal once it came: a package may make a Ctrl-C of the exception."""
    came: list[int] = []

    def end(number: int, frame: object) -> None:
        came.append(number)
        raise _Terminated

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def _line_of(error: Exception) -> str:
    message = str(error) or type(error).__name__
    if isinstance(error, TriptychError):
        return f"error: {message}"
    if isinstance(error, MemoryError):
        return "error: out of memory; shorter texts (--max-length, --passages split) need less"
    if isinstance(error, OSError) and error.filename is not None:
        return f"error: {error.filename}: {error.strerror}"
    return f"internal error: {type(error).__name__}: {message} (triptych --debug … shows more)"


@contextmanager
def _usage_as_line() -> Generator[None]:
    """What typer says of wrong usage becomes one line, too; it may hold names of files that a shell has put there."""
    try:
        yield
    except Exception as error:
        said: str = error.format_message() if hasattr(error, "format_message") else ""  # type: ignore[attr-defined]
        if not said or "\n" in said:  # a help page is an error, too, where a command is missing
            raise
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "triptych"
        say(f"error: {said.replace('Value error, ', '')} ({command} --help shows what there is)")
        raise typer.Exit(USAGE) from None


app = typer.Typer(
    name="triptych",
    cls=Main,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings=HELP,
)
group = typer.Typer(cls=Data, no_args_is_help=True, rich_markup_mode="rich", context_settings=HELP)
app.add_typer(group, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"triptych {__version__}")
        raise typer.Exit


@group.callback()
def _data() -> None:  # pyright: ignore[reportUnusedFunction]
    """Look at training data, and make it."""


@app.callback()
def _options(  # pyright: ignore[reportUnusedFunction]
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error, and other packages' warnings.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Search texts in 100 languages with three representations from one encoder pass.

    Results go to standard output; progress, warnings and errors to standard error. Exit codes: 0 done, 1 failed,
    2 wrong usage or data, 130 interrupted.
    """


def main() -> None:
    """Runs the command line."""
    app()
