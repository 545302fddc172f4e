"""The Debian books (installation guide, administrator's handbook, reference) and Stellarium's sky cultures: HTML."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from lxml import html

from corpus.clean import tidy

Record = dict[str, Any]
_BLOCK = frozenset(
    re.findall(
        r"\w+",
        "p li dd dt td th pre h1 h2 h3 h4 h5 h6 blockquote div ul ol dl table tr body section "
        "article tbody br",
    )
)
_SKIPPED = frozenset(
    re.findall(
        r"\w+",
        "script style head nav header footer",
    )
)
_NAVIGATION = re.compile(r"nav(?:header|footer)|toc\b|docnav|titlepage-hide|index")
_HEADING = re.compile(r"h[1-6]")
_LEAST = 80  # characters of a page


class _Page(NamedTuple):
    source: str
    key: str
    lang: str
    path: Path


def books(roots: Iterable[Path]) -> Iterator[Record]:
    """A record for each page of each book; a block is a section, a line of it a paragraph.

    Paragraphs of a translation that stand in the English book word for word are left out.
    """
    pages = sorted(page for root in roots for page in _pages(root) if not page.path.is_symlink())
    parsed = {page: sections(page.path.read_text(encoding="utf-8", errors="replace")) for page in pages}
    english: dict[str, set[str]] = {}
    for page, (_, found) in parsed.items():
        if page.lang == "en":
            known = english.setdefault(page.source, set())
            known.update(line for _, _, lines in found for line in lines if len(line) > 25)
    for page, (title, found) in parsed.items():
        known = set[str]() if page.lang == "en" else english.get(page.source, set())
        kept = [(level, heading, [x for x in lines if x not in known]) for level, heading, lines in found]
        blocks: list[list[Any]] = []
        for number, (level, heading, lines) in enumerate(section for section in kept if section[2]):
            if level or heading:
                blocks.append([number, f"h{level or 1}", heading])
            blocks.append([number, "", "\n".join(lines)])
        if sum(len(text) for _, kind, text in blocks if not kind) > _LEAST:
            yield {"s": page.source, "k": page.key, "l": page.lang, "t": title, "p": blocks}


def _pages(root: Path) -> Iterator[_Page]:
    guide = root / "usr/share/doc/installation-guide-amd64"
    for path in guide.glob("*/*.html"):
        yield _Page("iguide", path.stem, _code(path.parent.name), path)
    handbook = root / "usr/share/doc/debian-handbook/html"
    for path in handbook.glob("*/*.html"):
        yield _Page("handbook", path.stem, _code(path.parent.name), path)
    for path in (root / "usr/share/debian-reference").glob("*.html"):
        match = re.fullmatch(r"(.*)\.([a-zA-Z-]+)", path.stem)
        if match:
            yield _Page("dref", match[1], _code(match[2]), path)
    for path in (root / "usr/share/stellarium/skycultures").glob("*/description.*.utf8"):
        yield _Page("sky", path.parent.name, _code(path.name.split(".")[1]), path)


def _code(name: str) -> str:
    name = name.replace("_", "-")
    region = {"en-US": "en", "zh-cn": "zh-CN", "zh-tw": "zh-TW", "pt-br": "pt-BR"}
    name = region.get(name, name)
    language, _, country = name.partition("-")
    return name if name in ("zh-CN", "zh-TW", "pt-BR") or not country else language


def sections(raw: str) -> tuple[str, list[tuple[int, str, list[str]]]]:
    """The title of an HTML page, and of each section the level, the heading and the paragraphs."""
    raw = re.sub(r"^\s*<\?xml[^>]*\?>", "", raw)
    if not raw.strip():
        return "", []
    tree = html.document_fromstring(raw.encode(), parser=html.HTMLParser(encoding="utf-8"))
    title = " ".join(tidy(tree.findtext(".//title") or "").split())
    body = tree.find(".//body")
    found: list[tuple[int, str, list[str]]] = []
    current = (0, title, list[str]())
    for tag, text in _blocks(tree if body is None else body):
        if _HEADING.fullmatch(tag):
            if current[2] or current[1] != title:
                found.append(current)
            current = (int(tag[1]), text, [])
        else:
            current[2].append(text)
    return title, [*found, current]


def _blocks(root: Any) -> list[tuple[str, str]]:
    """Tag and text of the innermost blocks, in order."""
    found: list[tuple[str, str]] = []
    parts: list[str] = []

    def flush(tag: str) -> None:
        text = " ".join(tidy("".join(parts)).split())
        parts.clear()
        if text:
            found.append((tag, text))

    def walk(element: Any, tag: str) -> None:
        if not isinstance(element.tag, str) or element.tag in _SKIPPED:
            return
        if element.tag in ("div", "ul", "table") and _NAVIGATION.search(element.get("class") or ""):
            return
        is_block = element.tag in _BLOCK
        if is_block:
            flush(tag)
            tag = tag if element.tag == "br" else element.tag
        parts.append(element.text or "")
        for child in element:
            walk(child, tag)
            parts.append(child.tail or "")
        if is_block:
            flush(tag)

    walk(root, "p")
    flush("p")
    return found
