"""`triptych index`, `triptych search` and `triptych verify`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from triptych.cli.command import command
from triptych.cli.terminal import emit, progress, say, stdout
from triptych.config import BLOCK_TOKENS
from triptych.errors import DataError, IndexLocked, IndexMissing, InputError, require_extra
from triptych.index.postgres_link import hide_password

if TYPE_CHECKING:
    from collections.abc import Callable

    from triptych.cli.options import Form, Inputs, Loading
    from triptych.client import Client
    from triptych.encode.encoder import Encoder
    from triptych.encode.stream import FinishedStream
    from triptych.explain import Explanation
    from triptych.index.index import Index
    from triptych.index.layout import LayoutOptions
    from triptych.index.search import SearchOptions
    from triptych.index.store import EngineName
    from triptych.index.sync import Changes
    from triptych.passages import PassageOptions
    from triptych.records import Query
    from triptych.types import HeadWeights, Hit

_PROBE_SECONDS = 5.0
_WATCH_MILLISECONDS = 1_000

_WORTH_SAYING = 10**8
"""Bytes from which on the size of an index is announced."""

_WHILE_BUILDING = 1.3
"""How much of its size an index needs at most while it is made."""


@command(
    {
        "inputs": "INPUT",
        "into": "-o INDEX",
        "metadata": "KEY=VALUE",
        "delete": "ID",
        "delete_from": "FILE",
        "query_weights_from": "FILE",
        "weights": "-w DENSE,LEXICAL,MULTI",
        "model": "-m",
        "from_stream": "FOLDER",
    },
    basic="into metadata multi engine delete passages keep watch format model as_json",
)
def index(
    inputs: list[str] | None = None,
    *,
    into: str,
    metadata: list[str] | None = None,
    storage: LayoutOptions,
    engine: EngineName | None = None,
    delete: list[str] | None = None,
    delete_from: Path | None = None,
    optimize: bool = False,
    passages: PassageOptions,
    keep: bool = False,
    watch: bool = False,
    from_stream: Path | None = None,
    block_tokens: int = BLOCK_TOKENS,
    weights: HeadWeights | None = None,
    query_weights_from: Path | None = None,
    form: Form,
    model: str | None = None,
    loading: Loading,
    as_json: bool = False,
) -> None:
    """Make an index of files and folders, or bring it in step with them.

    Reads JSON Lines, tables, text, Markdown, HTML, PDF, office files, e-books, notebooks, mail, source code, and
    folders and archives of them (docs/files.md). Long documents are cut into passages. The same command again encodes
    what is new or has changed, and removes what is gone; what a run has stored when it is interrupted stays. Of Parquet
    and Arrow files with vectors (docs/other-engines.md) these are taken, and nothing is encoded.

    Example: triptych index notes/ articles.jsonl.zst --into my.index --metadata lang=en

    Args:
        inputs: Files and folders to read; '-' is standard input.
        into: Folder of the index, or a server's address; made if new.
        metadata: Stored with every document of this run; repeatable.
        engine: New index: edge (in a folder), exact (NumPy, small collections), server or postgres (at an address).
        delete: Remove this document; repeatable. Happens before adding.
        delete_from: Remove the documents with these ids, one a line.
        optimize: Rearrange the index for faster search in the end.
        keep: Keep documents that came from these inputs before and are there no more.
        watch: Go on and follow changes of the inputs, until Ctrl-C.
        from_stream: Take the vectors of the inputs from this folder, where triptych encode wrote them, in as many
            processes as it took; the documents stay whole.
        block_tokens: Tokens that are encoded and made durable at once.
        weights: Keep these weights of the scores in the index, for searches that name none.
        query_weights_from: Count in the documents of this file or folder how rare a word is, instead of in the index's
            own, for triptych search --query-weights idf.
        model: New index: 'small' (bundled, the default), a checkpoint folder, or a Hub name such as BAAI/bge-m3. Old
            index: load its model from here instead of from where it was.
    """
    from triptych.cli.options import Inputs, parse_pairs

    extra = parse_pairs(metadata or [], "--metadata")
    removed = [*(delete or []), *_ids_of(delete_from)]
    if watch and not (inputs and all(Path(path).is_file() or Path(path).is_dir() for path in inputs)):
        raise InputError(f"--watch: got {' '.join(inputs or ['no input'])}; expected files and folders")
    if not (inputs or removed or optimize or weights or query_weights_from):
        raise InputError(
            "index: got nothing to do; expected files to read, --delete, --delete-from, --weights, "
            "--query-weights-from or --optimize"
        )
    tables = _tables_of(inputs or [], watch=watch)
    source = Inputs([] if tables else inputs or [], form)
    expected = source.check()
    stream = None
    if from_stream is not None:
        from triptych.encode.stream import FinishedStream

        stream, passages = FinishedStream(from_stream, source.texts), replace(passages, passages="none")
    with _open_or_create(into, model, loading, storage, engine, bool(inputs), tables) as opened:
        if weights is not None:
            opened.set_weights(weights)
        if query_weights_from is not None:
            from triptych.documents import read_documents

            counted = read_documents(query_weights_from, format=form.format, fields=form.fields)
            opened.set_query_weights(document.text for document in counted)
        started = time.perf_counter()
        deleted = opened.delete(removed) if removed else 0
        announce = None if "://" in into else partial(_announce, into, len(opened), expected)
        if tables:
            changes = _import(opened, tables, form, extra)
        else:
            changes = _synchronize(
                opened,
                source,
                passages,
                extra,
                keep=keep,
                block_tokens=block_tokens,
                on_first=announce,
                stream=stream,
            )
        if optimize:
            opened.optimize()
        opened.flush()
        _report(into, opened, changes, deleted, time.perf_counter() - started, as_json=as_json)
        for _ in _changes_of(source.paths, into) if watch else ():
            started = time.perf_counter()
            try:
                changes = _synchronize(opened, source, passages, extra, keep=keep, block_tokens=block_tokens)
            except DataError as error:  # half a line, a file that went away: the next change may mend it
                say(f"error: {error}; still watching")
                continue
            opened.flush()
            if any(asdict(replace(changes, unchanged=0)).values()):
                _report(into, opened, changes, 0, time.perf_counter() - started, as_json=as_json)


def _synchronize(
    opened: Index,
    source: Inputs,
    passages: PassageOptions,
    extra: dict[str, Any],
    *,
    keep: bool,
    block_tokens: int,
    on_first: Callable[[int, int], None] | None = None,
    stream: FinishedStream | None = None,
) -> Changes:
    """Brings an index in step with the inputs, block by block; each is durable before the next is read."""
    from triptych.index.sync import Changes

    if not source.paths:  # to delete or optimize needs no look at what the index has
        return Changes()
    with progress() as draw:
        run = opened.synchronizer(
            passages,
            metadata=extra,
            block_tokens=block_tokens,
            progress=draw,
            on_first=on_first,
            stream=stream,
        )
        try:
            source.add_to(run, keep=keep)
        except BaseException:
            done = run.changes
            kept = done.added + done.replaced + done.updated
            say(f"stopped after {kept} documents, which are kept; the same command again goes on from there")
            raise
    source.note_skipped()
    return run.changes


def _announce(place: str, there: int, expected: int, documents: int, size: int) -> None:
    """Says before a large index is made how large it will become, from its first documents."""
    coming = size * max(0, expected - there) // max(1, documents)
    free = shutil.disk_usage(Path(place)).free
    if coming >= _WORTH_SAYING:
        say(f"{place} will take about {coming / 1e9:.1f} GB more; the disk has {free / 1e9:.1f} GB left")
    if coming * _WHILE_BUILDING > free:
        say(
            f"warning: that is too little, with what the engine needs meanwhile ({_WHILE_BUILDING} times the size)"
        )


def _tables_of(inputs: list[str], *, watch: bool) -> list[Path]:
    """The inputs if they are files with vectors; none if they are to be encoded."""
    if not any(
        Path(path).suffix.lower() in (".parquet", ".pq", ".arrow", ".feather", ".ipc") for path in inputs
    ):
        return []
    from triptych.encode.tables import table_facts

    found = [Path(path) for path in inputs if table_facts(Path(path))]
    if found and (watch or len(found) < len(inputs)):
        raise InputError(
            f"index: got {found[0]}, which has vectors, {'and --watch' if watch else 'and inputs without'}; expected "
            "files with vectors alone"
        )
    return found


def _import(opened: Index, tables: list[Path], form: Form, extra: dict[str, Any]) -> Changes:
    """Takes documents with their vectors from files."""
    from triptych.index.sync import Changes
    from triptych.index.tables import import_table

    changes = Changes()
    with progress() as draw:
        for path in tables:
            changes.added += import_table(opened, path, fields=form.fields, metadata=extra, progress=draw)
    changes.passages = changes.added
    return changes


def _report(
    place: str, opened: Index, changes: Changes, deleted: int, seconds: float, *, as_json: bool
) -> None:
    place, documents, done = hide_password(place), len(opened), changes.added + changes.replaced
    if as_json:
        report = {"index": place, "added": done, "deleted": deleted, "documents": documents}
        emit({**report, **asdict(changes), "added": done, "new": changes.added, "seconds": round(seconds, 3)})
        return
    counts = asdict(changes) | {"removed": changes.removed + deleted, "passages": 0}
    parts = [f"{count} {name}" for name, count in counts.items() if count] or ["nothing changed"]
    cut = f" in {changes.passages} passages" if changes.passages != done else ""
    speed = f", {changes.passages / seconds:.1f} passages/s" if done and seconds else ""
    what = "passages" if opened.has_passages else "documents"
    text = f"{place}: {documents} {what} ({', '.join(parts)}{cut}, {seconds:.1f} s{speed})"
    stdout().print(text, soft_wrap=True)


def _changes_of(inputs: Sequence[str], index: str) -> Iterator[None]:
    """Waits for changes of files and folders, again and again; the first is what came while nobody was watching."""
    with require_extra("--watch", "files"):
        from watchfiles import watch
    paths = [Path(os.path.realpath(path)) for path in inputs]
    folders = {path for path in paths if path.is_dir()}
    own = Path(os.path.realpath(index))

    def counts(_: object, changed: str) -> bool:
        path = Path(changed)
        if path in paths:
            return True
        roots = [root for root in folders if path.is_relative_to(root)]
        hidden = all(any(part.startswith(".") for part in path.relative_to(root).parts) for root in roots)
        return not hidden and not path.is_relative_to(own)

    # A file is watched by its folder: an editor puts another one in its place.
    places = folders | {path.parent for path in paths if path not in folders}
    watching = False
    for changes in watch(
        *places,
        watch_filter=counts,
        recursive=bool(folders),
        rust_timeout=_WATCH_MILLISECONDS,
        yield_on_timeout=True,
    ):
        if changes or not watching:
            yield
        if not watching:
            say("watching for changes; Ctrl-C ends it")
            watching = True


@contextmanager
def _open_or_create(
    place: str,
    model: str | None,
    loading: Loading,
    storage: LayoutOptions,
    engine: EngineName | None,
    may_create: bool,
    tables: list[Path],
) -> Generator[Index]:
    """Opens an index, or makes one, of which nothing stays if nothing was stored in it.

    For files with vectors the model is loaded only if it is named.
    """
    from triptych.cli.options import default_model
    from triptych.index.index import Index
    from triptych.index.store import find_manifest

    def load(usual: str) -> Encoder | None:
        return None if tables and model is None else loading.encoder(model or usual)

    try:
        manifest = find_manifest(place)
    except IndexMissing:
        folder = Path(place)
        if not may_create or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise
        encoder, kind = load(default_model()), engine or "auto"
        if tables:
            from triptych.index.tables import create_for_table

            made = create_for_table(place, tables[0], encoder, engine=kind, **storage)
        else:
            made = Index.create(place, cast("Encoder", encoder), engine=kind, **storage)
        empty = True
        try:
            with made:
                try:
                    yield made
                finally:
                    empty = not len(made)
        except BaseException:
            if empty and folder.is_dir():
                shutil.rmtree(folder)
            raise
        return
    chosen = manifest.layout.options
    for name, value in storage.items():
        if chosen.get(name, value) != value:
            raise InputError(
                f"--{name.replace('_', '-')}: got {value}; {hide_password(place)} has {chosen[name]}, which is chosen "
                "once"
            )
    with Index.open(place, load(manifest.source)) as opened:
        yield opened


def _ids_of(path: Path | None) -> list[str]:
    if path is None:
        return []
    from triptych.io import open_source, read_lines

    with open_source(path) as source:
        return [line.text.strip() for line in read_lines(source) if line.text.strip()]


@command(
    {
        "index": "INDEX",
        "words": "QUERY",
        "queries": "-q FILE",
        "k": "-k --top",
        "weights": "-w DENSE,LEXICAL,MULTI",
        "routes": "-r",
        "candidates": "-c",
        "conditions": "-f --filter CONDITION",
        "filter_json": "JSON",
        "lexical_queries": "--query-weights",
        "options.filter": None,
        "explain": "-x --explain",
        "model": "-m",
    },
    basic="queries k weights conditions explain full model as_json",
)
def search(
    index: str,
    words: list[str] | None = None,
    *,
    queries: str | None = None,
    id_field: str | None = None,
    k: int = 10,
    conditions: list[str] | None = None,
    filter_json: str | None = None,
    options: SearchOptions,
    explain: bool = False,
    full: bool = False,
    model: str | None = None,
    loading: Loading,
    as_json: bool = False,
) -> None:
    """Search an index with all three heads.

    The dense and the lexical head recall candidates; all heads score them exactly; the weighted sum ranks them.

    Example: triptych search my.index how do I boil an egg --filter lang=en --explain

    Args:
        index: Folder of the index, or the address of one on a server (of triptych serve, or Qdrant's).
        words: One query ('-': queries from standard input).
        queries: Queries: plain lines, TSV, CSV or JSON Lines; '-' is stdin.
        id_field: Name of the field or column with the queries' ids, such as qid; by default id or _id.
        k: Hits per query.
        conditions: On metadata, or on the id: lang=fr, 'lang=fr|de' (either), 'lang!=fr', 'path^=docs/' (begins so),
            'year>=2020', 'author?' (is there), 'author!?' (is not). All must hold.
        filter_json: A filter as JSON, such as {"or": [{"lang": "fr"}, {"year": {"gte": 2020}}]}; see docs/index.md.
        explain: Show which words matched with which weights, and which document token each query token met.
        full: Show whole texts instead of two lines.
        model: Load the index's model from here instead of from where it was.
    """
    from triptych.cli.options import parse_filter, queries_of
    from triptych.records import Fields
    from triptych.types import HeadWeights

    fields = Fields()
    named = id_field and replace(fields, id=(id_field,), text=(*fields.text, "query", "question"))
    asked = queries_of(words or [], queries, named or None)
    chosen = options.copy()
    chosen["filter"] = parse_filter(conditions or [], filter_json)
    show_some = partial(show_hits, full=full, as_json=as_json, offset=options.get("offset", 0))
    if (remote := _server(index)) is not None:
        if model is not None:
            raise InputError("--model: the server has the index's model; expected none")
        _search_server(*remote, asked, k, chosen, explain, show_some)
        return
    by_idf = chosen.get("lexical_queries") == "idf"
    with _open(index, model, loading if model or not by_idf else None) as opened:
        if "group_by" not in chosen and opened.has_passages:
            chosen["group_by"] = "parent"  # the passages of one document side by side
        found = opened.search([query.text for query in asked], k, **chosen) if asked else []
        weights = cast("HeadWeights | None", chosen.get("weights")) or (
            HeadWeights(0, 1, 0) if by_idf else opened.weights
        )
        for query, hits in zip(asked, found, strict=True):
            explained: list[Explanation] = []
            if explain:
                from triptych import explain as why

                explained = (
                    why.explain_by_idf(opened, query.text, hits)
                    if by_idf
                    else why.explain(cast("Encoder", opened.encoder), query.text, [hit.text for hit in hits])
                )
            show_some(query.id, query.text, hits, explained, weights)


def _server(place: str) -> tuple[Client, str] | None:
    """A client and the name of an index on a server of `triptych serve`; None for a folder or Qdrant's server."""
    from triptych.client import Client, split_address

    if (parts := split_address(place)) is None:
        return None
    with Client(parts[0], timeout=_PROBE_SECONDS, retries=0) as probe:
        found = probe.is_triptych()
    return (Client(parts[0]), parts[1]) if found else None


def _search_server(
    client: Client,
    name: str,
    asked: list[Query],
    k: int,
    options: SearchOptions,
    explain: bool,
    show_some: Callable[[str, str, list[Hit], list[Explanation], HeadWeights], None],
) -> None:
    from triptych.explain import Explanation
    from triptych.types import HeadWeights

    with client:
        facts = client.info(name)
        own = HeadWeights.default if facts.get("sum") == "coverage" else HeadWeights.of
        weights = cast("HeadWeights | None", options.get("weights")) or own(facts["weights"])
        if "group_by" not in options and "parent" in facts["fields"]:
            options = {**options, "group_by": "parent"}
        texts = [query.text for query in asked]
        found = client.search(name, texts, k, explain=explain, **options) if asked else []
    for query, hits in zip(asked, found, strict=True):
        explained = [Explanation.from_json(each.explanation, each.hit.scores) for each in hits if explain]
        show_some(query.id, query.text, [each.hit for each in hits], explained, weights)


def _open(place: str, model: str | None, loading: Loading | None) -> Index:
    """Opens an index with its recorded model, or that model from another place; without `loading`, with none."""
    from triptych.index.index import Index
    from triptych.index.store import find_manifest

    encoder = None if loading is None else loading.encoder(model or find_manifest(place).source)
    try:
        return Index.open(place, encoder)
    except IndexLocked:
        return Index.open(place, encoder, read_only=True)


def show_hits(
    query_id: str,
    query: str,
    hits: list[Hit],
    explained: list[Explanation],
    weights: HeadWeights,
    *,
    full: bool,
    as_json: bool,
    offset: int = 0,
) -> None:
    """The hits of a query for people, or for machines."""
    from triptych.cli import show

    if not as_json:
        console = stdout()
        console.print(show.heading(query))
        console.print(show.legend(weights))
        show.print_hits(console, hits, weights, explained, lines=None if full else 2, offset=offset)
        console.print()
        return
    for i, hit in enumerate(hits):
        line = {"query_id": query_id, "query": query, "rank": offset + i + 1, **hit.to_json()}
        if explained:
            line["explanation"] = explained[i].to_json()
        emit(line)


@command({"place": "PATH"})
def verify(place: str, *, repair: bool = False, as_json: bool = False) -> None:
    """Check that the files of an index, a model, a training run or a cache are as they were written.

    Reads everything, in folders below too, and compares it with the digests that stand beside it. Ends with exit code 1
    if a file is damaged, and with 2 if there is nothing to compare.

    Example: triptych verify my.index

    Args:
        place: Folder of an index, a model, encoded texts, mined pairs, a training run, or what evaluation and training
            cached; or the address of an index in PostgreSQL.
        repair: Make an index one that can be opened again; files that cannot be read are moved to a folder in it.
    """
    from triptych.cli.demo import is_index
    from triptych.index.store import is_address

    if not Path(place).is_dir() and not is_address(place):
        raise InputError(f"verify: {place} is no folder; expected one that triptych wrote")
    if is_index(place):
        from triptych.index import check

        health = (check.repair if repair else check.check)(place)
        problems, facts = list(health.problems), health.to_json()
        problems += [f"{name}: put aside" for name in health.moved]
    else:
        if repair:
            raise InputError(f"verify: {place} is no index; expected one for --repair")
        problems = [f"{path}: {problem}" for path, problem in _damage_of(Path(place)).items()]
        facts = {"place": place, "problems": problems}
    if as_json:
        emit(facts)
    else:
        for problem in problems:
            stdout().print(problem, style="yellow", soft_wrap=True)
        what = "document" if is_address(place) else "file"
        found = f"{len(problems)} problems" if problems else f"every {what} is as it was written"
        stdout().print(f"{hide_password(place)}: {found}", style="bold", soft_wrap=True)
    if problems and not repair:
        raise typer.Exit(1)


def _damage_of(folder: Path) -> dict[Path, str]:
    """What is wrong with the files of a folder that is no index, and of those in it."""
    from triptych.io import DIGESTS, verify_digests
    from triptych.scores.packing import damage

    problems: dict[Path, str] = {}
    listings = sorted(folder.rglob(DIGESTS))
    for listing in listings:
        problems |= verify_digests(listing.parent)
    found = {path: damage(path) for path in sorted(folder.rglob("*.safetensors"))}
    if not listings and all(problem == "" for problem in found.values()):
        raise InputError(
            f"verify: {folder} has no file with a digest to compare; expected a folder that triptych wrote"
        )
    return problems | {path: problem for path, problem in found.items() if problem}
