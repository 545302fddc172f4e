"""Several GPUs through one queue of work: the same vectors as one GPU gives, and how much faster.

    python benchmarks/gpu_workers.py [--devices cuda:0 cuda:1] [--texts 16384]
    python benchmarks/gpu_workers.py --devices cpu cpu --shape tiny --texts 64     # a dry run anywhere

The same device may be named twice: then two processes share it. Prints and appends one JSON line.
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--devices", nargs="+", default=["cuda:0", "cuda:1"])
    parser.add_argument("--shape", default="m3", choices=list(SHAPES))
    parser.add_argument("--texts", type=int, default=16384)
    parser.add_argument("--block", type=int, default=512)
    parser.add_argument("--plain", action="store_true", help="a tokenizer of numbered words")
    parser.add_argument("--checkpoints", type=Path, default=Path(tempfile.gettempdir()) / "triptych-bench")
    parser.add_argument("--out", type=Path, default=RESULTS)
    a = parser.parse_args()
    shape, first = SHAPES[a.shape], a.devices[0]
    folder = a.checkpoints / (a.shape + ("-plain" if a.plain else ""))
    make_checkpoint(shape, folder, device=first.split(":")[0], plain=a.plain)
    work = Texts(folder).workload("mix", mixed_lengths(a.texts, min(2048, shape.max_tokens)))
    encoder = Encoder.from_pretrained(folder, device=a.devices[-1], dtype="bfloat16")
    options: dict[str, Any] = {"outputs": ("dense", "lexical")}

    def run(devices: list[str] | None) -> tuple[np.ndarray, float]:
        """Vectors, and texts a second over the second half of the blocks, when every worker has its model."""
        parts, times = list[np.ndarray](), list[float]()
        for part in encoder.encode_stream(work.texts, block=a.block, devices=devices, **options):
            parts.append(part.dense)
            times.append(time.perf_counter())
        half = len(parts) // 2
        return np.concatenate(parts), sum(map(len, parts[half + 1 :])) / (times[-1] - times[half])

    run(None)  # warm
    (alone, one), (together, many) = run(None), run(a.devices)
    line = {
        "run": time.strftime("%Y-%m-%dT%H:%M:%S"),
        "shape": a.shape,
        "devices": a.devices,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "torch": torch.__version__,
        "texts": len(work.texts),
        "largest_difference": float(np.abs(alone - together).max()),
        "texts_per_s_of_one": one,
        "texts_per_s_of_all": many,
    }
    with a.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(line, flush=True)


if __name__ == "__main__":
    main()
