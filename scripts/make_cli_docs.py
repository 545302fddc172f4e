"""Writes docs/cli.md: the help of every command, as the command line has it.

Usage: python scripts/make_cli_docs.py [FILE]
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from triptych.cli.app import app

TARGET = Path(__file__).parent.parent / "docs" / "cli.md"
HEAD = """# The command line

Written by `make docs` (`scripts/make_cli_docs.py`) from the commands' own help: edit that.

"""
# The machine's own shells and typer's standard options say nothing about this program.
_HIDDEN = {"install_completion", "show_completion", "help"}


def document() -> str:
    """The whole page."""
    group: Any = typer.main.get_command(app)
    parts = [HEAD, _prose(group), _options(group)]
    for name, command in commands(group):
        parts += [f"\n## triptych {name}\n\n", _usage(name, command), _prose(command), _options(command)]
    return "".join(parts)


def commands(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """All commands with their names; those of a group have two words."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{before}{name} ")
        else:
            yield f"{before}{name}", command


def _usage(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    words = " ".join(_argument(p) for p in arguments)
    return f"```\ntriptych {name} [OPTIONS] {words}".rstrip() + "\n```\n\n"


def _prose(command: Any) -> str:
    """The docstring; its example as a block of code."""
    text = inspect.cleandoc(command.help or "")
    body, found, example = text.partition("Example: ")
    return body.strip() + "\n" + (f"\n```bash\n{example.strip()}\n```\n" if found else "")


def _options(command: Any) -> str:
    rows = ["\n| | | default |\n|---|---|---|\n"]
    types = get_type_hints(inspect.unwrap(command.callback))
    for parameter in command.params:
        if getattr(parameter, "hidden", False):
            continue
        if parameter.name not in _HIDDEN:
            names = _names(parameter, types[parameter.name])
            rows.append(f"| {names} | {_escaped(parameter.help or '')} | {_default(parameter)} |\n")
    return "".join(rows)


def _names(parameter: Any, kind: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_escaped(_argument(parameter))}`"
    opts = [*sorted(parameter.opts, key=len), *parameter.secondary_opts]
    value = "" if parameter.is_flag else " " + _escaped(parameter.metavar or _kind(kind))
    return f"`{', '.join(opts)}{value}`"


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name.upper()).strip("[].")
    return (name if parameter.required else f"[{name}]") + ("..." if parameter.nargs == -1 else "")


def _kind(kind: Any) -> str:
    """What an option takes, from its annotation, which may be `X | None`."""
    for part in get_args(kind) or (kind,):
        if isinstance(part, type) and issubclass(part, Enum):
            return "|".join(choice.value for choice in part)
    kinds = (kind, *get_args(kind))
    return "N" if int in kinds else "NUMBER" if float in kinds else "TEXT"


def _default(parameter: Any) -> str:
    if parameter.required:
        return "needed"
    if parameter.param_type_name == "argument" or parameter.default in (None, False, ()):
        return ""
    shown = f"`{getattr(parameter.default, 'value', parameter.default)}`"
    return shown + (f", or `{parameter.envvar}`" if parameter.envvar else "")


def _escaped(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def main() -> None:
    """Writes the page."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    target.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main()
