"""BEIR folders as collections: the corpus is streamed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from triptych.data.beir import beir_files, read_qrels
from triptych.data.records import Fields, to_document
from triptych.data.rows import parsed, places_of
from triptych.errors import DataError
from triptych.eval.collection import Collection, Document, FileCorpus


def read_beir(
    folder: Path | str, split: str = "test", subset: str = "", name: str | None = None
) -> Collection:
    """Reads ``queries.jsonl`` and ``qrels/SPLIT.tsv`` of a folder; ``corpus.jsonl`` is left to be streamed.

    Args:
        folder: The BEIR folder.
        split: Which qrels.
        subset: What the collection calls itself within its data set.
        name: Of the data set; None: the folder's.

    Raises:
        DataError: For a missing file, a broken line, a query that is there twice, or a pair that is judged twice
            and differently.
    """
    folder = Path(folder)
    corpus, queries, qrels = beir_files(folder, split)
    texts: dict[str, str] = {}
    for place, raw in places_of(queries):
        query = to_document(parsed(raw, place), Fields(), place)
        if query.id in texts:
            raise place.error(f"duplicate id {query.id!r}; expected each id once")
        texts[query.id] = query.content
    judged: dict[str, dict[str, int]] = {}
    for one in read_qrels(qrels):
        known = judged.setdefault(one.query, {})
        if known.setdefault(one.document, int(one.value)) != int(one.value):
            raise DataError(
                f"query {one.query!r} and document {one.document!r} are judged twice, {known[one.document]} and "
                f"{int(one.value)}; expected one judgement",
                qrels,
                one.line,
            )
    if not judged:
        raise DataError("got no judgements; expected lines of query, document, relevance", qrels)
    asked = {query: text for query, text in texts.items() if query in judged}
    return Collection(
        name or folder.resolve().name,
        subset,
        FileCorpus.of(partial(_documents, corpus), [corpus], "beir"),
        asked,
        judged,
        split=split,
    )


def _documents(path: Path) -> Iterator[Document]:
    for place, raw in places_of(path):
        document = to_document(parsed(raw, place), Fields(), place)
        yield Document(document.id, document.content)
