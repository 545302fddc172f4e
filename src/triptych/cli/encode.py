"""`triptych encode` and `triptych score`."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triptych.cli.command import command
from triptych.cli.terminal import emit, progress, stdout
from triptych.errors import InputError

if TYPE_CHECKING:
    from triptych.cli.options import Form, Inputs, Model
    from triptych.documents import Format
    from triptych.encode.encoder import Encoder
    from triptych.records import Document, Query
    from triptych.types import Encoded, Head, HeadWeights, Hit

MANIFEST = "encoded.json"


@command(
    {"inputs": "INPUT...", "into": "-o PLACE", "outputs": "HEADS", "devices": "DEVICES", "shard": "I/N"},
    basic="into jsonl outputs with_text half max_length devices shard format model as_json",
)
def encode(
    inputs: list[str],
    *,
    into: Path | None = None,
    jsonl: bool = False,
    outputs: tuple[Head, ...] | None = None,
    with_text: bool = False,
    with_tokens: bool = False,
    half: bool = False,
    as_queries: bool = False,
    max_length: int | None = None,
    block: int = 1024,
    devices: tuple[str, ...] | None = None,
    shard: str | None = None,
    form: Form,
    choice: Model,
    as_json: bool = False,
) -> None:
    """Encode texts into dense vectors, lexical weights and token vectors.

    A folder as PLACE gets, for each block, NUMBER.safetensors with the arrays dense, lexical.data, lexical.indices,
    lexical.indptr, lexical.shape, multi.values and multi.offsets, NUMBER.ids.json with the texts' ids, and in
    the end encoded.json with what made them; the same command resumes. A PLACE that ends in .parquet, .arrow, .npz,
    .npy or .fvecs is one file for other programs (docs/other-engines.md). With --jsonl each line has id, dense,
    lexical (token id to weight) and multi.

    Example: triptych encode corpus.jsonl --into vectors/ --outputs dense,lexical

    Args:
        inputs: Files and folders to read; '-' is standard input.
        into: Write blocks into this folder, or all into this file.
        jsonl: Write one JSON object a text to standard output instead.
        outputs: Heads to compute, such as dense,lexical; by default all.
        with_text: A Parquet or Arrow file: with texts and metadata, as triptych index takes it.
        with_tokens: A Parquet or Arrow file: also with the tokens that the lexical weights are of.
        half: A file: numbers in 16 bits instead of 32.
        as_queries: Encode as queries: with the model's prefix for those.
        max_length: Maximum tokens per text; by default what the model reads.
        block: Texts that are encoded and written at once.
        devices: One worker process for each, such as cuda:0,cuda:1.
        shard: Encode part I of N, such as 2/8, for several machines that write into one folder; the last writes
            encoded.json.
    """
    from triptych.cli.options import Inputs
    from triptych.encode.tables import TABLES, json_rows
    from triptych.records import ending
    from triptych.types import check_heads

    if (into is None) != jsonl:
        raise InputError("encode: give either --into FOLDER or --jsonl")
    to_table = into is not None and ending(into) in TABLES
    if (with_text or with_tokens or half) and not to_table:
        raise InputError(
            "encode: --with-text, --with-tokens and --half need --into FILE.parquet, or another such file"
        )
    if jsonl and as_json:
        raise InputError("encode: --json reports on a folder; --jsonl is JSON already")
    heads = None if outputs is None else check_heads(outputs, "--outputs")
    part = _shard(shard)
    if shard is not None and (into is None or to_table):
        raise InputError("encode: --shard needs --into FOLDER, where the parts meet")
    source = Inputs(inputs, form)
    total = source.count()
    source.note_skipped()
    encoder = choice.load()
    prefix = encoder.config.query_prefix if as_queries else encoder.config.document_prefix
    options: dict[str, Any] = {"outputs": heads or encoder.heads, "prefix": prefix, "max_length": max_length}
    how: dict[str, Any] = {"block": block, "devices": devices, "shard": part}
    started = time.perf_counter()
    if into is None:
        for documents, encoded in _Blocks(encoder, source, total, {**how, **options}):
            for row in json_rows([document.id for document in documents], None, None, encoded, digits=7):
                emit(row)
        return
    if to_table:
        stream = _Blocks(encoder, source, total, {**how, **options})
        form_of_file = {"with_text": with_text, "with_tokens": with_tokens, "half": half}
        report = _write_table(encoder, stream, into, options["outputs"], **form_of_file)
    else:
        report = _write_folder(encoder, source, into, total, options, how)
    seconds = time.perf_counter() - started
    if as_json:
        emit({"file" if to_table else "folder": str(into), **report, "seconds": round(seconds, 3)})
        return
    texts, names = report["texts"], ", ".join(report["heads"])
    stdout().print(
        f"{into}: {texts} texts in {report['blocks']} blocks ({names}), {texts / seconds:.1f} texts/s"
        + (f"; {report['missing']} blocks of other parts are missing" if report.get("missing") else "")
    )


def _shard(value: str | None) -> tuple[int, int] | None:
    """I/N, from 1, as the number of the part, from 0, and the number of parts."""
    if value is None:
        return None
    first, _, second = value.partition("/")
    if not (first.isdecimal() and second.isdecimal() and 1 <= int(first) <= int(second)):
        raise InputError(f"--shard: got {value!r}; expected I/N, such as 2/8, with I from 1 to N")
    return int(first) - 1, int(second)


class _Blocks:
    """Iterated once: documents and representations block by block; holds a few blocks at a time.

    Args:
        encoder: The encoder.
        source: What is encoded.
        total: Texts there, if known.
        options: Of `Encoder.encode_stream`.

    Attributes:
        blocks: How many there are, those of other parts included; known in the end.
        texts: The same for texts.
    """

    def __init__(self, encoder: Encoder, source: Inputs, total: int | None, options: dict[str, Any]) -> None:
        self._encoder, self._source, self._total, self._options = encoder, source, total, options
        self._part, self._parts = options["shard"] or (0, 1)
        self._waiting: list[list[Document]] = []
        self.blocks = self.texts = 0

    def _contents(self) -> Iterator[str]:
        for documents in self._source.blocks(self._options["block"]):
            if self.blocks % self._parts == self._part:
                self._waiting.append(documents)
            self.blocks, self.texts = self.blocks + 1, self.texts + len(documents)
            yield from (document.content for document in documents)

    def __iter__(self) -> Iterator[tuple[list[Document], Encoded]]:
        done = 0
        total = None if self._parts > 1 else self._total
        with progress() as draw:
            for encoded in self._encoder.encode_stream(self._contents(), **self._options):
                documents = self._waiting.pop(0)
                done += len(documents)
                draw("encoding", done, total)
                yield documents, encoded


def _write_folder(
    encoder: Encoder,
    source: Inputs,
    folder: Path,
    total: int | None,
    options: dict[str, Any],
    how: dict[str, Any],
) -> dict[str, Any]:
    from triptych.io import write_digests, write_json

    part, parts = how["shard"] or (0, 1)
    stream, done, own = _Blocks(encoder, source, total, {**how, **options, "folder": folder}), 0, 0
    for documents, _ in stream:
        ids = [document.id for document in documents]
        path = folder / f"{own * parts + part:08d}.ids.json"
        if not path.is_file() or json.loads(path.read_bytes()) != ids:
            write_json(path, ids)
        done, own = done + len(ids), own + 1
    names = [f"{number:08d}" for number in range(stream.blocks)]
    stored = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if left := [path for path in stored if path.stem not in set(names)]:
        raise InputError(f"{left[0]}: is of a longer input than this one; remove it, or give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "model": encoder.source,
        "fingerprint": encoder.fingerprint,
        "heads": list(options["outputs"]),
        "prefix": options["prefix"],
        "max_length": options["max_length"] or encoder.config.max_length,
        "block": how["block"],
        "blocks": stream.blocks,
        "texts": stream.texts,
    }
    # An ids file is written after its block.
    missing = sum(not (folder / f"{name}.ids.json").is_file() for name in names)
    if not missing:
        write_json(folder / MANIFEST, facts)
        # Blocks have their own digests.
        write_digests(folder, [*sorted(folder.glob("*.ids.json")), folder / MANIFEST])
    return facts if how["shard"] is None else {**facts, "blocks": own, "texts": done, "missing": missing}


def _write_table(
    encoder: Encoder,
    stream: _Blocks,
    path: Path,
    heads: Sequence[Head],
    *,
    with_text: bool,
    with_tokens: bool,
    half: bool,
) -> dict[str, Any]:
    from triptych.cli.options import metadata_of
    from triptych.encode.tables import writing

    facts = {"model": {"source": encoder.source, "fingerprint": encoder.fingerprint}}
    widths: dict[Head, int] = {head: encoder.widths[head] for head in heads}
    tokens = encoder.tokenizer.pieces if with_tokens else None
    with writing(path, widths, facts, half=half, tokens=tokens, with_text=with_text) as write:
        for documents, encoded in stream:
            ids, texts = [each.id for each in documents], [each.content for each in documents]
            write(ids, texts, [metadata_of(each) for each in documents], encoded)
    return {**facts["model"], "heads": list(heads), "blocks": stream.blocks, "texts": stream.texts}


@command(
    {
        "query": "-q TEXT",
        "queries": "FILE",
        "document": "-d TEXT",
        "documents": "INPUT",
        "weights": "-w DENSE,LEXICAL,MULTI",
        "explain": "-x --explain",
    }
)
def score(
    *,
    query: list[str] | None = None,
    queries: str | None = None,
    document: list[str] | None = None,
    documents: list[str] | None = None,
    weights: HeadWeights | None = None,
    explain: bool = False,
    full: bool = False,
    format: Format | None = None,
    choice: Model,
    as_json: bool = False,
) -> None:
    """Score every query with every document, without an index; for re-ranking, or to look at a model.

    Example: triptych score -q "what is a moka pot" -d "A moka pot brews coffee." -d "Ein Topf." --explain

    Args:
        query: A query; repeatable.
        queries: Queries: plain lines, TSV, CSV or JSON Lines; '-' is stdin.
        document: A document; repeatable.
        documents: Documents: a file, a folder or '-'; repeatable.
        weights: Weights of the three scores in their sum; by default dense + 0.3·coverage³ + 3·multi, of
            the heads that there are.
        explain: Show which words matched with which weights, and which document token each query token met.
        full: Show whole texts instead of two lines.
        format: Format of the documents; by default by the files' endings.
    """
    from triptych.cli.index import show_hits
    from triptych.cli.options import weights_or_default
    from triptych.explain import explain as explanations

    asked, given = _texts(query, queries, document, documents, format)
    encoder = choice.load()
    used = weights_or_default(weights, encoder.heads)
    for one, hits in zip(asked, rank(encoder, asked, given, used), strict=True):
        explained = explanations(encoder, one.text, [hit.text for hit in hits]) if explain else []
        show_hits(one.id, one.text, hits, explained, used, full=full, as_json=as_json)


def rank(
    encoder: Encoder, queries: Sequence[Query], documents: Sequence[Document], weights: HeadWeights
) -> list[list[Hit]]:
    """All documents for each query, the best first, with the scores of all heads that the model has."""
    from triptych.cli.options import metadata_of
    from triptych.scores.on_numpy import combine, head_scores
    from triptych.types import Hit

    asked = encoder.encode_query([query.text for query in queries])
    given = encoder.encode_document([document.content for document in documents])
    scores: dict[Head, Any] = {head: head_scores(asked, given, head) for head in encoder.heads}
    total = combine(scores, weights, asked)
    ranked: list[list[Hit]] = []
    for i in range(len(queries)):
        hits = [
            Hit(
                document.id,
                float(total[i, j]),
                {head: float(values[i, j]) for head, values in scores.items()},
                document.content,
                metadata_of(document),
            )
            for j, document in enumerate(documents)
        ]
        ranked.append(sorted(hits, key=lambda hit: (-hit.score, hit.id)))
    return ranked


def _texts(
    query: list[str] | None,
    queries: str | None,
    document: list[str] | None,
    documents: list[str] | None,
    format: Format | None,
) -> tuple[list[Query], list[Document]]:
    from triptych.cli.options import Form, Inputs
    from triptych.documents import read_queries
    from triptych.records import Document, Query

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
    if queries is not None:
        asked = list(read_queries(queries))
    else:
        asked = [Query(f"query-{i + 1}", text) for i, text in enumerate(query or [])]
    if documents:
        return asked, list(Inputs(documents, Form(format)).read())
    return asked, [Document(f"document-{i + 1}", text) for i, text in enumerate(document or [])]
