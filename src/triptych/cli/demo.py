"""`triptych demo`."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli import options as o
from triptych.errors import IndexExists

if TYPE_CHECKING:
    from triptych.data.records import Document, Query
    from triptych.encode.encoder import Encoder
    from triptych.retrieval import Index
    from triptych.types import Hit

_BLOCK = 128


def demo(
    dir: Annotated[
        Path | None,
        typer.Option(
            "--dir", metavar="FOLDER", help="Keep the index here, to go on with; else it is removed."
        ),
    ] = None,
    k: Annotated[int, typer.Option("--top", "-k", help="Hits a query.")] = 3,
    queries: Annotated[
        int | None, typer.Option("--queries", metavar="N", help="Show this many queries; by default all.")
    ] = None,
    model: o.ModelOption = "small",
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = o.Dtype.auto,
    as_json: o.JsonOption = False,
) -> None:
    """Index a small corpus in two dozen languages, search it in several, and show what each head found.

    Everything that it needs is part of the package: nothing is downloaded.
    """
    from triptych.cli.inputs import model_name
    from triptych.demo import load_corpus, load_queries
    from triptych.encode.encoder import Encoder
    from triptych.retrieval import Index

    corpus, asked = load_corpus(), load_queries()[:queries]
    with _place(dir) as folder:
        started = time.perf_counter()
        encoder = Encoder.from_pretrained(model_name(model), device=device, dtype=dtype.value)
        loaded = time.perf_counter() - started
        with Index.create(folder, encoder) as index:
            indexing = _fill(index, corpus)
            started = time.perf_counter()
            found = index.search([query.text for query in asked], k) if asked else []
            searching = time.perf_counter() - started
        times = {
            "documents": len(corpus),
            "queries": len(asked),
            "load_seconds": round(loaded, 3),
            "index_seconds": round(indexing, 3),
            "documents_per_second": round(len(corpus) / indexing, 1),
            "search_seconds": round(searching, 3),
        }
        if as_json:
            _emit(asked, found, times)
        else:
            _draw(encoder, corpus, (asked, found), times, dir)


@contextmanager
def _place(dir: Path | None) -> Generator[Path]:
    """A folder for the index: the given one, or one that is removed afterwards."""
    if dir is not None:
        if dir.exists() and (not dir.is_dir() or any(dir.iterdir())):
            raise IndexExists(f"--dir: {dir} is there already; expected the name of a new folder")
        yield dir
        return
    temporary = Path(tempfile.mkdtemp(prefix="triptych-demo-"))
    try:
        yield temporary / "demo.index"
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(index: Index, corpus: list[Document]) -> float:
    """Adds the corpus; gives the seconds it took."""
    from triptych.cli.console import progress
    from triptych.cli.inputs import metadata_of

    started = time.perf_counter()
    with progress("indexing the demo corpus", len(corpus), "passages") as advance:
        for start in range(0, len(corpus), _BLOCK):
            part = corpus[start : start + _BLOCK]
            contents = [document.content for document in part]
            index.add([d.id for d in part], contents, [metadata_of(d) for d in part], block=_BLOCK)
            advance(len(part))
    return time.perf_counter() - started


def _emit(asked: list[Query], found: list[list[Hit]], times: dict[str, Any]) -> None:
    from triptych.cli.console import emit
    from triptych.cli.draw import hit_json

    for query, hits in zip(asked, found, strict=True):
        for i, hit in enumerate(hits):
            emit({"query_id": query.id, "query": query.text, "lang": _lang(query), **hit_json(i + 1, hit)})
    emit({"times": times})


def _draw(
    encoder: Encoder,
    corpus: list[Document],
    results: tuple[list[Query], list[list[Hit]]],
    times: dict[str, Any],
    dir: Path | None,
) -> None:
    from rich.text import Text

    from triptych.cli import draw
    from triptych.cli.console import stdout
    from triptych.types import HEADS, HeadWeights

    asked, found = results
    console = stdout()
    languages = {document.metadata.get("lang") for document in corpus}
    default = HeadWeights()
    weights = HeadWeights(*(getattr(default, head) if head in encoder.heads else 0.0 for head in HEADS))
    console.print(
        Text(f"{len(corpus)} passages in {len(languages)} languages, three scores each", style="bold")
    )
    console.print(draw.legend(weights, encoder.heads))
    right = 0
    for query, hits in zip(asked, found, strict=True):
        relevant = query.metadata.get("relevant", [])
        right += bool(hits) and hits[0].id in relevant
        console.print()
        console.print(draw.heading(query.text, _lang(query)))
        draw.print_hits(console, hits, weights)
    console.print()
    summary = Text(f"{right} of {len(asked)} queries have a right passage on top. ", style="bold")
    summary.append(
        f"Loaded the model in {times['load_seconds']:.1f} s, indexed {times['documents']} passages in "
        f"{times['index_seconds']:.1f} s ({times['documents_per_second']:.0f} a second), searched "
        f"{times['queries']} queries in {times['search_seconds']:.1f} s."
    )
    console.print(summary)
    console.print(_next_steps(dir))


def _next_steps(dir: Path | None) -> Any:
    from rich.text import Text

    text = Text("\nWhat next:\n", style="bold")
    kept = dir is not None
    place = str(dir) if kept else "demo.index"
    steps = [] if kept else [("keep the demo's index", f"triptych demo --dir {place}")]
    steps += [
        ("see why a passage matched", f'triptych search {place} "black holes" -k 1 --explain'),
        ("search in one language", f'triptych search {place} "black holes" --filter lang=fr'),
        ("index your own files", "triptych index notes/ articles.jsonl --into my.index"),
        ("all commands and options", "triptych --help, triptych search --help"),
    ]
    for what, command in steps:
        text.append(f"  {what}\n", style="not bold").append(f"    {command}\n", style="not bold cyan")
    return text


def _lang(query: Query) -> str | None:
    lang = query.metadata.get("lang")
    return lang if isinstance(lang, str) else None
