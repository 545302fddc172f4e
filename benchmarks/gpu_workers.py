"""Several GPUs, one worker process each: the same vectors as one GPU gives, and how much faster.

    python benchmarks/gpu_workers.py [--gpus 1 2 4] [--texts 8192] [--repeat 4]
    python benchmarks/gpu_workers.py --device cpu --gpus 1 2 --shape tiny --texts 64     # a dry run anywhere

Texts to arrays in this process, block by block, with dense and lexical heads and with all three; the speed is that of
the blocks after the first third, when every worker has its model. Prints and appends JSON lines.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from triptych import Encoder
from workloads import SHAPES, Texts, make_checkpoint, mixed_lengths

RESULTS = Path(__file__).parent / "results" / "gpu_workers.jsonl"
HEADS = (("dense", "lexical"), ("dense", "lexical", "multi"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--gpus", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--shape", default="m3", choices=list(SHAPES))
    parser.add_argument("--texts", type=int, default=8192)
    parser.add_argument("--repeat", type=int, default=4, help="how often the texts come")
    parser.add_argument("--block", type=int, default=1024)
    parser.add_argument("--plain", action="store_true", help="a tokenizer of numbered words")
    parser.add_argument("--checkpoints", type=Path, default=Path(tempfile.gettempdir()) / "triptych-bench")
    parser.add_argument("--out", type=Path, default=RESULTS)
    a = parser.parse_args()
    shape, run = SHAPES[a.shape], time.strftime("%Y-%m-%dT%H:%M:%S")
    folder = a.checkpoints / (a.shape + ("-plain" if a.plain else ""))
    make_checkpoint(shape, folder, device=a.device, plain=a.plain)
    work = Texts(folder).workload("mix", mixed_lengths(a.texts, min(2048, shape.max_tokens)))
    # In another order each time, so that the blocks are alike.
    order = [np.random.default_rng(i).permutation(len(work.texts)) for i in range(a.repeat)]
    texts = [work.texts[i] for each in order for i in each]
    tokens = np.array([work.lengths[i] for each in order for i in each])
    encoder = Encoder.from_pretrained(folder, device=a.device, dtype="bfloat16")

    def measure(devices: list[str] | None, heads: tuple[str, ...]) -> tuple[np.ndarray, float]:
        """Dense vectors, and tokens a second."""
        parts, times = list[np.ndarray](), list[float]()
        options: dict[str, Any] = {"outputs": heads, "prefix": ""}
        for part in encoder.encode_stream(texts, block=a.block, devices=devices, **options):
            parts.append(part.dense)
            times.append(time.perf_counter())
        first = len(parts) // 3
        done = tokens[(first + 1) * a.block :].sum()
        return np.concatenate(parts), float(done) / (times[-1] - times[first])

    for heads in HEADS:
        measure(None, heads)  # warm
        alone, one = measure(None, heads)
        for count in a.gpus:
            devices = [f"cuda:{i}" if a.device == "cuda" else a.device for i in range(count)]
            together, rate = measure(devices, heads)
            line = {
                "run": run,
                "shape": a.shape,
                "heads": heads,
                "gpus": count,
                "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
                "torch": torch.__version__,
                "texts": len(texts),
                "tokens": int(tokens.sum()),
                "largest_difference": float(np.abs(alone - together).max()),
                "tokens_per_s_in_this_process": one,
                "tokens_per_s": rate,
            }
            with a.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)


if __name__ == "__main__":
    main()
