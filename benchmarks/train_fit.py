"""How many pairs of long texts fit into a step: all at once, by layers, and with GradCache.

The paper's figure to stand beside: 6 to 130 at 8192 tokens on 80 GB (dense alone, G = 1, split batches). Here all three
heads are trained. Doubles the batch until memory or patience ends.

    python benchmarks/train_fit.py --shape bge-m3 --device cuda --longest 8192 --out benchmarks/results/gpu_train.jsonl
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from train_unified import SHAPES, Ours, texts

WAYS = {
    "whole": {"checkpointing": False, "sub_batch_tokens": None, "from": 4},
    "gradcache": {"checkpointing": False, "sub_batch_tokens": 2, "from": 64},
    "layer by layer": {"checkpointing": True, "sub_batch_tokens": None, "from": 16},
}


def fits(system: Ours, options: Any, pairs: int) -> tuple[float, float] | None:
    """Seconds and GB of a step with so many pairs; None: out of memory."""
    options.queries = pairs
    batch = texts(options, 0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    begin = time.perf_counter()
    try:
        system.step(*batch)
        torch.cuda.synchronize()
    except torch.OutOfMemoryError:
        return None
    finally:
        system.model.zero_grad(set_to_none=True)
    return time.perf_counter() - begin, torch.cuda.max_memory_allocated() / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shape", choices=SHAPES, default="bge-m3")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--longest", type=int, default=8192)
    parser.add_argument(
        "--patience", type=float, default=30, help="seconds of a step after which no more is tried"
    )
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    for name, way in WAYS.items():
        budget = way["sub_batch_tokens"]
        options: Any = SimpleNamespace(
            shape=given.shape,
            device=given.device,
            dtype="bfloat16",
            queries=1,
            group=1,
            shortest=given.longest,
            longest=given.longest,
            checkpointing=way["checkpointing"],
            compile=False,
            sub_batch_tokens=None if budget is None else budget * given.longest,
        )
        system = Ours(options)
        system.model.to(given.device).train()
        # Room for AdamW's two moments, as in a real step.
        moments = [torch.zeros(2, *p.shape, device=given.device) for p in system.model.parameters()]
        most, seconds, gigabytes, pairs = 0, 0.0, 0.0, way["from"]
        while seconds < given.patience and (found := fits(system, options, pairs)) is not None:
            most, (seconds, gigabytes) = pairs, found
            pairs *= 2
        ended = "patience" if seconds >= given.patience else "memory"
        line = json.dumps(
            {
                "benchmark": "pairs that fit",
                "place": torch.cuda.get_device_name(),
                "shape": given.shape,
                "length": given.longest,
                "way": name,
                "pairs": most,
                "ended_by": ended,
                "seconds": seconds,
                "peak_gb": gigabytes,
            }
        )
        print(line, flush=True)
        if given.out:
            with given.out.open("a", encoding="utf-8") as log:
                log.write(line + "\n")
        del system, moments


if __name__ == "__main__":
    main()
