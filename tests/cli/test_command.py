"""Options that are read from signatures and settings classes."""

import ast
import dataclasses
import importlib
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

from triptych.cli.app import Data, Main
from triptych.cli.command import ADVANCED, COMMON, Kind, command, fields_of, kind_of
from triptych.errors import InputError

COMMANDS = {**Main.table, **{f"data {name}": each for name, each in Data.table.items()}}
MODULE = "triptych.tools.negatives.options"


@dataclasses.dataclass(frozen=True)
class Inner:
    """Inside.

    Attributes:
        share: A share of
            two lines; None: all.
        names: Some names.
        pair: Two numbers.
    """

    share: float | None = None
    names: tuple[str, ...] = ("a", "b")
    pair: tuple[int, int] = (2, 200)


@dataclasses.dataclass(frozen=True)
class Outer:
    """Outside.

    Attributes:
        inner: Left to the fields.
        shout: Be loud.
    """

    inner: Inner = dataclasses.field(default_factory=Inner)
    shout: bool = False


def run_with(arguments: list[str], spec: dict[str, str | None] | None = None, **more: Any) -> dict[str, Any]:
    seen: dict[str, Any] = {}

    def job(words: "list[str]", *, outer: "Outer", times: "int" = 3) -> None:
        """Do it.

        Args:
            words: Some words.
            times: How often.
        """
        seen.update(words=words, outer=outer, times=times)

    job.__annotations__ = {"words": "list[str]", "outer": "Outer", "times": "int", "return": "None"}
    made = command(spec, **more)(job).build("job")
    made.main(arguments, standalone_mode=False)
    return seen


def test_fields_of_nested_classes_become_options_and_come_back_as_instances() -> None:
    seen = run_with(
        ["x", "y", "--share", "0.5", "--shout", "--names", "c, d", "--pair", "1:7", "--times", "4"]
    )
    assert seen == {
        "words": ["x", "y"],
        "outer": Outer(Inner(0.5, ("c", "d"), (1, 7)), shout=True),
        "times": 4,
    }


def test_what_is_not_given_keeps_the_defaults_of_the_classes() -> None:
    assert run_with(["x"]) == {"words": ["x"], "outer": Outer(), "times": 3}


def test_a_name_a_repeatable_metavar_and_a_field_that_is_left_out() -> None:
    spec = {"inner.share": "-s --part", "names": "NAME...", "pair": None}
    seen = run_with(["x", "-s", "0.25", "--names", "c", "--names", "d"], spec)
    assert seen["outer"] == Outer(Inner(0.25, ("c", "d")))
    with pytest.raises(Exception, match="No such option"):
        run_with(["x", "--pair", "1:2"], spec)


def test_numbers_that_are_none_are_an_error_that_names_the_option() -> None:
    with pytest.raises(InputError, match=r"--pair: got '2-200'; expected numbers such as 2:200"):
        run_with(["x", "--pair", "2-200"])


def test_a_docstring_explains_each_option() -> None:
    made = next(each for each in fields_of(COMMANDS["mine-negatives"].function) if each.path[-1] == "keep")
    assert made.path == ("options", "keep")
    assert (made.kind, made.default, made.required) == (Kind("one", int), 15, False)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("bool", Kind("flag", bool)),
        ("Path | str | None", Kind("one", Path)),
        ("Sequence[Path | str]", Kind("list", Path)),
        ("tuple[str, ...] | None", Kind("words", str)),
        ("tuple[int, int]", Kind("numbers", str)),
        ("Mapping[str, Any]", Kind("pairs", str)),
        ("Annotated[int, Ge(0)] | None", Kind("one", int)),
        ("Margin", Kind("text", str, f"{MODULE}:Margin")),
        ("Callable[[int], None]", None),
        ("Filters", None),
    ],
)
def test_a_type_says_what_an_option_takes(text: str, kind: Kind | None) -> None:
    assert kind_of(ast.parse(text, mode="eval").body, MODULE) == kind


def test_choices_are_found_through_aliases_and_imports() -> None:
    found = kind_of(ast.parse("Ranking", mode="eval").body, MODULE)
    assert found is not None
    assert typing.get_args(found.type) == ("dense", "lexical", "multi", "hybrid")


@pytest.mark.parametrize("name", COMMANDS)
def test_what_the_source_says_is_what_the_classes_have(name: str) -> None:
    """Names, defaults and types that were read from text against the classes themselves."""
    function = COMMANDS[name].function
    for each in fields_of(function):
        if len(each.path) == 1:
            continue
        owner: Any = annotated(function, each.path[0])
        for part in each.path[1:-1]:
            held = {each.name: each for each in dataclasses.fields(owner)}[part]
            missing = held.default_factory is dataclasses.MISSING
            owner = type(held.default if missing else held.default_factory())  # type: ignore[operator]
        if not dataclasses.is_dataclass(owner):
            assert each.path[-1] in owner.__annotations__  # a TypedDict
            continue
        field = {each.name: each for each in dataclasses.fields(owner)}[each.path[-1]]
        missing = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        assert each.required == missing, each.path
        if each.default is not None and not isinstance(field.default, tuple):
            assert str(field.default) == str(each.default), each.path


def annotated(function: Any, name: str) -> Any:
    """The class that a parameter names, whose import may be for type checkers alone."""
    module = sys.modules[function.__module__]
    text = function.__annotations__[name]
    if found := getattr(module, text, None):
        return found
    for node in ast.walk(ast.parse(Path(module.__file__ or "").read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == text:
                    return getattr(importlib.import_module(node.module or ""), alias.name)
    raise AssertionError(text)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_panel_has_at_most_twelve_options(name: str) -> None:
    made = COMMANDS[name].build(name.split()[-1])
    options = [each for each in made.params if each.param_type_name == "option"]
    first = [each for each in options if each.rich_help_panel != ADVANCED]
    assert len(first) + 1 <= 12, [each.name for each in first]  # and --help


@pytest.mark.parametrize("name", COMMANDS)
def test_every_word_about_an_option_is_about_one_that_there_is(name: str) -> None:
    each = COMMANDS[name]
    known = {
        word
        for field in fields_of(each.function)
        for part in range(len(field.path))
        for word in (field.path[part], ".".join(field.path[max(0, part - 1) : part + 1]))
    }
    own = set(each.spec) - set(COMMON) | set(each.basic) | set(each.defaults)
    assert own <= known


def test_help_of_every_command_loads_neither_torch_nor_numpy() -> None:
    code = (
        "import sys\n"
        "from triptych.cli.app import Data, Main\n"
        "for table in (Main.table, Data.table):\n"
        "    for name, command in table.items():\n"
        "        made = command.build(name)\n"
        "        with made.make_context(name, [], resilient_parsing=True) as context:\n"
        "            made.get_help(context)\n"
        "print(sorted({'torch', 'numpy', 'scipy', 'transformers'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert "--rerank-margin" in done.stdout


def test_asterisks_of_the_help_are_shown() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "triptych.cli", "compare", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "'*/all'" in done.stdout
    assert "* marks a significant difference" in " ".join(done.stdout.split())
