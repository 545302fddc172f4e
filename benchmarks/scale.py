"""What 100 million and 10 billion passages take: bytes, memory, nodes, hours, queries a second; from what was measured.

    python benchmarks/scale.py --measure FOLDER    # writes results/scale.json
    python benchmarks/scale.py                     # writes the tables of docs/large-collections.md

Every figure is computed from the results beside this file and the assumptions below, which the page names. What an
index of the default engine takes is measured at 2,000 and 20,000 passages, in processor time, so that other programs on
the machine matter little; what a form of token vectors loses is read from results/compression.json, if it is there.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from index_scale import TEXT, VOCABULARY, Corpus
from pages import fill
from triptych.index.documents import Payload
from triptych.index.layout import Layout
from triptych.index.search import hybrid_search, make_plan
from triptych.index.storage import folder_size
from triptych.index.store import create_store, open_store
from triptych.io import write_json

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parents[1] / "docs" / "large-collections.md"

TOKENS = 150  # of a passage
WIDTH = 384  # columns of the bundled model
WEIGHTS = 100  # of a passage in the lexical head
SIZES = {"100 million": 10**8, "10 billion": 10**10}
CANDIDATES = 200  # that are scored exactly
GRAPH_FROM = 1000  # passages, so that small collections are searched as large ones are
ALL = f"all, {CANDIDATES} candidates"
LATENCY = 0.1  # seconds that recall in a shard may take


@dataclass(frozen=True)
class Node:
    """One machine of a cluster.

    Attributes:
        cores: Processors.
        memory: Bytes.
        disk: Bytes of NVMe.
        reads: Random reads a second that the disk does.
    """

    cores: int = 32
    memory: float = 256e9
    disk: float = 7.68e12
    reads: float = 500_000


NODE = Node()
IN_USE = 0.7  # of memory and disk: the rest is for merging, caches and growth
REPLICAS = 2
GPUS = 16

FORMS = {  # bytes of a token vector (codes and scale), tokens that become one, and whether bytes are kept as base64
    "none": (0, 1, False),
    "multi=1bit pool_tokens=2": (WIDTH / 8 + 2, 2, True),
    "multi=2bit": (WIDTH / 4 + 2, 1, True),
    "multi=float16": (2 * WIDTH, 1, False),
}
GRAPH = (
    16 * 2 * 4
)  # bytes of a passage's links in the HNSW graph (m = 16, both directions, at the ground level)


def read(name: str) -> Any:
    path = RESULTS / name
    if not path.is_file():
        return None
    text = path.read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


class Measured:
    """What the results say."""

    def __init__(self) -> None:
        self.source = "scale.json"
        self.runs = {(run["passages"], run["form"]): run for run in read(self.source)["runs"]}
        self.losses = (read("compression.json") or {}).get("ways", {})
        gpu = [
            row
            for row in read("gpu_encode.jsonl")
            if (row["tree"], row.get("system"), row.get("workload")) == ("after", "triptych-stream", "mix")
        ]
        self.gpu_tokens = gpu[-1]["tokens_per_s"]
        self.gpu_shape = gpu[-1]["shape"]
        one, two = (row["tokens_per_s"] for row in read("gpu_workers.jsonl")[:2])
        self.gpu_scaling = two / (2 * one)
        rows = [
            row
            for row in read("encode.jsonl")
            if row.get("shape") == "small" and row.get("system") == "triptych"
        ]
        speed = {
            row["workload"]: row["tokens_per_processor_s"] for row in rows if "tokens_per_processor_s" in row
        }
        tokens = {row["workload"]: row["tokens"] / row["texts"] for row in rows if "texts" in row}
        self.cpu_tokens = speed["mix"]
        self.query_seconds = tokens["query"] / speed["query"]

    def largest(self, form: str) -> tuple[int, dict[str, Any]]:
        """The run with most passages."""
        count = max(count for count, name in self.runs if name == form)
        return count, self.runs[count, form]

    @property
    def without_tokens(self) -> float:
        """Bytes on the disk of a passage without token vectors, with all overhead."""
        return self.largest("none")[1]["build"]["bytes_per_passage"]

    def search(self, step: str) -> tuple[float, float]:
        """Seconds of a search as a + b·passages, through the measured sizes (one thread)."""
        found = {
            count: run["search"][step]["p50_ms"] / 1e3
            for (count, form), run in self.runs.items()
            if form == "none"
        }
        b, a = np.polyfit(list(found), list(found.values()), 1)
        return max(0.0, float(a)), max(0.0, float(b))

    def per_candidate(self, form: str) -> float:
        """Seconds for the token vectors of one candidate: what a search takes longer with them than without."""
        count, run = self.largest(form)
        steps = [each["search"][ALL]["p50_ms"] for each in (run, self.runs[count, "none"])]
        return max(0.0, steps[0] - steps[1]) / 1e3 / CANDIDATES


def measure(folder: Path) -> None:
    """Builds and searches small indexes, and writes what it took."""
    runs: list[dict[str, Any]] = (read("scale.json") or {"runs": []})["runs"]
    for form, count in [*((form, 2000) for form in FORMS), ("none", 20_000)]:
        if any((run["form"], run["passages"]) == (form, count) for run in runs):
            continue
        options: Any = (
            dict(part.split("=") for part in form.split())
            if form != "none"
            else {"multi": "none", "exact_below": GRAPH_FROM}
        )
        if "pool_tokens" in options:
            options["pool_tokens"] = int(options["pool_tokens"])
        place = folder / f"{count} {form}"
        corpus = Corpus(1 if form == "none" else TOKENS)
        layout = Layout.of({"dense": WIDTH, "lexical": VOCABULARY, "multi": WIDTH}, options)
        store = create_store(str(place), "edge", layout, ("bench", "0"))
        spent = 0.0
        for number, start in enumerate(range(0, count, 250)):
            block = corpus.block(number, 250)
            payloads = [
                Payload(id=str(i), text=TEXT, metadata={"number": i}) for i in range(start, start + 250)
            ]
            began = time.process_time()
            store.add(block, payloads)
            spent += time.process_time() - began
        began = time.process_time()
        with store.changing() as engine:
            engine.optimize()
        spent += time.process_time() - began
        store.close()
        build = {
            "bytes_per_passage": folder_size(place) // count,
            "passages_per_second": round(count / spent),
        }
        search = search_times(str(place), corpus)
        shutil.rmtree(place)
        runs.append({"passages": count, "form": form, "build": build, "search": search})
        print(json.dumps(runs[-1]), flush=True)
        write_json(RESULTS / "scale.json", {"command": "benchmarks/scale.py --measure FOLDER", "runs": runs})


def search_times(place: str, corpus: Corpus) -> dict[str, dict[str, float]]:
    """Processor time of recall by a head, and of a whole search."""
    store = open_store(place)
    queries, options = corpus.queries(), {"routes": ["dense", "lexical"], "candidates": CANDIDATES}
    plan = make_plan(store.engine, 10, options)  # type: ignore[arg-type]
    steps: dict[str, Any] = {
        "dense": lambda one: store.engine.recall(one, "dense", 10),
        "lexical": lambda one: store.engine.recall(one, "lexical", 10),
        ALL: lambda one: hybrid_search(store.engine, one, plan),
    }
    found: dict[str, dict[str, float]] = {}
    for name, step in steps.items():
        seconds: list[float] = []
        for i in [*range(3), *range(len(queries))]:
            began = time.process_time()
            step(queries[i : i + 1])
            seconds.append(time.process_time() - began)
        found[name] = {"p50_ms": round(1e3 * float(np.median(seconds[3:])), 3)}
    store.close()
    return found


def tokens_of(form: str) -> float:
    """Bytes of a passage's token vectors."""
    size, pool, as_text = FORMS[form]
    return ceil(TOKENS / pool) * size * (4 / 3 if as_text else 1)


def plan(measured: Measured, passages: int, form: str) -> dict[str, float]:
    """All figures of a size and a form."""
    each = measured.without_tokens + tokens_of(form)
    disk = passages * each
    # Dense vectors with their graph and the lexical postings are in memory, the rest is read from the disk.
    memory = passages * (WIDTH * 4 + GRAPH + WEIGHTS * 8)
    nodes = max(1, ceil(memory / (IN_USE * NODE.memory)), ceil(disk / (IN_USE * NODE.disk)))
    lexical_start, lexical_each = measured.search("lexical")
    count, run = measured.largest("none")
    # A graph's search grows with the logarithm; a comparison of postings with the passages.
    dense = run["search"]["dense"]["p50_ms"] / 1e3 / np.log(count)

    def recall(shards: int) -> tuple[float, float]:
        return dense * np.log(passages / shards), lexical_start + lexical_each * passages / shards

    shards = nodes
    while sum(recall(shards)) > LATENCY:
        shards += nodes
    scoring = 0.0 if form == "none" else CANDIDATES * measured.per_candidate(form)
    work = shards * sum(recall(shards)) + scoring + measured.query_seconds
    machines = nodes * REPLICAS
    reads = NODE.reads / CANDIDATES if tokens_of(form) else float("inf")
    hours = passages * TOKENS / 3600
    return {
        "bytes": each,
        "disk": disk * REPLICAS,
        "memory": memory * REPLICAS,
        "nodes": machines,
        "shards": shards,
        "encode_processor": hours / measured.cpu_tokens / (machines * NODE.cores),
        "encode_gpu": hours / measured.gpu_tokens,
        "encode_gpus": hours / (measured.gpu_tokens * GPUS * measured.gpu_scaling),
        "store": passages / nodes / (run["build"]["passages_per_second"] * NODE.cores) / 3600,
        "dense_ms": 1e3 * recall(shards)[0],
        "lexical_ms": 1e3 * recall(shards)[1],
        "scoring_ms": 1e3 * scoring,
        "latency_ms": 1e3 * (sum(recall(shards)) + scoring + measured.query_seconds),
        "queries": min(machines * NODE.cores / work, machines * reads),
    }


def size(value: float) -> str:
    for unit, factor in (("PB", 1e15), ("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value:,.0f} B"


def rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


ROWS = (
    ("bytes of a passage", "bytes", size),
    ("disk, all replicas", "disk", size),
    ("memory, all replicas", "memory", size),
    ("nodes", "nodes", rounded),
    ("shards", "shards", rounded),
    ("hours to encode, the nodes' own processors", "encode_processor", rounded),
    ("hours to encode, one GPU", "encode_gpu", rounded),
    (f"hours to encode, {GPUS} GPUs", "encode_gpus", rounded),
    ("hours to store and build graphs", "store", rounded),
    ("a query: dense recall in a shard, ms", "dense_ms", rounded),
    ("lexical recall in a shard, ms", "lexical_ms", rounded),
    ("exact scores of the candidates, ms", "scoring_ms", rounded),
    ("all, with encoding, without network, ms", "latency_ms", rounded),
    ("queries a second", "queries", rounded),
)


def table(measured: Measured, passages: int) -> str:
    plans = [plan(measured, passages, form) for form in FORMS]
    head = "| | " + " | ".join(f"`{form}`" for form in FORMS) + " |\n|---|" + "---:|" * len(FORMS)
    lines = [
        f"| {name} | " + " | ".join(show(each[key]) for each in plans) + " |" for name, key, show in ROWS
    ]
    if all(form in measured.losses or form == "none" for form in FORMS):
        best = [measured.losses.get(form, {}).get("mean", {}).get("all") for form in FORMS]
        lines.append(
            "| nDCG@10 of all heads | " + " | ".join("" if b is None else f"{b:.1f}" for b in best) + " |"
        )
    return "\n".join([head, *lines])


def inputs(measured: Measured) -> str:
    count, run = measured.largest("none")
    checks = [
        f"`{form}`: {found['build']['bytes_per_passage'] - measured.runs[n, 'none']['build']['bytes_per_passage']:,}"
        f" (computed {tokens_of(form):,.0f})"
        for (n, form), found in measured.runs.items()
        if form != "none"
    ]
    scores = [f"`{form}`: {1e6 * measured.per_candidate(form):.0f} µs" for form in FORMS if form != "none"]
    rows = [
        ("bytes of a passage without token vectors", f"{measured.without_tokens:,.0f} at {count:,}", measured.source),
        ("bytes of its token vectors at 2,000, in the engine's log too", "; ".join(checks), measured.source),
        ("passages stored in a second of a processor", f"{run['build']['passages_per_second']:,}", measured.source),
        ("dense recall, processor time", f"{run['search']['dense']['p50_ms']} ms at {count:,}", measured.source),
        ("lexical recall, processor time", f"{run['search']['lexical']['p50_ms']} ms at {count:,}", measured.source),
        ("exact score of a candidate", "; ".join(scores), measured.source),
        ("tokens encoded a processor second, `small`", f"{measured.cpu_tokens:,.0f}", "encode.jsonl"),
        (f"tokens a second on an H200, shape {measured.gpu_shape}", f"{measured.gpu_tokens:,.0f}", "gpu_encode.jsonl"),
        ("of twice that on two GPUs", f"{100 * measured.gpu_scaling:.0f} %", "gpu_workers.jsonl"),
        ("a query's encoding", f"{1e3 * measured.query_seconds:.1f} ms of a processor", "encode.jsonl"),
    ]  # fmt: skip
    return "| Measured | | results/ |\n|---|---:|---|\n" + "\n".join(
        f"| {a} | {b} | {c} |" for a, b, c in rows
    )


def render(text: str, measured: Measured) -> str:
    """The page with its tables made anew."""
    parts = {"inputs": inputs(measured), **{name: table(measured, count) for name, count in SIZES.items()}}
    return fill(text, {name: made + "\n" for name, made in parts.items()}, PAGE)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]))
    PAGE.write_text(render(PAGE.read_text("utf-8"), Measured()), "utf-8")
