"""Structured documents and aligned translations, the weak pairs mined from them, and the limits of what is taken."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple, TypeAlias, TypeVar, cast, get_args

from annotated_types import Ge

from triptych.config import check_types
from triptych.markup import Link
from triptych.records import Place
from triptych.text import digest

TranslationKind: TypeAlias = Literal["sentence", "term"]
TRANSLATION_KINDS: tuple[TranslationKind, ...] = get_args(TranslationKind)
HEADINGS = {f"h{level}": level for level in range(1, 8)}
"""Kinds of blocks that head what follows them, with their levels. ``h7`` is a term or question of a list."""


class Block(NamedTuple):
    """A paragraph, heading or item of a document.

    Attributes:
        number: The same for the same block in other languages; blocks of different kinds may share one.
        kind: ``""`` for a paragraph, ``h1`` … ``h6`` for a heading, ``h7`` for a term or a question of a list,
            ``li`` for an item. Other kinds are read as paragraphs.
        text: Its text.
    """

    number: int
    kind: str
    text: str

    @property
    def level(self) -> int | None:
        """The level of a heading, 1 to 7; None for text."""
        return HEADINGS.get(self.kind)


@dataclass(frozen=True, slots=True)
class StructuredDocument:
    """A document with its structure.

    Attributes:
        source: The collection that it comes from.
        key: Its name there; the same source and key in another language is its translation.
        lang: BCP 47 or ISO 639 code; ``""`` if not known.
        title: ``""`` if it has none.
        blocks: Its text in order, without the title.
        keywords: Index entries.
        description: A sentence or two on what it is about; ``""`` if there is none.
        links: Links to other documents.
        license: Of the text, where it is known; an SPDX name if possible.
        aligned: The numbers of the blocks fit those of its translations. If not, paragraphs are only compared
            with a translation that has the same kinds of blocks in the same order.
    """

    source: str
    key: str
    lang: str
    title: str
    blocks: tuple[Block, ...]
    keywords: tuple[str, ...] = ()
    description: str = ""
    links: tuple[Link, ...] = ()
    license: str = ""
    aligned: bool = True


@dataclass(frozen=True, slots=True)
class Translations:
    """A sentence or term, or several, in two or more languages.

    Attributes:
        source: The collection that it comes from.
        key: Its name there.
        kind: For ``"sentence"`` several texts of a language are different sentences, the n-th of one language
            being the translation of the n-th of the others. For ``"term"`` they are ways to say the same, the
            usual one first.
        texts: Language to texts.
        license: Of the text, where it is known.
    """

    source: str
    key: str
    kind: TranslationKind
    texts: Mapping[str, tuple[str, ...]] = field(hash=False)
    license: str = ""


Minable: TypeAlias = StructuredDocument | Translations


def parse(record: Mapping[str, Any], place: Place) -> Minable:
    """Makes a document or translations of a record; a field ``translations`` tells them apart.

    ``{"source", "key", "lang", "title", "blocks": [[number, kind, text], …]}``, optionally with ``keywords``
    (a list), ``description``, ``links`` (``[[text, target], …]``), ``license`` and ``aligned``; or
    ``{"source", "key", "kind": "sentence" or "term", "translations": {language: text or [text, …]}}``, optionally
    with ``license``. Other fields are left alone.

    Raises:
        DataError: For a missing field or one of the wrong type.
    """
    if "translations" in record:
        return _translations(record, place)
    aligned = record.get("aligned", True)
    if not isinstance(aligned, bool):
        raise place.error(f"field 'aligned' is {aligned!r:.40}; expected true or false")
    return StructuredDocument(
        source=_text(record, "source", place),
        key=_text(record, "key", place),
        lang=_text(record, "lang", place, needed=False),
        title=_text(record, "title", place, needed=False),
        blocks=tuple(_block(value, place) for value in _list(record, "blocks", place, needed=True)),
        keywords=tuple(_strings(_list(record, "keywords", place), "keywords", place)),
        description=_text(record, "description", place, needed=False),
        links=tuple(_link(value, place) for value in _list(record, "links", place)),
        license=_license(record, place),
        aligned=aligned,
    )


def to_record(value: Minable) -> dict[str, Any]:
    """The JSON form that `parse` reads; what is empty is left out."""
    if isinstance(value, Translations):
        texts = {lang: t[0] if len(t) == 1 else list(t) for lang, t in value.texts.items()}
        record: dict[str, Any] = {"source": value.source, "key": value.key, "kind": value.kind}
        return record | {"translations": texts} | _without_blanks(license=value.license)
    record = {"source": value.source, "key": value.key, "lang": value.lang, "title": value.title}
    record |= _without_blanks(keywords=list(value.keywords), description=value.description)
    record |= {"blocks": [list(block) for block in value.blocks]}
    record |= _without_blanks(links=[list(link) for link in value.links], license=value.license)
    return record if value.aligned else record | {"aligned": False}


def to_line(value: Minable) -> str:
    """`to_record` as one line of JSON, with its line break."""
    return json.dumps(to_record(value), ensure_ascii=False, separators=(",", ":")) + "\n"


def _without_blanks(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value}


def _translations(record: Mapping[str, Any], place: Place) -> Translations:
    kind = record.get("kind")
    if kind not in TRANSLATION_KINDS:
        raise place.error(f"field 'kind' is {kind!r:.40}; expected one of {', '.join(TRANSLATION_KINDS)}")
    given = record["translations"]
    if not isinstance(given, dict):
        raise place.error(f"field 'translations' is {given!r:.40}; expected an object of languages")
    texts = {
        lang: tuple(_strings(value if isinstance(value, list) else [value], f"translations.{lang}", place))
        for lang, value in cast("dict[str, Any]", given).items()
    }
    names = _text(record, "source", place), _text(record, "key", place)
    return Translations(*names, kind, texts, _license(record, place))


def _block(value: Any, place: Place) -> Block:
    match value:
        case [int() as number, str() as kind, str() as text] if not isinstance(number, bool):
            return Block(number, kind, text)
        case _:
            raise place.error(f"field 'blocks' has {value!r:.60}; expected [number, kind, text]")


def _link(value: Any, place: Place) -> Link:
    match value:
        case [str() as text, str() as target]:
            return Link(text, target)
        case _:
            raise place.error(f"field 'links' has {value!r:.60}; expected [text, target]")


def _text(record: Mapping[str, Any], name: str, place: Place, *, needed: bool = True) -> str:
    value = record.get(name)
    if value is None and not needed:
        return ""
    if not isinstance(value, str) or (needed and not value):
        got = "is missing" if value is None else f"is {value!r:.40}"
        raise place.error(f"field {name!r} {got}; expected a string" + (" that is not empty" * needed))
    return value


def _license(record: Mapping[str, Any], place: Place) -> str:
    name = "licence" if "licence" in record and not record.get("license") else "license"  # its older spelling
    return _text(record, name, place, needed=False)


def _list(record: Mapping[str, Any], name: str, place: Place, *, needed: bool = False) -> list[Any]:
    value = record.get(name)
    if value is None and not needed:
        return []
    if not isinstance(value, list):
        got = "is missing" if value is None else f"is {value!r:.40}"
        raise place.error(f"field {name!r} {got}; expected a list")
    return cast("list[Any]", value)


def _strings(values: Any, name: str, place: Place) -> list[str]:
    wrong = next((value for value in values if not isinstance(value, str)), None)
    if wrong is not None:
        raise place.error(f"field {name!r} has {wrong!r:.40}; expected strings")
    return list(values)


class WeakPair(NamedTuple):
    """A query with its passage, and where both come from.

    Attributes:
        query: The shorter side, as a rule.
        passage: What it asks for.
        kind: What the two are to each other; one of `triptych.tools.pairs.kinds.KINDS`.
        source: Collection of the document.
        key: Name of the document there.
        lang: Language of the query; ``""`` if not known.
        passage_lang: Language of the passage.
        license: Of the text, where it is known.
    """

    query: str
    passage: str
    kind: str
    source: str
    key: str
    lang: str
    passage_lang: str
    license: str = ""

    @property
    def languages(self) -> str:
        """``"de"``, or ``"de>en"`` for a German query with an English passage."""
        return self.lang if self.lang == self.passage_lang else f"{self.lang}>{self.passage_lang}"

    @property
    def id(self) -> str:
        """Another one for every other pair: 16 hexadecimal digits of a digest."""
        return f"{digest(*self[:7]):016x}"


def pair_record(pair: WeakPair) -> dict[str, Any]:
    """A pair in the form of training data, with its provenance.

    ``{"query", "pos": [passage], "neg": [], "lang", "kind", "source", "key", "id"}``; where they are known and say
    more, also ``pos_lang`` and ``license``.
    """
    record: dict[str, Any] = {"query": pair.query, "pos": [pair.passage], "neg": [], "lang": pair.lang}
    if pair.passage_lang != pair.lang:
        record["pos_lang"] = pair.passage_lang
    record |= {"kind": pair.kind, "source": pair.source, "key": pair.key}
    if pair.license:
        record["license"] = pair.license
    return record | {"id": pair.id}


_T = TypeVar("_T")
Count: TypeAlias = Annotated[int, Ge(1)]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is taken of a document.

    Attributes:
        passage_chars: Bodies and sections end with the block that reaches so many characters.
        document_chars: The same for whole documents beside their translations.
        neighbours: Most pairs of neighbouring paragraphs of a document.
        keywords: Most keywords of a document.
        links: Most link texts that lead to a document.
        language_pairs: Most ordered pairs of languages for each text that has translations.
        seed: What is left out depends on it and on the document, on nothing else.

    Raises:
        InputError: For a limit below 1.
    """

    passage_chars: Count = 3000
    document_chars: Count = 30_000
    neighbours: Count = 4
    keywords: Count = 8
    links: Count = 8
    language_pairs: Count = 4
    seed: int = 0

    def __post_init__(self) -> None:
        check_types(self)


def sample(
    items: Sequence[_T], most: int, limits: Limits, owner: StructuredDocument | Translations, what: str
) -> Sequence[_T]:
    """At most `most` of the items, in their order; the choice is a function of the seed and the document."""
    if len(items) <= most:
        return items
    per_language = ("keyword", "link", "neighbour")
    lang = owner.lang if isinstance(owner, StructuredDocument) and what in per_language else ""
    drawing = random.Random("\0".join((str(limits.seed), owner.source, owner.key, lang, what)))
    return [items[number] for number in sorted(drawing.sample(range(len(items)), most))]


def language_pairs(
    count: int, limits: Limits, owner: StructuredDocument | Translations, what: str
) -> list[tuple[int, int]]:
    """Ordered pairs of different numbers below `count`: all, or as many as `limits` wants."""
    total = count * (count - 1)
    numbers = sample(range(total), limits.language_pairs, limits, owner, what)
    return [(n // (count - 1), n % (count - 1) + (n % (count - 1) >= n // (count - 1))) for n in numbers]
