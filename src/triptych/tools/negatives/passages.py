"""The passages among which negatives are searched, and the training examples as mining reads and writes them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from triptych.collections.beir import is_beir
from triptych.collections.examples import (
    LABEL,
    LANGUAGE,
    LIST,
    NEGATIVES,
    POSITIVE,
    POSITIVES,
    QUERY,
    Example,
)
from triptych.collections.training import Reading, read_examples
from triptych.documents import read_documents
from triptych.errors import DataError
from triptych.records import QUERY_IDS, Document, Place
from triptych.text import fold
from triptych.types import Floats

ARTICLE = ("article", "key")
"""Fields that say from which article a passage comes; the first that a record has counts."""
UNKNOWN = -1


def name_in(record: Mapping[str, Any], fields: Sequence[str]) -> str | None:
    """The name that the first field with a value holds, or None."""
    value = next((record[name] for name in fields if record.get(name) is not None), None)
    is_name = isinstance(value, str | int) and not isinstance(value, bool) and value != ""
    return str(value) if is_name else None


def passage_language(record: Mapping[str, Any]) -> str | None:
    """The language that a record names, or None."""
    return name_in(record, LANGUAGE)


class Numbers:
    """Small numbers for names, from 0, in the order in which they come."""

    def __init__(self) -> None:
        self._of: dict[bytes, int] = {}

    def add(self, name: str) -> int:
        """The number of a name; a new one gets the next."""
        return self._of.setdefault(_digest(name), len(self._of))

    def get(self, name: str | None) -> int:
        """The number of a name; `UNKNOWN` for None and for one that never came."""
        return UNKNOWN if name is None else self._of.get(_digest(name), UNKNOWN)


@dataclass(frozen=True, slots=True)
class Passages:
    """N passages that are searched, in the order of their ids, and after them others that are only scored.

    Attributes:
        ids: Name of each passage; rows from `searchable` on have none.
        texts: Text of each row.
        searchable: N.
        group: int64; equal for rows of equal text.
        article: int64; number of the article, or `UNKNOWN`.
        language: int64; number of the language, or `UNKNOWN`.
        blank: Passages without text, which were left out.
        digest: Hex digest of all of it.
    """

    ids: list[str]
    texts: list[str]
    searchable: int
    group: NDArray[np.int64]
    article: NDArray[np.int64]
    language: NDArray[np.int64]
    blank: int
    digest: str
    _groups: Numbers
    _articles: Numbers
    _first: Mapping[int, int]
    _quoted: Mapping[int, frozenset[int]]
    _from: Mapping[int, frozenset[tuple[int, int]]]

    def row(self, text: str) -> int:
        """The first row with this text.

        Raises:
            KeyError: If there is none.
        """
        return self._first[self._groups.get(fold(text))]

    def groups_of(self, text: str) -> frozenset[int]:
        """The groups of the searched passages that are this text, but for a title."""
        return self._quoted.get(self._groups.get(fold(text)), frozenset())

    def origins(self, text: str) -> frozenset[tuple[int, int]]:
        """(article, language) of those passages, as far as the article is known."""
        return self._from.get(self._groups.get(fold(text)), frozenset())

    def article_number(self, name: str | None) -> int:
        """The number of an article, or `UNKNOWN`."""
        return self._articles.get(name)


@dataclass(frozen=True, slots=True)
class CorpusPassage:
    """A passage as it comes; `also` is another text by which a positive may quote it: its text without title."""

    id: str
    text: str
    article: str | None = None
    language: str | None = None
    also: str | None = None


def passages_of(corpus: Iterable[CorpusPassage], judged: Iterable[str]) -> Passages:
    """Collects passages.

    Args:
        corpus: What is searched, with distinct ids.
        judged: Texts that have to be scored; those that are no passages of the corpus become further rows.

    Raises:
        DataError: If nothing is left to search.
    """
    given = list(corpus)
    found = sorted((each for each in given if each.text.strip()), key=lambda each: each.id)
    if not found:
        raise DataError(f"no passage with text among {len(given)} in the corpus; expected one or more")
    groups, articles, languages = Numbers(), Numbers(), Numbers()
    group = [groups.add(fold(each.text)) for each in found]
    article = [UNKNOWN if each.article is None else articles.add(each.article) for each in found]
    language = [UNKNOWN if each.language is None else languages.add(each.language) for each in found]
    first: dict[int, int] = {}
    for row, number in enumerate(group):
        first.setdefault(number, row)
    origins: dict[int, set[tuple[int, int]]] = {}
    quoted: dict[int, set[int]] = {}
    for row, each in enumerate(found):
        known = {group[row]}
        if each.also and each.also.strip():
            known.add(groups.add(fold(each.also)))
        for number in known:
            quoted.setdefault(number, set()).add(group[row])
            if article[row] != UNKNOWN:
                origins.setdefault(number, set()).add((article[row], language[row]))
    extra: list[str] = []
    for text in judged:
        number = groups.add(fold(text))
        if number not in first:
            first[number] = len(found) + len(extra)
            group.append(number)
            extra.append(text)
    unknown = [UNKNOWN] * len(extra)
    return Passages(
        ids=[each.id for each in found],
        texts=[each.text for each in found] + extra,
        searchable=len(found),
        group=np.array(group, dtype=np.int64),
        article=np.array(article + unknown, dtype=np.int64),
        language=np.array(language + unknown, dtype=np.int64),
        blank=len(given) - len(found),
        digest=_digest_of(found),
        _groups=groups,
        _articles=articles,
        _first=first,
        _quoted={number: frozenset(quoting) for number, quoting in quoted.items()},
        _from={number: frozenset(pairs) for number, pairs in origins.items()},
    )


def read_corpus(
    sources: Sequence[Path | str], article_fields: Sequence[str] = ARTICLE
) -> Iterator[CorpusPassage]:
    """Reads a corpus: files and folders as `triptych.documents` reads them; of a BEIR folder its corpus.

    Raises:
        DataError: For what cannot be read, with file and line, or an id that comes twice.
    """
    files: list[Path | str] = []
    for source in sources:
        folder = Path(source)
        files += sorted(folder.glob("corpus.jsonl*"))[:1] if is_beir(folder) else [source]
    for document in read_documents(files):
        yield passage_of(document, article_fields)


def passage_of(document: Document, article_fields: Sequence[str] = ARTICLE) -> CorpusPassage:
    """A document as a passage: its title stands in front."""
    fields = document.metadata
    also = document.text if document.title else None
    return CorpusPassage(
        document.id, document.content, name_in(fields, article_fields), passage_language(fields), also
    )


def own_passages(examples: Iterable[tuple[Example, str | None]]) -> Iterator[CorpusPassage]:
    """The passages of training examples as a corpus, each text once, numbered as they come.

    Args:
        examples: Each with the article that its record names, from which its positives come.
    """
    seen = Numbers()
    found: dict[int, CorpusPassage] = {}
    for example, article in examples:
        for place, text in enumerate(example.passages):
            number = seen.add(fold(text))
            known = article if place < len(example.pos) else None  # a negative may come from anywhere
            if number not in found:
                found[number] = CorpusPassage(f"{number:012d}", text, known)
            elif found[number].article is None and known is not None:
                found[number] = CorpusPassage(found[number].id, found[number].text, known)
    yield from found.values()


def _digest(name: str) -> bytes:
    return hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _digest_of(passages: Sequence[CorpusPassage]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for each in passages:
        for part in (each.id, each.text, each.article, each.language, each.also):
            data = b"" if part is None else part.encode("utf-8", "surrogatepass")
            digest.update((-1 if part is None else len(data)).to_bytes(8, "little", signed=True) + data)
    return digest.hexdigest()


_READ = {
    *QUERY,
    *POSITIVES,
    *POSITIVE,
    *NEGATIVES,
    *LIST,
    *LABEL,
    *LANGUAGE,
    *QUERY_IDS,
    "pos_scores",
    "neg_scores",
    "teacher_vectors",
    "messages",
}


class MinedExample(NamedTuple):
    """An example with the fields of its record that mean nothing to training."""

    example: Example
    extras: Mapping[str, Any]

    def article(self, fields: Sequence[str]) -> str | None:
        """The article from which its positives come, as far as its record says."""
        return name_in(self.extras, fields)


class Training:
    """The examples, read as often as needed.

    Args:
        sources: Files and folders, see `triptych.collections.training.read_examples`.
        split: The judgements of BEIR folders that are read.
        positive_from: The least label or score of a positive, in judged pairs.

    Attributes:
        count: How many there are; known after the first reading.
        digest: Of all of them.
    """

    def __init__(self, sources: Sequence[Path | str], split: str, positive_from: float) -> None:
        self._sources, self._split, self._from = list(sources), split, positive_from
        self.count: int | None = None
        self.digest = ""

    def read(self) -> Iterator[MinedExample]:
        """All examples, in order.

        Raises:
            DataError: For what cannot be read, or if there is none.
        """
        records: dict[Place, Mapping[str, Any]] = {}
        reading = Reading(self._split, self._from, on_record=records.__setitem__)
        digest, count = hashlib.blake2b(digest_size=16), 0
        for place, example in read_examples(self._sources, reading):
            record = records.pop(place, {})
            # Judged pairs are joined when the next query's first one has been read: that one is still to come.
            for read in list(records)[:-1]:
                del records[read]
            given = MinedExample(
                example, {name: value for name, value in record.items() if not _is_read(name)}
            )
            digest.update(_line(record_of(given, example.neg, None)))
            count += 1
            yield given
        if not count:
            raise DataError("no training example in it", ", ".join(map(str, self._sources)))
        self.count, self.digest = count, digest.hexdigest()


def record_of(
    given: MinedExample, neg: Iterable[str], scores: tuple[Floats, Floats] | None
) -> dict[str, Any]:
    """An example as a record in our form, with all other fields of its own record."""
    example = given.example
    record: dict[str, Any] = {} if example.id is None else {"id": example.id}
    record |= {"query": example.query, "pos": list(example.pos), "neg": list(neg)}
    if scores is not None:
        record |= {
            f"{name}_scores": list(map(round_digits, part))
            for name, part in zip(("pos", "neg"), scores, strict=True)
        }
    if example.language is not None:
        record["lang"] = example.language
    return record | dict(given.extras)


def round_digits(value: Any) -> float:
    """Seven digits: what a float32 holds."""
    return float(f"{float(value):.7g}")


def _line(record: Mapping[str, Any]) -> bytes:
    return (json.dumps(record, ensure_ascii=False, default=str) + "\n").encode("utf-8", "surrogatepass")


def _is_read(name: str) -> bool:
    return name in _READ or name.startswith("negative")
