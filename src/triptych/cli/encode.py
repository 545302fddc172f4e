"""`triptych encode`.

`triptych score`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from triptych.cli import options as o
from triptych.errors import InputError

if TYPE_CHECKING:
    from triptych.cli.options import Inputs
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
    from triptych.cli.options import Inputs, model_name
    from triptych.encode.encoder import Encoder
    from triptych.records import Fields

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
    from triptych.cli.show import progress

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
    from triptych.io import write_json

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
    from triptych.cli.show import emit

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
    from triptych.cli.show import emit, stdout

    if as_json:
        emit({"folder": str(folder), **report, "seconds": round(seconds, 3)})
        return
    texts, heads = report["texts"], ", ".join(report["heads"])
    stdout().print(
        f"{folder}: {texts} texts in {report['blocks']} blocks ({heads}), {texts / seconds:.1f} texts/s"
    )


if TYPE_CHECKING:
    from triptych.encode.encoder import Encoder
    from triptych.records import Document, Query
    from triptych.types import Floats, Head, HeadWeights, Hit


def score(
    query: Annotated[
        list[str] | None, typer.Option("--query", "-q", metavar="TEXT", help="A query; repeatable.")
    ] = None,
    document: Annotated[
        list[str] | None, typer.Option("--document", "-d", metavar="TEXT", help="A document; repeatable.")
    ] = None,
    queries: Annotated[
        str | None,
        typer.Option(
            "--queries", metavar="FILE", help="Queries: plain lines, TSV, CSV or JSON Lines; '-' is stdin."
        ),
    ] = None,
    documents: Annotated[
        list[str] | None,
        typer.Option("--documents", metavar="INPUT", help="Documents: a file, a folder or '-'; repeatable."),
    ] = None,
    weights: o.WeightsOption = None,
    explain: o.ExplainOption = False,
    full: Annotated[bool, typer.Option("--full", help="Show whole texts instead of two lines.")] = False,
    format: o.FormatOption = None,
    model: o.ModelOption = "small",
    device: o.DeviceOption = None,
    dtype: o.DtypeOption = o.Dtype.auto,
    as_json: o.JsonOption = False,
) -> None:
    """Score every query with every document, without an index; for re-ranking, or to look at a model.

    Example: triptych score -q "what is a moka pot" -d "A moka pot brews coffee." -d "Ein Topf." --explain
    """
    from triptych.cli.options import model_name
    from triptych.encode.encoder import Encoder

    wanted = o.parse_weights(weights)
    asked, given = _texts(query, queries, document, documents, format)
    encoder = Encoder.from_pretrained(model_name(model), device=device, dtype=dtype.value)
    used = _weights(encoder, wanted)
    ranked = rank(encoder, asked, given, used)
    for one, hits in zip(asked, ranked, strict=True):
        _show(encoder, one, hits, used, (explain, full, as_json))


def rank(
    encoder: Encoder, queries: list[Query], documents: list[Document], weights: HeadWeights
) -> list[list[Hit]]:
    """All documents for each query, the best first, with the scores of all heads that the model has."""
    from triptych.cli.options import metadata_of
    from triptych.scores.on_numpy import combine, head_scores
    from triptych.types import Hit

    sides = (
        encoder.encode_query([query.text for query in queries]),
        encoder.encode_document([document.content for document in documents]),
    )
    scores: dict[Head, Floats] = {head: head_scores(*sides, head) for head in encoder.heads}
    total = combine(scores, weights)
    ranked: list[list[Hit]] = []
    for i in range(len(queries)):
        hits = [
            Hit(
                document.id,
                float(total[i, j]),
                _of_pair(scores, i, j),
                document.content,
                metadata_of(document),
            )
            for j, document in enumerate(documents)
        ]
        ranked.append(sorted(hits, key=lambda hit: (-hit.score, hit.id)))
    return ranked


def _of_pair(scores: Mapping[Head, Floats], i: int, j: int) -> dict[Head, float]:
    return {head: float(values[i, j]) for head, values in scores.items()}


def _texts(
    query: list[str] | None,
    queries: str | None,
    document: list[str] | None,
    documents: list[str] | None,
    format: o.Format | None,
) -> tuple[list[Query], list[Document]]:
    from triptych.cli.options import Inputs
    from triptych.documents import read_queries
    from triptych.records import Document, Fields, Query

    if bool(query) == (queries is not None):
        raise InputError("score: give either --query or --queries")
    if bool(document) == bool(documents):
        raise InputError("score: give either --document or --documents")
    if queries == "-" and "-" in (documents or []):
        raise InputError(
            "score: '-' for queries and documents; expected it once, since there is one standard input"
        )
    if any(not text.strip() for text in query or []):
        raise InputError("--query: got an empty text")
    asked = (
        list(read_queries(queries))
        if queries is not None
        else [Query(f"query-{i + 1}", text) for i, text in enumerate(query or [])]
    )
    if documents:
        return asked, list(Inputs(documents, format, Fields()).read())
    return asked, [Document(f"document-{i + 1}", text) for i, text in enumerate(document or [])]


def _weights(encoder: Encoder, wanted: HeadWeights | None) -> HeadWeights:
    """The given weights, or the default ones for the heads that the model has."""
    from triptych.types import HEADS, HeadWeights

    default = HeadWeights()
    return wanted or HeadWeights(
        *(getattr(default, head) if head in encoder.heads else 0.0 for head in HEADS)
    )


def _show(
    encoder: Encoder, query: Query, hits: list[Hit], weights: HeadWeights, flags: tuple[bool, bool, bool]
) -> None:
    from triptych.cli import show as draw
    from triptych.cli.show import emit, stdout
    from triptych.explain import explain

    explained, full, as_json = flags
    explanations = explain(encoder, query.text, [hit.text for hit in hits]) if explained else []
    if not as_json:
        console = stdout()
        console.print(draw.heading(query.text))
        console.print(draw.legend(weights, encoder.heads))
        draw.print_hits(console, hits, weights, explanations, lines=None if full else 2)
        console.print()
        return
    for i, hit in enumerate(hits):
        line: dict[str, Any] = {"query_id": query.id, "query": query.text, **draw.hit_json(i + 1, hit)}
        if explanations:
            line["explanation"] = draw.explanation_json(explanations[i])
        emit(line)
