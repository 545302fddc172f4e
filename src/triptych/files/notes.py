"""Notebooks of Jupyter, reStructuredText, and JSON files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, cast

from triptych.errors import DataError, require_extra
from triptych.markup import Piece, Plain, assemble, markdown_pieces, squeeze

_UNKNOWN = re.compile(
    r"\.\.[ \t]+(?:\|[^|]*\|[ \t]+)?([\w:+.-]+)::[ \t]*(.*)"
)  # a directive and its argument
_CONDITIONS = ("only", "ifconfig", "highlight", "currentmodule", "tabularcolumns", "default-domain")
_OPTION = re.compile(r"[ \t]*:[\w -]+:(?:\s|$)")
_ROLE = re.compile(r":[\w:+.-]+:`([^`]*)`")
_TARGET = re.compile(r"\s*<[^<>]*>$")
_DEPTH = 8  # of unknown directives in each other
_UNSEEN = ("comment", "substitution_definition", "target", "pending", "meta", "raw", "topic")


def parse_json(text: str, name: str) -> Any:
    """One JSON value.

    Raises:
        DataError: For broken JSON, or one nested too deeply.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"broken JSON: {error.msg} at column {error.colno}", name, error.lineno) from None
    except RecursionError:
        raise DataError("JSON nested too deeply", name) from None
    except ValueError as error:  # a limit of Python against slow conversions of numbers
        raise DataError(f"broken JSON: {error}", name) from None


def read_notebook(text: str, name: str) -> Plain:
    """The cells of a notebook: Markdown as text with headings, code as code; what the code gave is left out.

    Raises:
        DataError: For what is no notebook.
    """
    value = parse_json(text, name)
    match value:
        case {"cells": list() as cells}:
            pass
        case {"worksheets": [{"cells": list() as cells}, *_]}:  # of version 3
            pass
        case _:
            raise DataError("no notebook; expected an object with a list 'cells'", name)
    pieces = list(_cell_pieces(cast("list[Any]", cells)))
    heading = next((squeeze(piece.text) for piece in pieces if piece.kind == "h1"), "")
    match value:
        case {"metadata": {"kernelspec": {"language": str() as language}}}:
            said = {"programming_language": language}
        case {"metadata": {"language_info": {"name": str() as language}}}:
            said = {"programming_language": language}
        case _:
            said = {}
    return assemble(pieces, heading or None, said)


def _cell_pieces(cells: list[Any]) -> Iterator[Piece]:
    for cell in cells:
        match cell:
            case {"cell_type": "markdown", "source": str() | list() as source}:
                found = markdown_pieces(_source(source))
                yield from (piece for piece in found if isinstance(piece, Piece))
            case {"cell_type": "code", "source": str() | list() as source}:
                yield Piece("pre", _source(source))
            case {"cell_type": "code", "input": str() | list() as source}:
                yield Piece("pre", _source(source))
            case {"cell_type": "heading", "level": int() as level, "source": str() | list() as source}:
                yield Piece(f"h{min(max(level, 1), 6)}", _source(source))
            case {"cell_type": "raw", "source": str() | list() as source}:
                yield Piece("", _source(source))
            case _:
                pass


def _source(source: Any) -> str:
    lines = [source] if isinstance(source, str) else source
    text = "".join(line for line in lines if isinstance(line, str))
    return text.encode("utf-8", "replace").decode()  # half a surrogate pair, by an escape


def read_rst(text: str, name: str) -> Plain:
    """The text of reStructuredText; of directives that are not docutils' own (such as Sphinx's) the content.

    Files are not included and raw HTML is left out.

    Raises:
        DataError: If it cannot be parsed at all.
        MissingExtra: Without docutils.
    """
    tree = _tree(text, name)
    pieces = list(_rst_pieces(tree, name, _DEPTH))
    heading = next((squeeze(piece.text) for piece in pieces if piece.kind == "h1"), "")
    return assemble(pieces, heading or None, _docinfo(tree))


def _tree(text: str, name: str) -> Any:
    with require_extra(f"{name}: reading reStructuredText", "files"):
        from docutils.core import publish_doctree
    settings = {
        "report_level": 5,
        "halt_level": 5,
        "file_insertion_enabled": False,
        "raw_enabled": False,
        "_disable_config": True,
        "smart_quotes": False,
        "syntax_highlight": "none",
        "doctitle_xform": False,
        "sectsubtitle_xform": False,
        "line_length_limit": 1 << 20,
    }
    try:
        return publish_doctree(text, settings_overrides=settings)
    except Exception as error:  # whatever the library stumbles over in a broken file
        raise DataError(f"no reStructuredText that can be read ({error})", name) from error


def _docinfo(tree: Any) -> dict[str, str]:
    """Author and date of the field list at the top."""
    from docutils import nodes

    found = {"author": nodes.author, "created": nodes.date}
    said = {
        key: next((squeeze(node.astext()) for node in tree.findall(kind)), "") for key, kind in found.items()
    }
    return {key: value for key, value in said.items() if value}


def _rst_pieces(tree: Any, name: str, depth: int, level: int = 0) -> Iterator[Piece]:
    """The blocks under a node, by a list of what is to come, as trees may be deep."""
    from docutils import nodes

    stack: list[tuple[Any, int, str]] = [(child, level, "") for child in reversed(tree.children)]
    while stack:
        node, level, kind = stack.pop()
        if isinstance(node, nodes.system_message):
            yield from _unknown(node, name, depth, level)
        elif node.tagname in _UNSEEN:
            continue
        elif isinstance(node, nodes.title | nodes.rubric):
            yield Piece(f"h{min(max(level, 1), 6)}", _inline(node))
        elif isinstance(node, nodes.literal_block | nodes.doctest_block | nodes.math_block):
            yield Piece("pre", node.astext())
        elif isinstance(node, nodes.row):
            yield Piece("tr", " ".join(_inline(entry) for entry in node.children))
        elif isinstance(node, nodes.line_block):
            yield Piece(kind, "\n".join(_inline(line) for line in node.findall(nodes.line)))
        elif isinstance(node, nodes.TextElement):
            yield Piece("" if kind == "dd" else kind, _inline(node))
        else:
            inner = "li" if isinstance(node, nodes.list_item) else kind
            deeper = level + isinstance(node, nodes.section)
            stack.extend((child, deeper, inner) for child in reversed(node.children))


def _unknown(message: Any, name: str, depth: int, level: int) -> Iterator[Piece]:
    """What a directive that docutils does not know holds, read as text again; other text with an error as it is."""
    from docutils import nodes

    source = next((node.astext() for node in message.findall(nodes.literal_block)), "")
    first, _, rest = source.partition("\n")
    match = _UNKNOWN.match(first)
    if "directive disabled" in message.children[0].astext():
        return
    if match is None or depth == 0:
        yield Piece("pre", source)
        return
    if match[1] in ("toctree", "index"):
        return
    lines = rest.split("\n")
    while lines and _OPTION.match(lines[0]):
        del lines[0]
    if match[2] and match[1] not in _CONDITIONS:
        yield Piece("", match[2])
    width = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    inner = "\n".join(line[width:] for line in lines)
    if inner.strip():
        yield from _rst_pieces(_tree(inner, name), name, depth - 1, level)


def _inline(node: Any) -> str:
    """The text of a node on lines as they are, roles that docutils does not know without their marks."""
    words = _ROLE.sub(lambda match: _TARGET.sub("", match[1]) or match[1], node.astext())
    return squeeze(words)
