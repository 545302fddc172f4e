"""`triptych demo` and `triptych info`."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from triptych.cli.command import command
from triptych.cli.options import Loading
from triptych.cli.terminal import emit, progress, stdout
from triptych.errors import IndexExists

if TYPE_CHECKING:
    from triptych.cli.options import Model
    from triptych.encode.encoder import Encoder
    from triptych.index.index import Index
    from triptych.records import Document, Query
    from triptych.types import Hit

_BLOCK = 128
_QUESTIONS = 6


@command({"dir": "FOLDER", "k": "-k --top", "whole": "--all"})
def demo(
    *,
    dir: Path | None = None,
    k: int = 3,
    queries: int | None = None,
    whole: bool = False,
    choice: Model,
    as_json: bool = False,
) -> None:
    """Index a small corpus in two dozen languages, search it in several, and show what each head found.

    Everything that it needs is part of the package: nothing is downloaded.

    Args:
        dir: Keep the index here, to go on with; else it is removed.
        k: Hits per query.
        queries: Ask this many questions; by default 6 of 16.
        whole: Index the whole corpus and ask all questions; without it a third of the passages is enough.
    """
    from triptych.demo import load_corpus, load_queries
    from triptych.index.index import Index

    if dir is not None and dir.exists() and (not dir.is_dir() or any(dir.iterdir())):
        raise IndexExists(f"--dir: {dir} is there already; expected the name of a new folder")
    corpus, asked = load_corpus(), load_queries()[: queries if queries is not None or whole else _QUESTIONS]
    if not whole:
        answers = {id for query in asked for id in query.metadata["relevant"]}
        corpus = [each for n, each in enumerate(corpus) if n % 3 == 0 or each.id in answers]
    with TemporaryDirectory(prefix="triptych-demo-", ignore_cleanup_errors=True) as temporary:
        started = time.perf_counter()
        encoder = choice.load()
        loaded = time.perf_counter() - started
        with Index.create(dir or Path(temporary, "demo.index"), encoder) as index:
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
        _draw(encoder, corpus, asked, found, times, dir)


def _fill(index: Index, corpus: list[Document]) -> float:
    """Adds the corpus; gives the seconds it took."""
    from triptych.cli.options import metadata_of

    started = time.perf_counter()
    with progress() as draw:
        for start in range(0, len(corpus), _BLOCK):
            part = corpus[start : start + _BLOCK]
            contents = [document.content for document in part]
            index.add([d.id for d in part], contents, [metadata_of(d) for d in part], block=_BLOCK)
            draw("indexing the demo corpus", start + len(part), len(corpus))
    return time.perf_counter() - started


def _emit(asked: list[Query], found: list[list[Hit]], times: dict[str, Any]) -> None:
    for query, hits in zip(asked, found, strict=True):
        for i, hit in enumerate(hits):
            emit(
                {
                    "query_id": query.id,
                    "query": query.text,
                    "lang": _lang(query),
                    "rank": i + 1,
                    **hit.to_json(),
                }
            )
    emit({"times": times})


def _draw(
    encoder: Encoder,
    corpus: list[Document],
    asked: list[Query],
    found: list[list[Hit]],
    times: dict[str, Any],
    dir: Path | None,
) -> None:
    from rich.text import Text

    from triptych.cli import show
    from triptych.cli.options import weights_or_default

    console = stdout()
    languages = {document.metadata.get("lang") for document in corpus}
    weights = weights_or_default(None, encoder.heads)
    console.print(
        Text(f"{len(corpus)} passages in {len(languages)} languages, three scores each", style="bold")
    )
    console.print(show.legend(weights))
    right = 0
    for query, hits in zip(asked, found, strict=True):
        relevant = query.metadata.get("relevant", [])
        right += bool(hits) and hits[0].id in relevant
        console.print()
        console.print(show.heading(query.text, _lang(query)))
        show.print_hits(console, hits, weights)
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

    place = dir or "demo.index"
    steps = {
        "index all of its passages, and keep the index": f"triptych demo --all --dir {place}",
        "see why a passage matched": f'triptych search {place} "black holes" -k 1 --explain',
        "search in one language": f'triptych search {place} "black holes" --filter lang=fr',
        "index your own files": "triptych index notes/ articles.jsonl --into my.index",
        "all commands and options": "triptych --help, triptych search --help",
    }
    text = Text("\nWhat next:\n", style="bold")
    for what, line in list(steps.items())[dir is not None :]:
        text.append(f"  {what}\n", style="not bold").append(f"    {line}\n", style="not bold cyan")
    return text


def _lang(query: Query) -> str | None:
    lang = query.metadata.get("lang")
    return lang if isinstance(lang, str) else None


@command({"place": "INDEX|MODEL"})
def info(place: str | None = None, *, loading: Loading, as_json: bool = False) -> None:
    """Show the machine, the device and arithmetic that would be used and why, and facts of an index or a model.

    Example: triptych info my.index

    Args:
        place: An index (folder or address), or a model ('small', a folder, a Hub name); none: the machine alone.
    """
    facts: dict[str, Any] = {"machine": machine(), "device": arithmetic(loading)}
    if place is not None:
        if is_index(place):
            facts["index"] = _index(place)
        else:
            facts["model"] = _model(place, loading)
    if as_json:
        emit(facts)
    else:
        _draw_info(facts)


def machine() -> dict[str, Any]:
    """Versions, processor, memory."""
    from importlib.metadata import version

    import torch

    from triptych import __version__

    packages = ("torch", "transformers", "tokenizers", "numpy", "scipy", "qdrant-edge-py")
    return {
        "triptych": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "packages": {name: version(name) for name in packages},
    }


def arithmetic(loading: Loading) -> dict[str, Any]:
    """The device and the type of the backbone's arithmetic that an encoder would get, and why."""
    import torch

    from triptych.model import backbone as devices

    device = devices.device_of(loading.device)
    dtype = devices.dtype_of(loading.dtype, device)
    whole, on_cpu = dtype is torch.float32, device.type == "cpu"
    if on_cpu:
        found = "no bfloat16 instructions (AMX or AVX512-BF16)" if whole else "bfloat16 instructions"
        why = f"the processor has {found}"
    else:
        why = "bfloat16 is not used on this device" if whole else "the device's fastest exact enough type"
    first = "there is no GPU that torch can use" if on_cpu else "the first GPU that torch can use"
    return {
        "device": str(device),
        "device_why": "as asked for" if loading.device else first,
        "dtype": str(dtype).removeprefix("torch."),
        "dtype_why": why if loading.dtype == "auto" else "as asked for",
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }


def is_index(place: str) -> bool:
    """Whether a place is (meant as) an index and not a model."""
    from triptych.index.storage import MANIFEST
    from triptych.index.store import is_address

    return is_address(place) or (Path(place) / MANIFEST).is_file()


def _index(place: str) -> dict[str, Any]:
    from triptych.index.index import Index
    from triptych.index.storage import folder_size
    from triptych.index.store import is_address

    with Index.open(place) as index:
        facts = index.info()
    if not is_address(place):
        facts["megabytes"] = round(folder_size(Path(place)) / 1e6, 1)
    return facts


def _model(name: str, loading: Loading) -> dict[str, Any]:
    from triptych.model import checkpoint as layouts
    from triptych.model import hub

    encoder = loading.load(name)
    folder = hub.resolve(name)
    return {
        "name": name,
        "folder": str(folder),
        "layout": layouts.layout_of(folder),
        "fingerprint": encoder.fingerprint,
        "parameters": encoder.parameters,
        "megabytes": round(sum(p.stat().st_size for p in folder.rglob("*") if p.is_file()) / 1e6, 1),
        "widths": dict(encoder.widths),
        "config": encoder.config.to_dict(),
    }


def _draw_info(facts: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    console = stdout()
    for name, part in facts.items():
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
        table.add_column(style="cyan", no_wrap=True)
        table.add_column(overflow="fold")
        for key, value in part.items():
            table.add_row(key.replace("_", " "), Text(_plain(value)))
        console.print(Text(name, style="bold"))
        console.print(table)
        console.print()


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return '""' if value == "" else str(value)
