"""BEIR folders: ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/SPLIT.tsv``, plain or compressed.

A folder with ``sets.json`` holds many sets over one corpus, as recipes/small/make_eval_sets.py writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from triptych.collections.base import Grades
from triptych.collections.evaluation import grades_of
from triptych.collections.files import Files
from triptych.collections.joined import Options, Tables, Text, cells_of, judgements_of, records_of
from triptych.errors import DataError
from triptych.io import open_source, read_text
from triptych.records import COMPRESSED, QUERY_FIELDS, Place, parse_object

_SETS = "sets.json"


@dataclass(frozen=True, slots=True)
class BeirSet:
    """A retrieval test collection in memory.

    Attributes:
        corpus: Document id to text, the title in front.
        queries: Query id to text; those that the split judges.
        qrels: Query id to {document id: relevance}, fractions too.
    """

    corpus: Mapping[str, str]
    queries: Mapping[str, str]
    qrels: Grades


def read_beir(files: Files, options: Options) -> Iterator[Tables]:
    """Reads a BEIR folder, or all that stand in a folder. Without a split it is "test", or the only one there is.

    Left out of a query's ranking is what a file ``excluded/SPLIT.tsv`` names (query, document).
    """
    for root in files.roots:
        folders = folders_of(root)
        if not folders:
            raise DataError("no folder with corpus.jsonl and queries.jsonl; expected a BEIR folder", root)
        for folder in folders:
            if (folder / _SETS).is_file():
                yield from _sets(folder, options)
                continue
            name, subset = (folder.name, "") if folder == root else (root.name, folder.name)
            if options.takes(name, subset):
                yield beir_tables(folder, options, name, subset)


def is_beir(path: Path) -> bool:
    """Whether the path is a folder with a corpus and queries."""
    return all(_find(path, f"{name}.jsonl") is not None for name in ("corpus", "queries"))


def folders_of(path: Path) -> list[Path]:
    """The BEIR folders with judgements among a folder and those up to two below it."""
    inner = [path, *sorted((*path.glob("*/"), *path.glob("*/*/")))]
    return [
        each for each in inner if is_beir(each) and ((each / "qrels").is_dir() or (each / _SETS).is_file())
    ]


def beir_tables(folder: Path, options: Options, name: str = "", subset: str = "") -> Tables:
    """The parts of one folder.

    Raises:
        DataError: If a file is missing; for the qrels it names the splits that are there.
    """
    corpus, queries = (_find(folder, f"{part}.jsonl") for part in ("corpus", "queries"))
    if corpus is None or queries is None:
        missing = "corpus" if corpus is None else "queries"
        raise DataError(f"no {missing}.jsonl in this folder; expected a BEIR folder", folder)
    splits = sorted({file.name.split(".tsv")[0] for file in (folder / "qrels").glob("*.tsv*")})
    split = options.split or (splits[0] if len(splits) == 1 else "test")
    qrels = _find(folder / "qrels", f"{split}.tsv")
    if qrels is None:
        there = ", ".join(splits) or "(none)"
        raise DataError(f"no qrels/{split}.tsv; this folder has the splits {there}", folder)
    excluded = _find(folder / "excluded", f"{split}.tsv")
    return Tables(
        queries=records_of([queries], QUERY_FIELDS),
        judgements=judgements_of([qrels]),
        documents=partial(records_of, [corpus]),
        files=[corpus],
        qrels=qrels,
        language=options.language,
        name=name,
        subset=subset,
        split=split,
        excluded=_read_excluded(excluded) if excluded else {},
        ignore_identical_ids=True,
    )


def load_beir(folder: Path | str, split: str = "test") -> BeirSet:
    """Reads a whole collection into memory, for evaluation.

    Raises:
        DataError: For a missing file, a broken line, an id that is there twice, judgements that contradict each
            other, or a judged query or document that is not there.
    """
    tables = beir_tables(Path(folder), Options(split=split))
    corpus = {text.id: text.content for text in _unique(tables.documents())}
    queries = {text.id: text.text for text in _unique(tables.queries)}
    judgements = list(tables.judgements)
    for query, document, _, place in judgements:
        if query not in queries:
            raise place.error(f"query {query!r} is not among the queries")
        if document not in corpus:
            raise place.error(f"document {document!r} is not in {tables.files[0].name}")
    qrels = grades_of(judgements, tables.qrels)
    return BeirSet(corpus, {id_: queries[id_] for id_ in qrels}, qrels)


def _unique(texts: Iterable[Text]) -> Iterator[Text]:
    seen: set[str] = set()
    for text in texts:
        if text.id in seen:
            raise text.place.error(f"duplicate id {text.id!r}; expected each id once")
        seen.add(text.id)
        yield text


def _sets(folder: Path, options: Options) -> Iterator[Tables]:
    corpus, asked = (_find(folder, f"{part}.jsonl") for part in ("corpus", "queries"))
    queries = list(records_of([asked] if asked else [], QUERY_FIELDS))
    files, split = [corpus] if corpus else [], options.split or "test"
    excluded: dict[str, dict[str, frozenset[str]]] = {}
    for entry in _entries(folder / _SETS):
        if entry["split"] != split or not options.takes(entry["name"], entry["subset"]):
            continue
        left_out = entry.get("excluded", "")
        if left_out and left_out not in excluded:
            excluded[left_out] = _read_excluded(folder / "excluded" / f"{left_out}.tsv")
        qrels = folder / "qrels" / f"{entry['qrels']}.tsv"
        yield Tables(
            queries=queries,
            judgements=judgements_of([qrels]),
            documents=partial(records_of, files),
            files=files,
            qrels=qrels,
            name=entry["name"],
            subset=entry["subset"],
            split=split,
            license=entry.get("license", entry.get("licence", "")),
            excluded=excluded.get(left_out, {}),
        )


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


def _read_excluded(path: Path) -> dict[str, frozenset[str]]:
    groups: dict[str, set[str]] = {}
    for _, (query, document) in cells_of(path, (2,), "query, document"):
        groups.setdefault(query, set()).add(document)
    return {query: frozenset(documents) for query, documents in groups.items()}


def _find(folder: Path, name: str) -> Path | None:
    return next(
        (folder / (name + end) for end in ("", *COMPRESSED) if (folder / (name + end)).is_file()), None
    )
