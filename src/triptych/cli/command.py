"""Commands from functions: options, help, choices and defaults are read from signatures and settings classes.

A command is a plain function. Its positional parameters are arguments, its keyword-only ones options; a parameter of
one of the package's settings classes becomes an option for each field. What an option means stands once: under "Args"
of the function or "Attributes" of the class, its default in the signature or the class.

Classes of other modules are read from their source text, not imported: ``--help`` loads neither torch nor NumPy. The
import happens when the command runs.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

from triptych.errors import InputError

ADVANCED = "Advanced"
SELDOM = ("loading", "fields", "format")  # in the second panel of every command, but for the model's name
_LONGEST = 30  # letters of a default that the help shows
HELP = {"help_option_names": ["-h", "--help"]}

COMMON = {
    "as_json": "--json",
    "choice.model": "-m",
    "fields.id": "--id-field",
    "fields.text": "--text-field",
    "fields.title": "--title-field",
}
"""What is the same in all commands: names of options,"""
COMMON_HELP = {"as_json": "Write JSON objects, one a line, and nothing else to standard output."}
"""explanations,"""
COMMON_ENV = {"choice.model": "TRIPTYCH_MODEL"}
"""and variables of the environment."""

Shape: TypeAlias = Literal["flag", "one", "list", "many", "pairs", "words", "numbers", "text"]


class Kind(NamedTuple):
    """What is written on the command line, and what becomes of it.

    Attributes:
        shape: A flag, one value, words with commas, numbers with colons, or text that a class parses; repeatable are
            a list, a tuple (many) and KEY=VALUE pairs.
        type: What typer makes of each word.
        parser: ``module:class`` of a class with ``parse``.
    """

    shape: Shape
    type: Any
    parser: str = ""


class Field(NamedTuple):
    """A parameter of a function or a field of a class, as its source has it.

    Attributes:
        path: Its name after those of the parameter and fields that hold it.
        kind: What it takes.
        default: What it is if it is not given, as one would write it; None: left to the function or the class.
        required: Whether there is no default.
        help: What it means.
    """

    path: tuple[str, ...]
    kind: Kind
    default: Any
    required: bool
    help: str

    @property
    def names(self) -> tuple[str, ...]:
        """What a command may call it: ``money`` or ``budget.money``."""
        return self.path[-1], ".".join(self.path[-2:])


@dataclass(frozen=True, slots=True)
class Command:
    """A command before typer knows it.

    Attributes:
        function: What runs.
        spec: Names and metavar of an option, such as ``"-o --out FILE"``, by the name of its parameter or field. A
            leading "=" makes a field an argument, a metavar that ends in "..." makes an option repeatable, None
            leaves a field out, or all fields of a class but those that are named.
        env: Environment variables that give a value.
        defaults: Values of fields that have no default in their class.
        basic: What the first panel of the help has; None: everything that is not for special wishes in all commands.
    """

    function: Callable[..., None]
    spec: Mapping[str, str | None]
    env: Mapping[str, str]
    defaults: Mapping[str, str]
    basic: frozenset[str]

    @property
    def help(self) -> str:
        """The docstring without the section that explains parameters."""
        return inspect.cleandoc(self.function.__doc__ or "").partition("\n\nArgs:\n")[0]

    def build(self, name: str) -> Any:
        """The command as typer has it."""
        single = typer.Typer(add_completion=False, rich_markup_mode="rich")
        single.command(name, help=escape(self.help), context_settings=HELP)(self._typer_function())
        return typer.main.get_command(single)

    def _typer_function(self) -> Callable[..., None]:
        """A function with a signature for typer, which calls the real one."""
        fields = {"__".join(each.path): each for each in self._fields()}
        parameters = [self._parameter(key, each) for key, each in fields.items()]

        def run(**given: Any) -> None:
            values = {
                each.path: value
                for key, each in fields.items()
                if (value := self._value_or_default(each, given[key])) is not None
            }
            self.function(**_arguments(self.function, values))

        run.__dict__["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = {each.name: each.annotation for each in parameters}
        return run

    def _fields(self) -> Iterator[Field]:
        for each in fields_of(self.function):
            left_out = any(self.spec.get(part, "") is None for part in each.path)
            spec = self._of(self.spec, each, None if left_out else "")
            if spec is not None:
                repeated = spec.endswith("...") and each.kind.shape == "words"
                if name := self._of(self.defaults, each, ""):
                    each = each._replace(default=name, required=False)
                yield each._replace(kind=Kind("many", str)) if repeated else each

    def _parameter(self, key: str, each: Field) -> inspect.Parameter:
        spec = self._of(self.spec, each, "") or ""
        names = [word for word in spec.split() if word.startswith("-")]
        metavar = next((word for word in spec.split() if not word.startswith("-")), _metavar(each.kind))
        common: dict[str, Any] = {"help": escape(each.help)}
        if metavar.startswith("=") or (len(each.path) == 1 and key in _positional(self.function)):
            info = typer.Argument(metavar=metavar.removeprefix("="), **common)
        else:
            if not any(name.startswith("--") for name in names):
                names.append("--" + each.path[-1].replace("_", "-"))
            if each.kind.shape == "flag":
                metavar = ""
                common["show_default"] = "/" in names[-1]
            info = typer.Option(
                *names,
                metavar=metavar.removesuffix("...") or None,
                envvar=self._of(self.env, each, None),
                rich_help_panel=ADVANCED if self._is_advanced(each) else None,
                **common,
            )
        many = each.kind.shape in ("list", "many", "pairs")
        kind: Any = bool if each.kind.shape == "flag" else list[each.kind.type] if many else each.kind.type
        default = each.default.split(",") if many and each.default else each.default
        if each.required:
            return inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, annotation=Annotated[kind, info])
        return inspect.Parameter(
            key, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind | None, info]
        )

    def _is_advanced(self, each: Field) -> bool:
        seldom = not {*each.path}.isdisjoint(SELDOM)
        if each.required or each.path == ("as_json",):
            return False
        return self.basic.isdisjoint(each.names) if self.basic else seldom

    def _value_or_default(self, each: Field, value: Any) -> Any:
        return self._of(self.defaults, each, None) if value is None else _value(each, value)

    def _of(self, values: Mapping[str, Any], each: Field, default: Any) -> Any:
        return next((values[name] for name in reversed(each.names) if name in values), default)


def command(
    spec: Mapping[str, str | None] | None = None,
    *,
    basic: str = "",
    env: Mapping[str, str] | None = None,
    defaults: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., None]], Command]:
    """Makes a function a command; `Command` explains what may be said of its options."""
    names, variables = COMMON | dict(spec or {}), COMMON_ENV | dict(env or {})
    return lambda function: Command(function, names, variables, defaults or {}, frozenset(basic.split()))


class CommandGroup(TyperGroup):
    """Commands of which only the one that is used gets its options."""

    table: Mapping[str, Command] = {}

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of the table."""
        return [*self.table, *self.commands]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command as a list of commands shows it."""
        if cmd_name not in self.table:
            return super().get_command(ctx, cmd_name)
        return TyperCommand(cmd_name, help=escape(self.table[cmd_name].help), rich_markup_mode="rich")

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that the words name, with its options."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, self.table[name].build(name) if name and name in self.table else found, rest


def fields_of(function: Callable[..., Any]) -> Iterator[Field]:
    """What a function can be given on a command line."""
    helps = COMMON_HELP | _section(function.__doc__, "Args")
    for name, each in inspect.signature(function).parameters.items():
        annotation, required = _parse_annotation(each.annotation), each.default is inspect.Parameter.empty
        default = None if required else _default_text(each.default)
        yield from _expand((name,), annotation, function.__module__, default, required, helps)


def _expand(
    path: tuple[str, ...],
    annotation: ast.expr,
    module: str,
    default: Any,
    required: bool,
    helps: Mapping[str, str],
) -> Iterator[Field]:
    """A field, or the fields of the settings class that it holds; nothing where no text can give it."""
    found = _settings(annotation, module)
    if found is None:
        if kind := kind_of(annotation, module):
            yield Field(path, kind, default, required, helps.get(path[-1], ""))
        return
    home, node = found
    inner = _section(ast.get_docstring(node), "Attributes")
    for each in _own_fields(node):
        name = each.target.id  # type: ignore[union-attr]
        default = _default(each.value)
        shown = None if default is None else _default_text(_constant(default, home))
        needed = default is None and not _is_typed_dict(node)
        yield from _expand((*path, name), each.annotation, home, shown, needed, inner)


def kind_of(annotation: ast.expr, module: str) -> Kind | None:
    """What an option of a type takes; None: no text can give it."""
    match annotation:
        case ast.BinOp(left=left, right=right):
            return kind_of(left, module) or kind_of(right, module)
        case ast.Constant(value=str(text)):
            return kind_of(_parse_annotation(text), module)
        case ast.Subscript(value=ast.Name(id="Literal"), slice=inside):
            return Kind("one", Literal[ast.literal_eval(inside)])  # pyright: ignore[reportInvalidTypeForm]
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[first, *_])):
            return kind_of(first, module)
        case ast.Subscript(value=ast.Name(id="Mapping")):
            return Kind("pairs", str)
        case ast.Subscript(value=ast.Name(id="tuple" | "Sequence" | "list" as outer), slice=inside):
            element = inside.elts[0] if isinstance(inside, ast.Tuple) else inside
            each = kind_of(element, module)
            if each is None or each.shape != "one":
                return None
            if outer == "list" or isinstance(element, ast.BinOp):
                return Kind("list", each.type)
            return Kind("numbers" if each.type is int else "words", str)
        case ast.Name(id="bool"):
            return Kind("flag", bool)
        case ast.Name(id="str" | "int" | "float" | "Path" as name):
            return Kind("one", {"str": str, "int": int, "float": float, "Path": Path}[name])
        case ast.Name(id=name):
            home, node = _lookup(module, name)
            if isinstance(node, ast.ClassDef):
                return Kind("text", str, f"{home}:{name}") if _parses(node) else None
            return None if node is None else kind_of(node, home)
        case _:
            return None


def _value(each: Field, value: Any) -> Any:
    """What a field gets from what was written."""
    option = "--" + each.path[-1].replace("_", "-")
    match each.kind.shape:
        case "words":
            return tuple(part.strip() for part in value.split(",") if part.strip())
        case "many":
            return tuple(value)
        case "numbers":
            try:
                return tuple(map(int, value.split(":")))
            except ValueError:
                raise InputError(
                    f"{option}: got {value!r}; expected numbers such as {each.default}"
                ) from None
        case "text":
            try:
                return _load(each.kind.parser).parse(value)
            except InputError as error:
                raise InputError(f"{option}: {str(error).partition(': ')[2]}") from None
        case "pairs":
            from triptych.cli.options import parse_pairs

            return parse_pairs(value, option)
        case _:
            return value


def _arguments(function: Callable[..., Any], values: Mapping[tuple[str, ...], Any]) -> dict[str, Any]:
    """The arguments of a function: what was given, and settings made of it; the rest keeps its defaults."""
    arguments: dict[str, Any] = {}
    for name, each in inspect.signature(function).parameters.items():
        found = _settings(_parse_annotation(each.annotation), function.__module__)
        if found is not None:
            arguments[name] = _instance(*found, (name,), values)
        elif (name,) in values:
            arguments[name] = values[name,]
    return arguments


def _instance(
    module: str, node: ast.ClassDef, path: tuple[str, ...], values: Mapping[tuple[str, ...], Any]
) -> Any:
    """An instance of a settings class."""
    inner: dict[str, Any] = {}
    for each in _own_fields(node):
        name: str = each.target.id  # type: ignore[union-attr]
        at = (*path, name)
        if at in values:
            inner[name] = values[at]
        elif any(key[: len(at)] == at for key in values):
            home, held = _settings(each.annotation, module) or ("", node)
            inner[name] = _instance(home, held, at, values)
    return _load(f"{module}:{node.name}")(**inner)


# Source text.


def _load(place: str) -> Any:
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)


def _parse_annotation(annotation: Any) -> ast.expr:
    return ast.parse(annotation, mode="eval").body


@cache
def _tree(module: str) -> ast.Module:
    found = importlib.util.find_spec(module)
    return ast.parse(Path(found.origin).read_text(encoding="utf-8") if found and found.origin else "")


@cache
def _lookup(module: str, name: str) -> tuple[str, Any]:
    """Where a name of a module is made, and its class or value; None: that is not within the package."""
    for node in ast.walk(_tree(module)):
        match node:
            case ast.ClassDef(name=found) if found == name:
                return module, node
            case ast.AnnAssign(target=ast.Name(id=found), value=value) if found == name:
                return module, value
            case ast.Assign(targets=[ast.Name(id=found)], value=value) if found == name:
                return module, value
            case ast.ImportFrom(module=str(home)) if home.startswith("triptych"):
                for alias in node.names:
                    if (alias.asname or alias.name) == name:
                        return _lookup(home, alias.name)
            case _:
                pass
    return module, None


def _settings(annotation: ast.expr, module: str) -> tuple[str, ast.ClassDef] | None:
    """The settings class that a type names, and its module."""
    if not isinstance(annotation, ast.Name):
        return None
    home, node = _lookup(module, annotation.id)
    if not isinstance(node, ast.ClassDef) or _parses(node):
        return None
    dataclass = any("dataclass" in ast.unparse(each) for each in node.decorator_list)
    return (home, node) if dataclass or _is_typed_dict(node) else None


def _is_typed_dict(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base) == "TypedDict" for base in node.bases)


def _parses(node: ast.ClassDef) -> bool:
    return any(isinstance(each, ast.FunctionDef) and each.name == "parse" for each in node.body)


def _own_fields(node: ast.ClassDef) -> list[ast.AnnAssign]:
    """The public fields that the class is made with."""
    return [
        each
        for each in node.body
        if isinstance(each, ast.AnnAssign)
        and not ast.unparse(each.target).startswith("_")
        and not (each.value is not None and "init=False" in ast.unparse(each.value))
    ]


def _positional(function: Callable[..., Any]) -> list[str]:
    found = inspect.signature(function).parameters.values()
    return [each.name for each in found if each.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]


def _default(value: ast.expr | None) -> ast.expr | None:
    """The default that a field's text gives, perhaps within ``field(…)``."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        found = {each.arg: each.value for each in value.keywords}
        return found.get("default", found.get("default_factory"))
    return value


def _constant(node: ast.expr, module: str) -> Any:
    """A default's value, where the text has it."""
    if isinstance(node, ast.Name):
        home, value = _lookup(module, node.id)
        return _constant(value, home) if isinstance(value, ast.expr) else None
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "Path":
        return _constant(node.args[0], module)
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _default_text(value: Any) -> Any:
    """A default as one would write it; None where that is too long, or nothing."""
    if isinstance(value, tuple):
        value = (":" if value and isinstance(value[0], int) else ",").join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
    return None if value == "" or len(str(value)) > _LONGEST else value


def _section(doc: str | None, title: str) -> dict[str, str]:
    """The entries of a section of a docstring in Google's style."""
    body = inspect.cleandoc(doc or "").partition(f"\n{title}:\n")[2]
    body = re.split(r"\n(?=\S)", body)[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n {5,}.*)*)", body, re.MULTILINE)
    texts = {name: " ".join(text.replace("`", "").split()) for name, text in entries}
    return {name: re.sub(r"None: (.)", r"by default \1", text) for name, text in texts.items()}


def _metavar(kind: Kind) -> str:
    if choices := getattr(kind.type, "__args__", ()):
        return "|".join(choices)
    return {int: "N", float: "NUMBER", Path: "PATH"}.get(
        kind.type, "KEY=VALUE" if kind.shape == "pairs" else "TEXT"
    )
