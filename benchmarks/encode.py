"""Encoding side by side on a processor: ours, FlagEmbedding, sentence-transformers, and others where installed.

    python benchmarks/encode.py [--shape m3] [--rounds 3] [--scale 1] [--systems ...] [--workloads ...]

Each system lives in a process of its own, all are loaded before the first measurement, and they take turns
(A B C A B C …), so that a change of the machine's load meets all of them. Reported are medians over the rounds:
real tokens a second by the clock and by processor time, peak memory of the process, and the share of the
measured limit of the matrix products. Every run appends JSON lines to benchmarks/results/encode.jsonl.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "encode.jsonl"
SYSTEMS = [
    "triptych",
    "triptych-dense",
    "triptych-int8",
    "triptych-float32",
    "flagembedding",
    "flagembedding-bfloat16",
    "sentence-transformers",
    "onnxruntime",
    "openvino",
    "openvino-int8",
    "bge-m3-lite",
    "onnxruntime-int8",
    "fastembed",
    "m3serve",
]
# Batch sizes that the other libraries may choose from; ours has its token budget.
BATCHES = (1, 4, 16, 64)


def serve(name: str, folder: Path, tokens: int, threads: int, pipe: Connection) -> None:
    """A process that holds one system and runs what it is sent."""
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    sys.path.insert(0, str(Path(__file__).parent))
    import torch

    from systems import load, one_by_one

    torch.set_num_threads(threads)
    encode = load(name, folder, tokens, threads)
    pipe.send(encode.settings)
    while (order := pipe.recv()) is not None:
        texts, batch, single = order
        wall, processor = time.perf_counter(), time.process_time()
        each = one_by_one(encode, texts) if single else encode(texts, batch) is None or []
        pipe.send(
            {
                "wall": time.perf_counter() - wall,
                "processor": time.process_time() - processor,
                "each": each,
                "peak_mb": memory_mb("VmHWM"),
                "resident_mb": memory_mb("VmRSS"),
            }
        )


def memory_mb(field: str) -> float:
    """Memory of this process; what getrusage gives on Linux includes the parent's before the start."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith(field))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


class System:
    """The parent's side of one process."""

    def __init__(self, name: str, folder: Path, tokens: int, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.name, self.batches = name, dict[str, int | None]()
        self.process = context.Process(
            target=serve, args=(name, folder, tokens, threads, theirs), daemon=True
        )
        self.process.start()
        theirs.close()
        self.settings: dict[str, Any] = self.pipe.recv()

    def run(self, work: Any, batch: int | None = None) -> dict[str, Any]:
        self.pipe.send((work.texts, batch, work.single))
        return self.pipe.recv()

    def tune(self, work: Any) -> None:
        """Chooses the batch size that takes the least processor time for a third of the texts."""
        if self.name.startswith(("triptych", "limit")) or work.single or work.name == "long":
            # One long document at a time is the others' best: more would only add padding and memory.
            self.batches[work.name] = 1 if work.name == "long" and "triptych" not in self.name else None
            return
        part = type(work)(work.name, work.texts[::3], work.lengths[::3])
        cost = {batch: self.run(part, batch)["processor"] for batch in BATCHES}
        self.batches[work.name] = min(cost, key=lambda batch: cost[batch])

    def close(self) -> None:
        self.pipe.send(None)
        self.process.join(30)


def machine() -> dict[str, Any]:
    """Hardware and versions that a figure belongs to."""
    import torch

    lines = (
        Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        if Path("/proc/cpuinfo").exists()
        else []
    )
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    family = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("cpu family", "model\t"))][
        :2
    ]
    flags = next((line for line in lines if line.startswith("flags")), "")
    features = ("amx_bf16", "amx_int8", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512f", "avx2")
    packages = ("torch", "transformers", "sentence-transformers", "FlagEmbedding", "triptych")
    peers = [
        name
        for name in ("onnxruntime", "openvino", "nncf", "bge-m3-lite", "fastembed", "m3serve")
        if _installed(name)
    ]
    return {
        "cpu": f"{names[0] if names else platform.processor()} (family {' model '.join(family)})",
        "cores": os.cpu_count(),
        "features": [f for f in features if f" {f}" in flags],
        "python": platform.python_version(),
        "versions": {name: version(name) for name in (*packages, *peers) if _installed(name)},
        "threads": torch.get_num_threads(),
    }


def _installed(name: str) -> bool:
    try:
        return bool(version(name))
    except PackageNotFoundError:
        return False


def present(names: list[str], folder: Path, hidden: int) -> list[str]:
    """The systems that can be measured here, with the graphs that they need written; says which cannot, and why."""
    import peers

    why = {name: peers.missing(name, hidden) for name in names}
    for name, problem in why.items():
        if problem:
            print(f"{name} is left out: {problem}", flush=True)
    kept = [name for name in names if not why[name]]
    # In a process of its own, so that the memory which this takes is gone before anything is measured.
    subprocess.run([sys.executable, peers.__file__, str(folder), *kept], check=True)
    return kept


def summary(
    shape: Any, work: Any, system: System, runs: list[dict[str, Any]], limit: list[float]
) -> dict[str, Any]:
    """One line of results: medians over the rounds."""
    wall = statistics.median(run["wall"] for run in runs)
    processor = statistics.median(run["processor"] for run in runs)
    dense_alone = system.name.startswith(("sentence-transformers", "fastembed")) or system.name.endswith(
        "-dense"
    )
    all_heads = not dense_alone
    flops = shape.flops(work.lengths, all_heads)
    line: dict[str, Any] = {
        "system": system.name,
        "workload": work.name,
        "texts": len(work.texts),
        "tokens": work.tokens,
        "rounds": len(runs),
        "settings": system.settings,
        "batch": system.batches.get(work.name),
        "wall_s": wall,
        "processor_s": processor,
        "wall_all_s": [run["wall"] for run in runs],
        "processor_all_s": [run["processor"] for run in runs],
        "tokens_per_s": work.tokens / wall,
        "tokens_per_processor_s": work.tokens / processor,
        "texts_per_s": len(work.texts) / wall,
        "peak_mb": max(run["peak_mb"] for run in runs),
        "resident_mb": statistics.median(run["resident_mb"] for run in runs),
        "of_limit": flops / processor / statistics.median(limit),
    }
    if work.single:
        each = sorted(second for run in runs for second in run["each"])
        line["p50_ms"], line["p95_ms"] = (1e3 * each[int(len(each) * part)] for part in (0.5, 0.95))
    return line


def table(lines: list[dict[str, Any]]) -> str:
    """What is printed at the end."""
    first = {line["workload"]: line for line in lines if line["system"] == "triptych"}
    names = ("tok/s", "tok/cpu-s", "x", "limit", "MB", "p50 ms", "p95 ms")
    rows = [f"{'workload':8} {'system':26}" + "".join(f"{name:>10}" for name in names)]
    for line in lines:
        ours = first.get(line["workload"], line)
        cells = [
            f"{line['tokens_per_s']:.0f}",
            f"{line['tokens_per_processor_s']:.0f}",
            f"{line['processor_s'] / ours['processor_s']:.2f}",
            f"{line['of_limit']:.1%}",
            f"{line['resident_mb']:.0f}",
            *(f"{line[name]:.1f}" if name in line else "" for name in ("p50_ms", "p95_ms")),
        ]
        rows.append(f"{line['workload']:8} {line['system']:26}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(
        [*rows, "x: processor time as a multiple of ours (all heads); limit: of the bfloat16 products"]
    )


def measure(arguments: argparse.Namespace, folder: Path) -> list[dict[str, Any]]:
    from workloads import SHAPES, workloads

    shape = SHAPES[arguments.shape]
    works = [w for w in workloads(shape, folder, arguments.scale) if w.name in arguments.workloads]
    names = ["limit", *present(arguments.systems, folder, shape.hidden)]
    systems = [System(name, folder, shape.max_tokens, arguments.threads) for name in names]
    probe, *rest = systems
    facts = {"run": time.strftime("%Y-%m-%dT%H:%M:%S"), "shape": shape.name, "machine": machine()}
    facts["machine"]["threads"] = arguments.threads
    lines = []
    for work in works:
        runs: dict[str, list[dict[str, Any]]] = {system.name: [] for system in rest}
        limit: list[float] = []
        for system in rest:
            system.tune(work)
            system.run(work, system.batches[work.name])  # warm
        for _ in range(arguments.rounds):
            limit.append(probe.settings["flops"] / probe.run(work)["processor"])
            for system in rest:
                runs[system.name].append(system.run(work, system.batches[work.name]))
        for system in rest:
            line = summary(shape, work, system, runs[system.name], limit)
            lines.append({**facts, **line, "limit_gflops_per_processor_s": statistics.median(limit) / 1e9})
            with arguments.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(lines[-1]) + "\n")
            print(
                json.dumps({k: lines[-1][k] for k in ("workload", "system", "tokens_per_s", "of_limit")}),
                flush=True,
            )
    for system in systems:
        system.close()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="small", choices=["m3", "small", "tiny"])
    parser.add_argument("--systems", nargs="+", default=SYSTEMS)
    parser.add_argument("--workloads", nargs="+", default=["short", "mix", "long", "query"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the numbers of texts")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--checkpoints", type=Path, default=Path(tempfile.gettempdir()) / "triptych-bench")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    sys.path.insert(0, str(Path(__file__).parent))
    from workloads import SHAPES, make_checkpoint

    folder = make_checkpoint(SHAPES[arguments.shape], arguments.checkpoints / arguments.shape)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    print(table(measure(arguments, folder)))


if __name__ == "__main__":
    main()
