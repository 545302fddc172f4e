"""How fast batches are made on the processor: tokens a second of one thread, for each stage of `gpu_train.py`.

    python benchmarks/train_data.py --out benchmarks/results/train.jsonl [--scale 0.25]

`preparing` is the tokenisation that is done once; `batches` is what every step costs: rows, negatives, packing and
sub-batches, or for RetroMAE the masks. Processor seconds of the process are counted, whatever else the machine does.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))
from gpu_train import PAIRS, STAGES, write_texts
from workloads import SHAPES, make_checkpoint


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", type=float, default=0.25, help="of the texts; the batches are as they are")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--plain", action="store_true", help="a tokenizer of numbered words")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = make_checkpoint(SHAPES["tiny"], folder / "model", plain=options.plain)
        write_texts(folder, options)
        for stage in STAGES:
            line = json.dumps(
                {"benchmark": "batches on the processor", "stage": stage} | one(stage, model, folder, options)
            )
            print(line, flush=True)
            if options.out:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(line + "\n")


def one(stage: str, model: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    from triptych.train.settings import Recipe, validate
    from triptych.train.start import prepare
    from triptych.train.tasks import Pairs, Texts

    first = stage.startswith("1")
    values = json.loads(json.dumps(STAGES[stage]))
    values["data"] |= {
        "train": str(folder / ("texts.jsonl" if first else PAIRS)),
        "cache": str(folder / stage),
    }
    recipe = validate(Recipe, {"model": str(model), "steps": 1, **values}, stage)
    start = prepare(recipe)
    begin = time.process_time()
    task: Any = (Texts if first else Pairs)(recipe, start.model, start.tokenizer)
    preparing = time.process_time() - begin
    data = task.data.datasets
    whole = sum(
        len(data[i]) if first else len(data[i].query) + sum(map(len, data[i].passages))
        for i in range(len(data))
    )
    task.batch(0)
    begin, tokens = time.process_time(), 0
    for step in range(1, options.steps + 1):
        tokens += task.batch(step).tokens
    spent = time.process_time() - begin
    return {
        "preparing_tokens_per_cpu_second": round(whole / preparing),
        "batches_tokens_per_cpu_second": round(tokens / spent),
        "tokens_a_step": tokens // options.steps,
    }


if __name__ == "__main__":
    main()
