"""The scoring kernels against their limits: one query and a batch, on NumPy and SciPy.

python benchmarks/scores.py [--documents 1000] [--tokens 200] [--width 1024]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from triptych.scores.on_numpy import lexical_scores, maxsim_scores
from triptych.types import Ragged

RESULTS = Path(__file__).parent / "results" / "scores.jsonl"


def seconds(run: Callable[[], Any], repeat: int = 5) -> tuple[float, float]:
    """Median wall and processor time."""
    run()
    times = []
    for _ in range(repeat):
        wall, processor = time.perf_counter(), time.process_time()
        run()
        times.append((time.perf_counter() - wall, time.process_time() - processor))
    return tuple(statistics.median(column) for column in zip(*times, strict=True))  # type: ignore[return-value]


def ragged(count: int, tokens: int, width: int, rng: np.random.Generator) -> Ragged:
    values = rng.standard_normal((count * tokens, width), dtype=np.float32)
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    return Ragged(values, np.arange(count + 1, dtype=np.int64) * tokens)


def pairs(queries: Ragged, documents: Ragged) -> np.ndarray:
    """One product a pair, as published code scores."""
    return np.array([[(q @ d.T).max(1).mean() for d in documents] for q in queries])


def rows(count: int, terms: int, rng: np.random.Generator) -> sparse.csr_array:
    columns = np.minimum(rng.zipf(1.3, (count, terms)), 250_000) - 1
    data = rng.random(count * terms, dtype=np.float32)
    matrix = sparse.csr_array((data, (np.repeat(np.arange(count), terms), columns.ravel())), (count, 250_000))
    matrix.sum_duplicates()
    return matrix


def dictionaries(queries: sparse.csr_array, documents: sparse.csr_array) -> np.ndarray:
    """Loops over dictionaries, as published code scores."""
    bags = [
        [
            dict(zip(m.indices[a:b].tolist(), m.data[a:b].tolist(), strict=True))
            for a, b in zip(m.indptr[:-1], m.indptr[1:], strict=True)
        ]
        for m in (queries, documents)
    ]
    return np.array([[sum(w * d[t] for t, w in q.items() if t in d) for d in bags[1]] for q in bags[0]])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("--width", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=RESULTS)
    a = parser.parse_args()
    rng = np.random.default_rng(0)
    documents = ragged(a.documents, a.tokens, a.width, rng)
    big = documents.values
    read = big.nbytes / seconds(lambda: big.sum())[0] / 1e9
    x, y = (
        rng.standard_normal((2048, 1024), dtype=np.float32),
        rng.standard_normal((1024, 4096), dtype=np.float32),
    )
    product = 2 * 2048 * 1024 * 4096 / seconds(lambda: x @ y)[0] / 1e9
    lines: list[dict[str, Any]] = [{"part": "limits", "read_gb_s": read, "sgemm_gflops": product}]
    for count in (1, 16):
        queries = ragged(count, 32, a.width, rng)
        for name, run in (("blocked", maxsim_scores), ("pair by pair", pairs)):
            wall, processor = seconds(lambda r=run, q=queries: r(q, documents), 3)
            flops = 2 * len(queries.values) * len(big) * a.width
            lines.append(
                {
                    "part": "maxsim",
                    "way": name,
                    "queries": count,
                    "wall_ms": wall * 1e3,
                    "processor_ms": processor * 1e3,
                    "gb_s": big.nbytes / wall / 1e9,
                    "gflops": flops / wall / 1e9,
                }
            )
    queries, passages = rows(16, 12, rng), rows(20_000, 90, rng)
    for name, lexical in (("sparse product", lexical_scores), ("dictionaries", dictionaries)):
        wall, processor = seconds(lambda r=lexical: r(queries, passages), 3)
        lines.append({"part": "lexical", "way": name, "wall_ms": wall * 1e3, "processor_ms": processor * 1e3})
    with a.out.open("a", encoding="utf-8") as file:
        file.writelines(
            json.dumps({"run": time.strftime("%Y-%m-%dT%H:%M:%S"), **line}) + "\n" for line in lines
        )
    for line in lines:
        print(line)


if __name__ == "__main__":
    main()
