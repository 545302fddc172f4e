"""Writes docs/cli.md: the help of every command, as the command line has it.

Usage: python scripts/make_cli_docs.py [FILE]
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from rich.text import Text

from triptych.cli.app import Data, Main, app
from triptych.cli.command import ADVANCED

TARGET = Path(__file__).parent.parent / "docs" / "cli.md"
HEAD = """# The command line

Written by `make docs` (`scripts/make_cli_docs.py`) from the commands' own help: edit that.

"""
# The machine's own shells and typer's standard options say nothing about this program.
_HIDDEN = {"install_completion", "show_completion", "help"}


def document() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    parts = [HEAD, inspect.cleandoc(group.help), "\n", *_table(group)]
    for name, command in commands():
        parts += [f"\n## triptych {name}\n\n", _usage(name, command), _prose(command), *_table(command)]
    return "".join(parts)


def commands() -> Iterator[tuple[str, Any]]:
    """All commands with their names; those of a group have two words."""
    for name, command in [
        *Main.table.items(),
        *((f"data {name}", each) for name, each in Data.table.items()),
    ]:
        yield name, command.build(name)


def _usage(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = " ".join(_argument(p) for p in arguments)
    return f"```\ntriptych {name} [OPTIONS] {words}".rstrip() + "\n```\n\n"


def _prose(command: Any) -> str:
    """The docstring; its example as a block of code."""
    body, found, example = _plain(command.help).partition("Example: ")
    return body.strip() + "\n" + (f"\n```bash\n{example.strip()}\n```\n" if found else "")


def _table(command: Any) -> Iterator[str]:
    """The arguments and options; those of the second panel after a line of their own."""
    yield "\n| | | default |\n|---|---|---|\n"
    shown = [each for each in command.params if each.name not in _HIDDEN]
    panels = {panel: [each for each in shown if each.rich_help_panel == panel] for panel in (None, ADVANCED)}
    for panel, parameters in panels.items():
        if panel and parameters:
            yield f"| *{panel}* | | |\n"
        for each in parameters:
            yield f"| {_names(each)} | {_escaped(_plain(each.help))} | {_default(each)} |\n"


def _plain(text: str) -> str:
    """Help without the signs that keep the terminal from taking it for markup."""
    return Text.from_markup(text).plain


def _names(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_escaped(_argument(parameter))}`"
    opts = [*sorted(parameter.opts, key=len), *parameter.secondary_opts]
    value = "" if parameter.is_flag else " " + _escaped(parameter.metavar)
    return f"`{', '.join(opts)}{value}`"


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name.upper()).strip("[].")
    return (name if parameter.required else f"[{name}]") + ("..." if parameter.nargs == -1 else "")


def _default(parameter: Any) -> str:
    if parameter.required:
        return "needed"
    default = parameter.default
    if default is None or default is False or parameter.is_flag:
        return ""
    shown = ", ".join(default) if isinstance(default, list) else default
    return f"`{shown}`" + (f", or `{parameter.envvar}`" if parameter.envvar else "")


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    """Writes the page."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    target.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
