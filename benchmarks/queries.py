"""Single queries on a processor, side by side: ours, of this tree and another, and sentence-transformers' dense ones.

    python benchmarks/queries.py [--shape small] [--rounds 8] [--seconds 150] [--threads 1] [--before TREE]

Each system lives in a process of its own and they take turns, 24 queries of 8 to 15 tokens each, for so many rounds or
so long, whichever ends first. Every run appends a JSON line for each system to benchmarks/results/queries.jsonl:
percentiles of the time by the clock and of processor time, with the processor's instruction sets.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
SYSTEMS = ["triptych", "triptych-dense", "sentence-transformers"]


def serve(name: str, folder: Path, threads: int) -> None:
    """A process that holds one system; each line of its input is a list of queries."""
    import torch

    from systems import load, one_by_one

    torch.set_num_threads(threads)
    encode = load(name.removesuffix(" (before)"), folder, 512, threads)
    for line in sys.stdin:
        queries = json.loads(line)
        processor: list[float] = []

        def timed(texts: list[str], batch: int | None = None, kept: list[float] = processor) -> Any:
            started = time.process_time()
            found = encode(texts, batch)
            kept.append(time.process_time() - started)
            return found

        wall = one_by_one(timed, queries)
        print(json.dumps([wall, processor]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--serve")
    parser.add_argument("--shape", default="small", choices=["m3", "small", "tiny"])
    parser.add_argument("--systems", nargs="+", default=SYSTEMS)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=150.0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--before", type=Path, help="another checkout of this project")
    parser.add_argument("--checkpoints", type=Path, default=Path(tempfile.gettempdir()) / "triptych-bench")
    arguments = parser.parse_args()
    sys.path.insert(0, str(HERE))
    folder = arguments.checkpoints / arguments.shape
    if arguments.serve:
        serve(arguments.serve, folder, arguments.threads)
        return
    from encode import machine
    from workloads import SHAPES, make_checkpoint, workloads

    shape = SHAPES[arguments.shape]
    make_checkpoint(shape, folder)
    work = next(each for each in workloads(shape, folder, 1.0) if each.name == "query")
    queries = work.texts[:24]
    names = list(arguments.systems)
    if arguments.before:
        names += [f"{name} (before)" for name in names if name.startswith("triptych")]
    running: dict[str, subprocess.Popen[str]] = {}
    for name in names:
        source = arguments.before if name.endswith("(before)") else HERE.parent
        options = {
            "PYTHONPATH": str(source / "src"),
            "OMP_NUM_THREADS": str(arguments.threads),
            "TOKENIZERS_PARALLELISM": "false",
            # Without compiled Python a start takes four times as long.
            "PYTHONDONTWRITEBYTECODE": "",
            "PYTHONPYCACHEPREFIX": str(arguments.checkpoints / "compiled"),
        }
        command = [sys.executable, __file__, "--serve", name, "--shape", shape.name]
        command += ["--threads", str(arguments.threads), "--checkpoints", str(arguments.checkpoints)]
        running[name] = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | options
        )
    found: dict[str, list[list[float]]] = {name: [[], []] for name in names}
    started = time.monotonic()
    for turn in range(arguments.rounds + 1):
        if turn > 1 and time.monotonic() - started > arguments.seconds:
            break
        for name, process in running.items():
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(queries) + "\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
            if turn:  # the first round warms
                for kept, new in zip(found[name], answer, strict=True):
                    kept += new
    facts = {"run": time.strftime("%Y-%m-%dT%H:%M:%S"), "shape": shape.name, "machine": machine()}
    facts |= {"load": os.getloadavg()[0], "threads": arguments.threads}
    with (HERE / "results" / "queries.jsonl").open("a", encoding="utf-8") as file:
        for name, (wall, processor) in found.items():
            line: dict[str, Any] = {**facts, "system": name, "queries": len(wall)}
            for kind, seconds in (("wall", wall), ("processor", processor)):
                for part in (10, 50, 95):
                    line[f"{kind}_p{part}_ms"] = round(1e3 * float(np.percentile(seconds, part)), 3)
            file.write(json.dumps(line) + "\n")
            print({key: value for key, value in line.items() if key == "system" or "_p" in key})
    for process in running.values():
        assert process.stdin is not None
        process.stdin.close()
        process.wait()


if __name__ == "__main__":
    main()
