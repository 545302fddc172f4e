"""The commands' help, and the page made of it."""

import subprocess
import sys
from pathlib import Path

import pytest

from triptych.cli.app import Data, Main

from .conftest import Run

ROOT = Path(__file__).parents[2]


COMMANDS = {(name,): command for name, command in Main.table.items()} | {
    ("data", name): command for name, command in Data.table.items()
}


def test_there_is_a_command_for_each_main_job() -> None:
    names = {path[0] for path in COMMANDS}
    assert {"demo", "encode", "index", "search", "score", "info"} <= names


@pytest.mark.parametrize("path", list(COMMANDS), ids=" ".join)
def test_help_names_and_explains_every_option(run: Run, path: tuple[str, ...]) -> None:
    command = COMMANDS[path].build(path[-1])
    shown = run(*path, "--help", env={"COLUMNS": "1000", "TERMINAL_WIDTH": "1000"}).out
    assert command.help
    assert command.help.splitlines()[0][:40] in shown
    for parameter in command.params:
        if getattr(parameter, "hidden", False):  # an old name
            continue
        if parameter.name != "help":
            assert parameter.help, f"{path}: {parameter.name} has no help"
        for name in parameter.opts if parameter.param_type_name == "option" else ():
            assert name in shown, f"{path}: {name} is not in the help"


def test_the_page_of_the_command_line_is_current(tmp_path: Path) -> None:
    page = tmp_path / "cli.md"
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make_cli_docs.py"), str(page)], check=True)
    assert (ROOT / "docs" / "cli.md").read_text("utf-8") == page.read_text("utf-8"), "run `make docs`"
