"""Source code: one document a file, a section for each function and class at its top."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator

from triptych.markup import Plain
from triptych.records import Section

LANGUAGES = {
    ".py": "python", ".pyi": "python", ".js": "javascript", ".mjs": "javascript", ".cjs": "javascript",
    ".jsx": "javascript", ".ts": "typescript", ".tsx": "typescript", ".go": "go", ".rs": "rust",
    ".java": "java", ".kt": "kotlin", ".scala": "scala", ".swift": "swift", ".cs": "c#", ".php": "php",
    ".c": "c", ".h": "c", ".cc": "c++", ".cpp": "c++", ".cxx": "c++", ".hh": "c++", ".hpp": "c++",
    ".rb": "ruby", ".sh": "shell", ".bash": "shell", ".lua": "lua", ".pl": "perl", ".pm": "perl",
    ".r": "r", ".jl": "julia", ".sql": "sql", ".ex": "elixir", ".exs": "elixir",
}  # fmt: skip
"""Languages by the ending of a file."""
_WORDS = "|".join((
    *("export", "default", "declare", r"pub(?:\([^)]*\))?", "public", "private", "protected", "internal", "static"),
    *("abstract", "final", "async", "unsafe", "extern", "inline", "virtual", "override", "sealed", "open", "data"),
    *("const", "partial", "readonly", "local"),
))  # fmt: skip
_KEYWORDS = "|".join((
    *(r"function\*?", "func", "fn", "def", "defp", "defmodule", "class", "struct", "enum", "union", "interface"),
    *("trait", r"impl(?:<[^>]*>)?", "type", "module", "mod", "namespace", "object", "protocol", "extension"),
    *("record", "sub", "package", "macro_rules!", "macro"),
))  # fmt: skip
# A word that defines something, before its name; Go has a receiver between them.
_DEFINED = re.compile(rf"(?:(?:{_WORDS})\s+)*(?:{_KEYWORDS})\s+(?:\([^)]*\)\s*)?([\w$:.]+[?!]?)")
# const name = (…) => or = function
_ARROW = re.compile(
    r"(?:export\s+)?(?:const|let|var)\s+([\w$]+)\s*(?::[^=\n]*)?=\s*(?:async\s*)?(?:function\b|\(|[\w$]+\s*=>)"
)
# C and its kin: type name(…) not followed by ; on the line. Shell: name() {. R: name <- function.
_TYPED = re.compile(r"[A-Za-z_][\w\s*&<>:,\[\]~]*?[\s*&]((?:[\w~]+::)*~?\w+)\s*\([^;]*$")
_SHELL = re.compile(r"(?:function\s+)?([\w:.-]+)\s*\(\s*\)\s*(?:\{.*)?$|function\s+([\w:.-]+)")
_ASSIGNED = re.compile(r"([\w.]+)\s*(?:<-|=)\s*function\b")
_SQL = re.compile(
    r"create\s+(?:or\s+replace\s+)?(?:\w+\s+)?(?:table|view|function|procedure|trigger|index)\s+"
    r"(?:if\s+not\s+exists\s+)?([\w.\"`]+)",
    re.IGNORECASE,
)
_NOT_NAMES = frozenset(
    ("if", "for", "while", "switch", "return", "else", "case", "do", "sizeof", "catch", "typedef")
)
_LEADING = (
    "@",
    "#[",
    "///",
    "//",
    "/**",
    " *",
    "/*",
    "# ",
    "--",
)  # decorators and comments that belong to what follows


def read_code(text: str, ending: str) -> Plain:
    """The text of a program as it is, with sections under the names of functions and classes.

    Python is parsed; in other languages a definition is told by a word such as ``func`` or ``class`` (in C by a type
    and parentheses) at the beginning of a line that is not indented. The comments right above belong to it.

    Args:
        text: The program.
        ending: Of the file's name, such as ".py".
    """
    language = LANGUAGES.get(ending, "")
    text = text.rstrip()
    lines = text.split("\n")
    found = list(_python(text)) if language == "python" else []
    found = found or list(_definitions(lines, language))
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    sections = [Section(starts[line], names) for line, names in found]
    if sections and sections[0].start:
        sections.insert(0, Section(0))
    metadata = {"programming_language": language} if language else {}
    return Plain("\n".join(lines).strip("\n") and "\n".join(lines), None, tuple(sections), metadata)


def _python(text: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Line, from 0, and names of the classes, methods and functions; nothing for what is no Python of today."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as of an escape that is none
        try:
            tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield _first_line(node), (node.name,)
        if isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    yield _first_line(inner), (node.name, inner.name)


def _first_line(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> int:
    return min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]) - 1


def _definitions(lines: list[str], language: str) -> Iterator[tuple[int, tuple[str, ...]]]:
    patterns = [_DEFINED]
    if language in ("c", "c++", "java", "c#"):
        patterns.append(_TYPED)
    elif language in ("javascript", "typescript"):
        patterns.append(_ARROW)
    elif language in ("shell", "r", "sql"):
        patterns = [{"shell": _SHELL, "r": _ASSIGNED, "sql": _SQL}[language]]
    above = 0  # the first line that no definition has taken
    for number, line in enumerate(lines):
        if not line or line[0] in " \t#/*}" or len(line) > 400:
            continue
        match = next((match for pattern in patterns if (match := pattern.match(line))), None)
        name = next(filter(None, match.groups()), "") if match else ""
        if not name or name in _NOT_NAMES:
            continue
        first = number
        while first > above and lines[first - 1].startswith(_LEADING):
            first -= 1
        above = number + 1
        yield first, (name,)
