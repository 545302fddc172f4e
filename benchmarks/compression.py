"""Token vectors in fewer bytes: bytes a passage against nDCG@10, of the token vectors alone and of the weighted sum.

    python benchmarks/compression.py FOLDER --out benchmarks/results/compression.json [--device cuda] [--passages N]

FOLDER is the folder `pooled` of `recipes/small/make_eval_sets.py`, or any of that form. Every query gets the union
of its 100 best passages by dense and by lexical scores, ranked exactly by what is stored. Frames are fitted to the
first 128 passages, as an index does. Each way is written as soon as it is done; those that are written already are
left out.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from passages import _lines, _sets
from triptych.encode.encoder import Encoder
from triptych.index.layout import Layout, LayoutOptions
from triptych.io import write_json
from triptych.scores.on_numpy import combine, dense_scores, lexical_scores, top_k
from triptych.scores.on_torch import maxsim_of_pairs
from triptych.scores.tokens import Tokens, pool
from triptych.types import Encoded, HeadWeights, Ragged

WAYS: tuple[LayoutOptions, ...] = (
    {"multi": "float16"},
    {"multi": "2bit", "pool_tokens": 2},
    {"multi": "1bit", "pool_tokens": 2},
    {"multi": "2bit", "pool_tokens": 3},
    {"multi": "2bit", "pool_tokens": 4},
    {"multi": "2bit"},
    {"multi": "1bit"},
    {"multi": "binary"},
    {"multi": "4bit", "pool_tokens": 3},
    {"multi": "4bit", "pool_tokens": 4},
    {"multi": "float16", "pool_tokens": 2},
    {"multi": "4bit", "pool_tokens": 2},
    {"multi": "1bit", "pool_tokens": 3},
    {"multi": "4bit"},
    {"multi": "int8"},
    {"multi": "float16", "multi_width": 128},
    {"multi": "4bit", "multi_width": 192},
    {"multi": "4bit", "multi_width": 128},
    {"multi": "2bit", "multi_width": 192, "pool_tokens": 2},
)
CANDIDATES = 100
FIRST = 128
"""Passages of the first block of `Index.add`."""
BUDGET = 2**21
"""Token vectors that are compared at once."""


class Collection(NamedTuple):
    """Passages, queries, and for each set: its group and name, judgements and what is left out, by numbers."""

    passages: list[str]
    queries: list[str]
    sets: list[tuple[tuple[str, str], dict[int, dict[int, float]], dict[int, list[int]]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="small")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--ways", default=":", help="which, such as 0:5 for the first five")
    parser.add_argument("--passages", type=int, help="a sample of so many, and the queries that ask for them")
    arguments = parser.parse_args()
    first, last = (int(number) if number else None for number in arguments.ways.split(":"))
    chosen = WAYS[first:last]
    read = read_collection(arguments.folder, arguments.passages)
    encoder = Encoder.from_pretrained(arguments.model, device=arguments.device)
    began = time.perf_counter()
    queries = encoder.encode_query(read.queries)
    documents = encoder.encode_document(read.passages)
    assert documents.multi is not None
    parts = {"dense": dense_scores(queries.dense, documents.dense)}  # type: ignore[arg-type]
    parts["lexical"] = lexical_scores(queries.lexical, documents.lexical)  # type: ignore[arg-type]
    union = [
        np.unique(np.concatenate([top_k(part[i], CANDIDATES) for part in parts.values()]))
        for i in range(len(read.queries))
    ]
    judged, groups = Judged(read, union), {group for (group, _), *_ in read.sets}
    pooled = pool_all(documents.multi, sorted({way.get("pool_tokens", 1) for way in chosen}))
    print(f"encoded and pooled in {time.perf_counter() - began:.0f} s", flush=True)
    report: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    report |= {"model": arguments.model, "passages": len(read.passages), "queries": len(read.queries)}
    report |= {"tokens": round(float(documents.multi.lengths.mean()), 1), "device": name_of(encoder)}
    ways = report.setdefault("ways", {})
    for way in chosen:
        name = " ".join(f"{key.removeprefix('multi_')}={value}" for key, value in way.items())
        if name in ways:
            continue
        started = time.perf_counter()
        layout = Layout.of(encoder.widths, way)
        vectors = pooled[layout.pool_tokens]
        if layout.lacks_frame:
            layout = layout.fit(vectors.take(range(min(FIRST, len(vectors)))))
        packed = pack_all(vectors, layout)
        of_union = {name: judged.take(part) for name, part in parts.items()}
        of_union["multi"] = judged.spread(score(queries, packed, union, encoder.device))
        found = {
            "multi": judged.evaluate(of_union["multi"]),
            "all": judged.evaluate(combine(of_union, HeadWeights())),
        }
        ways[name] = {
            "bytes_per_token": layout.tokens.bytes_per_token,
            "bytes_per_passage": round(layout.tokens.bytes_per_token * len(packed.values) / len(packed), 1),
            "ndcg@10": found,
            "mean": {
                name: round(float(np.mean([each[g] for g in groups])), 2) for name, each in found.items()
            },
            "seconds": round(time.perf_counter() - started, 2),
        }
        write_json(arguments.out, report)
        print(name, json.dumps(ways[name]), flush=True)


def read_collection(folder: Path, most: int | None) -> Collection:
    """The folder, or a sample of it: so many passages, and three queries of each set whose answers are among them."""
    texts = {row["_id"]: row["text"] for row in _lines(folder / "corpus.jsonl")}
    asked = {row["_id"]: row["text"] for row in _lines(folder / "queries.jsonl")}
    sets = list(_sets(folder))
    names = json.loads((folder / "sets.json").read_text())["sets"]
    rng = np.random.default_rng(0)
    if most is not None:
        chosen: set[str] = set()
        for at in rng.permutation(len(sets)):
            some = dict(list(sets[at][1].items())[:3])
            wanted = {document for judged in some.values() for document in judged}
            some = some if len(chosen | wanted) <= most // 2 else {}
            chosen |= wanted if some else set()
            sets[at] = (sets[at][0], some, sets[at][2])
        rest = sorted(set(texts) - chosen)
        chosen |= set(rng.permutation(rest)[: most - len(chosen)].tolist())
        texts = {name: text for name, text in texts.items() if name in chosen}
        used = {query for _, judged, _ in sets for query in judged}
        asked = {name: text for name, text in asked.items() if name in used}
    rows, columns = ({name: i for i, name in enumerate(each)} for each in (asked, texts))
    found: list[Any] = []
    for entry, (_, judged, left_out) in zip(names, sets, strict=True):
        gains = {
            rows[q]: {columns[d]: g for d, g in each.items() if d in columns} for q, each in judged.items()
        }
        without = {
            rows[q]: [columns[d] for d in left_out.get(q, set()) - set(each) if d in columns]
            for q, each in judged.items()
        }
        found += [((entry["group"], entry["name"]), gains, without)] if gains else []
    return Collection(list(texts.values()), list(asked.values()), found)


class Judged:
    """nDCG@10 of all queries of all sets at once, where each query ranks its own few candidates."""

    def __init__(self, read: Collection, union: list[np.ndarray]) -> None:
        self._names = [names for names, *_ in read.sets]
        self._inside = np.arange(max(map(len, union))) < np.asarray([len(each) for each in union])[:, None]
        self._union = np.zeros(self._inside.shape, np.int64)
        self._union[self._inside] = np.concatenate(union)
        pairs = [(number, query) for number, (_, gains, _) in enumerate(read.sets) for query in gains]
        self._set, self._query = np.asarray(pairs).T
        self._gains = np.zeros((len(pairs), self._inside.shape[1]))
        self._out = ~self._inside[self._query]
        self._ideal = np.zeros(len(pairs))
        for i, (number, query) in enumerate(pairs):
            _, gains, without = read.sets[number]
            for column, gain in gains[query].items():
                self._gains[i, (self._union[query] == column) & self._inside[query]] = gain
            self._out[i] |= np.isin(self._union[query], without[query])
            best = np.sort(list(gains[query].values()))[::-1][:10]
            self._ideal[i] = (best / np.log2(np.arange(2, len(best) + 2))).sum()

    def take(self, scores: np.ndarray) -> np.ndarray:
        """The candidates' part of the scores ``[Q, N]``."""
        return np.take_along_axis(scores, self._union, axis=1)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """The scores of all candidates of the first query, the second, and so on, as ``[Q, most]``."""
        scores = np.full(self._inside.shape, -np.inf, np.float32)
        scores[self._inside] = values
        return scores

    def evaluate(self, scores: np.ndarray) -> dict[str, float]:
        """The mean over the sets of each group, and of each name."""
        ranked = np.where(self._out, -np.inf, scores[self._query])
        order = np.argsort(-ranked, axis=1, kind="stable")[:, :10]
        gains = np.where(np.isneginf(ranked), 0, self._gains)
        found = np.take_along_axis(gains, order, axis=1) / np.log2(np.arange(2, order.shape[1] + 2))
        each = np.bincount(self._set, found.sum(axis=1) / self._ideal) / np.bincount(self._set)
        return {
            name: round(
                100 * float(np.mean([each[i] for i, own in enumerate(self._names) if name in own])), 2
            )
            for name in sorted({name for own in self._names for name in own})
        }


_shared: list[Ragged] = []


def _pool_some(job: tuple[int, int, int]) -> Ragged:
    start, stop, factor = job
    return pool(_shared[0].take(range(start, stop)), factor)


def pool_all(vectors: Ragged, factors: list[int]) -> dict[int, Ragged]:
    """Pooled by each factor, on all processors."""
    _shared[:] = [vectors]
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0))) as workers:
        found: dict[int, Ragged] = {}
        for factor in factors:
            jobs = [(i, min(i + 64, len(vectors)), factor) for i in range(0, len(vectors), 64)]
            found[factor] = join(workers.map(_pool_some, jobs)) if factor > 1 else vectors
    return found


def pack_all(vectors: Ragged, layout: Layout) -> Ragged:
    """What an index keeps of token vectors, as what it stands for."""

    def keep(start: int) -> Ragged:
        stop = min(start + 64, len(vectors))
        first, last = vectors.offsets[start], vectors.offsets[stop]
        part = Ragged(vectors.values[first:last], vectors.offsets[start : stop + 1] - first)
        return Tokens.pack(part, layout.tokens).unpack()

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as workers:
        return join(list(workers.map(keep, range(0, len(vectors), 64))))


def join(parts: list[Ragged]) -> Ragged:
    lengths = np.concatenate([part.lengths for part in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Ragged(np.concatenate([part.values for part in parts]), offsets)


def score(queries: Encoded, documents: Ragged, union: list[np.ndarray], device: torch.device) -> np.ndarray:
    """MaxSim of each query with its candidates, one after the other."""
    assert queries.multi is not None
    query = np.repeat(np.arange(len(union)), [len(each) for each in union])
    return (
        maxsim_of_pairs(
            queries.multi,
            torch.from_numpy(documents.values).to(device),
            torch.from_numpy(documents.offsets).to(device),
            torch.from_numpy(query).to(device),
            torch.from_numpy(np.concatenate(union)).to(device),
            BUDGET if device.type == "cuda" else BUDGET // 64,
        )
        .cpu()
        .numpy()
    )


def name_of(encoder: Encoder) -> str:
    return torch.cuda.get_device_name(encoder.device) if encoder.device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
