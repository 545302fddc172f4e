"""Whole documents, passages and late chunking on long documents: nDCG@10 of each score.

    python benchmarks/passages.py FOLDER --out benchmarks/results/passages.json [--model small] [--device cuda]

FOLDER is the folder `long` of `recipes/small/make_eval_sets.py`. A document scores what its best passage scores; all
passages of all documents are scored, so that no engine's recall plays a part. Each way is written as soon as it is
done, and those that are written already are left out.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from triptych.encode.encoder import Encoder
from triptych.io import write_json
from triptych.passages import PassageOptions, content_of, split
from triptych.records import Document, Section
from triptych.scores.on_numpy import combine
from triptych.scores.on_torch import device_scoring
from triptych.types import Encoded, HeadWeights

BLOCK = 300_000
"""Characters of documents that are encoded and scored at once."""

WAYS: dict[str, tuple[PassageOptions, bool, int | None]] = {
    "whole": (PassageOptions(passages="none"), False, None),
    "first 512": (PassageOptions(passages="none"), False, 512),
    **{
        f"{kind} {tokens}{' with headings' if context else ''}": (
            PassageOptions(passages=kind, passage_tokens=tokens),
            context,
            None,
        )
        for kind, tokens, context in (
            ("split", 128, False),
            ("split", 256, False),
            ("split", 256, True),
            ("split", 512, False),
            ("split", 1024, False),
            ("late", 128, False),
            ("late", 256, False),
            ("late", 512, False),
        )
    },
}
"""How documents are cut, whether passages begin with a title, and after how many tokens they are cut off."""


Judged: TypeAlias = tuple[str, dict[str, dict[str, float]], dict[str, set[str]]]
"""The split of a set, its judgements, and the documents that are left out of each query's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ways", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument(
        "--documents", type=int, help="a sample of so many that are asked for; by default all"
    )
    arguments = parser.parse_args()
    encoder = Encoder.from_pretrained(arguments.model, device=arguments.device)
    documents = list(_documents(arguments.folder))
    queries = {row["_id"]: row["text"] for row in _lines(arguments.folder / "queries.jsonl")}
    sets = list(_sets(arguments.folder))
    if arguments.documents is not None:
        documents, queries, sets = _sample(documents, queries, sets, arguments.documents)
    asked = encoder.encode_query(list(queries.values()))
    report: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    report |= {"model": arguments.model, "device": _name(encoder), "torch": torch.__version__}
    ways = report.setdefault("ways", {})
    for name in arguments.ways:
        if name in ways:
            continue
        started = time.perf_counter()
        scores, passages = _scores(encoder, asked, documents, *WAYS[name])
        seconds = time.perf_counter() - started
        places = {document.id: i for i, document in enumerate(documents)}
        values = _evaluate(scores, sets, {id_: i for i, id_ in enumerate(queries)}, places)
        ways[name] = {
            "documents": len(documents),
            "queries": len(queries),
            "passages": passages,
            "seconds": round(seconds, 1),
            **values,
        }
        write_json(arguments.out, report)
        print(name, passages, f"{seconds:.0f} s", values, flush=True)


def _documents(folder: Path) -> Iterator[Document]:
    """The documents; the first line of each is its title."""
    for row in _lines(folder / "corpus.jsonl"):
        title = row["text"].split("\n", 1)[0]
        yield Document(row["_id"], row["text"], None, {}, (Section(0, (title,)),))


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def _sets(folder: Path) -> Iterator[Judged]:
    """(split, judgements, documents left out) of each set."""
    for entry in json.loads((folder / "sets.json").read_text())["sets"]:
        qrels: dict[str, dict[str, float]] = {}
        for query, document, grade in _rows(folder / "qrels" / f"{entry['qrels']}.tsv"):
            qrels.setdefault(query, {})[document] = float(grade)
        left_out: dict[str, set[str]] = {}
        if entry.get("excluded"):
            for query, document, *_ in _rows(folder / "excluded" / f"{entry['excluded']}.tsv"):
                left_out.setdefault(query, set()).add(document)
        yield entry["split"], qrels, left_out


def _sample(
    documents: Sequence[Document], queries: Mapping[str, str], sets: Sequence[Judged], count: int
) -> tuple[list[Document], dict[str, str], list[Judged]]:
    """A part of the documents that are asked for, and the queries that ask for them."""
    asked = sorted({name for _, qrels, _ in sets for judged in qrels.values() for name in judged})
    chosen = set(np.random.default_rng(0).permutation(asked)[:count].tolist())
    some: list[Judged] = []
    for part, qrels, left_out in sets:
        kept = {query: judged for query, judged in qrels.items() if set(judged) & chosen}
        if kept:
            some.append((part, kept, left_out))
    names = {query for _, qrels, _ in some for query in qrels}
    return [d for d in documents if d.id in chosen], {q: queries[q] for q in queries if q in names}, some


def _rows(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file, delimiter="\t"))[1:]


def _scores(
    encoder: Encoder,
    asked: Encoded,
    documents: Sequence[Document],
    options: PassageOptions,
    context: bool,
    max_length: int | None,
) -> tuple[dict[str, np.ndarray], int]:
    """For each score ``[Q, N]``: the best passage's of each document; and how many passages there are."""
    half = torch.float16 if encoder.device.type == "cuda" else torch.float32
    scoring = device_scoring(encoder.device, half)(asked)
    found: dict[str, list[np.ndarray]] = {}
    passages = 0
    for block in _blocks(documents):
        spans = encoder.token_spans([document.text for document in block])
        cut = [split(d, places, options) for d, places in zip(block, spans, strict=True)]
        if options.passages == "none":
            limit = {} if max_length is None else {"max_length": max_length}
            encoded = encoder.encode_document([document.text for document in block], **limit)
            counts = [1] * len(block)
        elif options.passages == "late":
            parts = [[(passage.start, passage.end) for passage in own] for own in cut]
            encoded = encoder.encode_spans([document.text for document in block], parts)
            counts = [len(own) for own in cut]
        else:
            texts = [
                content_of(d, p) if context else d.text[p.start : p.end]
                for d, own in zip(block, cut, strict=True)
                for p in own
            ]
            encoded = encoder.encode_document(texts)
            counts = [len(own) for own in cut]
        scores = dict(scoring(encoded, encoded.heads))
        scores["all"] = combine(scores, HeadWeights())
        firsts = np.concatenate([[0], np.cumsum(counts)[:-1]])
        passages += sum(counts)
        for name, values in scores.items():
            found.setdefault(name, []).append(np.maximum.reduceat(values, firsts, axis=1))
    return {name: np.concatenate(parts, axis=1) for name, parts in found.items()}, passages


def _blocks(documents: Sequence[Document]) -> Iterator[list[Document]]:
    block: list[Document] = []
    size = 0
    for document in documents:
        block.append(document)
        size += len(document.text)
        if size >= BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _evaluate(
    scores: Mapping[str, np.ndarray],
    sets: Sequence[Judged],
    rows: Mapping[str, int],
    columns: Mapping[str, int],
) -> dict[str, dict[str, float]]:
    """nDCG@10 of each score, the mean over sets, for each split."""
    found: dict[str, dict[str, list[float]]] = {}
    for part, qrels, left_out in sets:
        for name, values in scores.items():
            each: list[float] = []
            for query, judged in qrels.items():
                row = values[rows[query]].copy()
                row[
                    [columns[id_] for id_ in left_out.get(query, set()) - set(judged) if id_ in columns]
                ] = -np.inf
                gains = np.zeros((1, len(row)))
                for document, grade in judged.items():
                    if document in columns:
                        gains[0, columns[document]] = grade
                each.append(_ndcg(row, gains[0]))
            found.setdefault(part, {}).setdefault(name, []).append(float(np.mean(each)))
    return {
        part: {name: round(100 * float(np.mean(v)), 2) for name, v in names.items()}
        for part, names in found.items()
    }


def _ndcg(scores: np.ndarray, gains: np.ndarray) -> float:
    """nDCG@10; equal scores in the order of the documents."""
    order = np.argsort(-scores, kind="stable")[:10]
    discounts = 1 / np.log2(np.arange(2, 12))
    best = float((np.sort(gains)[::-1][:10] * discounts[: min(10, len(gains))]).sum())
    return float((gains[order] * discounts[: len(order)]).sum()) / best if best else 0.0


def _name(encoder: Encoder) -> str:
    return torch.cuda.get_device_name(encoder.device) if encoder.device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
