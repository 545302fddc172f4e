"""Latency and recall of hybrid search by engine, on synthetic vectors that resemble a corpus with topics.

The latencies are the point. The recall with the default weights says little: in these vectors the lexical part of
the sum varies twenty times as much as the multi-vector part, so that few candidates already hold the whole top 10.
Judge candidates and routes on a real corpus.

Usage: python benchmarks/bench_index.py FOLDER [--documents N] [--tokens T] [--width D]
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from scipy import sparse

from triptych.index.layout import Layout, LayoutOptions, Payload
from triptych.index.search import hybrid_search, make_plan
from triptych.index.store import EngineName, Store, create_store
from triptych.types import Encoded, Ragged

VOCABULARY = 30_000


class Corpus:
    def __init__(self, tokens: int, width: int, topics: int) -> None:
        self.rng = np.random.default_rng(0)
        self.tokens = tokens
        self.topics = self.rng.standard_normal((topics, width)).astype(np.float32)

    def texts(self, n: int, tokens: int) -> Encoded:
        topic = self.rng.integers(0, len(self.topics), n)
        width = self.topics.shape[1]
        dense = self.topics[topic] + 1.5 * self.rng.standard_normal((n, width)).astype(np.float32)
        rows = self.topics[np.repeat(topic, tokens)] + 2 * self.rng.standard_normal(
            (n * tokens, width)
        ).astype(np.float32)
        own = (topic[:, None] * 100 + self.rng.integers(0, 150, (n, tokens))) % VOCABULARY
        places = np.repeat(np.arange(n), tokens)
        weights = self.rng.random(n * tokens).astype(np.float32)
        lexical = sparse.csr_array((weights, (places, own.ravel())), shape=(n, VOCABULARY))
        lexical.sum_duplicates()
        return Encoded(unit(dense), lexical, Ragged(unit(rows), np.arange(n + 1, dtype=np.int64) * tokens))


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def build(
    folder: Path, engine: EngineName, options: LayoutOptions, corpus: Corpus, n: int
) -> tuple[Store, float]:
    widths = {"dense": corpus.topics.shape[1], "lexical": VOCABULARY, "multi": corpus.topics.shape[1]}
    store = create_store(str(folder), engine, Layout.of(widths, options), ("bench", "0"))
    corpus.rng = np.random.default_rng(1)
    seconds = 0.0
    for start in range(0, n, 250):
        part = corpus.texts(250, corpus.tokens)
        payloads = [Payload(id=f"{i}", text="text " * 60, metadata={}) for i in range(start, start + 250)]
        begin = time.perf_counter()
        store.engine.add(part, payloads)
        seconds += time.perf_counter() - begin
    return store, n / seconds


def timed(
    store: Store, queries: Encoded, routes: tuple[str, ...], candidates: int
) -> tuple[float, list[list[str]]]:
    plan = make_plan(store.engine, 10, {"routes": routes, "candidates": candidates})  # type: ignore[typeddict-item]
    times, found = [], []
    for i in range(len(queries)):
        begin = time.perf_counter()
        hits = hybrid_search(store.engine, queries[i : i + 1], plan)[0]
        times.append(time.perf_counter() - begin)
        found.append([hit.id for hit in hits])
    return float(np.median(times)) * 1e3, found


def recall(found: list[list[str]], truth: list[list[str]]) -> float:
    return float(np.mean([len(set(a) & set(b)) / len(b) for a, b in zip(found, truth, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--documents", type=int, default=5000)
    parser.add_argument("--tokens", type=int, default=80)
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--topics", type=int, default=20, help="fewer: more documents resemble each query")
    parser.add_argument("--cases", type=int, help="only the first so many")
    parser.add_argument("--queries", type=int, default=20)
    args = parser.parse_args()
    corpus = Corpus(args.tokens, args.width, args.topics)
    cases: list[tuple[EngineName, LayoutOptions]] = [
        ("exact", {}),
        ("edge", {}),
        ("edge", {"multi": "int8"}),
        ("edge", {"multi": "binary"}),
        ("edge", {"exact_below": 0}),
    ]
    truth: list[list[str]] = []
    for number, (engine, options) in enumerate(cases[: args.cases]):
        store, rate = build(args.folder / str(number), engine, options, corpus, args.documents)
        if options.get("exact_below") == 0:
            store.engine.optimize()
        queries = Corpus(args.tokens, args.width, args.topics).texts(args.queries, 24)
        if not truth:
            truth = timed(store, queries, ("dense", "lexical", "multi"), args.documents)[1]
        for routes in (("dense", "lexical"), ("dense", "lexical", "multi")):
            if options.get("multi") == "binary" and "multi" in routes:
                continue
            for candidates in (200,) if "multi" in routes else (50, 200):
                ms, found = timed(store, queries, routes, candidates)
                line = {"engine": engine, **options, "routes": "+".join(routes), "candidates": candidates}
                line |= {
                    "ms": round(ms, 2),
                    "recall": round(recall(found, truth), 4),
                    "add_per_s": round(rate),
                }
                print(json.dumps(line), flush=True)
        store.close()


if __name__ == "__main__":
    main()
