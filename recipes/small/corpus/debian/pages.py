"""LibreOffice help and GNOME help: pages whose paragraphs are the same in every language."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lxml import etree, html  # pyright: ignore[reportAttributeAccessIssue]

from corpus.clean import tidy

Record = dict[str, Any]
_MALLARD = "{http://projectmallard.org/1.0/}"
_PARAGRAPHS = ".//h1|.//h2|.//h3|.//h4|.//h5|.//p"


def libreoffice(roots: Iterable[Path]) -> Iterator[Record]:
    """Pages of libreoffice-help-*; a paragraph's id says which it is, the index entries are keywords."""
    pages: dict[str, dict[str, tuple[str, list[str], dict[str, tuple[str, str]]]]] = {}
    for root in roots:
        for folder in sorted((root / "usr/share/libreoffice/help").glob("*/text")):
            for path in sorted(folder.rglob("*.html")):
                page = _help_page(path)
                if page:
                    key = path.relative_to(folder).with_suffix("").as_posix()
                    pages.setdefault(key, {})[folder.parent.name] = page
    for key, languages in sorted(pages.items()):
        order = _order(
            [page[2] for _, page in sorted(languages.items(), key=lambda each: each[0] != "en-US")]
        )
        english = {name: text for name, (_, text) in languages.get("en-US", ("", [], {}))[2].items()}
        for lang, (title, keywords, paragraphs) in sorted(languages.items()):
            blocks = [
                [order[name], "" if kind == "p" else kind, text]
                for name, (kind, text) in paragraphs.items()
                if lang == "en-US" or len(text) <= 20 or english.get(name) != text
            ]
            if blocks:
                record = {"s": "lo", "k": key, "l": _english(lang), "t": title}
                yield record | ({"kw": keywords} if keywords else {}) | {"p": sorted(blocks)}


def _help_page(path: Path) -> tuple[str, list[str], dict[str, tuple[str, str]]] | None:
    raw = path.read_text(encoding="utf-8")
    if '<div id="DisplayArea"' not in raw:
        return None
    tree = html.document_fromstring(raw.encode(), parser=html.HTMLParser(encoding="utf-8"))
    area = tree.get_element_by_id("DisplayArea")
    keywords = [tidy(each) for each in area.xpath('.//meta[@itemprop="keywords"]/@content')]
    paragraphs: dict[str, tuple[str, str]] = {}
    for element in area.xpath(_PARAGRAPHS):
        text = tidy(element.text_content()).replace("\n", " ")
        if element.get("id") and text:
            paragraphs.setdefault(element.get("id"), (element.tag, text))
    title = tidy(tree.findtext(".//title") or "").replace("\n", " ")
    return (title, keywords, paragraphs) if paragraphs else None


def _order(pages: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """A number for each paragraph id: its place in English, then in the languages that have it besides."""
    names = dict.fromkeys(name for page in pages for name in page)
    return {name: number for number, name in enumerate(names)}


def gnome(roots: Iterable[Path]) -> Iterator[Record]:
    """Pages of gnome-user-docs (Mallard); the n-th paragraph is the same in every language."""
    for root in roots:
        help_ = root / "usr/share/help"
        english = {
            path.relative_to(help_ / "C").with_suffix("").as_posix(): _mallard(path)
            for path in sorted((help_ / "C").glob("*/*.page"))
        }
        for folder in sorted(help_.iterdir()):
            for path in sorted(folder.glob("*/*.page")):
                key = path.relative_to(folder).with_suffix("").as_posix()
                record = _page(key, folder.name, _mallard(path), english.get(key))
                if record:
                    yield record


_Mallard = tuple[str, str, list[list[Any]]]


def _page(key: str, lang: str, page: _Mallard | None, english: _Mallard | None) -> Record | None:
    """A page without the paragraphs that were left in English; None if its title was."""
    if page is None:
        return None
    title, description, blocks = page
    if lang != "C" and english:
        same = {number: text for number, _, text in english[2]}
        blocks = [block for block in blocks if len(block[2]) <= 15 or same.get(block[0]) != block[2]]
        if title == english[0] and len(title) > 15:
            return None
    if sum(len(block[2]) for block in blocks) <= 40:
        return None
    return {"s": "gnome", "k": key, "l": _english(lang), "t": title, "d": description, "p": blocks}


def _mallard(path: Path) -> _Mallard | None:
    """Title, description and blocks of a page."""
    try:
        tree = etree.parse(path, etree.XMLParser(resolve_entities=False, recover=True)).getroot()
    except (etree.XMLSyntaxError, OSError):
        return None
    title, description = tree.find(f"{_MALLARD}title"), tree.find(f"{_MALLARD}info/{_MALLARD}desc")
    blocks: list[list[Any]] = []
    for number, element in enumerate(tree.iter(f"{_MALLARD}p", f"{_MALLARD}title")):
        inside = any(parent.tag == f"{_MALLARD}info" for parent in element.iterancestors())
        text = _text(element)
        if text and not inside and element is not title:
            blocks.append([number, "h2" if element.tag == f"{_MALLARD}title" else "", text])
    return _text(title), _text(description), blocks


def _text(element: Any) -> str:
    return "" if element is None else tidy("".join(element.itertext())).replace("\n", " ")


def _english(lang: str) -> str:
    return "en" if lang in ("C", "en-US") else lang
