"""BEIR folders as labelled examples: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/SPLIT.tsv``.

BEIR folders; and folders of many sets over one corpus, as scripts/make_eval_sets.py writes them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from triptych.collections.base import Collection, Facts, Judgements, Wanted, Without, found, locate, make
from triptych.collections.files import Files
from triptych.collections.joined import Item, Options, Tables, Text, join
from triptych.collections.qrels import beir_files, is_beir, read_qrels
from triptych.collections.texts import qrels_of, record_corpus, record_queries, tsv_rows
from triptych.errors import DataError
from triptych.io import open_source, read_text
from triptych.records import Fields, Place, parse_object, parsed, places_of, to_document


def read_beir_folders(files: Files, options: Options) -> Iterator[Item]:
    """Reads folders of that form; a grade of 1 and more is a positive, unless the options say otherwise."""
    for folder in files.roots:
        if not is_beir(folder):
            raise DataError("no folder with corpus.jsonl and queries.jsonl; expected a BEIR folder", folder)
        corpus, queries, qrels = beir_files(folder, options.split)
        parts = Tables(
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


LAYOUT = "BEIR's corpus.jsonl, queries.jsonl and qrels/SPLIT.tsv, in the folder or in folders below it"
SETS = "sets.json"


def beir(path: Path, wanted: Wanted) -> list[Collection]:
    """Reads a BEIR folder, or all that stand in a folder. The split is "test", or the only one that is there.

    A document whose id is the query's (ArguAna, Quora) is left out of its ranking, even if it is relevant, as BEIR's
    own evaluation does (`Wanted.ignore_identical_ids`). So is what a file ``excluded/SPLIT.tsv`` names (query,
    document) unless it is relevant. With a file sets.json the folder holds many sets over one corpus.
    """
    collections: list[Collection] = []
    for folder in _folders(path):
        if (folder / SETS).is_file():
            collections += _sets(folder, wanted)
            continue
        name, subset = (folder.name, "") if folder == path else (path.name, folder.name)
        if wanted.takes(subset, f"{name}/{subset}"):
            collections.append(_one(folder, name, subset, wanted))
    return found(collections, path, wanted, LAYOUT)


def _folders(path: Path) -> list[Path]:
    inner = [path, *sorted((*path.glob("*/"), *path.glob("*/*/")))]
    return [folder for folder in inner if is_beir(folder)]


def _one(folder: Path, name: str, subset: str, wanted: Wanted) -> Collection:
    split = wanted.split or _usual(folder)
    documents, asked, judged = beir_files(folder, split)
    qrels = qrels_of(judged)
    groups: dict[str, frozenset[str]] = {}
    for file in locate(folder, f"excluded/{split}.tsv"):
        groups |= dict(Without(_excluded(file), qrels))
    if wanted.ignore_identical_ids:
        groups |= {query: groups.get(query, frozenset()) | {query} for query in qrels}
    judgements = Judgements(record_queries([asked]), qrels, judged, groups)
    return make(Facts(name), subset, split, record_corpus([documents], "beir"), judgements, wanted)


def _usual(folder: Path) -> str:
    splits = sorted({file.name.split(".")[0] for file in (folder / "qrels").glob("*.tsv*")})
    return splits[0] if len(splits) == 1 else "test"


def _sets(folder: Path, wanted: Wanted) -> list[Collection]:
    split = wanted.split or "test"
    chosen = [
        entry
        for entry in _entries(folder / SETS)
        if entry["split"] == split and wanted.takes(entry["subset"], f"{entry['name']}/{entry['subset']}")
    ]
    if not chosen:
        return []
    files = [locate(folder, name) for name in ("corpus.jsonl", "queries.jsonl")]
    corpus, queries = record_corpus(files[0][:1], "beir"), record_queries(files[1])
    names = {entry["excluded"] for entry in chosen if "excluded" in entry}
    groups = {name: _excluded(folder / "excluded" / f"{name}.tsv") for name in names}
    made: list[Collection] = []
    for entry in chosen:
        file = folder / "qrels" / f"{entry['qrels']}.tsv"
        qrels = qrels_of(file)
        excluded = Without(groups.get(entry.get("excluded"), {}), qrels)
        judgements = Judgements(queries, qrels, file, excluded)
        facts = Facts(entry["name"], licence=entry.get("licence", ""))
        made.append(make(facts, entry["subset"], split, corpus, judgements, wanted))
    return made


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    with open_source(path) as source:
        content = parse_object(read_text(source), Place(source.name))
    entries = content.get("sets")
    fields = ("name", "subset", "split", "qrels")
    if not isinstance(entries, list) or not all(
        isinstance(entry, dict) and all(isinstance(entry.get(field), str) for field in fields)
        for entry in entries
    ):
        raise DataError(f'expected {{"sets": […]}} with {", ".join(fields)} in each', path)
    yield from entries


def _excluded(path: Path) -> dict[str, frozenset[str]]:
    groups: dict[str, set[str]] = {}
    for _, (query, document) in tsv_rows(path, 2, "query, document"):
        groups.setdefault(query, set()).add(document)
    groups.pop("query-id", None)
    return {query: frozenset(documents) for query, documents in groups.items()}
