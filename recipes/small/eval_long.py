"""Test sets of short queries on whole long documents.

A document is long from `LONG` bytes of UTF-8, which is about 600 to 2,000 tokens. All long documents are searched;
asked for are those whose key is held out from training (`qa_split`: one key in ten), one half of them for
development and one half for the test. A query is a title, heading, keyword or description; where the document
repeats it in a line of its own, that line is taken out.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import py3langid

from eval_folder import TestSet, Text
from qa_split import DEVELOPMENT
from triptych.text import digest

LONG = 6000
SOURCES = ("handbook", "iguide", "dref", "man", "lo", "gnome", "sky")
MOST_QUERIES = 5
"""Of a document, so that a chapter with a hundred headings does not outweigh the others."""

_BOILERPLATE = {"Download the ebook"}
_NUMBER = re.compile(
    r"^(?:第\s*\d+\s*章|(?:[^\W\d]+\s*)?(?:\d+|[A-Z])(?:\.\d+)*\.)\s*|^付録\s*[A-Z]\s*|^附录\s*[A-Z]\s*"
)
_DIRECTION = re.compile("[\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
_NAME = re.compile(r"^[^\n]*?\s(?:-|–|—)\s+(?P<what>[^\n]+)")
_LATIN = {
    "en",
    "de",
    "fr",
    "es",
    "it",
    "pt",
    "pt_BR",
    "nl",
    "nb",
    "da",
    "sv",
    "fi",
    "pl",
    "cs",
    "sk",
    "hu",
    "ro",
}
_LATIN |= {"hr", "ca", "gl", "tr", "vi", "id"}
_SPACELESS = {"ja", "zh_CN", "zh_TW", "ko"}


@dataclass(frozen=True, slots=True)
class Page:
    """A document: its paragraphs as (kind, text), and what may be asked for."""

    id: str
    source: str
    key: str
    language: str
    title: str
    paragraphs: tuple[tuple[str, str], ...]
    keywords: tuple[str, ...]
    description: str

    @property
    def is_long(self) -> bool:
        """Whether it has `LONG` bytes of text."""
        return sum(len(text.encode()) for _, text in self.paragraphs) >= LONG

    @property
    def held_out(self) -> int:
        """What the key's number leaves when it is divided by twice `DEVELOPMENT`."""
        return digest(f"{self.source}\t{self.key}") % (2 * DEVELOPMENT)


def pages(records: Iterable[Mapping[str, Any]]) -> list[Page]:
    """The documents of `SOURCES`, long or not, of records ``s k l t p`` with, perhaps, ``kw`` and ``d``."""
    found: list[Page] = []
    for record in records:
        if record["s"] not in SOURCES:
            continue
        paragraphs = tuple(
            (kind, text.strip()) for _, kind, text in record["p"] if text.strip() and text not in _BOILERPLATE
        )
        language = record["l"].replace("-", "_")
        id_ = f"{record['s']}/{record['k']}/{language}"
        keywords, description = tuple(record.get("kw", ())), record.get("d", "")
        found.append(
            Page(id_, record["s"], record["k"], language, record["t"], paragraphs, keywords, description)
        )
    return found


def build(
    found: Sequence[Page], most: int | None
) -> tuple[list[Text], list[Text], list[TestSet], dict[str, Any]]:
    """Documents, queries, sets, and the excluded documents.

    Excluded are the document in other languages, and others of the same language that share most of its text.

    Args:
        found: Documents; the long ones are taken, the others tell which headings are too common to ask for.
        most: Queries of a set, chosen by digest; None: all.
    """
    everything, found = found, [page for page in found if page.is_long]
    asked = _asked([page for page in found if page.held_out % DEVELOPMENT == 0], everything)
    documents = [_document(page, asked.get(page.id, {})) for page in found]
    alike = _alike(found)
    same_key: dict[tuple[str, str], list[str]] = defaultdict(list)
    for page in found:
        same_key[page.source, page.key].append(page.id)
    queries: list[Text] = []
    relevant: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(dict)
    excluded: dict[str, list[str]] = {}
    for page in found:
        for number, (_, text) in enumerate(asked.get(page.id, {}).items()):
            id_ = f"{page.id}/{number}"
            queries.append(Text(id_, text, {"set": page.source, "lang": page.language}))
            split = "dev" if page.held_out == 0 else "test"
            relevant[split, page.language][id_] = [page.id]
            others = {*same_key[page.source, page.key], *alike.get(page.id, ())} - {page.id}
            excluded[id_] = sorted(others)
    sets = [
        TestSet("long", language, split, "long", _sampled(judged, most), "long")
        for (split, language), judged in sorted(relevant.items())
    ]
    return documents, queries, sets, {"long": excluded}


def _sampled(judged: dict[str, list[str]], most: int | None) -> dict[str, list[str]]:
    return {query: judged[query] for query in sorted(sorted(judged, key=digest)[:most])}


def _asked(held_out: Sequence[Page], found: Sequence[Page]) -> dict[str, dict[str, str]]:
    """Of each page that is held out: its queries, by their folded form."""
    candidates = {page.id: _fold(_candidates(page)) for page in found}
    owners: Counter[tuple[str, str]] = Counter()
    english: dict[tuple[str, str], set[str]] = defaultdict(set)
    for page in found:
        owners.update((page.language, folded) for folded in candidates[page.id])
        if page.language == "en":
            english[page.source, page.key] = set(candidates[page.id])
    asked: dict[str, dict[str, str]] = {}
    for page in held_out:
        good = {
            folded: text
            for folded, text in candidates[page.id].items()
            if owners[page.language, folded] == 1
            and (page.language == "en" or folded not in english[page.source, page.key])
            and _is_query(text, page.language)
        }
        chosen = sorted(good, key=digest)[:MOST_QUERIES]
        asked[page.id] = {folded: good[folded] for folded in chosen}
    return asked


def _candidates(page: Page) -> Iterator[str]:
    if page.source == "man":
        found = _described(page)
        # Many are not translated.
        if found and (page.language == "en" or py3langid.classify(found[1])[0] != "en"):
            yield found[1]
        return
    yield from (page.title, page.description)
    yield from (re.sub(r"\s*,\s*", ", ", keyword) for keyword in page.keywords)
    if page.source != "lo":  # its headings are names of dialogue fields
        yield from (text for kind, text in page.paragraphs if kind)


def _described(page: Page) -> tuple[int, str] | None:
    """Where a manual page says in a line what it is on (the first paragraph under a heading), and the line."""
    for place, (kind, text) in enumerate(page.paragraphs[:4]):
        if not kind and (match := _NAME.match(text)):
            return place, match["what"]
    return None


def _fold(texts: Iterable[str]) -> dict[str, str]:
    return {folded(text): clean(text) for text in texts if clean(text)}


def clean(text: str) -> str:
    """A heading without its number and without marks of direction."""
    return _NUMBER.sub("", " ".join(_DIRECTION.sub("", text).split())).strip()


def folded(text: str) -> str:
    """What two copies of a heading share."""
    return clean(text).casefold().rstrip(".:")


def _is_query(text: str, language: str) -> bool:
    """Whether a text is long enough to ask for something, and in the script of its language."""
    letters = [char for char in text if char.isalpha()]
    if len(text) > 200 or len(letters) < (4 if language in _SPACELESS else 8) or "\\" in text:
        return False
    if language in _LATIN:
        return len(text.split()) > 1
    foreign = sum(char.isascii() for char in letters)
    return foreign * 2 < len(letters)


def _document(page: Page, asked: Mapping[str, str]) -> Text:
    """The text of a page, without the lines that are queries."""
    described = _described(page) if page.source == "man" else None
    lines = [page.title] if page.source == "gnome" else []
    for place, (_, text) in enumerate(page.paragraphs):
        if described and place == described[0] and folded(described[1]) in asked:
            text = text.replace(described[1], "")
        lines += text.split("\n")
    left = [line for line in lines if line.strip() and folded(line) not in asked]
    return Text(page.id, "\n".join(left), {"set": page.source, "lang": page.language})


def _alike(found: Sequence[Page], least: int = 60, share: float = 0.5) -> dict[str, list[str]]:
    """Pages of one language that share so large a part of the smaller one's text, counted in longer paragraphs."""
    holders: dict[tuple[str, str], set[str]] = defaultdict(set)
    size: Counter[str] = Counter()
    for page in found:
        for text in {text for kind, text in page.paragraphs if not kind and len(text) >= least}:
            holders[page.language, text].add(page.id)
            size[page.id] += len(text)
    common: Counter[tuple[str, str]] = Counter()
    for (_, text), ids in holders.items():
        common.update({(one, other): len(text) for one in ids for other in ids if one != other})
    alike: dict[str, list[str]] = defaultdict(list)
    for (one, other), letters in common.items():
        if letters >= share * min(size[one], size[other]):
            alike[one].append(other)
    return alike
