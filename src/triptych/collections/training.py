"""Streams of training examples and of raw texts from files and folders, never held whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

from triptych.collections.base import Grades
from triptych.collections.beir import BeirSet, beir_tables, is_beir
from triptych.collections.examples import (
    LABEL,
    LANGUAGE,
    POSITIVES,
    QUERY,
    Example,
    Judged,
    join_judged,
    make_example,
    parse_record,
)
from triptych.collections.files import Files, first_keys, rows
from triptych.collections.joined import Dropped, Item, JudgedPassage, Labelled, Options, join
from triptych.errors import DataError, InputError
from triptych.io import BOM, STDIN, open_source, read_lines, read_text
from triptych.records import (
    JSONL,
    PARQUET,
    Fields,
    Place,
    csv_rows,
    ending,
    files_of,
    parse_cell,
    parse_object,
    parse_raw,
    places_of,
    table_records,
    to_document,
    tsv_rows,
)

TEXT = (".txt", ".text")
TABLES = (".csv", ".tsv")
FORMS: tuple[frozenset[str], ...] = (
    *(frozenset({"query", name}) for name in POSITIVES if name != "positive_ctxs"),
    frozenset({"messages", "positive_messages"}),
    frozenset({"queries", "corpus", "relevant_docs"}),
)
"""Fields by which files of training data are told."""


class RawText(NamedTuple):
    """A text for pre-training, where it stands, and what the file says of its language."""

    text: str
    place: Place
    language: str | None


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read.

    Attributes:
        split: The judgements of a BEIR folder that are used.
        positive_from: The least label or score of a positive, where passages are judged one by one.
        blank_negatives: "error", or "drop" for those who write ``"neg": [""]`` where there are none.
        on_error: Called with each record that cannot be used; reading goes on after it. None: it is raised.
        on_skip: Called with the place of each query that has no positive.
        on_record: Called with each record of JSON Lines and Parquet of which an example can be made: for fields
            that an example does not have.
    """

    split: str = "train"
    positive_from: float = 0.5
    blank_negatives: Literal["error", "drop"] = "error"
    on_error: Callable[[DataError], None] | None = None
    on_skip: Callable[[Place], None] | None = None
    on_record: Callable[[Place, Mapping[str, Any]], None] | None = None


def read_examples(
    sources: Path | str | Iterable[Path | str], reading: Reading | None = None
) -> Iterator[tuple[Place, Example]]:
    """Reads training examples from files and folders, in the forms that `triptych.collections.examples` knows.

    JSON Lines may be compressed by gzip or Zstandard. A folder with ``corpus.jsonl`` and ``queries.jsonl`` is a
    BEIR collection; of any other folder all .jsonl and .parquet files are read, in the order of their names.
    Pairs that are judged one by one are joined to one example as long as the same query follows itself; a query
    without any positive gives no example (`Reading.on_skip` tells).

    Yields:
        Where the example begins, and the example.

    Raises:
        DataError: For what cannot be read, with the file and the line (of a Parquet file: the row).
    """
    how = reading or Reading()
    for path in source_paths(sources):
        if is_beir(path):
            beir_tables(
                path, Options(split=how.split)
            )  # a missing file or split is an error, whatever `how` says
            yield from _usable(_catch_file_errors(_read_beir(path, how.split), how), how)
            continue
        for file in files_of(path, JSONL + PARQUET):
            yield from _usable(
                _catch_file_errors(_read_rows(_records(file), Place(str(file)), how), how), how
            )


def read_held_out(path: Path) -> BeirSet:
    """Training examples as a test collection: their passages together are the corpus, texts are their own ids.

    It is as hard as there are passages; those of other queries count as not relevant.

    Raises:
        DataError: As `read_examples`, and for a file without any example.
    """
    corpus: dict[str, str] = {}
    qrels: Grades = {}
    for _, example in read_examples(path):
        corpus |= {text: text for text in (*example.pos, *example.neg)}
        qrels.setdefault(example.query, {}).update(dict.fromkeys(example.pos, 1))
    if not qrels:
        raise DataError("no example in it; expected queries with relevant passages", path)
    return BeirSet(corpus, {query: query for query in qrels}, qrels)


def read_records(
    records: Iterable[tuple[Place, dict[str, Any]]], start: Place, reading: Reading
) -> Iterator[tuple[Place, Example]]:
    """Reads training examples from records that are in memory, each with its place, as `read_examples` does."""
    return _usable(_read_rows(records, start, reading), reading)


def read_texts(sources: Path | str | Iterable[Path | str], *, lines: bool = False) -> Iterator[RawText]:
    """Reads raw texts for pre-training.

    JSON Lines and Parquet hold them in ``text`` (or ``contents``, ``body``; a ``title`` goes in front) with,
    perhaps, a ``lang``. A .txt file is one text, or with `lines` each of its lines is one. Blank texts are passed
    over.

    Raises:
        DataError: For what cannot be read, with the file and the line.
    """
    for path in source_paths(sources):
        for file in files_of(path, JSONL + PARQUET + TEXT):
            for raw in _read_plain(file, lines) if ending(file) in TEXT else _read_records(file):
                if raw.text.strip():
                    yield raw


def source_paths(sources: Path | str | Iterable[Path | str]) -> list[Path]:
    """One or several paths as a list.

    Raises:
        InputError: For anything else.
    """
    paths: object = [sources] if isinstance(sources, str | Path) else sources
    if not isinstance(paths, Iterable) or isinstance(paths, Mapping | bytes):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"sources: got {sources!r:.60}; expected a path, or several")
    listed: list[object] = list(cast("Iterable[object]", paths))
    for path in listed:
        if not isinstance(path, str | Path):
            raise InputError(f"sources: got {path!r:.60} among them; expected paths")
    return [Path(path) for path in listed if isinstance(path, str | Path)]


def source_files(sources: Path | str | Iterable[Path | str], split: str = "train") -> list[Path]:
    """All files that are read for `sources`: what a cache's key has to cover.

    Raises:
        DataError: For a path that is not there, or standard input, which has no file.
    """
    files: list[Path] = []
    for path in source_paths(sources):
        if str(path) == STDIN:
            raise DataError("standard input cannot be read twice; expected a file or folder", STDIN)
        files += files_of(path, (*JSONL, *PARQUET, *TEXT, ".tsv"))
        if is_beir(path):  # a missing split is an error now and not after an hour of reading
            beir_tables(path, Options(split=split))
    return files


def _usable(found: Iterator[tuple[Place, Example | None]], how: Reading) -> Iterator[tuple[Place, Example]]:
    for place, example in found:
        if example is not None:
            yield place, example
        elif how.on_skip:
            how.on_skip(place)


def _catch_file_errors(
    found: Iterator[tuple[Place, Example | None]], how: Reading
) -> Iterator[tuple[Place, Example | None]]:
    """Hands an error that ends the file (bytes that are not UTF-8, a missing file) to `on_error`."""
    try:
        yield from found
    except DataError as error:
        if how.on_error is None:
            raise
        how.on_error(error)


def _read_beir(folder: Path, split: str) -> Iterator[tuple[Place, Example | None]]:
    options = Options(split=split)
    for item in join(beir_tables(folder, options), options, strict=True):
        if isinstance(item, Dropped) or not item.pos:
            yield item.place, None
            continue
        pos, neg = (tuple(passage.content for passage in side) for side in (item.pos, item.neg))
        yield item.place, make_example(item.place, query=item.query, pos=pos, neg=neg, id=item.id)


def _read_rows(
    rows: Iterable[tuple[Place, str | dict[str, Any]]], start: Place, how: Reading
) -> Iterator[tuple[Place, Example | None]]:
    waiting: list[Judged] = []
    for place, raw in rows:
        try:
            record = parse_raw(raw, place)
            made = parse_record(record, place, blank_negatives=how.blank_negatives == "error")
        except DataError as error:
            if how.on_error is None:
                raise
            how.on_error(error)
            continue
        if how.on_record:
            how.on_record(place, record)
        if isinstance(made, Example):
            yield from _join_waiting(waiting, start, how)
            waiting = []
            yield place, made
            continue
        for pair in made:
            if waiting and waiting[0].query != pair.query:
                yield from _join_waiting(waiting, start, how)
                waiting = []
            start = start if waiting else place
            waiting.append(pair)
    yield from _join_waiting(waiting, start, how)


def _records(file: Path) -> Iterator[tuple[Place, str | dict[str, Any]]]:
    """The records of a file: lines, rows of a table with a header, the elements of a JSON array, or LlamaIndex's."""
    if ending(file) in TABLES:
        with open_source(file) as source:
            lines, fields = read_lines(source), Fields((), QUERY, ())
            table = csv_rows(lines, fields, source.name) if ending(file) == ".csv" else tsv_rows(lines)
            for number, cells in table_records(table, fields, source.name):
                yield (
                    Place(source.name, number),
                    {name: parse_cell(cell) if name in LABEL else cell for name, cell in cells.items()},
                )
    elif ending(file) not in JSONL:
        yield from places_of(file)
    elif ending(file) == ".json" and first_keys(file) >= {"queries", "corpus", "relevant_docs"}:
        yield from _llama_index(file)
    else:
        with open_source(file) as source:
            start = source.head.removeprefix(BOM).split()[:1]
        if start == [b"{"]:
            raise DataError(
                "one JSON object over several lines; expected one object per line, or an array", file
            )
        yield from rows(file) if start and start[0][:1] == b"[" else places_of(file)


def _llama_index(file: Path) -> Iterator[tuple[Place, dict[str, Any]]]:
    """``{"queries": {id: text}, "corpus": {id: text}, "relevant_docs": {id: [id, …]}}``, as LlamaIndex saves it."""
    with open_source(file) as source:
        whole = parse_object(read_text(source), Place(source.name))
    queries, corpus, relevant = whole["queries"], whole["corpus"], whole["relevant_docs"]
    for number, (query, documents) in enumerate(relevant.items(), start=1):
        place = Place(file.as_posix(), record=number)
        if query not in queries or any(document not in corpus for document in documents):
            raise place.error(
                f"query {query!r} or one of its documents is not there; expected both in this file"
            )
        yield place, {"query": queries[query], "pos": [corpus[each] for each in documents], "id": query}


def _join_waiting(
    waiting: list[Judged], start: Place, how: Reading
) -> Iterator[tuple[Place, Example | None]]:
    if not waiting:
        return
    try:
        yield start, join_judged(waiting, how.positive_from, start)
    except DataError as error:
        if how.on_error is None:
            raise
        how.on_error(error)


def _read_plain(file: Path, lines: bool) -> Iterator[RawText]:
    with open_source(file) as source:
        if not lines:
            yield RawText(read_text(source), Place(source.name), None)
            return
        for line in read_lines(source):
            yield RawText(line.text, Place(source.name, line.number), None)


def _read_records(file: Path) -> Iterator[RawText]:
    for place, raw in places_of(file):
        record = parse_raw(raw, place)
        language = next((record[name] for name in LANGUAGE if isinstance(record.get(name), str)), None)
        yield RawText(to_document(record, Fields(id=()), place).content, place, language)


def read_training(files: Files, options: Options) -> Iterator[Item]:
    """Training data in any of its forms as labelled queries."""
    for path in files.roots:
        skipped: list[Place] = []
        reading = Reading(on_skip=skipped.append, positive_from=options.positive_from or 0.5)
        for place, example in read_examples(path, reading):
            yield from (Dropped(each, "no positive") for each in skipped)
            skipped.clear()
            pos, neg = (list(map(JudgedPassage, texts)) for texts in (example.pos, example.neg))
            yield Labelled(
                place,
                example.query,
                pos,
                options.sample(neg, example.query) if options.wants("given") else [],
                example.id,
                example.language,
            )
        yield from (Dropped(each, "no positive") for each in skipped)
