"""Short queries on long documents: MLDR, NarrativeQA and the other sets of LongEmbed."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from triptych.collections.base import (
    Collection,
    Document,
    Facts,
    FileCorpus,
    Judgements,
    Qrels,
    Queries,
    Wanted,
    folders,
    found,
    locate,
    make,
    the_file,
)
from triptych.collections.texts import add_query, distinct, record_corpus, record_queries, tevatron
from triptych.errors import DataError
from triptych.io import open_source, read_lines, read_text
from triptych.records import Place, parsed, places_of

LANGUAGES = ("ar", "de", "en", "es", "fr", "hi", "it", "ja", "ko", "pt", "ru", "th", "zh")
LAYOUT = "mldr-v1.0-LANGUAGE with corpus.jsonl.gz and SPLIT.jsonl.gz"
FACTS = Facts("mldr", licence="MIT", citation="Chen and others, 2024, arXiv 2402.03216")
NARRATIVE_LAYOUT = (
    "Parquet files data/SPLIT-*.parquet with document and question; or documents.csv, qaps.csv and tmp/ID.content; "
    "or corpus.jsonl, queries.jsonl and qrels.jsonl"
)
NARRATIVE_FACTS = Facts(
    "narrativeqa", licence="Apache-2.0", citation="Kočiský and others, 2018, doi 10.1162/tacl_a_00023"
)
LONGEMBED = ("narrativeqa", "summ_screen_fd", "qmsum", "2wikimqa", "passkey", "needle")
LONGEMBED_LAYOUT = f"a folder of {', '.join(LONGEMBED)} with corpus.jsonl, queries.jsonl and qrels.jsonl"


def mldr(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads MLDR: 13 languages, each with a corpus of its own. The split is "test"."""
    split = wanted.split or "test"
    collections: list[Collection] = []
    for language in LANGUAGES:
        for folder in folders(path, f"mldr-v1.0-{language}")[:1]:
            if wanted.takes(language, f"mldr/{language}"):
                docs = the_file(folder, LAYOUT, "corpus.jsonl")
                asked = the_file(folder, LAYOUT, f"{split}.jsonl")
                judgements = Judgements(*tevatron(asked), asked)
                corpus = record_corpus([docs], "mldr")
                collections.append(make(FACTS, language, split, corpus, judgements, wanted))
    return found(collections, path, wanted, LAYOUT)


def narrativeqa(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads NarrativeQA: a question, and the book or script that it was asked on. The split is "test".

    The corpus has the stories of the split alone. As in arXiv 2402.03216, a query id is the question's number.
    """
    split = wanted.split or "test"
    parquet = locate(path, f"{split}-*.parquet", f"data/{split}-*.parquet")
    if parquet:
        made = _hub(parquet)
    elif locate(path, "qaps.csv"):
        made = _github(path, split)
    else:
        return [_longembed(path, "narrativeqa", wanted)]
    corpus, queries, qrels, where = made
    judgements = Judgements(queries, qrels, where)
    return [make(NARRATIVE_FACTS, "en", split, corpus, judgements, wanted)]


def longembed(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads the six sets of LongEmbed (arXiv 2404.12096); their only split is called "test"."""
    names = [name for name in LONGEMBED if wanted.takes(name, f"{name}/en") and folders(path, name)]
    collections = [_longembed(folders(path, name)[0], name, wanted) for name in names]
    return found(collections, path, wanted, LONGEMBED_LAYOUT)


def _longembed(folder: Path, name: str, wanted: Wanted) -> Collection:
    docs, asked, judged = (
        the_file(folder, NARRATIVE_LAYOUT, f"{part}.jsonl") for part in ("corpus", "queries", "qrels")
    )
    qrels: Qrels = {}
    for place, raw in places_of(judged):
        record = parsed(raw, place)
        try:
            qrels.setdefault(str(record["qid"]), {})[str(record["doc_id"])] = 1
        except KeyError as error:
            raise place.error(f"expected qid and doc_id; {error} is missing") from None
    judgements = Judgements(record_queries([asked]), qrels, judged)
    return make(Facts(name), "en", "test", record_corpus([docs], "longembed"), judgements, wanted)


def _hub(files: list[Path]) -> tuple[FileCorpus, Queries, Qrels, Path]:
    """The files of the Hub: a row has a question and the whole story, so that a story comes many times."""
    queries: Queries = {}
    qrels: Qrels = {}
    for number, (place, row) in enumerate(_parts(files, ["document.id", "question.text"])):
        add_query(queries, str(number), row["question"]["text"], place)
        qrels[str(number)] = {str(row["document"]["id"]): 1}

    def read() -> Iterator[Document]:
        seen: set[str] = set()
        for _, row in _parts(files, ["document.id", "document.text"]):
            if row["document"]["id"] not in seen:
                seen.add(row["document"]["id"])
                yield Document(row["document"]["id"], row["document"]["text"])

    return FileCorpus.of(read, files, "narrativeqa"), queries, qrels, files[0]


def _parts(files: list[Path], columns: list[str]) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Some columns of Parquet files, 16 rows at a time: a row is a book."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for path in files:
        try:
            with pq.ParquetFile(path, memory_map=True) as file:
                number = 0
                for batch in file.iter_batches(batch_size=16, columns=columns):
                    for row in cast("list[dict[str, Any]]", batch.to_pylist()):
                        number += 1
                        if set(row) != {column.split(".")[0] for column in columns}:
                            raise DataError(f"expected the columns {', '.join(columns)}", path)
                        yield Place(path.as_posix(), number), row
        except pa.ArrowInvalid as error:
            raise DataError(f"not a Parquet file that can be read: {error}", path) from error


def _github(path: Path, split: str) -> tuple[FileCorpus, Queries, Qrels, Path]:
    """The files of the repository, with the stories that its script fetches."""
    documents = the_file(path, NARRATIVE_LAYOUT, "documents.csv")
    asked = the_file(path, NARRATIVE_LAYOUT, "qaps.csv")
    ids = [row["document_id"] for _, row in _csv(documents, ("document_id", "set")) if row["set"] == split]
    queries: Queries = {}
    qrels: Qrels = {}
    for place, row in _csv(asked, ("document_id", "set", "question")):
        if row["set"] == split:
            number = str(len(queries))
            add_query(queries, number, row["question"], place)
            qrels[number] = {row["document_id"]: 1}
    stories = [the_file(documents.parent, NARRATIVE_LAYOUT, f"tmp/{id_}.content") for id_ in ids]

    def read() -> Iterator[tuple[Place, Document]]:
        for id_, story in zip(ids, stories, strict=True):
            with open_source(story) as source:
                yield Place(source.name), Document(id_, read_text(source))

    return FileCorpus.of(lambda: distinct(read), stories, "narrativeqa"), queries, qrels, asked


def _csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[Place, dict[str, str]]]:
    with open_source(path) as source:
        rows = csv.DictReader(line.text for line in read_lines(source))
        for row in rows:
            if any(row.get(column) is None for column in columns):
                raise DataError(f"expected the columns {', '.join(columns)}", path, rows.line_num)
            yield Place(source.name, rows.line_num), row
