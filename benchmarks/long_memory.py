"""Memory and time of one long document on a processor, by its length: is the growth linear?

    python benchmarks/long_memory.py [--shape m3] [--lengths 2048 4096 8192]

The peak of the process while it encodes one text with all heads, less what it held before (the weights): the kernel's
own count of resident memory, set back before each length. Appends JSON lines to benchmarks/results/long_memory.jsonl.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import torch

from encode import machine, memory_mb
from triptych import Encoder
from workloads import SHAPES, Texts, make_checkpoint

RESULTS = Path(__file__).parent / "results" / "long_memory.jsonl"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", default="m3", choices=list(SHAPES))
    parser.add_argument("--lengths", nargs="+", type=int, default=[2048, 4096, 8192])
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "int8"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--checkpoints", type=Path, default=Path(tempfile.gettempdir()) / "triptych-bench")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    folder = make_checkpoint(SHAPES[arguments.shape], arguments.checkpoints / arguments.shape)
    source = Texts(folder)
    encoder = Encoder.from_pretrained(folder, device="cpu", dtype=arguments.dtype)
    encoder.encode([source.of_length(256)])  # what is made once
    for length in arguments.lengths:
        work = source.workload(str(length), [length])
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before, wall, processor = memory_mb("VmRSS"), time.perf_counter(), time.process_time()
        encoder.encode(work.texts)
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        line = {
            "run": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "shape": arguments.shape,
            "machine": {**machine(), "threads": arguments.threads},
            "settings": encoder.describe(),
            "tokens": work.tokens,
            "weights_mb": before,
            "pass_mb": memory_mb("VmHWM") - before,
            "wall_s": wall,
            "processor_s": processor,
        }
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print({k: v for k, v in line.items() if k not in ("machine", "settings")}, flush=True)


if __name__ == "__main__":
    main()
