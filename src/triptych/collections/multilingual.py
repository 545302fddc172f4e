"""Queries that bring their passages along, as the multilingual collections are published on the Hub.

``{"query_id", "query", "positive_passages": [{"docid", "title", "text"}], "negative_passages": […]}``. In some splits
the passages have ids alone; their texts then come from the corpus.

Mr.TyDi, MIRACL and MLDR: a folder a language, queries with their passages or judgements beside a corpus.

- Mr.TyDi: ``mrtydi-v1.1-LANGUAGE/`` with ``topic.SPLIT.tsv`` (or ``topic.tsv``), ``qrels.SPLIT.txt`` and
  ``collection/docs.jsonl.gz``; on the Hub ``SPLIT.jsonl.gz`` with passages, and a corpus apart.
- MIRACL: ``topics.miracl-v1.0-LANG-SPLIT.tsv``, ``qrels.miracl-v1.0-LANG-SPLIT.tsv``, ``docs-N.jsonl.gz``.
- MLDR: ``mldr-v1.0-LANG/`` with ``SPLIT.jsonl.gz`` (whole documents as passages) and ``corpus.jsonl.gz``.

MIRACL and Mr.TyDi: questions on the Wikipedia of their own language.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from triptych.collections.base import Collection, Facts, Judgements, Wanted, folders, found, locate, make
from triptych.collections.files import Files, plain_name, rows
from triptych.collections.joined import (
    Dropped,
    Item,
    Labelled,
    Options,
    Passage,
    Tables,
    Text,
    draw,
    join,
    texts_of,
)
from triptych.collections.qrels import Judgement, read_qrels
from triptych.collections.texts import qrels_of, record_corpus, tevatron, tsv_queries
from triptych.errors import DataError
from triptych.records import Fields, Place, to_document
from triptych.text import code_of

_FIELDS = Fields(id=("docid", "id", "_id"))


def read_lists(
    paths: Sequence[Path], corpus: Sequence[Path], options: Options, language: str | None
) -> Iterator[Item]:
    """Reads files of such queries.

    Args:
        paths: Their files.
        corpus: Files of the corpus (see `documents_of`); empty: the passages' own texts are used.
        options: What is wanted.
        language: Of the queries.
    """
    if not corpus:
        for path in paths:
            for place, record in rows(path):
                yield from _inline(place, record, options, language)
        return
    parts = Tables(
        queries=(Text(*_query(record, place), place) for path in paths for place, record in rows(path)),
        judgements=(judged for path in paths for judged in _judgements(path)),
        documents=documents_of(corpus),
        qrels=paths[0],
        language=language,
    )
    yield from join(parts, options)


def documents_of(paths: Sequence[Path]) -> Iterator[Text]:
    """Documents of JSON Lines: ``docid`` (or ``id``), ``text`` (or ``contents``) and perhaps ``title``."""
    for path in paths:
        for place, record in rows(path):
            document = to_document(record, _FIELDS, place)
            yield Text(document.id, document.text, place, document.title)


def _inline(place: Place, record: dict[str, Any], options: Options, language: str | None) -> Iterator[Item]:
    id_, query = _query(record, place)
    pos, neg = (_passages(record, name, place) for name in ("positive_passages", "negative_passages"))
    if any(not passage.text for passage in pos):
        yield Dropped(place, "passages have ids alone; give the corpus too", query)
        return
    kept = draw((passage for passage in neg if passage.text), options.max_negatives, options.seed, id_)
    yield Labelled(place, query, pos, kept if options.wants("given") else [], id_, language)


def _judgements(path: Path) -> Iterator[Judgement]:
    for place, record in rows(path):
        id_, _ = _query(record, place)
        for name, value in (("positive_passages", 1.0), ("negative_passages", 0.0)):
            for passage in _passages(record, name, place):
                yield Judgement(id_, passage.id or "", value, place.line or 0)


def _query(record: dict[str, Any], place: Place) -> tuple[str, str]:
    id_, query = record.get("query_id"), record.get("query")
    if not isinstance(id_, str | int) or not isinstance(query, str):
        raise place.error(
            f"got fields {', '.join(map(repr, record))}; expected query_id, query, positive_passages"
        )
    return str(id_), query


def _passages(record: dict[str, Any], name: str, place: Place) -> list[Passage]:
    value = record.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in cast("list[Any]", value)):
        raise place.error(f"field {name!r} is {value!r:.40}; expected a list of objects with docid and text")
    passages = cast("list[dict[str, Any]]", value)
    return [
        Passage(str(each.get("text") or ""), each.get("title") or None, str(each.get("docid", "")) or None)
        for each in passages
    ]


_CORPUS = r"(?:docs(?:-\d+)?|corpus)\.jsonl"


def read_miracl(files: Files, options: Options) -> Iterator[Item]:
    """Reads MIRACL's topics, judgements and corpus, or files of queries with passages."""
    split = re.escape(options.split)
    topics = rf"topics\.miracl-v1\.0-([a-z-]+)-{split}\.tsv"
    if not files.matching(topics):
        yield from _lists(files, options)
        return
    named = {str(re.search(topics, file.name, re.I)[1]): file for file in files.matching(topics)}  # type: ignore[index]
    for language in _wanted(named, options, files):
        qrels = files.one("judgements", rf"qrels\.miracl-v1\.0-{language}-{split}\.tsv")
        yield from _judged(named[language], qrels, _corpus(files, language, len(named)), language, options)


def read_mrtydi(files: Files, options: Options) -> Iterator[Item]:
    """Reads Mr.TyDi's topics, judgements and corpus, or files of queries with passages."""
    split = re.escape(options.split)
    qrels = files.matching(rf"qrels\.{split}(?:ing)?\.txt")
    if not qrels:
        yield from _lists(files, options)
        return
    named = {_language(file, options): file for file in qrels}
    for language in _wanted(named, options, files):
        folder = named[language].parent
        here = Files([file for file in files.all if file.parent == folder])
        topics = here.one("topics", rf"topic\.{split}(?:ing)?\.tsv", r"topic\.tsv")
        yield from _judged(topics, named[language], _corpus(files, language, len(named)), language, options)


def read_mldr(files: Files, options: Options) -> Iterator[Item]:
    """Reads MLDR; its training passages are whole documents, so that the corpus is not needed."""
    yield from _lists(files, options)


def _judged(
    topics: Path, qrels: Path, corpus: Sequence[Path], language: str, options: Options
) -> Iterator[Item]:
    parts = Tables(
        queries=texts_of([topics]),
        judgements=read_qrels(qrels),
        documents=documents_of(corpus),
        qrels=qrels,
        language=language or None,
    )
    yield from join(parts, options)


def _lists(files: Files, options: Options) -> Iterator[Item]:
    patterns = (r".*\.jsonl", r".*\.parquet", r".*\.json")
    here = Files([file for file in files.all if not re.fullmatch(_CORPUS, plain_name(file))])
    found = here.of_split("queries with passages", options.split, *patterns)
    named: dict[str, list[Path]] = {}
    for file in found:
        named.setdefault(_language(file, options), []).append(file)
    corpora = files.matching(_CORPUS)
    for language in _wanted(named, options, files):
        corpus = _corpus(files, language, len(named)) if corpora else []
        yield from read_lists(named[language], corpus, options, language or None)


def _corpus(files: Files, language: str, languages: int) -> list[Path]:
    """The files of a language's corpus: ids are unique in one language alone."""
    found = files.some("corpus", _CORPUS)
    own = [file for file in found if _named(file) == language]
    if own or (languages == 1 and not any(_named(file) for file in found)):
        return own or found
    raise DataError(
        f"no corpus of the language {language!r} among {len(found)} files of corpora", files.roots[0]
    )


def _wanted(named: dict[str, Path] | dict[str, list[Path]], options: Options, files: Files) -> list[str]:
    if options.language is None or list(named) == [""]:
        return sorted(named)
    language = code_of(options.language)
    if language not in named:
        raise DataError(f"nothing in {language!r}; there are {', '.join(sorted(named))}", files.roots[0])
    return [language]


def _language(file: Path, options: Options) -> str:
    """What a file's path says, or the options; "" if neither does."""
    return _named(file) or (code_of(options.language) if options.language else "")


def _named(file: Path) -> str:
    """The language in the name of a file or its folders: ``…-v1.0-de``, ``mrtydi-v1.1-finnish``, or a folder ``de``."""
    for part in reversed(file.parts):
        if match := re.search(r"-v\d+\.\d+-([a-z]+)(?:-|\.|$)", part, re.I):
            return code_of(match[1])
        if re.fullmatch(r"[a-z]{2}", part) or code_of(part) != part.lower():
            return code_of(part)
    return ""


LANGUAGES = (
    "ar",
    "bn",
    "de",
    "en",
    "es",
    "fa",
    "fi",
    "fr",
    "hi",
    "id",
    "ja",
    "ko",
    "ru",
    "sw",
    "te",
    "th",
    "yo",
    "zh",
)
TYDI_LANGUAGES = {
    "arabic": "ar",
    "bengali": "bn",
    "english": "en",
    "finnish": "fi",
    "indonesian": "id",
    "japanese": "ja",
    "korean": "ko",
    "russian": "ru",
    "swahili": "sw",
    "telugu": "te",
    "thai": "th",
}
LAYOUT = (
    "miracl-corpus-v1.0-LANGUAGE/docs-*.jsonl.gz, and miracl-v1.0-LANGUAGE with "
    "topics/topics.miracl-v1.0-LANGUAGE-SPLIT.tsv and qrels/qrels.miracl-v1.0-LANGUAGE-SPLIT.tsv"
)
TYDI_LAYOUT = (
    "mrtydi-v1.1-LANGUAGE (such as arabic) with collection/docs.jsonl.gz, topic.SPLIT.tsv and qrels.SPLIT.txt; or "
    "with corpus.jsonl.gz and SPLIT.jsonl.gz"
)
FACTS = Facts("miracl", licence="Apache-2.0", citation="Zhang and others, 2023, arXiv 2210.09984")
TYDI_FACTS = Facts(
    "mrtydi",
    ("RR@100", "R@100", "nDCG@10", "R@10", "AP@100", "Success@5"),
    licence="Apache-2.0",
    citation="Zhang and others, 2021, arXiv 2108.08787",
)


def miracl(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads MIRACL: 18 languages, each with a corpus of its own. The split is "dev"; the tests are not judged.

    The folders of the corpora and of the topics may stand in `path` or a folder deeper, or `path` is the folder of
    one language's topics and the corpus is beside it.
    """
    split = wanted.split or "dev"
    collections: list[Collection] = []
    for language in LANGUAGES:
        topics = folders(path, f"miracl-v1.0-{language}")
        if topics and wanted.takes(language, f"miracl/{language}"):
            collections.append(_miracl(path, topics[0], language, split, wanted))
    return found(collections, path, wanted, LAYOUT)


def _miracl(path: Path, folder: Path, language: str, split: str, wanted: Wanted) -> Collection:
    name = f"miracl-v1.0-{language}-{split}.tsv"
    asked = locate(folder, f"topics/topics.{name}")
    judged = locate(folder, f"qrels/qrels.{name}")
    pattern = f"miracl-corpus-v1.0-{language}/docs-*.jsonl"
    docs = locate(path, pattern) or locate(folder.parent, pattern) or locate(folder.parent.parent, pattern)
    for what, files in (("topics", asked), ("qrels", judged), ("documents", docs)):
        if not files:
            raise DataError(f"no {what} of split {split!r} for {language}; expected {LAYOUT}", folder)
    judgements = Judgements(tsv_queries(asked[0]), qrels_of(judged[0]), judged[0])
    return make(FACTS, language, split, record_corpus(docs, "miracl"), judgements, wanted)


def mrtydi(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads Mr.TyDi: 11 languages, each with a corpus of its own. The split is "test"."""
    split = wanted.split or "test"
    collections: list[Collection] = []
    for name, language in TYDI_LANGUAGES.items():
        homes = folders(path, f"mrtydi-v1.[01]-{name}")
        if not homes or not wanted.takes(language, f"mrtydi/{language}"):
            continue
        corpus = [file for home in homes for file in locate(home, "collection/docs.jsonl", "corpus.jsonl")][
            :1
        ]
        judgements = next(filter(None, (_tydi_judged(home, split) for home in homes)), None)
        if not corpus or judgements is None:
            what = "documents" if not corpus else f"topics and qrels of split {split!r}"
            raise DataError(f"no {what}; expected {TYDI_LAYOUT}", homes[0])
        collections.append(
            make(TYDI_FACTS, language, split, record_corpus(corpus, "mrtydi"), judgements, wanted)
        )
    return found(collections, path, wanted, TYDI_LAYOUT)


def _tydi_judged(folder: Path, split: str) -> Judgements | None:
    asked, judged = locate(folder, f"topic.{split}.tsv"), locate(folder, f"qrels.{split}.txt")
    if asked and judged:
        return Judgements(tsv_queries(asked[0]), qrels_of(judged[0]), judged[0])
    together = locate(folder, f"{split}.jsonl")
    return Judgements(*tevatron(together[0]), together[0]) if together else None
