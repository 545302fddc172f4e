"""The command line: one function for each command, in the module of its name.

Importing this is quick, since the commands import torch and the rest when they run.
"""

from __future__ import annotations

from typing import Annotated

import typer

from triptych import __version__
from triptych.cli import ablate, compare, convert, data, demo, encode, index, mine, search, synthesize, train
from triptych.cli import demo as info
from triptych.cli import encode as score
from triptych.cli import eval as evaluate
from triptych.cli import train as merge
from triptych.cli.failures import Commands

app = typer.Typer(
    name="triptych",
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"triptych {__version__}")
        raise typer.Exit


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


for command in (demo.demo, index.index, search.search, encode.encode, score.score, info.info):
    app.command()(command)
data.app.command()(convert.convert)
data.app.command()(synthesize.synthesize)
app.add_typer(data.app, name="data")
app.command()(train.train)
app.command()(train.pretrain)
app.command()(merge.merge)
app.command()(mine.mine_negatives)
app.command("eval")(evaluate.evaluate)
app.command()(compare.compare)
app.command()(ablate.ablate)


def main() -> None:
    """Runs the command line."""
    app()
