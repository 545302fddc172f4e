"""BEIR folders as labelled examples: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/SPLIT.tsv``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from triptych.data.beir import beir_files, is_beir, read_qrels
from triptych.data.labelled.collection import Collection, Text, join
from triptych.data.labelled.files import Files
from triptych.data.labelled.items import Item, Options
from triptych.data.records import Fields, to_document
from triptych.data.rows import parsed, places_of
from triptych.errors import DataError


def read_beir_folders(files: Files, options: Options) -> Iterator[Item]:
    """Reads folders of that form; a grade of 1 and more is a positive, unless the options say otherwise."""
    for folder in files.roots:
        if not is_beir(folder):
            raise DataError("no folder with corpus.jsonl and queries.jsonl; expected a BEIR folder", folder)
        corpus, queries, qrels = beir_files(folder, options.split)
        parts = Collection(
            queries=_texts(queries),
            judgements=read_qrels(qrels),
            documents=_texts(corpus),
            qrels=qrels,
            language=options.language,
        )
        yield from join(parts, options)


def _texts(path: Path) -> Iterator[Text]:
    for place, raw in places_of(path):
        document = to_document(parsed(raw, place), Fields(), place)
        yield Text(document.id, document.text, place, document.title)
