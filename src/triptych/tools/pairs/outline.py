"""The structure of Markdown, HTML and plain text: headings, paragraphs, lists, questions, links."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, cast

from selectolax.lexbor import LexborNode

from triptych.markup import (
    Link,
    Piece,
    front_matter,
    html_pieces,
    markdown_pieces,
    meta_content,
    parse_html,
    squeeze,
)
from triptych.tools.pairs.base import Block

_AROUND = frozenset(("nav", "footer", "aside", "form", "button", "menu"))  # of a page, not of its text
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
    texts, links = _sort(_page_parts(root))
    title = root.css_first("head > title")
    heading = next((piece.text for piece in texts if piece.kind == "h1"), "")
    html_node = root.css_first("html")
    lang = (html_node.attributes.get("lang") if html_node else None) or ""
    keywords = tuple(word.strip() for word in meta_content(root, "keywords").split(",") if word.strip())
    return Outline(
        ("" if title is None else squeeze(title.text())) or heading,
        _number(texts),
        links,
        lang.strip(),
        meta_content(root, "description"),
        keywords,
    )


def markdown_outline(markdown: str) -> Outline:
    """The outline of CommonMark with tables; the title is the front matter's, else the first heading's."""
    front = front_matter(markdown)
    texts, links = _sort(markdown_pieces(front.body, _html_parts))
    heading = next((piece.text for piece in texts if piece.kind == "h1"), "")
    return Outline(front.title or squeeze(heading), _number(texts), links)


def _sort(found: Iterable[Piece | Link]) -> tuple[list[Piece], tuple[Link, ...]]:
    texts: list[Piece] = []
    links: list[Link] = []
    for one in found:
        if isinstance(one, Link):
            links.append(one)
        else:
            texts.append(one)
    return texts, tuple(links)


def _page_parts(root: LexborNode) -> Iterator[Piece | Link]:
    yield from html_pieces(root, _is_passed_over)
    yield from _declared_questions(root)


def _html_parts(html: str) -> Iterator[Piece | Link]:
    """The parts of HTML inside Markdown."""
    root = parse_html(html)
    return iter(()) if root is None else _page_parts(root)


def _is_passed_over(node: LexborNode, tag: str) -> bool:
    return tag in _AROUND or node.attributes.get("role") in ("navigation", "banner", "contentinfo")


def text_outline(text: str) -> Outline:
    """The outline of plain text: paragraphs between blank lines, underlined headings, items with bullets.

    A first paragraph of one line that is no sentence is the title.
    """
    texts: list[Piece] = []
    for part in re.split(r"\n\s*\n", text.strip("\n")):
        texts += _text_parts(part.strip("\n").split("\n"))
    title = ""
    if len(texts) > 1:
        kind, first, _ = texts[0]
        if kind.startswith("h") or (kind == "" and "\n" not in first and _is_title(first)):
            title, texts[0] = first, Piece("h1", first)
    return Outline(title, _number(texts))


def _text_parts(lines: Sequence[str]) -> Iterator[Piece]:
    if len(lines) >= 2 and _UNDERLINE.fullmatch(lines[1].strip()) and lines[0].strip():
        yield Piece(f"h{1 + _UNDERLINE_LEVELS.index(lines[1].strip()[0])}", lines[0].strip())
        lines = lines[2:]
    gathered: list[str] = []
    kind = ""
    for line in lines:
        item = _ITEM.match(line.strip())
        if item:
            yield Piece(kind, " ".join(gathered))
            gathered, kind = [], "li"
        gathered.append(line.strip()[item.end() if item else 0 :].strip())
    yield Piece(kind, " ".join(gathered))


def _is_title(line: str) -> bool:
    return len(line) <= _TITLE_CHARS and not line.rstrip().endswith((".", "。", "!", ":", ",", "।"))


def _number(texts: Sequence[Piece]) -> tuple[Block, ...]:
    filled = [(kind, text.strip()) for kind, text, _ in texts if text.strip()]
    return tuple(Block(number, kind, text) for number, (kind, text) in enumerate(filled))


def _declared_questions(root: LexborNode) -> Iterator[Piece]:
    """Questions (as headings of level 7) and answers of a page's JSON-LD; what is broken there is passed over."""
    for script in root.css('script[type="application/ld+json"]'):
        try:
            value: Any = json.loads(script.text())
        except (ValueError, RecursionError):
            continue
        for question, answer in _questions_of(value, _DEPTH):
            yield Piece("h7", squeeze(_visible(question)))
            yield Piece("", _visible(answer))


def _visible(html: str) -> str:
    """The text of a piece of HTML, one line for each block."""
    root = parse_html(html)
    pieces = [] if root is None else _sort(html_pieces(root))[0]
    return "\n".join(piece.text for piece in pieces)


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
