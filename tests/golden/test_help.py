"""What every command's ``--help`` says.

docs/cli.md holds the whole help: texts, names of options, defaults. ``tests/cli/test_help.py`` compares that page with
the commands, and `make docs` renews it. Here ``--help`` itself, as a user gets it, is compared with the page, without
a look into how commands are made; so there is no second copy of the help to renew.
"""

import re
from pathlib import Path

import pytest

from cli.conftest import Run

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
SECTIONS = {
    head.strip(): body for head, body in (part.split("\n", 1) for part in PAGE.split("\n## triptych ")[1:])
}
GROUPS = ["data"]
WIDE = {"COLUMNS": "1000", "TERMINAL_WIDTH": "1000", "NO_COLOR": "1"}
OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*")
STANDARD = {"--help", "-h", "--install-completion", "--show-completion"}


def words(text: str) -> str:
    """Without frames, line breaks, and marks of Markdown: the terminal's help takes '*' for one, too."""
    return " ".join(re.sub(r"[│╭╮╰╯─`]", " ", text.replace("\\|", "|").replace("*", "")).split())


def shown(run: Run, *command: str) -> str:
    done = run(*command, "--help", env=WIDE)
    assert done.code == 0
    return done.out


def panel(text: str, title: str) -> list[str]:
    """The lines within a frame of that title."""
    found = re.search(rf"╭─ {title} ─+╮\n(.*?)╰─", text, re.DOTALL)
    return [line.strip("│ \n") for line in found[1].splitlines()] if found else []


def names(lines: list[str]) -> set[str]:
    """The options that lines begin with; their explanations may name others."""
    found: set[str] = set()
    for line in lines:
        for word in line.removeprefix("*").replace(",", " ").split():
            if not OPTION.fullmatch(word):
                break
            found.add(word)
    return found - STANDARD


def rows(section: str) -> list[list[str]]:
    """Name, explanation and default of each option or argument in a section of the page."""
    found = [re.split(r"(?<!\\) \|", row[2:]) for row in section.splitlines() if row.startswith("| `")]
    return [[cell.strip() for cell in row[:3]] for row in found]


def test_the_page_has_every_command_and_no_other(run: Run) -> None:
    listed: list[str] = []
    for group in ("", *GROUPS):
        commands = [line.split("  ")[0].strip() for line in panel(shown(run, *group.split()), "Commands")]
        listed += [f"{group} {name}".strip() for name in commands if name and name not in GROUPS]
    assert sorted(listed) == sorted(SECTIONS)


@pytest.mark.parametrize("command", SECTIONS)
def test_help_says_what_the_page_says(run: Run, command: str) -> None:
    text, section = shown(run, *command.split()), SECTIONS[command]
    on_page = {name for row in rows(section) for name in OPTION.findall(row[0].split("<")[0])}
    assert names(panel(text, "Options") + panel(text, "Advanced")) == on_page
    prose = re.sub(r"```\w*\n.*?```", "", section.partition("\n| | |")[0], flags=re.DOTALL)
    for paragraph in prose.strip().split("\n\n"):
        assert words(paragraph) in words(text)
    for _, explanation, default in rows(section):
        assert words(explanation) in words(text)
        value = re.match("`(.*?)`", default)
        assert value is None or f"[default: {value[1]}]" in text or value[1] in ("True", "[]"), default
        for variable in re.findall("or `(.*?)`", default):
            assert f"[env var: {variable}]" in text


def test_the_first_page_of_help_explains_streams_and_exit_codes(run: Run) -> None:
    text = words(shown(run))
    head = PAGE.partition("\n## triptych ")[0].partition("edit that.\n")[2]
    for paragraph in head.partition("\n| | |")[0].strip().split("\n\n"):
        assert words(paragraph) in text
    for name, explanation, _ in rows(head):
        assert words(name) in text
        assert words(explanation) in text
