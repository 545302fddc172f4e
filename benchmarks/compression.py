"""Token vectors in fewer bytes: bytes a passage against nDCG@10, of the token vectors alone and of the default sum.

    python benchmarks/compression.py FOLDER --out benchmarks/results/compression.json [--device cuda] [--passages N]

FOLDER is the folder `pooled` of `recipes/small/make_eval_sets.py`, or any of that form. Every query gets the union
of its 100 best passages by dense and by lexical scores, ranked exactly by what is stored. Frames are fitted to the
first 128 passages, as an index does. Passages are encoded once, and pooled by processes that were started before the
device. Each way is written as soon as it is done; those that are written already are left out.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from triptych.index.layout import Layout, LayoutOptions
from triptych.io import write_json
from triptych.scores.on_numpy import combine, dense_scores, lexical_scores, top_k
from triptych.scores.tokens import Tokens, pool
from triptych.types import HEADS, DefaultWeights, HeadWeights, Ragged

if TYPE_CHECKING:  # a process that pools needs no torch
    import torch

WAYS: tuple[LayoutOptions, ...] = (
    {"multi": "none"},
    {"multi": "float32"},
    {"multi": "2bit", "pool_tokens": 3},
    {"multi": "2bit", "pool_tokens": 2},
    {"multi": "2bit", "pool_tokens": 4},
    {"multi": "1bit", "pool_tokens": 2},
    {"multi": "4bit", "pool_tokens": 3},
    {"multi": "2bit"},
    {"multi": "1bit"},
    {"multi": "1bit", "pool_tokens": 3},
    {"multi": "4bit", "pool_tokens": 2},
    {"multi": "4bit", "pool_tokens": 4},
    {"multi": "4bit"},
    {"multi": "float16"},
    {"multi": "int8"},
    {"multi": "binary"},
    {"multi": "float16", "pool_tokens": 2},
    {"multi": "float16", "pool_tokens": 3},
    {"multi": "float16", "pool_tokens": 4},
    {"multi": "int8", "pool_tokens": 2},
    {"multi": "int8", "pool_tokens": 3},
    {"multi": "int8", "pool_tokens": 4},
    {"multi": "1bit", "pool_tokens": 4},
    {"multi": "binary", "pool_tokens": 2},
    {"multi": "float16", "multi_width": 128},
    {"multi": "4bit", "multi_width": 128},
    {"multi": "4bit", "multi_width": 128, "pool_tokens": 2},
    {"multi": "2bit", "multi_width": 128},
    {"multi": "2bit", "multi_width": 128, "pool_tokens": 2},
    {"multi": "4bit", "multi_width": 192},
    {"multi": "2bit", "multi_width": 192, "pool_tokens": 2},
)
"""The ones that a default may be chosen from come first."""

CANDIDATES = 100
FIRST = 128
"""Passages of the first block of `Index.add`."""
BUDGET = 2**21
"""Token vectors that are compared at once on a device."""
CHUNK = 64
"""Passages that are pooled, or packed, at once."""
ENCODE = 512
"""Passages between two lines about the progress."""
LARGE = ("xquad", "xquad-cross", "afriqa")
"""Names of the sets that are groups by themselves; the rest is one more."""


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
    with Pooling() as pooling:
        measure(arguments, WAYS[first:last], pooling)


def measure(arguments: argparse.Namespace, chosen: tuple[LayoutOptions, ...], pooling: Pooling) -> None:
    """Encodes, and writes one way after the other."""
    read = read_collection(arguments.folder, arguments.passages)
    say(f"{len(read.passages)} passages, {len(read.queries)} queries, {len(read.sets)} sets")
    from triptych.encode.encoder import Encoder
    from triptych.types import Encoded

    encoder = Encoder.from_pretrained(arguments.model, device=arguments.device)
    report = open_report(arguments, len(read.passages), len(read.queries), encoder.fingerprint)
    queries = encoder.encode_query(read.queries)
    say("encoded the queries")
    parts_of: list[Encoded] = []
    for start in range(0, len(read.passages), ENCODE):
        parts_of.append(encoder.encode_document(read.passages[start : start + ENCODE]))
        say(f"encoded {min(start + ENCODE, len(read.passages))} passages")
    documents = Encoded.concat(parts_of)
    del parts_of
    assert documents.multi is not None
    vectors = documents.multi
    pooling.begin(vectors, list(dict.fromkeys(way.get("pool_tokens", 1) for way in chosen)))
    parts = {"dense": dense_scores(queries.dense, documents.dense)}  # type: ignore[arg-type]
    parts["lexical"] = lexical_scores(queries.lexical, documents.lexical)  # type: ignore[arg-type]
    union = [
        np.unique(np.concatenate([top_k(part[i], CANDIDATES) for part in parts.values()]))
        for i in range(len(read.queries))
    ]
    judged = Judged(read, union)
    of_union = {name: judged.take(part) for name, part in parts.items()}
    report["device"] = name_of(encoder.device)
    report["tokens"] = round(float(vectors.lengths.mean()), 1)
    report["candidates"] = round(float(np.mean([len(each) for each in union])), 1)
    report["one head"] = {name: judged.evaluate(part) for name, part in of_union.items()}
    write_json(arguments.out, report)
    say(f"recalled {report['candidates']} candidates a query: {json.dumps(report['one head'])}")
    compared = Compared(queries.multi, union, encoder.device, vectors.values.shape)  # type: ignore[arg-type]
    for way in chosen:
        name = " ".join(f"{key.removeprefix('multi_')}={value}" for key, value in way.items())
        if name in report["ways"] or (way.get("multi_width") or 0) >= vectors.width:
            continue
        began = time.perf_counter()
        layout = Layout.of(encoder.widths, way)
        found, size, pooled = dict(of_union), 0.0, vectors
        if "multi" in layout.widths:
            pooled = pooling.result(layout.pool_tokens)
            if layout.lacks_frame:
                layout = layout.fit(pooled.take(range(min(FIRST, len(pooled)))))
            size = layout.tokens.bytes_per_token * len(pooled.values) / len(pooled)
            found["multi"] = judged.spread(compared.scores(pooled, layout))
        weights = HeadWeights.default([head for head in HEADS if head in found])
        assert isinstance(weights, DefaultWeights)
        scores = {"all": judged.evaluate(combine(found, weights, queries))}
        if "multi" in found:
            scores["multi"] = judged.evaluate(found["multi"])
        report["ways"][name] = {
            "bytes_per_token": layout.tokens.bytes_per_token if size else 0,
            "bytes_per_passage": round(size, 1),
            "ndcg@10": scores,
            "seconds": round(time.perf_counter() - began, 2),
        }
        write_json(arguments.out, report)
        say(f"{name}: {json.dumps(report['ways'][name])}")


_BEGAN = time.perf_counter()


def say(text: str) -> None:
    print(f"{time.perf_counter() - _BEGAN:6.1f} s  {text}", flush=True)


def open_report(
    arguments: argparse.Namespace, passages: int, queries: int, fingerprint: str
) -> dict[str, Any]:
    """What was written before, of the same model and collection."""
    facts = {"model": arguments.model, "fingerprint": fingerprint, "passages": passages, "queries": queries}
    report = json.loads(arguments.out.read_text()) if arguments.out.exists() else facts | {"ways": {}}
    if any(report.get(name) != value for name, value in facts.items()):
        raise SystemExit(f"{arguments.out}: is of another model or collection; expected a new file")
    return report


def read_collection(folder: Path, most: int | None) -> Collection:
    """The folder, or a sample of it: so many passages, and three queries of each set whose answers are among them."""
    from passages import _lines, _sets

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
        """The mean over the sets of each group, and of these means."""
        ranked = np.where(self._out, -np.inf, scores[self._query])
        order = np.argsort(-ranked, axis=1, kind="stable")[:, :10]
        gains = np.where(np.isneginf(ranked), 0, self._gains)
        found = np.take_along_axis(gains, order, axis=1) / np.log2(np.arange(2, order.shape[1] + 2))
        each = np.bincount(self._set, found.sum(axis=1) / self._ideal) / np.bincount(self._set)
        own = [name if name in LARGE else "others" for _, name in self._names]
        groups = {
            name: 100 * float(np.mean([each[i] for i, one in enumerate(own) if one == name]))
            for name in dict.fromkeys((*LARGE, "others"))
            if name in own
        }
        groups["mean"] = float(np.mean(list(groups.values())))
        return {name: round(value, 2) for name, value in groups.items()}


class Pooling:
    """Pools in processes of one thread each, which exist before anything else has begun."""

    def __enter__(self) -> Pooling:
        self._folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = "1"
        count = len(os.sched_getaffinity(0))
        # "spawn": a process that was forked from one with threads, or with a GPU, may stand still for ever.
        self._pool = ProcessPoolExecutor(count, get_context("spawn"))
        for done in [self._pool.submit(time.sleep, 0) for _ in range(count)]:
            done.result()
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before
        say(f"{count} processes are ready to pool")
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        self._folder.cleanup()

    def begin(self, vectors: Ragged, factors: list[int]) -> None:
        """Gives all the work out; the factors are done in their order."""
        self._vectors = vectors
        path = Path(self._folder.name) / "vectors.npy"
        np.save(path, vectors.values)
        offsets, starts = vectors.offsets, range(0, len(vectors), CHUNK)
        self._parts: dict[int, list[Future[tuple[Path, list[int]]]]] = {
            factor: [
                self._pool.submit(pool_some, path, offsets[start : start + CHUNK + 1], factor)
                for start in starts
            ]
            for factor in factors
            if factor > 1
        }

    def result(self, factor: int) -> Ragged:
        """All passages, pooled by this factor."""
        if factor == 1:
            return self._vectors
        lengths, names = list[int](), list[Path]()
        for part in self._parts[factor]:
            name, some = part.result()
            names.append(name)
            lengths += some
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        return Ragged(np.concatenate([np.load(name) for name in names]), offsets)


def pool_some(path: Path, offsets: np.ndarray, factor: int) -> tuple[Path, list[int]]:
    """Pools some passages into a file of its own, whose name and the passages' lengths come back."""
    values = np.load(path, mmap_mode="r")[offsets[0] : offsets[-1]]
    pooled = pool(Ragged(np.asarray(values), offsets - offsets[0]), factor)
    name = path.with_name(f"{offsets[0]}-{factor}.npy")
    np.save(name, pooled.values)
    return name, pooled.lengths.tolist()


class Compared:
    """MaxSim of each query with its candidates, one after the other, over what is kept of token vectors."""

    def __init__(
        self, queries: Ragged, union: list[np.ndarray], device: torch.device, shape: tuple[int, ...]
    ) -> None:
        import torch

        self._queries, self._device = queries, device
        query = np.repeat(np.arange(len(union)), [len(each) for each in union])
        self._query = torch.from_numpy(query).to(device)
        self._document = torch.from_numpy(np.concatenate(union)).to(device)
        self._values = np.empty(
            shape, np.float32
        )  # once, since its pages cost more than what is written there

    def scores(self, vectors: Ragged, layout: Layout) -> np.ndarray:
        import torch

        from triptych.scores.on_torch import maxsim_of_pairs

        kept = self._values[: len(vectors.values)]

        def keep(start: int) -> None:
            stop = min(start + CHUNK, len(vectors))
            first, last = vectors.offsets[start], vectors.offsets[stop]
            part = Ragged(vectors.values[first:last], vectors.offsets[start : stop + 1] - first)
            kept[first:last] = Tokens.pack(part, layout.tokens).unpack().values

        with ThreadPoolExecutor(min(16, len(os.sched_getaffinity(0)))) as workers:
            list(workers.map(keep, range(0, len(vectors), CHUNK)))
        return (
            maxsim_of_pairs(
                self._queries,
                torch.from_numpy(kept).to(self._device),
                torch.from_numpy(vectors.offsets).to(self._device),
                self._query,
                self._document,
                BUDGET if self._device.type == "cuda" else BUDGET // 64,
            )
            .cpu()
            .numpy()
        )


def name_of(device: torch.device) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


if __name__ == "__main__":
    main()
