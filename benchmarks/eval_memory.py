"""Peak memory of an evaluation by the size of the corpus: the vectors of all documents are never held at once.

    python benchmarks/eval_memory.py [--documents 1000 10000 100000] [--out benchmarks/results/eval_memory.json]

Documents are made up while they are asked for, in the shapes of the bundled model (384 columns, 24 token vectors), all
five modes are ranked exactly, and nothing is cached. Each size has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import ClassVar

import numpy as np
from scipy import sparse

from triptych.collections.base import Collection, Document, FileCorpus
from triptych.eval.evaluate import evaluate_systems
from triptych.eval.running import EvalOptions
from triptych.eval.systems import MODES
from triptych.types import Encoded, Ragged

WIDTH, TOKENS, TERMS, VOCABULARY, QUERIES, BLOCK = 384, 24, 20, 250_037, 32, 1024


class Made:
    """A VectorModel of random vectors."""

    name = "made"
    fingerprint = "made"
    modes = MODES
    facts: ClassVar[dict[str, object]] = {}

    def encode_queries(self, texts: Sequence[str]) -> Encoded:
        return made(len(texts), 8, np.random.default_rng(0))

    def encode_documents(self, texts: Iterable[str], block: int) -> Iterator[Encoded]:
        source, rng = iter(texts), np.random.default_rng(1)
        while part := list(islice(source, block)):
            yield made(len(part), TOKENS, rng)


def made(n: int, tokens: int, rng: np.random.Generator) -> Encoded:
    def unit(rows: int) -> np.ndarray:
        values = rng.standard_normal((rows, WIDTH), dtype=np.float32)
        return values / np.linalg.norm(values, axis=1, keepdims=True)

    columns = rng.integers(0, 5000, (n, TERMS))
    shape = (n, VOCABULARY)
    rows = np.repeat(np.arange(n), TERMS)
    lexical = sparse.csr_array(
        (rng.random(n * TERMS, dtype=np.float32), (rows, columns.ravel())), shape=shape
    )
    return Encoded(unit(n), lexical, Ragged(unit(n * tokens), np.arange(n + 1) * tokens))


def measure(documents: int) -> dict[str, float]:
    start = peak()
    corpus = FileCorpus(
        lambda: (Document(f"doc-{i}", "x") for i in range(documents)), f"made-{documents}", documents
    )
    queries = {f"q{i}": f"query {i}" for i in range(QUERIES)}
    one = Collection("made", "", corpus, queries, {query: {"doc-1": 1} for query in queries})
    began = time.perf_counter()
    evaluate_systems([one], [Made()], EvalOptions(block=BLOCK))
    vectors = documents * (4 * WIDTH * (1 + TOKENS) + 8 * TERMS)
    return {
        "documents": documents,
        "vectors_mb": round(vectors / 2**20),
        "peak_mb": round(peak()),
        "before_mb": round(start),
        "seconds": round(time.perf_counter() - began, 1),
    }


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--documents", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one)))
        return
    found = []
    for size in arguments.documents:
        command = [sys.executable, __file__, "--one", str(size)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
        print(found[-1])
    if arguments.out:
        facts = {"width": WIDTH, "tokens": TOKENS, "queries": QUERIES, "block": BLOCK}
        arguments.out.write_text(json.dumps({"shape": facts, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
