"""Mr.TyDi, MIRACL and MLDR: a folder a language, queries with their passages or judgements beside a corpus.

- Mr.TyDi: ``mrtydi-v1.1-LANGUAGE/`` with ``topic.SPLIT.tsv`` (or ``topic.tsv``), ``qrels.SPLIT.txt`` and
  ``collection/docs.jsonl.gz``; on the Hub ``SPLIT.jsonl.gz`` with passages, and a corpus apart.
- MIRACL: ``topics.miracl-v1.0-LANG-SPLIT.tsv``, ``qrels.miracl-v1.0-LANG-SPLIT.tsv``, ``docs-N.jsonl.gz``.
- MLDR: ``mldr-v1.0-LANG/`` with ``SPLIT.jsonl.gz`` (whole documents as passages) and ``corpus.jsonl.gz``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from triptych.data.beir import read_qrels
from triptych.data.labelled.collection import Collection, join
from triptych.data.labelled.files import Files, plain_name
from triptych.data.labelled.items import Item, Options
from triptych.data.labelled.languages import code_of
from triptych.data.labelled.passage_lists import documents_of, read_lists
from triptych.data.labelled.tsv import texts_of
from triptych.errors import DataError

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
    parts = Collection(
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
