"""Stage 2: weak pairs of all kinds, drawn so that no kind and no pair of languages outweighs the others.

The kinds and the filters are the package's (`triptych.data.mined`); on top of them come pairs whose query is in
another language than the passage: the title, a heading, an index entry or the description of a page with the same page
in another language. What is drawn is filtered; every pair that a filter drops is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations
from typing import Any

from corpus.draw import Draw
from corpus.languages import DENSE, weight
from triptych.text import LanguageCheck, digest, fold, ranker
from triptych.tools.pairs.base import StructuredDocument, Translations, WeakPair
from triptych.tools.pairs.filters import Thresholds, in_its_language, pair_filters
from triptych.tools.pairs.kinds import Limits, body, mine_group, mine_translations
from triptych.tools.pairs.report import PairCounts, PairFilter

ONE_LANGUAGE = (
    "title-body",
    "heading-section",
    "description-body",
    "keyword-body",
    "question-answer",
    "neighbour",
)
CAPS: Mapping[str, int] = {
    "title-body": 3500,
    "heading-section": 4500,
    "description-body": 2500,
    "keyword-body": 4000,
    "question-answer": 2000,
    "neighbour": 1000,
    "title-body-cross": 80,
    "heading-section-cross": 160,
    "description-body-cross": 30,
    "keyword-body-cross": 80,
    "paragraph-translation": 750,
    "document-translation": 60,
    "sentence-translation": 160,
    "term-translation": 50,
}
"""Most pairs of each kind for a language, or for an ordered pair of languages."""
WITH_ENGLISH = 3
"""By how much the caps of translations are higher where one side is English: what most collections start from."""
LISTS = frozenset({"tldr", "man", "dref"})
"""Sources whose paragraphs are items of a list rather: neighbours say little of each other."""
CHECKED = frozenset({"lo", "ntrex", "tatoeba", "wesnoth", "freeciv", "fd", "iso", "cldr"})
"""Sources whose languages need no checking: what was not translated was found by comparing it with the English."""
PASSAGE, DENSE_PASSAGE = 1000, 420
"""Characters of a passage: some 256 tokens."""
_SHORTEST = 24
"""Letters of a paragraph beside its translation, below which it is a label of an interface."""
_RATIO = 2.0
"""How many times as long a paragraph may be as its translation, in comparable letters."""


@dataclass(frozen=True, slots=True)
class Mined:
    """Stage 2.

    Attributes:
        pairs: In an order in which what is alike stands together.
        tally: What was made, drawn, dropped by which filter, and kept.
        offered: How many pairs of each kind there would have been to draw from.
    """

    pairs: Sequence[WeakPair]
    tally: PairCounts
    offered: Mapping[str, int]


def cap(group: tuple[str, str, str]) -> int:
    """Most pairs of a kind and its languages; names are drawn a fourth more, for what filters drop."""
    kind, here, there = group
    factor = WITH_ENGLISH if here != there and "en" in (here, there) else 1
    return CAPS[kind] * factor * 5 // 4


def mine(
    documents: Sequence[StructuredDocument],
    translations: Iterable[Translations],
    kinds: Sequence[str] = tuple(CAPS),
    seed: int = 0,
) -> Mined:
    """Makes, draws and filters.

    Args:
        documents: The training documents.
        translations: Sentences and terms.
        kinds: Which kinds; some at a time need less memory.
        seed: Decides what is drawn.
    """
    draw: Draw[tuple[str, str, str], WeakPair] = Draw(cap)
    seen: set[int] = set()
    for pair in candidates(documents, translations, kinds, seed):
        name = digest(pair.lang, pair.passage_lang, pair.query, pair.passage)
        if name not in seen:
            seen.add(name)
            draw.offer((pair.kind, pair.lang, pair.passage_lang), digest(str(seed), str(name)), pair)
    offered: dict[str, int] = {}
    for (kind, _, _), (_, count) in draw.counts().items():
        offered[kind] = offered.get(kind, 0) + count
    tally = PairCounts()
    check = LanguageCheck(cache(ranker()))

    def in_language(pair: WeakPair) -> bool:
        return pair.source in CHECKED or in_its_language(pair, check)

    filters = [
        *pair_filters(("length", "symbols", "copy"), Thresholds()),
        PairFilter("language", in_language),
    ]
    drawn = (pair for _, pair in draw.items())
    found = sorted(
        tally.keep(tally.filter(drawn, filters)),
        key=lambda p: (p.source, p.key, p.passage_lang, p.passage, p.lang, p.query),
    )
    return Mined(found, tally, offered)


def candidates(
    documents: Sequence[StructuredDocument],
    translations: Iterable[Translations],
    kinds: Sequence[str],
    seed: int,
) -> Iterator[WeakPair]:
    """All pairs of some kinds that there are, of paragraphs some for each."""
    single = [kind for kind in kinds if kind in ONE_LANGUAGE]
    translated = [kind for kind in ("paragraph-translation", "document-translation") if kind in kinds]
    crossing = any(kind.endswith("-cross") for kind in kinds)
    common = recurring(documents)
    wide = Limits(passage_chars=PASSAGE, document_chars=PASSAGE, language_pairs=32, seed=seed)
    narrow = Limits(passage_chars=DENSE_PASSAGE, seed=seed)
    described = Counter(_described(document) for document in documents if document.description)
    for group in groups(documents):
        group = [
            replace(document, description="") if described[_described(document)] > 1 else document
            for document in group
        ]
        for document in group if single else ():
            if single == ["neighbour"] and document.source in LISTS:
                continue
            limits = narrow if document.lang in DENSE else wide
            yield from mine_group(
                [document],
                limits,
                single,
                common=lambda heading, doc: digest(doc.source, doc.lang, fold(heading)) in common,
            )
        if len(group) > 1 and crossing:
            yield from (pair for pair in crossed(group, common, seed) if pair.kind in kinds)
        if len(group) > 1 and translated:
            for pair in mine_group(group, wide, translated):
                if pair.kind != "paragraph-translation" or alike(pair):
                    yield pair
    all_pairs = Limits(language_pairs=200, seed=seed)
    rendered = [kind for kind in ("sentence-translation", "term-translation") if kind in kinds]
    for each in translations if rendered else ():
        yield from mine_translations(each, all_pairs, rendered)


def _described(document: StructuredDocument) -> int:
    return digest(document.source, document.lang, fold(document.description))


def alike(pair: WeakPair) -> bool:
    """Whether a paragraph and its translation are long enough, and of about the same length."""
    few, many = sorted((weight(pair.query, pair.lang), weight(pair.passage, pair.passage_lang)))
    return few >= _SHORTEST and many <= _RATIO * few + 20


def crossed(group: Sequence[StructuredDocument], common: frozenset[int], seed: int) -> Iterator[WeakPair]:
    """Queries of one language with passages of another, a few for each two languages.

    Args:
        group: One document in its languages.
        common: Headings that recur (see `recurring`).
        seed: Decides which queries.
    """
    parts = {document.lang: sections(document) for document in group}
    bodies = {
        document.lang: body(document, DENSE_PASSAGE if document.lang in DENSE else PASSAGE)
        for document in group
    }
    for here, there in permutations(group, 2):
        passage = bodies[there.lang]
        number = digest(str(seed), here.source, here.key, here.lang, there.lang)
        if passage:
            queries = [("title-body-cross", here.title), ("description-body-cross", here.description)]
            if here.keywords:
                entry = here.keywords[number % len(here.keywords)].replace(",", ", ").replace(",  ", ", ")
                queries.append(("keyword-body-cross", entry))
            for kind, query in queries:
                if query:
                    yield _pair(kind, here, there, query, passage)
        headed = [name for name in parts[here.lang] if name in parts[there.lang]]
        for name in headed[number % 3 :: 3]:  # a third of them: neighbours in a page are alike
            heading, _ = parts[here.lang][name]
            if digest(here.source, here.lang, fold(heading)) not in common:
                yield _pair("heading-section-cross", here, there, heading, parts[there.lang][name][1])


def _pair(
    kind: str, here: StructuredDocument, there: StructuredDocument, query: str, passage: str
) -> WeakPair:
    return WeakPair(query, passage, kind, here.source, here.key, here.lang, there.lang, here.license)


def sections(document: StructuredDocument) -> dict[tuple[int, str], tuple[str, str]]:
    """Heading and text of each section that has text of its own, by the number and kind of its heading."""
    longest = DENSE_PASSAGE if document.lang in DENSE else PASSAGE
    found: dict[tuple[int, str], tuple[str, str]] = {}
    name, heading, lines, length = (-1, ""), "", list[str](), 0
    for block in (*document.blocks, None):
        if block is None or block.level is not None:
            if heading and lines:
                found[name] = (heading, "\n".join(lines))
            if block is None:
                break
            name, heading, lines, length = (block.number, block.kind), block.text, [], 0
        elif length < longest:
            lines.append(block.text)
            length += len(block.text)
    return found if document.aligned else {}


def recurring(documents: Iterable[StructuredDocument], least: int = 3) -> frozenset[int]:
    """Digests of headings and titles that so many documents of a source and language have, such as "See also"."""
    counts: dict[int, int] = {}
    for document in documents:
        headings = {fold(block.text) for block in document.blocks if block.level is not None}
        headings |= {fold(document.title)} - {""}
        for heading in headings:
            name = digest(document.source, document.lang, heading)
            counts[name] = counts.get(name, 0) + 1
    return frozenset(name for name, count in counts.items() if count >= least)


def groups(documents: Iterable[StructuredDocument]) -> list[list[StructuredDocument]]:
    """Documents of the same source and key, each language once."""
    found: dict[tuple[str, str], dict[str, StructuredDocument]] = {}
    for document in documents:
        found.setdefault((document.source, document.key), {}).setdefault(document.lang, document)
    return [list(group.values()) for _, group in sorted(found.items())]


def to_row(pair: WeakPair) -> dict[str, Any]:
    """A line of training data."""
    row: dict[str, Any] = {"query": pair.query, "pos": [pair.passage], "neg": [], "lang": pair.lang}
    if pair.passage_lang != pair.lang:
        row["pos_lang"] = pair.passage_lang
    return row | {"kind": pair.kind, "source": pair.source, "key": pair.key}
