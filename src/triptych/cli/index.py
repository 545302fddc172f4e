"""`triptych index` and `triptych search`."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from triptych.cli.command import command
from triptych.cli.terminal import emit, progress, say, stdout
from triptych.errors import IndexMissing, InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from triptych.cli.options import Form, Inputs, Loading
    from triptych.client import Client
    from triptych.encode.encoder import Encoder
    from triptych.explain import Explanation
    from triptych.index.index import Index
    from triptych.index.layout import TokenPrecision
    from triptych.index.search import SearchOptions
    from triptych.index.store import EngineName
    from triptych.records import Query
    from triptych.types import HeadWeights, Hit

CANDIDATES = 200
_PROBE_SECONDS = 5.0


@command(
    {
        "inputs": "INPUT",
        "into": "-o INDEX",
        "metadata": "KEY=VALUE",
        "delete": "ID",
        "delete_from": "FILE",
        "model": "-m",
    }
)
def index(
    inputs: list[str] | None = None,
    *,
    into: str,
    metadata: list[str] | None = None,
    multi: TokenPrecision | None = None,
    engine: EngineName | None = None,
    delete: list[str] | None = None,
    delete_from: Path | None = None,
    optimize: bool = False,
    block: int = 128,
    form: Form,
    model: str | None = None,
    loading: Loading,
    as_json: bool = False,
) -> None:
    """Make an index of documents, or add to it; a document whose id is there already is replaced.

    Reads JSON Lines, TSV, CSV, text, Markdown, HTML, and folders of them, plain or compressed by gzip or
    Zstandard. What a run has stored when it is interrupted stays; the same command again completes it.

    Example: triptych index notes/ articles.jsonl.zst --into my.index --metadata lang=en

    Args:
        inputs: Files and folders to read; '-' is standard input.
        into: Folder of the index, or a server's address; made if new.
        metadata: Stored with every document of this run; repeatable.
        multi: New index: how token vectors are stored; float16 if not given, none: left out.
        engine: New index: edge (in a folder), exact (NumPy, small collections) or server.
        delete: Remove this document; repeatable. Happens before adding.
        delete_from: Remove the documents with these ids, one a line.
        optimize: Rearrange the index for faster search in the end.
        block: Documents that are encoded and made durable at once.
        model: New index: 'small' (bundled, the default), a checkpoint folder, or a Hub name such as BAAI/bge-m3. Old
            index: load its model from here instead of from where it was.
    """
    from triptych.cli.options import Inputs, parse_pairs

    extra = parse_pairs(metadata or [], "--metadata")
    removed = [*(delete or []), *_ids_of(delete_from)]
    if not inputs and not removed and not optimize:
        raise InputError(
            "index: got nothing to do; expected files to read, --delete, --delete-from or --optimize"
        )
    source = Inputs(inputs or [], form)
    total = source.count() if inputs else 0
    source.note_skipped()
    with _open_or_create(into, model, loading, multi, engine, bool(inputs)) as opened:
        started = time.perf_counter()
        deleted = opened.delete(removed) if removed else 0
        added = _add(opened, source, extra, block, total) if inputs else 0
        if optimize:
            opened.optimize()
        opened.flush()
        seconds = time.perf_counter() - started
        documents = len(opened)
    if as_json:
        report = {"index": into, "added": added, "deleted": deleted, "documents": documents}
        emit({**report, "seconds": round(seconds, 3)})
        return
    speed = f", {added / seconds:.1f} documents/s" if added else ""
    done = f"{added} added or replaced, {deleted} deleted, {seconds:.1f} s{speed}"
    stdout().print(f"{into}: {documents} documents ({done})", soft_wrap=True)


def _add(opened: Index, source: Inputs, extra: dict[str, Any], block: int, total: int | None) -> int:
    """Adds block by block; each is durable before the next is read."""
    from triptych.cli.options import metadata_of

    added = 0
    try:
        with progress() as draw:
            for documents in source.blocks(block):
                opened.add(
                    [document.id for document in documents],
                    [document.content for document in documents],
                    [metadata_of(document, extra) for document in documents],
                    block=block,
                )
                added += len(documents)
                draw("indexing", added, total)
    except BaseException:
        say(f"stopped after {added} documents, which are kept")
        raise
    return added


def _open_or_create(
    place: str,
    model: str | None,
    loading: Loading,
    multi: TokenPrecision | None,
    engine: EngineName | None,
    may_create: bool,
) -> Index:
    from triptych.cli.options import default_model
    from triptych.index.index import Index

    try:
        with Index.open(place) as opened:
            source, layout = opened.info()["model"]["source"], opened.info()["layout"]
    except IndexMissing:
        folder = Path(place)
        if not may_create or (folder.exists() and (not folder.is_dir() or any(folder.iterdir()))):
            raise
        encoder = loading.encoder(model or default_model())
        options: Any = {} if multi is None else {"multi": multi}
        return Index.create(place, encoder, engine=engine or "auto", **options)
    if multi is not None and multi != layout["multi"]:
        raise InputError(
            f"--multi: got {multi}; {place} stores token vectors as {layout['multi']}, which is chosen once"
        ) from None
    return Index.open(place, loading.encoder(model or source))


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
        k: Hits a query.
        conditions: On metadata: lang=fr (again with lang=de: either), year>=2020, year<2025. All must hold.
        explain: Show which words matched with which weights, and which document token each query token met.
        full: Show whole texts instead of two lines.
        model: Load the index's model from here instead of from where it was.
    """
    from triptych.cli.options import parse_filter, queries_of, weights_or_default
    from triptych.records import Fields

    fields = Fields()
    named = id_field and replace(fields, id=(id_field,), text=(*fields.text, "query", "question"))
    asked = queries_of(words or [], queries, named or None)
    chosen = cast("SearchOptions", {"candidates": max(CANDIDATES, k), **options})
    chosen["filter"] = parse_filter(conditions or [])
    show_some = partial(show_hits, full=full, as_json=as_json)
    if (remote := _server(index)) is not None:
        if model is not None:
            raise InputError("--model: the server has the index's model; expected none")
        _search_server(*remote, asked, k, chosen, explain, show_some)
        return
    from triptych.explain import explain as explanations

    with _open(index, model, loading) as opened:
        found = opened.search([query.text for query in asked], k, **chosen) if asked else []
        widths = opened.info()["layout"]["widths"]
        weights = weights_or_default(cast("HeadWeights | None", chosen.get("weights")), widths)
        encoder = cast("Encoder", opened.encoder)
        for query, hits in zip(asked, found, strict=True):
            explained = explanations(encoder, query.text, [hit.text for hit in hits]) if explain else []
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
    from triptych.cli.options import weights_or_default
    from triptych.explain import Explanation

    with client:
        weights = weights_or_default(
            cast("HeadWeights | None", options.get("weights")), client.info(name)["heads"]
        )
        found = (
            client.search(name, [query.text for query in asked], k, explain=explain, **options)
            if asked
            else []
        )
    for query, hits in zip(asked, found, strict=True):
        explained = [Explanation.from_json(each.explanation, each.hit.scores) for each in hits if explain]
        show_some(query.id, query.text, [each.hit for each in hits], explained, weights)


def _open(place: str, model: str | None, loading: Loading) -> Index:
    """Opens an index with its recorded model, or that model from another place."""
    from triptych.index.index import Index

    with Index.open(place) as index:
        source = index.info()["model"]["source"]
    return Index.open(place, loading.encoder(model or source))


def show_hits(
    query_id: str,
    query: str,
    hits: list[Hit],
    explained: list[Explanation],
    weights: HeadWeights,
    *,
    full: bool,
    as_json: bool,
) -> None:
    """The hits of a query for people, or for machines."""
    from triptych.cli import show

    if not as_json:
        console = stdout()
        console.print(show.heading(query))
        console.print(show.legend(weights))
        show.print_hits(console, hits, weights, explained, lines=None if full else 2)
        console.print()
        return
    for i, hit in enumerate(hits):
        line = {"query_id": query_id, "query": query, "rank": i + 1, **hit.to_json()}
        if explained:
            line["explanation"] = explained[i].to_json()
        emit(line)


@command({"place": "PATH"})
def verify(place: Path, *, repair: bool = False, as_json: bool = False) -> None:
    """Check that the files of an index, a model or encoded texts are as they were written.

    Reads everything and compares it with the digests that stand beside it. Ends with exit code 1 if a file is damaged.

    Example: triptych verify my.index

    Args:
        place: Folder of an index, of a model, or of encoded texts.
        repair: Make an index one that can be opened again; files that cannot be read are moved to a folder in it.
    """
    from triptych.cli.demo import is_index

    if not place.is_dir():
        raise InputError(f"verify: {place} is no folder; expected one of an index, a model or encoded texts")
    if is_index(str(place)):
        from triptych.index import check

        health = (check.repair if repair else check.check)(place)
        problems, facts = list(health.problems), health.to_json()
        problems += [f"{name}: put aside" for name in health.moved]
    else:
        if repair:
            raise InputError(f"verify: {place} is no index; expected one for --repair")
        problems = [f"{path}: {problem}" for path, problem in _damaged(place).items()]
        facts = {"place": str(place), "problems": problems}
    if as_json:
        emit(facts)
    else:
        for problem in problems:
            stdout().print(problem, style="yellow", soft_wrap=True)
        found = f"{len(problems)} problems" if problems else "every file is as it was written"
        stdout().print(f"{place}: {found}", style="bold", soft_wrap=True)
    if problems and not repair:
        raise typer.Exit(1)


def _damaged(folder: Path) -> dict[Path, str]:
    """What is wrong with the files of a model or of encoded texts."""
    if any(folder.glob("*.ids.json")) or (folder / "encoded.json").is_file():
        from triptych.encode import stream

        return stream.verify(folder)
    from triptych.model import checkpoint

    return checkpoint.verify(folder)
