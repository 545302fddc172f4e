"""Mr.TyDi, MIRACL and MLDR: a folder for each language, queries with their passages or judgements beside a corpus.

- Mr.TyDi: ``mrtydi-v1.1-LANGUAGE/`` with ``topic.SPLIT.tsv`` (or ``topic.tsv``), ``qrels.SPLIT.txt`` and
  ``collection/docs.jsonl.gz``; on the Hub ``SPLIT.jsonl.gz`` with passages, and a corpus apart.
- MIRACL: ``topics.miracl-v1.0-LANG-SPLIT.tsv``, ``qrels.miracl-v1.0-LANG-SPLIT.tsv``, ``docs-N.jsonl.gz``.
- MLDR: ``mldr-v1.0-LANG/`` with ``SPLIT.jsonl.gz`` (whole documents as passages) and ``corpus.jsonl.gz``.

Queries with passages are ``{"query_id", "query", "positive_passages": [{"docid", "title", "text"}],
"negative_passages": […]}``. In some splits the passages have ids alone; their texts then come from the corpus.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from triptych.collections.files import Files, plain_name, rows
from triptych.collections.joined import (
    Dropped,
    Item,
    Judgement,
    Labelled,
    Options,
    Tables,
    Text,
    judgements_of,
    passages_of,
    records_of,
    texts_of,
)
from triptych.errors import DataError
from triptych.records import Place
from triptych.text import code_of

_CORPUS = r"(?:docs(?:-\d+)?|corpus)\.jsonl"
_T = TypeVar("_T")


def read_miracl(files: Files, options: Options) -> Iterator[Tables | Item]:
    """Reads MIRACL's topics, judgements and corpus, or files of queries with passages.

    The corpus may also stand beside the folder of one language's topics.
    """
    split = re.escape(options.split or "dev")
    topics = rf"topics\.miracl-v1\.0-([a-z-]+)-{split}\.tsv"
    named = {str(re.search(topics, file.name, re.I)[1]): file for file in files.matching(topics)}  # type: ignore[index]
    if not named:
        yield from _lists(files, options, "miracl")
    for language, file in _select(named, options, files, "miracl"):
        qrels = files.one("judgements", rf"qrels\.miracl-v1\.0-{language}-{split}\.tsv")
        yield _tables(file, qrels, _corpus(files, language, len(named)), language)


def read_mrtydi(files: Files, options: Options) -> Iterator[Tables | Item]:
    """Reads Mr.TyDi's topics, judgements and corpus, or files of queries with passages."""
    split = re.escape(options.split or "test")
    named = {_language(file, options): file for file in files.matching(rf"qrels\.{split}(?:ing)?\.txt")}
    if not named:
        yield from _lists(files, options, "mrtydi")
    for language, qrels in _select(named, options, files, "mrtydi"):
        here = Files([file for file in files.all if file.parent == qrels.parent])
        topics = here.one("topics", rf"topic\.{split}(?:ing)?\.tsv", r"topic\.tsv")
        yield _tables(topics, qrels, _corpus(files, language, len(named)), language)


def read_mldr(files: Files, options: Options) -> Iterator[Tables | Item]:
    """Reads MLDR; without its corpora its training passages, which are whole documents, are enough."""
    yield from _lists(files, options, "mldr")


def _tables(topics: Path, qrels: Path, corpus: Sequence[Path], language: str) -> Tables:
    return Tables(
        queries=texts_of([topics]),
        judgements=judgements_of([qrels]),
        documents=partial(records_of, corpus),
        files=corpus,
        qrels=qrels,
        language=language or None,
        subset=language,
    )


def _lists(files: Files, options: Options, name: str) -> Iterator[Tables | Item]:
    patterns = (r".*\.jsonl", r".*\.parquet", r".*\.json")
    rest = Files([file for file in files.all if not re.fullmatch(_CORPUS, plain_name(file))])
    named: dict[str, list[Path]] = {}
    for file in rest.of_split("queries with passages", options.split, *patterns):
        named.setdefault(_language(file, options), []).append(file)
    corpora = files.matching(_CORPUS)
    for language, paths in _select(named, options, files, name):
        if corpora:
            yield _tables_of_lists(paths, _corpus(files, language, len(named)), language)
        else:
            for path in paths:
                for place, record in rows(path):
                    yield _inline(place, record, options, language or None)


def _tables_of_lists(paths: Sequence[Path], corpus: Sequence[Path], language: str) -> Tables:
    return Tables(
        queries=(Text(*_query(record, place), place) for path in paths for place, record in rows(path)),
        judgements=(judged for path in paths for judged in _judgements(path)),
        documents=partial(records_of, corpus),
        files=corpus,
        qrels=paths[0],
        language=language or None,
        subset=language,
        all_judged=True,
    )


def _inline(place: Place, record: dict[str, Any], options: Options, language: str | None) -> Item:
    id_, query = _query(record, place)
    pos, neg = (
        passages_of(record, name, ("docid",), place) for name in ("positive_passages", "negative_passages")
    )
    if any(not passage.text for passage in pos):
        return Dropped(place, "passages have ids alone; give the corpus too", query)
    sample = options.sample((passage for passage in neg if passage.text), id_)
    return Labelled(place, query, pos, sample if options.wants("given") else [], id_, language)


def _judgements(path: Path) -> Iterator[Judgement]:
    """Negatives first: of a passage that is in both lists the positive counts."""
    for place, record in rows(path):
        id_, _ = _query(record, place)
        values: dict[str, int] = {}
        for name, value in (("positive_passages", 1), ("negative_passages", 0)):
            for passage in passages_of(record, name, ("docid",), place):
                values.setdefault(passage.id or "", value)
        yield from (Judgement(id_, document, value, place) for document, value in values.items())


def _query(record: dict[str, Any], place: Place) -> tuple[str, str]:
    id_, query = record.get("query_id"), record.get("query")
    if not isinstance(id_, str | int) or not isinstance(query, str):
        raise place.error(
            f"got fields {', '.join(map(repr, record))}; expected query_id, query, positive_passages"
        )
    return str(id_), query


def _corpus(files: Files, language: str, languages: int) -> list[Path]:
    """The files of a language's corpus: ids are unique in one language alone."""
    if not files.matching(_CORPUS):
        beside = (
            above / f"miracl-corpus-v1.0-{language}"
            for root in files.roots
            for above in root.resolve().parents[:2]
        )
        if folder := next((each for each in beside if each.is_dir()), None):
            files = Files([folder])
    found = files.some("corpus", _CORPUS)
    own = [file for file in found if _language_of(file) == language]
    if own or (languages == 1 and not any(_language_of(file) for file in found)):
        return own or found
    raise DataError(
        f"no corpus of the language {language!r} among {len(found)} files of corpora", files.roots[0]
    )


def _select(named: Mapping[str, _T], options: Options, files: Files, name: str) -> Iterator[tuple[str, _T]]:
    """The languages that are wanted."""
    language = code_of(options.language) if options.language is not None and list(named) != [""] else None
    if named and language is not None and language not in named:
        raise DataError(f"nothing in {language!r}; there are {', '.join(sorted(named))}", files.roots[0])
    for each in sorted(named):
        if language in (None, each) and options.takes(name, each):
            yield each, named[each]


def _language(file: Path, options: Options) -> str:
    """What a file's path says, or the options; "" if neither does."""
    return _language_of(file) or (code_of(options.language) if options.language else "")


def _language_of(file: Path) -> str:
    """The language in the name of a file or its folders: ``…-v1.0-de``, ``mrtydi-v1.1-finnish``, or a folder ``de``."""
    for part in reversed(file.parts):
        if match := re.search(r"-v\d+\.\d+-([a-z]+)(?:-|\.|$)", part, re.I):
            return code_of(match[1])
        if re.fullmatch(r"[a-z]{2}", part) or code_of(part) != part.lower():
            return code_of(part)
    return ""
