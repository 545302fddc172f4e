"""Short queries on long documents: NarrativeQA and the other sets of LongEmbed (arXiv 2404.12096)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, cast

from triptych.collections.files import Files, rows
from triptych.collections.joined import Judgement, Options, Tables, Text, records_of
from triptych.errors import DataError, require_extra
from triptych.io import open_source, read_lines, read_text
from triptych.records import QUERY_FIELDS, Fields, Place, csv_rows, table_records

LONGEMBED = ("narrativeqa", "summ_screen_fd", "qmsum", "2wikimqa", "passkey", "needle")
_PARTS = ("corpus", "queries", "qrels")


def is_narrativeqa(files: Files, _: frozenset[str]) -> bool:
    """Whether files are NarrativeQA's, in any of its forms."""
    return any(
        files.matching(r"qaps\.csv") or list(root.glob("data/test-*.parquet")) or _find(root, "qrels")
        for root in files.roots
    )


def is_longembed(files: Files, _: frozenset[str]) -> bool:
    """Whether a folder has LongEmbed's sets in it."""
    return any(_find(root / name, "qrels") for root in files.roots for name in LONGEMBED)


def read_narrativeqa(files: Files, options: Options) -> Iterator[Tables]:
    """Reads NarrativeQA: a question, and the book or script that it was asked on.

    Forms are the Hub's (Parquet files ``data/SPLIT-*.parquet`` with document and question), the repository's
    (``documents.csv``, ``qaps.csv`` and ``tmp/ID.content``) and LongEmbed's. The corpus has the stories of the split
    alone. As in arXiv 2402.03216, a query id is the question's number.
    """
    split = options.split or "test"
    if files.matching(r"qaps\.csv"):
        yield _repository(files, split)
    elif parquet := files.matching(rf"{split}-.*\.parquet"):
        yield _hub(parquet)
    else:
        yield _set(files.roots[0], "narrativeqa")


def read_longembed(files: Files, options: Options) -> Iterator[Tables]:
    """Reads the six sets of LongEmbed; their only split is called "test"."""
    for root in files.roots:
        for name in LONGEMBED:
            folder = root if root.name == name else root / name
            if folder.is_dir() and options.takes(name, "en"):
                yield _set(folder, name)


def _set(folder: Path, name: str) -> Tables:
    files = [_find(folder, part) for part in _PARTS]
    corpus, queries, qrels = (cast(Path, file) for file in files)
    if None in files:
        expected = ", ".join(f"{part}.jsonl" for part in _PARTS)
        raise DataError(f"no {name} in this folder; expected {expected}", folder)
    return Tables(
        queries=records_of([queries], QUERY_FIELDS),
        judgements=_relevant(qrels),
        documents=partial(records_of, [corpus]),
        files=[corpus],
        qrels=qrels,
        language="en",
        name=name,
        subset="en",
        split="test",
    )


def _find(folder: Path, part: str) -> Path | None:
    return next(
        (each for end in ("", ".gz", ".zst") if (each := folder / f"{part}.jsonl{end}").is_file()), None
    )


def _relevant(path: Path) -> Iterator[Judgement]:
    for place, record in rows(path):
        try:
            yield Judgement(str(record["qid"]), str(record["doc_id"]), 1, place)
        except KeyError as error:
            raise place.error(f"expected qid and doc_id; {error} is missing") from None


def _hub(files: list[Path]) -> Tables:
    """The files of the Hub: a row has a question and the whole story, so that a story comes many times."""
    asked = list(_columns(files, ["document.id", "question.text"]))

    def documents() -> Iterator[Text]:
        seen: set[str] = set()
        for place, row in _columns(files, ["document.id", "document.text"]):
            if row["document"]["id"] not in seen:
                seen.add(row["document"]["id"])
                yield Text(str(row["document"]["id"]), row["document"]["text"], place)

    return Tables(
        queries=[Text(str(n), row["question"]["text"], place) for n, (place, row) in enumerate(asked)],
        judgements=[
            Judgement(str(n), str(row["document"]["id"]), 1, place) for n, (place, row) in enumerate(asked)
        ],
        documents=documents,
        files=files,
        qrels=files[0],
        language="en",
        subset="en",
    )


def _columns(files: list[Path], columns: list[str]) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Some columns of Parquet files, 16 rows at a time: a row is a book."""
    with require_extra("reading Parquet", "eval"):
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


def _repository(files: Files, split: str) -> Tables:
    """The files of the repository, with the stories that its script fetches."""
    asked = files.one("questions", r"qaps\.csv")
    stories = files.one("list of documents", r"documents\.csv")
    questions = [each for each in _csv(asked, ("document_id", "set", "question")) if each[1]["set"] == split]
    ids = [row["document_id"] for _, row in _csv(stories, ("document_id", "set")) if row["set"] == split]
    texts = [stories.parent / "tmp" / f"{id_}.content" for id_ in ids]

    def documents() -> Iterator[Text]:
        for id_, story in zip(ids, texts, strict=True):
            with open_source(story) as source:
                yield Text(id_, read_text(source), Place(source.name))

    return Tables(
        queries=[Text(str(n), row["question"], place) for n, (place, row) in enumerate(questions)],
        judgements=[
            Judgement(str(n), row["document_id"], 1, place) for n, (place, row) in enumerate(questions)
        ],
        documents=documents,
        files=texts,
        qrels=asked,
        language="en",
        subset="en",
    )


def _csv(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[Place, dict[str, str]]]:
    with open_source(path) as source:
        fields = Fields(id=(), text=columns, title=())
        for number, row in table_records(
            csv_rows(read_lines(source), fields, source.name), fields, source.name
        ):
            if not row.keys() >= set(columns):
                raise DataError(f"expected the columns {', '.join(columns)}", path, number)
            yield Place(source.name, number), row
