"""`triptych index`."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli import options as o
from triptych.errors import InputError

if TYPE_CHECKING:
    from triptych.cli.options import Inputs
    from triptych.index.index import Index


class Precision(StrEnum):
    """Forms of stored token vectors."""

    float32 = "float32"
    float16 = "float16"
    int8 = "int8"
    binary = "binary"
    none = "none"


class EngineChoice(StrEnum):
    """Engines of an index."""

    auto = "auto"
    edge = "edge"
    exact = "exact"
    server = "server"


def index(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(help="Files and folders to read; '-' is standard input.", metavar="INPUT"),
    ] = None,
    into: Annotated[
        str,
        typer.Option(
            "--into", "-o", metavar="INDEX", help="Folder of the index, or a server's address; made if new."
        ),
    ] = ...,  # type: ignore[assignment]
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata", metavar="KEY=VALUE", help="Stored with every document of this run; repeatable."
        ),
    ] = None,
    multi: Annotated[
        Precision | None,
        typer.Option(
            "--multi", help="New index: how token vectors are stored; float16 if not given, none: left out."
        ),
    ] = None,
    engine: Annotated[
        EngineChoice | None,
        typer.Option(
            "--engine", help="New index: edge (in a folder), exact (NumPy, small collections) or server."
        ),
    ] = None,
    delete: Annotated[
        list[str] | None,
        typer.Option(
            "--delete", metavar="ID", help="Remove this document; repeatable. Happens before adding."
        ),
    ] = None,
    delete_from: Annotated[
        Path | None,
        typer.Option(
            "--delete-from", metavar="FILE", help="Remove the documents with these ids, one a line."
        ),
    ] = None,
    optimize: Annotated[
        bool, typer.Option("--optimize", help="Rearrange the index for faster search in the end.")
    ] = False,
    block: Annotated[
        int, typer.Option("--block", help="Documents that are encoded and made durable at once.")
    ] = 128,
    format: o.FormatOption = None,
    skip_unreadable: Annotated[
        bool,
        typer.Option(
            "--skip-unreadable",
            help="Leave out files of a folder that are not UTF-8 or have a broken line, and count them.",
        ),
    ] = False,
    id_field: o.IdFieldOption = None,
    text_field: o.TextFieldOption = None,
    title_field: o.TitleFieldOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="New index: 'small' (bundled, the default), a checkpoint folder, or a Hub name such as "
            "BAAI/bge-m3. Old index: load its model from here instead of from where it was.",
        ),
    ] = None,
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = o.Dtype.auto,
    as_json: o.JsonOption = False,
) -> None:
    """Make an index of documents, or add to it; a document whose id is there already is replaced.

    Reads JSON Lines, TSV, CSV, text, Markdown, HTML, and folders of them, plain or compressed by gzip or
    Zstandard. What a run has stored when it is interrupted stays; the same command again completes it.

    Example: triptych index notes/ articles.jsonl.zst --into my.index --metadata lang=en
    """
    from triptych.cli.options import Inputs
    from triptych.records import Fields

    extra = o.parse_pairs(metadata or [], "--metadata")
    removed = [*(delete or []), *_ids_of(delete_from)]
    if not inputs and not removed and not optimize:
        raise InputError(
            "index: got nothing to do; expected files to read, --delete, --delete-from or --optimize"
        )
    source = Inputs(list(inputs or []), format, Fields.of(id_field, text_field, title_field), skip_unreadable)
    total = source.count() if source.paths else 0
    source.note_skipped()
    with _open_or_create(into, model, (device, dtype), (multi, engine), bool(inputs)) as opened:
        started = time.perf_counter()
        deleted = opened.delete(removed) if removed else 0
        added = _add(opened, source, extra, block, total)
        if optimize:
            opened.optimize()
        opened.flush()
        seconds = time.perf_counter() - started
        report = {"index": into, "added": added, "deleted": deleted, "documents": len(opened)}
    _report(report, seconds, as_json)


def _add(opened: Index, source: Inputs, extra: dict[str, Any], block: int, total: int | None) -> int:
    """Adds block by block; each is durable before the next is read."""
    from triptych.cli.failures import say
    from triptych.cli.options import metadata_of
    from triptych.cli.show import progress

    added = 0
    if not source.paths:
        return added
    try:
        with progress("indexing", total) as advance:
            for documents in source.blocks(block):
                opened.add(
                    [document.id for document in documents],
                    [document.content for document in documents],
                    [metadata_of(document, extra) for document in documents],
                    block=block,
                )
                added += len(documents)
                advance(len(documents))
    except BaseException:
        say(f"stopped after {added} documents, which are kept")
        raise
    return added


def _open_or_create(
    place: str,
    model: str | None,
    device: tuple[str | None, o.Dtype],
    chosen: tuple[Precision | None, EngineChoice | None],
    may_create: bool,
) -> Index:
    from triptych.cli.options import model_name
    from triptych.encode.encoder import Encoder
    from triptych.errors import IndexMissing
    from triptych.index.index import Index

    multi, engine = chosen
    try:
        with Index.open(place) as opened:
            source, layout = opened.info()["model"]["source"], opened.info()["layout"]
    except IndexMissing:
        if not may_create or (
            Path(place).exists() and (not Path(place).is_dir() or any(Path(place).iterdir()))
        ):
            raise
        name = model_name(model or o.default_model())
        encoder = Encoder.from_pretrained(name, device=device[0], dtype=device[1].value)
        options: Any = {} if multi is None else {"multi": multi.value}
        return Index.create(place, encoder, engine=(engine or EngineChoice.auto).value, **options)
    if multi is not None and multi.value != layout["multi"]:
        raise InputError(
            f"--multi: got {multi.value}; {place} stores token vectors as {layout['multi']}, which is chosen once"
        ) from None
    name = model_name(model or source)
    return Index.open(place, Encoder.from_pretrained(name, device=device[0], dtype=device[1].value))


def _ids_of(path: Path | None) -> list[str]:
    if path is None:
        return []
    from triptych.io import open_source, read_lines

    with open_source(path) as source:
        return [line.text.strip() for line in read_lines(source) if line.text.strip()]


def _report(report: dict[str, Any], seconds: float, as_json: bool) -> None:
    from rich.text import Text

    from triptych.cli.show import emit, stdout

    if as_json:
        emit({**report, "seconds": round(seconds, 3)})
        return
    text = Text(f"{report['index']}: {report['documents']} documents")
    text.append(
        f" ({report['added']} added or replaced, {report['deleted']} deleted, {seconds:.1f} s", style="dim"
    )
    text.append(f", {report['added'] / seconds:.1f} documents/s)" if report["added"] else ")", style="dim")
    stdout().print(text, soft_wrap=True)
