"""`triptych encode`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli import options as o
from triptych.errors import InputError

if TYPE_CHECKING:
    from triptych.cli.inputs import Inputs
    from triptych.encode.encoder import Encoder
    from triptych.types import Encoded

MANIFEST = "encoded.json"


def encode(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Files and folders to read; '-' is standard input.", metavar="INPUT"),
    ],
    into: Annotated[
        Path | None,
        typer.Option(
            "--into", "-o", metavar="FOLDER", help="Write blocks here; the same command again resumes."
        ),
    ] = None,
    jsonl: Annotated[
        bool, typer.Option("--jsonl", help="Write one JSON object a text to standard output instead.")
    ] = False,
    outputs: Annotated[
        str | None,
        typer.Option(
            "--outputs", metavar="HEADS", help="Heads to compute, such as dense,lexical; by default all."
        ),
    ] = None,
    as_queries: Annotated[
        bool, typer.Option("--as-queries", help="Encode as queries: with the model's prefix for those.")
    ] = False,
    max_length: Annotated[
        int | None, typer.Option("--max-length", help="Most tokens a text; by default what the model reads.")
    ] = None,
    block: Annotated[int, typer.Option("--block", help="Texts that are encoded and written at once.")] = 1024,
    format: o.FormatOption = None,
    id_field: o.IdFieldOption = None,
    text_field: o.TextFieldOption = None,
    title_field: o.TitleFieldOption = None,
    model: o.ModelOption = "small",
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = o.Dtype.auto,
    as_json: o.JsonOption = False,
) -> None:
    """Encode texts into dense vectors, lexical weights and token vectors.

    A FOLDER gets, for each block, NUMBER.safetensors with the arrays dense, lexical.data, lexical.indices,
    lexical.indptr, lexical.shape, multi.values and multi.offsets, NUMBER.ids.json with the texts' ids, and in
    the end encoded.json with what made them. With --jsonl each line has id, dense, lexical (token id to weight)
    and multi.

    Example: triptych encode corpus.jsonl --into vectors/ --outputs dense,lexical
    """
    from triptych.cli.inputs import Inputs, model_name
    from triptych.data.records import Fields
    from triptych.encode.encoder import Encoder

    if (into is None) != jsonl:
        raise InputError("encode: give either --into FOLDER or --jsonl")
    if jsonl and as_json:
        raise InputError("encode: --json reports on a folder; --jsonl is JSON already")
    heads = o.parse_heads(outputs, "--outputs")
    source = Inputs(inputs, format, Fields.of(id_field, text_field, title_field))
    total = source.count()
    source.note_skipped()
    encoder = Encoder.from_pretrained(model_name(model), device=device, dtype=dtype.value)
    options = {
        "outputs": heads or encoder.heads,
        "prefix": encoder.config.query_prefix if as_queries else encoder.config.document_prefix,
        "max_length": max_length,
    }
    started = time.perf_counter()
    if into is None:
        for ids, encoded in _blocks(encoder, source, block, total, options):
            _write_lines(ids, encoded)
        return
    report = _write_folder(encoder, source, into, (block, total), options)
    _report(into, report, time.perf_counter() - started, as_json)


def _blocks(
    encoder: Encoder,
    source: Inputs,
    block: int,
    total: int | None,
    options: dict[str, Any],
    folder: Path | None = None,
) -> Iterator[tuple[list[str], Encoded]]:
    """Ids and representations block by block; holds one block at a time."""
    from triptych.cli.console import progress

    waiting: list[list[str]] = []

    def texts() -> Iterator[str]:
        for documents in source.blocks(block):
            waiting.append([document.id for document in documents])
            yield from (document.content for document in documents)

    with progress("encoding", total, "texts") as advance:
        for encoded in encoder.encode_stream(texts(), block=block, folder=folder, **options):
            ids = waiting.pop(0)
            advance(len(ids))
            yield ids, encoded


def _write_folder(
    encoder: Encoder,
    source: Inputs,
    folder: Path,
    sizes: tuple[int, int | None],
    options: dict[str, Any],
) -> dict[str, Any]:
    from triptych.files import write_json

    block, total = sizes
    done = blocks = 0
    for ids, _ in _blocks(encoder, source, block, total, options, folder):
        path = folder / f"{blocks:08d}.ids.json"
        content = json.dumps(ids)
        if not path.is_file() or json.dumps(json.loads(path.read_bytes())) != content:
            write_json(path, ids)
        done, blocks = done + len(ids), blocks + 1
    left = sorted(folder.glob("*.safetensors"))[blocks:] if folder.is_dir() else []
    if left:
        raise InputError(f"{left[0]}: is of a longer input than this one; remove it, or give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "model": encoder.source,
        "fingerprint": encoder.fingerprint,
        "heads": list(options["outputs"]),
        "prefix": options["prefix"],
        "max_length": options["max_length"] or encoder.config.max_length,
        "block": block,
        "blocks": blocks,
        "texts": done,
    }
    write_json(folder / MANIFEST, facts)
    return facts


def _write_lines(ids: list[str], encoded: Encoded) -> None:
    from triptych.cli.console import emit

    for i, name in enumerate(ids):
        line: dict[str, Any] = {"id": name}
        if encoded.dense is not None:
            line["dense"] = _rounded(encoded.dense[i])
        if encoded.lexical is not None:
            start, end = encoded.lexical.indptr[i : i + 2]
            weights = _rounded(encoded.lexical.data[start:end])
            line["lexical"] = dict(zip(map(str, encoded.lexical.indices[start:end]), weights, strict=True))
        if encoded.multi is not None:
            line["multi"] = [_rounded(row) for row in encoded.multi[i]]
        emit(line)


def _rounded(values: Any) -> list[float]:
    """Seven digits: what a float32 holds."""
    return [float(f"{value:.7g}") for value in values.tolist()]


def _report(folder: Path, report: dict[str, Any], seconds: float, as_json: bool) -> None:
    from triptych.cli.console import emit, stdout

    if as_json:
        emit({"folder": str(folder), **report, "seconds": round(seconds, 3)})
        return
    texts, heads = report["texts"], ", ".join(report["heads"])
    stdout().print(
        f"{folder}: {texts} texts in {report['blocks']} blocks ({heads}), {texts / seconds:.1f} texts/s"
    )
