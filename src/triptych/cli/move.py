"""`triptych export`, `triptych copy` and `triptych switch`: indexes and vectors to other places and forms."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.cli.command import command
from triptych.cli.terminal import emit, progress, say, stdout

if TYPE_CHECKING:
    from triptych.index.store import EngineName
    from triptych.types import Head


@command(
    {
        "index": "INDEX",
        "output": "-o FILE",
        "outputs": "HEADS",
        "conditions": "-f --filter CONDITION",
        "filter_json": "JSON",
    }
)
def export(
    index: str,
    *,
    output: Path,
    outputs: tuple[Head, ...] | None = None,
    half: bool = False,
    with_tokens: bool = False,
    conditions: list[str] | None = None,
    filter_json: str | None = None,
) -> None:
    """Write the documents of an index, with their vectors if wanted, to a file for other programs.

    JSON Lines have id, text and metadata, and triptych index encodes them again. Parquet and Arrow have the vectors
    too, which triptych index takes as they are; NumPy (.npz, .npy) and .fvecs have vectors and ids alone.

    Example: triptych export my.index --output vectors.parquet --filter lang=en

    Args:
        index: Folder of the index, or a server's address.
        output: This file: .jsonl (compressed if .gz or .zst follows), .parquet, .arrow, .npz, .npy or .fvecs; '-' is
            JSON Lines on standard output.
        outputs: Vectors of these heads, such as dense,lexical; by default none for JSON Lines, dense for .npy and
            .fvecs, and else all.
        half: Numbers in 16 bits instead of 32.
        with_tokens: Also a column with the tokens that the lexical weights are of; loads the index's model.
        conditions: Only documents that fulfil this, as in triptych search; repeatable.
        filter_json: Only documents that fulfil this filter.
    """
    from triptych.cli.options import parse_filter
    from triptych.index import tables
    from triptych.index.index import Index
    from triptych.io import STDIN

    where = parse_filter(conditions or [], filter_json)
    with Index.open(index) as opened, progress() as draw:
        file = None if str(output) == STDIN else output
        options: dict[str, Any] = {"half": half, "with_tokens": with_tokens, "progress": draw}
        done = tables.export(opened, file or emit, outputs, filter=where, **options)
    say(f"{output}: {done} documents")


@command({"source": "FROM", "target": "TO"})
def copy(
    source: str,
    target: str,
    *,
    engine: EngineName = "auto",
    replace: bool = False,
    as_json: bool = False,
) -> None:
    """Copy an index to another place or engine, without encoding anything again.

    Folders, Qdrant's servers and PostgreSQL in all directions: documents, vectors, metadata, weights, and what
    triptych index needs to bring it in step with its files. The same command again goes on after an interruption; in
    the end the whole copy is read back and compared.

    Example: triptych copy my.index http://localhost:6333/my-index

    Args:
        source: Folder or address of the index.
        target: A new place, or what an earlier copy of the same index left.
        engine: The engine of a new folder: edge, or exact (NumPy, small collections).
        replace: Replace documents that differ in TO, and remove those that FROM does not have; without this they are an
            error.
    """
    from triptych.index.copy import copy as copy_index

    with progress() as draw:
        report = copy_index(source, target, engine=engine, replace=replace, progress=draw)
    if as_json:
        emit(asdict(report))
        return
    counts = {name: getattr(report, name) for name in ("copied", "unchanged", "removed")}
    parts = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing to copy"
    stdout().print(
        f"{report.place}: {report.documents} documents ({parts}), digest {report.digest}", soft_wrap=True
    )


@command({"name": "NAME", "target": "INDEX"})
def switch(name: str, target: str, *, as_json: bool = False) -> None:
    """Make a name stand for another index, at once, such as for one that a new model has made beside the old one.

    A name of a folder is a link to it; on Qdrant's server it is an alias. A server of triptych serve that has the name
    follows when it gets SIGHUP, and goes on answering meanwhile.

    Example: triptych switch docs docs-2.index

    Args:
        name: A link, or a new one; or the address of an alias, such as http://localhost:6333/docs.
        target: Folder of the index, or its address on the same server.
    """
    from triptych.index import alias

    before = alias.switch(name, target)
    if as_json:
        emit({"name": name, "index": alias.resolve(name), "before": before})
        return
    stdout().print(
        f"{name}: {alias.resolve(name)}" + (f" (before: {before})" if before else ""), soft_wrap=True
    )
