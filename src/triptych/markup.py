"""Markdown and HTML as the plain text that a reader sees."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token
from selectolax.lexbor import LexborHTMLParser, LexborNode

# fmt: off
UNSEEN = frozenset((
    "head", "script", "style", "noscript", "template", "svg", "math", "iframe", "object", "audio", "video",
    "canvas", "datalist", "select", "textarea", "rp", "rt",  # the reading of a ruby would cut its word in two
))
INLINE = frozenset((
    "a", "abbr", "acronym", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font",
    "i", "img", "ins", "kbd", "label", "mark", "q", "ruby", "s", "samp", "small", "span", "strike", "strong",
    "sub", "sup", "time", "tt", "u", "var", "wbr",
))
# Elements without content, and those that end by themselves before the next of their kind.
_SHALLOW = frozenset((
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr",
    "html", "head", "body", "p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "colgroup",
))
# The parser opens these again in every block after one that left them open.
_FORMATTING = frozenset((
    "a", "b", "big", "code", "em", "font", "i", "nobr", "s", "small", "strike", "strong", "tt", "u",
))
# fmt: on
CELLS = frozenset(("td", "th"))
_DEPTH = 512
_FORMATS = 8  # of _FORMATTING open at once
_LONG_TAG = 1 << 14  # characters of a tag with its attributes
_TAG = re.compile(r"<(/?)([A-Za-z][^\s/>]*)[^<>]*>")
BLANKS = re.compile(r"[ \t\n\r\f]+")  # HTML's; a no-break space is a character
_KEPT = "\0"  # a blank inside <pre>; HTML text has none of its own
_PRE_END = "\n\n"  # on the stack, so that it differs from other ends of blocks
_FRONT_MATTER = re.compile(
    r"(---|\+\+\+)[ \t]*\n(.*?)^(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE
)
_FRONT_ENTRY = re.compile(r"[\w.\-]+[ \t]*[:=](?:\s|$)")
_FRONT_OTHER = re.compile(r"\s*$|[ \t]|#|-[ \t]|[\[\]{}]")  # blank, continued, comment, list, table
_FRONT_TITLE = re.compile(r"title[ \t]*[:=][ \t]*(.*?)[ \t]*$", re.MULTILINE)


class Plain(NamedTuple):
    """The text of a marked-up file, and its title if it has one."""

    text: str
    title: str | None


def plain_html(html: str) -> Plain:
    """The visible text of a page: a line break for each end of a block, ``<pre>`` kept as it is.

    Scripts, styles, templates, form choices and elements with the attribute ``hidden`` are left out. The
    title is that of the head, else the first ``<h1>``.

    Args:
        html: A page or a part of one; HTML has no errors, so any text is accepted.
    """
    root = parse_html(html)
    if root is None:
        return Plain("", None)
    title = root.css_first("head > title") or root.css_first("h1")
    name = "" if title is None else squeeze(title.text())
    flowing = re.sub(r" *\n *", "\n", re.sub(r"[ \t]+", " ", "".join(_html_pieces(root))))
    return Plain(_tidy([flowing.replace(_KEPT, " ")]), name or None)


def parse_html(html: str) -> LexborNode | None:
    """The root of a page; elements nested deeper than 512, as in browsers, lose their tags and keep their text.

    The parser's time grows with the square of the depth, and of the number of a tag's attributes.
    """
    html = html.replace(_KEPT, "")
    if html.count("<") > _DEPTH or len(html) > _LONG_TAG:
        html = _TAG.sub(_Flatten(), html)
    return LexborHTMLParser(html).root


class _Flatten:
    """Replaces the tags of elements nested too deeply, for `re.sub`; what the parser closes is closed here too."""

    def __init__(self) -> None:
        self._open: list[str] = []
        self._formats = 0
        self._dropped = Counter[str]()

    def __call__(self, match: re.Match[str]) -> str:
        tag = match[2].lower()
        whole = match[0] if len(match[0]) < _LONG_TAG else f"<{match[1]}{tag}>"
        if tag in _SHALLOW:
            return whole
        if not match[1]:
            formats = tag in _FORMATTING
            if len(self._open) < _DEPTH and self._formats + formats <= _FORMATS:
                self._open.append(tag)
                self._formats += formats
                return whole
            self._dropped[tag] += 1
        elif self._dropped[tag]:
            self._dropped[tag] -= 1
        elif tag in self._open:
            found = ""
            while found != tag:
                found = self._open.pop()
                self._formats -= found in _FORMATTING
            self._dropped.clear()
            return whole
        else:
            return whole
        return "" if tag in INLINE else "<br>"


def plain_markdown(markdown: str) -> Plain:
    """The text of CommonMark with tables, without its marks; front matter is dropped but for its title.

    Code is kept, an image gives its alternative text, embedded HTML its visible text. The title is the front
    matter's, else the first heading of the first level.
    """
    title, body = front_matter(markdown)
    tokens = markdown_parser().parse(body)
    text = _tidy(piece for token in tokens for piece in _markdown_pieces(token))
    return Plain(text, title or _first_heading(tokens))


def _html_pieces(root: LexborNode) -> Iterator[str]:
    """Pieces of text in the order of the page; by a list, as pages are nested deeper than Python's stack."""
    stack: list[LexborNode | str] = [root]
    preformatted = 0
    while stack:
        node = stack.pop()
        if isinstance(node, str):
            preformatted -= node == _PRE_END
            yield node
            continue
        tag = node.tag or ""
        if tag == "-text":
            content = node.text_content or ""
            yield content.expandtabs().replace(" ", _KEPT) if preformatted else BLANKS.sub(" ", content)
        if tag.startswith("-") or tag in UNSEEN or "hidden" in node.attributes:
            continue
        if tag == "br":
            yield "\n"
        elif tag in CELLS:
            stack.append("\t")
        elif tag == "pre":
            preformatted += 1
            stack.append(_PRE_END)
            yield "\n"
        elif tag not in INLINE:
            stack.append("\n")
            yield "\n"
        stack.extend(reversed(list(node.iter(include_text=True))))


def _markdown_pieces(token: Token) -> Iterator[str]:
    if token.type in ("fence", "code_block"):
        yield f"\n{token.content}\n"
    elif token.type == "html_block":
        yield f"\n{plain_html(token.content).text}\n"
    elif token.type == "inline":
        yield inline_text(token.children or [])
    elif token.type in ("td_close", "th_close"):
        yield "\t"
    elif token.nesting == -1 and token.block:
        yield "\n"


def inline_text(children: Sequence[Token]) -> str:
    """The text of Markdown's inline tokens without their marks."""
    pieces: list[str] = []
    for child in children:
        if child.type == "softbreak":
            pieces.append(" ")
        elif child.type == "hardbreak" or (child.type == "html_inline" and child.content.startswith("<br")):
            pieces.append("\n")
        elif child.type == "image":
            pieces.append(inline_text(child.children or []))
        elif child.type != "html_inline":
            pieces.append(child.content)
    return "".join(pieces)


def _first_heading(tokens: Sequence[Token]) -> str | None:
    for token, following in pairwise(tokens):
        if token.type == "heading_open" and token.tag == "h1":
            return squeeze(inline_text(following.children or [])) or None
    return None


def front_matter(markdown: str) -> tuple[str | None, str]:
    """Splits YAML (``---``) or TOML (``+++``) front matter off, but no text between two thematic breaks."""
    match = _FRONT_MATTER.match(markdown)
    lines = match.group(2).splitlines() if match else []
    if match is None or not any(map(_FRONT_ENTRY.match, lines)):
        return None, markdown
    if not all(_FRONT_ENTRY.match(line) or _FRONT_OTHER.match(line) for line in lines):
        return None, markdown
    title = _FRONT_TITLE.search(match.group(2))
    return (title.group(1).strip("\"'") or None) if title else None, markdown[match.end() :]


@cache
def markdown_parser() -> MarkdownIt:
    """The parser of all Markdown: CommonMark with tables and strikethrough."""
    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def squeeze(text: str) -> str:
    """A text on one line, with single blanks."""
    return " ".join(text.split())


def _tidy(pieces: Iterable[str]) -> str:
    """Joins pieces: no blanks at ends of lines, no blank lines, one blank for a tab between cells."""
    lines = (re.sub(r"[ \t]*\t[ \t]*", " ", line).rstrip() for line in "".join(pieces).split("\n"))
    return "\n".join(line for line in lines if line).strip()
