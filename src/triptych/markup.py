"""Markdown, HTML and plain text as the text that a reader sees, with its structure."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, time
from functools import cache
from typing import Any, NamedTuple, cast

from markdown_it import MarkdownIt
from markdown_it.token import Token
from selectolax.lexbor import LexborHTMLParser, LexborNode

from triptych.records import Section

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
# Elements that give their kind to the text in them; all others leave it as it is around them.
_KINDS = {f"h{level}": f"h{level}" for level in range(1, 7)} | {
    "dt": "h7",
    "summary": "h7",
    "li": "li",
    "pre": "pre",
    "tr": "tr",
    "dd": "",
}
_LEVELS = {f"h{level}": level for level in range(1, 7)}
_CONTAINERS = frozenset(("div", "ul", "ol", "dl", "p", "a", "span", "table", "aside", "section", "details"))
_ROLES = frozenset(("navigation", "banner", "contentinfo", "search", "doc-toc", "menu", "menubar"))
# Classes and ids, in lower case, of what generators of documentation and wikis put around the text.
_AROUND = frozenset((
    "toc", "table-of-contents", "tableofcontents", "navheader", "navfooter", "headerlink", "sphinxsidebar",
    "breadcrumb", "breadcrumbs", "skip-link", "mw-editsection", "mw-jump-link", "navbox",
))  # fmt: skip
_MARKS = frozenset(("#", "¶", "§", "🔗"))  # of links from a heading to itself
_META = {
    "author": ("author", "article:author", "dc.creator", "dcterms.creator"),
    "created": ("date", "article:published_time", "dc.date", "dcterms.date", "dcterms.created"),
}
_UNDERLINED = re.compile(r"^(?=\S)(.{1,119}\S|\S)[ \t]*\n([=\-~^*#\"'+`])\2{2,}[ \t]*$", re.MULTILINE)
_FRONT_MATTER = re.compile(
    r"(---|\+\+\+)[ \t]*\n(.*?)^(?:\1|\.\.\.)[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE
)
_FRONT_ENTRY = re.compile(r"[\w.\-]+[ \t]*[:=](?:\s|$)")
_FRONT_OTHER = re.compile(r"\s*$|[ \t]|#|-[ \t]|[\[\]{}]")  # blank, continued, comment, list, table
_FRONT_CHARS = 1 << 16
_FRONT_VALUES = 10_000
_FRONT_TITLE = re.compile(r"title[ \t]*[:=][ \t]*(.*?)[ \t]*$", re.MULTILINE)


class Piece(NamedTuple):
    """A block of a text: a heading, a paragraph, an item of a list, a row of a table, code.

    Attributes:
        kind: "h1" to "h6", "h7" (a term or a summary), "li", "tr", "pre", or "" for a paragraph.
        text: Without marks.
        page: Number of its page or slide, from 1; None if there are none.
    """

    kind: str
    text: str
    page: int | None = None


class Link(NamedTuple):
    """The words of a link, and where it leads: an address, or the key of a document of the same source."""

    text: str
    target: str


@dataclass(frozen=True, slots=True)
class Plain:
    """What a file says: its text, its title if it has one, its structure, and what it says of itself."""

    text: str
    title: str | None = None
    sections: tuple[Section, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])


def assemble(
    pieces: Iterable[Piece], title: str | None = None, metadata: Mapping[str, Any] | None = None
) -> Plain:
    """Joins pieces: an empty line between blocks, none between the items of a list and the rows of a table.

    Code keeps its lines as they are. A section begins with each heading and each page; without headings and pages
    there are none.
    """
    parts: list[str] = []
    sections: list[Section] = []
    path: list[tuple[int, str]] = []
    size, before = 0, None
    for piece in pieces:
        text = _tidy(piece)
        if not text:
            continue
        if before is not None:
            parts.append("\n" if before == piece.kind and before in ("li", "tr") else "\n\n")
            size += len(parts[-1])
        level = _LEVELS.get(piece.kind)
        if level:
            path = [*((above, words) for above, words in path if above < level), (level, squeeze(text))]
        if level or not sections or piece.page != sections[-1].page:
            sections.append(Section(size, tuple(words for _, words in path), piece.page))
        parts.append(text)
        size, before = size + len(text), piece.kind
    structured = any(section.headings or section.page is not None for section in sections)
    return Plain("".join(parts), title, tuple(sections) if structured else (), metadata or {})


def _tidy(piece: Piece) -> str:
    """The text of a piece without blanks at ends of lines and without blank lines but those inside code."""
    lines = [line.rstrip() for line in piece.text.split("\n")]
    if piece.kind == "pre":
        return "\n".join(lines).strip("\n")
    return "\n".join(line for line in map(squeeze, lines) if line)


def plain_text(text: str) -> Plain:
    """A text as it is; lines underlined by a row of signs are its headings, the first kind of sign the highest."""
    text = text.strip()
    levels: dict[str, int] = {}
    path: list[tuple[int, str]] = []
    sections: list[Section] = []
    for match in _UNDERLINED.finditer(text):
        level = levels.setdefault(match[2], len(levels))
        path = [*((above, words) for above, words in path if above < level), (level, squeeze(match[1]))]
        sections.append(Section(match.start(), tuple(words for _, words in path)))
    if sections and sections[0].start:
        sections.insert(0, Section(0))
    return Plain(text, None, tuple(sections))


def plain_html(html: str) -> Plain:
    """The text of a page without what stands around it: navigation, header and footer, table of contents.

    Scripts, styles, templates, form choices and elements with the attribute ``hidden`` are left out. The title is that
    of the head, or the first ``<h1>`` if there is none or the head's says the same with more words.

    Args:
        html: A page or a part of one; HTML has no errors, so any text is accepted.
    """
    root = parse_html(html)
    if root is None:
        return Plain("")
    pieces = _page_pieces(root)
    head = root.css_first("head > title")
    title = "" if head is None else squeeze(head.text())
    heading = next((squeeze(node.text()) for node in root.css("h1") if node.text().strip()), "")
    if heading and heading in title:
        title = heading
    return assemble(pieces, title or heading or None, _head_metadata(root))


def page_pieces(html: str) -> list[Piece]:
    """The blocks of a page without what stands around its text."""
    root = parse_html(html)
    return [] if root is None else _page_pieces(root)


def _page_pieces(root: LexborNode) -> list[Piece]:
    pieces = [piece for piece in html_pieces(root, _is_around) if isinstance(piece, Piece)]
    # A page of links only is all navigation.
    return pieces or [piece for piece in html_pieces(root) if isinstance(piece, Piece)]


def _head_metadata(root: LexborNode) -> dict[str, Any]:
    """Language, author and date of a page, where it says them."""
    node = root.css_first("html")
    found = {"lang": (node.attributes.get("lang") if node else None) or ""}
    for key, names in _META.items():
        values = (meta_content(root, name) for name in names)
        found[key] = next((value for value in values if value), "")
    return {key: value.strip() for key, value in found.items() if value.strip()}


def meta_content(root: LexborNode, name: str) -> str:
    """What a page's ``<meta>`` of some name says, or ``""``."""
    node = root.css_first(f'meta[name="{name}"], meta[property="{name}"]')
    return squeeze((node.attributes.get("content") if node else None) or "")


def parse_html(html: str) -> LexborNode | None:
    """The root of a page; elements nested deeper than 512, as in browsers, lose their tags and keep their text.

    The parser's time grows with the square of the depth, and of the number of a tag's attributes.
    """
    html = html.replace("\0", "")
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


def html_pieces(
    root: LexborNode, is_passed_over: Callable[[LexborNode, str], bool] | None = None
) -> Iterator[Piece | Link]:
    """The blocks of a page and the links in them, in order; a link comes before the block that it stands in.

    Goes through the page by a list, as pages are nested deeper than Python's stack.

    Args:
        root: Of the page.
        is_passed_over: Whether an element with its tag is left out, besides those that are never seen.
    """
    words: list[str] = []
    kinds = [""]
    stack: list[LexborNode | None] = [root]  # None: a block ends
    while stack:
        node = stack.pop()
        if node is None:
            yield from _flush(words, kinds.pop())
            continue
        tag = node.tag or ""
        if tag == "-text":
            content = node.text_content or ""
            words.append(content if kinds[-1] == "pre" else BLANKS.sub(" ", content))
        if tag.startswith("-") or tag in UNSEEN or "hidden" in node.attributes:
            continue
        if is_passed_over is not None and is_passed_over(node, tag):
            continue
        if tag == "br":
            words.append("\n")
        elif tag in CELLS:
            words.append(" ")
        elif tag not in INLINE:
            yield from _flush(words, kinds[-1])
            kinds.append(_KINDS.get(tag, kinds[-1]))
            stack.append(None)
        elif tag == "a":
            target, name = node.attributes.get("href"), squeeze(node.text())
            if target and name:
                yield Link(name, target)
        stack.extend(reversed(list(node.iter(include_text=True))))
    yield from _flush(words, kinds[-1])


def _flush(words: list[str], kind: str) -> Iterator[Piece]:
    text = "".join(words)
    words.clear()
    if kind != "pre":
        text = "\n".join(squeeze(line) for line in text.split("\n")).strip()
    if text.strip():
        yield Piece(kind, squeeze(text) if kind.startswith("h") else text)


def _is_around(node: LexborNode, tag: str) -> bool:
    """Whether an element stands around the text of a page, and is no part of it."""
    if tag in ("nav", "button"):
        return True
    if tag in ("header", "footer"):  # of the page, not of an article in it
        parent = node.parent
        while parent is not None:
            if parent.tag in ("article", "main", "section"):
                return False
            parent = parent.parent
        return True
    if tag not in _CONTAINERS:
        return False
    attributes = node.attributes
    if tag == "a" and (attributes.get("href") or "").startswith("#"):
        words = node.text().strip().lower()
        if words in _MARKS or words.startswith("skip to "):
            return True
    if attributes.get("role") in _ROLES:
        return True
    names = {*(attributes.get("class") or "").lower().split(), (attributes.get("id") or "").lower()}
    return not names.isdisjoint(_AROUND) or names >= {"contents", "topic"}


def plain_markdown(markdown: str) -> Plain:
    """The text of CommonMark with tables, without its marks; front matter becomes metadata.

    Code is kept, an image gives its alternative text, embedded HTML its visible text. The title is the front
    matter's, else the first heading of the first level.
    """
    front = front_matter(markdown)
    pieces = [piece for piece in markdown_pieces(front.body) if isinstance(piece, Piece)]
    heading = next((squeeze(piece.text) for piece in pieces if piece.kind == "h1"), "")
    return assemble(pieces, front.title or heading or None, front.metadata)


def markdown_pieces(
    markdown: str, embedded: Callable[[str], Iterable[Piece | Link]] | None = None
) -> Iterator[Piece | Link]:
    """The blocks of CommonMark without front matter, and the links in them; the cells of a row are one block.

    Args:
        markdown: The text.
        embedded: Gives the blocks of a piece of HTML; None: `html_pieces`.
    """
    kinds, row = [""], list[str]()
    for token in markdown_parser().parse(markdown):
        if token.type in ("fence", "code_block"):
            yield Piece("pre", token.content.strip("\n"))
        elif token.type == "html_block" and embedded:
            yield from embedded(token.content)
        elif token.type == "html_block":
            root = parse_html(token.content)
            yield from () if root is None else html_pieces(root)
        elif token.type == "inline":
            text = inline_text(token.children or [])
            yield from _markdown_links(token.children or [])
            if kinds[-1] == "tr":
                row.append(text)
            else:
                yield Piece(kinds[-1], text)
        elif token.nesting == 1:
            kinds.append(_KINDS.get(token.tag, kinds[-1]))
        elif token.nesting == -1:
            kinds.pop()
            if token.tag == "tr":
                yield Piece("tr", " ".join(row))
                row.clear()


def _markdown_links(children: Sequence[Token]) -> Iterator[Link]:
    start, target = None, ""
    for place, child in enumerate(children):
        if child.type == "link_open":
            start, target = place + 1, str(child.attrGet("href") or "")
        elif child.type == "link_close" and start is not None:
            words = squeeze(inline_text(children[start:place]))
            if words and target:
                yield Link(words, target)
            start = None


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


class FrontMatter(NamedTuple):
    """What stands before a Markdown text, and the text.

    Attributes:
        title: The title, or None.
        metadata: All other entries, as JSON can hold them; dates as in ISO 8601. Empty if they cannot be read.
        body: The text after it.
    """

    title: str | None
    metadata: Mapping[str, Any]
    body: str


def front_matter(markdown: str) -> FrontMatter:
    """Splits YAML (``---``) or TOML (``+++``) front matter off, but no text between two thematic breaks."""
    match = _FRONT_MATTER.match(markdown)
    lines = match[2].splitlines() if match else []
    if match is None or not any(map(_FRONT_ENTRY.match, lines)):
        return FrontMatter(None, {}, markdown)
    if not all(_FRONT_ENTRY.match(line) or _FRONT_OTHER.match(line) for line in lines):
        return FrontMatter(None, {}, markdown)
    title = _FRONT_TITLE.search(match[2])
    name = title[1].strip("\"'") or None if title else None
    entries = _entries(match[2], is_toml=match[1] == "+++")
    return FrontMatter(name, entries, markdown[match.end() :])


def _entries(front: str, *, is_toml: bool) -> dict[str, Any]:
    import tomllib

    import yaml

    if len(front) > _FRONT_CHARS:
        return {}
    try:
        read: Any = tomllib.loads(front) if is_toml else yaml.safe_load(front)
        value = _as_json(read, Counter())
    except (ValueError, yaml.YAMLError, RecursionError):
        return {}
    entries = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    entries.pop("title", None)
    if "lang" not in entries and isinstance(entries.get("language"), str):
        entries["lang"] = entries.pop("language")
    return entries


def _as_json(value: Any, seen: Counter[str]) -> Any:
    """A value of YAML or TOML as JSON can hold it; what it cannot hold becomes None and is left out of mappings."""
    seen["values"] += 1
    if seen["values"] > _FRONT_VALUES:  # an alias of an alias of an alias …
        raise ValueError("more values than front matter has")
    if isinstance(value, dict):
        made = {str(key): _as_json(one, seen) for key, one in cast("dict[Any, Any]", value).items()}
        return {key: one for key, one in made.items() if one is not None}
    if isinstance(value, list | tuple | set):
        made = (_as_json(one, seen) for one in cast("list[Any]", value))
        return [one for one in made if one is not None]
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | bool | int) else None


@cache
def markdown_parser() -> MarkdownIt:
    """The parser of all Markdown: CommonMark with tables and strikethrough."""
    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def squeeze(text: str) -> str:
    """A text on one line, with single blanks."""
    return " ".join(text.split())
