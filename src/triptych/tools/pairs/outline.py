"""The structure of Markdown, HTML and plain text: headings, paragraphs, lists, questions, links."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, cast

from markdown_it.token import Token
from selectolax.lexbor import LexborNode

from triptych.markup import (
    BLANKS,
    CELLS,
    INLINE,
    UNSEEN,
    front_matter,
    inline_text,
    markdown_parser,
    parse_html,
    plain_html,
    squeeze,
)
from triptych.tools.pairs.base import Block, Link

_AROUND = frozenset(("nav", "footer", "aside", "form", "button", "menu"))  # of a page, not of its text
# Elements that give their kind to the text in them; all others leave it as it is around them.
_KINDS = {f"h{level}": f"h{level}" for level in range(1, 7)} | {
    "dt": "h7",
    "summary": "h7",
    "li": "li",
    "pre": "pre",
    "tr": "tr",
    "dd": "",
}
_UNDERLINE = re.compile(r"(=|-|~|\^|\*|#)\1{2,}\s*")
_UNDERLINE_LEVELS = "#*=-~^"
_ITEM = re.compile(r"(?:[-*•‣·–]|\d{1,3}[.)])\s+")
_TITLE_CHARS = 120
_DEPTH = 20  # of JSON-LD that is looked into


class Outline(NamedTuple):
    """What a file says of its own structure; links lead where they were written to.

    Attributes:
        title: ``""`` if there is none.
        blocks: Numbered in their order.
        links: Words and address of each link.
        lang: ``""`` if it is not said.
        description: ``""`` if there is none.
        keywords: Those of the head.
    """

    title: str
    blocks: tuple[Block, ...]
    links: tuple[Link, ...] = ()
    lang: str = ""
    description: str = ""
    keywords: tuple[str, ...] = ()


def html_outline(html: str) -> Outline:
    """The outline of a page; what stands around its text (``nav``, ``footer``, …) is left out.

    The terms of ``dl`` and the summaries of ``details`` are headings of level 7. Questions and answers that a
    page declares for search engines (schema.org's FAQPage) come last. Any text is accepted.
    """
    root = parse_html(html)
    if root is None:
        return Outline("", ())
    walk = _HtmlWalk()
    walk.run(root)
    texts = walk.texts + list(_declared_questions(root))
    title = root.css_first("head > title")
    heading = next((text for kind, text in texts if kind == "h1"), "")
    html_node = root.css_first("html")
    lang = (html_node.attributes.get("lang") if html_node else None) or ""
    keywords = tuple(word.strip() for word in _meta(root, "keywords").split(",") if word.strip())
    return Outline(
        ("" if title is None else squeeze(title.text())) or heading,
        _numbered(texts),
        tuple(walk.links),
        lang.strip(),
        _meta(root, "description"),
        keywords,
    )


def markdown_outline(markdown: str) -> Outline:
    """The outline of CommonMark with tables; the title is the front matter's, else the first heading's."""
    title, body = front_matter(markdown)
    texts: list[tuple[str, str]] = []
    links: list[Link] = []
    for found in _markdown_parts(markdown_parser().parse(body)):
        if isinstance(found, Link):
            links.append(found)
        else:
            texts.append(found)
    heading = next((text for kind, text in texts if kind == "h1"), "")
    return Outline(title or squeeze(heading), _numbered(texts), tuple(links))


def _markdown_parts(tokens: Sequence[Token]) -> Iterator[tuple[str, str] | Link]:
    """Kinds and texts of the blocks, and the links among them; the cells of a row are one block."""
    kinds, row = [""], list[str]()
    for token in tokens:
        if token.type in ("fence", "code_block"):
            yield "pre", token.content.strip("\n")
        elif token.type == "html_block":
            inner = html_outline(token.content)
            yield from ((block.kind, block.text) for block in inner.blocks)
            yield from inner.links
        elif token.type == "inline":
            text = inline_text(token.children or [])
            yield from _markdown_links(token.children or [])
            if kinds[-1] == "tr":
                row.append(text)
            else:
                yield kinds[-1], text
        elif token.nesting == 1:
            kinds.append(_KINDS.get(token.tag, kinds[-1]))
        elif token.nesting == -1:
            kinds.pop()
            if token.tag == "tr":
                yield "tr", " ".join(row)
                row.clear()


def text_outline(text: str) -> Outline:
    """The outline of plain text: paragraphs between blank lines, underlined headings, items with bullets.

    A first paragraph of one line that is no sentence is the title.
    """
    texts: list[tuple[str, str]] = []
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        texts += _text_parts(part.strip("\n").split("\n"))
    title = ""
    if len(texts) > 1:
        kind, first = texts[0]
        if kind.startswith("h") or (kind == "" and "\n" not in first and _is_title(first)):
            title, texts[0] = first, ("h1", first)
    return Outline(title, _numbered(texts))


def _text_parts(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    if len(lines) >= 2 and _UNDERLINE.fullmatch(lines[1].strip()) and lines[0].strip():
        yield f"h{1 + _UNDERLINE_LEVELS.index(lines[1].strip()[0])}", lines[0].strip()
        lines = lines[2:]
    gathered: list[str] = []
    kind = ""
    for line in lines:
        item = _ITEM.match(line.strip())
        if item:
            yield kind, " ".join(gathered)
            gathered, kind = [], "li"
        gathered.append(line.strip()[item.end() if item else 0 :].strip())
    yield kind, " ".join(gathered)


def _is_title(line: str) -> bool:
    return len(line) <= _TITLE_CHARS and not line.rstrip().endswith((".", "。", "!", ":", ",", "।"))


def _numbered(texts: Sequence[tuple[str, str]]) -> tuple[Block, ...]:
    filled = [(kind, text.strip()) for kind, text in texts if text.strip()]
    return tuple(Block(number, kind, text) for number, (kind, text) in enumerate(filled))


class _HtmlWalk:
    """Goes through a page once, by a list, as pages are nested deeper than Python's stack."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []
        self.links: list[Link] = []
        self._pieces: list[str] = []
        self._kinds = [""]

    def run(self, root: LexborNode) -> None:
        """Collects the texts of blocks with their kinds, and the links."""
        stack: list[LexborNode | None] = [root]  # None: a block ends
        while stack:
            node = stack.pop()
            if node is None:
                self._flush()
                self._kinds.pop()
                continue
            tag = node.tag or ""
            if tag == "-text":
                content = node.text_content or ""
                self._pieces.append(content if self._kinds[-1] == "pre" else BLANKS.sub(" ", content))
            if self._is_passed_over(node, tag):
                continue
            if tag == "br":
                self._pieces.append("\n")
            elif tag in CELLS:
                self._pieces.append(" ")
            elif tag not in INLINE:
                self._flush()
                self._kinds.append(_KINDS.get(tag, self._kinds[-1]))
                stack.append(None)
            elif tag == "a":
                self._link(node)
            stack.extend(reversed(list(node.iter(include_text=True))))
        self._flush()

    def _is_passed_over(self, node: LexborNode, tag: str) -> bool:
        attributes = node.attributes
        return (
            tag.startswith("-")
            or tag in UNSEEN
            or tag in _AROUND
            or "hidden" in attributes
            or attributes.get("role") in ("navigation", "banner", "contentinfo")
        )

    def _flush(self) -> None:
        text = "".join(self._pieces)
        self._pieces.clear()
        kind = self._kinds[-1]
        if kind != "pre":
            text = "\n".join(squeeze(line) for line in text.split("\n")).strip()
        if text.strip():
            self.texts.append((kind, squeeze(text) if kind.startswith("h") else text))

    def _link(self, node: LexborNode) -> None:
        target, words = node.attributes.get("href"), squeeze(node.text())
        if target and words:
            self.links.append(Link(words, target))


def _meta(root: LexborNode, name: str) -> str:
    node = root.css_first(f'meta[name="{name}"]')
    return squeeze((node.attributes.get("content") if node else None) or "")


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


def _declared_questions(root: LexborNode) -> Iterator[tuple[str, str]]:
    """Questions (as headings of level 7) and answers of a page's JSON-LD; what is broken there is passed over."""
    for script in root.css('script[type="application/ld+json"]'):
        try:
            value: Any = json.loads(script.text())
        except (ValueError, RecursionError):
            continue
        for question, answer in _questions_of(value, _DEPTH):
            yield "h7", squeeze(plain_html(question).text)
            yield "", plain_html(answer).text


def _questions_of(value: Any, depth: int) -> Iterator[tuple[str, str]]:
    if depth == 0:
        return
    if isinstance(value, list):
        for each in cast("list[Any]", value):
            yield from _questions_of(each, depth - 1)
    elif isinstance(value, dict):
        match cast("dict[str, Any]", value):
            case {"@type": "Question", "name": str() as name, "acceptedAnswer": {"text": str() as text}}:
                yield name, text
            case mapping:
                for each in mapping.values():
                    yield from _questions_of(each, depth - 1)
